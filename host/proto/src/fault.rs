//! Why a call of a plugin has no answer. The merge host makes these, and the core and the client's reply carry them.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

/// Of whom as many calls wait as may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum QueueOf {
    /// Of all tenants together.
    All,
    /// Of one tenant.
    Tenant,
    /// Of one bucket.
    Bucket,
}

impl core::fmt::Display for QueueOf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::All => "",
            Self::Tenant => " of this tenant",
            Self::Bucket => " of this bucket",
        })
    }
}

/// Why a call has no result. The siblings are then kept as they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeFault {
    /// More siblings than one call may get.
    #[error("{count} siblings, and one merge takes {limit}")]
    TooManySiblings {
        /// The number of siblings.
        count: usize,
        /// The most siblings of one call.
        limit: usize,
    },
    /// The plugin does not export the interface of the call.
    #[error("the plugin has no {interface}")]
    NotExported {
        /// The interface's name.
        interface: &'static str,
    },
    /// The plugin returned a fault.
    #[error("the plugin refused: {0}")]
    Refused(Refusal),
    /// The plugin trapped.
    #[error("the plugin trapped: {0}")]
    Trapped(TrapKind),
    /// The plugin trapped, and its module has the names of the functions on the stack.
    #[error("the plugin trapped: {kind}, in {functions}")]
    TrappedIn {
        /// The kind of trap.
        kind: TrapKind,
        /// The innermost first, at most six, escaped.
        functions: String,
    },
    /// The plugin panicked and left its message, as guests of the SDK do.
    #[error("the plugin panicked at {message}")]
    Panicked {
        /// The location and the message, at most 400 characters, escaped.
        message: String,
    },
    /// One sibling causes the fault of the merge.
    #[error("sibling {place} of {of} (written at {stamp_ms} ms by {writer:016x}): {fault}")]
    InSibling {
        /// The sibling's place in canonical order, from 1.
        place: usize,
        /// The number of siblings.
        of: usize,
        /// When the sibling was written, in milliseconds since the Unix epoch.
        stamp_ms: u64,
        /// The actor that took the write.
        writer: u64,
        /// The fault.
        fault: Box<MergeFault>,
    },
    /// The plugin used up its fuel.
    #[error("the plugin used up its {limit} units of fuel")]
    OutOfFuel {
        /// The fuel of the call.
        limit: u64,
    },
    /// The plugin exceeded the wall-clock limit. Depends on the machine.
    #[error("the plugin did not answer within {limit:?}")]
    OutOfTime {
        /// The limit.
        limit: Duration,
    },
    /// The plugin tried to exceed its memory.
    #[error("the plugin wanted more than its {limit} bytes of memory")]
    TooMuchMemory {
        /// The most bytes allowed.
        limit: usize,
    },
    /// The result exceeds its limit.
    #[error("the plugin's result is larger than {limit} bytes")]
    ResultTooLarge {
        /// The most bytes allowed.
        limit: usize,
    },
    /// The result cannot be read: it has pointers outside of memory or an invalid discriminant.
    #[error("the plugin returned a result that cannot be read: {reason}")]
    BadResult {
        /// The engine's message.
        reason: String,
    },
    /// All instances are in use.
    #[error("all instances are busy; try again")]
    Busy,
    /// The request had ended before the call began.
    #[error("the merge did not begin within the request's time: too many are waiting")]
    TooLate,
    /// The host was stopped before the call.
    #[error("the node is stopping")]
    Stopped,
    /// A fault of the host, not of the plugin.
    #[error("the merge host failed: {reason}")]
    Host {
        /// The engine's message.
        reason: String,
    },
}

impl MergeFault {
    /// A label for metrics and logs. It tells kinds of traps and refusals apart.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooManySiblings { .. } => "too_many_siblings",
            Self::NotExported { .. } => "not_exported",
            Self::Refused(Refusal::Malformed) => "malformed",
            Self::Refused(Refusal::Unsupported) => "unsupported",
            Self::Refused(Refusal::TooLarge) => "too_large",
            Self::Trapped(TrapKind::StackOverflow) => "stack_overflow",
            Self::Trapped(TrapKind::Unreachable)
            | Self::TrappedIn { kind: TrapKind::Unreachable, .. }
            | Self::Panicked { .. } => "panicked",
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

    /// The same fault without the plugin's own words, for what more people read than the bucket's readers: a message of
    /// a panic may have a tenant's values in it.
    #[must_use]
    pub fn without_words(&self) -> Self {
        match self {
            Self::Panicked { .. } => Self::Trapped(TrapKind::Unreachable),
            Self::InSibling { place, of, stamp_ms, writer, fault } => Self::InSibling {
                place: *place,
                of: *of,
                stamp_ms: *stamp_ms,
                writer: *writer,
                fault: Box::new(fault.without_words()),
            },
            other => other.clone(),
        }
    }

    /// Whether a single value may cause the fault: the plugin refuses it or traps on it.
    #[must_use]
    pub fn is_caused_by_a_value(&self) -> bool {
        let refused = matches!(self, Self::Refused(Refusal::Malformed | Refusal::Unsupported));
        refused || matches!(self, Self::Trapped(_) | Self::TrappedIn { .. } | Self::Panicked { .. })
    }

    /// Whether every node with the same profile and limits would get the same fault. The profile names the processor's
    /// architecture, on which the depth of a stack depends.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        !matches!(self, Self::OutOfTime { .. } | Self::Busy | Self::TooLate | Self::Stopped | Self::Host { .. })
    }
}

/// The fault that a plugin returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A value is not in its format.
    #[error("a value is malformed")]
    Malformed,
    /// A value is in a version of the format that it does not support.
    #[error("a value is in a form that this version does not support")]
    Unsupported,
    /// The result would be larger than the plugin allows.
    #[error("the result would be too large")]
    TooLarge,
}

/// The kind of a trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrapKind {
    /// Recursion that is too deep.
    #[error("its stack overflowed")]
    StackOverflow,
    /// An access outside of a memory or table.
    #[error("it reached outside its memory")]
    OutOfBounds,
    /// An `unreachable` instruction: a panic or an abort.
    #[error("it panicked or aborted (an `unreachable` instruction)")]
    Unreachable,
    /// A division by zero, or a conversion that does not fit.
    #[error("an arithmetic error")]
    Arithmetic,
    /// An indirect call to no function, or to one of another type.
    #[error("it called a function that is not there")]
    BadCall,
    /// A violation of the component model's calling convention.
    #[error("it broke the calling convention of components")]
    CallingConvention,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_log_is_told_the_fault_and_not_what_the_plugin_says() {
        let panicked = MergeFault::Panicked { message: "src/lib.rs:3:4: a secret".into() };
        let nested =
            MergeFault::InSibling { place: 2, of: 3, stamp_ms: 1, writer: 2, fault: Box::new(panicked.clone()) };
        for fault in [panicked, nested] {
            let told = fault.without_words();
            assert!(fault.to_string().contains("a secret") && !told.to_string().contains("a secret"), "{told}");
            assert_eq!(told.reason(), fault.reason());
        }
        let other = MergeFault::OutOfFuel { limit: 7 };
        assert_eq!(other.without_words(), other);
    }
}
