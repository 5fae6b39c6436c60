//! The steps of the demo: a node of four is killed, a thousand keys are written without it, it comes back and gets them
//! from the nodes that stood in for it; then its disk is wiped, and it gets everything again.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rejoin_client::admin::{BucketProps, ExchangeStatus};
use rejoin_client::{Bucket, Bytes, Client, Profile};

use crate::demo::printer::Printer;
use crate::demo::steps;
use crate::failure::Failure;
use crate::local_cluster::LocalNode;
use crate::processes::Processes;
use crate::progress::Progress;

const BUCKET: &str = "notes";
/// The number of keys.
const KEYS: usize = 1000;
/// Requests under way at once.
const AT_ONCE: usize = 64;
/// The most keys that are looked at to find those of one node. It owns three in four.
const MOST_TRIED: usize = 4 * KEYS;
/// The time for a step of the cluster.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The demo. The last node is the one that is killed.
pub(super) struct HandoffDemo<'a> {
    processes: &'a mut Processes,
    printer: Printer,
    victim: LocalNode,
    others: Vec<LocalNode>,
    /// Keys of which the victim is an owner.
    keys: Vec<String>,
}

impl HandoffDemo<'_> {
    /// Runs all steps.
    ///
    /// # Errors
    /// The first claim that does not hold, or a failure of the cluster.
    pub(super) async fn run(processes: &mut Processes, printer: Printer) -> Result<(), Failure> {
        let mut handoff = HandoffDemo::begin(processes, printer).await?;
        handoff.kill().await?;
        handoff.write().await?;
        handoff.come_back().await?;
        handoff.read_alone("Each key from n4 alone (r = 1)").await?;
        handoff.wipe().await?;
        handoff.read_alone("And again each key from n4 alone").await
    }

    async fn begin(processes: &mut Processes, printer: Printer) -> Result<HandoffDemo<'_>, Failure> {
        let client = steps::begin(processes, &printer, "A cluster of four").await?;
        let nodes = processes.cluster.nodes().to_vec();
        client.admin().create_bucket(BUCKET, BucketProps::default()).await?;
        let (victim, others) = nodes.split_last().ok_or_else(|| Failure::usage("a cluster needs a node"))?;
        let (victim, others) = (*victim, others.to_vec());
        let mut handoff = HandoffDemo { processes, printer, victim, others, keys: Vec::new() };
        handoff.keys = handoff.keys_of_the_victim().await?;
        printer.line(&format!("bucket {BUCKET} keeps 3 copies; {KEYS} keys are chosen of which n4 keeps one"))?;
        Ok(handoff)
    }

    /// Keys whose own copy the victim answers with, before they have a value.
    async fn keys_of_the_victim(&self) -> Result<Vec<String>, Failure> {
        let bucket = self.bucket_at(self.victim).await?;
        let name = self.victim.name();
        let mut keys = Vec::new();
        for first in (0..MOST_TRIED).step_by(AT_ONCE) {
            if keys.len() >= KEYS {
                break;
            }
            let mut reads = JoinSet::new();
            for number in first..first + AT_ONCE {
                let key = format!("note-{number:04}");
                let read = bucket.get(&key).r(1);
                reads.spawn(async move { read.await.map(|read| (key, read.answered)) });
            }
            for read in reads.join_all().await {
                let (key, answered) = read?;
                keys.extend(Some(key).filter(|_| answered.contains(&name)));
            }
        }
        keys.sort();
        keys.truncate(KEYS);
        if keys.len() < KEYS { Err(Failure::usage(format!("{name} owns too few keys"))) } else { Ok(keys) }
    }

    async fn kill(&mut self) -> Result<(), Failure> {
        self.printer.chapter("n4 is killed (kill -9)")?;
        let began = Instant::now();
        self.processes.kill(self.victim).await?;
        let name = self.victim.name();
        for node in self.others.clone() {
            let admin = self.client_at(node).await?.admin();
            steps::until(TIMEOUT, "the others do not miss n4", async || {
                let status = admin.status().await?;
                Ok(status.nodes.iter().all(|of| of.up == (of.name.as_str() != name)).then_some(()))
            })
            .await?;
        }
        self.printer.line(&format!("n1, n2 and n3 know after {:.1} s", began.elapsed().as_secs_f64()))
    }

    /// Writes with w = 3. Only two owners of each key are left, so that a third node has to stand in.
    async fn write(&mut self) -> Result<(), Failure> {
        self.printer.chapter("A thousand writes without n4 (w = 3)")?;
        let bucket = self.bucket_at(self.others[0]).await?;
        let mut acked = 0;
        for keys in self.keys.chunks(AT_ONCE) {
            let mut writes = JoinSet::new();
            for key in keys {
                let write = bucket.put(key, value(key)).blind().w(3);
                writes.spawn(async move { write.await });
            }
            for written in writes.join_all().await {
                acked += usize::from(written?.acked >= 3);
            }
        }
        self.printer.claim(acked == KEYS, "each is acknowledged by three nodes", &format!("{acked} that are"))?;
        let statuses = self.statuses().await?;
        let holding: Vec<String> = statuses.iter().filter(|of| of.holdings > 0).map(held).collect();
        self.printer.claim(
            !holding.is_empty(),
            &format!("the others hold them for n4: {}", holding.join(", ")),
            "no node that holds anything",
        )
    }

    async fn come_back(&mut self) -> Result<(), Failure> {
        self.printer.chapter("n4 comes back")?;
        let before: u64 = self.statuses().await?.iter().map(|of| of.handed_over).sum();
        let id = self.processes.start_one(self.victim)?;
        self.printer.line(&format!("n4 is process {id} now, on the data of before"))?;
        let began = Instant::now();
        let mut progress = Progress::new("n1, n2 and n3 hand over to n4");
        let handed_over = steps::until(TIMEOUT, "not everything was handed over to n4 in time", async || {
            let statuses = self.statuses().await?;
            let done = statuses.iter().map(|of| of.handed_over).sum::<u64>() - before;
            progress.set(done, KEYS as u64);
            Ok(statuses.iter().all(|of| of.holdings == 0).then_some(done))
        });
        let handed_over = handed_over.await?;
        drop(progress);
        let took = began.elapsed().as_secs_f64();
        let claim = format!("after {took:.1} s the others hold nothing for n4 any more");
        self.printer.claim(handed_over == KEYS as u64, &claim, &format!("{handed_over} objects that were handed over"))
    }

    async fn read_alone(&mut self, title: &str) -> Result<(), Failure> {
        self.printer.chapter(title)?;
        let bucket = self.bucket_at(self.victim).await?;
        let mut alone = 0;
        for keys in self.keys.chunks(AT_ONCE) {
            let mut reads = JoinSet::new();
            for key in keys.iter().cloned() {
                reads.spawn(read_back(bucket.clone(), key, self.victim.name()));
            }
            for read in reads.join_all().await {
                alone += usize::from(read?);
            }
        }
        self.printer.claim(alone == KEYS, "n4 has all 1000, with the values that were written", &format!("{alone}"))
    }

    async fn wipe(&mut self) -> Result<(), Failure> {
        self.printer.chapter("n4 loses its disk")?;
        self.processes.kill(self.victim).await?;
        self.processes.wipe(self.victim)?;
        let id = self.processes.start_one(self.victim)?;
        self.printer
            .line(&format!("n4 is killed and its data directory removed; n4 is process {id} now, and empty"))?;
        let began = Instant::now();
        let admin = self.patient_client_at(self.victim).await?.admin();
        let partitions = u64::from(admin.status().await?.partitions);
        let mut progress = Progress::new("n4 is rebuilt");
        steps::until(TIMEOUT, "n4 was not rebuilt in time", async || {
            let exchange = admin.exchange().await?;
            progress.set(partitions - (exchange.incomplete.len() as u64).min(partitions), partitions);
            Ok(exchange.incomplete.is_empty().then_some(()))
        })
        .await?;
        drop(progress);
        self.printer
            .line(&format!("after {:.1} s it is rebuilt, and counts in reads again", began.elapsed().as_secs_f64()))
    }

    /// What the nodes that were not killed have to hand over.
    async fn statuses(&self) -> Result<Vec<ExchangeStatus>, Failure> {
        let mut statuses = Vec::new();
        for node in &self.others {
            statuses.push(self.client_at(*node).await?.admin().exchange().await?);
        }
        Ok(statuses)
    }

    async fn client_at(&self, node: LocalNode) -> Result<Client, Failure> {
        let profile = Profile::load(self.processes.cluster.profile())?;
        Ok(profile.builder().seeds([node.address.to_string()]).pinned().connect().await?)
    }

    /// As [`Self::client_at`], for a node that is starting.
    async fn patient_client_at(&self, node: LocalNode) -> Result<Client, Failure> {
        let not_yet = format!("{} takes no clients", node.name());
        steps::until(TIMEOUT, &not_yet, async || Ok(self.client_at(node).await.ok())).await
    }

    async fn bucket_at(&self, node: LocalNode) -> Result<Bucket<Bytes>, Failure> {
        Ok(self.patient_client_at(node).await?.bucket(BUCKET)?)
    }
}

fn value(key: &str) -> Vec<u8> {
    format!("the text of {key}").into_bytes()
}

/// Whether a node's own copy has the value of a key.
async fn read_back(bucket: Bucket<Bytes>, key: String, node: String) -> Result<bool, Failure> {
    let read = bucket.get(&key).r(1).await?;
    Ok(read.value == Some(value(&key)) && read.answered == [node])
}

fn held(of: &ExchangeStatus) -> String {
    format!("{} in {} partitions", of.node, of.holdings)
}
