//! A loaded plugin: its digest, its exported interfaces and its metadata.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use wasmtime::component::InstancePre;

use rejoin_proto::PluginDigest;
use rejoin_proto::catalog::Transcript;

use crate::bindings::{describe, merge, operate, present, sample, validate};
use crate::call::{self, CallState};
use crate::escape::{escape_untrusted, is_printable};
use crate::fault::{MergeFault, Rejection};
use crate::limits::CallLimits;
use crate::scan::{is_interface, no_merger};

/// A loaded plugin. Cloning is cheap; the code is freed with the last clone.
#[derive(Clone)]
pub struct Plugin(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) digest: PluginDigest,
    pub(crate) metadata: Option<PluginMetadata>,
    pub(crate) merge: merge::MergePre<CallState>,
    pub(crate) validate: Option<validate::ValidatePre<CallState>>,
    pub(crate) operate: Option<operate::OperatePre<CallState>>,
    pub(crate) sample: Option<sample::SamplePre<CallState>>,
    pub(crate) present: Option<present::PresentPre<CallState>>,
    pub(crate) describe: Option<describe::DescribePre<CallState>>,
    /// Set by the queue that has compiled it, unless it overflows its stack.
    pub(crate) transcript: OnceLock<Transcript>,
}

/// A plugin's description of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginMetadata {
    /// 1 to 64 bytes of UTF-8 without control characters or invisible characters.
    pub name: String,
    /// As `name`.
    pub version: String,
    /// The version of its value format.
    pub schema: u32,
    /// Whether values carry their own causality, so that merged values may be stored at once.
    pub self_causal: bool,
}

/// The optional interfaces that a plugin exports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exports {
    /// `validator`: it checks values before every put.
    pub validate: bool,
    /// `operator`: it has operations of its own.
    pub operate: bool,
    /// `sampler`: it draws values for the law checker.
    pub sample: bool,
    /// `presenter`: it shows values to people.
    pub present: bool,
    /// `about`: it has metadata.
    pub describe: bool,
}

/// The digest of a component, the SHA-256 of its bytes. It identifies the plugin.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> PluginDigest {
    PluginDigest(Sha256::digest(bytes).into())
}

impl Plugin {
    /// The SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> PluginDigest {
        self.0.digest
    }

    /// Its metadata, if it exports `about`.
    #[must_use]
    pub fn metadata(&self) -> Option<&PluginMetadata> {
        self.0.metadata.as_ref()
    }

    /// What it has answered in the fixed run of [`Host::transcript`](crate::Host::transcript), if a
    /// [`CompileQueue`](crate::CompileQueue) has loaded it. One that overflows its stack has none.
    #[must_use]
    pub fn transcript(&self) -> Option<Transcript> {
        self.0.transcript.get().copied()
    }

    /// The optional interfaces that it exports.
    #[must_use]
    pub fn exports(&self) -> Exports {
        Exports {
            validate: self.0.validate.is_some(),
            operate: self.0.operate.is_some(),
            sample: self.0.sample.is_some(),
            present: self.0.present.is_some(),
            describe: self.0.describe.is_some(),
        }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("digest", &self.0.digest)
            .field("metadata", &self.0.metadata)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Finds the interfaces among the exports. An exported interface must match the contract; a missing optional one is
    /// no error.
    pub(crate) fn new(
        digest: PluginDigest,
        pre: &InstancePre<CallState>,
        exports: &[String],
    ) -> Result<Self, Rejection> {
        macro_rules! ability {
            ($interface:literal, $pre:ty) => {
                exported(exports, $interface, || <$pre>::new(pre.clone()))?
            };
        }
        Ok(Self {
            digest,
            metadata: None,
            merge: ability!("merger", merge::MergePre<CallState>).ok_or_else(|| no_merger(exports))?,
            validate: ability!("validator", validate::ValidatePre<CallState>),
            operate: ability!("operator", operate::OperatePre<CallState>),
            sample: ability!("sampler", sample::SamplePre<CallState>),
            present: ability!("presenter", present::PresentPre<CallState>),
            describe: ability!("about", describe::DescribePre<CallState>),
            transcript: OnceLock::new(),
        })
    }
}

impl Inner {
    /// Instantiates the plugin once for every interface it exports. Only this compares the types of its functions with
    /// the contract, and a plugin that cannot be instantiated is refused when it is pushed.
    pub(crate) fn try_all(&self, exports: &[String]) -> Result<(), Rejection> {
        macro_rules! try_ability {
            ($interface:literal, $pre:expr) => {
                if let Some(pre) = $pre {
                    let made =
                        call::run(pre.engine(), &CallLimits::for_loading(), |store| pre.instantiate(store).map(drop));
                    made.map_err(|fault| cannot_start($interface, exports, fault))?;
                }
            };
        }
        try_ability!("merger", Some(&self.merge));
        try_ability!("validator", &self.validate);
        try_ability!("operator", &self.operate);
        try_ability!("sampler", &self.sample);
        try_ability!("presenter", &self.present);
        try_ability!("about", &self.describe);
        Ok(())
    }
}

fn cannot_start(interface: &str, exports: &[String], fault: MergeFault) -> Rejection {
    match fault {
        MergeFault::BadResult { reason } => {
            let name = exports.iter().find(|name| is_interface(name, interface));
            Rejection::WrongInterface {
                interface: name.map_or_else(|| interface.to_owned(), |name| escape_untrusted(name)),
                reason,
            }
        }
        // The functions on the stack say nothing here, since no function was called.
        MergeFault::TrappedIn { kind, .. } => Rejection::CannotStart { fault: MergeFault::Trapped(kind) },
        fault if fault.is_deterministic() => Rejection::CannotStart { fault },
        fault => Rejection::NotTried { reason: fault.to_string() },
    }
}

fn exported<T>(
    exports: &[String],
    interface: &str,
    new: impl FnOnce() -> wasmtime::Result<T>,
) -> Result<Option<T>, Rejection> {
    let Some(name) = exports.iter().find(|name| is_interface(name, interface)) else { return Ok(None) };
    new().map(Some).map_err(|error| Rejection::WrongInterface {
        interface: escape_untrusted(name),
        reason: escape_untrusted(&format!("{error:#}")),
    })
}

impl PluginMetadata {
    /// Checks the texts, which appear in logs, metrics and tables.
    pub(crate) fn check(metadata: describe::exports::rejoin::plugin::about::Card) -> Result<Self, String> {
        let text = |what: &str, bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).map_err(|_| format!("its {what} is not UTF-8"))?;
            let fits = (1..=64).contains(&text.len()) && text.chars().all(is_printable);
            let asked = "must have 1 to 64 bytes, and no control characters or characters that cannot be seen";
            if fits { Ok(text) } else { Err(format!("its {what} {asked}")) }
        };
        Ok(Self {
            name: text("name", metadata.name)?,
            version: text("version", metadata.version)?,
            schema: metadata.schema,
            self_causal: metadata.self_causal,
        })
    }
}
