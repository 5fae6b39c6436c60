//! The clients' side: calls are sent, answered or given up, and recorded.

use bytes::Bytes;

use rejoin_core::shard::event::{ClientRequest, Event, ReplyTo};
use rejoin_proto::client::{GetReply, PutOutcome, PutReply, Reply};
use rejoin_proto::peer::DataRequest;
use rejoin_proto::{ErrorCode, RequestId, VersionVector};

use super::node::Node;
use super::{Occurrence, World};
use crate::describe;
use crate::history::{Answer, Asked, Call, CallId, KeyId, NodeIndex, Outcome, Stray};
use crate::options::MS;
use crate::record::{FORGED_UNDO_REFUSED, UNDO_REFUSED};
use crate::workload::{Ask, Retry};

/// The most attempts at one write.
const ATTEMPTS: u8 = 3;
/// The deadline of a call after the chaos, in milliseconds.
const CALM_DEADLINE_MS: u32 = 10_000;
/// The pause of a session when no node runs.
const NOBODY_US: u64 = 20 * MS;

impl World {
    /// A session's next step.
    pub(super) fn act(&mut self, session: u16) {
        if self.versions.operator == Some(session) {
            return self.next_undo(session);
        }
        let of = &mut self.sessions[usize::from(session)];
        if !self.open || of.pending.is_some() {
            return;
        }
        if let Some(retry) = of.retry.take()
            && self.now_us - retry.first_us < self.options.retry_window_ms * MS
        {
            if self.nodes[usize::from(retry.node)].running.is_some() {
                self.ask_again(session, retry);
            } else {
                self.plan_in(NOBODY_US, Occurrence::Act { session });
            }
            return;
        }
        let first = self.nodes.len();
        let first = self.rng_of(session).index(first);
        let Some(node) = self.node_from(first) else {
            return self.plan_in(NOBODY_US, Occurrence::Act { session });
        };
        let rng = self.own.get_mut(usize::from(session)).unwrap_or(&mut self.clients);
        let (ask, full) = self.sessions[usize::from(session)].step(&self.options.clients, &self.keys, rng);
        if let Some((bucket, slot)) = full {
            self.recorder.run.keys.extend(self.keys.make(bucket, Some(slot)));
        }
        self.ask(session, node, ask);
    }

    /// A node that runs, not always one that owns anything.
    pub(super) fn some_node(&mut self) -> Option<NodeIndex> {
        let first = self.clients.index(self.nodes.len());
        self.node_from(first)
    }

    /// The first node from there on that takes requests.
    pub(super) fn node_from(&self, first: usize) -> Option<NodeIndex> {
        let all = (first..self.nodes.len()).chain(0..first);
        let running =
            |at: &usize| self.nodes[*at].takes_clients() || (*at == first && self.nodes[*at].running.is_some());
        all.into_iter().find(running).map(|at| at as NodeIndex)
    }

    /// A first attempt.
    pub(super) fn ask(&mut self, session: u16, node: NodeIndex, mut ask: Ask) {
        let call = self.recorder.run.calls.len() as CallId;
        let start = self.nodes[usize::from(node)].running.as_ref().map(|running| running.start);
        if let DataRequest::Put(put) = &mut ask.request {
            // The upper half keeps ids of this seed apart from whatever else is crossed with them.
            put.request = RequestId(u128::from(self.options.seed | 1) << 64 | u128::from(call));
            put.start = start.unwrap_or_default();
        }
        let retry = Retry { first: call, first_us: self.now_us, node, ask };
        self.send_call(session, retry);
    }

    fn ask_again(&mut self, session: u16, mut retry: Retry) {
        if let DataRequest::Put(put) = &mut retry.ask.request {
            put.attempt += 1;
        }
        if let Asked::Put { retry_of, .. } = &mut retry.ask.asked {
            *retry_of = Some(retry.first);
        }
        self.send_call(session, retry);
    }

    fn send_call(&mut self, session: u16, retry: Retry) {
        let number = self.sessions.get(usize::from(session)).map_or_else(|| u32::from(session), |of| of.number);
        let (node, now_us) = (retry.node, self.now_us);
        let call = self.recorder.invoked(Call {
            session: number,
            node,
            key: retry.ask.key,
            invoked_us: now_us,
            ended_us: now_us,
            asked: retry.ask.asked.clone(),
            outcome: Outcome::Unknown(None),
        });
        // After the chaos a call must succeed, so it gets enough time.
        let deadline_ms = if self.network.calm { CALM_DEADLINE_MS } else { self.options.clients.deadline_ms };
        self.trace.line(now_us, Some(node), Some(retry.ask.key), || describe::asked(number, call, &retry.ask.asked));
        let arrives_us = self.network.client_passage(now_us);
        if let Some(at_us) = arrives_us {
            let request = ClientRequest {
                reply_to: ReplyTo { connection: u64::from(session), request: u64::from(call) },
                tenant: self.keys.bucket_of(retry.ask.key).tenant,
                layout: self.view.layout_name(),
                trace: u64::from(call) + 1,
                arrived_us: at_us,
                deadline_us: at_us + 1 + u64::from(deadline_ms) * MS,
                request: retry.ask.request.clone(),
            };
            let life = self.nodes[usize::from(node)].life;
            self.plan_at(at_us, Occurrence::Request { node, life, request: Box::new(request) });
        }
        let of = &mut self.sessions[usize::from(session)];
        (of.pending, of.retry) = (Some((call, node)), Some(retry));
        self.plan_in(u64::from(deadline_ms) * MS * 3 / 2, Occurrence::GiveUp { call });
    }

    pub(super) fn request_arrived(&mut self, node: NodeIndex, request: ClientRequest) {
        if self.refuses(node, &request) {
            return;
        }
        let key = self.recorder.run.calls[request.reply_to.request as usize].key;
        let shard = self.keys.place(key).shard;
        self.work(node, shard, Event::Client(request));
    }

    /// A coordinator lets a reply go.
    pub(super) fn reply(&mut self, at: NodeIndex, reply_to: ReplyTo, reply: Reply) {
        let call = reply_to.request as CallId;
        if let Reply::Put(PutReply { outcome: PutOutcome::Stored, .. }) = &reply {
            self.acknowledged(reply_to.request + 1);
        }
        let key = self.recorder.run.calls[call as usize].key;
        if let Reply::Get(GetReply { merged_by: Some(by), .. }) = &reply {
            self.note_answer(at, key, &by.digest);
        }
        self.trace.line(self.now_us, Some(at), Some(key), || format!("answers c{call}: {}", describe::reply(&reply)));
        if let Some(at_us) = self.network.client_passage(self.now_us) {
            self.plan_at(at_us, Occurrence::Reply { call, reply: Box::new(reply) });
        }
    }

    /// An acknowledgement has left its coordinator: from now on the atlas guards the write.
    pub(super) fn acknowledged(&mut self, trace: u64) {
        let dots = trace.checked_sub(1).map(|call| self.recorder.dots(call as CallId));
        for (key, dot) in dots.into_iter().flatten() {
            let place = self.keys.place(key);
            let copy = |node: &Node| node.disks[usize::from(place.shard)].object_on_disk(&place.store_key).cloned();
            if !self.atlas.acknowledged(key, dot, || self.nodes.iter().filter_map(copy)) {
                self.recorder.run.given_up.insert(dot);
            }
            if self.has_changes() {
                self.steps.acknowledged(key, self.now_us, dot);
            }
        }
    }

    pub(super) fn reply_arrived(&mut self, call: CallId, reply: Reply) {
        let (session, key) =
            (self.recorder.run.calls[call as usize].session as u16, self.recorder.run.calls[call as usize].key);
        if self.sessions[usize::from(session)].pending.is_none_or(|(pending, _)| pending != call) {
            return;
        }
        let outcome = match reply {
            Reply::Get(reply) => self.was_read(session, key, call, reply),
            Reply::Put(reply) => self.was_put(session, key, call, &reply),
            Reply::Error(error) if error.code == ErrorCode::Unknown => Outcome::Unknown(None),
            Reply::Error(error) if error.code == ErrorCode::NotFound => {
                let node = self.recorder.run.calls[call as usize].node;
                if self.nodes[usize::from(node)].running.as_ref().is_some_and(|running| running.met_all) {
                    self.recorder.unknown_bucket(node, key);
                }
                Outcome::Refused
            }
            Reply::Error(error) => {
                if let Asked::Undo { .. } = self.recorder.run.calls[call as usize].asked {
                    self.recorder.mark(match error.code {
                        ErrorCode::VersionConflict => "undo found another value",
                        ErrorCode::TooManySiblings => "undo found no room",
                        ErrorCode::BadRequest => "undo would not last",
                        ErrorCode::InvalidValue => FORGED_UNDO_REFUSED,
                        _ => UNDO_REFUSED,
                    });
                } else if error.code == ErrorCode::InvalidValue {
                    self.recorder.mark("malformed value refused");
                }
                Outcome::Refused
            }
            _ => Outcome::Refused,
        };
        self.end(session, call, outcome);
    }

    fn was_read(&mut self, session: u16, key: KeyId, call: CallId, reply: GetReply) -> Outcome {
        let values: Vec<Bytes> = match reply.value {
            Some(value) => vec![value],
            None => reply.siblings.into_iter().map(|sibling| sibling.value).collect(),
        };
        let context = self.opened(key, &reply.context);
        self.keys.answered(key, call, &reply.context);
        self.sessions[usize::from(session)].answered(key, call, reply.context, values.clone());
        Outcome::Ok(Answer { values, context })
    }

    fn was_put(&mut self, session: u16, key: KeyId, call: CallId, reply: &PutReply) -> Outcome {
        let context = self.opened(key, &reply.context);
        if reply.outcome == PutOutcome::Unknown {
            return Outcome::Unknown(Some(context));
        }
        let written = match &self.recorder.run.calls[call as usize].asked {
            Asked::Put { value, .. } => value.iter().cloned().collect(),
            Asked::Get { .. } | Asked::Undo { .. } => Vec::new(),
        };
        self.keys.answered(key, call, &reply.context);
        self.sessions[usize::from(session)].answered(key, call, reply.context.clone(), written);
        let of = &self.recorder.run.calls[call as usize];
        let (node, only) = (of.node, matches!(of.asked, Asked::Put { retry_of: None, .. }));
        if let Some(receipt) = reply.receipt.filter(|_| only && self.clients.chance(self.options.clients.receipts))
            && let Some(at_us) = self.network.client_passage(self.now_us)
        {
            // The node that was asked need not be the one that answers; then the receipt finds nothing.
            let (life, shard) = (self.nodes[usize::from(node)].life, self.keys.place(key).shard);
            let event = Box::new(Event::Settled(vec![receipt]));
            self.plan_at(at_us, Occurrence::Notice { node, life, shard, event });
        }
        Outcome::Ok(Answer { values: Vec::new(), context })
    }

    pub(super) fn opened(&mut self, key: KeyId, token: &[u8]) -> VersionVector {
        let open = |key: KeyId| self.contexts.open(&self.keys.place(key).object, token);
        match (open(key), self.keys.twin(key).map(open)) {
            (Ok(seen), _) => seen,
            (Err(_), Some(Ok(_))) => {
                let evidence = "a client was given a context for the key of that name of another tenant".into();
                self.recorder.run.strays.push(Stray { key, evidence });
                VersionVector::new()
            }
            (Err(error), _) => panic!("a node has sealed a context for this key: {error}"),
        }
    }

    pub(super) fn gave_up(&mut self, call: CallId) {
        let session = self.recorder.run.calls[call as usize].session as u16;
        if self.sessions[usize::from(session)].pending.is_some_and(|(pending, _)| pending == call) {
            self.end(session, call, Outcome::Unknown(None));
        }
    }

    /// A call has ended: it is recorded, and the session goes on after a while.
    fn end(&mut self, session: u16, call: CallId, outcome: Outcome) {
        let key = self.recorder.run.calls[call as usize].key;
        self.trace.line(self.now_us, None, Some(key), || describe::ended(call, &outcome));
        self.trace.event(self.now_us, 200, u64::from(call) << 2 | describe::outcome_number(&outcome));
        let of = &mut self.sessions[usize::from(session)];
        of.pending = None;
        let is_unknown = matches!(outcome, Outcome::Unknown(_));
        if !matches!(outcome, Outcome::Ok(_)) {
            of.failed();
        }
        let may_retry =
            |retry: &Retry| matches!(&retry.ask.request, DataRequest::Put(put) if put.attempt + 1 < ATTEMPTS);
        if !is_unknown
            || !of.retry.as_ref().is_some_and(may_retry)
            || !self.clients.chance(self.options.clients.retries)
        {
            of.retry = None;
        }
        self.recorder.ended(call, self.now_us, outcome);
        let think_us = self.options.clients.think_us;
        let think_us = self.rng_of(session).exponential(think_us);
        // A write that follows from a read mostly comes at once.
        let follows = self.sessions[usize::from(session)].is_in_the_middle() && self.rng_of(session).percent(80);
        self.plan_in(if follows { think_us / 16 } else { think_us }, Occurrence::Act { session });
    }
}
