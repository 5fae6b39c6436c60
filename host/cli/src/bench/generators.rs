//! Several processes for one load, where one cannot offer as much as is wanted. This process starts itself again for
//! each, with a share of the load. They say when they are ready, begin at the same word, and hand over histograms as
//! JSON, which are added up.

use std::ffi::OsString;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::args::{BenchArgs, Plan, RunLength};
use super::record::Share;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::Output;
use crate::values::DurabilityArg;

/// What a generator says when its clients are connected and its keys written.
const READY: &str = "ready";
/// What it is told to begin.
const GO: &str = "go";

/// The part of a load that one process takes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Portion {
    rate: Option<u32>,
    operations: Option<u64>,
    clients: u32,
    connections: u32,
    keys: u32,
    prefix: String,
}

/// What the generators put their load on.
pub(crate) enum LoadTarget<'a> {
    /// The bucket, and the profile where it is not that of the environment.
    Cluster { bucket: &'a str, profile: Option<OsString> },
    /// What the options say.
    Other,
}

/// Divides a load. All parts together are the whole; only connections are at least one each.
fn portions(plan: &Plan, args: &BenchArgs) -> Vec<Portion> {
    let portion = |number: u32| {
        let part = |whole: u64| {
            let parts = u64::from(args.processes);
            whole / parts + u64::from(u64::from(number) < whole % parts)
        };
        let small = |whole: u32| u32::try_from(part(whole.into())).unwrap_or(u32::MAX);
        Portion {
            rate: plan.rate.map(small),
            operations: match plan.length {
                RunLength::Operations(operations) => Some(part(operations)),
                RunLength::Time(_) => None,
            },
            clients: small(plan.clients),
            connections: small(args.connections).max(1),
            keys: small(plan.keys),
            prefix: format!("{}{number}-", plan.prefix),
        }
    };
    (0..args.processes).map(portion).collect()
}

/// The command line of a generator.
fn line(global: &GlobalArgs, args: &BenchArgs, plan: &Plan, portion: &Portion, target: &LoadTarget) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["bench".into(), format!("{:?}", plan.mode).to_lowercase().into()];
    let mut option = |name: &str, value: OsString| words.extend([OsString::from(name), value]);
    option("--generator", portion.prefix.clone().into());
    option("--clients", portion.clients.to_string().into());
    option("--keys", portion.keys.to_string().into());
    option("--value-bytes", plan.value_bytes.to_string().into());
    option("--reads", plan.reads.to_string().into());
    let warm_up = plan.warm_up.as_millis();
    option("--warm-up", if warm_up == 0 { "none".into() } else { format!("{warm_up}ms").into() });
    match portion.operations {
        Some(operations) => option("--operations", operations.to_string().into()),
        None => option("--seconds", args.seconds.to_string().into()),
    }
    if let Some(rate) = portion.rate {
        option("--rate", rate.to_string().into());
    }
    if let Some(deadline) = plan.deadline {
        option("--deadline", format!("{}ms", deadline.as_millis()).into());
    }
    option("--timeout", format!("{}ms", global.timeout.as_millis()).into());
    if let Some(redis) = args.redis {
        option("--redis", redis.to_string().into());
        option("--wait", args.wait.to_string().into());
    }
    args.etcd.iter().for_each(|member| option("--etcd", member.to_string().into()));
    if let LoadTarget::Cluster { bucket, profile } = target {
        option("--bucket", bucket.into());
        let durability = match args.durability {
            DurabilityArg::Fsync => "fsync",
            DurabilityArg::Os => "os",
        };
        option("--durability", durability.into());
        option("--connections", portion.connections.to_string().into());
        for (name, value) in [("--node", &global.node), ("--tenant", &global.tenant)] {
            if let Some(value) = value {
                option(name, value.into());
            }
        }
        if let Some(profile) = profile {
            option("--profile", profile.clone());
        }
    }
    words
}

/// The processes. They end when this is dropped, and with the thread that started them.
pub(crate) struct Generators(Vec<Generator>);

struct Generator {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Generators {
    /// Starts all, and waits until each is ready.
    ///
    /// # Errors
    /// One cannot be started, or ends before it is ready; it has said why on stderr.
    pub(crate) async fn start(
        global: &GlobalArgs,
        args: &BenchArgs,
        plan: &Plan,
        target: &LoadTarget<'_>,
    ) -> Result<Self, Failure> {
        let rejoin = std::env::current_exe()
            .map_err(|why| Failure::usage(format!("the path of this program cannot be found: {why}")))?;
        let mut running = Vec::new();
        for portion in portions(plan, args) {
            let mut command = Command::new(&rejoin);
            command.args(line(global, args, plan, &portion, target));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            // Ctrl-C must reach this process only, which then drops them.
            command.process_group(0);
            let mut child = command.spawn().map_err(|why| Failure::file(&rejoin, "started", &why))?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(Failure::usage("a generator process has no pipes"));
            };
            running.push(Generator { child, stdin, stdout: BufReader::new(stdout) });
        }
        for generator in &mut running {
            let mut said = String::new();
            let read = generator.stdout.read_line(&mut said).await;
            if read.is_err() || said.trim_end() != READY {
                return Err(ended("before it was ready"));
            }
        }
        Ok(Self(running))
    }

    /// Lets all begin.
    ///
    /// # Errors
    /// One is gone.
    pub(crate) async fn go(&mut self) -> Result<(), Failure> {
        for generator in &mut self.0 {
            let said = generator.stdin.write_all(format!("{GO}\n").as_bytes()).await;
            said.map_err(|_| ended("before the load"))?;
        }
        Ok(())
    }

    /// What each has recorded, once all have ended.
    ///
    /// # Errors
    /// One has failed; it has said why on stderr.
    pub(crate) async fn shares(self) -> Result<Vec<Share>, Failure> {
        let mut shares = Vec::new();
        for mut generator in self.0 {
            let mut said = String::new();
            let read = generator.stdout.read_to_string(&mut said).await;
            let status = generator.child.wait().await;
            if read.is_err() || !status.is_ok_and(|status| status.success()) {
                return Err(ended("during the load"));
            }
            let share = serde_json::from_str(&said);
            shares.push(share.map_err(|why| Failure::usage(format!("a generator process gave no figures: {why}")))?);
        }
        Ok(shares)
    }
}

fn ended(when: &str) -> Failure {
    Failure::new(Exit::Negative, format!("a generator process has ended {when}: its message is above"))
}

/// In a generator: says that it is ready, and waits for the word to begin.
///
/// # Errors
/// The process that started it is gone.
pub(crate) async fn wait_for_go(out: Output) -> Result<(), Failure> {
    out.line(READY)?;
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    match line.await {
        Ok(Ok(line)) if line.trim_end() == GO => Ok(()),
        _ => Err(Failure::new(Exit::Negative, "a generator waits for the process that started it, which is gone")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parsed(line: &str) -> (Line, Plan) {
        let line = Line::try_parse_from(format!("bench {line}").split_whitespace()).unwrap();
        let plan = Plan::of(&line.bench, &line.global).unwrap_or_else(|why| panic!("{why}"));
        (line, plan)
    }

    #[test]
    fn the_portions_of_a_load_are_the_whole_of_it() {
        let (line, plan) =
            parsed("mixed --rate 1000 --clients 65 --keys 103 --connections 2 --operations 11 --processes 3");
        let portions = portions(&plan, &line.bench);
        let each = |of: fn(&Portion) -> u64| portions.iter().map(of).collect::<Vec<_>>();
        assert_eq!(each(|portion| portion.rate.unwrap().into()), [334, 333, 333]);
        assert_eq!(each(|portion| portion.clients.into()), [22, 22, 21]);
        assert_eq!(each(|portion| portion.keys.into()), [35, 34, 34]);
        assert_eq!(each(|portion| portion.operations.unwrap()), [4, 4, 3]);
        assert_eq!(each(|portion| portion.connections.into()), [1, 1, 1]);
        assert!(portions.iter().all(|portion| portion.keys >= portion.clients), "each client has keys of its own");
        assert_ne!(portions[0].prefix, portions[1].prefix);
        let (line, plan) = parsed("put --processes 2");
        let portions = super::portions(&plan, &line.bench);
        assert!(portions.iter().all(|portion| portion.rate.is_none() && portion.operations.is_none()));
    }

    #[test]
    fn a_generator_is_told_its_portion_and_reads_it_again() {
        let (all, plan) = parsed(
            "put --rate 10 --clients 4 --deadline 300ms --warm-up none --seconds 7 --processes 2 --durability os \
                --profile p.toml --tenant shop --value-bytes 9",
        );
        let target = LoadTarget::Cluster { bucket: "b", profile: Some("p.toml".into()) };
        let words = line(&all.global, &all.bench, &plan, &portions(&plan, &all.bench)[1], &target);
        let text: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let (read, again) = parsed(&text[1..].join(" "));
        assert_eq!((again.rate, again.clients, again.keys, again.value_bytes), (Some(5), 2, 5_000, 9));
        assert_eq!((again.deadline, again.warm_up, again.length), (plan.deadline, plan.warm_up, plan.length));
        assert_eq!(again.prefix, format!("{}1-", plan.prefix));
        assert_eq!((read.bench.bucket.as_deref(), read.bench.durability), (Some("b"), DurabilityArg::Os));
        assert_eq!((read.global.tenant.as_deref(), read.global.profile), (Some("shop"), Some("p.toml".into())));

        let (all, plan) = parsed("get --etcd 127.0.0.1:1 --etcd 127.0.0.1:2 --processes 2 --timeout 2s");
        let words = line(&all.global, &all.bench, &plan, &portions(&plan, &all.bench)[0], &LoadTarget::Other);
        let text: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let (read, again) = parsed(&text[1..].join(" "));
        assert_eq!((read.bench.etcd, again.timeout), (all.bench.etcd, plan.timeout));
        assert!(!text.contains(&"--bucket") && !text.contains(&"--profile"));
    }
}
