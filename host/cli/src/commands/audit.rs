//! `audit list|verify`: what was asked of the control plane, node by node, and whether the logs are whole.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use rejoin_client::admin::{
    Admin, AuditCommand as Asked, AuditEvent, AuditHash, AuditHead, AuditOutcome, AuditRecord, ChainWalk,
};
use rejoin_proto::hex::hex;
use rejoin_wire::utc_text_ms;

use crate::audit_args::{AuditCommand, KnownHead, ListArgs};
use crate::commands::token::now_ms;
use crate::connect::{nodes, pinned};
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// The log of one node, as it has come.
#[derive(Debug)]
struct Log {
    node: String,
    head: AuditHead,
    records: Vec<AuditRecord>,
    /// What the chain shows first.
    fault: Option<String>,
    notes: Vec<String>,
}

/// A command of a log, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Entry {
    node: String,
    number: u64,
    at_ms: u64,
    by: By,
    /// The tenant that it is about.
    tenant: String,
    verb: String,
    object: String,
    detail: String,
    /// `done`, `refused`, `denied`, `unanswered` (the client went before the answer) or `unknown` (the node stopped
    /// before it could say).
    outcome: &'static str,
    why: Option<String>,
    /// How often it was denied since the denial before in this log.
    times: Option<u32>,
    before: Option<String>,
    after: Option<String>,
    /// That of the record.
    hash: String,
}

/// Who has sent a command.
#[derive(Serialize, Debug)]
struct By {
    tenant: String,
    name: String,
    certificate: bool,
    scope: &'static str,
    from: String,
}

/// A verified log, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Verified {
    node: String,
    /// Why it could not be asked; then the rest is empty.
    error: Option<String>,
    first: u64,
    last: u64,
    /// What is wrong, the first record first; empty if the log is whole.
    faults: Vec<String>,
    /// To be kept somewhere else, for `audit verify --head`.
    head: Option<String>,
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(args) => list(global, out, &args).await,
        AuditCommand::Verify { heads } => verify(global, out, &heads).await,
    }
}

/// The logs of all nodes, or of the one that was named.
async fn logs(global: &GlobalArgs) -> Result<Vec<(String, Result<Log, Failure>)>, Failure> {
    let mut logs = Vec::new();
    for (node, address) in nodes(global).await? {
        let log = async || read(&node, &pinned(global, &address).await?.admin()).await;
        let log = log().await;
        logs.push((node, log));
    }
    Ok(logs)
}

/// Reads the whole log of the node that answers, and walks its chain.
async fn read(node: &str, admin: &Admin) -> Result<Log, Failure> {
    let mut page = admin.audit(1).await?;
    let mut walk = ChainWalk::new(page.head.first, page.head.before);
    let notes = std::mem::take(&mut page.notes);
    let mut log = Log { node: node.to_owned(), head: page.head, records: Vec::new(), fault: None, notes };
    loop {
        log.head = page.head;
        if page.head.first > walk.next() {
            // They have made room since the last page.
            walk = ChainWalk::new(page.head.first, page.head.before);
        }
        for record in &page.records {
            let found = walk.step(record).err().map(|fault| fault.to_string());
            log.fault = log.fault.take().or(found);
        }
        let broken = page.broken.take().map(|why| format!("record {}: {why}", walk.next()));
        log.fault = log.fault.take().or(broken);
        log.records.append(&mut page.records);
        let Some(next) = page.next else { break };
        page = admin.audit(next).await?;
    }
    let end = walk.end(&log.head).err().map(|fault| fault.to_string());
    log.fault = log.fault.take().or(end);
    Ok(log)
}

impl Log {
    fn known_head(&self) -> KnownHead {
        KnownHead { node: self.node.clone(), number: self.head.last, hash: self.head.hash }
    }

    /// Its commands, with what came of them.
    fn entries(&self) -> Vec<Entry> {
        let decoded: Vec<_> = self.records.iter().map(|record| (record, record.entry())).collect();
        let ended: BTreeMap<u64, &AuditOutcome> = decoded
            .iter()
            .filter_map(|(_, entry)| match entry {
                Ok(entry) => match &entry.event {
                    AuditEvent::Ended { asked, outcome } => Some((*asked, outcome)),
                    _ => None,
                },
                Err(_) => None,
            })
            .collect();
        let mut entries = Vec::new();
        for (record, entry) in &decoded {
            let entry = match entry {
                Ok(entry) => entry,
                Err(why) => {
                    note(format!("record {} of {} cannot be read: {why}", record.number, self.node));
                    continue;
                }
            };
            let (command, outcome, why, times, after) = match &entry.event {
                AuditEvent::Ended { .. } => continue,
                AuditEvent::Denied { command, why, times } => {
                    (command, "denied", Some(why.clone()), Some(*times), None)
                }
                AuditEvent::Asked(command) => match ended.get(&record.number) {
                    Some(AuditOutcome::Done { after }) => (command, "done", None, None, *after),
                    Some(AuditOutcome::Refused { why, .. }) => (command, "refused", Some(why.clone()), None, None),
                    Some(AuditOutcome::Unanswered) => (command, "unanswered", None, None, None),
                    None => (command, "unknown", None, None, None),
                },
            };
            let entry = Entry::new((&self.node, record), entry.at_ms, command, after);
            entries.push(Entry { outcome, why, times, ..entry });
        }
        entries
    }

    /// Whether a head that was printed before is still in it. Gives a note if that cannot be told any more.
    ///
    /// # Errors
    /// It is not.
    fn has(&self, known: &KnownHead) -> Result<Option<String>, String> {
        let KnownHead { number, hash, .. } = known;
        if number.saturating_add(1) < self.head.first {
            let first = self.head.first;
            return Ok(Some(format!("{known} cannot be compared: the records before {first} have made room")));
        }
        if number.saturating_add(1) == self.head.first {
            let is_it = *hash == self.head.before;
            return if is_it {
                Ok(None)
            } else {
                Err(format!("what was before record {} is another", self.head.first))
            };
        }
        match self.records.iter().find(|record| record.number == *number) {
            Some(record) if record.hash == *hash => Ok(None),
            Some(_) => Err(format!("record {number} has another hash than was printed before")),
            None => Err(format!("record {number} was there before and is gone; the last one is {}", self.head.last)),
        }
    }
}

impl Entry {
    fn new((node, record): (&str, &AuditRecord), at_ms: u64, asked: &Asked, after: Option<AuditHash>) -> Self {
        let Asked { by, tenant, verb, object, detail, before } = asked.clone();
        let by = By {
            tenant: by.tenant,
            name: by.name,
            certificate: by.certificate,
            scope: by.scope.as_str(),
            from: by.from,
        };
        let (before, after, hash) = (before.map(|hash| hex(&hash)), after.map(|hash| hex(&hash)), hex(&record.hash));
        let (node, number, outcome, why, times) = (node.to_owned(), record.number, "unknown", None, None);
        Self { node, number, at_ms, by, tenant, verb, object, detail, outcome, why, times, before, after, hash }
    }

    /// Whether it is wanted.
    fn passes(&self, args: &ListArgs, tenant: Option<&str>, now_ms: u64) -> bool {
        let by = |wanted: &String| *wanted == self.by.name || *wanted == format!("{}/{}", self.by.tenant, self.by.name);
        let verb = |wanted: &String| self.verb == *wanted || self.verb.split(' ').next() == Some(wanted.as_str());
        let recent = |since: Duration| u128::from(now_ms.saturating_sub(self.at_ms)) <= since.as_millis();
        args.by.as_ref().is_none_or(by)
            && args.verb.as_ref().is_none_or(verb)
            && args.object.as_ref().is_none_or(|wanted| *wanted == self.object)
            && args.since.is_none_or(recent)
            && (!args.refused || matches!(self.outcome, "refused" | "denied"))
            && tenant.is_none_or(|wanted| wanted == self.tenant)
    }

    fn row(&self) -> Vec<String> {
        let by = if self.by.certificate { "certificate" } else { "token" };
        let by = format!("{by} {}/{} at {}", self.by.tenant, self.by.name, self.by.from);
        let object = if self.object.is_empty() { "-" } else { &self.object };
        let detail = if self.detail.is_empty() { String::new() } else { format!(" ({})", self.detail) };
        let times = self.times.filter(|times| *times > 1).map_or_else(String::new, |times| format!(", {times} times"));
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        vec![
            self.node.clone(),
            self.number.to_string(),
            utc_text_ms(self.at_ms),
            by,
            self.tenant.clone(),
            self.verb.clone(),
            format!("{object}{detail}"),
            format!("{}{times}{why}", self.outcome),
        ]
    }
}

async fn list(global: &GlobalArgs, out: Output, args: &ListArgs) -> Result<(), Failure> {
    let (mut entries, mut heads, mut asked) = (Vec::new(), Vec::new(), 0);
    let logs = logs(global).await?;
    let now_ms = now_ms();
    for (node, log) in &logs {
        match log {
            Ok(log) => {
                asked += 1;
                heads.push(log.known_head().to_string());
                let all = log.entries().into_iter();
                entries.extend(all.filter(|entry| entry.passes(args, global.tenant.as_deref(), now_ms)));
                tell(log);
            }
            Err(failure) => note(format!("{node} was not asked: {failure}")),
        }
    }
    entries.sort_by_key(|entry| entry.at_ms);
    if out.json {
        out.json(&entries)?;
    } else {
        let header = ["node", "number", "time", "by", "tenant", "command", "object", "outcome"];
        out.table(&header, entries.iter().map(Entry::row).collect())?;
    }
    if !heads.is_empty() {
        note(format!("keep the heads elsewhere, for `rejoin audit verify --head`: {}", heads.join(" ")));
    }
    match asked {
        0 => Err(Failure::new(Exit::Unreachable, "no node could be asked")),
        _ => Ok(()),
    }
}

/// What there is to say of a log that is not whole.
fn tell(log: &Log) {
    log.notes.iter().for_each(|said| note(format!("{}: {said}", log.node)));
    if let Some(fault) = &log.fault {
        note(format!("the log of {} is not whole: {fault}", log.node));
    }
}

async fn verify(global: &GlobalArgs, out: Output, known: &[KnownHead]) -> Result<(), Failure> {
    let logs = logs(global).await?;
    if let Some(known) = known.iter().find(|known| logs.iter().all(|(node, _)| *node != known.node)) {
        return Err(Failure::usage(format!("{known}: there is no node {} here", known.node)));
    }
    let all: Vec<Verified> = logs.into_iter().map(|(node, log)| Verified::new(node, log, known)).collect();
    if out.json {
        out.json(&all)?;
    } else {
        out.table(&["node", "records", "state", "head"], all.iter().map(Verified::row).collect())?;
    }
    if let Some((node, fault)) = all.iter().find_map(|log| Some((&log.node, log.faults.first()?))) {
        return Err(Failure::new(Exit::Negative, format!("the audit log of {node} is not whole: {fault}")));
    }
    match all.iter().find_map(|log| Some((&log.node, log.error.as_ref()?))) {
        Some((node, why)) => Err(Failure::new(Exit::Unreachable, format!("{node} was not asked: {why}"))),
        None => Ok(()),
    }
}

impl Verified {
    fn new(node: String, log: Result<Log, Failure>, known: &[KnownHead]) -> Self {
        let log = match log {
            Ok(log) => log,
            Err(failure) => {
                let (error, faults) = (Some(failure.to_string()), Vec::new());
                return Self { node, error, first: 0, last: 0, faults, head: None };
            }
        };
        let mut faults: Vec<String> = log.fault.iter().cloned().collect();
        for known in known.iter().filter(|known| known.node == node) {
            match log.has(known) {
                Ok(said) => said.iter().for_each(note),
                Err(fault) => faults.push(fault),
            }
        }
        log.notes.iter().for_each(|said| note(format!("{node}: {said}")));
        let head = Some(log.known_head().to_string());
        Self { node, error: None, first: log.head.first, last: log.head.last, faults, head }
    }

    fn row(&self) -> Vec<String> {
        let records = if self.last < self.first { "none".into() } else { format!("{} to {}", self.first, self.last) };
        let state = match (&self.error, self.faults.is_empty()) {
            (Some(why), _) => format!("not asked: {why}"),
            (None, true) => "whole".to_owned(),
            (None, false) => self.faults.join("; "),
        };
        vec![self.node.clone(), records, state, self.head.clone().unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::{AuditActor, AuditEntry, Scope};

    fn asked(verb: &str, object: &str) -> Asked {
        let by = AuditActor {
            tenant: "shop".into(),
            name: "team".into(),
            certificate: false,
            scope: Scope::TenantAdmin,
            from: "127.0.0.1:9".into(),
        };
        let (verb, object) = (verb.to_owned(), object.to_owned());
        Asked { by, tenant: "shop".into(), verb, object, detail: String::new(), before: None }
    }

    /// A log in which a bucket was made, one was refused, a token list was denied, and the node stopped in a command.
    fn log() -> Log {
        let refused =
            AuditOutcome::Refused { code: rejoin_proto::ErrorCode::Exists, why: "there is such a bucket".into() };
        let denied =
            AuditEvent::Denied { command: asked("token list", ""), why: "may not list tokens".into(), times: 3 };
        let events = [
            AuditEvent::Asked(asked("bucket create", "cart")),
            AuditEvent::Asked(asked("bucket create", "cart")),
            AuditEvent::Ended { asked: 1, outcome: AuditOutcome::Done { after: Some([8; 32]) } },
            AuditEvent::Ended { asked: 2, outcome: refused },
            denied,
            AuditEvent::Asked(asked("token revoke", "app")),
        ];
        let mut head = AuditHead::EMPTY;
        let records = (1..).zip(events).map(|(number, event)| {
            let entry = rejoin_proto::codec::encode(&AuditEntry { at_ms: 1_000 * number, event });
            (head.last, head.hash) = (number, rejoin_proto::audit::link(&head.hash, number, &entry));
            AuditRecord { number, hash: head.hash, entry: entry.into() }
        });
        let records = records.collect();
        Log { node: "n1".into(), head, records, fault: None, notes: Vec::new() }
    }

    #[test]
    fn a_command_is_one_row_with_what_came_of_it() {
        let outcomes: Vec<String> = log().entries().iter().map(|entry| entry.row().join("|")).collect();
        let by = "token shop/team at 127.0.0.1:9|shop";
        let expected = [
            format!("n1|1|1970-01-01 00:00:01.000 UTC|{by}|bucket create|cart|done"),
            format!("n1|2|1970-01-01 00:00:02.000 UTC|{by}|bucket create|cart|refused: there is such a bucket"),
            format!("n1|5|1970-01-01 00:00:05.000 UTC|{by}|token list|-|denied, 3 times: may not list tokens"),
            format!("n1|6|1970-01-01 00:00:06.000 UTC|{by}|token revoke|app|unknown"),
        ];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn filters_leave_what_was_asked_for() {
        let numbers = |args: &ListArgs, tenant: Option<&str>| -> Vec<u64> {
            let entries = log().entries();
            entries.iter().filter(|entry| entry.passes(args, tenant, 6_500)).map(|entry| entry.number).collect()
        };
        let none = || ListArgs { by: None, verb: None, object: None, since: None, refused: false };
        assert_eq!(numbers(&none(), None), [1, 2, 5, 6]);
        assert_eq!(numbers(&none(), Some("other")), [0; 0]);
        for (by, found) in [("team", 4), ("shop/team", 4), ("other", 0), ("other/team", 0)] {
            assert_eq!(numbers(&ListArgs { by: Some(by.into()), ..none() }, Some("shop")).len(), found, "{by}");
        }
        assert_eq!(numbers(&ListArgs { verb: Some("token".into()), ..none() }, None), [5, 6]);
        assert_eq!(numbers(&ListArgs { verb: Some("token revoke".into()), ..none() }, None), [6]);
        assert_eq!(numbers(&ListArgs { object: Some("cart".into()), ..none() }, None), [1, 2]);
        assert_eq!(numbers(&ListArgs { since: Some(Duration::from_secs(2)), ..none() }, None), [5, 6]);
        assert_eq!(numbers(&ListArgs { refused: true, ..none() }, None), [2, 5]);
    }

    #[test]
    fn a_head_that_was_printed_before_is_found_or_missed() {
        let log = log();
        let known = |number: u64, hash| KnownHead { node: "n1".into(), number, hash };
        for record in &log.records {
            assert_eq!(log.has(&known(record.number, record.hash)), Ok(None));
            assert!(log.has(&known(record.number, [1; 32])).unwrap_err().contains("another hash"));
        }
        assert!(log.has(&known(7, [1; 32])).unwrap_err().contains("record 7 was there before and is gone"));
        let mut rotated = log;
        (rotated.head.first, rotated.head.before) = (3, rotated.records[1].hash);
        rotated.records.drain(..2);
        assert_eq!(rotated.has(&known(2, rotated.head.before)), Ok(None));
        assert!(rotated.has(&known(2, [1; 32])).is_err());
        assert!(rotated.has(&known(1, [1; 32])).unwrap().unwrap().contains("have made room"));
    }
}
