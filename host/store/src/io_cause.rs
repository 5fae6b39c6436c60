//! Classifies the operating system's errors. Every decision between "lost", "try again" and "stop" goes through
//! [`IoCause::of`]; no other place looks at an error's kind or number.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

/// What an I/O error says about the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoCause {
    /// The file system, or a quota on it, is full.
    NoRoom,
    /// The process or the machine is out of file descriptors or memory, which says nothing about the disk.
    OutOfResources,
    /// The file is gone or is not what was written.
    WrongContent,
    /// The disk cannot read the data, or the file system has found its own structures damaged.
    Unreadable,
    /// Everything else, such as missing permissions or an interrupted call. It leaves open what is on the disk, so
    /// nothing may be given up because of it.
    Other,
}

impl IoCause {
    /// Classifies an error.
    pub(crate) fn of(error: &io::Error) -> Self {
        let is = |codes: &[Errno]| {
            number(error).is_some_and(|number| codes.iter().any(|code| code.raw_os_error() == number))
        };
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoRoom,
            ErrorKind::OutOfMemory => Self::OutOfResources,
            _ if is(&[Errno::MFILE, Errno::NFILE, Errno::NOMEM]) => Self::OutOfResources,
            _ if is(&[Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN, Errno::ILSEQ]) => Self::Unreadable,
            ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::UnexpectedEof => Self::WrongContent,
            _ => Self::Other,
        }
    }

    /// Whether data may be treated as lost because of the error.
    pub(crate) fn is_damage(self) -> bool {
        matches!(self, Self::WrongContent | Self::Unreadable)
    }

    /// Whether the same call may succeed once there is room, descriptors or memory again.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, Self::NoRoom | Self::OutOfResources)
    }
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
    fn an_error_is_classified_by_its_number_however_it_is_wrapped() {
        let wrapped = |errno: Errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{error} at path \"/a/b\""))
        };
        let causes = [
            (IoCause::OutOfResources, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM][..]),
            (IoCause::NoRoom, &[Errno::NOSPC, Errno::DQUOT]),
            (IoCause::Unreadable, &[Errno::IO, Errno::NODATA, Errno::UCLEAN]),
            (IoCause::WrongContent, &[Errno::NOENT]),
            (IoCause::Other, &[Errno::ACCESS, Errno::PERM, Errno::INTR, Errno::TIMEDOUT, Errno::ROFS]),
        ];
        for (cause, errnos) in causes {
            for errno in errnos {
                for error in [io::Error::from(*errno), wrapped(*errno)] {
                    assert_eq!(IoCause::of(&error), cause, "{error}");
                }
            }
        }
        assert_eq!(IoCause::of(&io::Error::from(ErrorKind::OutOfMemory)), IoCause::OutOfResources);
    }
}
