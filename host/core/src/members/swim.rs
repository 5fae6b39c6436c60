//! SWIM, by `foca`: its timers in virtual time, its outputs, and which members it thinks otherwise of than before.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;

use bytes::Bytes;
use foca::{
    Codec as _, Foca, Header, Member, Message, NoCustomBroadcast, Notification, PeriodicParams, ProbeNumber, State,
    Timer, TimerToken,
};
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_proto::NodeId;

use super::Timing;
use super::codec::{self, Codec, Identity, MAX_DATAGRAM, Packet};

/// Members that are asked to probe another one, and that gossip goes to at once.
const FAN_OUT: usize = 3;
/// The pause between two rounds of gossip while there is something to tell.
const GOSSIP_US: u64 = 200_000;
/// How often one member is asked for those it knows, and how often one that is down is looked for.
const ANNOUNCE_US: u64 = 30_000_000;
const ANNOUNCE_DOWN_US: u64 = 10_000_000;
/// How long a member that is down is remembered as such.
const REMEMBER_DOWN_US: u64 = 3_600_000_000;

/// What SWIM wants done.
#[derive(Debug, Default)]
pub(super) struct Acts {
    /// To whom, what, and the number of the probe if it is a direct one.
    pub(super) sends: Vec<(NodeId, Bytes, Option<ProbeNumber>)>,
    /// Members that it thinks otherwise of, perhaps, and what it thinks.
    pub(super) changed: Vec<(NodeId, State)>,
}

/// What one call of `foca` has asked for.
#[derive(Default)]
struct Runtime {
    acts: Acts,
    timers: Vec<(Timer<Identity>, Duration)>,
    touched: Vec<NodeId>,
    probe: Option<Probe>,
}

/// A direct probe that `foca` has sent.
#[derive(Clone, Copy, Debug)]
struct Probe {
    target: Identity,
    number: ProbeNumber,
}

/// What this node's own questions say about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It has answered all of them.
    Answers,
    /// One is open, for less time than makes this node tell others.
    Late,
    /// One is open for longer.
    Silent,
}

impl foca::Runtime<Identity> for &mut Runtime {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(member) | Notification::MemberDown(member) | Notification::Rename(_, member) => {
                self.touched.push(member.node);
            }
            Notification::Active | Notification::Idle | Notification::Defunct | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        let number = codec::probe_number(data);
        if let Some(number) = number {
            self.probe = Some(Probe { target: to, number });
        }
        self.acts.sends.push((to.node, codec::swim(data), number));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

pub(super) struct Swim {
    foca: Foca<Identity, Codec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    /// By due time, and then in the order in which they were set.
    timers: BTreeMap<(u64, u64), Timer<Identity>>,
    set: u64,
    /// The last probe, until it is answered.
    probe: Option<Probe>,
    /// Whose probe has failed while this node's own questions were open for less time than makes it tell others.
    doubted: BTreeSet<NodeId>,
    /// What `foca` numbers its present timers with.
    token: TimerToken,
    suspect_to_down: Duration,
}

impl fmt::Debug for Swim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swim")
            .field("identity", self.foca.identity())
            .field("timers", &self.timers.len())
            .finish_non_exhaustive()
    }
}

/// How often a node passes on one piece of news, in a cluster that has doubled so often. News that each node sends to x
/// others reach all but one node in eˣ; where datagrams get lost, x shrinks by that share. With once for each doubling
/// and six more, one of 300 nodes still missed a death at 20 % loss, where much other news is on its way.
fn transmissions(doublings: u32) -> NonZeroU8 {
    let count = doublings.saturating_mul(2).saturating_add(6);
    NonZeroU8::new(u8::try_from(count).unwrap_or(u8::MAX)).unwrap_or(NonZeroU8::MIN)
}

/// The configuration for a cluster with so many nodes besides this one.
fn config(peers: usize, timing: &Timing) -> foca::Config {
    let us = Duration::from_micros;
    let count = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let periodic = |every_us, members| Some(PeriodicParams { frequency: us(every_us), num_members: count(members) });
    let doublings = Timing::doublings(peers);
    // A hundred times the decimal logarithm, a little less: enough for bounds that grow with it.
    let log = 30 * u64::from(doublings);
    let to_down_us = timing.probe_us.saturating_mul(4).saturating_mul(log.max(100)) / 100;
    foca::Config {
        probe_period: us(timing.probe_us),
        probe_rtt: us(timing.indirect_us),
        num_indirect_probes: count(FAN_OUT),
        max_transmissions: transmissions(doublings),
        suspect_to_down_after: us(to_down_us.saturating_sub(timing.spread_us(peers))),
        remove_down_after: Some(us(REMEMBER_DOWN_US)),
        max_packet_size: count(MAX_DATAGRAM - 1),
        notify_down_members: true,
        periodic_announce: periodic(ANNOUNCE_US, 1),
        periodic_announce_to_down_members: periodic(ANNOUNCE_DOWN_US, 1),
        periodic_gossip: periodic(GOSSIP_US, FAN_OUT),
    }
}

impl Swim {
    pub(super) fn new(identity: Identity, peers: usize, timing: &Timing, rng: Xoshiro256PlusPlus) -> Self {
        let config = config(peers, timing);
        let suspect_to_down = config.suspect_to_down_after;
        Self {
            foca: Foca::new(identity, config, rng, Codec),
            timers: BTreeMap::new(),
            set: 0,
            probe: None,
            doubted: BTreeSet::new(),
            token: TimerToken::default(),
            suspect_to_down,
        }
    }

    /// The cluster has so many nodes besides this one now: news is passed on as often as it takes to reach all of them.
    pub(super) fn resize(&mut self, peers: usize, timing: &Timing) {
        let config = config(peers, timing);
        let after = config.suspect_to_down_after;
        // Refused only for other periods of probes, which do not depend on the size.
        if self.foca.set_config(config).is_ok() {
            self.suspect_to_down = after;
        }
    }

    pub(super) fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    pub(super) fn next_due_us(&self) -> u64 {
        self.timers.first_key_value().map_or(u64::MAX, |(&(at_us, _), _)| at_us)
    }

    /// All timers are due so much later.
    pub(super) fn postpone(&mut self, by_us: u64) {
        let timers = mem::take(&mut self.timers);
        self.timers =
            timers.into_iter().map(|((at_us, number), timer)| ((at_us.saturating_add(by_us), number), timer)).collect();
    }

    /// Fires the timers that are due. `standing`: what this node's own questions say about a peer.
    pub(super) fn fire(&mut self, now_us: u64, standing: impl Fn(NodeId) -> Standing, acts: &mut Acts) {
        while self.next_due_us() <= now_us {
            let Some((_, timer)) = self.timers.pop_first() else { return };
            let mut touched = Vec::new();
            if let Timer::ProbeRandomMember(_) = &timer
                && let Some(probe) = self.probe.take()
            {
                // A failed probe makes a suspect, of which foca does not notify.
                touched.push(probe.target.node);
                self.weigh(now_us, probe, standing(probe.target.node), acts);
            }
            self.run(now_us, acts, &mut touched, |foca, runtime| foca.handle_timer(timer, runtime));
        }
    }

    /// A probe has failed, directly and through others. News of a suspicion costs every node of the cluster some
    /// datagrams, and its refutation as many, so `foca` suspects only those that leave this node's checks unanswered
    /// as well: it is given the answer to the probe that the peer would have sent.
    fn weigh(&mut self, now_us: u64, probe: Probe, standing: Standing, acts: &mut Acts) {
        match standing {
            Standing::Silent => return,
            Standing::Late => drop(self.doubted.insert(probe.target.node)),
            Standing::Answers => {}
        }
        let known = self.foca.iter_membership_state().find(|member| *member.id() == probe.target);
        let Some(incarnation) = known.map(Member::incarnation) else { return };
        let header = Header {
            src: probe.target,
            src_incarnation: incarnation,
            dst: self.identity(),
            message: Message::Ack(probe.number),
        };
        let mut answer = Vec::new();
        if Codec.encode_header(&header, &mut answer).is_ok() {
            self.run(now_us, acts, &mut Vec::new(), |foca, runtime| foca.handle_data(&answer, runtime));
        }
    }

    /// Suspects those whose probe has failed and who are silent by now.
    pub(super) fn settle_doubts(&mut self, now_us: u64, standing: impl Fn(NodeId) -> Standing, acts: &mut Acts) {
        for node in mem::take(&mut self.doubted) {
            match standing(node) {
                Standing::Answers => {}
                Standing::Late => drop(self.doubted.insert(node)),
                Standing::Silent => self.suspect(now_us, node, acts),
            }
        }
    }

    /// Suspects a member, as `foca` does when a probe fails.
    fn suspect(&mut self, now_us: u64, node: NodeId, acts: &mut Acts) {
        let is_meant = |member: &&Member<Identity>| member.id().node == node && member.state() == State::Alive;
        let Some(member) = self.foca.iter_membership_state().find(is_meant) else { return };
        let (member_id, incarnation) = (*member.id(), member.incarnation());
        let suspect = core::iter::once(Member::new(member_id, incarnation, State::Suspect));
        let down = Timer::ChangeSuspectToDown { member_id, incarnation, token: self.token };
        let after = self.suspect_to_down;
        self.run(now_us, acts, &mut alloc::vec![node], |foca, runtime| {
            foca::Runtime::submit_after(&mut &mut *runtime, down, after);
            foca.apply_many(suspect, true, runtime)
        });
    }

    /// Takes a packet that was looked at.
    pub(super) fn packet(&mut self, now_us: u64, packet: &Packet, acts: &mut Acts) {
        self.outlive(now_us, packet, acts);
        if packet.answers.is_some() && self.probe.map(|probe| probe.number) == packet.answers {
            self.probe = None;
        }
        let mut touched: Vec<NodeId> = packet.members.iter().map(|member| member.node).collect();
        touched.push(packet.sender.node);
        self.run(now_us, acts, &mut touched, |foca, runtime| foca.handle_data(&packet.body, runtime));
    }

    /// Someone remembers a later process of this node than this one, because its clock went back: this one takes a
    /// number above that.
    fn outlive(&mut self, now_us: u64, packet: &Packet, acts: &mut Acts) {
        let own = self.identity();
        let named = packet.members.iter().chain([&packet.receiver]).filter(|member| member.node == own.node);
        let Some(start) = named.map(|member| member.start).max().filter(|start| *start > own.start) else { return };
        let next = Identity { start: start.saturating_add(1), ..own };
        self.run(now_us, acts, &mut Vec::new(), |foca, runtime| foca.change_identity(next, runtime));
    }

    /// A node has named its process, by other means than SWIM's. If that was given up, the announcement tells it so.
    pub(super) fn met(&mut self, now_us: u64, identity: Identity, acts: &mut Acts) {
        let alive = core::iter::once(Member::alive(identity));
        let mut touched = alloc::vec![identity.node];
        self.run(now_us, acts, &mut touched, |foca, runtime| foca.apply_many(alive, false, runtime));
        let is_alive = |member: &Member<Identity>| *member.id() == identity && member.state() == State::Alive;
        if !self.foca.iter_members().any(is_alive) {
            self.run(now_us, acts, &mut Vec::new(), |foca, runtime| foca.announce(identity, runtime));
        }
    }

    /// Calls `foca`, and takes in what it asks for. Its errors are about packets that it drops; all that can be wrong
    /// with one was looked at before.
    fn run(
        &mut self,
        now_us: u64,
        acts: &mut Acts,
        touched: &mut Vec<NodeId>,
        call: impl FnOnce(
            &mut Foca<Identity, Codec, Xoshiro256PlusPlus, NoCustomBroadcast>,
            &mut Runtime,
        ) -> Result<(), foca::Error>,
    ) {
        let mut runtime = Runtime::default();
        let _ = call(&mut self.foca, &mut runtime);
        for (timer, after) in runtime.timers {
            self.set += 1;
            if let Timer::ProbeRandomMember(token) = timer {
                self.token = token;
            }
            let due_us = now_us.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
            self.timers.insert((due_us, self.set), timer);
        }
        self.probe = runtime.probe.or(self.probe);
        acts.sends.append(&mut runtime.acts.sends);
        touched.append(&mut runtime.touched);
        touched.sort_unstable();
        touched.dedup();
        if touched.is_empty() {
            return;
        }
        let states =
            self.foca.iter_membership_state().filter(|member| touched.binary_search(&member.id().node).is_ok());
        acts.changed.extend(states.map(|member| (member.id().node, member.state())));
    }
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn the_configuration_follows_the_cluster_up_and_down() {
        let timing = Timing::default();
        let of = |peers| {
            Swim::new(Identity { node: NodeId(1), start: 1 }, peers, &timing, Xoshiro256PlusPlus::seed_from_u64(1))
        };
        let mut swim = of(2);
        for peers in [299, 2, 999] {
            swim.resize(peers, &timing);
            assert_eq!(swim.suspect_to_down, of(peers).suspect_to_down, "{peers} peers");
        }
        assert!(of(2).suspect_to_down < of(299).suspect_to_down);
    }
}
