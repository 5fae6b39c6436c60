//! The errors of the host and of loading a component. The faults of a call are in rejoin-proto, since the core knows
//! them.

pub use rejoin_proto::fault::{MergeFault, QueueOf, Refusal, TrapKind};

/// The host itself cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The engine refuses its configuration or cannot reserve its address space.
    #[error(
        "the WebAssembly engine cannot start: {0}. It reserves address space for its instances: is it limited (ulimit \
            -v)?"
    )]
    Engine(String),
    /// A thread could not be started.
    #[error("a merge thread cannot be started: {0}. Is the number of threads limited (ulimit -u)?")]
    Thread(#[from] std::io::Error),
}

/// Why a component cannot be used as a plugin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It has more bytes than [`ModuleLimits::bytes`](crate::ModuleLimits::bytes).
    #[error(
        "the module has {bytes} bytes, and {limit} are allowed: build it with opt-level \"s\", lto and strip, or ask \
            for a larger limit"
    )]
    TooLarge {
        /// Bytes of the component.
        bytes: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// Not WebAssembly, or broken.
    #[error("this is no WebAssembly component: {reason}")]
    NotAComponent {
        /// The parser's message.
        reason: String,
    },
    /// A core module that has not been made a component.
    #[error("this is a core WebAssembly module, not a component: `rejoin plugin build` makes a component of it")]
    CoreModule,
    /// It imports a function, and a plugin may import nothing.
    #[error(
        "the component imports \"{name}\", and a plugin may import nothing: it has no clock, files, network or random \
            numbers. Remove what needs it"
    )]
    Imports {
        /// The name of its first import.
        name: String,
    },
    /// It does not export the merger interface.
    #[error(
        "the component does not export rejoin:plugin/merger@0.1 (it exports {exports}): list Merger in \
            rejoin_guest::export!"
    )]
    NoMerger {
        /// Its exports, at most eight names.
        exports: String,
    },
    /// It exports one of the plugin interfaces in another version or with other types.
    #[error(
        "the component's export \"{interface}\" is not what this host expects: {reason}. Rebuild it with this \
            version's SDK"
    )]
    WrongInterface {
        /// The export's name.
        interface: String,
        /// The difference.
        reason: String,
    },
    /// It exceeds one of the other limits of [`ModuleLimits`](crate::ModuleLimits).
    #[error("the component has {count} {what}, and {limit} are allowed")]
    StructureLimit {
        /// The counted part, in the plural.
        what: &'static str,
        /// The number of these parts.
        count: u64,
        /// The most allowed.
        limit: u64,
    },
    /// The engine cannot compile or load it.
    #[error("the component cannot be compiled: {reason}")]
    Uncompilable {
        /// The engine's message.
        reason: String,
    },
    /// Its instantiation fails.
    #[error("the component cannot be started: {fault}. Let it do less when it is loaded")]
    CannotStart {
        /// The fault of the instantiation.
        fault: MergeFault,
    },
    /// Its metadata cannot be read.
    #[error("the component cannot describe itself: {reason}")]
    BadMetadata {
        /// The reason.
        reason: String,
    },
    /// Compiling it exceeds a limit of memory, time or machine code. This depends on the machine, so it is tried again.
    #[error(
        "the component takes more than {limit} to compile: make its largest functions smaller, or have it built with \
            opt-level \"s\""
    )]
    TooCostly {
        /// The limit that was exceeded, with its unit.
        limit: String,
    },
    /// The host was stopped, or lacked a resource, before the component was compiled or loaded.
    #[error("the module was not compiled or loaded: {reason}. The module may be good: push it again")]
    NotTried {
        /// The reason.
        reason: String,
    },
    /// It overflows its stack in the fixed run of calls by which nodes compare themselves. It is not stored, since how
    /// deep a stack is depends on the processor.
    #[error(
        "the plugin overflows its stack on values of its own sampler, or on a few short ones: how deep it may recurse \
            depends on the processor, so nodes cannot compare what they compute with it. Have it recurse less deeply, \
            or refuse what is nested too deeply"
    )]
    OverflowsStack,
    /// What it answers here differs from what it answers elsewhere. This is the machine's fault, so it is tried again.
    #[error("{reason}")]
    Differs {
        /// What differs, and what to do.
        reason: String,
    },
}

impl Rejection {
    /// Whether the component is the cause, so that every node of this release would always refuse it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::NotTried { .. } | Self::TooCostly { .. } | Self::Differs { .. })
    }
}
