//! `node list`: what every node thinks of every other one.

use serde::Serialize;

use rejoin_client::admin::{Doubt, Liveness, MemberView};

use crate::connect::{builder, connect};
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// What one node said, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Asked {
    node: String,
    /// Why it could not be asked; then `members` is empty.
    error: Option<String>,
    members: Vec<Member>,
}

/// What it thinks of another one.
#[derive(Serialize, Debug)]
struct Member {
    node: String,
    /// `alive`, `suspect` or `down`.
    liveness: &'static str,
    for_ms: u64,
    /// `not_connected`, `probes`, `requests` or `gossip`; null if it is alive.
    reason: Option<&'static str>,
    /// Whose word it took, if the reason is gossip.
    told_by: Option<String>,
    phi: f64,
    probe_answered_ms: Option<u64>,
    request_answered_ms: Option<u64>,
    gossip: &'static str,
}

impl From<&MemberView> for Member {
    fn from(view: &MemberView) -> Self {
        let (reason, told_by) = match &view.doubt {
            None => (None, None),
            Some(Doubt::NotConnected) => (Some("not_connected"), None),
            Some(Doubt::Probes) => (Some("probes"), None),
            Some(Doubt::Requests) => (Some("requests"), None),
            Some(Doubt::Gossip(by)) => (Some("gossip"), Some(by.to_string())),
        };
        Self {
            node: view.node.to_string(),
            liveness: word(view.liveness),
            for_ms: view.for_ms,
            reason,
            told_by,
            phi: view.phi_milli as f64 / 1e3,
            probe_answered_ms: view.probe_answered_ms,
            request_answered_ms: view.request_answered_ms,
            gossip: word(view.gossip),
        }
    }
}

fn word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}

pub(crate) async fn list(global: &GlobalArgs, out: Output) -> Result<(), Failure> {
    let status = connect(global).await?.admin().status().await?;
    // A node that was named is asked alone.
    let asked = status.nodes.iter().filter(|node| global.node.is_none() || node.name == status.node);
    let mut answers = Vec::new();
    for node in asked {
        let answer = ask(global, &node.address.to_string()).await;
        let (members, error) = match answer {
            Ok(views) => (views.iter().map(Member::from).collect(), None),
            Err(failure) => (Vec::new(), Some(failure.to_string())),
        };
        answers.push(Asked { node: node.name.to_string(), error, members });
    }
    if out.json {
        out.json(&answers)?;
    } else {
        let rows = answers.iter().flat_map(|answer| answer.members.iter().map(|member| row(&answer.node, member)));
        out.table(&["node", "of", "says", "for", "why", "last probe", "last request"], rows.collect())?;
    }
    for answer in answers.iter().filter(|_| !out.json) {
        answer.error.iter().for_each(|why| note(format!("{} was not asked: {why}", answer.node)));
    }
    match answers.iter().all(|answer| answer.error.is_some()) {
        true => Err(Failure::new(Exit::Unreachable, "no node could be asked")),
        false => Ok(()),
    }
}

async fn ask(global: &GlobalArgs, address: &str) -> Result<Vec<MemberView>, Failure> {
    let client = builder(global)?.seeds([address]).pinned().connect().await?;
    Ok(client.admin().members().await?)
}

fn row(by: &str, member: &Member) -> Vec<String> {
    let ago = |age: Option<u64>| age.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", seconds(ms)));
    let why = match (member.reason, &member.told_by) {
        (None, _) => String::new(),
        (Some("not_connected"), _) => "not connected".to_owned(),
        (Some("gossip"), Some(by)) => format!("{by} says so"),
        (Some(what), _) => format!("{what} are not answered, phi {:.1}", member.phi),
    };
    let (says, since) = (member.liveness.to_owned(), seconds(member.for_ms));
    vec![
        by.to_owned(),
        member.node.clone(),
        says,
        since,
        why,
        ago(member.probe_answered_ms),
        ago(member.request_answered_ms),
    ]
}

fn seconds(ms: u64) -> String {
    match ms {
        ..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::Name;

    fn view(liveness: Liveness, doubt: Option<Doubt>) -> MemberView {
        MemberView {
            node: Name::new("n2").unwrap(),
            liveness,
            for_ms: 3_400,
            doubt,
            phi_milli: 8_250,
            probe_answered_ms: Some(125_000),
            request_answered_ms: None,
            gossip: Liveness::Alive,
        }
    }

    #[test]
    fn a_row_says_since_when_and_why() {
        let shown = |doubt| row("n1", &Member::from(&view(Liveness::Down, doubt))).join("|");
        assert_eq!(shown(Some(Doubt::Probes)), "n1|n2|down|3.4 s|probes are not answered, phi 8.2|2 min ago|never");
        assert_eq!(shown(Some(Doubt::NotConnected)), "n1|n2|down|3.4 s|not connected|2 min ago|never");
        let gossip = Some(Doubt::Gossip(Name::new("n3").unwrap()));
        assert_eq!(shown(gossip), "n1|n2|down|3.4 s|n3 says so|2 min ago|never");
        assert_eq!(row("n1", &Member::from(&view(Liveness::Alive, None)))[4], "");
    }
}
