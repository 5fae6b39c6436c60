//! The clean-stop mark and the OS boot id: together they say whether writes that were never synced may be gone.

use std::path::{Path, PathBuf};

use crate::blob;
use crate::disk::{Disk, no_room};
use crate::error::FileError;

/// The bytes of the state file behind its first line. A boot id has 36.
const LENGTH: usize = 128;

/// How this start found the data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Start {
    /// The directory is new, or no start on it has come to its end so far.
    pub first: bool,
    /// The last process stopped cleanly: everything it committed was synced.
    pub clean: bool,
    /// The operating system has not been restarted since, so what was written is at least in its memory. A boot id that
    /// cannot be read counts as another one.
    pub same_boot: bool,
    /// An earlier start found that unsynced writes may be gone, or that the end of an actor
    /// [could not be written](crate::DataDir::owe_renewal), and did not live to [`settle`](crate::DataDir::settle).
    pub renewal_owed: bool,
}

impl Start {
    /// The start of a new directory.
    pub const FIRST: Self = Self { first: true, clean: true, same_boot: true, renewal_owed: false };
    /// The start after a clean stop.
    pub const CLEAN: Self = Self { first: false, clean: true, same_boot: true, renewal_owed: false };
    /// The start after a crash of the process on a machine that stayed up.
    pub const KILLED: Self = Self { first: false, clean: false, same_boot: true, renewal_owed: false };
    /// The start after a crash of the machine.
    pub const POWER_LOST: Self = Self { first: false, clean: false, same_boot: false, renewal_owed: false };

    /// Whether writes that were committed but never synced may be gone, or new actors are still owed: then every actor
    /// of this node ends, and new ones are drawn, before anything is minted; afterwards the node calls
    /// [`DataDir::settle`](crate::DataDir::settle).
    #[must_use]
    pub const fn unsynced_may_be_gone(&self) -> bool {
        !self.first && (self.renewal_owed || (!self.clean && !self.same_boot))
    }
}

/// The state file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    /// The OS boot id at the last start, empty if it could not be read.
    pub(super) boot: String,
    /// Whether the last stop was clean.
    pub(super) clean: bool,
    /// Whether new actors are still owed.
    pub(super) renewal_owed: bool,
    /// Whether a start has come to its end. Until then what is missing was never there.
    pub(super) made: bool,
}

impl State {
    /// Reads what the last process left, and durably replaces it by the state of a running node.
    pub(super) fn begin(disk: &dyn Disk, dir: &Path, first: bool) -> Result<(Self, Start), FileError> {
        let boot = boot_id();
        let last = match Self::read(disk, dir) {
            Err(error) if error.is_damage() => {
                tracing::error!(%error, "the state file is damaged: this start takes it that unsynced writes may be gone");
                None
            }
            last => last?,
        };
        let made = last.as_ref().is_some_and(|last| last.made);
        let start = match last {
            _ if first => Start::FIRST,
            // An earlier first start did not come to its end: no actor of it was ever used.
            Some(last) if !last.made => {
                Start { first: true, clean: false, same_boot: !boot.is_empty() && last.boot == boot, renewal_owed: false }
            }
            // The version file was written and the state file was not, or it was removed or damaged: nothing is known.
            None => Start::POWER_LOST,
            Some(last) => {
                Start { first: false, clean: last.clean, same_boot: !boot.is_empty() && last.boot == boot, renewal_owed: last.renewal_owed }
            }
        };
        let state = Self { boot, clean: false, renewal_owed: start.unsynced_may_be_gone(), made: made || !start.first };
        state.write(disk, dir)?;
        Ok((state, start))
    }

    /// Reads the state file.
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, FileError> {
        let path = file(dir);
        let Some(content) = blob::read(disk, &path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&content);
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned);
        let damaged = |why: &str| FileError::Damaged { path: path.clone(), why: why.to_owned() };
        Ok(Some(Self {
            boot: field("boot").ok_or_else(|| damaged("it names no boot id"))?,
            clean: field("clean").ok_or_else(|| damaged("it has no clean-stop mark"))? == "true",
            renewal_owed: field("renewal_owed").ok_or_else(|| damaged("it does not say whether actors are owed"))? == "true",
            made: field("made").is_none_or(|made| made != "false"),
        }))
    }

    /// Durably replaces the state file. On a full disk it is written over: a node must be able to start there, and to
    /// stop cleanly.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
        let text = format!("boot {}\nclean {}\nrenewal_owed {}\nmade {}\n", self.boot, self.clean, self.renewal_owed, self.made);
        // Always of one length, so that it can be.
        let text = format!("{text:<0$}\n", LENGTH - 1);
        match blob::write(disk, &file(dir), text.as_bytes()) {
            Err(error) if error.source_error().is_some_and(no_room) => {
                blob::overwrite(disk, &file(dir), text.as_bytes()).map_err(|_| error)
            }
            written => written,
        }
    }
}

/// Where the state file is.
fn file(dir: &Path) -> PathBuf {
    dir.join("STATE")
}

/// The operating system's boot id, empty if it cannot be read.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
