//! `layout`: who owns which partitions, and changes of that. `layout_json` has what `--json` prints.

use rejoin_client::admin::{
    Admin, BucketChange, ChangeStatus, LayoutChanges, LayoutNodeStatus, LayoutPlan, LayoutPolicy, LayoutRef,
    LayoutStatus, LayoutStep, NodeChange, PastLayoutStatus, PlannedNode, Role, ZoneDemand,
};
use rejoin_wire::utc_text;

use super::layout_json::{ChangedJson, PastJson, PlanJson, ShowJson};
use crate::connect::connect;
use crate::failure::Failure;
use crate::global::GlobalArgs;
use crate::layout_args::{AssignArgs, LayoutCommand};
use crate::output::{Output, note};

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: LayoutCommand) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    match command {
        LayoutCommand::Show => {
            let status = admin.layout().await?;
            if out.json { out.json(&ShowJson::from(&status)) } else { print_status(out, &status) }
        }
        LayoutCommand::Assign(args) => stage(out, &admin, assigned(args)).await,
        LayoutCommand::Remove { members } => {
            let nodes = members.into_iter().map(NodeChange::Remove).collect();
            stage(out, &admin, LayoutChanges { nodes, ..LayoutChanges::default() }).await
        }
        LayoutCommand::Split => stage(out, &admin, LayoutChanges { split: true, ..LayoutChanges::default() }).await,
        LayoutCommand::Plan => {
            let plan = admin.plan_layout().await?;
            if out.json { out.json(&PlanJson::from(&plan)) } else { print_plan(out, &plan) }
        }
        LayoutCommand::Apply { version, plan } => {
            let newest = admin.apply_layout(LayoutRef { version, hash: plan }).await?;
            let text = format!("layout {} is applied: `rejoin layout show` says how far it has come", newest.version);
            changed(out, newest, text)
        }
        LayoutCommand::Revert => changed(out, admin.revert_layout().await?, "nothing is staged any more".to_owned()),
        LayoutCommand::History => history(out, &admin.layout().await?),
        LayoutCommand::Skip { member, yes } => skip(out, &admin, &member, yes).await,
    }
}

/// `node drain`: a member without capacity owns nothing, and stays a member.
pub(crate) async fn drain(global: &GlobalArgs, out: Output, node: rejoin_client::admin::Name) -> Result<(), Failure> {
    let nodes = vec![NodeChange::Assign { node, zone: None, capacity: Some(0) }];
    stage(out, &connect(global).await?.admin(), LayoutChanges { nodes, ..LayoutChanges::default() }).await
}

fn assigned(args: AssignArgs) -> LayoutChanges {
    let AssignArgs { members, zone, capacity, n, zones } = args;
    let assign = |node| NodeChange::Assign { node, zone: zone.clone(), capacity };
    LayoutChanges { nodes: members.into_iter().map(assign).collect(), n, zones, split: false }
}

async fn stage(out: Output, admin: &Admin, changes: LayoutChanges) -> Result<(), Failure> {
    let newest = admin.stage_layout(changes).await?;
    changed(out, newest, "staged: `rejoin layout plan` shows what that would move".to_owned())
}

fn changed(out: Output, newest: LayoutRef, text: String) -> Result<(), Failure> {
    if out.json { out.json(&ChangedJson::from(newest)) } else { out.line(text) }
}

async fn skip(out: Output, admin: &Admin, node: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        let what = format!(
            "nothing was done. Changes of the layout would not wait for {node} any more. Writes that only {node} has \
             acknowledged are given up: reads of one quorum may miss them. And {node} is refused from then on, until \
             it comes with an empty data directory"
        );
        let next = format!("if {node} will not come back: `rejoin layout skip {node} --yes`");
        return Err(Failure::usage(what).next(next));
    }
    let newest = admin.skip_in_layout(node).await?;
    changed(out, newest, format!("{node} is declared dead: no change that is under way waits for it"))
}

fn history(out: Output, status: &LayoutStatus) -> Result<(), Failure> {
    if out.json {
        return out.json(&status.past.iter().map(PastJson::from).collect::<Vec<_>>());
    }
    let row = |past: &PastLayoutStatus| {
        vec![
            past.name.version.to_string(),
            hash(past.name),
            utc_text(past.layout.applied_ms / 1_000),
            past.by.to_string(),
            past.layout.nodes.to_string(),
            past.layout.moved.to_string(),
            past_text(past),
        ]
    };
    let rows = status.past.iter().map(row).collect();
    out.table(&["version", "hash", "applied", "at node", "members", "copies moved", "of"], rows)
}

/// What a layout has changed.
fn past_text(past: &PastLayoutStatus) -> String {
    match (&past.layout.bucket, past.layout.split) {
        (Some(of), _) => {
            let mode = if of.sloppy { "" } else { ", strict" };
            format!("bucket {}: n = {}{mode}", of.name, of.n)
        }
        (None, Some(partitions)) => format!("split into {partitions} partitions"),
        (None, None) => "nodes".to_owned(),
    }
}

pub(super) fn hash(layout: LayoutRef) -> String {
    format!("{:016x}", layout.hash)
}

pub(super) fn zones(demand: ZoneDemand) -> String {
    match demand {
        ZoneDemand::Spread => "spread".to_owned(),
        ZoneDemand::AtLeast(count) => count.to_string(),
        ZoneDemand::Waived => "any".to_owned(),
    }
}

pub(super) fn step(step: LayoutStep) -> &'static str {
    match step {
        LayoutStep::Acknowledge => "acknowledge",
        LayoutStep::Exchange => "exchange",
        LayoutStep::Read => "read",
    }
}

fn policy_text(policy: LayoutPolicy) -> String {
    let zones = match policy.zones {
        ZoneDemand::Spread => "in as many zones as there are".to_owned(),
        ZoneDemand::AtLeast(count) => format!("in at least {count} zones"),
        ZoneDemand::Waived => "in any zones".to_owned(),
    };
    format!("{} copies {zones}", policy.n)
}

fn role_text(role: &Role) -> String {
    match role {
        Role::Member { zone, capacity: 0 } => format!("drained, in zone {zone}"),
        Role::Member { zone, capacity } => format!("zone {zone}, capacity {capacity}"),
        Role::Removed => "removed".to_owned(),
    }
}

/// What a node is now.
fn state(node: &LayoutNodeStatus) -> String {
    let up = match (node.up, node.dead) {
        (true, _) => "up",
        (false, true) => "declared dead",
        (false, false) => "down",
    };
    match (&node.member, node.in_older) {
        (Some(_), _) => up.to_owned(),
        (None, true) => format!("{up}, leaving"),
        (None, false) => format!("{up}, unassigned"),
    }
}

fn print_status(out: Output, status: &LayoutStatus) -> Result<(), Failure> {
    let Some(newest) = status.live.last() else { return Ok(()) };
    let (version, policy) = (newest.version, policy_text(status.policy));
    let title = format!("layout {version}: {} partitions, {policy}, as {} sees it", status.partitions, status.node);
    out.line(out.bold(&title))?;
    let row = |node: &LayoutNodeStatus| {
        let part = node.member.as_ref().map_or_else(
            || ["-".to_owned(), "-".to_owned(), "-".to_owned()],
            |part| [part.zone.to_string(), part.capacity.to_string(), part.owner_of.to_string()],
        );
        let staged = node.staged.as_ref().map(role_text).unwrap_or_default();
        let ends = [node.address.to_string(), state(node), staged];
        [node.name.to_string()].into_iter().chain(part).chain(ends).collect()
    };
    out.table(
        &["node", "zone", "capacity", "owner of", "address", "state", "staged"],
        status.nodes.iter().map(row).collect(),
    )?;
    for line in remarks(status) {
        out.line(line)?;
    }
    Ok(())
}

/// What there is to say beside the table.
fn remarks(status: &LayoutStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let unassigned: Vec<&LayoutNodeStatus> =
        status.nodes.iter().filter(|node| node.member.is_none() && !node.in_older && node.staged.is_none()).collect();
    if let Some(first) = unassigned.iter().find(|node| node.up) {
        let name = &first.name;
        lines.push(format!(
            "{name} is unassigned: `rejoin layout assign {name} --zone ZONE --capacity COUNT` stages it"
        ));
    }
    if let Some(policy) = status.staged_policy {
        lines.push(format!("staged: {}", policy_text(policy)));
    }
    if let Some(partitions) = status.staged_split {
        lines.push(format!("staged: {partitions} partitions"));
    }
    let is_policy = status.staged_policy.is_some() || status.staged_split.is_some();
    if is_policy || status.nodes.iter().any(|node| node.staged.is_some()) {
        lines
            .push("changes are staged: `rejoin layout plan` shows what they move, `revert` takes them back".to_owned());
    }
    if status.live.len() > 1 {
        let live: Vec<String> =
            status.live.iter().map(|layout| format!("{} ({})", layout.version, hash(*layout))).collect();
        lines.push(format!("live layouts: {}", live.join(", ")));
    }
    lines.extend(status.buckets.iter().map(copies_text));
    if let Some(change) = &status.change {
        lines.extend(change_lines(change));
    }
    lines
}

/// What a change makes of a bucket.
pub(super) fn copies_text(changing: &BucketChange) -> String {
    let BucketChange { name, from, to, .. } = changing;
    let mode = |sloppy| if sloppy { "sloppy" } else { "strict" };
    let mut changes = Vec::new();
    if from.n != to.n {
        changes.push(format!("n = {} becomes {}", from.n, to.n));
    }
    if from.sloppy != to.sloppy {
        changes.push(format!("{} becomes {}", mode(from.sloppy), mode(to.sloppy)));
    }
    format!("bucket {name}: {}", changes.join(", "))
}

/// The step that is under way, and what would unblock it.
pub(super) fn change_lines(change: &ChangeStatus) -> Vec<String> {
    let what = match change.step {
        LayoutStep::Acknowledge => "step 1 of 4, acknowledge: writes go by the new layout too once",
        LayoutStep::Exchange => "step 2 of 4, exchange: the new owners have everything once",
        LayoutStep::Read => "step 3 of 4, read: reads go by the new layout only once",
    };
    let names = |up| {
        let of = change.waits_for.iter().filter(move |node| node.up == up);
        of.map(|node| node.name.to_string()).collect::<Vec<_>>()
    };
    let all = [names(true), names(false)].concat().join(", ");
    let mut lines = vec![format!("{what} {all} {}", if change.waits_for.len() == 1 { "is done" } else { "are done" })];
    if change.step == LayoutStep::Exchange && !names(true).is_empty() {
        lines.push("`rejoin exchange status` says how much is left; a paused exchange goes on by `start`".to_owned());
    }
    for name in names(false) {
        lines.push(format!("{name} is down: start it, or `rejoin layout skip {name}` if it will not come back"));
    }
    lines
}

fn print_plan(out: Output, plan: &LayoutPlan) -> Result<(), Failure> {
    let title = format!("layout {}: {} partitions, {}", plan.name.version, plan.partitions, policy_text(plan.policy));
    out.line(out.bold(&title))?;
    if plan.partitions != plan.partitions_before {
        let (before, after) = (plan.partitions_before, plan.partitions);
        out.line(format!("{before} partitions become {after}: each part keeps the owners of the whole"))?;
    }
    let total = u64::from(plan.partitions) * u64::from(plan.policy.n);
    let share = |owned: u32| format!("{owned} ({:.1} %)", f64::from(owned) * 100.0 / (total.max(1) as f64));
    let row = |node: &PlannedNode| {
        let (zone, capacity) = node.role.as_ref().map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |(zone, capacity)| (zone.to_string(), capacity.to_string()),
        );
        let (gains, loses) = (node.gains.to_string(), node.loses.to_string());
        let counts = [share(node.before), share(node.after), gains, loses, size(node.bytes)];
        [node.name.to_string(), zone, capacity].into_iter().chain(counts).collect()
    };
    let header = ["node", "zone", "capacity", "owner of", "then", "takes", "gives up", "bytes taken"];
    out.table(&header, plan.nodes.iter().map(row).collect())?;
    out.line(format!(
        "{} copies of partitions move; no layout with these shares moves fewer than {}",
        plan.moved, plan.least_moved
    ))?;
    out.line(format!("that takes {} s or longer, and gives way to requests", least_seconds(plan)))?;
    for warning in &plan.warnings {
        note(format!("warning: {warning}"));
    }
    out.line(format!("to do it: rejoin layout apply --version {} --plan {}", plan.name.version, hash(plan.name)))
}

/// How long the node that takes most needs at the configured pace.
pub(super) fn least_seconds(plan: &LayoutPlan) -> u64 {
    let most = plan.nodes.iter().map(|node| node.bytes).max().unwrap_or(0);
    most.div_ceil(plan.pace_bytes.max(1))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::{AwaitedNode, BucketId, CopiesStatus, Name};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_change_says_whom_it_waits_for_and_what_unblocks_it() {
        let node = |at: &str, up| AwaitedNode { name: name(at), up };
        let waits_for = vec![node("n2", false), node("n4", true)];
        let lines = change_lines(&ChangeStatus { step: LayoutStep::Exchange, waits_for });
        assert_eq!(lines[0], "step 2 of 4, exchange: the new owners have everything once n4, n2 are done");
        assert!(lines[1].contains("rejoin exchange status"), "{lines:?}");
        assert_eq!(lines[2], "n2 is down: start it, or `rejoin layout skip n2` if it will not come back");
        let waits_for = vec![node("n4", true)];
        let lines = change_lines(&ChangeStatus { step: LayoutStep::Acknowledge, waits_for });
        assert_eq!(lines, ["step 1 of 4, acknowledge: writes go by the new layout too once n4 is done"]);
    }

    #[test]
    fn other_copies_of_a_bucket_are_named() {
        let (from, to) = (CopiesStatus { n: 3, sloppy: true }, CopiesStatus { n: 5, sloppy: false });
        let changing = BucketChange { bucket: BucketId(1), name: name("cart"), from, to };
        assert_eq!(copies_text(&changing), "bucket cart: n = 3 becomes 5, sloppy becomes strict");
        let more = BucketChange { to: CopiesStatus { n: 5, ..from }, ..changing };
        assert_eq!(copies_text(&more), "bucket cart: n = 3 becomes 5");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!([size(900), size(2_500_000), size(3_000_000_000)], ["0.9 kB", "2.5 MB", "3.0 GB"]);
    }
}
