//! The links of nodes, wired to each other without a network: what one sends the other hears, in order.

use std::collections::VecDeque;

use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::node::identity::Disks;
use rejoin_core::node::links::{CloseReason, Config, LinkEvent, LinkOutput, Links, Standing, Timing};
use rejoin_proto::peer::{ClusterParams, DiskId, PeerHello, PeerReady};
use rejoin_proto::{ClusterId, LayoutRange, LayoutRef, NodeId};

use crate::support::{at, name, node};

const GRACE_MS: u64 = 500;
const LONGEST_MS: u64 = 10_000;

/// The layout of that version.
fn layout(version: u64) -> LayoutRef {
    LayoutRef { version, hash: 7 }
}

/// What a node hears of another, in order.
enum Said {
    Hello(u64, PeerHello),
    Ready(u64, PeerReady),
    Closed(u64, Option<String>),
    Rebuilt(u64),
}

/// Nodes n0, n1, ... and the wires between them. A dial connects when both are there, or fails.
struct Nodes {
    links: Vec<Option<Links>>,
    params: Vec<ClusterParams>,
    /// The versions of each node's oldest and newest live layout.
    layouts: Vec<(u64, u64)>,
    disks: Vec<Disks>,
    wire: VecDeque<(usize, usize, Said)>,
    outputs: Vec<Vec<LinkOutput>>,
    now_ms: u64,
    connections: u64,
    seed: u64,
    /// Whether a node's catalog has all that a peer has as soon as it is asked.
    catalogs_are_equal: bool,
}

impl Nodes {
    fn new(count: usize) -> Self {
        let origin = LayoutRef { version: 1, hash: 7 };
        let params = ClusterParams { protocol: 1, cluster: ClusterId(5), secret_check: 9, origin, max_skew_ms: 1000 };
        Self {
            links: (0..count).map(|_| None).collect(),
            params: vec![params; count],
            layouts: vec![(1, 1); count],
            disks: (0..count)
                .map(|at| Disks { member_of: Some(layout(1)), ..Disks::new(DiskId(at as u64 + 10)) })
                .collect(),
            wire: VecDeque::new(),
            outputs: vec![Vec::new(); count],
            now_ms: 1,
            connections: 0,
            seed: 0,
            catalogs_are_equal: true,
        }
    }

    /// The ids are ordered by hash: the places in that order.
    fn lower(&self, a: usize, b: usize) -> (usize, usize) {
        if node(a) < node(b) { (a, b) } else { (b, a) }
    }

    fn start(&mut self, index: usize) {
        self.seed += 1;
        let others = (0..self.links.len()).filter(|other| *other != index);
        let config = Config {
            node: node(index),
            peers: others.map(|other| (node(other), name(&format!("n{other}")))).collect(),
            params: self.params[index],
            layouts: self.layouts_of(index),
            shards: 2,
            grace_us: GRACE_MS * 1000,
            minority_us: LONGEST_MS * 1000,
            longest_start_us: LONGEST_MS * 1000,
            timing: Timing::default(),
        };
        let rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        self.links[index] = Some(Links::new(config, self.disks[index].clone(), at(self.now_ms), rng));
        self.event(index, LinkEvent::Tick);
    }

    fn layouts_of(&self, index: usize) -> LayoutRange {
        let (oldest, newest) = self.layouts[index];
        LayoutRange { oldest: layout(oldest), newest: layout(newest) }
    }

    /// The node hears of changes of the layout: its live layouts are of these versions.
    fn hear_of_layouts(&mut self, index: usize, (oldest, newest): (u64, u64)) {
        self.layouts[index] = (oldest, newest);
        self.event(index, LinkEvent::Layouts(self.layouts_of(index)));
    }

    /// The ring that node has heard of: `members` are in the layout, with or without itself.
    fn ring(&mut self, index: usize, members: &[usize], others: &[(usize, Standing)]) {
        self.ring_of(1, index, members, others);
    }

    /// The same, of which the newest layout has that version.
    fn ring_of(&mut self, version: u64, index: usize, members: &[usize], others: &[(usize, Standing)]) {
        let member = |at: &usize| (node(*at), name(&format!("n{at}")), Standing::Member);
        let other = |(at, standing): &(usize, Standing)| (node(*at), name(&format!("n{at}")), *standing);
        let peers = members.iter().map(member).chain(others.iter().map(other)).collect();
        self.event(index, LinkEvent::Peers { member_of: members.contains(&index).then_some(layout(version)), peers });
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        self.links[a].as_ref().is_some_and(|links| links.connection(node(b)).is_some())
    }

    fn stop(&mut self, index: usize) {
        self.disks[index] = self.links[index].take().expect("it runs").disks().clone();
        self.wire.retain(|(from, to, _)| *from != index && *to != index);
        for other in 0..self.links.len() {
            let connection = self.links[other].as_ref().and_then(|links| links.connection(node(index)));
            if let Some(connection) = connection {
                self.event(other, LinkEvent::Closed(connection, None));
            }
        }
    }

    fn place(&self, id: NodeId) -> usize {
        (0..self.links.len()).find(|at| node(*at) == id).expect("a node of these")
    }

    fn event(&mut self, index: usize, event: LinkEvent) {
        let mut outputs = Vec::new();
        let Some(links) = &mut self.links[index] else { return };
        links.handle(at(self.now_ms), event, &mut outputs);
        for output in outputs {
            self.outputs[index].push(output.clone());
            self.act(index, output);
        }
    }

    fn act(&mut self, index: usize, output: LinkOutput) {
        match output {
            LinkOutput::Dial(peer) => self.dial(index, self.place(peer)),
            LinkOutput::Close(connection, closing) => {
                let refusal = match closing {
                    CloseReason::Refused(why) => Some(why),
                    _ => None,
                };
                for other in (0..self.links.len()).filter(|other| *other != index) {
                    self.wire.push_back((index, other, Said::Closed(connection, refusal.clone())));
                }
            }
            LinkOutput::PeerUp { connection, .. } => {
                for event in [
                    LinkEvent::ActorsChecked(connection),
                    LinkEvent::ActorsChecked(connection),
                    LinkEvent::CatalogSent(connection),
                ] {
                    self.event(index, event);
                }
            }
            LinkOutput::SendReady(connection) => {
                let ready = PeerReady { catalog: 0, layouts: self.layouts_of(index) };
                for other in (0..self.links.len()).filter(|other| *other != index) {
                    self.wire.push_back((index, other, Said::Ready(connection, ready)));
                }
            }
            LinkOutput::SendRebuilt(connection) => {
                for other in (0..self.links.len()).filter(|other| *other != index) {
                    self.wire.push_back((index, other, Said::Rebuilt(connection)));
                }
            }
            LinkOutput::CompareCatalog(peer, _) if self.catalogs_are_equal => {
                self.event(index, LinkEvent::CaughtUp(peer))
            }
            _ => {}
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        if self.links[to].is_none() {
            return self.event(from, LinkEvent::DialFailed(node(to), None));
        }
        self.connections += 1;
        let connection = self.connections;
        for (index, peer, dialled) in [(from, to, true), (to, from, false)] {
            let name = name(&format!("n{peer}"));
            self.event(index, LinkEvent::Connected { peer: node(peer), name, connection, dialled });
            let hello =
                self.links[index].as_ref().expect("it runs").hello(node(peer), at(self.now_ms), 0, (8, Vec::new()));
            self.wire.push_back((index, peer, Said::Hello(connection, hello)));
        }
    }

    fn deliver(&mut self) {
        while let Some((_, to, said)) = self.wire.pop_front() {
            match said {
                Said::Hello(connection, hello) => self.event(to, LinkEvent::Hello(connection, hello)),
                Said::Ready(connection, ready) => self.event(to, LinkEvent::Ready(connection, ready)),
                Said::Closed(connection, refusal) => self.event(to, LinkEvent::Closed(connection, refusal)),
                Said::Rebuilt(connection) => self.event(to, LinkEvent::PeerRebuilt(connection)),
            }
        }
    }

    /// Lets time pass, with a look every ten milliseconds.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            (0..self.links.len()).for_each(|index| self.event(index, LinkEvent::Tick));
            self.deliver();
        }
    }

    fn served(&self, index: usize) -> Option<bool> {
        self.outputs[index].iter().find_map(|output| match output {
            LinkOutput::Serve { met_all } => Some(*met_all),
            _ => None,
        })
    }

    /// Which nodes take that one for replaced.
    fn takers_for_replaced(&self, index: usize) -> Vec<usize> {
        let takes = |at: &usize| self.links[*at].as_ref().is_some_and(|links| links.is_replaced(node(index)));
        (0..self.links.len()).filter(takes).collect()
    }

    fn refusals(&self, index: usize) -> Vec<&str> {
        let mut refusals = Vec::new();
        for output in &self.outputs[index] {
            if let LinkOutput::Refused(_, why) = output {
                refusals.push(why.as_str());
            }
        }
        refusals
    }
}

#[test]
pub(crate) fn a_starting_node_serves_when_its_peers_are_ready_and_it_has_their_catalog() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    assert_eq!([0, 1, 2].map(|index| nodes.served(index)), [Some(true); 3]);

    nodes.stop(1);
    nodes.outputs[1].clear();
    nodes.catalogs_are_equal = false;
    nodes.start(1);
    nodes.pass(GRACE_MS + 1000);
    assert_eq!(nodes.served(1), None, "both peers are ready, and it lacks a part of their catalogs");
    for peer in [0, 2] {
        assert_eq!(nodes.served(1), None);
        nodes.event(1, LinkEvent::CaughtUp(node(peer)));
    }
    assert_eq!(nodes.served(1), Some(true));
}

/// Why a node was told that a peer cannot be dialled, each time.
fn dial_problems(nodes: &Nodes, index: usize) -> Vec<&str> {
    let mut problems = Vec::new();
    for output in &nodes.outputs[index] {
        if let LinkOutput::CannotConnect(_, why) = output {
            problems.push(why.as_str());
        }
    }
    problems
}

#[test]
fn a_peer_that_cannot_be_dialled_is_told_of_once_and_not_while_it_is_up() {
    let mut nodes = Nodes::new(2);
    nodes.start(0);
    let refused = |days: u32| LinkEvent::DialFailed(node(1), Some(format!("its certificate ended {days} days ago")));
    (1..4).for_each(|days| nodes.event(0, refused(days)));
    nodes.event(0, LinkEvent::DialFailed(node(1), None));
    assert_eq!(dial_problems(&nodes, 0), ["its certificate ended 1 days ago"]);

    nodes.start(1);
    nodes.pass(LONGEST_MS);
    assert!(nodes.links[0].as_ref().is_some_and(|links| links.connection(node(1)).is_some()));
    // An attempt that began before the peer dialled ends only now, with the certificates that it began with.
    nodes.outputs[0].clear();
    nodes.event(0, refused(5));
    assert!(dial_problems(&nodes, 0).is_empty(), "{:?}", dial_problems(&nodes, 0));
    // So does a connection of before that the peer has refused.
    let (peer, late) = (node(1), u64::MAX);
    nodes.event(0, LinkEvent::Connected { peer, name: name("n1"), connection: late, dialled: true });
    nodes.event(0, LinkEvent::Closed(late, Some("the secrets differ".into())));
    assert!(nodes.refusals(0).is_empty(), "{:?}", nodes.refusals(0));

    nodes.stop(1);
    nodes.pass(LONGEST_MS);
    nodes.event(0, refused(6));
    assert_eq!(dial_problems(&nodes, 0), ["its certificate ended 6 days ago"], "it was up since the first one");
}

#[test]
pub(crate) fn a_starting_node_serves_when_it_has_heard_of_what_its_peers_have_retired() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    nodes.stop(1);
    nodes.outputs[1].clear();
    nodes.hear_of_layouts(0, (2, 3));
    nodes.hear_of_layouts(2, (2, 2));
    nodes.start(1);
    nodes.pass(GRACE_MS + 1000);
    assert_eq!(nodes.served(1), None, "both peers are ready, and their reads find nothing by layout 1");
    for layouts in [(1, 2), (1, 3), (2, 2)] {
        nodes.hear_of_layouts(1, layouts);
        assert_eq!(nodes.served(1), None, "{layouts:?}");
    }
    nodes.hear_of_layouts(1, (2, 3));
    assert_eq!(nodes.served(1), Some(true));
}

#[test]
fn a_starting_node_dials_everybody_and_one_connection_is_left() {
    for both_dial in [false, true] {
        let mut nodes = Nodes::new(2);
        let (lower, higher) = nodes.lower(0, 1);
        nodes.start(lower);
        nodes.pass(3000);
        assert_eq!(nodes.served(lower), Some(false), "nobody was there");
        if both_dial {
            // The lower one's next attempt comes at the same moment.
            nodes.links[higher] = None;
            nodes.event(lower, LinkEvent::Redial);
        }
        nodes.start(higher);
        nodes.pass(20);
        assert_eq!(nodes.served(higher), Some(true), "it did not wait for the lower id to dial");
        let kept = nodes.links[lower].as_ref().and_then(|links| links.connection(node(higher)));
        assert!(kept.is_some() && kept == nodes.links[higher].as_ref().and_then(|links| links.connection(node(lower))));
    }
}

/// The lower id gives up the connection that it dialled, and its last words are late: the other side has just gone over
/// to it.
#[test]
fn a_connection_that_was_replaced_is_closed_with_the_one_that_replaced_it() {
    let mut nodes = Nodes::new(2);
    let (low, high) = nodes.lower(0, 1);
    nodes.start(low);
    nodes.pass(3000);
    nodes.start(high);
    nodes.pass(20);
    let held =
        |nodes: &Nodes, at: usize, peer: usize| nodes.links[at].as_ref().and_then(|links| links.connection(node(peer)));
    let first = held(&nodes, high, low).expect("the higher id has dialled");
    let dead = first + 100;
    let name = name(&format!("n{low}"));
    nodes.event(high, LinkEvent::Connected { peer: node(low), name, connection: dead, dialled: false });
    let hello = nodes.links[low].as_ref().expect("it runs").hello(node(high), at(nodes.now_ms), 0, (8, Vec::new()));
    nodes.event(high, LinkEvent::Hello(dead, hello));
    assert_eq!(held(&nodes, high, low), Some(dead), "the connection of the lower id is preferred");
    nodes.event(high, LinkEvent::Closed(dead, None));
    let closed = nodes.outputs[high].contains(&LinkOutput::Close(first, CloseReason::Replaced));
    assert!(closed, "the lower id holds it, and would not dial: {:?}", nodes.outputs[high]);
    nodes.pass(3000);
    let again = held(&nodes, high, low);
    assert!(again.is_some() && again == held(&nodes, low, high));
}

#[test]
fn a_restarted_peers_connection_takes_the_place_of_the_dead_one() {
    let mut nodes = Nodes::new(2);
    (0..2).for_each(|index| nodes.start(index));
    nodes.pass(20);
    let (lower, higher) = nodes.lower(0, 1);
    let before = nodes.links[lower].as_ref().and_then(|links| links.connection(node(higher)));
    // The lower one has not noticed the end of the other process.
    nodes.outputs[higher].clear();
    nodes.start(higher);
    nodes.pass(20);
    let after = nodes.links[lower].as_ref().and_then(|links| links.connection(node(higher)));
    assert!(after.is_some() && after != before);
    assert_eq!(nodes.served(higher), Some(true));
}

#[test]
fn a_start_ends_its_tenures_when_its_grace_is_over_and_waits_longer_for_peers_that_it_has_reached() {
    let mut nodes = Nodes::new(2);
    nodes.start(0);
    nodes.pass(GRACE_MS - 10);
    assert_eq!(nodes.served(0), None);
    nodes.pass(20);
    assert_eq!(nodes.served(0), Some(false));

    let mut nodes = Nodes::new(3);
    nodes.catalogs_are_equal = false;
    (0..2).for_each(|index| nodes.start(index));
    nodes.pass(GRACE_MS + 100);
    assert_eq!(nodes.served(0), None, "node 1 is there, and has more to say");
    nodes.pass(LONGEST_MS);
    assert_eq!(nodes.served(0), Some(false));
}

/// The peers are up, and slow to connect: nobody may be let in with the catalog of before.
#[test]
fn a_start_that_has_met_fewer_than_half_of_the_nodes_waits_on_after_its_grace() {
    for count in [3, 4, 5] {
        let mut nodes = Nodes::new(count);
        nodes.start(0);
        nodes.pass(GRACE_MS + 1000);
        assert_eq!(nodes.served(0), None, "it is alone, of {count}");
        // The others come one by one. Half of the nodes are enough, and each that is met has its say first.
        for index in 1..count {
            let enough = 2 * (index + 1) >= count;
            nodes.catalogs_are_equal = false;
            nodes.start(index);
            nodes.event(0, LinkEvent::Redial);
            nodes.pass(100);
            assert_eq!(nodes.served(0), None, "node {index} is there, and has more to say");
            nodes.catalogs_are_equal = true;
            nodes.event(0, LinkEvent::CaughtUp(node(index)));
            assert_eq!(nodes.served(0), enough.then_some(false), "{} of {count} are there", index + 1);
            if enough {
                break;
            }
        }
    }
}

#[test]
fn a_node_whose_peers_are_all_down_serves_in_the_end_and_a_node_without_peers_at_once() {
    let mut nodes = Nodes::new(3);
    nodes.start(0);
    nodes.pass(LONGEST_MS - 10);
    assert_eq!(nodes.served(0), None);
    nodes.pass(20);
    assert_eq!(nodes.served(0), Some(false));

    let mut nodes = Nodes::new(1);
    nodes.start(0);
    assert_eq!(nodes.served(0), Some(true));
}

#[test]
fn whatever_must_be_equal_is_compared_and_refused_on_both_sides_by_name() {
    /// What a node has that differs.
    type Change = fn(&mut ClusterParams);
    let changes: [(&str, Change); 5] = [
        ("the protocol differs", |params| params.protocol = 2),
        ("different nodes or clusters", |params| params.cluster = ClusterId(6)),
        ("the cluster's secret differs", |params| params.secret_check = 1),
        ("the first layout differs", |params| params.origin.hash = 8),
        ("max_skew_ms differs", |params| params.max_skew_ms = 2),
    ];
    for (words, change) in changes {
        let mut nodes = Nodes::new(3);
        change(&mut nodes.params[2]);
        (0..3).for_each(|index| nodes.start(index));
        nodes.pass(20_000);
        for (index, other) in [(0, "n2"), (1, "n2"), (2, "n0"), (2, "n1")] {
            let refusals = nodes.refusals(index);
            assert!(
                refusals.iter().any(|why| why.contains(words) && why.contains(other)),
                "node {index}: {refusals:?}"
            );
        }
        assert_eq!([0, 1].map(|index| nodes.served(index)), [Some(false); 2], "{words}: two agree against one");
        assert_eq!(nodes.served(2), None, "{words}");
        let told = nodes.links[2].as_ref().and_then(Links::why_not_serving).unwrap();
        assert!(told.why.contains(words) && told.lasting, "{told:?}");
        // The operator mends it.
        nodes.stop(2);
        nodes.params[2] = nodes.params[0];
        nodes.start(2);
        nodes.pass(100);
        assert_eq!(nodes.served(2), Some(true));
        assert!(nodes.outputs[0].contains(&LinkOutput::Reconciled(node(2))));
    }
}

#[test]
fn of_two_halves_that_contradict_each_other_none_serves() {
    let mut nodes = Nodes::new(4);
    for index in [2, 3] {
        nodes.params[index].origin.hash = 8;
    }
    (0..4).for_each(|index| nodes.start(index));
    nodes.pass(20_000);
    assert_eq!([0, 1, 2, 3].map(|index| nodes.served(index)), [None; 4]);
}

#[test]
fn a_node_whose_data_directory_was_replaced_is_told_before_it_serves_and_remembers_it() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    nodes.stop(1);
    nodes.disks[1] = Disks::new(DiskId(99));
    nodes.outputs[1].clear();
    nodes.start(1);
    nodes.pass(20);
    let place = |wanted: fn(&LinkOutput) -> bool| nodes.outputs[1].iter().position(wanted);
    let told = place(|output| matches!(output, LinkOutput::Replaced(_)));
    assert!(told.is_some() && told < place(|output| matches!(output, LinkOutput::Serve { .. })));
    assert!(nodes.outputs[1].contains(&LinkOutput::SaveDisks));
    nodes.stop(1);
    assert!(nodes.disks[1].replaced.is_some());
    // It is told no more than once, and nobody forgets: another empty directory is found out as well.
    nodes.outputs[1].clear();
    nodes.start(1);
    nodes.pass(20);
    assert!(!nodes.outputs[1].iter().any(|output| matches!(output, LinkOutput::Replaced(_))));
    nodes.stop(1);
    nodes.disks[1] = Disks::new(DiskId(100));
    nodes.start(1);
    nodes.pass(20);
    assert!(nodes.outputs[1].iter().any(|output| matches!(output, LinkOutput::Replaced(_))));
}

#[test]
pub(crate) fn a_node_is_replaced_until_all_its_shards_are_rebuilt_and_its_peers_hear_of_it() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    nodes.stop(1);
    nodes.disks[1] = Disks::new(DiskId(99));
    nodes.start(1);
    nodes.pass(20);
    assert_eq!(nodes.takers_for_replaced(1), [0, 1, 2]);
    nodes.event(1, LinkEvent::ShardRebuilt(0));
    nodes.event(1, LinkEvent::ShardRebuilt(0));
    nodes.deliver();
    assert_eq!(nodes.takers_for_replaced(1), [0, 1, 2], "its other shard is not");
    // One peer is away, with the disk id of before.
    nodes.stop(2);
    nodes.event(1, LinkEvent::ShardRebuilt(1));
    nodes.deliver();
    assert_eq!(nodes.takers_for_replaced(1), [0; 0]);
    assert!(nodes.outputs[1].contains(&LinkOutput::Rebuilt));
    nodes.start(2);
    nodes.pass(3000);
    assert_eq!(nodes.takers_for_replaced(1), [0; 0], "as the hello says");
    // Neither restart brings it back, whatever the peers remember.
    for index in [1, 0] {
        nodes.stop(index);
        nodes.outputs[1].clear();
        nodes.start(index);
        nodes.pass(3000);
        assert_eq!(nodes.takers_for_replaced(1), [0; 0]);
        assert!(!nodes.outputs[1].iter().any(|output| matches!(output, LinkOutput::Replaced(_))));
    }
}

/// The node hears of its loss and is rebuilt on one and the same connection; then its peer has the old disk id until it
/// hears so.
#[test]
fn what_a_peer_hears_of_a_rebuild_it_remembers() {
    let mut nodes = Nodes::new(2);
    (0..2).for_each(|index| nodes.start(index));
    nodes.pass(20);
    nodes.stop(1);
    nodes.disks[1] = Disks::new(DiskId(99));
    nodes.start(1);
    nodes.pass(20);
    let known = |nodes: &Nodes| nodes.links[0].as_ref().and_then(|links| links.disks().peers.get(&node(1)).copied());
    assert_eq!(known(&nodes), Some(DiskId(11)));
    (0..2).for_each(|shard| nodes.event(1, LinkEvent::ShardRebuilt(shard)));
    nodes.deliver();
    assert_eq!(known(&nodes), Some(DiskId(99)));
}

#[test]
fn a_peer_that_says_no_hello_is_let_go_and_dialled_again_later() {
    let mut nodes = Nodes::new(2);
    let (lower, higher) = nodes.lower(0, 1);
    nodes.start(lower);
    let name = name(&format!("n{higher}"));
    nodes.event(lower, LinkEvent::Connected { peer: node(higher), name, connection: 77, dialled: false });
    nodes.pass(6000);
    assert!(nodes.outputs[lower].contains(&LinkOutput::Close(77, CloseReason::NoHello)));
    nodes.start(higher);
    nodes.pass(3000);
    assert_eq!(nodes.served(higher), Some(true));
}

#[test]
fn a_wall_clock_that_most_peers_contradict_is_corrected_until_they_agree_again() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    let connections =
        [1, 2].map(|peer| nodes.links[0].as_ref().and_then(|links| links.connection(node(peer))).expect("connected"));
    let corrections = |nodes: &Nodes| -> Vec<i64> {
        let all = nodes.outputs[0].iter();
        all.filter_map(|output| if let LinkOutput::CorrectClock(ms) = output { Some(*ms) } else { None }).collect()
    };
    let own_ms = at(nodes.now_ms).wall_ms;
    nodes.event(0, LinkEvent::Clock(connections[0], own_ms + 3_600_000));
    assert!(corrections(&nodes).is_empty(), "one peer against one");
    nodes.event(0, LinkEvent::Clock(connections[1], own_ms + 3_600_000));
    nodes.event(0, LinkEvent::Clock(connections[1], own_ms + 3_600_100));
    assert_eq!(corrections(&nodes), [3_600_000], "once");
    nodes.event(0, LinkEvent::Clock(connections[0], own_ms));
    assert_eq!(corrections(&nodes), [3_600_000, 0]);
}

#[test]
fn a_node_that_joins_is_met_by_members_that_have_not_heard_of_it_and_serves() {
    for joiner in 0..4 {
        let members: Vec<usize> = (0..4).filter(|at| *at != joiner).collect();
        let mut nodes = Nodes::new(4);
        for &member in &members {
            nodes.start(member);
            nodes.ring(member, &members, &[]);
        }
        nodes.pass(600);
        assert!(members.iter().all(|at| nodes.served(*at) == Some(true)), "they do not wait for who is no member");
        nodes.start(joiner);
        nodes.ring(joiner, &members, &[]);
        nodes.pass(20);
        assert_eq!(nodes.served(joiner), Some(true));
        assert!(members.iter().all(|at| nodes.connected(*at, joiner) && nodes.connected(joiner, *at)));
        // Its links break while nobody has heard of it yet: it dials all, whoever has the lower id.
        for &member in &members {
            let connection = nodes.links[member].as_ref().and_then(|links| links.connection(node(joiner)));
            let connection = connection.expect("connected");
            nodes.event(member, LinkEvent::Closed(connection, None));
            nodes.ring(member, &members, &[]);
            nodes.event(joiner, LinkEvent::Closed(connection, None));
        }
        nodes.pass(3_000);
        assert!(members.iter().all(|at| nodes.connected(*at, joiner) && nodes.connected(joiner, *at)), "{joiner}");
    }
}

#[test]
fn a_member_that_is_added_is_dialled_and_one_that_is_removed_is_not_waited_for() {
    let mut nodes = Nodes::new(4);
    nodes.start(0);
    nodes.ring(0, &[0, 1], &[(2, Standing::Other)]);
    for index in [1, 2] {
        nodes.start(index);
        nodes.ring(index, &[0, 1], &[(2, Standing::Other)]);
    }
    nodes.pass(20);
    assert_eq!([0, 1, 2].map(|index| nodes.served(index)), [Some(true); 3], "node 3 is named by no ring");
    nodes.start(3);
    nodes.ring(3, &[0, 1, 3], &[]);
    nodes.ring(0, &[0, 1, 3], &[]);
    nodes.pass(20);
    assert!(nodes.connected(0, 3) && nodes.connected(3, 0) && nodes.connected(1, 3));
}

#[test]
pub(crate) fn a_node_that_was_declared_dead_and_removed_is_refused_until_it_comes_with_an_empty_directory() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    nodes.stop(2);
    let dead = [(2, Standing::Dead(layout(1)))];
    (0..2).for_each(|index| nodes.ring(index, &[0, 1], &dead));
    nodes.outputs[2].clear();
    nodes.start(2);
    nodes.pass(3_000);
    assert!(!nodes.connected(0, 2) && !nodes.connected(1, 2));
    let why = nodes.refusals(2).concat();
    assert!(why.contains("was declared dead and removed: stop it, remove its data directory"), "{why}");
    assert_eq!(nodes.served(2), None);
    nodes.stop(2);
    nodes.disks[2] = Disks::new(DiskId(99));
    nodes.outputs[2].clear();
    nodes.start(2);
    nodes.ring(2, &[0, 1], &[]);
    nodes.pass(3_000);
    assert!(nodes.connected(0, 2) && nodes.connected(1, 2));
    let replaced = |output: &LinkOutput| matches!(output, LinkOutput::Replaced(_));
    assert!(!nodes.outputs[2].iter().any(replaced), "it is no member, and has lost nothing");
    assert!(!nodes.links[0].as_ref().is_some_and(|links| links.is_replaced(node(2))));
    // With that directory it may come again and again.
    nodes.stop(2);
    nodes.start(2);
    nodes.ring(2, &[0, 1], &[]);
    nodes.pass(3_000);
    assert!(nodes.connected(0, 2) && nodes.connected(1, 2));
}

#[test]
fn a_node_that_leaves_after_it_has_come_back_from_a_death_is_not_taken_for_dead() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    nodes.stop(2);
    let old = nodes.disks[2].clone();
    let dead = [(2, Standing::Dead(layout(1)))];
    (0..2).for_each(|index| nodes.ring_of(2, index, &[0, 1], &dead));
    nodes.disks[2] = Disks::new(DiskId(99));
    nodes.start(2);
    nodes.ring_of(2, 2, &[0, 1], &[]);
    nodes.pass(3_000);
    // It becomes a member again, and leaves alive.
    (0..3).for_each(|index| nodes.ring_of(3, index, &[0, 1, 2], &[]));
    (0..3).for_each(|index| nodes.ring_of(4, index, &[0, 1], &dead));
    // Node 0 restarts, and meets it anew.
    nodes.stop(0);
    nodes.start(0);
    nodes.ring_of(4, 0, &[0, 1], &dead);
    nodes.pass(3_000);
    assert!(nodes.connected(0, 2) && nodes.connected(1, 2), "{:?}", nodes.refusals(2));
    // The disk of the time before the death is still refused.
    nodes.stop(2);
    nodes.disks[2] = old;
    nodes.start(2);
    nodes.pass(3_000);
    assert!(!nodes.connected(0, 2) && !nodes.connected(1, 2));
}

#[test]
pub(crate) fn a_member_that_was_skipped_and_has_come_back_may_leave_later() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    // It is declared dead for a change in which it stays a member, and comes back as one.
    nodes.stop(2);
    (0..2).for_each(|index| nodes.ring_of(2, index, &[0, 1, 2], &[]));
    nodes.start(2);
    (2..4).for_each(|version| (0..3).for_each(|index| nodes.ring_of(version, index, &[0, 1, 2], &[])));
    nodes.pass(3_000);
    let skipped = [(2, Standing::Dead(layout(2)))];
    (0..3).for_each(|index| nodes.ring_of(4, index, &[0, 1], &skipped));
    nodes.stop(0);
    nodes.start(0);
    nodes.ring_of(4, 0, &[0, 1], &skipped);
    nodes.pass(3_000);
    assert!(nodes.connected(0, 2) && nodes.connected(1, 2), "{:?}", nodes.refusals(2));
}

#[test]
fn a_node_that_has_lost_its_directory_takes_no_disk_of_today_for_a_dead_one() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    // Node 2 is declared dead, and comes again with an empty directory.
    nodes.stop(2);
    let dead = [(2, Standing::Dead(layout(1)))];
    (0..2).for_each(|index| nodes.ring(index, &[0, 1], &dead));
    nodes.disks[2] = Disks::new(DiskId(99));
    let comes_again = |nodes: &mut Nodes| {
        nodes.start(2);
        nodes.ring(2, &[0, 1], &[]);
        nodes.pass(3_000);
        assert!(nodes.connected(0, 2) && nodes.connected(1, 2), "{:?}", nodes.refusals(2));
    };
    comes_again(&mut nodes);
    // Node 0 loses its own. It begins with the first layout, of which node 2 is a member.
    nodes.stop(0);
    nodes.disks[0] = Disks::new(DiskId(100));
    nodes.start(0);
    nodes.pass(3_000);
    assert!(nodes.connected(0, 2));
    nodes.ring(0, &[0, 1], &dead);
    for restarts in [false, true] {
        nodes.stop(2);
        if restarts {
            nodes.stop(0);
            nodes.start(0);
            nodes.ring(0, &[0, 1], &dead);
        }
        comes_again(&mut nodes);
    }
}

#[test]
fn a_node_that_hears_late_of_a_death_takes_the_empty_directory_for_what_it_is() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|index| nodes.start(index));
    nodes.pass(20);
    // Node 1 hears of the death only after node 2 has come with an empty directory, and has met it.
    nodes.stop(2);
    let dead = [(2, Standing::Dead(layout(1)))];
    nodes.ring(0, &[0, 1], &dead);
    nodes.disks[2] = Disks::new(DiskId(99));
    for _ in 0..2 {
        nodes.start(2);
        nodes.ring(2, &[0, 1], &[]);
        nodes.pass(3_000);
        assert!(nodes.connected(0, 2) && nodes.connected(1, 2), "{:?}", nodes.refusals(2));
        nodes.ring(1, &[0, 1], &dead);
        nodes.stop(2);
    }
    // Once it was a member again, and is declared dead again, it is refused.
    nodes.start(2);
    nodes.ring(2, &[0, 1, 2], &[]);
    nodes.stop(2);
    nodes.start(2);
    nodes.pass(3_000);
    assert!(!nodes.connected(0, 2) && !nodes.connected(1, 2));
}
