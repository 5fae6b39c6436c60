//! The laws of plugins that are pushed: they are checked before a plugin is stored, in a process that gives way to the
//! node (`rejoin_merge::LawQueue`). A check takes seconds to minutes, so a push is answered with how far it has come,
//! and sent again. The last reports are kept for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use rejoin_merge::{LawError, LawProgress, LawQueue, LawTest, ModuleLimits, PendingLaws, TenantShare};
use rejoin_proto::client::{LawState, MAX_LAW_REPORT_BYTES, Reply};
use rejoin_proto::{ErrorCode, ErrorReply, Name, PluginDigest, TenantId};

use crate::caller::Caller;
use crate::clock::Clock;
use crate::context::NodeContext;
use crate::lock::lock;
use crate::metering::FuelPayers;
use crate::plugin_table::share;

/// The most reports that are kept: those of the last checks.
const MAX_REPORTS: usize = 8;
/// What a check that exceeds a limit is charged for each microsecond, up to its limit of processor time: a unit of fuel
/// takes less than 4 ns.
const FUEL_OF_A_MICROSECOND: u64 = 250;
/// The longest that a question about a check waits for its end.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The checks of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LawChecks(Arc<Inner>);

struct Inner {
    /// `None`: plugins are stored unchecked.
    queue: Option<LawQueue>,
    /// The plugins that the release itself has been tested with.
    released: BTreeSet<PluginDigest>,
    table: Mutex<Table>,
    /// Notified when a check is over.
    over: Notify,
}

/// Of whom and of what a check is. Tenants do not see each other's.
type CheckKey = (TenantId, PluginDigest);

#[derive(Default)]
struct Table {
    checks: BTreeMap<CheckKey, Check>,
    /// How many checks were over so far.
    ended: u64,
}

enum Check {
    Running { progress: Option<LawProgress>, pending: Option<PendingLaws> },
    Over { verdict: Verdict, order: u64 },
}

/// What came of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The laws were checked: why the plugin is not stored, if it breaks one, and the report.
    Checked { broken: Option<String>, report: Bytes },
    /// They were not checked to their end.
    Failed(String),
}

impl Table {
    fn end(&mut self, key: CheckKey, verdict: Verdict) {
        self.ended += 1;
        self.checks.insert(key, Check::Over { verdict, order: self.ended });
        let oldest = self.ended.saturating_sub(MAX_REPORTS as u64);
        self.checks.retain(|_, check| !matches!(check, Check::Over { order, .. } if *order <= oldest));
    }
}

impl LawChecks {
    /// Checks with a queue, or with `None` not at all.
    pub(crate) fn new(queue: Option<LawQueue>, released: BTreeSet<PluginDigest>) -> Self {
        Self(Arc::new(Inner { queue, released, table: Mutex::default(), over: Notify::new() }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0.table)
    }

    /// Whether that plugin needs no check.
    fn is_released(&self, digest: &PluginDigest) -> bool {
        self.0.released.contains(digest)
    }

    /// Begins a check unless there is one, or its report is kept.
    ///
    /// # Errors
    /// Too many wait already.
    fn begin(
        &self,
        queue: &LawQueue,
        key: CheckKey,
        (whose, component, modules): (TenantShare, Bytes, ModuleLimits),
        (payers, clock): (FuelPayers, Clock),
    ) -> Result<(), LawError> {
        {
            let mut table = self.table();
            if table.checks.contains_key(&key) {
                return Ok(());
            }
            table.checks.insert(key, Check::Running { progress: None, pending: None });
        }
        let (watching, ending) = (self.clone(), self.clone());
        // When it began, or at the latest when it was first heard of.
        let (asked_us, heard) = (clock.now().mono_us, Arc::new(OnceLock::new()));
        let hear = heard.clone();
        let watch = move |now| {
            hear.get_or_init(|| clock.now().mono_us);
            watching.progress(&key, now);
        };
        let most_us = queue.cpu_seconds().saturating_mul(1_000_000);
        let done = move |result: Result<LawTest, LawError>| {
            let now_us = clock.now().mono_us;
            let used = match &result {
                Ok(test) => test.all_fuel,
                // A process that was ended does not tell what it has used.
                Err(LawError::TooCostly { .. }) => {
                    let took_us = now_us.saturating_sub(*heard.get_or_init(|| asked_us)).min(most_us);
                    took_us.saturating_mul(FUEL_OF_A_MICROSECOND)
                }
                Err(_) => 0,
            };
            payers.charge(used, now_us);
            ending.end(key, result);
        };
        match queue.check(whose, component, modules, watch, done) {
            Ok(started) => {
                // If it is over already, this is dropped, which has no effect then.
                if let Some(Check::Running { pending, .. }) = self.table().checks.get_mut(&key) {
                    *pending = Some(started);
                }
                Ok(())
            }
            Err(full) => {
                self.table().checks.remove(&key);
                Err(full)
            }
        }
    }

    fn progress(&self, key: &CheckKey, now: LawProgress) {
        if let Some(Check::Running { progress, .. }) = self.table().checks.get_mut(key) {
            *progress = Some(now);
        }
    }

    fn end(&self, key: CheckKey, result: Result<LawTest, LawError>) {
        let verdict = match result {
            Ok(test) => {
                let report = test.to_json(MAX_LAW_REPORT_BYTES).into();
                Verdict::Checked { broken: test.broken(), report }
            }
            Err(why) => Verdict::Failed(why.to_string()),
        };
        self.table().end(key, verdict);
        self.0.over.notify_waiters();
    }

    /// What is known of a check now. `None`: there is none. A failure is told once, so that a repetition tries again.
    fn look(&self, key: &CheckKey) -> Option<Result<Verdict, Option<LawProgress>>> {
        let mut table = self.table();
        let known = match table.checks.get(key)? {
            Check::Running { progress, .. } => Err(progress.clone()),
            Check::Over { verdict, .. } => Ok(verdict.clone()),
        };
        if let Ok(Verdict::Failed(_)) = known {
            table.checks.remove(key);
        }
        Some(known)
    }

    /// As [`Self::look`], and waits until then for the end.
    async fn wait(&self, key: &CheckKey, until: Instant) -> Option<Result<Verdict, Option<LawProgress>>> {
        loop {
            let over = self.0.over.notified();
            tokio::pin!(over);
            // Before looking, so that an end in between is not missed.
            over.as_mut().enable();
            match self.look(key)? {
                Err(progress) => {
                    if tokio::time::timeout_at(until, over).await.is_err() {
                        return Some(Err(progress));
                    }
                }
                over => return Some(over),
            }
        }
    }
}

/// Lets a plugin be stored whose laws hold. Returns whose token is to be named in its record, if they were not checked.
///
/// # Errors
/// The answer, if it is not to be stored, or not yet.
pub(crate) async fn admit(
    ctx: &Arc<NodeContext>,
    caller: &Caller,
    (digest, module, unchecked): (PluginDigest, &Bytes, bool),
    wait: Duration,
) -> Result<Option<Name>, Reply> {
    let checks = &ctx.plugins.0.engine.laws;
    let Some(queue) = checks.0.queue.as_ref().filter(|_| !unchecked) else {
        return Ok(Some(caller.principal.name.clone()));
    };
    if checks.is_released(&digest) {
        return Ok(None);
    }
    let (view, key) = (ctx.cluster_view(), (caller.tenant, digest));
    let payers = ctx.metering.begin_laws(&view, caller.tenant, ctx.clock.now().mono_us).map_err(Reply::Error)?;
    let what = (share(&view, caller.tenant), module.clone(), ctx.plugins.0.engine.limits);
    let begun = checks.begin(queue, key, what, (payers, ctx.clock));
    begun.map_err(|why| Reply::Error(ErrorReply::new(ErrorCode::Overloaded, why.to_string())))?;
    match checks.wait(&key, Instant::now() + wait / 2).await {
        Some(Ok(Verdict::Checked { broken: None, .. })) => Ok(None),
        known => Err(answer(digest, known)),
    }
}

/// How far the laws of a plugin are checked that was pushed here.
pub(crate) async fn progress(ctx: &NodeContext, tenant: TenantId, digest: PluginDigest, wait: Duration) -> Reply {
    let until = Instant::now() + (wait / 2).min(LONGEST_WAIT);
    answer(digest, ctx.plugins.0.engine.laws.wait(&(tenant, digest), until).await)
}

fn answer(digest: PluginDigest, known: Option<Result<Verdict, Option<LawProgress>>>) -> Reply {
    let state = match known {
        Some(Err(None)) => LawState::Waiting,
        Some(Err(Some(LawProgress { law, case, cases }))) => LawState::Checking { law, case, cases },
        Some(Ok(Verdict::Checked { broken, report })) => LawState::Checked { broken, report },
        Some(Ok(Verdict::Failed(why))) => {
            return Reply::Error(ErrorReply::new(ErrorCode::PluginRejected, why));
        }
        None => {
            let message = format!("this node has no report on the laws of plugin {digest}: push it again");
            return Reply::Error(ErrorReply::new(ErrorCode::NotFound, message));
        }
    };
    Reply::Laws { digest, state }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_merge::LawRunner;

    fn key(number: u8) -> CheckKey {
        (TenantId(1), PluginDigest([number; 32]))
    }

    fn held() -> Verdict {
        Verdict::Checked { broken: None, report: Bytes::from_static(b"{}") }
    }

    #[test]
    fn the_reports_that_are_kept_are_bounded() {
        let mut table = Table::default();
        (0..100).for_each(|number| table.end(key(number), held()));
        assert_eq!(table.checks.len(), MAX_REPORTS);
        assert!(table.checks.contains_key(&key(99)) && !table.checks.contains_key(&key(0)));
    }

    #[tokio::test]
    async fn a_check_that_failed_is_told_once_and_tried_again() {
        let queue = LawQueue::inline(LawRunner::InProcess);
        let checks = LawChecks::new(Some(queue.clone()), BTreeSet::new());
        let begin = || {
            let what = (TenantShare::default(), Bytes::from_static(b"no component"), ModuleLimits::default());
            checks.begin(&queue, key(1), what, (FuelPayers::default(), Clock::system()))
        };
        assert!(checks.wait(&key(1), Instant::now()).await.is_none(), "nothing was begun");
        for _ in 0..2 {
            begin().expect("there is room");
            let told = checks.wait(&key(1), Instant::now()).await;
            assert!(matches!(&told, Some(Ok(Verdict::Failed(why))) if why.contains("no WebAssembly")), "{told:?}");
        }
        assert!(checks.look(&key(1)).is_none() && checks.look(&key(2)).is_none());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_end() {
        let checks = LawChecks::new(None, BTreeSet::from([key(3).1]));
        assert!(checks.is_released(&key(3).1) && !checks.is_released(&key(4).1));
        checks.table().checks.insert(key(1), Check::Running { progress: None, pending: None });
        checks.progress(&key(1), LawProgress { law: "growth".into(), case: 7, cases: 9 });
        let now = checks.wait(&key(1), Instant::now()).await;
        assert!(matches!(&now, Some(Err(Some(at))) if at.case == 7), "{now:?}");
        let waiting = checks.clone();
        let waiter = tokio::spawn(async move { waiting.wait(&key(1), Instant::now() + Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        checks.end(key(1), Err(LawError::Rejected("bad".into())));
        assert_eq!(waiter.await.expect("it ended"), Some(Ok(Verdict::Failed("bad".into()))));
    }
}
