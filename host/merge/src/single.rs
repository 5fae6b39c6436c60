//! One merge on its own, and what it has used: for `plugin run`.

use std::time::Duration;

use bytes::Bytes;

use crate::call::{Sibling, Usage};
use crate::fault::MergeFault;
use crate::host::HostConfig;
use crate::limits::CallLimits;
use crate::under_test::PluginUnderTest;

/// How many times its fuel a merge gets that has used it up, to find out what it would take.
const GENEROUS: u64 = 10;
/// For how long it may use that.
const GENEROUS_WALL: Duration = Duration::from_secs(60);

/// The outcome of one merge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SingleMerge {
    /// The limits that it had. The fuel is that of these siblings.
    pub limits: CallLimits,
    /// The merged value, or why there is none.
    pub result: Result<Bytes, MergeFault>,
    /// What it has used.
    pub used: Usage,
    /// What it takes with ten times its fuel and all the memory of an instance, and the bytes of its result. Only if it
    /// has exceeded a limit, and answers then.
    pub takes: Option<(Usage, usize)>,
}

impl SingleMerge {
    /// Whether it has exceeded a limit.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(
            self.result,
            Err(MergeFault::OutOfFuel { .. }
                | MergeFault::OutOfTime { .. }
                | MergeFault::TooMuchMemory { .. }
                | MergeFault::ResultTooLarge { .. })
        )
    }
}

impl PluginUnderTest {
    /// Merges siblings in the given order, as a bucket with these limits does. A fault names the sibling that causes
    /// it.
    #[must_use]
    pub fn merge_once(&self, key: &[u8], siblings: &[Sibling]) -> SingleMerge {
        let limits = self.limits_for(siblings);
        let (result, used) = self.host.merge_measured(&self.plugin, key, siblings, &limits);
        let result = result.map_err(|fault| self.host.attribute_fault(&self.plugin, key, siblings, &limits, fault));
        let mut single = SingleMerge { limits, result, used, takes: None };
        if single.is_over() {
            let memory_bytes = HostConfig::default().max_memory_bytes;
            let fuel = limits.fuel.saturating_mul(GENEROUS);
            let wall = GENEROUS_WALL.min(limits.wall);
            let generous = CallLimits { fuel, memory_bytes, result_bytes: memory_bytes, wall, ..limits };
            let (result, used) = self.host.merge_measured(&self.plugin, key, siblings, &generous);
            single.takes = result.ok().map(|value| (used, value.len()));
        }
        single
    }
}
