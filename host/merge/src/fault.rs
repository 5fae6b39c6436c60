//! What goes wrong before a plugin is called; and the faults of its calls, which the core knows too.

pub use rejoin_proto::fault::{MergeFault, Refusal, TrapKind};

/// The host itself cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The engine refuses its configuration or cannot reserve its memory.
    #[error("the WebAssembly engine cannot start: {0}. It reserves address space for its instances: is it limited (ulimit -v)?")]
    Engine(String),
    /// A thread could not be started.
    #[error("a merge thread cannot be started: {0}. Is the number of threads limited (ulimit -u)?")]
    Thread(#[from] std::io::Error),
}

/// Why a module is no plugin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Too many bytes.
    #[error(
        "the module has {bytes} bytes, and {limit} are allowed: build it with opt-level \"s\", lto and strip, or ask for a larger limit"
    )]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Not WebAssembly, or broken.
    #[error("this is no WebAssembly component: {reason}")]
    NotAComponent {
        /// What the parser says.
        reason: String,
    },
    /// A core module that has not been made a component.
    #[error("this is a core WebAssembly module, not a component: `rejoin plugin build` makes a component of it")]
    CoreModule,
    /// It wants something of the host.
    #[error(
        "the component imports \"{name}\", and a plugin may import nothing: it has no clock, files, network or random numbers. Remove what needs it"
    )]
    Imports {
        /// The first thing it imports.
        name: String,
    },
    /// It cannot merge.
    #[error("the component does not export rejoin:plugin/merger@0.1 (it exports {exports}): list Merger in rejoin_guest::export!")]
    NoMerger {
        /// What it exports instead.
        exports: String,
    },
    /// An interface of ours in another version or with other types.
    #[error("the component's export \"{interface}\" is not what this host expects: {reason}. Rebuild it with this version's SDK")]
    WrongInterface {
        /// The export's name.
        interface: String,
        /// What differs.
        reason: String,
    },
    /// Too many or too large parts.
    #[error("the component has {count} {what}, and {limit} are allowed")]
    StructureLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        count: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The engine does not take it.
    #[error("the component cannot be compiled: {reason}")]
    Uncompilable {
        /// What the engine says.
        reason: String,
    },
    /// It fails before anything is asked of it.
    #[error("the component cannot be started: {fault}. What it does when it is loaded must be little")]
    CannotStart {
        /// What happens.
        fault: MergeFault,
    },
    /// Its own description fails.
    #[error("the component cannot describe itself: {reason}")]
    BadMetadata {
        /// Why.
        reason: String,
    },
    /// Compiling it takes too much. How much it takes depends on the machine; it may be tried again later.
    #[error("the component takes more than {limit} to compile: make its largest functions smaller, or have it built with opt-level \"s\"")]
    TooCostly {
        /// What it takes too much of, and how much it may take.
        limit: String,
    },
    /// The host was stopped, or failed, before it was compiled.
    #[error("the module was not compiled or loaded: {reason}. Nothing is known against it; push it again")]
    NotTried {
        /// Why.
        reason: String,
    },
}

impl Rejection {
    /// Whether the component itself is to blame, so that every node of this release would refuse it for ever.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::NotTried { .. } | Self::TooCostly { .. })
    }
}
