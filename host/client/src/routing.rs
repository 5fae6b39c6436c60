//! Routing: the order in which nodes are asked. Pure: the layout and the state of the nodes are arguments.

use std::collections::BTreeMap;

use rejoin_proto::client::{MovedNode, Routes};
use rejoin_proto::{Address, BucketId, Layout, LayoutNode, LayoutRef, Name, NodeId, ObjectId, TenantId};

/// A node to send requests to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    pub(crate) address: Address,
}

impl From<&LayoutNode> for Target {
    fn from(node: &LayoutNode) -> Self {
        Self { id: node.id, name: node.name.clone(), address: node.address.clone() }
    }
}

/// A valid layout, with its name computed once, and with the addresses that its nodes have now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoutingTable {
    layout: Layout,
    name: LayoutRef,
    tenant: TenantId,
    /// The nodes that have another address than at first, with the number of that.
    moved: BTreeMap<NodeId, (u64, Address)>,
}

impl RoutingTable {
    /// `None` if the layout is invalid ([`Layout::check`]).
    pub(crate) fn new(routes: Routes, tenant: TenantId) -> Option<Self> {
        let Routes { layout, moved } = routes;
        layout.check().ok()?;
        let name = layout.name();
        let mut table = Self { layout, name, tenant, moved: BTreeMap::new() };
        for MovedNode { node, number, address } in moved {
            table.move_node(node, (number, address));
        }
        Some(table)
    }

    /// Takes in an address of a node, unless a later one is known.
    fn move_node(&mut self, node: NodeId, to: (u64, Address)) {
        if self.moved.get(&node).is_some_and(|known| known.0 > to.0) {
            return;
        }
        if let Some(at) = self.layout.nodes.iter().position(|known| known.id == node) {
            self.layout.nodes[at].address = to.1.clone();
        }
        self.moved.insert(node, to);
    }

    /// This table with what another one has that is newer: all of it if its layout is, and else the later addresses.
    /// `None` if there is nothing. A layout has the addresses of the time at which it was made, and who tells of it
    /// knows of later ones.
    pub(crate) fn joined(&self, other: Self) -> Option<Self> {
        if other.name > self.name {
            return Some(other);
        }
        let mut joined = self.clone();
        for (node, to) in other.moved {
            joined.move_node(node, to);
        }
        (joined != *self).then_some(joined)
    }

    pub(crate) fn name(&self) -> LayoutRef {
        self.name
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// All nodes: first the owners of a key in their order, then the others, rotated by the hash of the key so that
    /// clients do not all choose the same one.
    ///
    /// The client knows neither the number of copies nor the incarnation of the bucket. It needs neither: the first
    /// owner is the same for any number of copies, and all incarnations place keys alike. A bucket that lost its name
    /// in a race is still placed by that name; a request that goes to a wrong node is forwarded once.
    pub(crate) fn candidates(&self, bucket: &Name, key: &[u8]) -> Vec<Target> {
        let bucket = BucketId::derive(self.tenant, bucket, 0);
        let object = ObjectId { tenant: self.tenant, bucket, key: key.to_vec().into() };
        let mut order: Vec<Target> =
            self.layout.owners(self.layout.partition(&object), u8::MAX).map(Target::from).collect();
        let owners = order.len();
        let first = (object.hash() % self.layout.nodes.len() as u128) as usize;
        let around = self.layout.nodes[first..].iter().chain(&self.layout.nodes[..first]);
        for node in around {
            if !order[..owners].iter().any(|owner| owner.id == node.id) {
                order.push(node.into());
            }
        }
        order
    }

    /// The number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.layout.nodes.len()
    }

    /// All nodes, for requests that any of them can answer.
    pub(crate) fn all(&self) -> Vec<Target> {
        self.layout.nodes.iter().map(Target::from).collect()
    }
}

/// The next node to ask: preferably one that was not asked yet and is not avoided, then one not asked yet, then one not
/// avoided, then the first.
pub(crate) fn choose<'a>(
    candidates: &'a [Target],
    asked: &[NodeId],
    avoid: impl Fn(&Target) -> bool,
) -> Option<&'a Target> {
    let fresh = |target: &&Target| !asked.contains(&target.id);
    let well = |target: &&Target| !avoid(target);
    candidates
        .iter()
        .find(|target| fresh(target) && well(target))
        .or_else(|| candidates.iter().find(fresh))
        .or_else(|| candidates.iter().find(well))
        .or_else(|| candidates.first())
}

#[cfg(test)]
mod tests {
    use rejoin_proto::LayoutPolicy;

    use super::*;

    fn map(nodes: u16) -> RoutingTable {
        let mut list: Vec<LayoutNode> = (0..nodes)
            .map(|at| {
                let name = Name::new(format!("n{at}")).unwrap();
                let address = Address::from(([127, 0, 0, 1], 7401 + at));
                LayoutNode { id: NodeId::from_name(&name), name, zone: Name::new("z").unwrap(), capacity: 1, address }
            })
            .collect();
        list.sort_by_key(|node| node.id);
        let owners = (0..8).map(|p| (0..3.min(nodes)).map(|copy| (p + copy) % nodes).collect()).collect();
        let layout = Layout { version: 1, policy: LayoutPolicy::default(), nodes: list, owners, copies: Vec::new() };
        RoutingTable::new(Routes { layout, moved: Vec::new() }, TenantId(5)).unwrap()
    }

    fn moved(table: &RoutingTable, node: usize, number: u64, port: u16) -> RoutingTable {
        let mut other = table.clone();
        other.move_node(table.layout.nodes[node].id, (number, Address::from(([127, 0, 0, 1], port))));
        other
    }

    #[test]
    fn the_latest_address_of_a_node_is_used_with_any_layout() {
        let first = map(3);
        let once = first.joined(moved(&first, 0, 2, 9001)).unwrap();
        assert_eq!((once.all()[0].address.port(), once.name()), (9001, first.name()), "the layout is the same");
        assert!(once.joined(first.clone()).is_none(), "who does not know of it says nothing");
        let twice = once.joined(moved(&first, 0, 3, 9002)).unwrap();
        assert!(twice.joined(moved(&first, 0, 2, 9001)).is_none(), "news of an earlier address");
        let mut layout = first.layout.clone();
        layout.version += 1;
        let to = MovedNode { node: layout.nodes[1].id, number: 2, address: Address::from(([127, 0, 0, 1], 9003)) };
        let newer = RoutingTable::new(Routes { layout, moved: vec![to] }, TenantId(5)).unwrap();
        let newer = twice.joined(newer).unwrap();
        let ports = [0, 1].map(|at: usize| newer.all()[at].address.port());
        assert_eq!((ports, newer.name().version), ([first.all()[0].address.port(), 9003], 2));
    }

    #[test]
    fn owners_come_first_and_every_node_once() {
        let (map, bucket) = (map(5), Name::new("cart").unwrap());
        for key in 0..200_u32 {
            let key = key.to_le_bytes();
            let order = map.candidates(&bucket, &key);
            let id = BucketId::derive(TenantId(5), &bucket, 0);
            let object = ObjectId { tenant: TenantId(5), bucket: id, key: key.to_vec().into() };
            let owners: Vec<NodeId> = map.layout.owners(map.layout.partition(&object), 5).map(|node| node.id).collect();
            assert_eq!(order[..3].iter().map(|t| t.id).collect::<Vec<_>>(), owners);
            let mut ids: Vec<NodeId> = order.iter().map(|t| t.id).collect();
            ids.sort_unstable();
            assert_eq!(ids, map.layout.nodes.iter().map(|node| node.id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_dead_are_skipped_while_there_is_a_choice() {
        let targets = map(3).all();
        let [a, b, c] = [targets[0].id, targets[1].id, targets[2].id];
        let pick =
            |asked: &[NodeId], down: &[NodeId]| choose(&targets, asked, |target| down.contains(&target.id)).unwrap().id;
        assert_eq!(pick(&[], &[]), a);
        assert_eq!(pick(&[], &[a]), b);
        assert_eq!(pick(&[b], &[a]), c);
        assert_eq!(pick(&[b, c], &[a]), a, "a node that is down is better than one that has just failed");
        assert_eq!(pick(&[a, b, c], &[a]), b);
        assert_eq!(pick(&[a, b, c], &[a, b, c]), a);
        assert!(choose(&[], &[], |_| false).is_none());
    }

    #[test]
    fn a_layout_that_breaks_its_rules_is_not_taken() {
        let mut layout = map(3).layout;
        layout.owners[0] = vec![9];
        assert!(RoutingTable::new(Routes { layout, moved: Vec::new() }, TenantId(5)).is_none());
    }
}
