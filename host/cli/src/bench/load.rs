//! The load: concurrent clients, each with at most one pending operation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::JoinSet;

use super::args::{Mode, Plan};
use super::cluster::Writer;
use super::etcd::Etcd;
use super::record::{Kind, NEVER_BEGUN, Outcome, Recorder};
use super::redis::Redis;
use super::schedule::Schedule;
use crate::failure::{Exit, Failure};

/// One client of the measured system.
pub(crate) enum LoadClient {
    Rejoin(Writer),
    Redis(Redis, u32),
    Etcd(Etcd, u32),
}

impl LoadClient {
    async fn fill(&mut self, plan: &Plan) -> Result<(), Failure> {
        match self {
            Self::Rejoin(writer) => Ok(writer.fill(plan).await?),
            Self::Redis(redis, number) => {
                redis.fill(plan, *number).await.map_err(|why| Failure::new(Exit::Unreachable, format!("Redis: {why}")))
            }
            Self::Etcd(etcd, number) => {
                etcd.fill(plan, *number).await.map_err(|why| Failure::new(Exit::Unreachable, format!("etcd: {why}")))
            }
        }
    }

    async fn operate(&mut self, plan: &Plan) -> (Kind, Outcome) {
        let kind = match plan.mode {
            Mode::Put => Kind::Write,
            Mode::Get => Kind::Read,
            Mode::Mixed | Mode::Conflict if rand::random_range(0..100) < plan.reads => Kind::Read,
            Mode::Mixed | Mode::Conflict => Kind::Write,
        };
        let outcome = match self {
            Self::Rejoin(writer) => writer.operate(plan, kind).await,
            Self::Redis(redis, _) => redis.operate(plan, kind).await,
            Self::Etcd(etcd, _) => etcd.operate(plan, kind).await,
        };
        (kind, outcome)
    }
}

/// Lets every client write its keys, before the measurement.
///
/// # Errors
/// The first failure of a client.
pub(crate) async fn fill(plan: &Arc<Plan>, clients: Vec<LoadClient>) -> Result<Vec<LoadClient>, Failure> {
    let mut filling = JoinSet::new();
    for mut client in clients {
        let plan = plan.clone();
        filling.spawn(async move { client.fill(&plan).await.map(|()| client) });
    }
    let filled = filling.join_all().await.into_iter().collect::<Result<Vec<_>, _>>();
    filled.map_err(|failure| failure.during("the keys could not be written"))
}

/// A running load.
pub(crate) struct Load {
    clients: JoinSet<()>,
    recorder: Arc<Mutex<Recorder>>,
}

impl Load {
    /// Starts all clients, which report to that recorder.
    pub(crate) fn start(
        plan: &Arc<Plan>,
        schedule: &Arc<Schedule>,
        clients: Vec<LoadClient>,
        recorder: Recorder,
    ) -> Self {
        let recorder = Arc::new(Mutex::new(recorder));
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(run(plan.clone(), schedule.clone(), recorder.clone(), client));
        }
        Self { clients: running, recorder }
    }

    /// Waits until all clients have ended. Returns the recorder and the time of the end.
    pub(crate) async fn ended(self) -> (Recorder, Instant) {
        let began = lock(&self.recorder).began();
        self.clients.join_all().await;
        let ended = Instant::now();
        (std::mem::replace(&mut *lock(&self.recorder), Recorder::new(began)), ended)
    }
}

async fn run(plan: Arc<Plan>, schedule: Arc<Schedule>, recorder: Arc<Mutex<Recorder>>, mut client: LoadClient) {
    while let Some(due) = schedule.next().await {
        let begun = Instant::now();
        let sent = !schedule.is_too_late(due, begun);
        let (kind, outcome) =
            if sent { client.operate(&plan).await } else { (Kind::Write, Outcome::Failed(NEVER_BEGUN.into())) };
        if schedule.counts(due) {
            let mut recorder = lock(&recorder);
            recorder.add(kind, due, Instant::now(), outcome);
            if sent && plan.rate.is_some() {
                recorder.begun(begun.saturating_duration_since(due));
            }
        }
    }
}

/// Locks, also after a panic of another holder: a recorder is consistent between any two operations.
fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}
