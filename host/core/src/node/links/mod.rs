//! The connections to the other nodes, and when a starting node begins to serve.
//!
//! [`Links`] decides whom to dial, which of two connections stays, whether a peer fits this cluster, and when the node
//! may take requests. It opens no connection and reads no message: the shell does, and tells it by [`LinkEvent`]s.
//!
//! Two nodes share one connection, dialled by the lower id. A starting node dials all peers, because those with a lower
//! id may not try for seconds. If both sides dial, both keep the connection of the lower id.
//!
//! A connection comes up in four steps:
//! 1. Hellos. What must be equal across a cluster is compared, and a difference is refused and named on both sides.
//! 2. Objections. Every shard checks the actors that the peer has announced, and objects to those whose later writes it
//!    has seen.
//! 3. *Ready*, sent behind the objections, the catalog's summary and the ring's digest.
//! 4. Catalog and ring. The receiver of a *ready* waits until its catalog has all records of the peer's, and until it
//!    has heard of the peer's layouts and of those that are retired.
//!
//! The peers are the members of the live layouts and the nodes that have announced themselves. A node that is unknown
//! here and fits the cluster becomes one by its hello. Only members are waited for.
//!
//! A node serves when all members have come through all four, or when its grace is over. In the second case the tenures
//! that it has kept end first, because a peer that was not met might have objected. A node that has met fewer than half
//! of the cluster waits longer: its peers may be up and only slow to connect, and its catalog would be an old one.

mod events;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rand_core::Rng;

use rejoin_proto::peer::{ActorNext, DiskId, PeerHello, PeerReady};
use rejoin_proto::{LayoutRange, LayoutRef, Name, NodeId};

use super::actors::by_shard;
use super::clocks::{self, Clocks};
use super::identity::Disks;
use crate::Prng;
use crate::shard::event::Now;

pub use events::{CloseReason, Config, LinkEvent, LinkOutput, NotServing, Standing, Timing};

/// A connection that waits for the peer's hello.
#[derive(Debug)]
struct PendingHello {
    peer: NodeId,
    name: Name,
    /// Whether the lower id has dialled it.
    by_lower: bool,
    until_us: u64,
}

/// A connection whose hello was accepted: shards and catalog know of it.
#[derive(Debug)]
struct ActiveConnection {
    connection: u64,
    by_lower: bool,
    /// Names the peer's process.
    run: u64,
    since_us: u64,
    /// Its data directory.
    disk: DiskId,
    /// That directory has taken the place of another one, and the peer is not rebuilt.
    replaced: bool,
    /// How many shards have not checked the peer's actors yet.
    unchecked_shards: u16,
    catalog_sent: bool,
    /// What the peer had when it became ready.
    ready: Option<PeerReady>,
    /// This node's catalog has all of the peer's records.
    caught_up: bool,
}

/// What is known of one peer.
#[derive(Debug)]
struct Link {
    name: Name,
    standing: Standing,
    active: Option<ActiveConnection>,
    dialling: bool,
    pause_us: u64,
    dial_at_us: u64,
    /// Why it and this node refuse each other.
    refused: Option<String>,
    /// The reason of the last [`LinkOutput::CannotConnect`] since it was up, without digits: the age of a certificate
    /// is in it, and changes at each attempt.
    dial_problem: Option<String>,
}

impl Link {
    fn new(name: Name, standing: Standing, pause_us: u64, now: Now) -> Self {
        Self {
            name,
            standing,
            active: None,
            dialling: false,
            pause_us,
            dial_at_us: now.mono_us,
            refused: None,
            dial_problem: None,
        }
    }

    fn is_member(&self) -> bool {
        self.standing == Standing::Member
    }

    /// Whether the peer has come through all four steps, for a node that has these live layouts.
    fn is_settled(&self, layouts: LayoutRange) -> bool {
        let Some(active) = &self.active else { return false };
        // Rule: catalogs are equal at the start.
        let has_records = active.ready.is_some() && active.caught_up;
        // Rule: starts wait for the layouts of the others. A read by a layout that they have retired finds nothing of
        // what was written since.
        has_records && active.ready.is_some_and(|ready| layouts.covers(ready.layouts))
    }
}

/// The links of one node.
#[derive(Debug)]
pub struct Links {
    config: Config,
    rng: Prng,
    run: u64,
    disks: Disks,
    /// The shards that have not said that they are rebuilt.
    unrebuilt: BTreeSet<u16>,
    links: BTreeMap<NodeId, Link>,
    is_member: bool,
    pending_hellos: BTreeMap<u64, PendingHello>,
    /// Connections that another one to the same process has replaced, with their peer and when they are closed.
    retired: BTreeMap<u64, (NodeId, u64)>,
    grace_at_us: u64,
    minority_at_us: u64,
    latest_start_us: u64,
    serving: bool,
    clocks: Clocks,
    /// As it was last sent to the shards, in milliseconds.
    correction_ms: i64,
    next_clock_us: u64,
    /// When something was last handled: what was due by then is done.
    seen_us: u64,
}

impl Links {
    /// The links of a process that starts now.
    #[must_use]
    pub fn new(config: Config, disks: Disks, now: Now, mut rng: Prng) -> Self {
        let link = |name: &Name| Link::new(name.clone(), Standing::Member, config.timing.first_pause_us, now);
        let links = config.peers.iter().map(|(id, name)| (*id, link(name))).collect();
        let run = rng.next_u64();
        let [grace_at_us, minority_at_us, latest_start_us] =
            [config.grace_us, config.minority_us, config.longest_start_us]
                .map(|wait_us| now.mono_us.saturating_add(wait_us));
        let unrebuilt = (0..config.shards).collect();
        Self {
            config,
            rng,
            run,
            disks,
            unrebuilt,
            links,
            is_member: true,
            pending_hellos: BTreeMap::new(),
            retired: BTreeMap::new(),
            grace_at_us,
            minority_at_us,
            latest_start_us,
            serving: false,
            clocks: Clocks::default(),
            correction_ms: 0,
            next_clock_us: now.mono_us + clocks::EVERY_US,
            seen_us: now.mono_us,
        }
    }

    /// The disk ids to be saved.
    #[must_use]
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Whether the node takes requests.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    /// The connection to a peer, once its hello was accepted.
    #[must_use]
    pub fn connection(&self, peer: NodeId) -> Option<u64> {
        self.links.get(&peer)?.active.as_ref().map(|active| active.connection)
    }

    /// Whether messages of that connection are taken: its peer's hello was accepted.
    #[must_use]
    pub fn is_known(&self, peer: NodeId, connection: u64) -> bool {
        self.connection(peer) == Some(connection) || self.retired.get(&connection).is_some_and(|(of, _)| *of == peer)
    }

    /// Whether a node's data directory was replaced by an empty one and the node is not rebuilt yet, as far as this
    /// node knows. Then its copies do not count in reads.
    #[must_use]
    pub fn is_replaced(&self, node: NodeId) -> bool {
        let of_peer = || self.links.get(&node)?.active.as_ref().map(|active| active.replaced);
        if node == self.config.node { self.disks.is_replaced() } else { of_peer().unwrap_or(false) }
    }

    /// Why a node that is not serving is not. None if it is.
    #[must_use]
    pub fn why_not_serving(&self) -> Option<NotServing> {
        if self.serving {
            return None;
        }
        if let Some(why) = self.contradiction() {
            return Some(NotServing { why, lasting: true });
        }
        let unsettled = self.members().filter(|link| !link.is_settled(self.config.layouts));
        let waiting: Vec<&str> = unsettled.map(|link| link.name.as_str()).collect();
        Some(NotServing { why: format!("it is starting, and waits for {}", waiting.join(", ")), lasting: false })
    }

    /// This node's hello to a peer, with what [`announced`](super::actors::announced) gives.
    #[must_use]
    pub fn hello(
        &self,
        peer: NodeId,
        now: Now,
        catalog: u64,
        (partition_bits, actors): (u8, Vec<ActorNext>),
    ) -> PeerHello {
        PeerHello {
            params: self.config.params,
            node: self.config.node,
            run: self.run,
            disk: self.disks.own,
            replaced: self.disks.replaced.is_some(),
            rebuilt: self.disks.rebuilt,
            member_of: self.disks.member_of,
            // Who is no member has nothing that could be lost.
            known_disk: self.disks.peers.get(&peer).copied().filter(|_| self.standing(peer) == Standing::Member),
            wall_ms: now.wall_ms,
            catalog,
            partition_bits,
            actors,
        }
    }

    /// When an [`LinkEvent::Tick`] is due, in microseconds.
    #[must_use]
    pub fn next_wake_us(&self) -> u64 {
        let hellos = self.pending_hellos.values().map(|pending| pending.until_us);
        let dials =
            self.links.iter().filter(|(peer, link)| self.may_dial(**peer, link)).map(|(_, link)| link.dial_at_us);
        let starts = [self.grace_at_us, self.minority_at_us, self.latest_start_us];
        let start = starts.into_iter().filter(|at| !self.serving && *at > self.seen_us);
        let retired = self.retired.values().map(|(_, until_us)| *until_us);
        hellos.chain(retired).chain(dials).chain(start).chain([self.next_clock_us]).min().unwrap_or(u64::MAX)
    }

    /// Handles one event.
    pub fn handle(&mut self, now: Now, event: LinkEvent, outputs: &mut Vec<LinkOutput>) {
        match event {
            LinkEvent::Connected { peer, name, connection, dialled } => {
                self.connected(now, (peer, name), connection, dialled);
            }
            LinkEvent::Peers { member_of, peers } => self.set_peers(now, member_of, peers, outputs),
            LinkEvent::Layouts(layouts) => self.config.layouts = layouts,
            LinkEvent::DialFailed(peer, why) => self.dial_failed(now, peer, why, outputs),
            LinkEvent::Hello(connection, hello) => self.hello_came(now, connection, hello, outputs),
            LinkEvent::ActorsChecked(connection) => {
                self.step(connection, outputs, |active| {
                    active.unchecked_shards = active.unchecked_shards.saturating_sub(1)
                });
            }
            LinkEvent::CatalogSent(connection) => self.step(connection, outputs, |active| active.catalog_sent = true),
            LinkEvent::Ready(connection, ready) => {
                if let Some((peer, active)) = self.active_mut(connection) {
                    active.ready = Some(ready);
                    outputs.push(LinkOutput::CompareCatalog(peer, ready.catalog));
                }
            }
            LinkEvent::CaughtUp(peer) => {
                if let Some(active) = self
                    .links
                    .get_mut(&peer)
                    .and_then(|link| link.active.as_mut())
                    .filter(|active| active.ready.is_some())
                {
                    active.caught_up = true;
                }
            }
            LinkEvent::ShardRebuilt(shard) => {
                self.unrebuilt.remove(&shard);
                self.consider_rebuilt(outputs);
            }
            LinkEvent::PeerRebuilt(connection) => self.peer_rebuilt(connection, outputs),
            LinkEvent::Clock(connection, wall_ms) => {
                if let Some((peer, _)) = self.active_mut(connection) {
                    self.clocks.observe(peer, wall_ms, now.wall_ms);
                    self.judge_clocks(outputs);
                }
            }
            LinkEvent::Closed(connection, refusal) => self.closed(now, connection, refusal, outputs),
            LinkEvent::Redial => {
                for link in self.links.values_mut() {
                    (link.pause_us, link.dial_at_us) = (self.config.timing.first_pause_us, now.mono_us);
                }
            }
            LinkEvent::Tick => {
                self.close_silent(now, outputs);
                self.send_clock(now, outputs);
            }
        }
        self.seen_us = now.mono_us;
        self.dial_due(now, outputs);
        self.consider_serving(now, outputs);
    }

    fn standing(&self, peer: NodeId) -> Standing {
        self.links.get(&peer).map_or(Standing::Other, |link| link.standing)
    }

    fn members(&self) -> impl Iterator<Item = &Link> + '_ {
        self.links.values().filter(|link| link.is_member())
    }

    /// Takes in whom the ring names. Who is connected stays a peer: its announcement may not have come yet.
    fn set_peers(
        &mut self,
        now: Now,
        member_of: Option<LayoutRef>,
        peers: Vec<(NodeId, Name, Standing)>,
        outputs: &mut Vec<LinkOutput>,
    ) {
        self.is_member = member_of.is_some();
        if member_of.is_some_and(|layout| self.disks.note_member(layout)) {
            outputs.push(LinkOutput::SaveDisks);
        }
        let named: BTreeSet<NodeId> = peers.iter().map(|(peer, ..)| *peer).collect();
        self.links.retain(|peer, link| named.contains(peer) || link.active.is_some() || link.dialling);
        for (peer, link) in &mut self.links {
            if !named.contains(peer) {
                link.standing = Standing::Other;
            }
        }
        let first_pause_us = self.config.timing.first_pause_us;
        for (peer, name, standing) in peers.into_iter().filter(|(peer, ..)| *peer != self.config.node) {
            match self.links.get_mut(&peer) {
                Some(link) => link.standing = standing,
                None => drop(self.links.insert(peer, Link::new(name, standing, first_pause_us, now))),
            }
        }
    }

    fn connected(&mut self, now: Now, (peer, name): (NodeId, Name), connection: u64, dialled: bool) {
        if let Some(link) = self.links.get_mut(&peer).filter(|_| dialled) {
            link.dialling = false;
        }
        let by_lower = dialled == (self.config.node < peer);
        let until_us = now.mono_us + self.config.timing.hello_us;
        self.pending_hellos.insert(connection, PendingHello { peer, name, by_lower, until_us });
    }

    fn dial_failed(&mut self, now: Now, peer: NodeId, lasting: Option<String>, outputs: &mut Vec<LinkOutput>) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.dialling = false;
            // The peer may have dialled meanwhile. An attempt that began with certificates of before tells nothing
            // then.
            if let Some(why) = lasting.filter(|_| link.active.is_none()) {
                let reason = why.chars().filter(|c| !c.is_ascii_digit()).collect();
                if link.dial_problem.as_ref() != Some(&reason) {
                    link.dial_problem = Some(reason);
                    outputs.push(LinkOutput::CannotConnect(peer, why));
                }
            }
        }
        self.pause(now, peer);
    }

    /// The next attempt to dial a peer comes after a pause. Jittered, so that nodes which lost each other at one moment
    /// do not meet again in lockstep.
    fn pause(&mut self, now: Now, peer: NodeId) {
        let (word, timing) = (self.rng.next_u64() % 1024, self.config.timing);
        if let Some(link) = self.links.get_mut(&peer) {
            let longest_us = if link.is_member() { timing.longest_pause_us } else { timing.others_pause_us };
            link.dial_at_us = now.mono_us + link.pause_us * (512 + word) / 1024;
            link.pause_us = (link.pause_us * 2).min(longest_us);
        }
    }

    fn hello_came(&mut self, now: Now, connection: u64, hello: PeerHello, outputs: &mut Vec<LinkOutput>) {
        let Some(PendingHello { peer, name, by_lower, .. }) = self.pending_hellos.remove(&connection) else { return };
        if let Err(why) = self.check(peer, &name, &hello) {
            self.refuse(peer, &why, outputs);
            self.pause(now, peer);
            return outputs.push(LinkOutput::Close(connection, CloseReason::Refused(why)));
        }
        let first_pause_us = self.config.timing.first_pause_us;
        let unknown = || Link::new(name.clone(), Standing::Other, first_pause_us, now);
        let link = self.links.entry(peer).or_insert_with(unknown);
        if link.refused.take().is_some() {
            outputs.push(LinkOutput::Reconciled(peer));
        }
        link.dial_problem = None;
        if let Some(active) = &link.active {
            // Both sides may have dialled. Both keep the connection of the lower id, so that they do not end up with
            // different ones. The other one stays open for a while, so that answers under way on it are not lost.
            let until_us = now.mono_us + self.config.timing.retire_us;
            match (active.run == hello.run, active.by_lower, by_lower) {
                (true, true, false) => {
                    self.retired.insert(connection, (peer, until_us));
                    return;
                }
                (true, false, true) => drop(self.retired.insert(active.connection, (peer, until_us))),
                _ => outputs
                    .extend([LinkOutput::Close(active.connection, CloseReason::Replaced), LinkOutput::PeerDown(peer)]),
            }
        }
        link.active = Some(ActiveConnection {
            connection,
            by_lower,
            run: hello.run,
            since_us: now.mono_us,
            disk: hello.disk,
            // The peer need not know that itself yet.
            replaced: !hello.rebuilt
                && (hello.replaced
                    || link.is_member() && self.disks.peers.get(&peer).is_some_and(|known| *known != hello.disk)),
            unchecked_shards: self.config.shards,
            catalog_sent: false,
            ready: None,
            caught_up: false,
        });
        let is_member = link.is_member();
        let is_news = self.disks.remembered_by(&name, hello.known_disk);
        let is_new = self.disks.remember(peer, hello.disk, hello.replaced || !is_member);
        if is_new || is_news {
            outputs.push(LinkOutput::SaveDisks);
        }
        if is_news {
            self.unrebuilt = (0..self.config.shards).collect();
            outputs.push(LinkOutput::Replaced(name));
        }
        if self.disks.rebuilt {
            // It may be so since the hello was sent.
            outputs.push(LinkOutput::SendRebuilt(connection));
        }
        self.clocks.observe(peer, hello.wall_ms, now.wall_ms);
        self.judge_clocks(outputs);
        let actors = by_shard(&hello, self.config.shards);
        outputs.push(LinkOutput::PeerUp { peer, connection, actors, catalog: hello.catalog });
    }

    /// Tells the peers as soon as every shard has rebuilt what it had lost with the data directory.
    fn consider_rebuilt(&mut self, outputs: &mut Vec<LinkOutput>) {
        // Rule: every shard is rebuilt.
        if self.unrebuilt.is_empty() && self.disks.rebuilt() {
            outputs.extend([LinkOutput::SaveDisks, LinkOutput::Rebuilt]);
            let connections = self.links.values().filter_map(|link| link.active.as_ref());
            outputs.extend(connections.map(|active| LinkOutput::SendRebuilt(active.connection)));
        }
    }

    fn peer_rebuilt(&mut self, connection: u64, outputs: &mut Vec<LinkOutput>) {
        let Some((peer, active)) = self.active_mut(connection) else { return };
        active.replaced = false;
        let disk = active.disk;
        // It knows that its directory was replaced, so nobody has to tell it any more.
        if self.disks.remember(peer, disk, true) {
            outputs.push(LinkOutput::SaveDisks);
        }
    }

    /// Compares what must be equal across a cluster. The error names both sides.
    fn check(&self, peer: NodeId, name: &Name, hello: &PeerHello) -> Result<(), String> {
        let (ours, theirs) = (&self.config.params, &hello.params);
        let differs = |what: &str, here: &dyn core::fmt::Display, there: &dyn core::fmt::Display, advice: &str| {
            Err(format!("{what} differs: {here} here, {there} on {name}; {advice}"))
        };
        if theirs.protocol != ours.protocol {
            return differs("the protocol", &ours.protocol, &theirs.protocol, "run one release on all nodes");
        }
        if theirs.cluster != ours.cluster || hello.node != peer {
            return Err(format!("the hello of {name} and its certificate name different nodes or clusters"));
        }
        if theirs.secret_check != ours.secret_check {
            return Err(format!(
                "the cluster's secret differs from that of {name}: give both nodes the same secret file"
            ));
        }
        if theirs.origin != ours.origin {
            let shown = |layout: LayoutRef| format!("version {} ({:016x})", layout.version, layout.hash);
            let advice = "the [[bootstrap]] lists must name the same nodes with the same zones, capacities and \
                addresses; a node that is added later has `join` instead of a list";
            return differs("the first layout", &shown(ours.origin), &shown(theirs.origin), advice);
        }
        // Rule: the dead come back empty.
        if let Standing::Dead(until) = self.standing(peer)
            && hello.member_of.is_some_and(|last| last <= until)
        {
            return Err(format!(
                "node {name} was declared dead and removed: stop it, remove its data directory, and start it with \
                    `join`"
            ));
        }
        if theirs.max_skew_ms != ours.max_skew_ms {
            return differs("max_skew_ms", &ours.max_skew_ms, &theirs.max_skew_ms, "set one value on all nodes");
        }
        Ok(())
    }

    fn refuse(&mut self, peer: NodeId, why: &str, outputs: &mut Vec<LinkOutput>) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.refused = Some(why.to_string());
        }
        outputs.push(LinkOutput::Refused(peer, why.to_string()));
    }

    fn active_mut(&mut self, connection: u64) -> Option<(NodeId, &mut ActiveConnection)> {
        self.links.iter_mut().find_map(|(peer, link)| {
            let active = link.active.as_mut().filter(|active| active.connection == connection)?;
            Some((*peer, active))
        })
    }

    /// Goes on with a connection, and sends *ready* when all shards have checked its actors and the catalog is sent.
    fn step(&mut self, connection: u64, outputs: &mut Vec<LinkOutput>, step: impl FnOnce(&mut ActiveConnection)) {
        let Some((_, active)) = self.active_mut(connection) else { return };
        let had_said_it = active.unchecked_shards == 0 && active.catalog_sent;
        step(active);
        if active.unchecked_shards == 0 && active.catalog_sent && !had_said_it {
            outputs.push(LinkOutput::SendReady(connection));
        }
    }

    fn closed(&mut self, now: Now, connection: u64, refusal: Option<String>, outputs: &mut Vec<LinkOutput>) {
        self.retired.remove(&connection);
        let mut of = self.pending_hellos.remove(&connection).map(|pending| pending.peer);
        if let Some((peer, active)) = self.active_mut(connection) {
            let lived_us = now.mono_us.saturating_sub(active.since_us);
            of = Some(peer);
            outputs.push(LinkOutput::PeerDown(peer));
            // The peer may still use a connection that this one had replaced. That would keep it from dialling anew,
            // while this node could send nothing to it.
            for (retired, _) in self.retired.extract_if(.., |_, (of, _)| *of == peer) {
                outputs.push(LinkOutput::Close(retired, CloseReason::Replaced));
            }
            self.clocks.forget(peer);
            self.judge_clocks(outputs);
            if let Some(link) = self.links.get_mut(&peer) {
                link.active = None;
                // A connection that is made and refused again and again must not be tried twenty times a second.
                if lived_us > self.config.timing.longest_pause_us {
                    link.pause_us = self.config.timing.first_pause_us;
                }
            }
        }
        // A refusal that is older than the connection in use tells nothing.
        let is_up = |peer: &NodeId| self.links.get(peer).is_some_and(|link| link.active.is_some());
        if let (Some(peer), Some(why)) = (of.filter(|peer| !is_up(peer)), refusal) {
            let name = self.links.get(&peer).map(|link| link.name.to_string()).unwrap_or_default();
            self.refuse(peer, &format!("{name} refuses this node: {why}"), outputs);
        }
        if let Some(peer) = of {
            self.pause(now, peer);
        }
    }

    fn close_silent(&mut self, now: Now, outputs: &mut Vec<LinkOutput>) {
        let late = |(connection, pending): (&u64, &PendingHello)| {
            (pending.until_us <= now.mono_us).then_some((*connection, pending.peer))
        };
        let silent: Vec<(u64, NodeId)> = self.pending_hellos.iter().filter_map(late).collect();
        for (connection, peer) in silent {
            self.pending_hellos.remove(&connection);
            outputs.push(LinkOutput::Close(connection, CloseReason::NoHello));
            self.pause(now, peer);
        }
        for (connection, _) in self.retired.extract_if(.., |_, (_, until_us)| *until_us <= now.mono_us) {
            outputs.push(LinkOutput::Close(connection, CloseReason::Replaced));
        }
    }

    fn send_clock(&mut self, now: Now, outputs: &mut Vec<LinkOutput>) {
        if now.mono_us >= self.next_clock_us {
            self.next_clock_us = now.mono_us + clocks::EVERY_US;
            let connections = self.links.values().filter_map(|link| link.active.as_ref());
            outputs.extend(connections.map(|active| LinkOutput::SendClock(active.connection)));
        }
    }

    fn judge_clocks(&mut self, outputs: &mut Vec<LinkOutput>) {
        let links = &self.links;
        let news =
            self.clocks.news(self.config.params.max_skew_ms, |peer| links.get(&peer).map(|link| link.name.clone()));
        outputs.extend(news.map(LinkOutput::Clocks));
        let max_skew_ms = self.config.params.max_skew_ms;
        let correction_ms = self.clocks.correction_ms(max_skew_ms);
        // Small changes are the delay of messages.
        let has_moved = correction_ms.abs_diff(self.correction_ms) > max_skew_ms / 2;
        if has_moved || (correction_ms == 0) != (self.correction_ms == 0) {
            self.correction_ms = correction_ms;
            outputs.push(LinkOutput::CorrectClock(correction_ms));
        }
    }

    /// Whether this node has to dial a peer: there is no connection to it, and none is on its way.
    fn may_dial(&self, peer: NodeId, link: &Link) -> bool {
        let ours = self.config.node < peer || !self.serving || !self.is_member;
        ours && link.active.is_none()
            && !link.dialling
            && !self.pending_hellos.values().any(|pending| pending.peer == peer)
    }

    fn dial_due(&mut self, now: Now, outputs: &mut Vec<LinkOutput>) {
        let due = |(peer, link): (&NodeId, &Link)| {
            (link.dial_at_us <= now.mono_us && self.may_dial(*peer, link)).then_some(*peer)
        };
        let due: Vec<NodeId> = self.links.iter().filter_map(due).collect();
        for peer in due {
            if let Some(link) = self.links.get_mut(&peer) {
                link.dialling = true;
            }
            outputs.push(LinkOutput::Dial(peer));
        }
    }

    /// Why this node must not serve: as many nodes refuse it as accept it, itself included.
    fn contradiction(&self) -> Option<String> {
        let agree = 1 + self.members().filter(|link| link.active.is_some()).count();
        let against: Vec<&str> = self.members().filter_map(|link| link.refused.as_deref()).collect();
        (!against.is_empty() && against.len() >= agree)
            .then(|| format!("it and its peers contradict each other: {}", against.join("; ")))
    }

    fn consider_serving(&mut self, now: Now, outputs: &mut Vec<LinkOutput>) {
        if self.serving || self.contradiction().is_some() {
            return;
        }
        let is_settled = |link: &Link| link.is_settled(self.config.layouts);
        let (met, all) = (self.members().filter(|link| is_settled(link)).count(), self.members().count());
        let met_all = met == all;
        // A change of the catalog made while this node was down is known to one of the met half, or else its operator
        // was told which nodes lack it. Of two nodes one is half, so it does not wait long for the other.
        let is_minority = 2 * (met + 1) < all + 1;
        let is_reached = |link: &Link| link.active.is_some() && !is_settled(link);
        // A peer that is reached gets more time: its shards may be busy.
        let waits = now.mono_us < self.grace_at_us
            || now.mono_us < self.minority_at_us && is_minority
            || now.mono_us < self.latest_start_us
                && (self.members().any(is_reached) || !self.pending_hellos.is_empty());
        if met_all || !waits {
            self.serving = true;
            outputs.push(LinkOutput::Serve { met_all });
        }
    }
}
