//! The options of `bench`, and which of them can be combined.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::Failure;
use crate::global::GlobalArgs;
use crate::values::{DurabilityArg, duration};

/// The largest value of a bucket with the default properties.
const MAX_VALUE_BYTES: usize = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  rejoin bench put --dev 3                       the peak of synced writes on three processes of this machine
  rejoin bench mixed --dev 3 --rate 5000 --seconds 300 --durability os
  rejoin bench get --profile profile.toml --metrics 10.0.0.1:9000 --json
  rejoin bench put --dev 3 --rate 300000 --deadline 1s --clients 8000 --processes 2
                                                 far more than it can do: what is answered in time, what is refused

Without --rate each client sends its next operation when the last is answered, which finds the peak. With it operations are due at fixed
times, and latency counts from when one was due, so that a stall shows in every operation that it held up.";

/// The options of `rejoin bench`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// The kind of operations
    #[arg(value_enum)]
    pub(crate) mode: Mode,
    /// Start a private cluster of this many processes in a temporary directory, and remove it afterwards
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u8).range(1..=9), conflicts_with_all = ["redis", "etcd", "pid", "metrics", "disk"])]
    pub(crate) dev: Option<u8>,
    /// What an acknowledged write promises: fsync survives a loss of power, os the end of the process
    #[arg(long, value_enum, default_value = "fsync", conflicts_with_all = ["redis", "etcd"])]
    pub(crate) durability: DurabilityArg,
    /// Operations per second at fixed times, instead of as many as possible
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
    /// How long after it was due an operation has to be answered to count as goodput, such as 500ms or 1s. One that no
    /// client is free to begin within a tenth of it is not sent. It takes the place of --timeout
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "rate")]
    pub(crate) deadline: Option<Duration>,
    /// Concurrent operations
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) clients: u32,
    /// SDK clients that share the --clients, each with a connection to every node; Redis and etcd get one connection
    /// for each of --clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024), conflicts_with_all = ["redis", "etcd"])]
    pub(crate) connections: u32,
    /// Processes that share rate, clients, connections and keys, where one cannot offer as much as is wanted
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,
    /// Size of a value
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    pub(crate) value_bytes: usize,
    /// Number of keys, chosen uniformly [default: 10000, for conflict 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) keys: Option<u32>,
    /// Share of reads in mixed and conflict
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    /// Seconds to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Operations to measure, instead of --seconds
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) operations: Option<u64>,
    /// Time before the measurement starts, such as 500ms or 5s, or none
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = warm_up)]
    pub(crate) warm_up: WarmUp,
    /// The bucket, made if it does not exist [default: one named after mode and durability]
    #[arg(long, conflicts_with_all = ["redis", "etcd"])]
    pub(crate) bucket: Option<String>,
    /// Put the same load (put, get or mixed) on a Redis server
    #[arg(long, value_name = "ADDR", conflicts_with = "etcd")]
    pub(crate) redis: Option<SocketAddr>,
    /// Put the same load on etcd, through the JSON gateway of this member; repeated for several, which share the
    /// clients
    #[arg(long, value_name = "ADDR")]
    pub(crate) etcd: Vec<SocketAddr>,
    /// Follow every write to Redis with a WAIT for this many replicas
    #[arg(long, value_name = "REPLICAS", requires = "redis", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) wait: u8,
    /// A server process on this machine, whose CPU time and memory are measured; may be repeated. --dev measures its
    /// own
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// The admin address of a node, whose flushes, compactions and merges are shown; may be repeated. --dev asks its
    /// own
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["redis", "etcd"])]
    pub(crate) metrics: Vec<SocketAddr>,
    /// A directory on the servers' disk, where an fdatasync of 4 KiB is timed ten times a second during the run. --dev
    /// uses its own
    #[arg(long, value_name = "DIR")]
    pub(crate) disk: Option<PathBuf>,
    /// Kill a node of --dev after the run, as kill -9 does, and measure how long it takes until it serves again
    #[arg(long, requires = "dev")]
    pub(crate) restart: bool,
    /// For a process of --processes: its keys begin with this, it waits for a line before the load, and hands over
    /// histograms
    #[arg(long, value_name = "PREFIX", hide = true, conflicts_with_all = ["dev", "processes"])]
    pub(crate) generator: Option<String>,
}

/// The operations of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Writes with the context of each key's last write
    Put,
    /// Reads of existing keys
    Get,
    /// Both, with the share of --reads
    Mixed,
    /// Blind writes of many clients to the same few keys, and reads that merge the siblings
    Conflict,
}

/// The time before the measurement starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WarmUp(pub(crate) Duration);

fn warm_up(text: &str) -> Result<WarmUp, String> {
    if text == "none" { Ok(WarmUp(Duration::ZERO)) } else { duration(text).map(WarmUp) }
}

/// The length of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RunLength {
    Time(Duration),
    Operations(u64),
}

/// A checked load.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) rate: Option<u32>,
    pub(crate) clients: u32,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u32,
    pub(crate) reads: u8,
    pub(crate) length: RunLength,
    pub(crate) warm_up: Duration,
    /// The time-out of one operation.
    pub(crate) timeout: Duration,
    /// How long after it was due an answer is in time.
    pub(crate) deadline: Option<Duration>,
    /// The random prefix of all keys, so that runs do not share keys.
    pub(crate) prefix: String,
}

impl Plan {
    /// Checks the options.
    ///
    /// # Errors
    /// The options cannot be combined.
    pub(crate) fn of(args: &BenchArgs, global: &GlobalArgs) -> Result<Self, Failure> {
        let keys = args.keys.unwrap_or(if args.mode == Mode::Conflict { 100 } else { 10_000 });
        let others = [("Redis", "--redis", args.redis.is_some()), ("etcd", "--etcd", !args.etcd.is_empty())];
        if let Some((system, option, _)) =
            others.into_iter().find(|(_, _, given)| *given && args.mode == Mode::Conflict)
        {
            return Err(Failure::usage(format!("{system} has no siblings: conflict needs a cluster"))
                .next(format!("use put, get or mixed with {option}")));
        }
        if args.mode != Mode::Conflict && keys < args.clients {
            let what = format!("{keys} keys are too few for {} clients: each writes to keys of its own", args.clients);
            return Err(Failure::usage(what)
                .next("give more --keys or fewer --clients; clients share keys in `rejoin bench conflict`"));
        }
        if args.connections > args.clients {
            let what = format!("{} clients cannot use {} connections", args.clients, args.connections);
            return Err(Failure::usage(what).next("give at most as many --connections as --clients"));
        }
        let shared = [
            (Some(u64::from(args.clients)), "clients"),
            (args.rate.map(u64::from), "operations a second"),
            (args.operations, "operations"),
        ];
        let too_few = |(count, what): (Option<u64>, &'static str)| {
            count.filter(|count| *count < u64::from(args.processes)).map(|count| (count, what))
        };
        if let Some((count, what)) = shared.into_iter().find_map(too_few) {
            let what = format!("{count} {what} are too few for {} processes", args.processes);
            return Err(Failure::usage(what).next("give fewer --processes: each takes a share of the load"));
        }
        if args.mode == Mode::Conflict && args.processes > 1 {
            return Err(Failure::usage("writers of conflicts are numbered within one process")
                .next("leave --processes out, or use put, get or mixed"));
        }
        if args.value_bytes > MAX_VALUE_BYTES {
            let what = format!(
                "{} bytes are more than a value of this benchmark may have ({MAX_VALUE_BYTES})",
                args.value_bytes
            );
            return Err(Failure::usage(what));
        }
        if args.dev.is_some() && (global.profile.is_some() || global.node.is_some()) {
            return Err(Failure::usage("--dev starts a cluster of its own: --profile and --node name another one")
                .next("leave one of them out"));
        }
        Ok(Self {
            mode: args.mode,
            rate: args.rate,
            clients: args.clients,
            value_bytes: args.value_bytes,
            keys,
            reads: args.reads,
            length: args.operations.map_or(RunLength::Time(Duration::from_secs(args.seconds)), RunLength::Operations),
            warm_up: args.warm_up.0,
            timeout: args.deadline.unwrap_or(global.timeout),
            deadline: args.deadline,
            prefix: args.generator.clone().unwrap_or_else(|| format!("{:08x}-", rand::random::<u32>())),
        })
    }

    /// The name of a key.
    pub(crate) fn key(&self, number: u32) -> String {
        format!("{}{number:08}", self.prefix)
    }

    /// Whether all keys are written before the first operation.
    pub(crate) fn fills_first(&self) -> bool {
        matches!(self.mode, Mode::Get | Mode::Mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let line = Line::try_parse_from(format!("bench {line}").split_whitespace()).map_err(|why| why.to_string())?;
        Plan::of(&line.bench, &line.global).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_plan_says_how_long_how_many_and_on_what() {
        let put = plan("put").unwrap();
        assert_eq!(
            (put.keys, put.clients, put.rate, put.length),
            (10_000, 64, None, RunLength::Time(Duration::from_secs(10)))
        );
        assert_eq!(put.warm_up, Duration::from_secs(1));
        let conflict = plan("conflict --operations 7 --warm-up none --rate 9").unwrap();
        assert_eq!((conflict.keys, conflict.rate, conflict.length), (100, Some(9), RunLength::Operations(7)));
        assert_eq!(conflict.warm_up, Duration::ZERO);
        let overload = plan("put --rate 9 --deadline 200ms --timeout 3s").unwrap();
        assert_eq!(
            (overload.timeout, overload.deadline),
            (overload.deadline.unwrap(), Some(Duration::from_millis(200)))
        );
        assert_eq!((put.timeout, put.deadline), (Duration::from_secs(5), None));
        assert_eq!(plan("put --generator ab-").unwrap().key(7), "ab-00000007");
        assert!(plan("mixed --keys 64").unwrap().fills_first() && !put.fills_first());
        assert_ne!(put.key(1), plan("put").unwrap().key(1), "two runs share no key");
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_reason() {
        for (line, reason) in [
            ("put --keys 10", "too few for 64 clients"),
            ("conflict --redis 127.0.0.1:1", "Redis has no siblings"),
            ("conflict --etcd 127.0.0.1:1", "etcd has no siblings"),
            ("put --etcd 127.0.0.1:1 --redis 127.0.0.1:1", "cannot be used with"),
            ("put --etcd 127.0.0.1:1 --durability os", "cannot be used with"),
            ("put --deadline 1s", "--rate"),
            ("put --restart", "--dev"),
            ("put --clients 3 --processes 4", "3 clients are too few for 4 processes"),
            ("put --operations 3 --processes 4", "3 operations are too few for 4 processes"),
            ("put --rate 3 --processes 4", "3 operations a second are too few for 4 processes"),
            ("put --processes 65", "65 is not in"),
            ("conflict --processes 2", "numbered within one process"),
            ("put --clients 2 --connections 3", "cannot use 3 connections"),
            ("put --value-bytes 1048577", "more than a value"),
            ("put --dev 3 --profile p.toml", "--dev starts a cluster of its own"),
            ("put --dev 3 --redis 127.0.0.1:1", "cannot be used with"),
            ("put --wait 1", "--redis"),
            ("put --seconds 1 --operations 1", "cannot be used with"),
            ("put --rate 0", "0 is not in"),
            ("put --clients 0", "0 is not in"),
            ("mixed --reads 101", "101 is not in"),
            ("put --warm-up soon", "not a length of time"),
            ("sprint", "[possible values: put, get, mixed, conflict]"),
        ] {
            let refused = plan(line).expect_err(line);
            assert!(refused.contains(reason), "{line}: {refused}");
        }
    }
}
