//! `status`: the cluster as one node sees it.

use std::time::{Duration, Instant};

use rejoin_client::admin::{Holdings, Status};
use rejoin_wire::utc_text;

use crate::args::StatusArgs;
use crate::commands::json::ClusterStatus;
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// How often `--wait-healthy` reads the status.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) async fn status(global: &GlobalArgs, out: Output, args: &StatusArgs) -> Result<(), Failure> {
    let status = if args.wait_healthy { wait_healthy(global, args.wait_for).await? } else { ask(global).await? };
    if out.json {
        out.json(&ClusterStatus::from(&status))?
    } else {
        print(out, &status)?
    }
    match first_problem(&status) {
        // The JSON has the problem already.
        Some(_) if out.json => Err(Failure::silent(Exit::Negative)),
        Some(problem) => Err(Failure::new(Exit::Negative, format!("the cluster is not whole: {problem}"))),
        None => Ok(()),
    }
}

/// How many nodes can fail, as a sentence.
fn can_lose((reads, writes): (i16, i16)) -> String {
    let nodes = |count: i16| if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    match (reads, writes) {
        (0, 0) => "can lose no node without losing reads and writes of some keys".into(),
        (reads, writes) if reads.min(writes) > 0 => {
            format!("can lose {} without losing reads or writes", nodes(reads.min(writes)))
        }
        (..0, ..0) => "some keys can be neither read nor written now".into(),
        (..0, _) => "some keys cannot be read now".into(),
        (_, ..0) => "some keys cannot be written now".into(),
        (0, _) => "can lose no node without losing reads of some keys".into(),
        _ => "can lose no node without losing writes of some keys".into(),
    }
}

/// What the answering node has to hand over and to rebuild, as sentences.
fn work(status: &Status) -> Vec<String> {
    let node = &status.node;
    let count = |count: u64, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    let Holdings { partitions, objects } = &status.holdings;
    let held = (!partitions.is_empty()).then(|| {
        let (objects, partitions) = (count(*objects, "object"), count(partitions.len() as u64, "partition"));
        format!("{node} holds {objects} of {partitions} for their owners")
    });
    let rebuilt = status.rebuild.as_ref().map(|rebuild| {
        let (left, objects) = (rebuild.left.len(), count(rebuild.objects, "object"));
        format!(
            "{node} rebuilds {left} of {}, and has taken {objects} for that ({:.1} MB)",
            count(rebuild.partitions.into(), "partition"),
            rebuild.bytes as f64 / 1e6
        )
    });
    held.into_iter().chain(rebuilt).collect()
}

async fn ask(global: &GlobalArgs) -> Result<Status, Failure> {
    Ok(connect(global).await?.admin().status().await?)
}

/// Polls until the cluster is healthy. Errors of the configuration or the token are permanent, and returned at once.
async fn wait_healthy(global: &GlobalArgs, limit: Duration) -> Result<Status, Failure> {
    let end = Instant::now() + limit;
    loop {
        let still = match ask(global).await {
            Ok(status) => match first_problem(&status) {
                None => return Ok(status),
                Some(problem) => Failure::new(Exit::Retry, problem),
            },
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Retry) => failure,
            Err(failure) => return Err(failure),
        };
        if Instant::now() >= end {
            return Err(still.during(&format!("not healthy after {} s", limit.as_secs())));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The first problem of the cluster, if it has one.
pub(crate) fn first_problem(status: &Status) -> Option<String> {
    let down: Vec<&str> = status.nodes.iter().filter(|node| !node.up).map(|node| node.name.as_str()).collect();
    if !down.is_empty() {
        return Some(format!("not reached by {}: {}", status.node, down.join(", ")));
    }
    let replaced: Vec<&str> = status.nodes.iter().filter(|node| node.replaced).map(|node| node.name.as_str()).collect();
    if !replaced.is_empty() {
        return Some(format!(
            "the data directory of {} was replaced by an empty one: reads do not count it",
            replaced.join(", ")
        ));
    }
    if !status.missing_plugins.is_empty() {
        return Some(format!("{} has not fetched {} plugin(s) yet", status.node, status.missing_plugins.len()));
    }
    status.lost.first().or(status.problems.first()).cloned()
}

fn print(out: Output, status: &Status) -> Result<(), Failure> {
    let (up, all) = (status.nodes.iter().filter(|node| node.up).count(), status.nodes.len());
    let version = status.layout.version;
    out.line(out.bold(&format!(
        "{up} of {all} nodes up, {} partitions, layout {version}, as {} sees it",
        status.partitions, status.node
    )))?;
    let row = |node: &rejoin_client::admin::NodeStatus| {
        let up = match (node.up, node.replaced) {
            (false, _) => "down",
            (true, true) => "up, without its data",
            (true, false) => "up",
        };
        let share = [node.first_owner_of.to_string(), node.owner_of.to_string()];
        [node.name.to_string(), node.zone.to_string(), node.address.to_string(), up.into()]
            .into_iter()
            .chain(share)
            .collect()
    };
    out.table(
        &["node", "zone", "address", "state", "first owner of", "owner of"],
        status.nodes.iter().map(row).collect(),
    )?;
    let until = |ms: u64| utc_text(ms / 1_000);
    let (own, authority) = (until(status.certificate_until_ms), until(status.authority_until_ms));
    out.line(format!("{}'s certificate is valid until {own}, its authority's until {authority}", status.node))?;
    if let Some(spare) = status.spare {
        out.line(can_lose(spare))?;
    }
    for line in work(status) {
        out.line(line)?;
    }
    for warning in &status.warnings {
        note(format!("warning: {warning}"));
    }
    for lost in &status.lost {
        note(format!("this replica has lost data: {lost}"));
    }
    for problem in &status.problems {
        note(problem);
    }
    for digest in &status.missing_plugins {
        note(format!("{} does not have plugin {digest} yet and fetches it from a peer", status.node));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_lost_is_one_line() {
        assert_eq!(can_lose((1, 2)), "can lose 1 node without losing reads or writes");
        assert_eq!(can_lose((2, 2)), "can lose 2 nodes without losing reads or writes");
        assert_eq!(can_lose((0, 0)), "can lose no node without losing reads and writes of some keys");
        assert_eq!(can_lose((2, 0)), "can lose no node without losing writes of some keys");
        assert_eq!(can_lose((0, 2)), "can lose no node without losing reads of some keys");
        assert_eq!(can_lose((1, -1)), "some keys cannot be written now");
        assert_eq!(can_lose((-1, 1)), "some keys cannot be read now");
        assert_eq!(can_lose((-1, -2)), "some keys can be neither read nor written now");
    }
}
