//! Lends a plugin to the law checker, so that the laws run on the component itself.

use crate::call::Sibling;
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// A plugin on its host under given limits, as the law checker takes it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Where it runs.
    pub host: Host,
    /// What runs.
    pub plugin: Plugin,
    /// What each call may use.
    pub limits: CallLimits,
}

impl rejoin_laws::Merge for Subject {
    fn merge(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> Result<Vec<u8>, String> {
        let lend = |one: &rejoin_laws::Sibling| Sibling { value: one.value.clone().into(), stamp_ms: one.stamp_ms, writer: one.writer };
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        let merged = self.host.merge(&self.plugin, key, &siblings, &self.limits);
        merged.map(|merged| merged.value.to_vec()).map_err(|fault| fault.to_string())
    }
}

impl rejoin_laws::Sampler for Subject {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        self.host.sample(&self.plugin, seed, size, &self.limits).map_err(|fault| fault.to_string())
    }
}
