//! One storm, from the start of the nodes to the verdict.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rejoin_client::admin::BucketProps;
use rejoin_core::placement;
use rejoin_proto::{LayoutNode, NodeId};
use rejoin_test_cluster::name;
use rejoin_test_sim::history::Kind;

use crate::clients::{self, BucketOf, CLIENTS, Load, PINNED};
use crate::ground::Ground;
use crate::healing::{self, Pins};
use crate::nodes::Nodes;
use crate::plan::{self, Fault, Place, Step};
use crate::verdict::Verdict;
use crate::{NODES, atlas};

/// How long the nodes may take to find each other, and to take a change of the catalog.
const TOGETHER: Duration = Duration::from_secs(60);
/// How often the time of the plan is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// How often a line about the progress is written.
const REPORT: Duration = Duration::from_secs(10);
/// How long a wipe may wait until every other disk is known to have all that was acknowledged.
const WIPE_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// The seed of plan and clients.
    pub seed: u64,
    /// For how long there are faults.
    pub length: Duration,
    /// Whether to put old disks under all nodes in the end, which loses writes and brings deleted ones back: the
    /// storm must then fail.
    pub sabotage: bool,
}

/// Runs a storm. `component` merges carts.
///
/// # Errors
/// It could not be run: the cluster does not come up, or answers nonsense.
pub async fn run(orders: Orders, ground: Ground, component: Vec<u8>) -> Result<Verdict, String> {
    ground.lacks.iter().for_each(|lack| say(format_args!("left out: {lack}")));
    let nodes = Nodes::start(ground);
    let mut storm = Storm::prepare(nodes, component).await?;
    say(format_args!("{NODES} nodes serve; {CLIENTS} clients for {} s, seed {}", orders.length.as_secs(), orders.seed));
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = storm.workers(orders.seed, &stop).await?;
    storm.blow(orders, &mut workers).await?;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    if orders.sabotage {
        storm.old_disks(false).await?;
    }
    storm.heal().await
}

struct Storm {
    nodes: Nodes,
    load: Arc<Load>,
    pins: Pins,
    /// Faults under way, with the time at which each ends.
    under_way: Vec<(Instant, Fault)>,
    /// By kind: faults that were done, and that were not.
    done: BTreeMap<&'static str, (u32, u32)>,
}

impl Storm {
    /// Makes the buckets, once all nodes have found each other.
    async fn prepare(nodes: Nodes, component: Vec<u8>) -> Result<Self, String> {
        let pins = pins(&nodes).await?;
        let client = nodes.client().await?;
        let admin = client.admin().timeout(TOGETHER);
        let text = |error: rejoin_client::Error| error.to_string();
        let sets = admin.create_bucket("sets", BucketProps::default()).await.map_err(text)?;
        let plugin = admin.push_plugin("cart", component).await.map_err(text)?;
        let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
        let carts = admin.create_bucket("carts", props).await.map_err(text)?;
        let buckets = vec![
            BucketOf { name: "sets", kind: Kind::Set, id: (sets.tenant, sets.id) },
            BucketOf { name: "carts", kind: Kind::Cart, id: (carts.tenant, carts.id) },
        ];
        let members = nodes.files.nodes.iter().enumerate().map(|(at, (node, address, _))| LayoutNode {
            id: NodeId::from_name(node),
            name: node.clone(),
            zone: name(&format!("z{}", at % usize::from(crate::ZONES) + 1)),
            capacity: 1,
            address: (*address).into(),
        });
        // As the nodes draw it from their `[[bootstrap]]` lists.
        let layout = placement::bootstrap(members.collect(), placement::DEFAULT_PARTITIONS);
        let layout = layout.map_err(|bad| bad.to_string())?;
        let load = Arc::new(Load::new(layout, nodes.files.cluster, nodes.files.secret.as_bytes(), buckets));
        let (under_way, done) = (Vec::new(), BTreeMap::new());
        let storm = Self { nodes, load, pins, under_way, done };
        storm.together().await?;
        Ok(storm)
    }

    async fn workers(&self, seed: u64, stop: &Arc<AtomicBool>) -> Result<JoinSet<Result<(), String>>, String> {
        let mut workers = JoinSet::new();
        for number in 0..CLIENTS {
            let client = if number < PINNED {
                let builder = self.nodes.pinned((number % u64::from(NODES)) as u8)?;
                builder.connect().await.map_err(|error| error.to_string())?
            } else {
                self.nodes.client().await?
            };
            workers.spawn(clients::work(client, self.load.clone(), (seed, number), stop.clone()));
        }
        Ok(workers)
    }

    /// The faults, each at its time.
    async fn blow(&mut self, orders: Orders, workers: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
        let began = Instant::now();
        let plan = plan::draw(orders.seed, u64::try_from(orders.length.as_millis()).unwrap_or(u64::MAX));
        let mut due = plan.into_iter().peekable();
        let (mut report, mut copied) = (began + REPORT, !orders.sabotage);
        while began.elapsed() < orders.length {
            let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.end_those_that_are_over(Instant::now());
            if let Some(step) = due.next_if(|step| step.at_ms <= at_ms) {
                self.begin(step).await?;
            }
            if !copied && began.elapsed() > orders.length / 2 {
                copied = true;
                self.old_disks(true).await?;
            }
            self.nodes.look();
            if Instant::now() >= report {
                report += REPORT;
                self.report(began);
            }
            if let Some(ended) = workers.try_join_next() {
                ended.map_err(|error| error.to_string())??;
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    fn report(&self, began: Instant) {
        let recording = &self.load.recording;
        let (acknowledged, unknown) =
            (recording.acknowledged.load(Ordering::Relaxed), recording.unknown.load(Ordering::Relaxed));
        let seconds = began.elapsed().as_secs();
        say(format_args!("{seconds} s: {acknowledged} writes acknowledged, {unknown} unknown"));
    }

    async fn begin(&mut self, step: Step) -> Result<(), String> {
        if let Some(why) = self.nodes.ground.lacks_for(&step.fault) {
            self.leave_out(&step, why);
            return Ok(());
        }
        if let Fault::Wipe(node) = step.fault {
            return self.wipe(node, &step).await;
        }
        say(format_args!("{step}"));
        self.done.entry(step.fault.kind()).or_default().0 += 1;
        self.nodes.begin(&step.fault);
        self.under_way.push((Instant::now() + Duration::from_millis(step.for_ms), step.fault));
        Ok(())
    }

    fn leave_out(&mut self, step: &Step, why: &str) {
        say(format_args!("{step}: left out, {why}"));
        self.done.entry(step.fault.kind()).or_default().1 += 1;
    }

    fn end_those_that_are_over(&mut self, now: Instant) {
        let over = self.under_way.extract_if(.., |(end, _)| *end <= now).collect::<Vec<_>>();
        over.iter().for_each(|(_, fault)| self.nodes.end(fault));
    }

    /// Ends all faults but those of clocks, and waits until all nodes have found each other.
    async fn calm(&mut self) -> Result<(), String> {
        for (_, fault) in std::mem::take(&mut self.under_way) {
            self.nodes.end(&fault);
        }
        self.together().await
    }

    /// Wipes a disk in a calm, if the other disks have everything.
    async fn wipe(&mut self, node: u8, step: &Step) -> Result<(), String> {
        self.calm().await?;
        let end = Instant::now() + WIPE_PATIENCE;
        while let Err(why) = atlas::may_wipe(&self.load, &self.pins, node).await {
            if Instant::now() >= end {
                self.leave_out(step, &why);
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
        say(format_args!("{step}"));
        self.done.entry(step.fault.kind()).or_default().0 += 1;
        self.nodes.kill(node);
        self.nodes.ground.wipe(node)?;
        self.load.recording.wiped(node);
        tokio::time::sleep(Duration::from_millis(step.for_ms)).await;
        self.nodes.revive(node);
        self.together().await?;
        self.load.recording.knows_its_losses(node);
        Ok(())
    }

    /// Copies all disks, or puts the copies back.
    async fn old_disks(&mut self, copy: bool) -> Result<(), String> {
        say(format_args!("all disks are {}", if copy { "copied" } else { "replaced by their copies" }));
        self.calm().await?;
        (0..NODES).for_each(|node| self.nodes.kill(node));
        for node in 0..NODES {
            let data = self.nodes.ground.data(node);
            let kept = data.with_extension("copy");
            let (from, to) = if copy { (&data, &kept) } else { (&kept, &data) };
            if !copy {
                self.nodes.ground.wipe(node)?;
            }
            fs::create_dir_all(to).map_err(|why| format!("{}: {why}", to.display()))?;
            let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
            if !copied.is_ok_and(|status| status.success()) {
                return Err(format!("{} cannot be copied", from.display()));
            }
        }
        (0..NODES).for_each(|node| self.nodes.revive(node));
        self.together().await
    }

    /// Waits until every node sees all others.
    async fn together(&self) -> Result<(), String> {
        let end = Instant::now() + TOGETHER;
        for (node, pin) in (0..).zip(&self.pins.0) {
            loop {
                let status = pin.admin().status().await;
                if status.as_ref().is_ok_and(Nodes::is_together) {
                    break;
                }
                if Instant::now() >= end {
                    let why = status.map(|status| format!("{:?}", status.nodes)).map_err(|error| error.to_string());
                    return Err(format!("{} does not find the others: {why:?}", Place::Node(node)));
                }
                tokio::time::sleep(GLANCE).await;
            }
        }
        Ok(())
    }

    async fn heal(mut self) -> Result<Verdict, String> {
        let since = Instant::now();
        self.nodes.set_clocks();
        self.calm().await?;
        self.nodes.look();
        say(format_args!("all is healed; {} keys must become equal at their owners", self.load.key_count()));
        let healing = healing::wait(&self.load, &self.pins, since).await;
        self.nodes.look();
        let done: Vec<String> = self
            .done
            .iter()
            .map(|(kind, (done, not))| match not {
                0 => format!("{done} {kind}"),
                not => format!("{done} {kind} ({not} left out)"),
            })
            .collect();
        say(format_args!("faults: {}", done.join(", ")));
        let problems = std::mem::take(&mut self.nodes.problems);
        let run = self.load.recording.run();
        Ok(Verdict::of(&run, &healing, problems))
    }
}

/// A client for each node.
async fn pins(nodes: &Nodes) -> Result<Pins, String> {
    let end = Instant::now() + TOGETHER;
    let mut pins = Vec::new();
    for node in 0..NODES {
        pins.push(loop {
            match nodes.pinned(node)?.connect().await {
                Ok(client) => break client,
                Err(error) if Instant::now() >= end => {
                    return Err(format!("{} lets nobody in: {error}", Place::Node(node)));
                }
                Err(_) => tokio::time::sleep(GLANCE).await,
            }
        });
    }
    Ok(Pins(pins))
}

/// Tells people how it goes.
fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("storm: {what}");
}
