//! How a process finds its data directory at its start.

/// How this start found the data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Start {
    /// The directory is new, or no start on it has ever finished.
    pub first: bool,
    /// The last process stopped cleanly: everything it committed was synced.
    pub clean: bool,
    /// The operating system has not been restarted since, so everything written is at least in its page cache. A boot
    /// id that cannot be read counts as another one.
    pub same_boot: bool,
    /// Unsynced writes may have been gone at an earlier start, or the end of an actor
    /// [could not be written](crate::DataDir::owe_renewal), and no start has reached
    /// [`settle`](crate::DataDir::settle) since.
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

    /// Whether writes that were committed but never synced may be gone, or new actors are still owed. Then every actor
    /// of this node ends and new ones are drawn before anything is minted; afterwards the node calls
    /// [`DataDir::settle`](crate::DataDir::settle).
    #[must_use]
    pub const fn unsynced_may_be_gone(&self) -> bool {
        !self.first && (self.renewal_owed || (!self.clean && !self.same_boot))
    }
}
