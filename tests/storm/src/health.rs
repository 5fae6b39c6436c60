//! Which nodes were certainly well, and when: for the reads that must not fail.
//!
//! A strict read may fail if fewer than R owners can answer it. So a failed one is counted only if there was a *healthy
//! quorum*: at least R owners of the key, in every layout that was live or had just been retired, which were well
//! during the whole request, and so were their links to each other and to the clients. If the client asks one node
//! only, that node and its links to them must be well too. A node is well while no fault is done to it. After a fault
//! it counts as well after some time (a killed node has to start, to connect, and to be known to be back), or once all
//! nodes were seen to be connected; one that was wiped when it is rebuilt. What is not certain is not counted.

use std::collections::BTreeMap;

use rejoin_proto::Layout;
use rejoin_test_sim::history::{KeyId, NodeIndex};

use crate::plan::{Fault, Place};

/// After its end a kill, a wipe or a full disk counts for so long, in microseconds; a pause or a cut so long. A start
/// may wait 10 s (`start_wait_ms`) for peers that are connected and paused, and the process has to come up before that.
const STARTS_US: u64 = 12_000_000;
const RETURNS_US: u64 = 5_000_000;
/// For so long after its end a layout may be the one by which a read is answered.
const RETIRED_US: u64 = 5_000_000;
/// The end of what goes on.
const OPEN: u64 = u64::MAX;

/// A read of a strict bucket that has failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedRead {
    /// Of which key.
    pub key: KeyId,
    /// When it was asked, in microseconds.
    pub from_us: u64,
    /// When it ended.
    pub to_us: u64,
    /// The only node that its client asks, if there is one.
    pub pinned: Option<NodeIndex>,
    /// How it failed.
    pub why: String,
}

/// A layout, and when it was live.
#[derive(Debug)]
struct Live {
    from_us: u64,
    to_us: u64,
    layout: Layout,
}

/// What was done to nodes and links, and the layouts, each with its time.
#[derive(Default, Debug)]
pub struct Health {
    nodes: BTreeMap<NodeIndex, Vec<(u64, u64)>>,
    links: BTreeMap<(Place, Place), Vec<(u64, u64)>>,
    layouts: Vec<Live>,
}

impl Health {
    /// A fault begins.
    pub fn begins(&mut self, fault: &Fault, now_us: u64) {
        if let Fault::Cut(links) = fault {
            links.iter().for_each(|link| self.links.entry(*link).or_default().push((now_us, OPEN)));
        } else if let Some(node) = fault.troubles() {
            self.node_troubled(node, now_us);
        }
    }

    /// It ends.
    pub fn ends(&mut self, fault: &Fault, now_us: u64) {
        match fault {
            Fault::Cut(links) => {
                links.iter().for_each(|link| close(self.links.entry(*link).or_default(), now_us + RETURNS_US))
            }
            Fault::Pause(node) => close(self.nodes.entry(*node).or_default(), now_us + RETURNS_US),
            Fault::Kill(node) | Fault::FullDisk(node, _) | Fault::Wipe(node) => self.node_back(*node, now_us),
            Fault::Clock(..) => {}
        }
    }

    /// Something is done to a node that goes on.
    pub fn node_troubled(&mut self, node: NodeIndex, now_us: u64) {
        self.nodes.entry(node).or_default().push((now_us, OPEN));
    }

    /// It is over.
    pub fn node_back(&mut self, node: NodeIndex, now_us: u64) {
        close(self.nodes.entry(node).or_default(), now_us + STARTS_US);
    }

    /// All nodes were seen to be connected to each other: what was over is over for good.
    pub fn together(&mut self, now_us: u64) {
        let all = self.nodes.values_mut().chain(self.links.values_mut()).flatten();
        all.filter(|(_, to_us)| *to_us != OPEN).for_each(|(_, to_us)| *to_us = (*to_us).min(now_us));
    }

    /// A layout is live, from that time on.
    pub fn applied(&mut self, layout: Layout, from_us: u64) {
        self.layouts.push(Live { from_us, to_us: OPEN, layout });
    }

    /// All layouts but the newest are retired.
    pub fn settled(&mut self, now_us: u64) {
        let newest = self.layouts.iter().map(|live| live.layout.name()).max();
        for live in self.layouts.iter_mut().filter(|live| Some(live.layout.name()) != newest && live.to_us == OPEN) {
            live.to_us = now_us + RETIRED_US;
        }
    }

    /// Whether a healthy quorum of `r` could have answered a read. `owners` are those of its key in a layout.
    #[must_use]
    pub fn had_quorum(&self, read: &FailedRead, r: usize, owners: impl Fn(&Layout) -> Vec<NodeIndex>) -> bool {
        let during = |(from_us, to_us): &(u64, u64)| *from_us <= read.to_us && *to_us >= read.from_us;
        let node_well = |node: NodeIndex| !self.nodes.get(&node).is_some_and(|all| all.iter().any(during));
        let link_well = |one: Place, other: Place| {
            let well = |link| !self.links.get(&link).is_some_and(|all| all.iter().any(during));
            well((one, other)) && well((other, one))
        };
        let reached_by = |from: NodeIndex, to: NodeIndex| from == to || link_well(Place::Node(from), Place::Node(to));
        let is_well = |node: NodeIndex| {
            let is_asked = read.pinned.is_none_or(|asked| reached_by(asked, node));
            is_asked && node_well(node) && link_well(Place::Clients, Place::Node(node))
        };
        // The first of them reaches all that count, so it could have coordinated.
        let has_quorum = |layout: &Layout| {
            let well: Vec<NodeIndex> = owners(layout).into_iter().filter(|node| is_well(*node)).collect();
            well.len() >= r && well.iter().all(|one| well.iter().all(|other| reached_by(*one, *other)))
        };
        let pinned_well = |asked: NodeIndex| node_well(asked) && link_well(Place::Clients, Place::Node(asked));
        let mut live = self.layouts.iter().filter(|live| during(&(live.from_us, live.to_us))).peekable();
        live.peek().is_some() && read.pinned.is_none_or(pinned_well) && live.all(|live| has_quorum(&live.layout))
    }
}

/// Ends the last one that goes on.
fn close(all: &mut [(u64, u64)], at_us: u64) {
    if let Some(open) = all.iter_mut().rev().find(|(_, to_us)| *to_us == OPEN) {
        open.1 = at_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::LayoutPolicy;

    const S: u64 = 1_000_000;

    fn layout(version: u64) -> Layout {
        Layout { version, policy: LayoutPolicy::default(), nodes: Vec::new(), owners: Vec::new(), copies: Vec::new() }
    }

    fn health() -> Health {
        let mut health = Health::default();
        health.applied(layout(1), 0);
        health
    }

    fn read(from_s: u64, to_s: u64, pinned: Option<NodeIndex>) -> FailedRead {
        FailedRead { key: 0, from_us: from_s * S, to_us: to_s * S, pinned, why: String::new() }
    }

    fn counts(health: &Health, read: &FailedRead) -> bool {
        health.had_quorum(read, 2, |layout| if layout.version == 1 { vec![0, 1, 2] } else { vec![0, 3, 4] })
    }

    #[test]
    fn a_read_that_fails_while_two_owners_are_well_is_counted() {
        let mut health = health();
        assert!(counts(&health, &read(5, 6, None)));
        health.begins(&Fault::Kill(0), 10 * S);
        assert!(counts(&health, &read(12, 13, None)), "one owner of three is down");
        health.begins(&Fault::Pause(1), 14 * S);
        assert!(!counts(&health, &read(12, 14, None)) && counts(&health, &read(12, 13, None)));
        health.ends(&Fault::Kill(0), 15 * S);
        health.ends(&Fault::Pause(1), 15 * S);
        assert!(!counts(&health, &read(17, 18, None)), "they may not be back yet");
        assert!(counts(&health, &read(21, 22, None)), "the one that was paused is");
        health.together(16 * S);
        assert!(counts(&health, &read(17, 18, None)), "both were seen to be back");
    }

    #[test]
    fn owners_that_do_not_reach_each_other_or_the_clients_are_no_healthy_quorum() {
        let cut = |from, to| Fault::Cut(vec![(from, to)]);
        let (one, two, clients) = (Place::Node(1), Place::Node(2), Place::Clients);
        for (from, to) in [(one, two), (two, one), (clients, one), (two, clients)] {
            let mut health = health();
            health.begins(&Fault::Kill(0), S);
            assert!(counts(&health, &read(5, 6, None)));
            health.begins(&cut(from, to), 2 * S);
            assert!(!counts(&health, &read(5, 6, None)), "{from} -> {to}");
        }
    }

    #[test]
    fn the_only_node_that_is_asked_must_be_well_and_reach_the_owners() {
        let mut health = health();
        assert!(counts(&health, &read(5, 6, Some(4))));
        health.begins(&Fault::Cut(vec![(Place::Node(4), Place::Node(1))]), 7 * S);
        assert!(counts(&health, &read(8, 9, Some(4))), "two others");
        health.begins(&Fault::Pause(4), 10 * S);
        assert!(!counts(&health, &read(11, 12, Some(4))) && counts(&health, &read(11, 12, None)));
    }

    #[test]
    fn a_quorum_is_needed_in_each_layout_that_may_be_read() {
        let mut health = health();
        health.begins(&Fault::Kill(3), S);
        health.begins(&Fault::Kill(4), S);
        health.applied(layout(2), 10 * S);
        assert!(counts(&health, &read(8, 9, None)) && !counts(&health, &read(9, 11, None)));
        health.node_back(3, 11 * S);
        health.together(12 * S);
        assert!(counts(&health, &read(13, 14, None)));
        health.begins(&Fault::Kill(1), 15 * S);
        health.begins(&Fault::Kill(2), 15 * S);
        assert!(!counts(&health, &read(20, 21, None)), "the first layout is live");
        health.settled(22 * S);
        assert!(!counts(&health, &read(24, 25, None)) && counts(&health, &read(28, 29, None)));
    }
}
