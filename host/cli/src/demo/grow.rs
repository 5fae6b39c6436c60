//! The steps of the demo: three nodes under load become five in three zones, then one of the first is removed. Every
//! acknowledged write is found afterwards, and no request has failed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rejoin_client::admin::{Admin, BucketProps, LayoutChanges, LayoutStatus, LayoutStep, Name, NodeChange};
use rejoin_client::{Bucket, Bytes, Client, Profile};

use crate::demo::printer::Printer;
use crate::dev::wait_connected;
use crate::failure::{Exit, Failure};
use crate::local_cluster::LocalNode;
use crate::processes::Processes;
use crate::progress::Progress;

const BUCKET: &str = "notes";
/// The nodes of the beginning. Those behind them join.
pub(super) const FOUNDERS: usize = 3;
/// Keys that are there before anything changes.
const KEYS: usize = 2000;
/// Requests under way at once.
const AT_ONCE: usize = 64;
/// Tasks that write and read all the time.
const WRITERS: u64 = 4;
/// The pause of such a task between two requests: the demo shows a change, not the machine's limit.
const BREATH: Duration = Duration::from_millis(2);
const TIMEOUT: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// The demo.
pub(super) struct GrowDemo<'a> {
    processes: &'a mut Processes,
    printer: Printer,
    nodes: Vec<LocalNode>,
    load: Arc<Load>,
    tasks: JoinSet<()>,
}

/// Writes new keys and reads old ones, until it is told to stop.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    done: AtomicU64,
    written: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
}

impl GrowDemo<'_> {
    /// Runs all steps.
    ///
    /// # Errors
    /// The first claim that does not hold, or a failure of the cluster.
    pub(super) async fn run(processes: &mut Processes, printer: Printer) -> Result<(), Failure> {
        let mut grow = GrowDemo::begin(processes, printer).await?;
        grow.join().await?;
        grow.spread().await?;
        grow.retire().await?;
        grow.check().await
    }

    async fn begin(processes: &mut Processes, printer: Printer) -> Result<GrowDemo<'_>, Failure> {
        printer.chapter("A cluster of three, in one zone, under load")?;
        let nodes = processes.cluster.nodes().to_vec();
        for node in &nodes[..FOUNDERS] {
            let id = processes.start_one(*node)?;
            printer.line(&format!("{} is process {id}, on {}", node.name(), node.address))?;
        }
        let founders = processes.cluster.founders();
        let client = tokio::select! {
            biased;
            client = wait_connected(&founders) => client?,
            ended = processes.one_has_ended() => return Err(ended),
        };
        client.admin().create_bucket(BUCKET, BucketProps::default()).await?;
        let load = Arc::new(Load::default());
        let mut grow = GrowDemo { processes, printer, nodes, load, tasks: JoinSet::new() };
        let bucket: Bucket<Bytes> = client.bucket(BUCKET)?;
        let keys: Vec<String> = (0..KEYS).map(|number| format!("note-{number:04}")).collect();
        for keys in keys.chunks(AT_ONCE) {
            let mut writes = JoinSet::new();
            for key in keys {
                let write = bucket.put(key, value(key)).create();
                writes.spawn(async move { write.await });
            }
            for written in writes.join_all().await {
                written?;
            }
        }
        lock(&grow.load.written).extend(keys);
        for writer in 0..WRITERS {
            let (bucket, load) = (bucket.clone(), grow.load.clone());
            grow.tasks.spawn(async move { load.run(writer, bucket).await });
        }
        grow.printer.line(&format!("{KEYS} keys with 3 copies each; {WRITERS} clients go on writing and reading"))?;
        Ok(grow)
    }

    async fn join(&mut self) -> Result<(), Failure> {
        self.printer.chapter("Two nodes join")?;
        for at in FOUNDERS..self.nodes.len() {
            let node = self.nodes[at];
            let id = self.processes.start_one(node)?;
            self.printer.line(&format!("{} is process {id}, and knows only the address of n1", node.name()))?;
        }
        let admin = self.admin(1).await?;
        let unassigned = |status: &LayoutStatus| {
            let is =
                |name: &str| status.nodes.iter().any(|of| of.up && of.member.is_none() && of.name.as_str() == name);
            is("n4") && is("n5")
        };
        self.wait("n4 and n5 are not met", async || Ok(unassigned(&admin.layout().await?))).await?;
        self.printer.claim(true, "both are shown as unassigned, and own nothing yet", "")
    }

    async fn spread(&mut self) -> Result<(), Failure> {
        self.printer.chapter("Five nodes in three zones")?;
        let zones = [("n1", "a"), ("n4", "a"), ("n2", "b"), ("n5", "b"), ("n3", "c")];
        let nodes =
            zones.map(|(node, zone)| NodeChange::Assign { node: name(node), zone: Some(name(zone)), capacity: None });
        self.change(nodes.to_vec()).await?;
        let status = self.admin(1).await?.layout().await?;
        let shares: Vec<u32> = status.nodes.iter().filter_map(|node| Some(node.member.as_ref()?.owner_of)).collect();
        let own = |name: &str| {
            let of = status.nodes.iter().find(|node| node.name.as_str() == name);
            of.and_then(|node| Some(node.member.as_ref()?.owner_of)).unwrap_or_default()
        };
        let partitions = status.partitions;
        self.printer.claim(
            own("n3") == partitions && own("n4") + own("n1") == partitions && own("n5") + own("n2") == partitions,
            "each zone has one copy of every partition",
            &format!("{shares:?} of {partitions}"),
        )
    }

    async fn retire(&mut self) -> Result<(), Failure> {
        self.printer.chapter("n1 is retired")?;
        self.change(vec![NodeChange::Remove(name("n1"))]).await?;
        let admin = self.admin(0).await?;
        let mut progress = Progress::new("n1 hands over what it has left");
        let (began, mut most) = (Instant::now(), 0);
        loop {
            let holdings = u64::from(admin.exchange().await?.holdings);
            most = most.max(holdings);
            progress.set(most - holdings, most);
            if holdings == 0 {
                break;
            }
            if began.elapsed() >= TIMEOUT {
                return Err(Failure::new(Exit::Retry, format!("n1 still holds objects of {holdings} partitions")));
            }
            tokio::time::sleep(PAUSE).await;
        }
        drop(progress);
        self.printer
            .line(&format!("after {:.1} s it has nothing left that others lack", began.elapsed().as_secs_f64()))?;
        self.processes.stop(self.nodes[0]).await?;
        self.printer.line("and its process is stopped")
    }

    async fn check(&mut self) -> Result<(), Failure> {
        self.printer.chapter("What the clients have seen")?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.load.over.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let done = self.load.done.load(Ordering::Relaxed);
        let failures = lock(&self.load.failures).clone();
        let claim = format!("{done} requests went on all the time, and none has failed");
        let seen = format!("{} failures, such as: {}", failures.len(), failures.first().map_or("", String::as_str));
        self.printer.claim(failures.is_empty(), &claim, &seen)?;
        let keys = lock(&self.load.written).clone();
        let bucket: Bucket<Bytes> = self.client(3).await?.bucket(BUCKET)?;
        let mut found = 0;
        for keys in keys.chunks(AT_ONCE) {
            let mut reads = JoinSet::new();
            for key in keys {
                let (read, expected) = (bucket.get(key), value(key));
                reads.spawn(async move { read.await.map(|read| read.value == Some(expected)) });
            }
            for read in reads.join_all().await {
                found += usize::from(read?);
            }
        }
        let claim = format!("each of the {} acknowledged writes is there", keys.len());
        self.printer.claim(found == keys.len(), &claim, &format!("{found}"))
    }

    /// Stages changes, applies their plan, and waits until it is carried out. A line for each step.
    async fn change(&mut self, nodes: Vec<NodeChange>) -> Result<(), Failure> {
        let admin = self.admin(1).await?;
        admin.stage_layout(LayoutChanges { nodes, ..LayoutChanges::default() }).await?;
        let plan = admin.plan_layout().await?;
        self.printer
            .line(&format!("the plan moves {} copies of partitions; {} is the least", plan.moved, plan.least_moved))?;
        let began = Instant::now();
        admin.apply_layout(plan.name).await?;
        let mut step = 0;
        loop {
            let status = admin.layout().await?;
            let now = match status.change.as_ref().map(|change| change.step) {
                Some(LayoutStep::Acknowledge) => 0,
                Some(LayoutStep::Exchange) => 1,
                Some(LayoutStep::Read) => 2,
                None => STEPS.len(),
            };
            for done in STEPS.iter().take(now).skip(step) {
                self.printer.line(&format!("{done} after {:.1} s", began.elapsed().as_secs_f64()))?;
            }
            step = step.max(now);
            if now == STEPS.len() {
                return Ok(());
            }
            if began.elapsed() >= TIMEOUT {
                let waits = status.change.map(|change| change.waits_for).unwrap_or_default();
                let names: Vec<&str> = waits.iter().map(|node| node.name.as_str()).collect();
                return Err(Failure::new(Exit::Retry, format!("the change still waits for {}", names.join(", "))));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn admin(&self, index: usize) -> Result<Admin, Failure> {
        Ok(self.client(index).await?.admin())
    }

    async fn client(&self, index: usize) -> Result<Client, Failure> {
        let profile = Profile::load(self.processes.cluster.profile())?;
        Ok(profile.builder().seeds([self.nodes[index].address.to_string()]).pinned().connect().await?)
    }

    async fn wait(&self, not_yet: &str, done: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
        let end = Instant::now() + TIMEOUT;
        while !done().await? {
            if Instant::now() >= end {
                return Err(Failure::new(Exit::Retry, not_yet));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// What is done with each step of a change.
const STEPS: [&str; 4] = [
    "1 acknowledge: all write by both layouts",
    "2 exchange: the new owners have everything,",
    "3 read: all read by the new layout",
    "4 retire: the old layout is gone",
];

impl Load {
    async fn run(&self, writer: u64, bucket: Bucket<Bytes>) {
        let mut number = 0_u64;
        while !self.over.load(Ordering::Relaxed) {
            number += 1;
            let key = format!("live-{writer}-{number}");
            let old = {
                let written = lock(&self.written);
                // Any: multiples of a large prime are spread well.
                written[(number.wrapping_mul(1_000_003) % written.len() as u64) as usize].clone()
            };
            match bucket.put(&key, value(&key)).create().await {
                Ok(_) => lock(&self.written).push(key),
                Err(error) => lock(&self.failures).push(format!("writing {key}: {error}")),
            }
            match bucket.get(&old).await {
                Ok(read) if read.value == Some(value(&old)) => {}
                Ok(_) => lock(&self.failures).push(format!("reading {old}: its value was not found")),
                Err(error) => lock(&self.failures).push(format!("reading {old}: {error}")),
            }
            self.done.fetch_add(2, Ordering::Relaxed);
            tokio::time::sleep(BREATH).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn value(key: &str) -> Vec<u8> {
    format!("the text of {key}").into_bytes()
}
