//! A shard's queues and batches. The product's own [`GroupCommit`](rejoin_core::node::batch::GroupCommit) decides what
//! may leave the node and when. Simulated are the time that a batch and a sync take, and crashes in the middle of one.

use bytes::Bytes;

use rejoin_core::control::{CatalogChange, CatalogEvent};
use rejoin_core::node::batch::{Input, Output};
use rejoin_core::node::links::LinkEvent;
use rejoin_core::port::CommitSeq;
use rejoin_core::ring::RingEvent;
use rejoin_core::shard::event::{Event, MergeJob, MergeTicket, Merged, PluginError, ValidateJob, ValidateTicket};
use rejoin_proto::client::{PutOutcome, Reply, StartId};
use rejoin_proto::fault::{MergeFault, TrapKind};
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::{Layout, Object, codec};

use super::chaos::nobody;
use super::node::ShardTask;
use super::{Occurrence, Parcel, World};
use crate::describe;
use crate::disk::Replaced;
use crate::history::{Dropped, Kind, Loss, NodeIndex};
use crate::options::{Liar, MS};
use crate::plugins::{self, Version};
use crate::rng::mix;

impl World {
    /// Gives a shard an event that is handled ahead of its requests.
    pub(super) fn tell(&mut self, node: NodeIndex, shard: u16, event: Event) {
        self.input(node, shard, Input::Event(event));
    }

    pub(super) fn tell_all(&mut self, node: NodeIndex, event: &Event) {
        (0..self.options.shards).for_each(|shard| self.tell(node, shard, event.clone()));
    }

    pub(super) fn input(&mut self, node: NodeIndex, shard: u16, input: Input) {
        if let Some(task) = self.task(node, shard) {
            task.inputs.push(input);
            self.want_wake(node, shard, self.now_us);
        }
    }

    /// Gives a shard a request or a peer's message. An idle shard handles it at once.
    pub(super) fn work(&mut self, node: NodeIndex, shard: u16, event: Event) {
        let now_us = self.now_us;
        let Some(task) = self.task(node, shard) else { return };
        task.requests.push(event);
        if task.busy_until_us <= now_us {
            self.batch(node, shard);
        } else {
            self.want_wake(node, shard, now_us);
        }
    }

    pub(super) fn task(&mut self, at: NodeIndex, index: u16) -> Option<&mut ShardTask> {
        self.nodes[usize::from(at)].running.as_mut().map(|running| &mut running.shards[usize::from(index)])
    }

    /// Plans a wake at that time, or at the end of the current batch, unless an earlier one is planned.
    fn want_wake(&mut self, node: NodeIndex, shard: u16, at_us: u64) {
        let life = self.nodes[usize::from(node)].life;
        let Some(task) = self.task(node, shard) else { return };
        let at_us = at_us.max(task.busy_until_us);
        if at_us < task.wake_us {
            task.wake_us = at_us;
            self.plan_at(at_us, Occurrence::Wake { node, life, shard });
        }
    }

    pub(super) fn wake(&mut self, node: NodeIndex, shard: u16) {
        let now_us = self.now_us;
        let Some(task) = self.task(node, shard) else { return };
        if task.wake_us <= now_us {
            task.wake_us = u64::MAX;
        }
        let idle = task.inputs.is_empty() && task.requests.is_empty();
        let due = task.batch.next_wake_us().saturating_sub(1);
        if task.busy_until_us > now_us || (idle && due > now_us) {
            return self.want_wake(node, shard, if idle { due } else { now_us });
        }
        self.batch(node, shard);
    }

    /// Runs one batch: inputs, requests, commit and outputs; or the node's crash in the middle of it.
    fn batch(&mut self, at: NodeIndex, index: u16) {
        let now = self.clock(at);
        let node = &mut self.nodes[usize::from(at)];
        let Some(running) = &mut node.running else { return };
        let (task, disk) = (&mut running.shards[usize::from(index)], &mut node.disks[usize::from(index)]);
        let events = (task.inputs.len() + task.requests.len()) as u64;
        for input in task.inputs.drain(..) {
            task.batch.handle(now, input, disk);
        }
        for work in task.requests.drain(..) {
            if self.trace.is_kept() {
                describe::event(&mut self.trace, self.now_us, at, &self.keys, &self.recorder.run.calls, &work);
            }
            task.batch.handle(now, Input::Event(work), disk);
        }
        if let Some(death) = node.doom.take() {
            return self.die(at, death, Some(index));
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        task.batch.commit(now, disk, &mut outputs);
        task.busy_until_us = self.now_us + node.service_us;
        let under_way = task.batch.shard().in_flight() as u64;
        let load = task.batch.shard().exchange_load();
        let word = mix(events << 32 ^ outputs.len() as u64 ^ disk.written() << 8 ^ u64::from(index));
        let failed = task.batch.has_failed();
        self.recorder.most_under_way = self.recorder.most_under_way.max(under_way);
        let most = &mut self.recorder.most_walking;
        most.walks = most.walks.max(load.walks);
        most.walk_bytes = most.walk_bytes.max(load.walk_bytes);
        most.serving = most.serving.max(load.serving);
        self.trace.event(self.now_us, u64::from(at), word);
        if !failed {
            self.record_puts(at, index);
        }
        let mut again = false;
        for output in outputs.drain(..) {
            again |= matches!(output, Output::Again);
            self.act_on(at, index, output);
        }
        self.outputs = outputs;
        let Some(task) = self.task(at, index) else { return };
        // From here on the shard knows the latest one only.
        task.views.drain(..task.views.len().saturating_sub(1));
        let more = again || !task.inputs.is_empty() || !task.requests.is_empty();
        let due = task.batch.next_wake_us().saturating_sub(1);
        self.want_wake(at, index, if more { self.now_us } else { due });
    }

    /// Records the puts that a shard has written.
    pub(super) fn record_puts(&mut self, at: NodeIndex, index: u16) {
        let node = &mut self.nodes[usize::from(at)];
        let disk = &mut node.disks[usize::from(index)];
        let (replaced, dropped) = (std::mem::take(&mut disk.replaced), std::mem::take(&mut disk.removed_objects));
        for put in disk.puts.drain(..) {
            self.recorder.minted(self.now_us, at, &put, &self.keys);
            node.puts += 1;
            let (actor, counter) = (put.dot.actor, put.dot.counter);
            match node.minted.iter_mut().rev().find(|(known, _)| *known == actor) {
                Some((_, highest)) => *highest = (*highest).max(counter),
                None => node.minted.push((actor, counter)),
            }
        }
        let receipts = std::mem::take(&mut disk.changed_receipts);
        if self.versions.operator.is_some() {
            receipts.iter().for_each(|changed| self.receipt_changed(at, index, changed));
        }
        for copy in replaced {
            self.copy_replaced(at, index, &copy);
        }
        for copy in dropped {
            self.copy_dropped(at, index, &copy);
        }
    }

    /// A fallback has dropped an object: the record notes which owners have less on their disks.
    fn copy_dropped(&mut self, at: NodeIndex, index: u16, copy: &Replaced) {
        self.recorder.mark("object handed over");
        let key = self.keys.of_store_key(&copy.store_key);
        let decoded = |bytes: &Bytes| codec::decode::<Object>(bytes).expect("a stored object").context;
        let context = decoded(&copy.object);
        let covers = |owner: &NodeIndex| {
            let disk = &self.nodes[usize::from(*owner)].disks[usize::from(index)];
            disk.durable_object(&copy.store_key).is_some_and(|held| decoded(held).covers(&context))
        };
        let place = self.keys.place(key);
        let lacking_by = |layout: &Layout| -> Vec<NodeIndex> {
            self.keys.owners(layout, place.bucket, &place.object).into_iter().filter(|at| !covers(at)).collect()
        };
        let lacking = self.layouts_of(at).into_iter().map(lacking_by).min_by_key(Vec::len).unwrap_or_default();
        self.note(at, || format!("DROPS its copy of k{key}"));
        self.recorder.run.dropped.push(Dropped { key, node: at, at_us: self.now_us, lacking });
        if self.has_changes() {
            self.look_for(key, &format!("n{at} has dropped its copy"));
        }
    }

    /// An unreadable copy was written over. Its content is lost there, and for good if no other disk has it.
    fn copy_replaced(&mut self, at: NodeIndex, index: u16, copy: &Replaced) {
        self.recorder.mark("damaged copy replaced");
        self.recorder.run.losses.push(Loss {
            node: at,
            at_us: self.now_us,
            synced: true,
            wiped: false,
            known_us: None,
        });
        self.copy_lost(index, copy);
    }

    /// A copy is lost for good.
    pub(super) fn copy_lost(&mut self, index: u16, copy: &Replaced) {
        let copies = self.nodes.iter().filter_map(|node| node.disks[usize::from(index)].object(&copy.store_key));
        let key = self.keys.of_store_key(&copy.store_key);
        let gone = self.atlas.replaced(key, &copy.object, copies.map(|bytes| &bytes[..]));
        if !gone.is_empty() {
            self.recorder.mark("last copy lost before it spread");
            self.recorder.run.given_up.extend(gone);
        }
    }

    /// Carries out one output of a batch.
    fn act_on(&mut self, at: NodeIndex, index: u16, output: Output) {
        match output {
            Output::Send(to, envelope) => {
                let peer = self.keys.index(to);
                let queued = self.held(at, peer) != 0 && !is_control(&envelope.body);
                if queued && self.network.is_full(self.now_us, at, peer, &envelope.body) {
                    self.recorder.mark("message not sent");
                    return self.tell(at, index, Event::NotSent(to, Box::new(envelope.body)));
                }
                self.send(at, peer, envelope);
            }
            Output::Reply(reply_to, reply) => self.reply(at, reply_to, reply),
            Output::Merge(ticket, job) => self.merge(at, index, ticket, &job),
            Output::Validate(ticket, job) => self.validate(at, index, ticket, &job),
            // No plugin of the simulator has operations, and no client asks for one.
            Output::Apply(ticket, _) => {
                let why = MergeFault::NotExported { interface: "operator" };
                self.plugin_answers(at, index, Event::Applied(ticket, Err(why.into())));
            }
            Output::Scan(ticket, job) => self.scan(at, index, ticket, job),
            Output::ActorsChecked(_, connection) => self.link_event(at, LinkEvent::ActorsChecked(connection)),
            Output::StartRenewed(start) => self.start_renewed(at, index, start),
            Output::Requests(told) => self.requests_told(at, index, told),
            Output::Rebuilt => self.link_event(at, LinkEvent::ShardRebuilt(index)),
            Output::Quarantine(tenant, plugin, why) => {
                let change = CatalogChange::PluginQuarantine(tenant, plugin, why);
                self.tell_control(at, CatalogEvent::Change(0, change, nobody()), None);
            }
            Output::OlderEnded(generation) => {
                self.ring_event(at, RingEvent::Settled { shard: index, generation });
            }
            Output::Exchanged(layout) => self.ring_event(at, RingEvent::Exchanged { shard: index, layout }),
            Output::Alarm(alarm) => {
                self.recorder.alarm(&alarm);
                self.note(at, || format!("ALARM {alarm}"));
            }
            Output::Sync => self.want_sync(at, index),
            Output::Again => {}
            Output::Dropped(_) => self.recorder.mark("no room to wait for the disk"),
            Output::Failed(why) => self.fail(at, &why),
        }
    }

    /// Sends a message on the connection that the node holds, if it holds one.
    pub(super) fn send(&mut self, from: NodeIndex, to: NodeIndex, envelope: Box<PeerEnvelope>) {
        if let PeerBody::ForwardReply { reply: Reply::Put(put), .. } = &envelope.body
            && put.outcome == PutOutcome::Stored
        {
            self.acknowledged(envelope.trace);
        }
        if self.trace.is_kept() {
            describe::sent(&mut self.trace, self.now_us, (from, to), &self.keys, &self.recorder.run.calls, &envelope);
        }
        let connection = self.held(from, to);
        if connection != 0 {
            if matches!(envelope.body, PeerBody::Observed { .. }) {
                self.recorder.mark("objection");
            }
            let ordered = is_control(&envelope.body);
            self.post_parcel(from, to, connection, Parcel::Message(envelope), ordered);
        }
    }

    fn merge(&mut self, at: NodeIndex, shard: u16, ticket: MergeTicket, job: &MergeJob) {
        let (kind, version) = Version::of(&job.plugin);
        let key = self.keys.of_name(job.bucket, &job.key);
        let is_ready = self.note_merge(at, key, job);
        let trapped = self.plugins.percent(self.plugin_trouble);
        let component = self.options.wasm && (kind, version) == (Kind::Cart, Version::First);
        let result = match (trapped, component) {
            (true, _) => Err(MergeFault::Trapped(TrapKind::Unreachable).into()),
            _ if !is_ready => Err(PluginError::Missing(job.plugin)),
            (false, true) => plugins::wasm(job),
            (false, false) => plugins::native(version.native(kind), job),
        };
        let result = result.map(|merged| self.lied(at, kind, merged));
        if let Ok(merged) = &result {
            let bad = version == Version::Bad;
            self.recorder.merged((key, at, self.now_us), job, &merged.value, (bad, false));
            self.run_shadow(at, key, job, &merged.value);
        }
        self.plugin_answers(at, shard, Event::Merged(ticket, result));
    }

    /// What a plugin that is not deterministic makes of a good result. Of sets it is the same set in another order.
    fn lied(&mut self, at: NodeIndex, kind: Kind, merged: Merged) -> Merged {
        let turns = match self.options.liar {
            Some(Liar::Calls) => self.plugins.below(2) as usize,
            Some(Liar::Nodes) => usize::from(at),
            Some(Liar::OneNode(node)) => usize::from(node == at),
            None => 0,
        };
        let words = merged.value.len() / 8;
        if turns == 0 || kind != Kind::Set || words < 2 {
            return merged;
        }
        let mut value = merged.value.to_vec();
        value.rotate_left(8 * (turns % words));
        Merged { value: value.into(), ..merged }
    }

    fn validate(&mut self, at: NodeIndex, shard: u16, ticket: ValidateTicket, job: &ValidateJob) {
        let (kind, _) = Version::of(&job.plugin);
        let result = match self.plugins.percent(self.plugin_trouble) || !self.is_ready(at, &job.plugin) {
            true => Err(PluginError::Missing(job.plugin)),
            false => plugins::validate(kind, job),
        };
        self.plugin_answers(at, shard, Event::Validated(ticket, result));
    }

    /// A plugin has run, which took a while.
    fn plugin_answers(&mut self, node: NodeIndex, shard: u16, event: Event) {
        let slow = self.plugin_trouble > 0 && self.plugins.percent(30);
        let took_us = self.plugins.exponential(if slow { 500 * MS } else { 50 });
        let life = self.nodes[usize::from(node)].life;
        self.plan_in(took_us, Occurrence::Notice { node, life, shard, event: Box::new(event) });
    }

    /// A shard's start id has changed: the node's is made anew, and every shard is told a moment later.
    fn start_renewed(&mut self, at: NodeIndex, index: u16, start: u64) {
        let node = &mut self.nodes[usize::from(at)];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        running.starts[usize::from(index)] = start;
        running.start = combined(&running.starts);
        let start = running.start;
        for shard in 0..self.options.shards {
            self.plan_in(5, Occurrence::Notice { node: at, life, shard, event: Box::new(Event::Start(start)) });
        }
    }

    /// Begins a sync of everything that is written by now.
    fn want_sync(&mut self, node: NodeIndex, shard: u16) {
        let Some(task) = self.task(node, shard) else { return };
        if task.syncing {
            task.sync_again = true;
            return;
        }
        task.syncing = true;
        let of = &self.nodes[usize::from(node)];
        let (life, goal, sync_us) = (of.life, of.disks[usize::from(shard)].written(), of.sync_us);
        let took_us = sync_us / 2 + self.faults.exponential(sync_us / 2);
        self.plan_in(took_us, Occurrence::Synced { node, life, shard, goal });
    }

    pub(super) fn synced(&mut self, node: NodeIndex, shard: u16, goal: u64) {
        self.nodes[usize::from(node)].disks[usize::from(shard)].sync(goal);
        let Some(task) = self.task(node, shard) else { return };
        task.syncing = false;
        let again = std::mem::take(&mut task.sync_again);
        self.input(node, shard, Input::Synced(Ok(CommitSeq(goal))));
        if again {
            self.want_sync(node, shard);
        }
    }
}

/// Whether a message travels on the ordered control stream.
pub(super) fn is_control(body: &PeerBody) -> bool {
    matches!(
        body,
        PeerBody::Observed { .. }
            | PeerBody::Holdings { .. }
            | PeerBody::CatalogSummary(_)
            | PeerBody::CatalogRecords { .. }
            | PeerBody::CatalogTaken { .. }
            | PeerBody::Ring(_)
    )
}

/// The node's start id, made of those of its shards.
pub(super) fn combined(starts: &[u64]) -> StartId {
    StartId(starts.iter().fold(0, |all, start| mix(all ^ start)))
}
