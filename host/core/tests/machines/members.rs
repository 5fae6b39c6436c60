//! Members of a cluster, wired to each other by a network that loses what it is told to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::members::{
    Config, Liveness, MAX_DATAGRAM, MemberEvent, MemberOutput, Members, PeerView, Reason, Requests, Timing,
};
use rejoin_proto::NodeId;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
/// One way.
const DELAY_US: u64 = MS;

/// Nodes 1, 2, 3, ... and the datagrams between them.
struct Swarm {
    nodes: BTreeMap<u64, Members>,
    /// By time of arrival, and then in the order in which they were sent.
    wire: BTreeMap<(u64, u64), (u64, u64, Bytes)>,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(u64, u64)>,
    /// Nodes that do not run. What arrives meanwhile is lost.
    stopped: BTreeSet<u64>,
    /// At whom, of whom, what.
    changes: Vec<(u64, u64, Liveness)>,
    now_us: u64,
    sent: u64,
}

impl Swarm {
    /// Nodes that know each other and are connected, ten seconds after they have met.
    fn new(count: u64) -> Self {
        let mut swarm = Self {
            nodes: BTreeMap::new(),
            wire: BTreeMap::new(),
            cut: BTreeSet::new(),
            stopped: BTreeSet::new(),
            changes: Vec::new(),
            now_us: SECOND,
            sent: 0,
        };
        (1..=count).for_each(|node| swarm.start(node, count, 1_000));
        swarm.run(10 * SECOND);
        let strangers: Vec<u64> =
            (1..=count).filter(|node| swarm.think(*node).iter().any(|view| view.liveness != Liveness::Alive)).collect();
        assert!(strangers.is_empty(), "all have met: {strangers:?}");
        swarm.changes.clear();
        swarm
    }

    fn start(&mut self, node: u64, count: u64, start: u64) {
        let peers: Vec<NodeId> = (1..=count).filter(|peer| *peer != node).map(NodeId).collect();
        let config = Config { node: NodeId(node), peers: peers.clone(), start, timing: Timing::default() };
        let rng = Xoshiro256PlusPlus::seed_from_u64(node + start);
        self.nodes.insert(node, Members::new(config, self.now_us, rng));
        self.stopped.remove(&node);
        for peer in peers {
            self.event(node, MemberEvent::LinkUp(peer));
            if self.nodes.contains_key(&peer.0) {
                self.event(peer.0, MemberEvent::LinkUp(NodeId(node)));
            }
        }
    }

    fn event(&mut self, at: u64, event: MemberEvent) {
        if self.stopped.contains(&at) {
            return;
        }
        let mut outputs = Vec::new();
        self.nodes.get_mut(&at).expect("it was started").handle(self.now_us, event, &mut outputs);
        for output in outputs {
            match output {
                MemberOutput::Send(to, body) => {
                    assert!(body.len() <= MAX_DATAGRAM, "{} bytes", body.len());
                    self.sent += 1;
                    self.wire.insert((self.now_us + DELAY_US, self.sent), (at, to.0, body));
                }
                MemberOutput::Changed(peer, liveness) => self.changes.push((at, peer.0, liveness)),
            }
        }
    }

    /// Lets so much time pass.
    fn run(&mut self, for_us: u64) {
        let until_us = self.now_us + for_us;
        loop {
            let running = self.nodes.iter().filter(|(node, _)| !self.stopped.contains(node));
            let timer = running.map(|(node, members)| (members.next_wake_us().max(self.now_us), *node)).min();
            let arrival = self.wire.first_key_value().map(|((at_us, _), _)| *at_us);
            let next_us = timer.map(|(at_us, _)| at_us).into_iter().chain(arrival).min().unwrap_or(u64::MAX);
            if next_us > until_us {
                break;
            }
            self.now_us = next_us;
            if arrival == Some(next_us) {
                let Some((_, (from, to, body))) = self.wire.pop_first() else { return };
                if !self.cut.contains(&(from, to)) {
                    self.event(to, MemberEvent::Datagram(NodeId(from), body));
                }
            } else if let Some((_, node)) = timer {
                self.event(node, MemberEvent::Tick);
            }
        }
        self.now_us = until_us;
    }

    fn think(&self, at: u64) -> Vec<PeerView> {
        self.nodes[&at].views(self.now_us).collect()
    }

    fn view(&self, at: u64, of: u64) -> PeerView {
        *self.think(at).iter().find(|view| view.node == NodeId(of)).expect("it is in the layout")
    }

    fn liveness(&self, at: u64, of: u64) -> Liveness {
        self.nodes[&at].liveness(NodeId(of))
    }
}

#[test]
fn a_node_that_stops_is_suspected_then_down_and_alive_when_it_is_back() {
    let mut swarm = Swarm::new(5);
    swarm.stopped.insert(5);
    swarm.run(30 * SECOND);
    for at in 1..=4 {
        assert_eq!(swarm.liveness(at, 5), Liveness::Down);
        let of_5: Vec<Liveness> =
            swarm.changes.iter().filter(|(by, of, _)| (*by, *of) == (at, 5)).map(|change| change.2).collect();
        assert_eq!(of_5, [Liveness::Suspect, Liveness::Down], "at {at}");
    }
    assert!(swarm.changes.iter().all(|(_, of, _)| *of == 5), "nobody else: {:?}", swarm.changes);
    swarm.start(5, 5, 2_000);
    swarm.run(10 * SECOND);
    for at in 1..=4 {
        assert_eq!(swarm.liveness(at, 5), Liveness::Alive, "{:?}", swarm.view(at, 5));
        assert_eq!(swarm.liveness(5, at), Liveness::Alive, "{:?}", swarm.view(5, at));
    }
}

#[test]
pub(crate) fn a_node_that_stood_still_suspects_nobody() {
    let mut swarm = Swarm::new(5);
    // It stops behind a question that nobody will answer in time.
    let asks = |swarm: &Swarm| swarm.wire.values().any(|(from, ..)| *from == 1);
    while !asks(&swarm) {
        swarm.run(MS / 2);
    }
    swarm.stopped.insert(1);
    swarm.run(60 * SECOND);
    swarm.changes.clear();
    swarm.stopped.remove(&1);
    swarm.event(1, MemberEvent::Tick);
    swarm.run(10 * SECOND);
    let by_1: Vec<_> = swarm.changes.iter().filter(|(at, ..)| *at == 1).collect();
    assert!(by_1.is_empty(), "the silence was its own: {by_1:?}");
    assert_eq!(swarm.nodes[&1].counters().pauses, 1);
    for at in 2..=5 {
        assert_eq!(swarm.liveness(at, 1), Liveness::Alive, "and it is met again: {:?}", swarm.view(at, 1));
    }
}

#[test]
pub(crate) fn requests_without_answers_make_a_suspect_of_a_node_that_answers_probes() {
    let mut swarm = Swarm::new(3);
    let asked_us = swarm.now_us;
    let tell = |swarm: &mut Swarm, requests| {
        swarm.event(1, MemberEvent::Requests(0, vec![(NodeId(2), requests)]));
        swarm.run(200 * MS);
    };
    for _ in 0..30 {
        tell(&mut swarm, Requests { answered_after_us: None, waiting_since_us: Some(asked_us) });
    }
    let view = swarm.view(1, 2);
    assert_eq!((view.liveness, view.reason), (Liveness::Suspect, Reason::Requests), "{view:?}");
    assert!(view.probe_answered_us > Some(asked_us), "it answers probes: {view:?}");
    assert_eq!(swarm.liveness(3, 2), Liveness::Alive, "nobody else has asked");
    // Given up, it counts for a while.
    tell(&mut swarm, Requests::default());
    assert_eq!(swarm.liveness(1, 2), Liveness::Suspect);
    tell(&mut swarm, Requests { answered_after_us: Some(MS), waiting_since_us: None });
    assert_eq!(swarm.liveness(1, 2), Liveness::Alive);
}

#[test]
fn what_was_given_up_is_forgotten() {
    let mut swarm = Swarm::new(3);
    let waiting = Requests { answered_after_us: None, waiting_since_us: Some(swarm.now_us) };
    for _ in 0..30 {
        swarm.event(1, MemberEvent::Requests(0, vec![(NodeId(2), waiting)]));
        swarm.run(200 * MS);
    }
    swarm.event(1, MemberEvent::Requests(0, vec![(NodeId(2), Requests::default())]));
    swarm.run(9 * SECOND);
    assert_eq!(swarm.liveness(1, 2), Liveness::Suspect);
    swarm.run(2 * SECOND);
    assert_eq!(swarm.liveness(1, 2), Liveness::Alive, "with another request it will be seen: {:?}", swarm.view(1, 2));
}

#[test]
pub(crate) fn probes_make_a_suspect_of_a_node_that_only_this_one_cannot_reach() {
    let mut swarm = Swarm::new(5);
    swarm.cut.insert((1, 2));
    swarm.run(20 * SECOND);
    let view = swarm.view(1, 2);
    assert_eq!((view.liveness, view.reason), (Liveness::Down, Reason::Probes), "{view:?}");
    for at in 3..=5 {
        assert_eq!(swarm.liveness(at, 2), Liveness::Alive, "others reach it: {:?}", swarm.view(at, 2));
    }
    swarm.cut.clear();
    swarm.run(15 * SECOND);
    assert_eq!(swarm.liveness(1, 2), Liveness::Alive);
}

#[test]
fn a_lost_datagram_makes_no_suspect() {
    let mut swarm = Swarm::new(3);
    for cut in [(1, 2), (2, 1), (1, 3), (3, 1)] {
        // The cut begins with a datagram under way, so that one is lost.
        while !swarm.wire.values().any(|(from, to, _)| (*from, *to) == cut) {
            swarm.run(MS / 2);
        }
        swarm.cut.insert(cut);
        swarm.run(700 * MS);
        swarm.cut.clear();
        swarm.run(3 * SECOND);
    }
    assert!(swarm.changes.is_empty(), "{:?}", swarm.changes);
}

#[test]
fn a_peer_that_answers_checks_is_not_suspected_for_a_failed_probe() {
    let mut swarm = Swarm::new(3);
    for _ in 0..20_000 {
        // No packet of SWIM arrives at node 2; checks do.
        swarm.wire.retain(|_, (_, to, body)| *to != 2 || body[0] != 1);
        swarm.run(MS / 2);
        let gossip: Vec<Liveness> = (1..=3).flat_map(|at| swarm.think(at)).map(|view| view.gossip.liveness()).collect();
        assert_eq!(gossip, [Liveness::Alive; 6]);
    }
    assert!(swarm.changes.is_empty(), "{:?}", swarm.changes);
}

#[test]
fn a_node_knows_whose_word_it_took_for_a_peer_being_down() {
    let mut swarm = Swarm::new(40);
    swarm.stopped.insert(40);
    swarm.run(60 * SECOND);
    let told: Vec<PeerView> =
        (1..40).map(|at| swarm.view(at, 40)).filter(|view| matches!(view.reason, Reason::Gossip(_))).collect();
    assert!(told.len() > 20, "most have heard of it: {}", told.len());
    for view in told {
        let Reason::Gossip(by) = view.reason else { continue };
        assert_ne!(by, NodeId(40));
        assert_eq!((view.liveness, view.gossip.told_by), (Liveness::Down, Some(by)));
        assert!(view.since_us > 11 * SECOND && view.since_us < 50 * SECOND, "{view:?}");
    }
}

#[test]
fn an_own_answer_outweighs_what_others_say() {
    let mut swarm = Swarm::new(4);
    // No datagram reaches node 4, but the requests of node 1 do.
    for at in [1, 2, 3] {
        swarm.cut.extend([(at, 4), (4, at)]);
    }
    for _ in 0..200 {
        swarm.run(100 * MS);
        let answered = Requests { answered_after_us: Some(MS), waiting_since_us: None };
        swarm.event(1, MemberEvent::Requests(0, vec![(NodeId(4), answered)]));
    }
    assert_eq!(swarm.liveness(2, 4), Liveness::Down);
    assert_eq!(swarm.view(1, 4).gossip.liveness(), Liveness::Down, "others say so: {:?}", swarm.view(1, 4));
    assert!(swarm.changes.iter().all(|(at, ..)| *at != 1), "{:?}", swarm.changes);
}

#[test]
fn a_process_whose_clock_went_back_is_taken_for_the_later_one() {
    let mut swarm = Swarm::new(4);
    // Far more than a process can count up by being given up again and again.
    swarm.start(4, 4, 1_700_000_000_000);
    swarm.run(20 * SECOND);
    swarm.stopped.insert(4);
    swarm.run(20 * SECOND);
    swarm.start(4, 4, 10);
    swarm.run(20 * SECOND);
    for at in 1..=3 {
        assert_eq!(swarm.liveness(at, 4), Liveness::Alive, "{:?}", swarm.view(at, 4));
        assert_eq!(swarm.view(at, 4).gossip.liveness(), Liveness::Alive, "{:?}", swarm.view(at, 4));
    }
}

#[test]
fn halves_that_lost_each_other_meet_again() {
    let mut swarm = Swarm::new(6);
    let across = |cut: &mut BTreeSet<(u64, u64)>| {
        (1..=3).for_each(|a| (4..=6).for_each(|b| cut.extend([(a, b), (b, a)])));
    };
    across(&mut swarm.cut);
    swarm.run(60 * SECOND);
    assert_eq!((swarm.liveness(1, 4), swarm.liveness(4, 1)), (Liveness::Down, Liveness::Down));
    swarm.cut.clear();
    swarm.run(40 * SECOND);
    for at in 1..=6 {
        for view in swarm.think(at) {
            assert_eq!(
                (view.liveness, view.gossip.liveness()),
                (Liveness::Alive, Liveness::Alive),
                "at {at}: {view:?}"
            );
        }
    }
}

#[test]
fn a_peer_that_is_not_connected_is_asked_last_at_once_and_nothing_is_sent_to_it() {
    let mut swarm = Swarm::new(3);
    swarm.event(1, MemberEvent::LinkDown(NodeId(2)));
    let view = swarm.view(1, 2);
    assert_eq!((view.liveness, view.reason), (Liveness::Suspect, Reason::NotConnected));
    swarm.wire.clear();
    for _ in 0..100 {
        swarm.run(100 * MS);
        assert!(!swarm.wire.values().any(|(from, to, _)| (*from, *to) == (1, 2)));
    }
    assert_eq!(swarm.liveness(1, 2), Liveness::Down);
    swarm.event(1, MemberEvent::LinkUp(NodeId(2)));
    swarm.run(SECOND);
    assert_eq!(swarm.liveness(1, 2), Liveness::Alive);
}

#[test]
fn what_is_no_datagram_of_a_peer_is_rejected_and_changes_nothing() {
    let mut swarm = Swarm::new(3);
    let before = swarm.think(1);
    let bodies = [&b""[..], b"\x01", b"\x02short", b"\xff0123456789abcdef", &[1; MAX_DATAGRAM], &[3; MAX_DATAGRAM + 1]];
    for body in bodies {
        swarm.event(1, MemberEvent::Datagram(NodeId(2), Bytes::copy_from_slice(body)));
    }
    let check = [&[2][..], &[0; 16]].concat();
    swarm.event(1, MemberEvent::Datagram(NodeId(77), check.into()));
    assert_eq!(swarm.nodes[&1].counters().datagrams_rejected, 7);
    assert_eq!(swarm.think(1), before);
}

#[test]
fn the_same_events_give_the_same_outputs() {
    let run = || {
        let mut swarm = Swarm::new(8);
        swarm.stopped.insert(3);
        swarm.run(20 * SECOND);
        (swarm.sent, swarm.changes.clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_node_that_joins_is_met_and_one_that_has_left_is_forgotten_without_doubts_about_others() {
    let mut swarm = Swarm::new(3);
    swarm.start(4, 4, 1_000);
    swarm.run(5 * SECOND);
    for node in 1..=4 {
        let views = swarm.think(node);
        assert!(views.len() == 3 && views.iter().all(|view| view.liveness == Liveness::Alive), "{node}: {views:?}");
    }
    let rejected: u64 = (1..=4).map(|node| swarm.nodes[&node].counters().datagrams_rejected).sum();
    // It is a member from now on, and stays a peer while there is no connection.
    for node in 1..=3 {
        let others = (1..=4).filter(|other| *other != node).map(NodeId).collect();
        swarm.event(node, MemberEvent::Members(others));
        swarm.event(node, MemberEvent::LinkDown(NodeId(4)));
    }
    swarm.stopped.insert(4);
    swarm.run(SECOND);
    assert!((1..=3).all(|node| swarm.think(node).len() == 3));
    for node in 1..=3 {
        let others = (1..=3).filter(|other| *other != node).map(NodeId).collect();
        swarm.event(node, MemberEvent::Members(others));
    }
    swarm.changes.clear();
    swarm.run(60 * SECOND);
    assert!((1..=3).all(|node| swarm.think(node).len() == 2), "it is forgotten");
    assert!(swarm.changes.is_empty(), "nobody else is doubted: {:?}", swarm.changes);
    let since: u64 = (1..=4).map(|node| swarm.nodes[&node].counters().datagrams_rejected).sum();
    assert_eq!(since, rejected, "news of it that are still under way are taken");
}
