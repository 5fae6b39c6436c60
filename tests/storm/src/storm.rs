//! One storm, from the start of the nodes to the verdict.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rejoin_client::Client;
use rejoin_client::admin::BucketProps;
use rejoin_core::placement;
use rejoin_proto::{LayoutNode, LayoutRef, NodeId};
use rejoin_test_cluster::name;
use rejoin_test_sim::history::Kind;

use crate::changes::{self, Beside, Change, Due, SPLITS};
use crate::clients::{self, BucketOf, CLIENTS, Load, PINNED, QUORUM, name_of};
use crate::ground::Ground;
use crate::healing::{self, Pins};
use crate::health::Health;
use crate::nodes::Nodes;
use crate::plan::{self, Fault, Place, Step};
use crate::ring::{self, Chosen, Part, Parts};
use crate::verdict::{StrictReads, Verdict};
use crate::{MEMBERS, NODES, atlas, operator};

/// How long the nodes may take to find each other, and to take a change of the catalog.
const TOGETHER: Duration = Duration::from_secs(60);
/// How often the time of the plan is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// How often a line about the progress is written.
const REPORT: Duration = Duration::from_secs(10);
/// How long a wipe may wait until every other disk is known to have all that was acknowledged.
const WIPE_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may wait, in a calm, for a change of the layout that is under way.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);
/// When the members are killed that are killed beside a split, since its beginning, and for how long: the first one
/// misses it, and the second one knows of it.
const KILLED_AT: [Duration; 2] = [Duration::ZERO, Duration::from_millis(1_500)];
const KILLED_FOR: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(2)];
/// How often a node that was wiped is asked whether it is rebuilt.
const REBUILT: Duration = Duration::from_secs(2);

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
    say(format_args!(
        "{NODES} nodes serve, {MEMBERS} of them members; {CLIENTS} clients for {} s, seed {}",
        orders.length.as_secs(),
        orders.seed
    ));
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
    /// The same for changes of the layout.
    changed: BTreeMap<&'static str, (u32, u32)>,
    parts: Parts,
    health: Health,
    /// Changes that are due, and the one that is under way.
    waiting: VecDeque<Due>,
    /// The client of the operator.
    operator: Client,
    under_change: JoinSet<Changed>,
    /// No fault begins before the change under way is carried out.
    is_alone: bool,
    /// Kills beside it, with the time at which each is due.
    kills: VecDeque<(Instant, Step)>,
    newest: LayoutRef,
    /// Nodes that were wiped and are not known to be rebuilt.
    rebuilding: Vec<u8>,
    rebuilt_at: Instant,
}

/// What has become of a change of the layout.
struct Changed {
    due: Due,
    chosen: Chosen,
    began_us: u64,
    /// Applied and carried out; or why it was not applied, or is not carried out.
    applied: Result<Result<(), String>, String>,
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
        let props = BucketProps { sloppy: false, ..BucketProps::default() };
        let strict = admin.create_bucket("strict", props).await.map_err(text)?;
        let buckets = vec![
            BucketOf { name: "sets", kind: Kind::Set, sloppy: true, id: (sets.tenant, sets.id) },
            BucketOf { name: "carts", kind: Kind::Cart, sloppy: true, id: (carts.tenant, carts.id) },
            BucketOf { name: "strict", kind: Kind::Set, sloppy: false, id: (strict.tenant, strict.id) },
        ];
        let members =
            nodes.files.nodes.iter().take(MEMBERS.into()).enumerate().map(|(at, (node, address, _))| LayoutNode {
                id: NodeId::from_name(node),
                name: node.clone(),
                zone: name(&format!("z{}", at % usize::from(crate::ZONES) + 1)),
                capacity: 1,
                address: (*address).into(),
            });
        // As the nodes draw it from their `[[bootstrap]]` lists.
        let layout = placement::bootstrap(members.collect(), placement::DEFAULT_PARTITIONS);
        let layout = layout.map_err(|bad| bad.to_string())?;
        let (mut health, newest) = (Health::default(), layout.name());
        health.applied(layout.clone(), 0);
        let load = Arc::new(Load::new(layout, nodes.files.cluster, nodes.files.secret.as_bytes(), buckets));
        let mut storm = Self {
            nodes,
            load,
            pins,
            under_way: Vec::new(),
            done: BTreeMap::new(),
            changed: BTreeMap::new(),
            parts: Parts::default(),
            health,
            waiting: VecDeque::new(),
            operator: client,
            under_change: JoinSet::new(),
            is_alone: false,
            kills: VecDeque::new(),
            newest,
            rebuilding: Vec::new(),
            rebuilt_at: Instant::now(),
        };
        storm.together().await?;
        Ok(storm)
    }

    async fn workers(&self, seed: u64, stop: &Arc<AtomicBool>) -> Result<JoinSet<Result<(), String>>, String> {
        let mut workers = JoinSet::new();
        for number in 0..CLIENTS {
            let pinned = (number < PINNED).then_some((number % u64::from(NODES)) as u8);
            let client = if let Some(node) = pinned {
                self.nodes.pinned(node)?.connect().await.map_err(|error| error.to_string())?
            } else {
                self.nodes.client().await?
            };
            workers.spawn(clients::work(client, self.load.clone(), (seed, number, pinned), stop.clone()));
        }
        Ok(workers)
    }

    /// The faults, each at its time.
    async fn blow(&mut self, orders: Orders, workers: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
        let began = Instant::now();
        let plan = plan::draw(orders.seed, u64::try_from(orders.length.as_millis()).unwrap_or(u64::MAX));
        let mut due = plan.into_iter().peekable();
        let mut changes = changes::draw(orders.seed, u64::try_from(orders.length.as_millis()).unwrap_or(u64::MAX))
            .into_iter()
            .peekable();
        let (mut report, mut copied) = (began + REPORT, !orders.sabotage);
        while began.elapsed() < orders.length {
            let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.end_those_that_are_over(Instant::now());
            self.waiting.extend(changes.next_if(|change| change.at_ms <= at_ms));
            self.go_on_with_changes().await?;
            self.kill_beside_a_change().await?;
            self.look_at_rebuilds().await;
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
        if step.fault.troubles().is_some_and(|node| self.parts.of(node) == Part::Gone) {
            self.leave_out(&step, "it is dead for good");
            return Ok(());
        }
        if self.is_alone {
            self.leave_out(&step, "the partitions are split, alone");
            return Ok(());
        }
        if let Fault::Wipe(node) = step.fault {
            return self.wipe(node, &step).await;
        }
        // The plan keeps to that, but for the kills beside a split.
        if step.fault.troubles().is_some_and(|node| !self.may_trouble(node)) {
            self.leave_out(&step, "enough nodes are in trouble");
            return Ok(());
        }
        say(format_args!("{step}"));
        self.done.entry(step.fault.kind()).or_default().0 += 1;
        self.health.begins(&step.fault, self.load.recording.now_us());
        self.nodes.begin(&step.fault);
        self.under_way.push((Instant::now() + Duration::from_millis(step.for_ms), step.fault));
        Ok(())
    }

    /// Whether another node may be in trouble now, which it is not yet.
    fn may_trouble(&self, node: u8) -> bool {
        let troubled: Vec<u8> = self.under_way.iter().filter_map(|(_, fault)| fault.troubles()).collect();
        troubled.len() < plan::TROUBLED && !troubled.contains(&node)
    }

    /// Kills the members that are to be killed beside the change under way. One that is in trouble anyway is not.
    async fn kill_beside_a_change(&mut self) -> Result<(), String> {
        if self.under_change.is_empty() {
            self.kills.clear();
        }
        let is_due = self.kills.front().is_some_and(|(at, step)| {
            *at <= Instant::now() && step.fault.troubles().is_some_and(|node| self.may_trouble(node))
        });
        match self.kills.pop_front_if(|_| is_due) {
            Some((_, step)) => self.begin(step).await,
            None => Ok(()),
        }
    }

    fn leave_out(&mut self, step: &Step, why: &str) {
        say(format_args!("{step}: left out, {why}"));
        self.done.entry(step.fault.kind()).or_default().1 += 1;
    }

    fn end_those_that_are_over(&mut self, now: Instant) {
        let over = self.under_way.extract_if(.., |(end, _)| *end <= now).collect::<Vec<_>>();
        over.iter().for_each(|(_, fault)| self.end(fault));
    }

    fn end(&mut self, fault: &Fault) {
        self.nodes.end(fault);
        self.health.ends(fault, self.load.recording.now_us());
    }

    /// Begins the next change that is due, or looks whether the one under way has ended: there is one at a time.
    async fn go_on_with_changes(&mut self) -> Result<(), String> {
        if let Some(ended) = self.under_change.try_join_next() {
            return self.has_changed(ended.map_err(|error| error.to_string())?).await;
        }
        if !self.under_change.is_empty() {
            return Ok(());
        }
        let Some(due) = self.waiting.pop_front() else { return Ok(()) };
        let Some(chosen) = self.parts.choose(&due) else {
            return self.not_changed(&due, "no node is left for it");
        };
        if let Some(dies) = chosen.dies {
            if let Err(why) = self.may_lose(dies).await? {
                return self.not_changed(&due, &why);
            }
            self.nodes.kill(dies);
            self.parts.set(dies, Part::Gone);
            self.health.node_troubled(dies, self.load.recording.now_us());
            self.load.recording.wiped(dies);
        }
        match due.change {
            Change::Split(Beside::Nothing) => {
                self.calm().await?;
                self.is_alone = true;
            }
            Change::Split(Beside::Kills) => self.kills = self.kills_beside(&due),
            _ => {}
        }
        say(format_args!("{due}: {}", shown(&chosen)));
        let (client, began_us) = (self.operator.clone(), self.load.recording.now_us());
        self.under_change.spawn(async move {
            let dead = chosen.dies.map(ring::name_of);
            let applied = match operator::apply(&client, &chosen.changes).await {
                Ok(layout) => Ok(operator::carried_out(&client, layout, dead.as_ref()).await),
                Err(why) => Err(why),
            };
            Changed { due, chosen, began_us, applied }
        });
        Ok(())
    }

    /// Kills of members beside a change that begins now.
    fn kills_beside(&self, due: &Due) -> VecDeque<(Instant, Step)> {
        let since = |after: Duration| u64::try_from(after.as_millis()).unwrap_or_default();
        let victims = self.parts.victims(due).into_iter().zip(KILLED_AT.into_iter().zip(KILLED_FOR));
        let kill = |(node, (after, lasts)): (u8, (Duration, Duration))| {
            let step = Step { at_ms: due.at_ms + since(after), for_ms: since(lasts), fault: Fault::Kill(node) };
            (Instant::now() + after, step)
        };
        victims.map(kill).collect()
    }

    /// A change has ended.
    async fn has_changed(&mut self, Changed { due, chosen, began_us, applied }: Changed) -> Result<(), String> {
        self.is_alone = false;
        let addresses = self.nodes.addresses(self.parts.alive());
        let now_us = self.load.recording.now_us();
        match operator::newest(&self.nodes.files, &addresses).await {
            Some(layout) if layout.name() > self.newest => {
                self.newest = layout.name();
                self.health.applied(layout.clone(), began_us);
                self.health.settled(now_us);
                self.load.settle(layout);
            }
            _ => {}
        }
        match applied {
            Ok(Ok(())) => {
                self.changed.entry(due.change.kind()).or_default().0 += 1;
                chosen.then.iter().for_each(|(node, part)| self.parts.set(*node, *part));
                say(format_args!("layout {} is in force: {}", self.newest.version, shown(&chosen)));
            }
            Ok(Err(waits)) => {
                let problem = format!("{} is not carried out: {waits}", shown(&chosen));
                self.nodes.problems.push(problem);
                return Ok(());
            }
            // A node that has died for it stays dead, and a later change may take its place.
            Err(why) => self.not_changed(&due, &why)?,
        }
        let Some(died) = chosen.dies else { return Ok(()) };
        // It comes back as a node that nobody knows, or, if it is a member yet, as one that has lost its disk.
        let is_replaced = self.parts.of(chosen.then[0].0) == chosen.then[0].1;
        self.nodes.ground.wipe(died)?;
        self.nodes.files.joins(usize::from(died));
        self.nodes.revive(died);
        self.parts.set(died, if is_replaced { Part::Out } else { Part::Member(1) });
        self.rebuilding.push(died);
        Ok(())
    }

    fn not_changed(&mut self, due: &Due, why: &str) -> Result<(), String> {
        say(format_args!("{due}: left out, {why}"));
        self.changed.entry(due.change.kind()).or_default().1 += 1;
        Ok(())
    }

    /// Whether a node that was wiped is rebuilt, and is well again.
    async fn look_at_rebuilds(&mut self) {
        if self.rebuilt_at.elapsed() < REBUILT || self.rebuilding.is_empty() {
            return;
        }
        self.rebuilt_at = Instant::now();
        for node in std::mem::take(&mut self.rebuilding) {
            let admin = self.pins.0[usize::from(node)].admin().timeout(REBUILT / 4);
            if admin.exchange().await.is_ok_and(|status| status.incomplete.is_empty()) {
                self.health.node_back(node, self.load.recording.now_us());
                self.load.recording.knows_its_losses(node);
            } else {
                self.rebuilding.push(node);
            }
        }
    }

    /// Whether a node's disk may be lost now: no layout changes, and the other disks have everything. Ends all faults.
    async fn may_lose(&mut self, node: u8) -> Result<Result<(), String>, String> {
        self.calm().await?;
        let end = Instant::now() + CHANGE_PATIENCE;
        while !self.under_change.is_empty() {
            if Instant::now() >= end {
                return Ok(Err("the layout is changing".to_owned()));
            }
            if let Some(ended) = self.under_change.try_join_next() {
                self.has_changed(ended.map_err(|error| error.to_string())?).await?;
            }
            tokio::time::sleep(GLANCE).await;
        }
        let end = Instant::now() + WIPE_PATIENCE;
        while let Err(why) = atlas::may_wipe(&self.load, &self.pins, node).await {
            if Instant::now() >= end {
                return Ok(Err(why));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(Ok(()))
    }

    /// Ends all faults but those of clocks, and waits until all nodes have found each other.
    async fn calm(&mut self) -> Result<(), String> {
        for (_, fault) in std::mem::take(&mut self.under_way) {
            self.end(&fault);
        }
        self.together().await
    }

    /// Wipes a disk in a calm, if the other disks have everything.
    async fn wipe(&mut self, node: u8, step: &Step) -> Result<(), String> {
        if let Err(why) = self.may_lose(node).await? {
            self.leave_out(step, &why);
            return Ok(());
        }
        say(format_args!("{step}"));
        self.done.entry(step.fault.kind()).or_default().0 += 1;
        self.health.begins(&step.fault, self.load.recording.now_us());
        self.nodes.kill(node);
        self.nodes.ground.wipe(node)?;
        self.load.recording.wiped(node);
        tokio::time::sleep(Duration::from_millis(step.for_ms)).await;
        self.nodes.revive(node);
        self.together().await?;
        self.rebuilding.push(node);
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
    async fn together(&mut self) -> Result<(), String> {
        let end = Instant::now() + TOGETHER;
        for (node, pin) in (0..).zip(&self.pins.0).filter(|(node, _)| self.parts.of(*node) != Part::Gone) {
            loop {
                let admin = pin.admin();
                let (status, layout) = (admin.status().await, admin.layout().await);
                if let (Ok(status), Ok(layout)) = (&status, &layout)
                    && Nodes::is_together(status, layout, &self.parts)
                {
                    break;
                }
                if Instant::now() >= end {
                    let up = layout.map(|layout| {
                        let down = layout.nodes.into_iter().filter(|node| !node.up).map(|node| node.name.to_string());
                        down.collect::<Vec<_>>()
                    });
                    let missing = status.map(|status| status.missing_plugins);
                    return Err(format!("{} does not find {up:?}, and lacks {missing:?}", Place::Node(node)));
                }
                tokio::time::sleep(GLANCE).await;
            }
        }
        self.health.together(self.load.recording.now_us());
        Ok(())
    }

    /// Waits for the change that is under way. Those that were due behind it are left out.
    async fn end_changes(&mut self) -> Result<(), String> {
        for due in std::mem::take(&mut self.waiting) {
            self.not_changed(&due, "the storm is over")?;
        }
        while let Some(ended) = self.under_change.join_next().await {
            self.has_changed(ended.map_err(|error| error.to_string())?).await?;
        }
        self.together().await
    }

    /// The strict reads that were not answered although a healthy quorum could have.
    fn strict_reads(&self) -> StrictReads {
        let failed = self.load.failed_reads();
        let could = |read: &&crate::health::FailedRead| {
            self.health.had_quorum(read, QUORUM.into(), |layout| self.load.owners(layout, read.key))
        };
        let seconds = |us: u64| us as f64 / 1e6;
        let despite = failed.iter().filter(could).map(|read| {
            let by = read.pinned.map(|node| format!(" by {}", Place::Node(node))).unwrap_or_default();
            let (from, took) = (seconds(read.from_us), seconds(read.to_us - read.from_us));
            format!("{} asked at {from:.3} s{by}, after {took:.3} s: {}", name_of(read.key), read.why)
        });
        let answered = self.load.strict_reads.load(Ordering::Relaxed);
        StrictReads { answered, failed: failed.len(), despite: despite.collect() }
    }

    async fn heal(mut self) -> Result<Verdict, String> {
        let since = Instant::now();
        self.nodes.set_clocks();
        self.calm().await?;
        self.end_changes().await?;
        self.nodes.look();
        say(format_args!("all is healed; {} keys must become equal at their owners", self.load.key_count()));
        let healing = healing::wait(&self.load, &self.pins, since).await;
        let held = healing::empty(&self.pins, since).await;
        self.nodes.problems.extend(held);
        let splits = self.changed.get(SPLITS).map_or(0, |(done, _)| *done);
        let (partitions, wrong) = healing::partitions(&self.pins, placement::DEFAULT_PARTITIONS << splits).await;
        self.nodes.problems.extend(wrong);
        self.nodes.look();
        say(format_args!("faults: {}", counted(&self.done)));
        say(format_args!("changes of layout: {}; {partitions} partitions", counted(&self.changed)));
        let problems = std::mem::take(&mut self.nodes.problems);
        let strict = self.strict_reads();
        let run = self.load.recording.run();
        Ok(Verdict::of(&run, &healing, problems).with(strict))
    }
}

/// How often each kind was done, and left out.
fn counted(done: &BTreeMap<&'static str, (u32, u32)>) -> String {
    let counted = done.iter().map(|(kind, (done, not))| match not {
        0 => format!("{done} {kind}"),
        not => format!("{done} {kind} ({not} left out)"),
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// The nodes of a change, for people.
fn shown(chosen: &Chosen) -> String {
    let part = |(node, part): &(u8, Part)| {
        let node = Place::Node(*node);
        match part {
            Part::Member(capacity) => format!("{node} a member of capacity {capacity}"),
            Part::Out => format!("{node} no member"),
            Part::Gone => format!("{node} gone"),
        }
    };
    if chosen.changes.split {
        return "twice as many partitions".to_owned();
    }
    let then = chosen.then.iter().map(part).collect::<Vec<_>>().join(", ");
    chosen.dies.map_or(then.clone(), |dies| format!("{then} in the place of {}, which is dead", Place::Node(dies)))
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
