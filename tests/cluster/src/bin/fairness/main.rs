//! Measures what one tenant feels of another one that takes all it can get.
//!
//! `cargo xtask fairness [--seconds S] [--turns T] [--connections N] [--case CASE]..`, by default with 10 s for each
//! load, 3 turns, 10 000 connections and all cases. Three nodes in processes of their own serve both tenants. The
//! victim sends at a fixed rate: alone, while the aggressor floods another cluster of three nodes on the same machine,
//! and beside the aggressor, in turns, so that whatever else the machine does meets all three. A time is counted from
//! when an operation was due, and one that failed or came late does not count as done.
//!
//! The aggressor is a process of its own at the lowest priority, but on a machine of few cores what it takes of the
//! processors is not nothing. The other cluster shows how much of the victim's delay is the machine's: no node of it
//! knows of the victim, so what the victim feels of it is what processors, memory, kernel and disk are short of.
#![forbid(unsafe_code)]

mod aggressor;
mod victim;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rejoin_client::Client;
use rejoin_client::admin::{BucketProps, Durability, Scope};
use rejoin_test_cluster::figures::{Table, say};
use rejoin_test_cluster::{Cluster, guests, within};
use rejoin_test_hostile::guests as hostile;

use crate::victim::{Load, Outcome};

/// Operations of the victim a second.
pub(crate) const RATE: u32 = 50;
/// As much more the aggressor offers.
const AGGRESSION: u32 = 100;
/// Descriptors that are left for other things than connections.
const SPARE_DESCRIPTORS: usize = 1_000;
/// Rounds of the slow merge's loop: more than a thousand million units of fuel.
const SLOW_ROUNDS: u32 = 180_000_000;
/// How long the aggressor may take until all of it runs.
const PATIENCE: Duration = Duration::from_secs(600);
/// What nodes are configured with: places for the connections of the aggressor.
const MORE: &str = "max_clients = 24000\nclients_per_token = 20000";
/// The tenants.
const VICTIM: &str = "modest";
const AGGRESSOR: &str = "wild";

/// A way to be a bad neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    Flood,
    SlowMerges,
    LargeValues,
    HotKey,
    Connections,
    Compiles,
}

impl Case {
    const ALL: [Self; 6] =
        [Self::Flood, Self::SlowMerges, Self::LargeValues, Self::HotKey, Self::Connections, Self::Compiles];

    fn name(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::SlowMerges => "slow-merges",
            Self::LargeValues => "large-values",
            Self::HotKey => "hot-key",
            Self::Connections => "connections",
            Self::Compiles => "compiles",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name() == name)
    }

    /// What the victim does beside it, and by how much its p99 may grow.
    fn loads(self) -> &'static [(Load, f64)] {
        match self {
            Self::SlowMerges => &[(Load::Conflicts, 1.5)],
            Self::Compiles => &[(Load::Mixed, 2.0), (Load::Pushes, 2.0)],
            _ => &[(Load::Mixed, 2.0)],
        }
    }

    fn title(self, connections: usize) -> String {
        match self {
            Self::Flood => format!("{AGGRESSION} times the victim's rate"),
            Self::SlowMerges => "six readers of a bucket with a slow merge".to_owned(),
            Self::LargeValues => "four writers and readers of 16 MiB".to_owned(),
            Self::HotKey => "64 writers and readers of one key".to_owned(),
            Self::Connections => format!("{connections} connections, {AGGRESSION} times the rate"),
            Self::Compiles => "eight pushes of new plugins at once".to_owned(),
        }
    }
}

/// What was asked for.
struct Wish {
    seconds: u64,
    turns: u32,
    connections: usize,
    cases: Vec<Case>,
}

impl Wish {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut wish = Self { seconds: 10, turns: 3, connections: 10_000, cases: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u32>().ok().filter(|number| *number > 0);
            let number = number().ok_or_else(|| format!("{word} {value}: not a number above 0"));
            match word.as_str() {
                "--seconds" => wish.seconds = number?.into(),
                "--turns" => wish.turns = number?,
                "--connections" => wish.connections = number? as usize,
                "--case" => {
                    let names = || Case::ALL.map(Case::name).join(", ");
                    let case = Case::of(value).ok_or_else(|| format!("--case {value}: there are {}", names()));
                    wish.cases.push(case?);
                }
                _ => return Err(format!("there is no option {word}")),
            }
        }
        if wish.cases.is_empty() {
            wish.cases = Case::ALL.to_vec();
        }
        Ok(wish)
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == aggressor::VERB) {
        return aggressor::main(&words[1..]);
    }
    let wish = Wish::parse(&words).unwrap_or_else(|why| {
        let usage = "rejoin-bench-fairness [--seconds S] [--turns T] [--connections N] [--case CASE]..";
        panic!("{why}\nUsage: {usage}")
    });
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|why| panic!("{why}"));
    runtime.block_on(run(wish));
}

async fn run(wish: Wish) {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = descriptors.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let connections = wish.connections.min(descriptors.saturating_sub(SPARE_DESCRIPTORS));
    if connections < wish.connections {
        say(&format!("{connections} connections: this process may have {descriptors} file descriptors"));
    }
    let (place, other) = (Place::make().await, Place::make().await);
    let time = Duration::from_secs(wish.seconds);
    let columns = [
        "the aggressor",
        "the victim's",
        "done alone",
        "done beside",
        "kept (target 95 %)",
        "p99 alone",
        "p99, other cluster",
        "p99 beside",
        "of alone (target)",
        "of other cluster",
        "the aggressor had",
    ];
    let mut table = Table::new(&columns);
    for case in wish.cases {
        for (load, target) in case.loads() {
            let (mut alone, mut apart, mut beside) = (Outcome::default(), Outcome::default(), Outcome::default());
            let mut said = String::new();
            for turn in 0..wish.turns {
                let load = |number| place.victim.load(*load, turn * 3 + number, time);
                alone.add(load(0).await);
                let aggressor = Aggressor::start(case, &other.aggressor, connections).await;
                apart.add(load(1).await);
                let _ = aggressor.stop().await;
                let aggressor = Aggressor::start(case, &place.aggressor, connections).await;
                beside.add(load(2).await);
                said = aggressor.stop().await;
            }
            let outcomes = [("alone", &alone), ("beside the other cluster", &apart), ("beside", &beside)];
            for (which, outcome) in outcomes {
                if let Some(why) = &outcome.why {
                    say(&format!(
                        "{}: {} {} failed {which}; the first: {why}",
                        case.name(),
                        outcome.failed,
                        load.name()
                    ));
                }
            }
            let kept = 100.0 * beside.done_per_due() / alone.done_per_due();
            let (before, elsewhere, after) = (alone.p99_ms(), apart.p99_ms(), beside.p99_ms());
            table.row(&[
                case.title(connections),
                load.name().to_owned(),
                format!("{} of {}", alone.done(), alone.due),
                format!("{} of {}", beside.done(), beside.due),
                format!("{kept:.1} %"),
                format!("{before:.1} ms"),
                format!("{elsewhere:.1} ms"),
                format!("{after:.1} ms"),
                format!("{:.2} ({target})", after / before),
                format!("{:.2}", after / elsewhere),
                said,
            ]);
        }
    }
    table.print();
}

/// A cluster with two tenants.
struct Place {
    victim: victim::Victim,
    /// The aggressor's profile.
    aggressor: PathBuf,
    _cluster: Cluster,
}

impl Place {
    async fn make() -> Self {
        let cluster = Cluster::start_with(3, MORE).await;
        let admin = cluster.client().await.admin();
        let mut profiles = Vec::new();
        for tenant in [VICTIM, AGGRESSOR] {
            admin.create_tenant(tenant).await.unwrap_or_else(|why| panic!("{why}"));
            let operator = within(PATIENCE, "every node knows the tenant", async || {
                cluster.builder(0).tenant(tenant).connect().await
            })
            .await;
            let token = operator.admin().create_token("app", Scope::TenantAdmin).await;
            profiles.push(profile(&cluster, tenant, token.unwrap_or_else(|why| panic!("{why}")).text()));
        }
        let (of_victim, of_aggressor) = (connect(&profiles[0]).await, connect(&profiles[1]).await);
        let os = BucketProps { durability: Durability::Os, ..BucketProps::default() };
        make_bucket(&of_victim, "plain", None, os.clone()).await;
        make_bucket(&of_victim, "cart", Some(guests::cart().to_vec()), os.clone()).await;
        make_bucket(&of_aggressor, "plain", None, os.clone()).await;
        make_bucket(&of_aggressor, "slow", Some(hostile::slow(SLOW_ROUNDS)), os.clone()).await;
        make_bucket(&of_aggressor, "large", None, BucketProps { value_bytes: 16 << 20, ..os }).await;
        let victim = victim::Victim::new(of_victim);
        victim.is_served().await;
        Self { victim, aggressor: profiles.swap_remove(1), _cluster: cluster }
    }
}

/// Writes the profile of a tenant.
fn profile(cluster: &Cluster, tenant: &str, token: &str) -> PathBuf {
    let files = &cluster.files;
    let seeds: Vec<String> = files.nodes.iter().map(|(_, address, _)| format!("\"{address}\"")).collect();
    let text = format!("seeds = [{}]\nca = \"ca.pem\"\ntoken = \"{token}\"\n", seeds.join(", "));
    let path = files.dir.join(format!("{tenant}.toml"));
    std::fs::write(&path, text).unwrap_or_else(|why| panic!("{why}"));
    path
}

async fn connect(profile: &Path) -> Client {
    within(PATIENCE, "the nodes let a client in", async || Client::from_profile(profile).await).await
}

async fn make_bucket(client: &Client, name: &str, component: Option<Vec<u8>>, props: BucketProps) {
    let admin = client.admin();
    let mut props = props;
    if let Some(component) = component {
        let plugin = admin.push_plugin(name, component).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        props.plugin = Some(plugin.activation());
    }
    admin.create_bucket(name, props).await.unwrap_or_else(|why| panic!("{name}: {why}"));
}

/// The process of the aggressor.
struct Aggressor {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Aggressor {
    /// Starts it, and waits until all of it runs.
    async fn start(case: Case, profile: &Path, connections: usize) -> Self {
        let this = std::env::current_exe().unwrap_or_else(|why| panic!("{why}"));
        let mut command = Command::new(this);
        command.arg(aggressor::VERB).arg(case.name()).arg(profile);
        command.arg((RATE * AGGRESSION).to_string()).arg(connections.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("the aggressor: {why}"));
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let ready = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let read = said.read_line(&mut line);
            (read.map(|_| line), said)
        });
        let (line, said) = ready.await.unwrap_or_else(|why| panic!("{why}"));
        assert!(line.is_ok_and(|line| line.trim() == aggressor::READY), "the aggressor has ended");
        Self { child, said }
    }

    /// Ends it. Returns what it has had.
    async fn stop(self) -> String {
        let Self { mut child, mut said } = self;
        drop(child.stdin.take());
        let ended = tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            let read = said.read_to_string(&mut rest);
            child.wait().and(read).map(|_| rest)
        });
        let rest = ended.await.unwrap_or_else(|why| panic!("{why}"));
        rest.unwrap_or_else(|why| panic!("the aggressor: {why}")).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Wish, String> {
        Wish::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_understood_or_named() {
        let wish = parse("--seconds 2 --turns 1 --connections 50 --case flood --case compiles").unwrap();
        assert_eq!((wish.seconds, wish.turns, wish.connections), (2, 1, 50));
        assert_eq!(wish.cases, [Case::Flood, Case::Compiles]);
        assert_eq!(parse("").unwrap().cases.len(), Case::ALL.len());
        for (line, says) in [
            ("--seconds", "--seconds needs a value"),
            ("--turns 0", "--turns 0: not a number above 0"),
            ("--case floods", "--case floods: there are flood, slow-merges"),
            ("--fast 1", "there is no option --fast"),
        ] {
            let refused = parse(line).err().unwrap();
            assert!(refused.starts_with(says), "{refused}");
        }
    }
}
