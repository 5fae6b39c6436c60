//! Routing: the order in which nodes are asked. Pure: the layout and the state of the nodes are arguments.

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

/// A valid layout, with its name computed once.
#[derive(Debug)]
pub(crate) struct RoutingTable {
    layout: Layout,
    name: LayoutRef,
    tenant: TenantId,
}

impl RoutingTable {
    /// `None` if the layout is invalid ([`Layout::check`]).
    pub(crate) fn new(layout: Layout, tenant: TenantId) -> Option<Self> {
        layout.check().ok()?;
        let name = layout.name();
        Some(Self { layout, name, tenant })
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
        RoutingTable::new(layout, TenantId(5)).unwrap()
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
        assert!(RoutingTable::new(layout, TenantId(5)).is_none());
    }
}
