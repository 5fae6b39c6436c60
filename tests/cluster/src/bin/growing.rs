//! Measures what a change of the layout takes, and what clients feel of it: three processes become four, and three
//! again.
//!
//! `cargo build --workspace --bins --features measure && target/debug/rejoin-bench-growing [KEYS [SECONDS [TURNS]]]`,
//! by default with 100 000 keys, 10 s for each load, and 3 turns. In each turn clients are measured alone and while a
//! node is added, and then alone and while it leaves again. The first change, in which nobody asks, shows what the
//! change takes by itself.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use rejoin_client::admin::{Admin, BucketProps, Durability};
use rejoin_test_cluster::figures::{LOAD, NOTE_BYTES, NOTES, Table, kilobytes, load, say, text, write_notes};
use rejoin_test_cluster::{Cluster, within};

const NODES: usize = 3;
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// How often it is looked whether it has ended.
const GLANCE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| match arguments.next().map(|text| text.parse::<u64>()) {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(_)) => panic!("not a number: rejoin-bench-growing [KEYS [SECONDS [TURNS]]]"),
    };
    let (keys, seconds, turns) = (number(100_000), number(10), number(3));
    let mut run = Run { cluster: Cluster::start(NODES).await, seconds };
    let props = BucketProps { durability: Durability::Os, ..BucketProps::default() };
    run.cluster.bucket(NOTES, props).await;
    let began = Instant::now();
    write_notes(&run.cluster, 0..keys, "first").await;
    say(&format!("{keys} keys of {NOTE_BYTES} bytes written in {:.1} s\n", began.elapsed().as_secs_f64()));
    let fourth = run.cluster.join("n4").await;
    run.alone(fourth).await;
    run.beside(fourth, turns).await;
}

/// The cluster, and how long a load lasts.
struct Run {
    cluster: Cluster,
    seconds: u64,
}

/// A change of the layout.
#[derive(Clone, Copy)]
enum Change {
    Joins,
    Leaves,
}

impl Run {
    async fn admin(&self, node: usize) -> Admin {
        self.cluster.pinned(node).await.admin()
    }

    /// Applies a change of the fourth node. Returns the bytes that its plan names.
    fn apply(&self, change: Change) -> u64 {
        match change {
            Change::Joins => self.cluster.rejoin(&["layout", "assign", "n4"]).done(),
            Change::Leaves => self.cluster.rejoin(&["layout", "remove", "n4"]).done(),
        };
        let plan = self.cluster.rejoin(&["layout", "plan", "--json"]).done().json();
        let (version, hash) = (plan["version"].to_string(), plan["plan"].as_str().unwrap_or_default().to_owned());
        self.cluster.rejoin(&["layout", "apply", "--version", &version, "--plan", &hash]).done();
        let nodes = plan["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter_map(|node| node["bytes_taken"].as_u64()).sum()
    }

    /// Waits until all nodes use one layout, and the fourth holds nothing that it does not own.
    async fn settled(&self, fourth: usize) {
        let mut admins = Vec::new();
        for node in 0..=fourth {
            admins.push(self.admin(node).await);
        }
        within(PATIENCE, "the change ends", async || {
            tokio::time::sleep(GLANCE).await;
            for admin in &admins {
                let layout = admin.layout().await.map_err(|why| why.to_string())?;
                if let Some(change) = layout.change {
                    return Err(format!("{change:?}"));
                }
            }
            let holds = admins[fourth].exchange().await.map_err(|why| why.to_string())?.holdings;
            if holds == 0 { Ok(()) } else { Err(format!("n4 holds {holds} partitions")) }
        })
        .await;
    }

    /// What the walks of all nodes have taken since their starts: objects, and the bytes of them.
    async fn taken(&self, nodes: std::ops::RangeInclusive<usize>) -> (u64, u64) {
        let mut taken = (0, 0);
        for node in nodes {
            let status = self.admin(node).await.exchange().await.unwrap_or_else(|why| panic!("{why}"));
            for pair in &status.pairs {
                taken.0 += pair.received;
                taken.1 += pair.received_bytes;
            }
        }
        taken
    }

    /// Both changes without clients.
    async fn alone(&self, fourth: usize) {
        let columns = ["change", "took", "bytes by the plan", "objects taken", "their bytes"];
        let mut table = Table::new(&columns);
        for (what, change) in [("3 nodes become 4", Change::Joins), ("4 nodes become 3", Change::Leaves)] {
            let before = self.taken(0..=fourth).await;
            let began = Instant::now();
            let planned = self.apply(change);
            self.settled(fourth).await;
            let took = began.elapsed();
            let after = self.taken(0..=fourth).await;
            // Counts of pairs that are no owners any more are gone.
            let (objects, bytes) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
            table.row(&[what.to_owned(), text(took), kilobytes(planned), objects.to_string(), kilobytes(bytes)]);
        }
        table.print();
    }

    /// Clients alone and beside each change, in turns.
    async fn beside(&self, fourth: usize, turns: u64) {
        let columns: Vec<&str> = ["load"].into_iter().chain(LOAD).chain(["changed in"]).collect();
        let mut table = Table::new(&columns);
        for _ in 0..turns {
            for (what, change) in [("beside 3 to 4", Change::Joins), ("beside 4 to 3", Change::Leaves)] {
                table.row(&self.row("alone", self.load().await, ""));
                let (began, load) = (Instant::now(), self.load());
                let changed = async {
                    self.apply(change);
                    self.settled(fourth).await;
                    text(began.elapsed())
                };
                let (measured, changed) = tokio::join!(load, changed);
                table.row(&self.row(what, measured, &changed));
            }
        }
        table.print();
    }

    fn row(&self, what: &str, measured: Vec<String>, last: &str) -> Vec<String> {
        [what.to_owned()].into_iter().chain(measured).chain([last.to_owned()]).collect()
    }

    async fn load(&self) -> Vec<String> {
        let (dir, profile, seconds) = (self.cluster.files.dir.clone(), self.cluster.files.profile(), self.seconds);
        let load = tokio::task::spawn_blocking(move || load(&dir, &profile, seconds));
        load.await.unwrap_or_else(|why| panic!("{why}"))
    }
}
