//! What a node's driver does with a shard: drain the desk, handle every event, commit once, let effects go as far as their barriers allow.
//!
//! The rules are those of the real one (`host/node/src/driver.rs`, `syncing.rs`, `waiting.rs`): notices before work, a tick in every
//! batch, nothing leaves before the commit, what needs the disk waits for a sync that begins after it, and one sync more is asked for while one is under way.

use rejoin_core::shard::event::{Barrier, Effect, Event, Invalid, MergeJob, MergeTicket, ValidateJob, ValidateTicket};
use rejoin_proto::client::{PutOutcome, Reply, StartId};
use rejoin_proto::peer::{PeerBody, PeerEnvelope};

use super::node::Notice;
use super::{Occurrence, Parcel, World};
use crate::describe;
use crate::history::{Kind, Loss, NodeIndex};
use crate::options::MS;
use crate::plugins;
use crate::rng::mix;

impl World {
    /// Puts something on a shard's desk that is always taken.
    pub(super) fn tell(&mut self, node: NodeIndex, shard: u16, event: impl Into<Box<Event>>) {
        self.notify(node, shard, Notice::Event(event.into()));
    }

    pub(super) fn tell_all(&mut self, node: NodeIndex, event: &Event) {
        (0..self.options.shards).for_each(|shard| self.tell(node, shard, event.clone()));
    }

    pub(super) fn notify(&mut self, node: NodeIndex, shard: u16, notice: Notice) {
        if let Some(running) = &mut self.nodes[usize::from(node)].running {
            running.shards[usize::from(shard)].notices.push(notice);
            self.want_wake(node, shard, self.now_us);
        }
    }

    /// Puts work on a shard's desk: done at once if it is idle.
    pub(super) fn work(&mut self, node: NodeIndex, shard: u16, event: Event) {
        let Some(running) = &mut self.nodes[usize::from(node)].running else { return };
        let post = &mut running.shards[usize::from(shard)];
        post.works.push(event);
        if post.busy_until_us <= self.now_us {
            self.batch(node, shard);
        } else {
            self.want_wake(node, shard, self.now_us);
        }
    }

    /// Plans a wake at that time or when the shard has ended its batch, unless one is planned that is early enough.
    fn want_wake(&mut self, node: NodeIndex, shard: u16, at_us: u64) {
        let of = &mut self.nodes[usize::from(node)];
        let life = of.life;
        let Some(running) = &mut of.running else { return };
        let post = &mut running.shards[usize::from(shard)];
        let at_us = at_us.max(post.busy_until_us);
        if at_us < post.wake_us {
            post.wake_us = at_us;
            self.plan_at(at_us, Occurrence::Wake { node, life, shard });
        }
    }

    pub(super) fn wake(&mut self, node: NodeIndex, shard: u16) {
        let Some(running) = &mut self.nodes[usize::from(node)].running else { return };
        let post = &mut running.shards[usize::from(shard)];
        if post.wake_us <= self.now_us {
            post.wake_us = u64::MAX;
        }
        let idle = post.notices.is_empty() && post.works.is_empty();
        let due = post.shard.next_wake_us().saturating_sub(1);
        if post.busy_until_us > self.now_us || (idle && due > self.now_us) {
            let at_us = if idle { due } else { self.now_us };
            return self.want_wake(node, shard, at_us);
        }
        self.batch(node, shard);
    }

    /// One batch.
    fn batch(&mut self, at: NodeIndex, index: u16) {
        let now = self.clock(at);
        let mut effects = std::mem::take(&mut self.effects);
        let node = &mut self.nodes[usize::from(at)];
        let Some(running) = &mut node.running else { return };
        let (post, disk) = (&mut running.shards[usize::from(index)], &mut node.disks[usize::from(index)]);
        let (mut notices, mut works) = (std::mem::take(&mut post.notices), std::mem::take(&mut post.works));
        let mut heard = Vec::new();
        let mut events = 0;
        let mut synced = false;
        for notice in notices.drain(..) {
            events += 1;
            match notice {
                Notice::Event(event) => post.shard.handle(now, *event, disk, &mut effects),
                Notice::PeerUp { peer, connection, actors } => {
                    heard.push((peer, connection));
                    post.shard.handle(now, Event::PeerUp(self.keys.node(peer), actors), disk, &mut effects);
                }
                Notice::Synced(goal) => {
                    post.synced = post.synced.max(goal);
                    synced = true;
                }
            }
        }
        for work in works.drain(..) {
            events += 1;
            if self.trace.is_kept() {
                describe::event(&mut self.trace, self.now_us, at, &self.keys, &self.recorder.run.calls, &work);
            }
            post.shard.handle(now, work, disk, &mut effects);
        }
        while let Some((_, ticket)) = post.waiting.pop_front_if(|(seq, _)| *seq <= post.synced) {
            post.shard.handle(now, Event::Durable(ticket), disk, &mut effects);
        }
        post.shard.handle(now, Event::Tick, disk, &mut effects);
        (post.notices, post.works) = (notices, works);
        let under_way = post.shard.in_flight() as u64;
        self.recorder.most_under_way = self.recorder.most_under_way.max(under_way);
        self.trace.event(self.now_us, u64::from(at), mix(events << 32 ^ effects.len() as u64 ^ disk.written() << 8 ^ u64::from(index)));
        if synced {
            // They belong to earlier batches, and go before this one is committed.
            self.release_held(at, index);
        }
        self.commit(at, index, &mut effects);
        effects.clear();
        self.effects = effects;
        for (peer, connection) in heard {
            self.hello_heard(at, peer, connection);
        }
    }

    /// Writes the batch and lets its effects go; or ends the node in the middle of it.
    fn commit(&mut self, at: NodeIndex, index: u16, effects: &mut Vec<Effect>) {
        let node = &mut self.nodes[usize::from(at)];
        let disk = &mut node.disks[usize::from(index)];
        if let Some(death) = node.doom.take() {
            return self.die(at, death, Some(index));
        }
        let Ok(seq) = disk.commit() else {
            return self.fail(at, "its store has failed");
        };
        self.record_puts(at, index);
        self.release(at, index, seq, effects);
        let node = &mut self.nodes[usize::from(at)];
        let Some(running) = &mut node.running else { return };
        let post = &mut running.shards[usize::from(index)];
        post.busy_until_us = self.now_us + node.service_us;
        let (due, ready) = (post.shard.next_wake_us().saturating_sub(1), post.waiting.front().is_some_and(|(seq, _)| *seq <= post.synced));
        let more = !post.notices.is_empty() || !post.works.is_empty() || ready;
        if post.needs_sync() {
            self.want_sync(at, index);
        }
        self.want_wake(at, index, if more { self.now_us } else { due });
    }

    /// Records the puts that a shard has written.
    pub(super) fn record_puts(&mut self, at: NodeIndex, index: u16) {
        let node = &mut self.nodes[usize::from(at)];
        let disk = &mut node.disks[usize::from(index)];
        if std::mem::take(&mut disk.replaced) {
            self.recorder.mark("damaged copy replaced");
            self.recorder.run.losses.push(Loss { node: at, at_us: self.now_us, synced: true });
        }
        for put in disk.puts.drain(..) {
            self.recorder.minted(self.now_us, at, &put, &self.keys);
            node.puts += 1;
            let (actor, counter) = (put.dot.actor, put.dot.counter);
            match node.minted.iter_mut().rev().find(|(known, _)| *known == actor) {
                Some((_, highest)) => *highest = (*highest).max(counter),
                None => node.minted.push((actor, counter)),
            }
        }
    }

    fn release(&mut self, at: NodeIndex, index: u16, seq: u64, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, barrier, envelope } => {
                    let to = self.keys.index(to);
                    let Some(post) = self.post(at, index) else { return };
                    if barrier == Barrier::Durable && seq > post.synced {
                        post.held.push_back((seq, to, Box::new(envelope)));
                    } else {
                        self.send(at, to, Box::new(envelope));
                    }
                }
                Effect::WhenDurable(ticket) => {
                    let Some(post) = self.post(at, index) else { return };
                    post.waiting.push_back((seq, ticket));
                }
                Effect::Reply { session, reply } => self.reply(at, session, reply),
                Effect::Merge(ticket, job) => self.merge(at, index, ticket, &job),
                Effect::Validate(ticket, job) => self.validate(at, index, ticket, &job),
                Effect::StartRenewed(start) => self.start_renewed(at, index, start),
                Effect::Alarm(alarm) => {
                    self.recorder.alarm(&alarm);
                    self.note(at, || format!("ALARM {alarm}"));
                }
                Effect::Fatal(why) => return self.fail(at, &why),
            }
        }
    }

    fn release_held(&mut self, at: NodeIndex, index: u16) {
        while let Some(post) = self.post(at, index)
            && let Some((_, to, envelope)) = post.held.pop_front_if(|(seq, ..)| *seq <= post.synced)
        {
            self.send(at, to, envelope);
        }
    }

    fn post(&mut self, at: NodeIndex, index: u16) -> Option<&mut super::node::Post> {
        self.nodes[usize::from(at)].running.as_mut().map(|running| &mut running.shards[usize::from(index)])
    }

    /// Sends a message on the connection that the node holds, if it holds one.
    fn send(&mut self, from: NodeIndex, to: NodeIndex, envelope: Box<PeerEnvelope>) {
        if let PeerBody::ForwardReply { reply: Reply::Put(put), .. } = &envelope.body
            && put.outcome == PutOutcome::Stored
        {
            self.acknowledged(envelope.trace);
        }
        if self.trace.is_kept() {
            describe::sent(&mut self.trace, self.now_us, (from, to), &self.keys, &self.recorder.run.calls, &envelope);
        }
        let connection = self.network.held(from, to);
        if connection != 0 {
            if matches!(envelope.body, PeerBody::Observed { .. }) {
                self.recorder.mark("objection");
            }
            let ordered = matches!(envelope.body, PeerBody::Observed { .. });
            self.post_parcel(from, to, connection, Parcel::Message(envelope), ordered);
        }
    }

    fn merge(&mut self, at: NodeIndex, shard: u16, ticket: MergeTicket, job: &MergeJob) {
        let kind = self.keys.kind_of_plugin(&job.plugin);
        let trapped = self.plugins.percent(self.plugin_trouble);
        let result = match (trapped, self.options.wasm && kind == Kind::Cart) {
            (true, _) => Err("the plugin trapped, as the simulator wanted it".to_owned()),
            (false, true) => plugins::wasm(job),
            (false, false) => plugins::native(kind, job),
        };
        if let Ok(merged) = &result {
            let key = self.keys.of_name(&job.key);
            self.recorder.merged(key, at, job, &merged.value);
        }
        let slow = self.plugin_trouble > 0 && self.plugins.percent(30);
        let took_us = self.plugins.exponential(if slow { 500 * MS } else { 50 });
        let life = self.nodes[usize::from(at)].life;
        self.plan_in(took_us, Occurrence::Notice { node: at, life, shard, event: Box::new(Event::Merged(ticket, result)) });
    }

    fn validate(&mut self, at: NodeIndex, shard: u16, ticket: ValidateTicket, job: &ValidateJob) {
        let kind = self.keys.kind_of_plugin(&job.plugin);
        let result = match self.plugins.percent(self.plugin_trouble) {
            true => Err(Invalid::Unjudged("the plugin is not there, as the simulator wanted it".to_owned())),
            false => plugins::validate(kind, job),
        };
        let slow = self.plugin_trouble > 0 && self.plugins.percent(30);
        let took_us = self.plugins.exponential(if slow { 500 * MS } else { 50 });
        let life = self.nodes[usize::from(at)].life;
        self.plan_in(took_us, Occurrence::Notice { node: at, life, shard, event: Box::new(Event::Validated(ticket, result)) });
    }

    /// A shard's tenure has ended: the node's start id is made anew, and every shard is told a moment later.
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

    /// Has everything synced that is written by the time at which the sync begins.
    fn want_sync(&mut self, node: NodeIndex, shard: u16) {
        let Some(post) = self.post(node, shard) else { return };
        if post.syncing {
            post.sync_again = true;
            return;
        }
        post.syncing = true;
        let of = &self.nodes[usize::from(node)];
        let (life, goal, sync_us) = (of.life, of.disks[usize::from(shard)].written(), of.sync_us);
        let took_us = sync_us / 2 + self.faults.exponential(sync_us / 2);
        self.plan_in(took_us, Occurrence::Synced { node, life, shard, goal });
    }

    pub(super) fn synced(&mut self, node: NodeIndex, shard: u16, goal: u64) {
        self.nodes[usize::from(node)].disks[usize::from(shard)].sync(goal);
        let Some(post) = self.post(node, shard) else { return };
        post.syncing = false;
        let again = std::mem::take(&mut post.sync_again);
        self.notify(node, shard, Notice::Synced(goal));
        if again {
            self.want_sync(node, shard);
        }
    }
}

/// One start id for the node, made of those of its shards.
pub(super) fn combined(starts: &[u64]) -> StartId {
    StartId(starts.iter().fold(0, |all, start| mix(all ^ start)))
}
