//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use rejoin_client::admin::{Durability, PluginDigest, Quorum};

use crate::bench::BenchArgs;
use crate::output::Color;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a negative answer (not found, exists), 2 usage or configuration, 3 unreachable, 4 quorum or time-out (retry),
5 denied, 6 stale version, 7 plugin rejected.";

/// Rejoin: a key-value store that takes writes on both sides of a split, and merges what diverged with your own code.
#[derive(Parser, Debug)]
#[command(name = "rejoin", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Where the cluster is and how to get in: a file with seeds, ca and token [default: the one in REJOIN_PROFILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Print data as JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Ask this node only, instead of the owners of the key
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) node: Option<String>,
    /// How long to wait for an answer, such as 500ms, 5s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// When to colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

/// Whether `--json` is among arguments that could not be parsed. What stands behind `--` is data.
pub(crate) fn wants_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let mut options = arguments.take_while(|argument| argument != "--");
    options.any(|argument| argument == "--json" || argument.as_encoded_bytes().starts_with(b"--json="))
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Run a whole cluster in this process, with a sample bucket
    Dev(DevArgs),
    /// Tell a story with a cluster of real processes
    #[command(subcommand)]
    Demo(DemoVerb),
    /// Measure a cluster under load: rate, latency, CPU per operation
    Bench(BenchArgs),
    /// Run one node
    Serve(ServeArgs),
    /// Read a key
    Get(GetArgs),
    /// Write a key: refused if it has a value, unless --context or --blind is given
    Put(PutArgs),
    /// Delete a key
    Delete(DeleteArgs),
    /// Show the cluster as one node sees it
    Status(StatusArgs),
    /// Make, show and change buckets
    #[command(subcommand)]
    Bucket(BucketVerb),
    /// Make, build, test, push and list merge plugins
    #[command(subcommand)]
    Plugin(PluginVerb),
    /// Make, list and withdraw access tokens
    #[command(subcommand)]
    Token(TokenVerb),
    /// Make the certificates of a cluster
    #[command(subcommand)]
    Cert(CertVerb),
}

#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// How many nodes [default: 3, or what --data holds]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: Option<u8>,
    /// Node i listens on this port plus i, its admin port is 100 higher [default: 7400, or what --data holds]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_426))]
    pub(crate) base_port: Option<u16>,
    /// Keep the cluster in this directory, and start the one that is there again. Without it, Ctrl-C removes everything
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Subcommand, Clone, Copy, Debug)]
pub(crate) enum DemoVerb {
    /// Split a cluster of three, write one cart on both sides, heal, and watch the carts merge
    Partition,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Threads for the network and the shards, 1 to 1024 [default: as many as processors]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// End when the process that started this one ends (Linux)
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// A key, as text or as any bytes.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// The key; one that begins with - stands behind --
    #[arg(required_unless_present = "key_base64")]
    key: Option<String>,
    /// The key's bytes in base64, instead of KEY; with `put`, the value is then given by --value
    #[arg(long, value_name = "BASE64", conflicts_with = "key", value_parser = base64_bytes)]
    key_base64: Option<KeyBytes>,
}

/// The bytes of a key.
#[derive(Clone, Debug)]
pub(crate) struct KeyBytes(Vec<u8>);

impl KeyArgs {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match (&self.key_base64, &self.key) {
            (Some(bytes), _) => &bytes.0,
            (None, key) => key.as_deref().unwrap_or_default().as_bytes(),
        }
    }

    /// As it is typed behind a bucket's name.
    pub(crate) fn typed(&self) -> String {
        use base64::Engine as _;
        match std::str::from_utf8(self.bytes()) {
            Ok(text) if text.starts_with('-') => format!("-- {text}"),
            Ok(text) => text.to_owned(),
            Err(_) => format!("--key-base64 {}", base64::engine::general_purpose::STANDARD.encode(self.bytes())),
        }
    }

    /// As it is told to people.
    pub(crate) fn shown(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes())
    }
}

fn base64_bytes(text: &str) -> Result<KeyBytes, String> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).map(KeyBytes).map_err(|why| format!("no base64: {why}"))
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Replicas that must answer, instead of the bucket's r
    #[arg(long)]
    pub(crate) r: Option<u8>,
    /// How many of them must be owners, instead of the bucket's pr
    #[arg(long)]
    pub(crate) pr: Option<u8>,
    /// Show the siblings also where they were merged
    #[arg(long)]
    pub(crate) siblings: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The value, @FILE for a file's bytes, or - for what comes on stdin
    #[arg(allow_hyphen_values = true, required_unless_present = "literal")]
    pub(crate) value: Option<String>,
    /// The value exactly as it stands here, also if it begins with @ or is -
    #[arg(long = "value", id = "literal", value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "value")]
    pub(crate) literal: Option<String>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    /// After how long the value stops being visible, such as 30s, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Args, Debug)]
pub(crate) struct WriteArgs {
    /// It replaces what this context (of a get or put) has seen
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) context: Option<String>,
    /// It replaces nothing: it stands beside whatever is there, as a sibling
    #[arg(long, conflicts_with = "context")]
    pub(crate) blind: bool,
    /// Replicas that must acknowledge, instead of the bucket's w
    #[arg(long)]
    pub(crate) w: Option<u8>,
    /// How many of them must be owners, instead of the bucket's pw
    #[arg(long)]
    pub(crate) pw: Option<u8>,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Wait until every node is up and has every plugin, for at most 30 s or as long as --wait-for says
    #[arg(long)]
    pub(crate) wait_healthy: bool,
    /// How long --wait-healthy waits
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) wait_for: Duration,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BucketVerb {
    /// Make a bucket
    Create {
        name: String,
        #[command(flatten)]
        props: PropsArgs,
    },
    /// List all buckets
    List,
    /// Show a bucket's properties
    Show { name: String },
    /// Change properties of a bucket; the others stay
    Set {
        name: String,
        /// Only if the bucket is still at this version (`bucket show` tells)
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        props: PropsArgs,
    },
}

/// A bucket's properties; what is not given stays, or is the default.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Properties")]
pub(crate) struct PropsArgs {
    /// The merge plugin by its digest (of `plugin push` or `plugin list`), or none
    #[arg(long, value_name = "SHA256", value_parser = plugin)]
    pub(crate) plugin: Option<PluginChoice>,
    /// Copies of each object, 1 to 5 [default: 3]
    #[arg(long)]
    pub(crate) n: Option<u8>,
    /// Replicas that must answer a read: 1 to n, or quorum [default: quorum]
    #[arg(long, value_parser = quorum)]
    pub(crate) r: Option<Quorum>,
    /// Replicas that must acknowledge a write: 1 to n, or quorum [default: quorum]
    #[arg(long, value_parser = quorum)]
    pub(crate) w: Option<Quorum>,
    /// How many of those that answer a read must be owners: 0 to n, or quorum [default: 0]
    #[arg(long, value_parser = quorum)]
    pub(crate) pr: Option<Quorum>,
    /// How many of those that acknowledge a write must be owners: 0 to n, or quorum [default: 0]
    #[arg(long, value_parser = quorum)]
    pub(crate) pw: Option<Quorum>,
    /// What an acknowledgement promises: fsync survives a loss of power, os the end of the process [default: fsync]
    #[arg(long, value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
    /// How long values stay visible, such as 30s, 12h, 7d, or none [default: none]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub(crate) ttl: Option<Ttl>,
    /// Only owners count: no other node will stand in for one that is away. Recorded; in this release none does in any
    /// bucket
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "sloppy")]
    pub(crate) strict: bool,
    /// Other healthy nodes may stand in for owners that are away (the default). Recorded; in this release none does
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) sloppy: bool,
    /// The most bytes of a value, up to 16777216 [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub(crate) value_bytes: Option<u32>,
    /// The most siblings before they must be folded, 2 to 256 [default: 32]
    #[arg(long = "sibling-limit", value_name = "COUNT")]
    pub(crate) siblings: Option<u16>,
    /// Fuel for one merge of 2 MiB (others in proportion), about one unit an instruction [default: 5000000000]
    #[arg(long)]
    pub(crate) fuel: Option<u64>,
    /// Bytes of memory for one merge [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_bytes: Option<u32>,
    /// For how long nothing folds after a plugin has replaced another [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) fold_delay: Option<Duration>,
}

/// A plugin, or that there is to be none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PluginChoice {
    None,
    Digest(PluginDigest),
}

/// A time to live, or that there is to be none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ttl {
    None,
    After(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum DurabilityArg {
    Fsync,
    Os,
}

impl From<DurabilityArg> for Durability {
    fn from(given: DurabilityArg) -> Self {
        match given {
            DurabilityArg::Fsync => Self::Fsync,
            DurabilityArg::Os => Self::Os,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum PluginVerb {
    /// Make a guest crate to begin with: a whole plugin, and a test of its laws
    New {
        /// The directory, which is not there yet; its name is the crate's
        dir: PathBuf,
        /// The SDK: the folder `guest-sdk` of Rejoin's source tree
        #[arg(long, value_name = "DIR")]
        sdk: PathBuf,
    },
    /// Build a guest crate to a component, and check it as a node would
    Build {
        /// The directory of the guest crate
        dir: PathBuf,
        /// Where the component goes [default: the directory's name with .wasm]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Fetch nothing
        #[arg(long)]
        offline: bool,
    },
    /// Try the laws of merging on a component, with values that its own sampler draws
    Test(TestArgs),
    /// Give a component to the cluster
    Push {
        /// The component
        file: PathBuf,
        /// What to call it if it does not say itself [default: the file's name]
        #[arg(long)]
        name: Option<String>,
    },
    /// List the plugins that were pushed
    List,
}

#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// The component, as `plugin build` makes it, or the core module of a guest crate
    pub(crate) file: PathBuf,
    /// On how many cases each law is tried
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) cases: u32,
    /// Where the cases come from: the same seed, the same cases
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// For how long what breaks a law is made smaller, at most; what was found by then is shown
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) shrink_time: Duration,
    /// Where to write what breaks a law [default: the file's name with .counterexample.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) counterexample: Option<PathBuf>,
    /// Try only what broke a law in an earlier test: exit code 1 while it still does
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cases", "seed", "counterexample", "shrink_time"])]
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TokenVerb {
    /// Make a token and print it; nobody keeps its secret
    Create {
        name: String,
        /// Also allow the verbs of an operator
        #[arg(long)]
        admin: bool,
    },
    /// List all tokens, without their secrets
    List,
    /// Withdraw a token
    Revoke { name: String },
    /// Print the first admin token, which follows from the cluster's secret. Needs no node
    Root {
        /// The cluster's secret, as `cert ca` made it
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum CertVerb {
    /// Make a cluster's authority and its secret: ca.pem, ca-key.pem and cluster-secret
    Ca {
        #[command(flatten)]
        place: CertPlace,
        /// For how many days it is valid
        #[arg(long, default_value_t = 3650)]
        days: u32,
        /// Make ca.pem anew with the key that is there: what the authority has signed stays good
        #[arg(long)]
        renew: bool,
    },
    /// Make a node's certificate: NAME.pem and NAME-key.pem
    Node {
        /// The node's name, as in its configuration
        name: String,
        /// Another address or DNS name to put into the certificate
        #[arg(long)]
        host: Vec<String>,
        #[command(flatten)]
        place: CertPlace,
        /// For how many days it is valid
        #[arg(long, default_value_t = 825)]
        days: u32,
        #[command(flatten)]
        renewal: CertRenewal,
    },
    /// Make a client's certificate: NAME.pem and NAME-key.pem
    Client {
        name: String,
        #[command(flatten)]
        place: CertPlace,
        /// For how many days it is valid
        #[arg(long, default_value_t = 365)]
        days: u32,
        #[command(flatten)]
        renewal: CertRenewal,
    },
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CertRenewal {
    /// Replace NAME.pem by one that holds from today, with the same names in it and, unless --new-key says otherwise,
    /// the same key. A running node takes it within ten seconds, or at once on SIGHUP
    #[arg(long)]
    pub(crate) renew: bool,
    /// Renew with a new key, which replaces NAME-key.pem
    #[arg(long, requires = "renew")]
    pub(crate) new_key: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CertPlace {
    /// Where the authority's files are, and the new ones go
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

/// A length of time: a number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no length of time: write a number and ms, s, m, h or d, such as 500ms or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).ok_or_else(bad)?;
    if ms == 0 { Err(format!("{text:?} is no time at all")) } else { Ok(Duration::from_millis(ms)) }
}

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "none" { Ok(Ttl::None) } else { duration(text).map(Ttl::After) }
}

fn quorum(text: &str) -> Result<Quorum, String> {
    if text == "quorum" {
        return Ok(Quorum::Majority);
    }
    text.parse().map(Quorum::Count).map_err(|_| format!("{text:?} is neither a number nor `quorum`"))
}

fn plugin(text: &str) -> Result<PluginChoice, String> {
    if text == "none" {
        return Ok(PluginChoice::None);
    }
    let digest: Result<PluginDigest, _> = text.parse();
    digest.map(PluginChoice::Digest).map_err(|why| format!("{why}, or `none`; `rejoin plugin list` shows them"))
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
