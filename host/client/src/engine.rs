//! Runs an operation: chooses a node, sends the request, and repeats it as `retry` decides. `routing` knows the owners
//! of a key, `connections` the sessions, `attempts` the limits of one operation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use rejoin_proto::client::{Put, PutOutcome, PutReply, Reply, ReplyEnvelope, Request, RequestBody, Routes};
use rejoin_proto::{Address, ClusterId, ErrorCode, Name};
use rejoin_wire::Class;

use crate::admin::FromNodes;
use crate::attempts::{AttemptResult, Attempts, FailedAttempt, not_sent};
use crate::connections::Connections;
use crate::retry::{self, Decision, Failure, RetryBudget, SentAttempt, WriteAttempts};
use crate::rng::ClientRng;
use crate::routing::{RoutingTable, Target, choose};
use crate::session::{CallError, Session};
use crate::sync::lock;
use crate::window::Place;
use crate::{Context, Error, ErrorKind, Result, time};

/// The answers of the nodes, each with the node's name.
pub(crate) type EachNode<T> = Result<FromNodes<Vec<(Name, T)>>>;

/// The state that all clones of a client share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) connections: Arc<Connections>,
    pub(crate) cluster: ClusterId,
    /// The tenant whose data the requests are about.
    pub(crate) tenant: Name,
    routes: RwLock<Arc<RoutingTable>>,
    learning: AtomicBool,
    budget: Mutex<RetryBudget>,
    pub(crate) rng: ClientRng,
    first_node: Target,
    pinned: bool,
    pub(crate) timeout: Duration,
    pub(crate) attempts: u8,
    /// Whether reads and writes wait for nodes that are overloaded.
    backpressure: bool,
}

/// The nodes that can serve a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    /// All nodes, beginning with the owners of a key.
    Key(&'a Name, &'a [u8]),
    /// All nodes, beginning with the one that was connected first.
    Any,
}

/// The request of one attempt, and its deadline.
struct AttemptPlan<'a> {
    body: &'a RequestBody,
    trace: u64,
    until: Instant,
}

/// The builder's settings, except for connections.
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) attempts: u8,
    pub(crate) backpressure: bool,
    pub(crate) pinned: bool,
    pub(crate) seed: Option<[u8; 32]>,
}

impl Engine {
    /// An engine with a session to its first node. `None` if that node's layout is invalid.
    pub(crate) fn new(
        connections: Arc<Connections>,
        first: &Session,
        address: Address,
        routes: Routes,
        settings: &Settings,
    ) -> Option<Self> {
        let routes = RoutingTable::new(routes, first.tenant_id)?;
        let first_node = Target { id: first.node, name: first.name.clone(), address };
        let (timeout, attempts, pinned) = (settings.timeout, settings.attempts, settings.pinned);
        let (routes, budget, rng) =
            (RwLock::new(Arc::new(routes)), Mutex::new(RetryBudget::new()), ClientRng::new(settings.seed));
        Some(Self {
            connections,
            cluster: first.cluster,
            tenant: first.tenant.clone(),
            routes,
            learning: AtomicBool::new(false),
            budget,
            rng,
            first_node,
            pinned,
            timeout,
            attempts,
            backpressure: settings.backpressure,
        })
    }

    /// The layout in use, as routes.
    pub(crate) fn routes(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The node that was connected first.
    pub(crate) fn first_node(&self) -> &Target {
        &self.first_node
    }

    /// Sends a read. Each attempt may go to any node, a hedged one to two.
    pub(crate) async fn read(
        self: &Arc<Self>,
        route: Route<'_>,
        body: &RequestBody,
        timeout: Duration,
        hedge: Option<Duration>,
    ) -> Result<Reply> {
        let mut attempts = self.start_attempts(timeout)?;
        let hedge = hedge.map(|after| time::bounded("a hedge", after)).transpose()?;
        loop {
            let target = self.pick(route, &mut attempts)?;
            let plan = AttemptPlan { body, trace: attempts.trace, until: attempts.attempt_deadline() };
            let failed = match self.attempt_hedged(route, &mut attempts, &target, &plan, hedge).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => attempts.with_most_specific(failed),
            };
            match retry::after_read(failed.failure, attempts.pause(self.rng.jitter())) {
                Decision::AnyNode(wait) => self.again(&mut attempts, &failed, wait).await?,
                Decision::SameNode(..) | Decision::GiveUp => return Err(failed.error),
            }
        }
    }

    /// Sends an administrator's request, which must not be repeated, to the first node that can be reached.
    pub(crate) async fn once(self: &Arc<Self>, class: Class, body: RequestBody, timeout: Duration) -> Result<Reply> {
        let mut attempts = self.start_attempts(timeout)?;
        loop {
            let target = self.pick(Route::Any, &mut attempts)?;
            attempts.left = 1;
            let plan = AttemptPlan { body: &body, trace: attempts.trace, until: attempts.attempt_deadline() };
            match self.attempt(&target, class, &plan).await.map_err(|failed| attempts.with_most_specific(failed)) {
                Ok((reply, _)) => return Ok(reply),
                Err(failed) if failed.failure == Failure::NotSent => {
                    self.again(&mut attempts, &failed, Duration::ZERO).await?
                }
                Err(failed) if failed.failure == Failure::NoAnswer => return Err(Error::unknown_change(failed.error)),
                Err(failed) => return Err(failed.error),
            }
        }
    }

    /// Sends a request to every node, once, or with a pinned client to its node. Returns the replies, by the names of
    /// the nodes.
    ///
    /// # Errors
    /// As [`Engine::each`].
    pub(crate) async fn every(self: &Arc<Self>, body: &RequestBody, timeout: Duration) -> EachNode<Reply> {
        let attempts = self.start_attempts(timeout)?;
        let (trace, until) = (attempts.trace, attempts.attempt_deadline());
        let ask = move |engine: Arc<Self>, target: Target| {
            let body = body.clone();
            async move {
                let plan = AttemptPlan { body: &body, trace, until };
                let answered = engine.attempt(&target, Class::Request, &plan).await;
                answered.map(|(reply, _)| reply).map_err(|failed| failed.error)
            }
        };
        self.each(ask).await
    }

    /// Asks every node in the same way, all at once, or with a pinned client its node. Returns the answers, by the
    /// names of the nodes.
    ///
    /// # Errors
    /// None has answered; then the error of one of them, rather what a node has said than that it could not be asked.
    pub(crate) async fn each<T, F>(self: &Arc<Self>, ask: impl Fn(Arc<Self>, Target) -> F) -> EachNode<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for target in self.targets() {
            let (name, answer) = (target.name.clone(), ask(Arc::clone(self), target));
            asked.spawn(async move { (name, answer.await) });
        }
        let (mut answers, mut silent, mut failed) = (Vec::new(), Vec::new(), None::<Error>);
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((name, Ok(answer))) => answers.push((name, answer)),
                Ok((name, Err(error))) => {
                    silent.push((name, error.to_string()));
                    failed = failed.filter(|before| before.specificity() >= error.specificity()).or(Some(error));
                }
                Err(_) => {}
            }
        }
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        match failed {
            Some(error) if answers.is_empty() => Err(error),
            _ => Ok(FromNodes::new(answers, silent)),
        }
    }

    /// All nodes, or that of a pinned client.
    pub(crate) fn targets(&self) -> Vec<Target> {
        if self.pinned { vec![self.first_node.clone()] } else { self.routes().all() }
    }

    /// Sends a request to one node, once.
    pub(crate) async fn at(
        self: &Arc<Self>,
        target: &Target,
        (class, body): (Class, &RequestBody),
        timeout: Duration,
    ) -> Result<Reply> {
        let attempts = self.start_attempts(timeout)?;
        let plan = AttemptPlan { body, trace: attempts.trace, until: attempts.attempt_deadline() };
        let answered = self.attempt(target, class, &plan).await;
        answered.map(|(reply, _)| reply).map_err(|failed| failed.error)
    }

    /// Sends a write, and repeats it only as [`WriteAttempts`] allows.
    pub(crate) async fn write(self: &Arc<Self>, mut put: Put, timeout: Duration) -> Result<PutReply> {
        let mut attempts = self.start_attempts(timeout)?;
        let mut writes = WriteAttempts::default();
        let (bucket, key) = (put.bucket.clone(), put.key.clone());
        let route = Route::Key(&bucket, &key);
        let mut target = self.pick(route, &mut attempts)?;
        loop {
            let failed = match self.attempt_write(&target, &attempts, &mut put, &writes).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => attempts.with_most_specific(failed),
            };
            let next = writes.after(failed.failure, failed.sent, Instant::now(), attempts.pause(self.rng.jitter()));
            let unknown_outcome =
                |error: Error| if error.kind() == ErrorKind::Unknown { error } else { Error::unknown(error) };
            match next {
                Decision::GiveUp if writes.uncertain().is_some() => return Err(unknown_outcome(failed.error)),
                Decision::GiveUp => return Err(failed.error),
                Decision::SameNode(_, wait) => {
                    self.again(&mut attempts, &failed, wait).await.map_err(unknown_outcome)?
                }
                Decision::AnyNode(wait) => {
                    self.again(&mut attempts, &failed, wait).await?;
                    target = self.pick(route, &mut attempts)?;
                }
            }
        }
    }

    async fn attempt_write(
        self: &Arc<Self>,
        target: &Target,
        attempts: &Attempts,
        put: &mut Put,
        writes: &WriteAttempts,
    ) -> AttemptResult<PutReply> {
        let session = self.session(target, attempts.time_left()).await?;
        let place = self.place(&session, attempts.attempt_deadline()).await?;
        put.start = session.start();
        put.attempt = writes.number();
        if writes.uncertain().is_some_and(|sent| !sent.repeatable(Instant::now(), put.start)) {
            let error = Error::unknown("its node no longer remembers the first attempt, so that it was not repeated");
            return Err(FailedAttempt { failure: Failure::Forgotten, error, sent: None });
        }
        let request = self.request(attempts.trace, attempts.attempt_deadline(), RequestBody::Put(put.clone()));
        let (reply, sent) = self.exchange(target, &session, (Class::Request, &request), place).await?;
        match reply {
            Reply::Put(reply) if reply.outcome == PutOutcome::Stored => {
                // After more than one attempt the node must still recognise the write: an earlier attempt may arrive
                // late.
                let only = writes.number() == 0 && writes.uncertain().is_none();
                if let Some(receipts) = reply.receipt.filter(|_| only).and_then(|receipt| session.keep_receipt(receipt))
                {
                    session.send_unanswered(&self.request(
                        attempts.trace,
                        attempts.attempt_deadline(),
                        RequestBody::Settled(receipts),
                    ));
                }
                Ok(reply)
            }
            Reply::Put(reply) => {
                let error = Error::unknown("its quorum did not answer in time").quorum(reply.needed, reply.acked);
                let error = error.with_context(Context::from_wire(reply.context));
                Err(FailedAttempt { failure: Failure::OutcomeUnknown, error, sent: Some(sent) })
            }
            // The node sent some other reply to a write: it may have been written.
            _ => Err(FailedAttempt {
                failure: Failure::NoAnswer,
                error: unexpected(session.name.as_str()),
                sent: Some(sent),
            }),
        }
    }

    async fn attempt_hedged(
        self: &Arc<Self>,
        route: Route<'_>,
        attempts: &mut Attempts,
        target: &Target,
        plan: &AttemptPlan<'_>,
        hedge: Option<Duration>,
    ) -> AttemptResult<Reply> {
        let first = async { self.attempt(target, Class::Request, plan).await.map(|(reply, _)| reply) };
        let Some(after) = hedge else { return first.await };
        let mut first = std::pin::pin!(first);
        tokio::select! { biased;
            done = &mut first => return done,
            () = tokio::time::sleep(after) => {}
        }
        let other = self.pick(route, attempts).ok().filter(|other| other.id != target.id);
        let Some(other) = other.filter(|_| lock(&self.budget).take()) else { return first.await };
        let mut second =
            std::pin::pin!(async { self.attempt(&other, Class::Request, plan).await.map(|(reply, _)| reply) });
        tokio::select! { biased;
            done = &mut first => either(done, second).await,
            done = &mut second => either(done, first).await,
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        target: &Target,
        class: Class,
        plan: &AttemptPlan<'_>,
    ) -> AttemptResult<(Reply, SentAttempt)> {
        let session = self.session(target, plan.until.saturating_duration_since(Instant::now())).await?;
        let is_data = matches!(plan.body, RequestBody::Get(_) | RequestBody::Put(_));
        let place = if is_data { self.place(&session, plan.until).await? } else { None };
        // After connecting and waiting, so that their time is taken off the deadline that the node is told.
        let request = self.request(plan.trace, plan.until, plan.body.clone());
        self.exchange(target, &session, (class, &request), place).await
    }

    /// A place among the reads and writes under way at a node. Waits for one if the node has refused some of this
    /// client's. `None`: they are not counted.
    async fn place(&self, session: &Session, until: Instant) -> AttemptResult<Option<Place>> {
        if !self.backpressure {
            return Ok(None);
        }
        let place = session.window.enter(until).await.ok_or_else(|| {
            let why =
                format!("{} is overloaded, and others of this client wait for it; nothing was sent", session.name);
            not_sent(Error::new(ErrorKind::Overloaded, why))
        })?;
        Ok(Some(place))
    }

    async fn session(&self, target: &Target, limit: Duration) -> AttemptResult<Arc<Session>> {
        let (session, routes) = self.connections.session(target, limit).await.map_err(not_sent)?;
        if session.cluster != self.cluster {
            let error = format!("{} is a node of cluster {}, not of {}", session.name, session.cluster, self.cluster);
            return Err(not_sent(Error::new(ErrorKind::Untrusted, error)));
        }
        if let Some(routes) = routes {
            self.learn(routes);
        }
        Ok(session)
    }

    /// Sends one request on a session and waits for its reply. A read or write keeps its `place` meanwhile.
    async fn exchange(
        self: &Arc<Self>,
        target: &Target,
        session: &Arc<Session>,
        (class, request): (Class, &Request),
        place: Option<Place>,
    ) -> AttemptResult<(Reply, SentAttempt)> {
        let sent = SentAttempt {
            node: target.id,
            start: session.start(),
            since: Instant::now(),
            window: session.retry_window,
        };
        let answer = match place {
            Some(_) => session.call_patiently(class, request).await,
            None => session.call(class, request).await,
        };
        match answer {
            Ok(answer) => {
                self.connections.answered(target);
                self.catch_up(session, &answer).await;
                let start = answer.start;
                match answer.reply {
                    Reply::Error(reply) => {
                        let wait = Duration::from_millis(u64::from(reply.retry_after_ms));
                        // An unknown outcome belongs to the start id that the attempt was sent under, a refusal to the
                        // one that it was refused under.
                        let (failure, sent) = match (reply.code, place) {
                            (ErrorCode::Unknown, _) => (Failure::OutcomeUnknown, sent),
                            (ErrorCode::Overloaded, Some(place)) => {
                                place.refused(wait);
                                (Failure::Held(wait), SentAttempt { start, ..sent })
                            }
                            (code, _) => (Failure::Refused(code, wait), SentAttempt { start, ..sent }),
                        };
                        Err(FailedAttempt { failure, error: reply.into(), sent: Some(sent) })
                    }
                    reply => {
                        if let Some(place) = place {
                            place.done();
                        }
                        lock(&self.budget).succeeded();
                        Ok((reply, sent))
                    }
                }
            }
            Err(CallError::NotSent(error)) => Err(not_sent(error)),
            Err(CallError::Lost { why, silent }) => {
                self.connections.unanswered(target, session, silent);
                Err(FailedAttempt {
                    failure: Failure::NoAnswer,
                    error: Error::new(ErrorKind::TimedOut, why),
                    sent: Some(sent),
                })
            }
        }
    }

    /// Fetches the layout if the reply names a newer one than ours, and the addresses of nodes if one does not answer
    /// where it was. Only a request that was refused as stale waits for it.
    async fn catch_up(self: &Arc<Self>, session: &Arc<Session>, answer: &ReplyEnvelope) {
        if matches!(&answer.reply, Reply::Error(error) if error.code == ErrorCode::StaleLayout) {
            self.fetch_layout(session).await;
        } else if (answer.layout > self.routes().name() || self.connections.take_moved())
            && !self.learning.swap(true, Ordering::AcqRel)
        {
            let (engine, session) = (Arc::clone(self), Arc::clone(session));
            tokio::spawn(async move {
                engine.fetch_layout(&session).await;
                engine.learning.store(false, Ordering::Release);
            });
        }
    }

    async fn fetch_layout(&self, session: &Session) {
        let request = Request { deadline_ms: 1_000, trace: 0, layout: self.routes().name(), body: RequestBody::Layout };
        if let Ok(ReplyEnvelope { reply: Reply::Layout(routes), .. }) = session.call(Class::Request, &request).await {
            self.learn(routes);
        }
    }

    /// Adopts what is newer than ours: the layout, if it is valid, and addresses of nodes.
    fn learn(&self, routes: Routes) {
        let Some(told) = RoutingTable::new(routes, self.routes().tenant()) else {
            tracing::warn!("a node has sent an invalid layout; the earlier one stays in use");
            return;
        };
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = routes.joined(told) {
            let mut targets = new.all();
            targets.push(self.first_node.clone());
            self.connections.keep(&targets);
            *routes = Arc::new(new);
        }
    }

    fn start_attempts(&self, timeout: Duration) -> Result<Attempts> {
        let deadline = Instant::now() + time::bounded("a time-out", timeout)?;
        let attempts = self.attempts.max(1);
        let dials_left = self.routes().len() + usize::from(attempts);
        let trace = self.rng.next_u64().max(1);
        Ok(Attempts {
            deadline,
            trace,
            limit: attempts,
            left: attempts,
            dials_left,
            asked: Vec::new(),
            most_specific: None,
        })
    }

    fn pick(&self, route: Route<'_>, attempts: &mut Attempts) -> Result<Target> {
        let candidates = match route {
            _ if self.pinned => vec![self.first_node.clone()],
            Route::Key(bucket, key) => self.routes().candidates(bucket, key),
            Route::Any => {
                let mut all = self.routes().all();
                all.retain(|target| target.id != self.first_node.id);
                all.insert(0, self.first_node.clone());
                all
            }
        };
        let avoided = |target: &Target| self.connections.avoided(target);
        let nobody = || Error::new(ErrorKind::Unreachable, "the layout names no node to ask");
        let target = choose(&candidates, &attempts.asked, avoided).ok_or_else(nobody)?.clone();
        attempts.asked.push(target.id);
        Ok(target)
    }

    fn request(&self, trace: u64, until: Instant, body: RequestBody) -> Request {
        let left = until.saturating_duration_since(Instant::now());
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        Request { deadline_ms, trace, layout: self.routes().name(), body }
    }

    /// Waits before another attempt. Fails with the error of the last one if no attempt, budget or time is left.
    async fn again(&self, attempts: &mut Attempts, failed: &FailedAttempt, mut wait: Duration) -> Result<()> {
        let spent = match failed.failure {
            // Those that were refused together do not come back together. The owners take turns.
            Failure::Held(_) => {
                wait += wait.mul_f64(self.rng.jitter());
                drop(attempts.asked.drain(..attempts.asked.len().saturating_sub(1)));
                false
            }
            Failure::NotSent => {
                attempts.dials_left = attempts.dials_left.saturating_sub(1);
                attempts.dials_left == 0
            }
            _ => {
                attempts.left = attempts.left.saturating_sub(1);
                attempts.left == 0 || !lock(&self.budget).take()
            }
        };
        if spent || Instant::now() + wait >= attempts.deadline {
            return Err(failed.error.clone());
        }
        if matches!(failed.failure, Failure::Refused(ErrorCode::StaleLayout, _)) {
            attempts.asked.clear();
        }
        tracing::debug!(error = %failed.error, ?wait, "another attempt");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// The result that came first if it is a success; otherwise the second one, or the more specific of two failures.
async fn either<T>(first: AttemptResult<T>, second: impl Future<Output = AttemptResult<T>>) -> AttemptResult<T> {
    let Err(first) = first else { return first };
    second.await.map_err(|second| if second.error.specificity() < first.error.specificity() { first } else { second })
}

/// The node sent a reply of another kind than the request.
pub(crate) fn unexpected(node: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("{node} has answered what was not asked: is it of the same release as this client?"),
    )
}
