//! Why a call of a plugin has no answer. The merge host makes these, and the core and the client's reply carry them.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

/// Why a call has no answer. The siblings are then kept as they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeFault {
    /// More siblings than one call may be given.
    #[error("{count} siblings, and one merge takes {limit}")]
    TooManySiblings {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The plugin does not have the ability that was asked for.
    #[error("the plugin has no {interface}")]
    NotExported {
        /// The interface's name.
        interface: &'static str,
    },
    /// The plugin says no.
    #[error("the plugin refused: {0}")]
    Refused(Refusal),
    /// The plugin did something that WebAssembly forbids, or panicked.
    #[error("the plugin trapped: {0}")]
    Trapped(TrapKind),
    /// The same, and its module says in which functions it was.
    #[error("the plugin trapped: {kind}, in {functions}")]
    TrappedIn {
        /// What kind of trap it was.
        kind: TrapKind,
        /// The innermost first, at most six, escaped for terminals.
        functions: String,
    },
    /// The plugin panicked and left its message, as guests of the SDK do.
    #[error("the plugin panicked at {message}")]
    Panicked {
        /// The place and the message, at most 400 characters, escaped for terminals.
        message: String,
    },
    /// One sibling of a merge causes its fault.
    #[error("sibling {place} of {of} (written at {stamp_ms} ms by {writer:016x}): {fault}")]
    InSibling {
        /// Its place in canonical order, from 1.
        place: usize,
        /// How many siblings there were.
        of: usize,
        /// When it was written, in milliseconds since the Unix epoch.
        stamp_ms: u64,
        /// Which actor took the write.
        writer: u64,
        /// What it causes.
        fault: Box<MergeFault>,
    },
    /// The plugin used up its fuel.
    #[error("the plugin used up its {limit} units of fuel")]
    OutOfFuel {
        /// How much it had.
        limit: u64,
    },
    /// The plugin took too long. Depends on the machine.
    #[error("the plugin did not answer within {limit:?}")]
    OutOfTime {
        /// How long it had.
        limit: Duration,
    },
    /// The plugin wanted more memory.
    #[error("the plugin wanted more than its {limit} bytes of memory")]
    TooMuchMemory {
        /// How much it may have.
        limit: usize,
    },
    /// The result is too large.
    #[error("the plugin's result is larger than {limit} bytes")]
    ResultTooLarge {
        /// How large it may be.
        limit: usize,
    },
    /// The result is no result: pointers outside of memory, or a number that stands for nothing.
    #[error("the plugin returned what cannot be read: {reason}")]
    BadResult {
        /// What is wrong with it.
        reason: String,
    },
    /// Every instance is in use.
    #[error("all instances are busy; try again")]
    Busy,
    /// Nobody waited for the result any more when the call's turn came.
    #[error("the merge did not begin within the request's time: too many are waiting")]
    TooLate,
    /// The host was stopped before the call.
    #[error("the node is stopping")]
    Stopped,
    /// A fault of the host, not of the plugin.
    #[error("the merge host failed: {reason}")]
    Host {
        /// What happened.
        reason: String,
    },
}

impl MergeFault {
    /// One word for it, for metrics and logs. What a trap or a refusal was is part of it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooManySiblings { .. } => "too_many_siblings",
            Self::NotExported { .. } => "not_exported",
            Self::Refused(Refusal::Malformed) => "malformed",
            Self::Refused(Refusal::Unsupported) => "unsupported",
            Self::Refused(Refusal::TooLarge) => "too_large",
            Self::Trapped(TrapKind::StackOverflow) => "stack_overflow",
            Self::Trapped(TrapKind::Unreachable) | Self::TrappedIn { kind: TrapKind::Unreachable, .. } | Self::Panicked { .. } => {
                "panicked"
            }
            Self::Trapped(_) | Self::TrappedIn { .. } => "trapped",
            Self::InSibling { fault, .. } => fault.reason(),
            Self::OutOfFuel { .. } => "out_of_fuel",
            Self::OutOfTime { .. } => "out_of_time",
            Self::TooMuchMemory { .. } => "too_much_memory",
            Self::ResultTooLarge { .. } => "result_too_large",
            Self::BadResult { .. } => "bad_result",
            Self::Busy => "busy",
            Self::TooLate => "too_late",
            Self::Stopped => "stopping",
            Self::Host { .. } => "host",
        }
    }

    /// Whether one value alone may cause it: it cannot be read, or the plugin breaks on it.
    #[must_use]
    pub fn is_caused_by_a_value(&self) -> bool {
        let refused = matches!(self, Self::Refused(Refusal::Malformed | Refusal::Unsupported));
        refused || matches!(self, Self::Trapped(_) | Self::TrappedIn { .. } | Self::Panicked { .. })
    }

    /// Whether every node with the same profile and limits would meet the same fault.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        !matches!(self, Self::OutOfTime { .. } | Self::Busy | Self::TooLate | Self::Stopped | Self::Host { .. })
    }
}

/// The plugin's own reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A value is not in its format.
    #[error("a value is malformed")]
    Malformed,
    /// A value is in a form it does not know.
    #[error("a value is in a form that this version does not support")]
    Unsupported,
    /// The result would be larger than it allows.
    #[error("the result would be too large")]
    TooLarge,
}

/// What kind of trap it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrapKind {
    /// It recursed too deeply.
    #[error("its stack overflowed")]
    StackOverflow,
    /// It read or wrote outside its memory or table.
    #[error("it reached outside its memory")]
    OutOfBounds,
    /// It gave up: a panic or an abort.
    #[error("it panicked or aborted (an `unreachable` instruction)")]
    Unreachable,
    /// It divided by zero, or a number did not fit.
    #[error("an arithmetic error")]
    Arithmetic,
    /// It called through a pointer to nothing, or to another kind of function.
    #[error("it called a function that is not there")]
    BadCall,
    /// It broke the rules of the component model.
    #[error("it broke the calling convention of components")]
    CallingConvention,
}
