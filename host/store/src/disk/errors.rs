//! What an error of the operating system says about the disk: nothing else may decide whether something is lost.

use rustix::io::Errno;
use std::io::{self, ErrorKind};

/// The disk, or a quota on it, is full.
pub(crate) fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The system is out of descriptors or memory, which says nothing about the disk.
pub(crate) fn is_short(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM]) || error.kind() == ErrorKind::OutOfMemory
}

/// The file is gone or is not what was written, or the disk cannot read it. Every other error, above all one that passes or
/// one of permissions, leaves open what is on the disk: nothing may be given up for it.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    is_other_content(error) || is_unreadable(error)
}

/// The file is gone or is not what was written.
pub(crate) fn is_other_content(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::UnexpectedEof)
}

/// The disk cannot read what is on it, or the file system has found its own structures damaged there.
fn is_unreadable(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN, Errno::ILSEQ])
}

fn is_one_of(error: &io::Error, codes: &[Errno]) -> bool {
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}
