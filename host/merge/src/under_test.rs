//! Lends a plugin to the law checker, so that the laws run on the component itself.

use std::sync::atomic::{AtomicU64, Ordering};

use rejoin_laws::{MergeError, MergeResult, RawBytes};
use rejoin_proto::catalog::fuel_for;

use crate::call::Sibling;
use crate::fault::{MergeFault, Refusal};
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// A plugin on its host under given limits, as the law checker takes it. Every call gets a fresh instance.
#[derive(Debug)]
pub struct PluginUnderTest {
    /// Where it runs.
    pub host: Host,
    /// What runs.
    pub plugin: Plugin,
    /// What each call may use. A merge has fuel for its inputs, as in a bucket with that much ([`fuel_for`]).
    pub limits: CallLimits,
    elsewhere: Option<(Host, Plugin)>,
    most_fuel: AtomicU64,
}

impl PluginUnderTest {
    /// The plugin on the host that has compiled it.
    #[must_use]
    pub fn new(host: Host, plugin: Plugin, limits: CallLimits) -> Self {
        Self { host, plugin, limits, elsewhere: None, most_fuel: AtomicU64::new(0) }
    }

    /// The same component, compiled by another host: where a merge is asked for again.
    #[must_use]
    pub fn and_elsewhere(self, host: Host, plugin: Plugin) -> Self {
        Self { elsewhere: Some((host, plugin)), ..self }
    }

    /// The most fuel that a merge may take: that of the largest siblings.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        fuel_for(self.limits.fuel, usize::MAX)
    }

    /// The most fuel that a merge has taken so far.
    #[must_use]
    pub fn most_fuel(&self) -> u64 {
        self.most_fuel.load(Ordering::Relaxed)
    }

    /// Says to which sibling a merge's failure is due.
    pub(crate) fn with_faulty_sibling(&self, key: &[u8], siblings: &[rejoin_laws::Sibling], failure: MergeError) -> MergeError {
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        let limits = self.limits_for(&siblings);
        let Err(fault) = self.host.merge(&self.plugin, key, &siblings, &limits) else { return failure };
        let reason = self.host.attribute_fault(&self.plugin, key, &siblings, &limits, fault).to_string();
        match failure {
            MergeError::Refused(_) => MergeError::Refused(reason),
            MergeError::Trapped(_) => MergeError::Trapped(reason),
            MergeError::Exceeded(_) => MergeError::Exceeded(reason),
            MergeError::TooLarge(_) => MergeError::TooLarge(reason),
        }
    }

    /// As in a bucket.
    fn limits_for(&self, siblings: &[Sibling]) -> CallLimits {
        let bytes = siblings.iter().map(|sibling| sibling.value.len()).sum();
        CallLimits { fuel: fuel_for(self.limits.fuel, bytes), ..self.limits }
    }

    fn ask(&self, host: &Host, plugin: &Plugin, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        let merged = host.merge(plugin, key, &siblings, &self.limits_for(&siblings)).map_err(failure)?;
        self.most_fuel.fetch_max(merged.fuel_used, Ordering::Relaxed);
        Ok(merged.value.to_vec())
    }
}

fn lend(one: &rejoin_laws::Sibling) -> Sibling {
    Sibling { value: one.value.clone().into(), stamp_ms: one.stamp_ms, writer: one.writer }
}

/// What a fault is to the laws. Too large a result or too many siblings are no fault of the merge: it cannot help what
/// it is given.
fn failure(fault: MergeFault) -> MergeError {
    let reason = fault.to_string();
    match fault {
        MergeFault::Refused(Refusal::TooLarge) | MergeFault::ResultTooLarge { .. } | MergeFault::TooManySiblings { .. } => {
            MergeError::TooLarge(reason)
        }
        MergeFault::Refused(_) => MergeError::Refused(reason),
        MergeFault::OutOfFuel { .. } | MergeFault::OutOfTime { .. } | MergeFault::TooMuchMemory { .. } => MergeError::Exceeded(reason),
        _ => MergeError::Trapped(reason),
    }
}

impl rejoin_laws::Merge for PluginUnderTest {
    fn merge(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        self.ask(&self.host, &self.plugin, key, siblings)
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        let (host, plugin) = self.elsewhere.as_ref().map_or((&self.host, &self.plugin), |(host, plugin)| (host, plugin));
        self.ask(host, plugin, key, siblings)
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        let validates = self.plugin.exports().validate;
        let limits = CallLimits { fuel: fuel_for(self.limits.fuel, value.len()), ..self.limits };
        validates.then(|| self.host.validate(&self.plugin, key, value, &limits).map_err(failure))
    }
}

/// The plugin's own sampler; without one, raw bytes that may be invalid.
impl rejoin_laws::Sampler for PluginUnderTest {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        if !self.draws_valid_values() {
            return RawBytes.sample(seed, size);
        }
        self.host.sample(&self.plugin, seed, size, &self.limits).map_err(|fault| fault.to_string())
    }

    fn draws_valid_values(&self) -> bool {
        self.plugin.exports().sample
    }
}
