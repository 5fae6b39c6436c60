//! What an error of the operating system says about the disk: nothing else may decide whether something is lost.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

/// The disk, or a quota on it, is full.
pub(crate) fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The system is out of descriptors or memory, which says nothing about the disk.
pub(crate) fn is_short(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM]) || error.kind() == ErrorKind::OutOfMemory
}

/// The file is gone or is not what was written, or the disk cannot read it. Every other error, above all one that
/// passes or one of permissions, leaves open what is on the disk: nothing may be given up for it.
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
    let number = number(error);
    codes.iter().any(|code| number == Some(code.raw_os_error()))
}

/// The system's number of an error. Libraries that add a path to an error (tempfile, which the tree uses, is one) keep
/// the number in its text only.
fn number(error: &io::Error) -> Option<i32> {
    let in_text = || {
        let text = error.to_string();
        text.split_once("(os error ")?.1.split_once(')')?.0.parse().ok()
    };
    error.raw_os_error().or_else(in_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_number_however_it_is_wrapped() {
        let wrapped = |errno: Errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{error} at path \"/a/b\""))
        };
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            for error in [io::Error::from(errno), wrapped(errno)] {
                assert!(is_short(&error) && !is_damage(&error) && !no_room(&error), "{error}");
            }
        }
        for error in [io::Error::from(Errno::NOSPC), wrapped(Errno::NOSPC), io::Error::from(Errno::DQUOT)] {
            assert!(no_room(&error) && !is_short(&error) && !is_damage(&error), "{error}");
        }
        for errno in [Errno::IO, Errno::NODATA, Errno::UCLEAN, Errno::NOENT] {
            assert!(is_damage(&io::Error::from(errno)) && !is_short(&io::Error::from(errno)), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::PERM, Errno::INTR, Errno::TIMEDOUT, Errno::ROFS] {
            let error = io::Error::from(errno);
            assert!(!is_damage(&error) && !is_short(&error) && !no_room(&error), "{errno} leaves open what is on the disk");
        }
    }
}
