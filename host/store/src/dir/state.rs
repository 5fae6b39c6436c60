//! The state file: the clean-stop mark and the OS boot id. Together they tell whether writes that were never synced may
//! be gone.

use std::path::{Path, PathBuf};

use crate::blob;
use crate::disk::Disk;
use crate::error::FileError;
use crate::io_cause::IoCause;
use crate::start::Start;

/// The bytes of the state file behind its first line. A boot id has 36 of them.
const LENGTH: usize = 128;

/// The state file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    /// The OS boot id at the last start, empty if it could not be read.
    pub(super) boot: String,
    /// Whether the last stop was clean.
    pub(super) clean: bool,
    /// Whether new actors are still owed.
    pub(super) renewal_owed: bool,
    /// Whether a start has ever finished. Until then a missing file was never there.
    pub(super) made: bool,
}

impl State {
    /// Reads the state that the last process has left, and durably replaces it by that of a running node.
    pub(super) fn begin(disk: &dyn Disk, dir: &Path, first: bool) -> Result<(Self, Start), FileError> {
        let boot = boot_id();
        let last = match Self::read(disk, dir) {
            Err(error) if error.cause().is_damage() => {
                tracing::error!(%error, "the state file is damaged: unsynced writes are assumed to be gone");
                None
            }
            last => last?,
        };
        let made = last.as_ref().is_some_and(|last| last.made);
        let start = match last {
            _ if first => Start::FIRST,
            // The first start has not finished: none of its actors was ever used.
            Some(last) if !last.made => Start {
                first: true,
                clean: false,
                same_boot: !boot.is_empty() && last.boot == boot,
                renewal_owed: false,
            },
            // The state file was never written, removed or damaged.
            None => Start::POWER_LOST,
            Some(last) => Start {
                first: false,
                clean: last.clean,
                same_boot: !boot.is_empty() && last.boot == boot,
                renewal_owed: last.renewal_owed,
            },
        };
        let state = Self { boot, clean: false, renewal_owed: start.unsynced_may_be_gone(), made: made || !start.first };
        state.write(disk, dir)?;
        Ok((state, start))
    }

    fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, FileError> {
        let path = file(dir);
        let Some(content) = blob::read(disk, &path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&content);
        let field =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned);
        let damaged = |why: &str| FileError::Damaged { path: path.clone(), why: why.to_owned() };
        Ok(Some(Self {
            boot: field("boot").ok_or_else(|| damaged("it names no boot id"))?,
            clean: field("clean").ok_or_else(|| damaged("it has no clean-stop mark"))? == "true",
            renewal_owed: field("renewal_owed").ok_or_else(|| damaged("it does not say whether actors are owed"))?
                == "true",
            made: field("made").is_none_or(|made| made != "false"),
        }))
    }

    /// Durably replaces the state file. On a full disk it is overwritten in place: a node must be able to start and to
    /// stop cleanly there.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
        let text = format!(
            "boot {}\nclean {}\nrenewal_owed {}\nmade {}\n",
            self.boot, self.clean, self.renewal_owed, self.made
        );
        // Overwriting needs a constant length.
        let text = format!("{text:<0$}\n", LENGTH - 1);
        match blob::write(disk, &file(dir), text.as_bytes()) {
            Err(error) if error.cause() == IoCause::NoRoom => {
                blob::overwrite(disk, &file(dir), text.as_bytes()).map_err(|_| error)
            }
            written => written,
        }
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("STATE")
}

/// The operating system's boot id, empty if it cannot be read.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
