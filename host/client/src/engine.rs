//! Carries an operation through its attempts: chooses the node, sends, and does what `retry` decides about a failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::client::{Answer, Put, PutOutcome, PutReply, Reply, Request, RequestBody};
use rejoin_proto::{Address, ClusterId, ErrorCode, Layout, Name};
use rejoin_wire::Class;

use crate::chance::Chance;
use crate::links::Links;
use crate::retry::{self, Doubt, Failure, Next, RetryBudget, WriteStory};
use crate::routing::{Map, Target, choose};
use crate::session::{CallError, Session, lock};
use crate::tries::{Attempt, Failed, Tries, not_sent};
use crate::{Context, Error, ErrorKind, Result, time};

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) links: Arc<Links>,
    pub(crate) cluster: ClusterId,
    map: RwLock<Arc<Map>>,
    learning: AtomicBool,
    budget: Mutex<RetryBudget>,
    pub(crate) chance: Chance,
    home: Target,
    pinned: bool,
    pub(crate) timeout: Duration,
    pub(crate) attempts: u8,
}

/// Which nodes can serve a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    /// Those near a key.
    Key(&'a Name, &'a [u8]),
    /// Any.
    Any,
}

/// What an attempt is for, and until when it may take.
struct Wanted<'a> {
    body: &'a RequestBody,
    trace: u64,
    until: Instant,
}

/// What a client is set up with, beside its connections.
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) attempts: u8,
    pub(crate) pinned: bool,
    pub(crate) seed: Option<[u8; 32]>,
}

impl Engine {
    /// An engine that has met its first node. `None` if that node's layout breaks the rules of layouts.
    pub(crate) fn new(links: Arc<Links>, first: &Session, address: Address, layout: Layout, settings: &Settings) -> Option<Self> {
        let map = Map::new(layout, first.tenant)?;
        let home = Target { id: first.node, name: first.name.clone(), address };
        let (timeout, attempts, pinned) = (settings.timeout, settings.attempts, settings.pinned);
        let (map, budget, chance) = (RwLock::new(Arc::new(map)), Mutex::new(RetryBudget::new()), Chance::new(settings.seed));
        Some(Self { links, cluster: first.cluster, map, learning: AtomicBool::new(false), budget, chance, home, pinned, timeout, attempts })
    }

    /// The layout in use.
    pub(crate) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The node that the client met first.
    pub(crate) fn home(&self) -> &Target {
        &self.home
    }

    /// Reads: any attempt may go to any node, and a hedged one to two.
    pub(crate) async fn read(
        self: &Arc<Self>,
        route: Route<'_>,
        body: &RequestBody,
        timeout: Duration,
        hedge: Option<Duration>,
    ) -> Result<Reply> {
        let mut tries = self.tries(timeout)?;
        let hedge = hedge.map(|after| time::bounded("a hedge", after)).transpose()?;
        loop {
            let target = self.pick(route, &mut tries)?;
            let wanted = Wanted { body, trace: tries.trace, until: tries.until() };
            let failed = match self.attempt_hedged(route, &mut tries, &target, &wanted, hedge).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => tries.tell(failed),
            };
            match retry::after_read(failed.failure, tries.pause(self.chance.share())) {
                Next::Anywhere(wait) => self.again(&mut tries, &failed, wait).await?,
                Next::Same(..) | Next::GiveUp => return Err(failed.error),
            }
        }
    }

    /// Sends something that must not be repeated once it was sent: to the first node that can be reached.
    pub(crate) async fn once(self: &Arc<Self>, class: Class, body: RequestBody, timeout: Duration) -> Result<Reply> {
        let mut tries = self.tries(timeout)?;
        loop {
            let target = self.pick(Route::Any, &mut tries)?;
            tries.attempts_left = 1;
            let wanted = Wanted { body: &body, trace: tries.trace, until: tries.until() };
            match self.attempt(&target, class, &wanted).await.map_err(|failed| tries.tell(failed)) {
                Ok((reply, _)) => return Ok(reply),
                Err(failed) if failed.failure == Failure::NotSent => self.again(&mut tries, &failed, Duration::ZERO).await?,
                Err(failed) if failed.failure == Failure::Lost => return Err(Error::unknown(failed.error)),
                Err(failed) => return Err(failed.error),
            }
        }
    }

    /// Writes: under the rules of `retry`.
    pub(crate) async fn write(self: &Arc<Self>, mut put: Put, timeout: Duration) -> Result<PutReply> {
        let mut tries = self.tries(timeout)?;
        let mut story = WriteStory::default();
        let (bucket, key) = (put.bucket.clone(), put.key.clone());
        let route = Route::Key(&bucket, &key);
        let mut target = self.pick(route, &mut tries)?;
        loop {
            let failed = match self.attempt_write(&target, &tries, &mut put, &story).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => tries.tell(failed),
            };
            let next = story.after(failed.failure, failed.sent, Instant::now(), tries.pause(self.chance.share()));
            let in_doubt = |error: Error| if error.kind() == ErrorKind::Unknown { error } else { Error::unknown(error) };
            match next {
                Next::GiveUp if story.doubt().is_some() => return Err(in_doubt(failed.error)),
                Next::GiveUp => return Err(failed.error),
                Next::Same(_, wait) => self.again(&mut tries, &failed, wait).await.map_err(in_doubt)?,
                Next::Anywhere(wait) => {
                    self.again(&mut tries, &failed, wait).await?;
                    target = self.pick(route, &mut tries)?;
                }
            }
        }
    }

    async fn attempt_write(self: &Arc<Self>, target: &Target, tries: &Tries, put: &mut Put, story: &WriteStory) -> Attempt<PutReply> {
        let session = self.session(target, tries.left()).await?;
        put.start = session.start();
        put.attempt = story.attempt();
        if story.doubt().is_some_and(|doubt| !doubt.repeatable(Instant::now(), put.start)) {
            let error = Error::unknown("its node no longer remembers the first attempt, so that it was not repeated");
            // A code that ends a write in doubt at once.
            return Err(Failed { failure: Failure::Said(ErrorCode::VersionConflict, Duration::ZERO), error, sent: None });
        }
        let request = self.request(tries.trace, tries.until(), RequestBody::Put(put.clone()));
        let (reply, sent) = self.exchange(target, &session, Class::Request, &request).await?;
        match reply {
            Reply::Put(reply) if reply.outcome == PutOutcome::Stored => {
                // Not of a write that was sent before: an earlier attempt may still arrive, and must be recognised.
                let only = story.attempt() == 0 && story.doubt().is_none();
                if let Some(receipts) = reply.receipt.filter(|_| only).and_then(|receipt| session.keep_receipt(receipt)) {
                    session.tell(&self.request(tries.trace, tries.until(), RequestBody::Settled(receipts)));
                }
                Ok(reply)
            }
            Reply::Put(reply) => {
                let error = Error::unknown("its quorum did not answer in time").quorum(reply.needed, reply.acked);
                let error = error.with_context(Context::from_wire(reply.context));
                Err(Failed { failure: Failure::Said(ErrorCode::Unknown, Duration::ZERO), error, sent: Some(sent) })
            }
            // Something was answered to a write: that it happened cannot be excluded.
            _ => Err(Failed { failure: Failure::Lost, error: unexpected(session.name.as_str()), sent: Some(sent) }),
        }
    }

    async fn attempt_hedged(
        self: &Arc<Self>,
        route: Route<'_>,
        tries: &mut Tries,
        target: &Target,
        wanted: &Wanted<'_>,
        hedge: Option<Duration>,
    ) -> Attempt<Reply> {
        let first = async { self.attempt(target, Class::Request, wanted).await.map(|(reply, _)| reply) };
        let Some(after) = hedge else { return first.await };
        let mut first = std::pin::pin!(first);
        tokio::select! { biased;
            done = &mut first => return done,
            () = tokio::time::sleep(after) => {}
        }
        let other = self.pick(route, tries).ok().filter(|other| other.id != target.id);
        let Some(other) = other.filter(|_| lock(&self.budget).take()) else { return first.await };
        let mut second = std::pin::pin!(async { self.attempt(&other, Class::Request, wanted).await.map(|(reply, _)| reply) });
        tokio::select! { biased;
            done = &mut first => either(done, second).await,
            done = &mut second => either(done, first).await,
        }
    }

    async fn attempt(self: &Arc<Self>, target: &Target, class: Class, wanted: &Wanted<'_>) -> Attempt<(Reply, Doubt)> {
        let session = self.session(target, wanted.until.saturating_duration_since(Instant::now())).await?;
        // Made only now: what connecting has taken is not there for the answer.
        let request = self.request(wanted.trace, wanted.until, wanted.body.clone());
        self.exchange(target, &session, class, &request).await
    }

    async fn session(&self, target: &Target, limit: Duration) -> Attempt<Arc<Session>> {
        let (session, layout) = self.links.session(target, limit).await.map_err(not_sent)?;
        if session.cluster != self.cluster {
            let error = format!("{} is a node of cluster {}, not of {}", session.name, session.cluster, self.cluster);
            return Err(not_sent(Error::new(ErrorKind::Untrusted, error)));
        }
        if let Some(layout) = layout {
            self.learn(layout);
        }
        Ok(session)
    }

    /// One request and its answer on a session.
    async fn exchange(
        self: &Arc<Self>,
        target: &Target,
        session: &Arc<Session>,
        class: Class,
        request: &Request,
    ) -> Attempt<(Reply, Doubt)> {
        let sent = Doubt { node: target.id, start: session.start(), since: Instant::now(), window: session.retry_window };
        match session.call(class, request).await {
            Ok(answer) => {
                self.links.answered(target);
                self.catch_up(session, &answer).await;
                let start = answer.start;
                match answer.reply {
                    Reply::Error(reply) => {
                        let wait = Duration::from_millis(u64::from(reply.retry_after_ms));
                        // What may have happened did so under the start it was sent to; a refusal speaks for the start
                        // that refuses.
                        let sent = if reply.code == ErrorCode::Unknown { sent } else { Doubt { start, ..sent } };
                        Err(Failed { failure: Failure::Said(reply.code, wait), error: reply.into(), sent: Some(sent) })
                    }
                    reply => {
                        lock(&self.budget).succeeded();
                        Ok((reply, sent))
                    }
                }
            }
            Err(CallError::NotSent(error)) => Err(not_sent(error)),
            Err(CallError::Lost { why, silent }) => {
                self.links.unanswered(target, session, silent);
                Err(Failed { failure: Failure::Lost, error: Error::new(ErrorKind::TimedOut, why), sent: Some(sent) })
            }
        }
    }

    /// Asks for the layout where an answer has named a newer one than ours. Only a request that was refused for it
    /// waits.
    async fn catch_up(self: &Arc<Self>, session: &Arc<Session>, answer: &Answer) {
        if matches!(&answer.reply, Reply::Error(error) if error.code == ErrorCode::StaleLayout) {
            self.fetch_layout(session).await;
        } else if answer.layout > self.map().name() && !self.learning.swap(true, Ordering::AcqRel) {
            let (engine, session) = (Arc::clone(self), Arc::clone(session));
            tokio::spawn(async move {
                engine.fetch_layout(&session).await;
                engine.learning.store(false, Ordering::Release);
            });
        }
    }

    async fn fetch_layout(&self, session: &Session) {
        let request = Request { deadline_ms: 1_000, trace: 0, layout: self.map().name(), body: RequestBody::Layout };
        if let Ok(Answer { reply: Reply::Layout(layout), .. }) = session.call(Class::Request, &request).await {
            self.learn(layout);
        }
    }

    /// Takes a layout over if it is sound and newer than ours.
    fn learn(&self, layout: Layout) {
        let Some(new) = Map::new(layout, self.map().tenant()) else {
            tracing::warn!("a node has sent a layout that breaks the rules of layouts; it is not used");
            return;
        };
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if new.name() > map.name() {
            let mut targets = new.all();
            targets.push(self.home.clone());
            self.links.keep(&targets);
            *map = Arc::new(new);
        }
    }

    fn tries(&self, timeout: Duration) -> Result<Tries> {
        let deadline = Instant::now() + time::bounded("a time-out", timeout)?;
        let attempts = self.attempts.max(1);
        let dials_left = self.map().len() + usize::from(attempts);
        let trace = self.chance.word().max(1);
        Ok(Tries { deadline, trace, attempts, attempts_left: attempts, dials_left, asked: Vec::new(), told: None })
    }

    fn pick(&self, route: Route<'_>, tries: &mut Tries) -> Result<Target> {
        let candidates = match route {
            _ if self.pinned => vec![self.home.clone()],
            Route::Key(bucket, key) => self.map().candidates(bucket, key),
            Route::Any => {
                let mut all = self.map().all();
                all.retain(|target| target.id != self.home.id);
                all.insert(0, self.home.clone());
                all
            }
        };
        let avoided = |target: &Target| self.links.avoided(target);
        let nobody = || Error::new(ErrorKind::Unreachable, "the layout names no node to ask");
        let target = choose(&candidates, &tries.asked, avoided).ok_or_else(nobody)?.clone();
        tries.asked.push(target.id);
        Ok(target)
    }

    fn request(&self, trace: u64, until: Instant, body: RequestBody) -> Request {
        let left = until.saturating_duration_since(Instant::now());
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        Request { deadline_ms, trace, layout: self.map().name(), body }
    }

    /// Makes ready for another attempt, or says why there is none.
    async fn again(&self, tries: &mut Tries, failed: &Failed, wait: Duration) -> Result<()> {
        let spent = match failed.failure {
            Failure::NotSent => {
                tries.dials_left = tries.dials_left.saturating_sub(1);
                tries.dials_left == 0
            }
            _ => {
                tries.attempts_left = tries.attempts_left.saturating_sub(1);
                tries.attempts_left == 0 || !lock(&self.budget).take()
            }
        };
        if spent || Instant::now() + wait >= tries.deadline {
            return Err(failed.error.clone());
        }
        if matches!(failed.failure, Failure::Said(ErrorCode::StaleLayout, _)) {
            tries.asked.clear();
        }
        tracing::debug!(error = %failed.error, ?wait, "another attempt");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// What has come first, if it is good; otherwise what comes second, or the more telling of two failures.
async fn either<T>(first: Attempt<T>, second: impl Future<Output = Attempt<T>>) -> Attempt<T> {
    let Err(first) = first else { return first };
    second.await.map_err(|second| if second.error.telling() < first.error.telling() { first } else { second })
}

/// An answer to another question than was asked.
pub(crate) fn unexpected(node: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("{node} has answered what was not asked: is it of the same release as this client?"))
}
