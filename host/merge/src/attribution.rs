//! Finds the sibling to which a failed merge is due.

use std::time::Instant;

use crate::call::Sibling;
use crate::fault::MergeFault;
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

impl Host {
    /// The fault of a merge with the sibling named that causes it: the first that, merged with itself, meets the same.
    /// A fault that is no sibling's own, as one of the limits, is given back as it is.
    ///
    /// Costs a merge for each sibling, of at most twice the fuel of one in all, and of at most the wall-clock limit of
    /// one in all.
    #[must_use]
    pub fn attribute_fault(&self, plugin: &Plugin, key: &[u8], siblings: &[Sibling], limits: &CallLimits, fault: MergeFault) -> MergeFault {
        if !fault.is_caused_by_a_value() || siblings.len() < 2 {
            return fault;
        }
        let (began, wall) = (Instant::now(), limits.wall);
        let limits = CallLimits { fuel: (limits.fuel / siblings.len() as u64).saturating_mul(2), ..*limits };
        for (index, sibling) in siblings.iter().enumerate() {
            let Some(left) = wall.checked_sub(began.elapsed()) else { break };
            let limits = CallLimits { wall: left, ..limits };
            let alone = self.merge(plugin, key, &[sibling.clone(), sibling.clone()], &limits);
            if let Err(own) = alone
                && own.reason() == fault.reason()
            {
                let (place, of) = (index + 1, siblings.len());
                return MergeFault::InSibling { place, of, stamp_ms: sibling.stamp_ms, writer: sibling.writer, fault: Box::new(own) };
            }
        }
        fault
    }
}
