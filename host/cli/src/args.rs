//! The command line. `global` has the options of every command, `values` the values that several commands take,
//! `bench/args.rs` the options of `rejoin bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use rejoin_client::admin::{PluginDigest, Quorum, Scope};

use crate::audit_args::AuditCommand;
use crate::bench::args::BenchArgs;
use crate::conflict_args::ConflictCommand;
use crate::encryption_args::EncryptionCommand;
use crate::fold_args::{ExplainArgs, UndoArgs};
use crate::global::GlobalArgs;
use crate::layout_args::{LayoutCommand, name as node_name};
use crate::merge_bench_args::MergeBenchArgs;
use crate::operation_args::{ApplyArgs, QueryArgs};
use crate::push_args::PushArgs;
use crate::quota_args::{DeleteHow, QuotaArgs, TenantQuotaArgs};
use crate::ready::{self, ReadyMerge};
use crate::signing_args::{KeygenArgs, SignArgs, SignersCommand};
use crate::token_args::{TokenCommand, scope};
use crate::trial_args::{ActivateArgs, DiffArgs, FetchArgs, ShadowArgs};
use crate::values::{DurabilityArg, PluginChoice, Ttl, digest, duration, plugin, quorum, some_duration, ttl};

/// A node's default for `module_bytes`.
pub(crate) const DEFAULT_MODULE_BYTES: usize = 2 << 20;
/// A bucket's default for `value_bytes`.
pub(crate) const DEFAULT_VALUE_BYTES: u32 = 1 << 20;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a negative answer (not found, exists), 2 usage or configuration, 3 unreachable, 4 quorum or \
time-out (retry),
5 denied, 6 stale version, 7 plugin rejected.";

/// Rejoin: a key-value store that takes writes on both sides of a split, and merges what diverged with your own code.
#[derive(Parser, Debug)]
#[command(name = "rejoin", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Whether `--json` is among arguments that could not be parsed. What stands behind `--` is data.
pub(crate) fn wants_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let mut options = arguments.take_while(|argument| argument != "--");
    options.any(|argument| argument == "--json" || argument.as_encoded_bytes().starts_with(b"--json="))
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a whole cluster in this process, with a sample bucket
    Dev(DevArgs),
    /// Show what Rejoin does on a cluster of real processes
    #[command(subcommand)]
    Demo(DemoCommand),
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
    /// Have the bucket's plugin apply an operation to a key, such as an increment of a counter
    Apply(ApplyArgs),
    /// Ask the bucket's plugin about the value of a key
    Query(QueryArgs),
    /// List, show, export and resolve conflicts that the bucket's plugin does not merge
    #[command(subcommand)]
    Conflict(ConflictCommand),
    /// Show what each node has of a key, and which merges have made it so
    Explain(ExplainArgs),
    /// Show the cluster as one node sees it
    Status(StatusArgs),
    /// Show what the nodes think of each other, or drain one
    #[command(subcommand)]
    Node(NodeCommand),
    /// Show who owns what, and add, move, re-weigh and remove nodes
    #[command(subcommand)]
    Layout(LayoutCommand),
    /// Show what the nodes still have to make equal, pause that, or go on with it
    #[command(subcommand)]
    Exchange(ExchangeCommand),
    /// Make, show and change buckets
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Make, build, test, push and list merge plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Make, list, rotate and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make and show tenants, who share the cluster and do not see each other
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// List and verify the nodes' logs of what was asked of the control plane, and by whom
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Make the certificates of a cluster
    #[command(subcommand)]
    Cert(CertCommand),
    /// Make, list and remove the keys that a node encrypts values with on its disk
    #[command(subcommand)]
    Encryption(EncryptionCommand),
    /// Print a Grafana dashboard of the nodes' metrics
    Dashboard,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Ask every node what it thinks of every other one: whether it answers, since when, and why
    List,
    /// Stage that a node owns nothing any more and stays a member: `layout assign NODE --capacity 0`
    Drain {
        /// The name of the node
        #[arg(id = "member", value_name = "NODE", value_parser = node_name)]
        member: rejoin_client::admin::Name,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum ExchangeCommand {
    /// Show what each node still has to exchange with each other one, hand over, or rebuild
    Status {
        /// Wait until nothing is left to do, with a progress bar on a terminal
        #[arg(long)]
        watch: bool,
    },
    /// Go on with the exchange that was paused
    Start,
    /// Pause the exchange of every node, or of --node, until `exchange start` or its next restart
    Pause,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete `rejoin`
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
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
pub(crate) enum DemoCommand {
    /// Split a cluster of three, write one cart on both sides, heal, and watch the carts merge
    Partition,
    /// Kill a node of four, write without it, bring it back, wipe its disk, and watch the others give it everything
    Handoff,
    /// Let a cluster of three under load become five in three zones, and retire one of the first
    Grow,
    /// Let two teams share a cluster, let one run wild against its quota, and revoke its token
    Tenants,
}

/// The most threads of a node.
pub(crate) const MAX_THREADS: u16 = 1024;

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Threads for the network and the shards, 1 to 1024 [default: as many as processors]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_THREADS)))]
    pub(crate) threads: Option<u16>,
    /// Keep each of these threads on a processor of its own, for a machine that the node has for itself (Linux)
    #[arg(long)]
    pub(crate) pin: bool,
    /// End when the parent process ends (Linux)
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// A key, as text or base64.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// The key; one that begins with - is given after --
    #[arg(required_unless_present = "key_base64")]
    key: Option<String>,
    /// The key's bytes in base64, instead of KEY; with `put`, the value is then given by --value
    #[arg(long, value_name = "BASE64", conflicts_with = "key", value_parser = base64_bytes)]
    key_base64: Option<KeyBytes>,
}

/// The bytes of a key.
#[derive(Clone, Debug)]
pub(crate) struct KeyBytes(Vec<u8>);

impl KeyBytes {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl KeyArgs {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match (&self.key_base64, &self.key) {
            (Some(bytes), _) => &bytes.0,
            (None, key) => key.as_deref().unwrap_or_default().as_bytes(),
        }
    }

    /// As it is typed after the name of a bucket.
    pub(crate) fn typed(&self) -> String {
        use base64::Engine as _;
        match std::str::from_utf8(self.bytes()) {
            Ok(text) if text.starts_with('-') => format!("-- {text}"),
            Ok(text) => text.to_owned(),
            Err(_) => format!("--key-base64 {}", base64::engine::general_purpose::STANDARD.encode(self.bytes())),
        }
    }

    /// For people: bytes that are not UTF-8 are replaced.
    pub(crate) fn shown(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes())
    }
}

pub(crate) fn base64_bytes(text: &str) -> Result<KeyBytes, String> {
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
    /// Also show the siblings of a merged value
    #[arg(long)]
    pub(crate) siblings: bool,
    /// Print the readable form that the bucket's plugin gives the value; --json has both
    #[arg(long, conflicts_with = "siblings")]
    pub(crate) show: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The value, @FILE for the bytes of a file, or - for those of stdin
    #[arg(allow_hyphen_values = true, required_unless_present = "literal")]
    pub(crate) value: Option<String>,
    /// The value exactly as given, even if it begins with @ or is -
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
    /// Replace what this context (of a get or put) has seen
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) context: Option<String>,
    /// Replace nothing: the value becomes a sibling of what is stored
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
pub(crate) enum BucketCommand {
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
    /// Delete a bucket: nobody reads or writes it from now on, and its data is removed later
    Delete {
        name: String,
        #[command(flatten)]
        how: DeleteHow,
    },
    /// Bring a deleted bucket back
    Restore { name: String },
    /// Show what a bucket may use, or set it
    Quota {
        name: String,
        #[command(flatten)]
        limits: QuotaArgs,
    },
    /// Change properties of a bucket; the others stay
    Set {
        name: String,
        /// Only if the bucket still has this version (see `bucket show`)
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        props: PropsArgs,
    },
}

/// The properties of a bucket. Omitted ones keep their value, or get the default.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Properties")]
pub(crate) struct PropsArgs {
    /// The merge plugin by its digest (of `plugin push` or `plugin list`), or none
    #[arg(long, value_name = "SHA256", value_parser = plugin)]
    pub(crate) plugin: Option<PluginChoice>,
    /// A ready-made merge, which this program has with it and pushes
    #[arg(long, value_name = "NAME", value_parser = ready::parser(), conflicts_with = "plugin")]
    pub(crate) merge: Option<&'static ReadyMerge>,
    /// Copies of each object, 1 to 5 [default: 3]. A change of it moves objects, and is done by itself
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
    /// Only owners store copies: no other node stands in for an owner that cannot take a write
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "sloppy")]
    pub(crate) strict: bool,
    /// Other healthy nodes stand in for owners that cannot take a write (the default)
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) sloppy: bool,
    /// Zones in which replicas must acknowledge a write, 1 to n [default: 1]
    #[arg(long)]
    pub(crate) zones: Option<u8>,
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
    /// The time without folds after a plugin has replaced another [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) fold_delay: Option<Duration>,
    /// How long a fold can be undone: its inputs are kept for that time, 0s not at all [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = some_duration)]
    pub(crate) fold_undo: Option<Duration>,
}

impl PropsArgs {
    /// Whether it says how many copies there are, or who stores them.
    pub(crate) fn sets_copies(&self) -> bool {
        self.n.is_some() || self.strict || self.sloppy
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum PluginCommand {
    /// Make a guest crate: a complete plugin, and a test of its laws
    New {
        /// The directory, which must not exist; its name becomes the name of the crate
        dir: PathBuf,
        /// The SDK: the folder `guest-sdk` of Rejoin's source tree
        #[arg(long, value_name = "DIR")]
        sdk: PathBuf,
    },
    /// Build a guest crate to a component, and check it as a node does
    Build {
        /// The directory of the guest crate, or the core module that another compiler has made
        dir: PathBuf,
        /// The file of the component [default: the name of directory or module, with .wasm]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Do not use the network
        #[arg(long)]
        offline: bool,
        /// Bytes of a component that the nodes accept, their `module_bytes`
        #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MODULE_BYTES)]
        module_bytes: usize,
    },
    /// Check the laws of merging on a component, with values that its own sampler draws
    Test(TestArgs),
    /// Run one merge of a component, and show what it returns and uses; exit code 1 if it fails
    Run(RunArgs),
    /// Push a component to the cluster, which checks its laws first
    Push(PushArgs),
    /// Make a key that signs plugins: a private file, and a public one for `tenant signers`
    Keygen(KeygenArgs),
    /// Sign a component for the tenant `default` or that of --tenant
    Sign(SignArgs),
    /// List the plugins that were pushed
    List,
    /// Show a plugin
    Show {
        /// Its name, name@version, or four digits or more of the beginning of its digest
        plugin: String,
    },
    /// Make a plugin the one that merges a bucket, in the place of the one it has
    Activate(ActivateArgs),
    /// Give a bucket the plugin back that it had before. The last 100 are known
    Rollback {
        bucket: String,
        /// An earlier one than the last
        #[arg(long, value_name = "PLUGIN")]
        to: Option<String>,
        /// Even if a node is not ready for it, or computes otherwise with it: siblings are kept there
        #[arg(long)]
        force: bool,
    },
    /// Run the merges of a bundle again, bit for bit; exit code 1 if one ends differently or takes other fuel
    Replay {
        /// The file of `conflict export`
        file: PathBuf,
    },
    /// Undo the folds of a plugin: their inputs take the place of the folded values
    Undo(UndoArgs),
    /// Delete a plugin that no bucket uses: no bucket can use it from now on, and its module is removed later
    Delete {
        /// The plugin's digest, as `plugin list` prints it
        #[arg(value_name = "SHA256", value_parser = digest)]
        digest: PluginDigest,
        #[command(flatten)]
        how: DeleteHow,
    },
    /// Bring a deleted plugin back
    Restore {
        /// The plugin's digest, as `plugin list` prints it
        #[arg(value_name = "SHA256", value_parser = digest)]
        digest: PluginDigest,
    },
    /// End the quarantine of a plugin: its merges are run again, and nodes record its transcripts anew
    Release {
        /// The plugin's digest, as `plugin list` and `status` print it
        #[arg(value_name = "SHA256", value_parser = digest)]
        digest: PluginDigest,
    },
    /// Run a plugin beside the one that merges a bucket and compare, or show what has come of that
    Shadow(ShadowArgs),
    /// Compare what two plugins make of the conflicts of a bucket; exit code 1 if it is not the same
    Diff(DiffArgs),
    /// Store the component of a plugin in a file
    Fetch(FetchArgs),
    /// Measure merges of a component in this process: rate, latency and fuel, and what the fuel costs
    Bench(MergeBenchArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// The component, as `plugin build` makes it, or the core module of a guest crate
    pub(crate) file: PathBuf,
    /// Bytes of a component that the nodes accept, their `module_bytes`
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MODULE_BYTES)]
    pub(crate) module_bytes: usize,
    /// Bytes of the largest value that the bucket takes: its largest siblings must be merged within its fuel
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_VALUE_BYTES)]
    pub(crate) value_bytes: u32,
    /// Cases for each law
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) cases: u32,
    /// The seed of the cases: the same seed gives the same cases
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The longest time for making a counterexample smaller; the smallest one so far is shown
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) shrink_time: Duration,
    /// Check the laws on all triples of so many of the smallest values; 0: of none
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    pub(crate) smallest: u16,
    /// The longest time for these triples; how far it came is shown
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) exhaust_time: Duration,
    /// A file that is a valid value, or a directory of such files, to check among the sampler's values; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) fixture: Vec<PathBuf>,
    /// A file that says what the operations mean: all short histories of them are checked
    #[arg(long, value_name = "FILE")]
    pub(crate) intent: Option<PathBuf>,
    /// The longest time for these histories; how far it came is shown
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) history_time: Duration,
    /// The file for counterexamples [default: the file's name with .counterexample.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) counterexample: Option<PathBuf>,
    /// Check only the counterexamples of an earlier test: exit code 1 while one still breaks a law
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cases", "seed", "counterexample", "shrink_time",
        "smallest", "exhaust_time", "fixture", "intent", "history_time"])]
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The component, as `plugin build` makes it, or the core module of a guest crate
    pub(crate) file: PathBuf,
    /// The siblings, two or more: each a value, or @FILE for the bytes of a file. Stamps and writers count from 1
    #[arg(value_name = "SIBLING", allow_negative_numbers = true, required_unless_present = "replay")]
    pub(crate) siblings: Vec<String>,
    /// The key of the merge
    #[arg(long, required_unless_present = "replay")]
    pub(crate) key: Option<String>,
    /// Merge the siblings of a counterexample file of `plugin test` instead, with their stamps and writers
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "siblings"])]
    pub(crate) replay: Option<PathBuf>,
    /// Take the limits of this bucket of a cluster [default: those of a bucket with default properties]
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Fuel for one merge of 2 MiB, instead of the bucket's
    #[arg(long)]
    pub(crate) fuel: Option<u64>,
    /// Bytes of memory for one merge, instead of the bucket's
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_bytes: Option<u32>,
    /// Bytes of a component that the nodes accept, their `module_bytes`
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MODULE_BYTES)]
    pub(crate) module_bytes: usize,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TenantCommand {
    /// Make a tenant, in which there is nothing yet
    Create { name: String },
    /// List all tenants, or without the scope operator the token's own
    List,
    /// Show a tenant: its buckets, plugins and tokens, and the limits that are reached
    Show { name: String },
    /// Show what tenants use and have used since their nodes started
    Usage {
        /// One tenant; else all that the token may see
        name: Option<String>,
    },
    /// Delete a tenant with all that it has: its tokens are refused at once, its data is removed later
    Delete {
        name: String,
        #[command(flatten)]
        how: DeleteHow,
    },
    /// Bring a deleted tenant back
    Restore { name: String },
    /// Show what a tenant may use, or set it
    Quota {
        name: String,
        #[command(flatten)]
        limits: QuotaArgs,
        #[command(flatten)]
        of_tenant: TenantQuotaArgs,
    },
    /// Show or set which keys may sign a tenant's plugins
    Signers {
        name: String,
        #[command(subcommand)]
        command: SignersCommand,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum CertCommand {
    /// Make a cluster's authority and its secret: ca.pem, ca-key.pem and cluster-secret
    Ca {
        #[command(flatten)]
        place: CertPlace,
        /// For how many days it is valid
        #[arg(long, default_value_t = 3650)]
        days: u32,
        /// Make a new ca.pem with the existing key: signed certificates stay valid
        #[arg(long)]
        renew: bool,
        /// Renew with a new key, which replaces ca-key.pem and signs from now on. The new ca.pem has the old
        /// certificate too, so that both are accepted
        #[arg(long, requires = "renew")]
        new_key: bool,
        /// Take the certificates of earlier keys out of ca.pem: what they have signed is not accepted any more
        #[arg(long, conflicts_with = "renew")]
        retire: bool,
    },
    /// Replace the cluster's secret in three steps, between which every node gets the file and is restarted
    Secret {
        #[command(flatten)]
        place: CertPlace,
        /// The step to take
        #[arg(value_enum)]
        step: SecretStep,
    },
    /// Make a node's certificate: NAME.pem and NAME-key.pem
    Node {
        /// The node's name, as in its configuration
        name: String,
        /// Another address or DNS name for the certificate
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
        /// Let the certificate take the place of a token of this scope, in the tenant `default` or that of --tenant
        #[arg(long, value_parser = scope, conflicts_with = "renew")]
        scope: Option<Scope>,
        #[command(flatten)]
        place: CertPlace,
        /// For how many days it is valid
        #[arg(long, default_value_t = 365)]
        days: u32,
        #[command(flatten)]
        renewal: CertRenewal,
    },
}

/// A step of the replacement of a cluster's secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum SecretStep {
    /// Draw a new secret, which nodes accept beside the one in use
    Add,
    /// Use the new one for contexts and the root token, and accept the old one; once more goes back
    Use,
    /// Accept only the one in use
    Retire,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CertRenewal {
    /// Replace NAME.pem by one that is valid from today, with the same names and, unless --new-key is given, the same
    /// key. A running node loads it within ten seconds, or at once on SIGHUP
    #[arg(long)]
    pub(crate) renew: bool,
    /// Renew with a new key, which replaces NAME-key.pem
    #[arg(long, requires = "renew")]
    pub(crate) new_key: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CertPlace {
    /// The directory of the authority's files and the new ones
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
