//! An immutable snapshot of ring, catalog and tokens. The catalog task replaces it after each change.

use std::collections::BTreeMap;
use std::sync::Arc;

use rejoin_core::control::Control;
use rejoin_core::node::links::{LinkEvent, Standing};
use rejoin_core::ring::RingView;
use rejoin_core::view::ClusterView;
use rejoin_proto::client::{MovedNode, Routes};
use rejoin_proto::{Address, Layout, Name, NodeId, Ring};

use crate::secret::Secret;
use crate::token::Tokens;

/// Layouts and catalog, the nodes of the ring, and the tokens that sessions are checked against.
pub(crate) struct NodeView {
    pub(crate) cluster: Arc<ClusterView>,
    pub(crate) tokens: Tokens,
    /// Every node that the ring names, this one included.
    pub(crate) nodes: BTreeMap<NodeId, KnownNode>,
}

/// A node that the ring names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KnownNode {
    pub(crate) name: Name,
    /// The address that it has announced, or that of the layout.
    pub(crate) address: Address,
    /// Counts the addresses that it has announced.
    pub(crate) number: u64,
    pub(crate) standing: Standing,
}

impl NodeView {
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.standing == Standing::Member)
    }

    /// What clients route by.
    pub(crate) fn routes(&self) -> Routes {
        let layout = self.cluster.applied_layout().clone();
        let moved = layout.nodes.iter().filter_map(|node| {
            let known = self.nodes.get(&node.id)?;
            let has_moved = known.number > 1 || known.address != node.address;
            has_moved.then(|| MovedNode { node: node.id, number: known.number, address: known.address.clone() })
        });
        let moved = moved.collect();
        Routes { layout, moved }
    }

    /// Tells the links of `node` whom the ring names.
    pub(crate) fn peers_of(&self, node: NodeId) -> LinkEvent {
        let named = |(id, known): (&NodeId, &KnownNode)| (*id, known.name.clone(), known.standing);
        let peers = self.nodes.iter().filter(|(id, _)| **id != node).map(named).collect();
        LinkEvent::Peers {
            member_of: self.cluster.layouts().iter().find(|layout| layout.node(node).is_some()).map(Layout::name),
            peers,
        }
    }

    /// The other members of the live layouts.
    pub(crate) fn members_besides(&self, node: NodeId) -> Vec<NodeId> {
        let members = self.nodes.iter().filter(|(_, known)| known.standing == Standing::Member);
        members.map(|(id, _)| *id).filter(|id| *id != node).collect()
    }
}

/// The snapshot of the ring and the catalog's present records.
pub(crate) fn node_view((ring, view): (&Ring, &RingView), control: &Control, secret: &Secret) -> NodeView {
    let cluster = Arc::new(ClusterView::new(view.clone(), control.records()));
    NodeView { cluster, tokens: Tokens::new(secret, control.records()), nodes: known_nodes(ring) }
}

/// The nodes that a ring names.
pub(crate) fn known_nodes(ring: &Ring) -> BTreeMap<NodeId, KnownNode> {
    let other = |node: &NodeId| ring.notes.skipped.get(node).map_or(Standing::Other, |until| Standing::Dead(*until));
    let announced = ring.notes.announced.iter().map(|(node, known)| {
        let (name, address, number) = (known.name.clone(), known.address.clone(), known.number);
        (*node, KnownNode { name, address, number, standing: other(node) })
    });
    let mut nodes: BTreeMap<NodeId, KnownNode> = announced.collect();
    for node in ring.live.iter().flat_map(|layout| &layout.nodes) {
        let (name, address) = (node.name.clone(), node.address.clone());
        let from_layout = KnownNode { name, address, number: 0, standing: Standing::Member };
        let known = nodes.entry(node.id).or_insert(from_layout);
        known.standing = Standing::Member;
    }
    nodes
}
