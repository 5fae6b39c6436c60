//! `exchange`: what the nodes still have to make equal, and whether they do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use rejoin_client::admin::{ExchangePair, ExchangeStatus};

use crate::args::ExchangeCommand;
use crate::connect::{nodes, pinned};
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::progress::Progress;

/// How often `--watch` asks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What one node said, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Asked {
    node: String,
    /// Why it could not be asked; then the rest is empty.
    error: Option<String>,
    paused: bool,
    pairs: Vec<Pair>,
    /// Partitions in which its copies do not count in reads until they are rebuilt.
    incomplete: Vec<u16>,
    /// Partitions of which it holds objects for their owners.
    holdings: u32,
    handed_over: u64,
}

/// A partition and another owner of it.
#[derive(Serialize, Debug)]
struct Pair {
    partition: u16,
    with: String,
    /// Since when both were last found equal; null if they were not since they met.
    equal_ago_ms: Option<u64>,
    differs: bool,
    walking: bool,
    failures: u32,
    sent: u64,
    received: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

impl From<&ExchangePair> for Pair {
    fn from(pair: &ExchangePair) -> Self {
        Self {
            partition: pair.partition.0,
            with: pair.peer.to_string(),
            equal_ago_ms: pair.equal_ago_ms,
            differs: pair.differs,
            walking: pair.walking,
            failures: pair.failures,
            sent: pair.sent,
            received: pair.received,
            sent_bytes: pair.sent_bytes,
            received_bytes: pair.received_bytes,
        }
    }
}

impl Pair {
    /// Whether both still have to be made equal, or compared for the first time.
    fn is_open(&self) -> bool {
        self.differs || self.equal_ago_ms.is_none()
    }
}

impl Asked {
    fn new(node: &str, answer: Result<ExchangeStatus, Failure>) -> Self {
        let node = node.to_owned();
        match answer {
            Ok(status) => Self {
                node,
                error: None,
                paused: status.paused,
                pairs: status.pairs.iter().map(Pair::from).collect(),
                incomplete: status.incomplete.iter().map(|partition| partition.0).collect(),
                holdings: status.holdings,
                handed_over: status.handed_over,
            },
            Err(failure) => {
                let (error, pairs, incomplete) = (Some(failure.to_string()), Vec::new(), Vec::new());
                Self { node, error, paused: false, pairs, incomplete, holdings: 0, handed_over: 0 }
            }
        }
    }

    /// Pairs of partition and peer that are left to be made equal, and of how many.
    fn left(&self) -> (usize, usize) {
        (self.pairs.iter().filter(|pair| pair.is_open()).count(), self.pairs.len())
    }
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: &ExchangeCommand) -> Result<(), Failure> {
    match command {
        ExchangeCommand::Status { watch } => status(global, out, *watch).await,
        ExchangeCommand::Start => set(global, out, false).await,
        ExchangeCommand::Pause => set(global, out, true).await,
    }
}

async fn status(global: &GlobalArgs, out: Output, watch: bool) -> Result<(), Failure> {
    let nodes = nodes(global).await?;
    let mut answers = ask_all(global, &nodes).await;
    if watch {
        let mut progress = Progress::new("partitions made equal");
        loop {
            let sums = answers.iter().map(Asked::left).fold((0, 0), |(left, all), of| (left + of.0, all + of.1));
            let (left, all) = (sums.0 as u64, sums.1 as u64);
            progress.set(all - left, all);
            let done = left == 0 && answers.iter().all(|answer| answer.incomplete.is_empty() && answer.holdings == 0);
            if done || answers.iter().all(|answer| answer.error.is_some()) {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            answers = ask_all(global, &nodes).await;
        }
    }
    print(out, &answers)?;
    reached(&answers)
}

async fn ask_all(global: &GlobalArgs, nodes: &[(String, String)]) -> Vec<Asked> {
    let mut answers = Vec::new();
    for (node, address) in nodes {
        let ask = async || Ok(pinned(global, address).await?.admin().exchange().await?);
        answers.push(Asked::new(node, ask().await));
    }
    answers
}

/// Pauses or starts the exchange of every node that can be asked.
async fn set(global: &GlobalArgs, out: Output, paused: bool) -> Result<(), Failure> {
    let mut answers = Vec::new();
    for (node, address) in nodes(global).await? {
        let set = async || Ok(pinned(global, &address).await?.admin().pause_exchange(paused).await?);
        answers.push(Asked::new(&node, set().await));
    }
    if out.json {
        out.json(&answers)?;
    } else {
        let done = answers.iter().filter(|answer| answer.error.is_none()).map(|answer| answer.node.as_str());
        let done: Vec<&str> = done.collect();
        if !done.is_empty() {
            out.line(format!("{} on {}", if paused { "paused" } else { "started" }, done.join(", ")))?;
        }
        not_asked(&answers);
    }
    if answers.iter().any(|answer| answer.error.is_some()) {
        return Err(Failure::new(Exit::Unreachable, "not every node was told: try again when it is up"));
    }
    Ok(())
}

fn print(out: Output, answers: &[Asked]) -> Result<(), Failure> {
    if out.json {
        return out.json(&answers);
    }
    let header = ["node", "with", "partitions", "open", "sent", "received", "all equal"];
    out.table(&header, answers.iter().flat_map(rows).collect())?;
    for line in answers.iter().flat_map(lines) {
        out.line(line)?;
    }
    not_asked(answers);
    Ok(())
}

fn not_asked(answers: &[Asked]) {
    for answer in answers {
        answer.error.iter().for_each(|why| note(format!("{} was not asked: {why}", answer.node)));
    }
}

fn reached(answers: &[Asked]) -> Result<(), Failure> {
    match answers.iter().all(|answer| answer.error.is_some()) {
        true => Err(Failure::new(Exit::Unreachable, "no node could be asked")),
        false => Ok(()),
    }
}

/// One row for each peer of a node.
fn rows(answer: &Asked) -> Vec<Vec<String>> {
    let mut peers: BTreeMap<&str, Vec<&Pair>> = BTreeMap::new();
    for pair in &answer.pairs {
        peers.entry(&pair.with).or_default().push(pair);
    }
    let row = |(peer, pairs): (&str, Vec<&Pair>)| {
        let open = pairs.iter().filter(|pair| pair.is_open()).count();
        let sum = |of: fn(&Pair) -> u64| pairs.iter().map(|pair| of(pair)).sum::<u64>();
        let moved = |count: u64, bytes: u64| format!("{count} ({:.1} MB)", bytes as f64 / 1e6);
        let sent = moved(sum(|pair| pair.sent), sum(|pair| pair.sent_bytes));
        let received = moved(sum(|pair| pair.received), sum(|pair| pair.received_bytes));
        let oldest = pairs.iter().map(|pair| pair.equal_ago_ms).collect::<Option<Vec<u64>>>();
        let equal = match oldest.and_then(|ages| ages.into_iter().max()) {
            Some(age) if open == 0 => format!("{:.1} s ago", age as f64 / 1e3),
            _ => "not yet".to_owned(),
        };
        vec![answer.node.clone(), peer.to_owned(), pairs.len().to_string(), open.to_string(), sent, received, equal]
    };
    peers.into_iter().map(row).collect()
}

/// What there is to say beside the rows.
fn lines(answer: &Asked) -> Vec<String> {
    let node = &answer.node;
    let partitions = |count: usize| if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") };
    let mut lines = Vec::new();
    if answer.paused {
        lines.push(format!("the exchange of {node} is paused: `rejoin exchange start` goes on"));
    }
    if answer.holdings > 0 {
        let what = partitions(answer.holdings as usize);
        let done = answer.handed_over;
        lines.push(format!("{node} holds objects of {what} for their owners, and has handed over {done}"));
    }
    if !answer.incomplete.is_empty() {
        let what = partitions(answer.incomplete.len());
        lines.push(format!("{node} rebuilds {what}, which do not count in reads until then"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        let pair = |partition, with: &str, differs, equal_ago_ms| Pair {
            partition,
            with: with.into(),
            equal_ago_ms,
            differs,
            walking: differs,
            failures: 0,
            sent: 2,
            received: 3,
            sent_bytes: 1_000_000,
            received_bytes: 2_500_000,
        };
        let pairs = vec![
            pair(0, "n2", true, Some(4_200)),
            pair(1, "n2", false, Some(900)),
            pair(0, "n3", false, None),
            pair(0, "n4", false, Some(1_200)),
        ];
        let incomplete = vec![1, 2];
        Asked { node: "n1".into(), error: None, paused: true, pairs, incomplete, holdings: 1, handed_over: 9 }
    }

    #[test]
    fn a_row_sums_up_a_peer_and_open_is_what_differs_or_was_never_equal() {
        let rows: Vec<String> = rows(&asked()).into_iter().map(|row| row.join("|")).collect();
        let expected = [
            "n1|n2|2|1|4 (2.0 MB)|6 (5.0 MB)|not yet",
            "n1|n3|1|1|2 (1.0 MB)|3 (2.5 MB)|not yet",
            "n1|n4|1|0|2 (1.0 MB)|3 (2.5 MB)|1.2 s ago",
        ];
        assert_eq!(rows, expected);
        assert_eq!(asked().left(), (2, 4));
        let lines = lines(&asked());
        assert!(
            lines.len() == 3 && lines[1].contains("1 partition for") && lines[2].contains("2 partitions"),
            "{lines:?}"
        );
    }
}
