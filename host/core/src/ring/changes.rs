//! What an operator stages, in full: zones and capacities that were not given are those of now.

use rejoin_proto::layout_request::{LayoutChanges, NodeChange};
use rejoin_proto::ring::Role;
use rejoin_proto::{Name, NodeId, Ring};

use super::Staging;

/// The zone of a node for which none was ever given, as in a `[[bootstrap]]` list.
const DEFAULT_ZONE: &str = "default";

/// The staging that comes of an operator's changes.
#[must_use]
pub fn staging(ring: &Ring, changes: LayoutChanges) -> Staging {
    let LayoutChanges { nodes, n, zones, split } = changes;
    let mut policy = super::policy(ring);
    let given = n.is_some() || zones.is_some();
    (policy.n, policy.zones) = (n.unwrap_or(policy.n), zones.unwrap_or(policy.zones));
    let roles = nodes.into_iter().map(|change| role(ring, change)).collect();
    Staging { roles, policy: given.then_some(policy), split }
}

fn role(ring: &Ring, change: NodeChange) -> (Name, Role) {
    match change {
        NodeChange::Remove(node) => (node, Role::Removed),
        NodeChange::Assign { node, zone, capacity } => {
            let now = present(ring, NodeId::from_name(&node));
            let default = || Name::new(DEFAULT_ZONE).expect("a good name");
            let (old_zone, old_capacity) = now.unwrap_or_else(|| (default(), 1));
            let role = Role::Member { zone: zone.unwrap_or(old_zone), capacity: capacity.unwrap_or(old_capacity) };
            (node, role)
        }
    }
}

/// The zone and capacity that are staged for a node, or else that it has.
fn present(ring: &Ring, node: NodeId) -> Option<(Name, u32)> {
    let staged = ring.staged().find(|(staged, _)| *staged == node).map(|(_, role)| role);
    if let Some(Role::Member { zone, capacity }) = staged {
        return Some((zone.clone(), *capacity));
    }
    ring.newest().node(node).map(|node| (node.zone.clone(), node.capacity))
}
