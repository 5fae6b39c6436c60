//! Finds the sibling that makes a merge fail.

use std::time::Instant;

use crate::call::Sibling;
use crate::fault::MergeFault;
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

impl Host {
    /// The fault of a merge, with the sibling named that causes it: the first one that gives the same fault when it is
    /// merged with itself. A fault that no single value causes, such as an exceeded limit, is returned unchanged.
    ///
    /// Merges each sibling once, together with at most twice the fuel and at most the wall-clock limit of one merge.
    #[must_use]
    pub fn attribute_fault(
        &self,
        plugin: &Plugin,
        key: &[u8],
        siblings: &[Sibling],
        limits: &CallLimits,
        fault: MergeFault,
    ) -> MergeFault {
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
                return MergeFault::InSibling {
                    place,
                    of,
                    stamp_ms: sibling.stamp_ms,
                    writer: sibling.writer,
                    fault: Box::new(own),
                };
            }
        }
        fault
    }
}
