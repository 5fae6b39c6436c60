//! The laws of plugins that are pushed: they are checked before a plugin is stored, in a process that gives way to the
//! node (`rejoin_merge::LawQueue`). A check takes seconds to minutes, so a push is answered with how far it has come,
//! and sent again. The last reports are kept for that.
//!
//! A push may ask for more than the values of the plugin's own sampler: for what its operations mean, for values that
//! it brings along, and for siblings of a bucket (`law_siblings`). A report on values may show them, so only whoever
//! has asked is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use rejoin_merge::{
    IntentFile, LawError, LawInputs, LawProgress, LawQueue, LawTest, ModuleLimits, PendingLaws, TenantShare,
};
use rejoin_proto::access::Scope;
use rejoin_proto::client::{LawState, MAX_INTENT_BYTES, MAX_LAW_REPORT_BYTES, PushChecks, Reply};
use rejoin_proto::{ErrorCode, ErrorReply, Name, PluginDigest, TenantId};

use crate::caller::Caller;
use crate::clock::Clock;
use crate::context::NodeContext;
use crate::law_siblings;
use crate::lock::lock;
use crate::metering::FuelPayers;
use crate::plugin_table::share;
use crate::sessions::TokenKey;

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

/// A caller: a token, or with `true` a certificate, and its scope, since a later one of that name may have another.
type Who = (TokenKey, bool, Scope);

/// What a push wants to be checked, beside the component.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Asked {
    /// Without the fixtures, which are not kept as long as this is.
    checks: PushChecks,
    /// The hash of the fixtures, if there are any.
    fixtures: Option<[u8; 32]>,
    /// Who has asked, if the report may show fixtures, or siblings of a bucket.
    by: Option<Who>,
}

impl Asked {
    fn new(mut checks: PushChecks, by: Who) -> Self {
        let fixtures = fixtures_hash(&std::mem::take(&mut checks.fixtures));
        let by = (checks.siblings_of.is_some() || fixtures.is_some()).then_some(by);
        Self { checks, fixtures, by }
    }
}

/// The hash of fixtures in their order. `None`: there are none.
fn fixtures_hash(fixtures: &[Bytes]) -> Option<[u8; 32]> {
    if fixtures.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for value in fixtures {
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value);
    }
    Some(*hasher.finalize().as_bytes())
}

/// For whom a check is looked at.
#[derive(Clone, Copy)]
enum Looking<'a> {
    /// A push that has asked for that: what is known of another one is none of it.
    Push(&'a Asked),
    /// A client that may be told of what it has asked for, and of what shows no siblings.
    Client(&'a Who),
}

impl Looking<'_> {
    fn may_see(self, asked: &Asked) -> bool {
        match self {
            Self::Push(of) => of == asked,
            Self::Client(client) => asked.by.as_ref().is_none_or(|by| by == client),
        }
    }
}

/// Who a caller is, for [`Asked::by`].
fn who(caller: &Caller) -> Who {
    (caller.token_key(), caller.is_certified(), caller.principal.grant.scope)
}

#[derive(Default)]
struct Table {
    checks: BTreeMap<CheckKey, Asking>,
    /// How many checks were over so far.
    ended: u64,
}

/// A check, and what it is of.
struct Asking {
    asked: Asked,
    /// Whether a push was answered with its end. The bucket may have other siblings by the next push.
    told: bool,
    check: Check,
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
    /// Whether a check has to begin: there is none of that, its report is not kept, or it was on siblings of a bucket
    /// and has been told.
    ///
    /// # Errors
    /// The component is being checked on something else.
    fn is_due(&self, key: &CheckKey, asked: &Asked) -> Result<bool, LawError> {
        let Some(known) = self.checks.get(key) else { return Ok(true) };
        match &known.check {
            _ if known.asked == *asked => Ok(known.told && asked.checks.siblings_of.is_some()),
            Check::Over { .. } => Ok(true),
            Check::Running { .. } => {
                let reason =
                    "another push of this component, with another intent, other fixtures or siblings, is being checked";
                Err(LawError::NotTried { reason: reason.into() })
            }
        }
    }

    fn end(&mut self, key: CheckKey, verdict: Verdict) {
        // Another one may have taken its place.
        let Some(asking) = self.checks.get_mut(&key) else { return };
        self.ended += 1;
        asking.check = Check::Over { verdict, order: self.ended };
        let oldest = self.ended.saturating_sub(MAX_REPORTS as u64);
        self.checks.retain(|_, asking| !matches!(asking.check, Check::Over { order, .. } if order <= oldest));
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

    /// Begins a check if it is due.
    ///
    /// # Errors
    /// Too many wait already, or the component is being checked on something else.
    fn begin(
        &self,
        queue: &LawQueue,
        (key, asked): (CheckKey, Asked),
        (whose, component, modules): (TenantShare, (Bytes, LawInputs), ModuleLimits),
        (payers, clock): (FuelPayers, Clock),
    ) -> Result<(), LawError> {
        {
            let mut table = self.table();
            if !table.is_due(&key, &asked)? {
                return Ok(());
            }
            let check = Check::Running { progress: None, pending: None };
            table.checks.insert(key, Asking { asked, told: false, check });
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
                if let Some(Asking { check: Check::Running { pending, .. }, .. }) = self.table().checks.get_mut(&key) {
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
        if let Some(Asking { check: Check::Running { progress, .. }, .. }) = self.table().checks.get_mut(key) {
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

    /// What is known of a check now. `None`: there is none to be seen. A failure is told once, so that a repetition
    /// tries again.
    fn look(&self, key: &CheckKey, who: Looking<'_>) -> Option<Result<Verdict, Option<LawProgress>>> {
        let mut table = self.table();
        let asking = table.checks.get_mut(key).filter(|known| who.may_see(&known.asked))?;
        let known = match &asking.check {
            Check::Running { progress, .. } => Err(progress.clone()),
            Check::Over { verdict, .. } => Ok(verdict.clone()),
        };
        // Under the same lock: once it is released, another check may have the place of this one.
        asking.told |= known.is_ok() && matches!(who, Looking::Push(_));
        if let Ok(Verdict::Failed(_)) = known {
            table.checks.remove(key);
        }
        Some(known)
    }

    /// As [`Self::look`], and waits until then for the end.
    async fn wait(
        &self,
        key: &CheckKey,
        who: Looking<'_>,
        until: Instant,
    ) -> Option<Result<Verdict, Option<LawProgress>>> {
        loop {
            let over = self.0.over.notified();
            tokio::pin!(over);
            // Before looking, so that an end in between is not missed.
            over.as_mut().enable();
            match self.look(key, who)? {
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
    (digest, module, checks): (PluginDigest, &Bytes, Option<PushChecks>),
    wait: Duration,
) -> Result<Option<Name>, Reply> {
    let laws = &ctx.plugins.0.engine.laws;
    let queue = match laws.0.queue.as_ref() {
        None if checks.as_ref().is_some_and(|checks| !checks.is_empty()) => {
            let what = "this node checks no laws (`check_laws` is false), so it cannot check the plugin on an intent, \
                on fixtures or on siblings: push it without them";
            return Err(Reply::Error(ErrorReply::new(ErrorCode::BadRequest, what)));
        }
        queue => queue,
    };
    let (Some(queue), Some(checks)) = (queue, checks) else {
        return Ok(Some(caller.principal.name.clone()));
    };
    if checks.is_empty() && laws.is_released(&digest) {
        return Ok(None);
    }
    // Clones share the bytes.
    let (fixtures, by) = (checks.fixtures.clone(), who(caller));
    let asked = match checks.fixtures.is_empty() {
        true => Asked::new(checks, by),
        // Not on a loop: there may be a few MiB to hash.
        false => ctx.aside.run(move || Asked::new(checks, by)).await,
    };
    let key = (caller.tenant, digest);
    let overloaded = |why: LawError| Reply::Error(ErrorReply::new(ErrorCode::Overloaded, why.to_string()));
    let is_due = laws.table().is_due(&key, &asked);
    if is_due.map_err(overloaded)? {
        let view = ctx.cluster_view();
        // Before siblings are looked for: who owes too much is not served.
        let payers = ctx.metering.begin_laws(&view, caller.tenant, ctx.clock.now().mono_us).map_err(Reply::Error)?;
        let inputs = inputs(ctx, caller, &asked.checks, Instant::now() + wait / 4).await.map_err(Reply::Error)?;
        let inputs = LawInputs { fixtures, ..inputs };
        let what = (share(&view, caller.tenant), (module.clone(), inputs), ctx.plugins.0.engine.limits);
        laws.begin(queue, (key, asked.clone()), what, (payers, ctx.clock)).map_err(overloaded)?;
    }
    match laws.wait(&key, Looking::Push(&asked), Instant::now() + wait / 2).await {
        Some(Ok(Verdict::Checked { broken: None, .. })) => Ok(None),
        known => Err(answer(digest, known)),
    }
}

/// Refuses more fixtures, or more bytes of them, than that.
pub(crate) fn check_fixtures(checks: &PushChecks, (most, most_bytes): (usize, usize)) -> Result<(), ErrorReply> {
    let (count, bytes) = (checks.fixtures.len(), checks.fixture_bytes());
    if count <= most && bytes <= most_bytes {
        return Ok(());
    }
    let what = format!(
        "{count} fixtures of {bytes} bytes were sent, and this node takes {most} of {most_bytes} bytes \
         (`law_fixtures`, `law_fixture_bytes` of its node.toml): push with fewer, and check the others with `rejoin \
         plugin test --fixture`"
    );
    Err(ErrorReply::new(ErrorCode::TooLarge, what))
}

/// What a push is checked on beside the plugin's own values and its fixtures. Siblings are looked for until then.
///
/// # Errors
/// The intent is none, or there is no such bucket.
async fn inputs(
    ctx: &NodeContext,
    caller: &Caller,
    checks: &PushChecks,
    until: Instant,
) -> Result<LawInputs, ErrorReply> {
    if let Some(intent) = &checks.intent {
        if intent.len() > MAX_INTENT_BYTES {
            let what = format!("the intent has {} bytes, and {MAX_INTENT_BYTES} are allowed", intent.len());
            return Err(ErrorReply::new(ErrorCode::TooLarge, what));
        }
        IntentFile::parse(intent).map_err(|why| ErrorReply::new(ErrorCode::BadRequest, why.to_string()))?;
    }
    let of_bucket = match &checks.siblings_of {
        Some(bucket) => law_siblings::sample(ctx, caller, bucket, until).await?,
        None => LawInputs::default(),
    };
    Ok(LawInputs { intent: checks.intent.clone(), ..of_bucket })
}

/// How far the laws of a plugin are checked that was pushed here.
pub(crate) async fn progress(ctx: &NodeContext, caller: &Caller, digest: PluginDigest, wait: Duration) -> Reply {
    let (until, client) = (Instant::now() + (wait / 2).min(LONGEST_WAIT), who(caller));
    let laws = &ctx.plugins.0.engine.laws;
    answer(digest, laws.wait(&(caller.tenant, digest), Looking::Client(&client), until).await)
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

    static PLAIN: Asked = Asked {
        checks: PushChecks { intent: None, siblings_of: None, fixtures: Vec::new() },
        fixtures: None,
        by: None,
    };

    /// Looks as a push that has asked for nothing more.
    fn plainly() -> Looking<'static> {
        Looking::Push(&PLAIN)
    }

    fn key(number: u8) -> CheckKey {
        (TenantId(1), PluginDigest([number; 32]))
    }

    fn held() -> Verdict {
        Verdict::Checked { broken: None, report: Bytes::from_static(b"{}") }
    }

    fn running() -> Asking {
        Asking { asked: Asked::default(), told: false, check: Check::Running { progress: None, pending: None } }
    }

    fn token(name: &str) -> Who {
        ((TenantId(1), Name::new(name).expect("a name")), false, Scope::TenantAdmin)
    }

    #[test]
    fn the_reports_that_are_kept_are_bounded() {
        let mut table = Table::default();
        for number in 0..100 {
            table.checks.insert(key(number), running());
            table.end(key(number), held());
        }
        assert_eq!(table.checks.len(), MAX_REPORTS);
        assert!(table.checks.contains_key(&key(99)) && !table.checks.contains_key(&key(0)));
    }

    #[tokio::test]
    async fn a_check_that_failed_is_told_once_and_tried_again() {
        let queue = LawQueue::inline(LawRunner::InProcess);
        let checks = LawChecks::new(Some(queue.clone()), BTreeSet::new());
        let begin = || {
            let component = (Bytes::from_static(b"no component"), LawInputs::default());
            let what = (TenantShare::default(), component, ModuleLimits::default());
            checks.begin(&queue, (key(1), Asked::default()), what, (FuelPayers::default(), Clock::system()))
        };
        assert!(checks.wait(&key(1), plainly(), Instant::now()).await.is_none(), "nothing was begun");
        for _ in 0..2 {
            begin().expect("there is room");
            let told = checks.wait(&key(1), plainly(), Instant::now()).await;
            assert!(matches!(&told, Some(Ok(Verdict::Failed(why))) if why.contains("no WebAssembly")), "{told:?}");
        }
        assert!(checks.look(&key(1), plainly()).is_none() && checks.look(&key(2), plainly()).is_none());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_end() {
        let checks = LawChecks::new(None, BTreeSet::from([key(3).1]));
        assert!(checks.is_released(&key(3).1) && !checks.is_released(&key(4).1));
        checks.table().checks.insert(key(1), running());
        checks.progress(&key(1), LawProgress { law: "growth".into(), case: 7, cases: 9 });
        let now = checks.wait(&key(1), plainly(), Instant::now()).await;
        assert!(matches!(&now, Some(Err(Some(at))) if at.case == 7), "{now:?}");
        let waiting = checks.clone();
        let waiter = tokio::spawn(async move {
            let until = Instant::now() + Duration::from_secs(60);
            waiting.wait(&key(1), plainly(), until).await
        });
        tokio::task::yield_now().await;
        checks.end(key(1), Err(LawError::Rejected("bad".into())));
        assert_eq!(waiter.await.expect("it ended"), Some(Ok(Verdict::Failed("bad".into()))));
    }

    #[test]
    fn siblings_of_a_bucket_are_checked_anew_and_told_to_nobody_else() {
        let checks = LawChecks::new(None, BTreeSet::new());
        let of = |intent: Option<&'static [u8]>, bucket: Option<&str>| {
            let siblings_of = bucket.map(|bucket| Name::new(bucket).expect("a name"));
            let intent = intent.map(Bytes::from_static);
            Asked::new(PushChecks { intent, siblings_of, ..PushChecks::default() }, token("ann"))
        };
        let is_due = |asked: &Asked| checks.table().is_due(&key(1), asked);
        let (plain, intent, siblings) = (of(None, None), of(Some(b"{}"), None), of(None, Some("carts")));
        assert_eq!(is_due(&plain), Ok(true), "there is none");
        let insert = |asked: &Asked| {
            checks.table().checks.insert(key(1), Asking { asked: asked.clone(), ..running() });
        };
        insert(&plain);
        assert_eq!(is_due(&plain), Ok(false), "it runs");
        let busy = is_due(&siblings).expect_err("it runs on something else").to_string();
        assert!(busy.contains("another push of this component") && busy.contains("Push it again"), "{busy}");
        checks.table().end(key(1), held());
        assert!(checks.look(&key(1), Looking::Push(&plain)).is_some());
        assert_eq!((is_due(&plain), is_due(&intent), is_due(&siblings)), (Ok(false), Ok(true), Ok(true)));
        let sees = |client: Who| checks.look(&key(1), Looking::Client(&client)).is_some();
        assert!(sees(token("bob")), "it is of no bucket");
        assert!(checks.look(&key(1), Looking::Push(&intent)).is_none(), "it is not what that push has asked for");

        insert(&siblings);
        assert_eq!(checks.look(&key(1), Looking::Push(&siblings)), Some(Err(None)), "that it runs is not its end");
        checks.table().end(key(1), held());
        assert!(sees(token("ann")) && !sees(token("bob")));
        let ann = token("ann").0;
        assert!(!sees((ann.clone(), true, Scope::TenantAdmin)), "a certificate of that name is somebody else");
        assert!(!sees((ann, false, Scope::PluginAuthor)), "and so is a later token that may not read the bucket");
        assert!(checks.look(&key(1), Looking::Push(&plain)).is_none());
        assert_eq!(is_due(&siblings), Ok(false), "the push that has asked is not told yet");
        assert_eq!(checks.look(&key(1), Looking::Push(&siblings)), Some(Ok(held())));
        assert_eq!(is_due(&siblings), Ok(true), "the bucket may have others by now");
    }

    fn with_fixtures(fixtures: &[&'static [u8]]) -> PushChecks {
        let fixtures = fixtures.iter().copied().map(Bytes::from_static).collect();
        PushChecks { fixtures, ..PushChecks::default() }
    }

    #[test]
    fn fixtures_are_told_to_who_has_sent_them_and_others_are_another_check() {
        let checks = LawChecks::new(None, BTreeSet::new());
        let of = |fixtures: &[&'static [u8]]| Asked::new(with_fixtures(fixtures), token("ann"));
        let one = of(&[b"12", b"3"]);
        assert!(one.checks.fixtures.is_empty(), "they are not kept");
        for other in [of(&[b"1", b"23"]), of(&[b"3", b"12"]), of(&[b"12"]), of(&[])] {
            assert_ne!(one, other);
        }
        checks.table().checks.insert(key(1), Asking { asked: one.clone(), ..running() });
        checks.table().end(key(1), held());
        let sees = |client: Who| checks.look(&key(1), Looking::Client(&client)).is_some();
        assert!(sees(token("ann")) && !sees(token("bob")), "the report may show them");
        assert_eq!(checks.look(&key(1), Looking::Push(&one)), Some(Ok(held())));
        let is_due = |asked: &Asked| checks.table().is_due(&key(1), asked);
        assert_eq!((is_due(&one), is_due(&of(&[b"12"]))), (Ok(false), Ok(true)), "the same ones need no other check");
    }

    #[test]
    fn fixtures_are_bounded_in_number_and_bytes() {
        let checks = with_fixtures(&[b"one", b"two", b""]);
        assert_eq!(check_fixtures(&checks, (3, 6)), Ok(()));
        for bounds in [(2, 6), (3, 5)] {
            let refused = check_fixtures(&checks, bounds).expect_err("there are more");
            let says = refused.message.contains("3 fixtures of 6 bytes") && refused.message.contains("`law_fixtures`");
            assert!(refused.code == ErrorCode::TooLarge && says, "{refused}");
        }
        assert_eq!(check_fixtures(&PushChecks::default(), (0, 0)), Ok(()), "without any, none are refused");
    }
}
