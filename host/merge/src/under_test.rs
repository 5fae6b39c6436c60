//! A component as the law checker sees it: a merge, a validator and a sampler.

use std::sync::atomic::{AtomicU64, Ordering};

use rejoin_laws::{Merge, MergeError, MergeResult, RawBytes};
use rejoin_proto::catalog::fuel_for;

use crate::call::Sibling;
use crate::coverage::{Coverage, Covered};
use crate::fault::{MergeFault, Refusal};
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// A plugin on its host, with the limits of a bucket. Every call gets a fresh instance.
#[derive(Debug)]
pub struct PluginUnderTest {
    /// The host that has loaded the plugin.
    pub host: Host,
    /// The plugin that is checked.
    pub plugin: Plugin,
    /// The limits of a call. Fuel is scaled with the bytes of the inputs, as in a bucket ([`fuel_for`]).
    pub limits: CallLimits,
    elsewhere: Option<(Host, Plugin)>,
    /// The component with counters, or why there is none.
    covered: Result<Covered, String>,
    most_fuel: AtomicU64,
    all_fuel: AtomicU64,
}

impl PluginUnderTest {
    /// A plugin on the host that has loaded it.
    #[must_use]
    pub fn new(host: Host, plugin: Plugin, limits: CallLimits) -> Self {
        Self {
            host,
            plugin,
            limits,
            elsewhere: None,
            covered: Err("it was not asked for".into()),
            most_fuel: AtomicU64::new(0),
            all_fuel: AtomicU64::new(0),
        }
    }

    /// Adds the same component on another host, for the law of replay.
    #[must_use]
    pub fn and_elsewhere(self, host: Host, plugin: Plugin) -> Self {
        Self { elsewhere: Some((host, plugin)), ..self }
    }

    /// Adds the same component with counters of what runs, or why there is none.
    pub(crate) fn and_covered(self, covered: Result<Covered, String>) -> Self {
        Self { covered, ..self }
    }

    /// Which code of the merge all merges so far have run.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn coverage(&self) -> Result<Coverage, String> {
        self.covered.as_ref().map_err(Clone::clone)?.report()
    }

    /// The most fuel that a merge may use: that of the largest siblings.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        fuel_for(self.limits.fuel, usize::MAX)
    }

    /// The most fuel that a merge has used so far.
    #[must_use]
    pub fn most_fuel(&self) -> u64 {
        self.most_fuel.load(Ordering::Relaxed)
    }

    /// The fuel that all merges so far have used, failed ones too.
    #[must_use]
    pub fn all_fuel(&self) -> u64 {
        self.all_fuel.load(Ordering::Relaxed)
    }

    /// It with other limits of a call.
    pub(crate) fn under(&self, limits: CallLimits) -> UnderLimits<'_> {
        UnderLimits { of: self, limits }
    }

    /// The limits of a merge of these siblings.
    pub(crate) fn limits_for(&self, siblings: &[Sibling]) -> CallLimits {
        self.under(self.limits).limits_for(siblings)
    }
}

/// A plugin under test with limits of a call that may not be its own: those of a bucket that siblings are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnderLimits<'a> {
    of: &'a PluginUnderTest,
    limits: CallLimits,
}

impl UnderLimits<'_> {
    /// The failure of a merge with the sibling named that causes it.
    pub(crate) fn with_faulty_sibling(
        &self,
        key: &[u8],
        siblings: &[rejoin_laws::Sibling],
        failure: MergeError,
    ) -> MergeError {
        let (host, plugin) = (&self.of.host, &self.of.plugin);
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        let limits = self.limits_for(&siblings);
        let Err(fault) = host.merge(plugin, key, &siblings, &limits) else { return failure };
        let reason = host.attribute_fault(plugin, key, &siblings, &limits, fault).to_string();
        match failure {
            MergeError::Refused(_) => MergeError::Refused(reason),
            MergeError::Trapped(_) => MergeError::Trapped(reason),
            MergeError::Exceeded(_) => MergeError::Exceeded(reason),
            MergeError::TooLarge(_) => MergeError::TooLarge(reason),
        }
    }

    /// The most siblings of one merge.
    pub(crate) fn max_siblings(&self) -> usize {
        self.limits.max_siblings
    }

    fn limits_for(&self, siblings: &[Sibling]) -> CallLimits {
        let bytes = siblings.iter().map(|sibling| sibling.value.len()).sum();
        CallLimits { fuel: fuel_for(self.limits.fuel, bytes), ..self.limits }
    }

    fn merge_on(&self, host: &Host, plugin: &Plugin, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        // The limit of the result is applied afterwards, so that the fuel of a merge with too large a result is known.
        let limits = CallLimits { result_bytes: self.limits.memory_bytes, ..self.limits_for(&siblings) };
        let (result, used) = host.merge_measured(plugin, key, &siblings, &limits);
        self.of.all_fuel.fetch_add(used.fuel, Ordering::Relaxed);
        let value = result.map_err(merge_error)?;
        // It is compared with the fuel that its own limits give.
        if self.limits == self.of.limits {
            self.of.most_fuel.fetch_max(used.fuel, Ordering::Relaxed);
        }
        if value.len() > self.limits.result_bytes {
            return Err(merge_error(MergeFault::ResultTooLarge { limit: self.limits.result_bytes }));
        }
        Ok(value.to_vec())
    }
}

fn lend(one: &rejoin_laws::Sibling) -> Sibling {
    Sibling { value: one.value.clone().into(), stamp_ms: one.stamp_ms, writer: one.writer }
}

/// The fault as the laws classify it. Valid siblings may be too many or their result too large: neither is a trap or a
/// refusal of a value.
fn merge_error(fault: MergeFault) -> MergeError {
    let reason = fault.to_string();
    match fault {
        MergeFault::Refused(Refusal::TooLarge)
        | MergeFault::ResultTooLarge { .. }
        | MergeFault::TooManySiblings { .. } => MergeError::TooLarge(reason),
        MergeFault::Refused(_) => MergeError::Refused(reason),
        MergeFault::OutOfFuel { .. } | MergeFault::OutOfTime { .. } | MergeFault::TooMuchMemory { .. } => {
            MergeError::Exceeded(reason)
        }
        _ => MergeError::Trapped(reason),
    }
}

impl Merge for UnderLimits<'_> {
    fn merge(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        let result = self.merge_on(&self.of.host, &self.of.plugin, key, siblings);
        if let (Ok(covered), Ok(_) | Err(MergeError::Refused(_))) = (&self.of.covered, &result) {
            let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
            covered.note(key, &siblings, &self.limits_for(&siblings), result.as_deref().ok());
        }
        result
    }

    fn has_reached_new_code(&self) -> bool {
        self.of.covered.as_ref().is_ok_and(Covered::take_new)
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        let here = (&self.of.host, &self.of.plugin);
        let (host, plugin) = self.of.elsewhere.as_ref().map_or(here, |(host, plugin)| (host, plugin));
        self.merge_on(host, plugin, key, siblings)
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        let (host, plugin) = (&self.of.host, &self.of.plugin);
        let limits = CallLimits { fuel: fuel_for(self.limits.fuel, value.len()), ..self.limits };
        plugin.exports().validate.then(|| host.validate(plugin, key, value, &limits).map_err(merge_error))
    }
}

impl Merge for PluginUnderTest {
    fn merge(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        self.under(self.limits).merge(key, siblings)
    }

    fn has_reached_new_code(&self) -> bool {
        self.under(self.limits).has_reached_new_code()
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        self.under(self.limits).merge_elsewhere(key, siblings)
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        self.under(self.limits).validate(key, value)
    }
}

/// The plugin's own sampler. A plugin without one is checked on raw bytes, which may be invalid.
impl rejoin_laws::Sampler for PluginUnderTest {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        if !self.draws_valid_values() {
            return RawBytes.sample(seed, size);
        }
        // A size hint may give a value that is larger than the bucket takes: the checker then asks for a smaller one.
        let limits = CallLimits { result_bytes: self.limits.memory_bytes, ..self.limits };
        self.host.sample(&self.plugin, seed, size, &limits).map_err(|fault| fault.to_string())
    }

    fn draws_valid_values(&self) -> bool {
        self.plugin.exports().sample
    }
}
