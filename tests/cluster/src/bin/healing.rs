//! Measures how a cluster of three processes heals, what that costs, and what its clients feel of it.
//!
//! `cargo build --workspace --bins --features measure && target/debug/rejoin-bench-healing [KEYS [SECONDS [PART…]]]`,
//! by default with 100 000 keys, 10 s for each load, and all parts. In this order: the start of a killed node
//! (`starts`), the exchange of an idle cluster (`idle`), splits of its partitions (`splits`), the time to heal
//! differences of growing numbers of keys (`differences`), and the latency of clients with and without a rebuild beside
//! them, in turns (`rebuilds`). Bytes of the idle cluster are those of the loopback interface, so nothing else may use
//! it meanwhile; `unshare --map-root-user --net sh -c 'ip link set lo up; …'` gives a run an interface of its own.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use rejoin_client::admin::{Admin, BucketProps, Durability, ExchangeStatus, LayoutChanges};
use rejoin_client::{Bucket, Bytes};
use rejoin_test_cluster::figures::{NOTE_BYTES, NOTES, Table, cpu, kilobytes, load, note, say, text, write_notes};
use rejoin_test_cluster::{Cluster, http, within};

const PARTS: [&str; 5] = ["starts", "idle", "splits", "differences", "rebuilds"];
/// The node that is killed and wiped.
const VICTIM: usize = 2;
const NODES: usize = 3;
/// How often each pair of loads is measured, and a killed node is started.
const TURNS: usize = 3;
/// The time for the cluster to become quiet, and for it to heal.
const PATIENCE: Duration = Duration::from_secs(600);
/// The time over which an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is looked whether the cluster has healed.
const GLANCE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| match arguments.next().map(|text| text.parse::<u64>()) {
        None => default,
        Some(Ok(number)) if number > 0 => number,
        _ => panic!("not a number above 0: rejoin-bench-healing [KEYS [SECONDS [PART…]]]"),
    };
    let (keys, seconds) = (number(100_000), number(10));
    let parts: Vec<String> = arguments.collect();
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        panic!("{unknown:?} is none of {PARTS:?}");
    }
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let mut run = Run { cluster: Cluster::start(NODES).await, keys, seconds };
    let props = BucketProps { durability: Durability::Os, ..BucketProps::default() };
    run.cluster.bucket(NOTES, props).await;
    let began = Instant::now();
    write_notes(&run.cluster, 0..keys, "first").await;
    say(&format!("{keys} keys of {NOTE_BYTES} bytes written in {:.1} s\n", began.elapsed().as_secs_f64()));
    if wants("starts") {
        run.starts().await;
    }
    if wants("idle") {
        run.idle().await;
    }
    if wants("splits") {
        run.splits().await;
    }
    if wants("differences") {
        run.differences().await;
    }
    if wants("rebuilds") {
        run.rebuilds().await;
    }
}

/// The cluster, and how much is measured.
struct Run {
    cluster: Cluster,
    keys: u64,
    seconds: u64,
}

impl Run {
    async fn admin(&self, node: usize) -> Admin {
        self.cluster.pinned(node).await.admin()
    }

    /// Waits until no node knows of a difference and the victim has been compared with both others since its start.
    async fn healed(&self) {
        let mut admins = Vec::new();
        for node in 0..NODES {
            admins.push(self.admin(node).await);
        }
        within(PATIENCE, "all owners are equal", async || {
            // Each answer names all partitions: asking all the time would be a load of its own.
            tokio::time::sleep(GLANCE).await;
            for (node, admin) in admins.iter().enumerate() {
                let status = admin.exchange().await.map_err(|why| why.to_string())?;
                let open = open(&status, node == VICTIM);
                if open > 0 || !status.incomplete.is_empty() || status.holdings > 0 {
                    return Err(format!("{open} partitions of {} differ", status.node));
                }
            }
            Ok(())
        })
        .await;
    }

    /// What all walks of these nodes have sent or taken since their starts: objects, and the bytes of them.
    async fn moved(&self, nodes: std::ops::Range<usize>) -> (u64, u64) {
        let mut moved = (0, 0);
        for node in nodes {
            let status = self.admin(node).await.exchange().await.unwrap_or_else(|why| panic!("{why}"));
            for pair in &status.pairs {
                moved.0 += pair.sent + pair.received;
                moved.1 += pair.sent_bytes + pair.received_bytes;
            }
        }
        moved
    }

    /// CPU time of all nodes.
    fn cpu(&self) -> Duration {
        (0..NODES).map(|node| cpu(self.cluster.pid(node))).sum()
    }

    async fn starts(&mut self) {
        let mut table = Table::new(&["start after kill -9", "until it answers", "until it serves its own copies"]);
        for turn in 0..TURNS as u64 {
            write_notes(&self.cluster, 0..self.keys.min(10_000), &format!("before kill {turn}")).await;
            self.cluster.kill(VICTIM);
            let began = Instant::now();
            self.cluster.spawn(VICTIM);
            let client = self.cluster.pinned(VICTIM).await;
            let answers = began.elapsed();
            let bucket: Bucket<Bytes> = client.bucket(NOTES).unwrap_or_else(|why| panic!("{why}"));
            within(PATIENCE, "the node serves", async || match bucket.get(note(0)).r(1).await {
                Ok(read) if read.is_found() => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
            table.row(&[format!("{}", turn + 1), text(answers), text(began.elapsed())]);
        }
        table.print();
        self.healed().await;
    }

    async fn idle(&self) {
        self.quiet().await;
        let mut table = Table::new(&["idle, per node and minute", "bytes sent", "CPU"]);
        for (what, paused) in [("with exchange", false), ("exchange paused", true)] {
            for node in 0..NODES {
                let set = self.admin(node).await.pause_exchange(paused).await;
                set.unwrap_or_else(|why| panic!("{why}"));
            }
            let (bytes, cpu) = (loopback(), self.cpu());
            tokio::time::sleep(IDLE).await;
            let (bytes, cpu) = (loopback() - bytes, self.cpu() - cpu);
            table.row(&[what.to_owned(), kilobytes(bytes / NODES as u64), text(cpu / NODES as u32)]);
        }
        table.print();
        for node in 0..NODES {
            let resumed = self.admin(node).await.pause_exchange(false).await;
            resumed.unwrap_or_else(|why| panic!("{why}"));
        }
    }

    /// Waits until no node flushes or compacts, for two seconds.
    async fn quiet(&self) {
        let work = || -> f64 {
            let names = ["rejoin_flushes_total", "rejoin_compactions_total"];
            (0..NODES).flat_map(|node| names.map(|name| http::metric(self.cluster.admin(node), name))).sum()
        };
        let mut before = f64::NAN;
        within(PATIENCE, "the cluster is quiet", async || {
            let now = work();
            let still = now == before;
            before = now;
            tokio::time::sleep(Duration::from_secs(2)).await;
            if still { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Splits, and what the nodes write to files from the command on until the change has ended, and until all owners
    /// have compared the halves.
    async fn splits(&mut self) {
        let columns = ["partitions", "split in", "bytes written", "halves compared in", "bytes written by then"];
        let mut table = Table::new(&columns);
        for _ in 0..TURNS {
            self.healed().await;
            self.quiet().await;
            let (admin, before) = (self.admin(0).await, self.written());
            let began = Instant::now();
            let split = LayoutChanges { split: true, ..LayoutChanges::default() };
            admin.stage_layout(split).await.unwrap_or_else(|why| panic!("{why}"));
            let plan = admin.plan_layout().await.unwrap_or_else(|why| panic!("{why}"));
            admin.apply_layout(plan.name).await.unwrap_or_else(|why| panic!("{why}"));
            for node in 0..NODES {
                let admin = self.admin(node).await;
                within(PATIENCE, "the split ends", async || match admin.layout().await {
                    Ok(status) if status.live == [plan.name] => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await;
            }
            let (split, written) = (began.elapsed(), self.written() - before);
            let admin = self.admin(VICTIM).await;
            within(PATIENCE, "the halves are compared", async || {
                tokio::time::sleep(GLANCE).await;
                let status = admin.exchange().await.map_err(|why| why.to_string())?;
                let compared = status.pairs.iter().filter(|pair| pair.equal_ago_ms.is_some()).count();
                // With both other nodes.
                if compared >= 2 * plan.partitions as usize { Ok(()) } else { Err(format!("{compared} are")) }
            })
            .await;
            let all = [kilobytes(written), text(began.elapsed()), kilobytes(self.written() - before)];
            let mut row = vec![plan.partitions.to_string(), text(split)];
            row.extend(all);
            table.row(&row);
        }
        table.print();
    }

    /// The bytes that all nodes have written to files, by proc(5).
    fn written(&self) -> u64 {
        let of = |node| {
            let path = format!("/proc/{}/io", self.cluster.pid(node));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
            let bytes = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
            bytes.unwrap_or_else(|| panic!("{path} has no wchar"))
        };
        (0..NODES).map(of).sum()
    }

    async fn differences(&mut self) {
        let columns = ["keys written while a node was down", "healed after its start", "objects sent", "their bytes"];
        let mut table = Table::new(&columns);
        let mut differ = 1000;
        while differ <= self.keys {
            self.cluster.kill(VICTIM);
            write_notes(&self.cluster, 0..differ, &format!("without one, {differ}")).await;
            // The victim, which is the last node, counts from nothing after its start.
            let before = self.moved(0..VICTIM).await;
            let began = Instant::now();
            self.cluster.spawn(VICTIM);
            self.healed().await;
            let took = began.elapsed();
            let after = self.moved(0..NODES).await;
            let (objects, bytes) = (after.0 - before.0, after.1 - before.1);
            table.row(&[differ.to_string(), text(took), objects.to_string(), kilobytes(bytes)]);
            differ *= 10;
        }
        table.print();
    }

    async fn rebuilds(&mut self) {
        let columns = ["load", "rate /s", "reads p50", "reads p99", "writes p50", "writes p99", "failed", "rebuilt in"];
        let mut table = Table::new(&columns);
        for _ in 0..TURNS {
            self.quiet().await;
            let mut row = load(&self.cluster.files.dir, &self.cluster.files.profile(), self.seconds);
            row.insert(0, "alone".to_owned());
            row.push(String::new());
            table.row(&row);
            self.cluster.kill(VICTIM);
            std::fs::remove_dir_all(self.cluster.data(VICTIM)).unwrap_or_else(|why| panic!("{why}"));
            let began = Instant::now();
            self.cluster.spawn(VICTIM);
            self.cluster.together().await;
            let (dir, profile, seconds) = (self.cluster.files.dir.clone(), self.cluster.files.profile(), self.seconds);
            let load = tokio::task::spawn_blocking(move || load(&dir, &profile, seconds));
            self.healed().await;
            let took = began.elapsed();
            let mut row = load.await.unwrap_or_else(|why| panic!("{why}"));
            row.insert(0, "beside a rebuild".to_owned());
            row.push(text(took));
            table.row(&row);
        }
        table.print();
    }
}

/// Partitions that are known to differ, and for a node that was just started those that it has not compared yet.
fn open(status: &ExchangeStatus, started: bool) -> usize {
    let pairs = status.pairs.iter();
    let known = pairs.filter(|pair| pair.differs || started && pair.equal_ago_ms.is_none()).count();
    if started && status.pairs.is_empty() { known + 1 } else { known }
}

/// Bytes that the loopback interface has sent.
fn loopback() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_else(|why| panic!("/proc/net/dev: {why}"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    // Eight fields of what was received come first.
    let sent = line.and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    sent.unwrap_or_else(|| panic!("/proc/net/dev has no loopback interface"))
}
