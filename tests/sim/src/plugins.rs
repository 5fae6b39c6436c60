//! The plugins of the buckets: the same merges natively and, for a share of the seeds, as the component on the real
//! host.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rejoin_core::shard::event::{MergeJob, Merged, PluginError, ValidateJob};
use rejoin_laws::{Merge, MergeError, MergeResult, Sibling};
use rejoin_merge::build::{self, Options};
use rejoin_merge::{CallLimits, Host, HostConfig, Memo, ModuleLimits, Plugin, PluginCall, Pool, TenantShare};
use rejoin_plugin_cart::Cart;
use rejoin_proto::catalog::Activation;
use rejoin_proto::fault::{MergeFault, Refusal, TrapKind};
use rejoin_proto::{Hlc, PluginDigest, ProfileId};

use crate::history::Kind;

/// The profile of native merges.
const NATIVE: ProfileId = ProfileId(7);
/// Merges that the real host remembers, in bytes.
const MEMO_BYTES: u64 = 1 << 20;
/// Never reached: fuel is the limit that decides.
const WALL: Duration = Duration::from_secs(60);

/// A version of a kind's plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    /// What buckets have from the start.
    First,
    /// Merges as the first one does. It takes values for self-causal that the first one does not.
    Second,
    /// Keeps one sibling and loses the others.
    Bad,
}

impl Version {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Second, Self::Bad];

    /// Whether it declares that values of that kind carry their own causality.
    pub(crate) fn is_self_causal(self, kind: Kind) -> bool {
        match self {
            Self::First => kind == Kind::Cart,
            Self::Second => kind != Kind::Latest,
            Self::Bad => true,
        }
    }

    /// Its digest. Natively it tells kind and version.
    pub(crate) fn digest(self, kind: Kind, wasm: bool) -> PluginDigest {
        match self {
            Self::First if wasm && kind == Kind::Cart => component().digest(),
            _ => PluginDigest([kind as u8 + 1 + 16 * self as u8; 32]),
        }
    }

    /// What runs natively for that kind.
    pub(crate) fn native(self, kind: Kind) -> &'static dyn Merge {
        if self == Self::Bad { BAD } else { of(kind) }
    }

    /// What a digest stands for. The component is the first version of carts.
    pub(crate) fn of(digest: &PluginDigest) -> (Kind, Self) {
        let known = |kind: Kind| Self::ALL.map(|version| (kind, version));
        let mut native = [Kind::Set, Kind::Cart, Kind::Latest].into_iter().flat_map(known);
        native.find(|(kind, version)| version.digest(*kind, false) == *digest).unwrap_or((Kind::Cart, Self::First))
    }
}

/// The first of all siblings by their bytes. It obeys the laws of merges, and loses the others.
struct Least;

impl Merge for Least {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let least = siblings.iter().map(|sibling| &sibling.value).min();
        least.cloned().ok_or_else(|| "nothing to merge".into())
    }
}

/// The bad version of every kind's plugin.
pub(crate) const BAD: &dyn Merge = &Least;

/// Elements united.
struct Union;

impl Merge for Union {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
        // Little-endian words are compared as numbers, so that the result is as the format wants it.
        let words =
            siblings.iter().flat_map(|sibling| sibling.value.as_chunks::<8>().0).map(|word| u64::from_le_bytes(*word));
        let sorted: BTreeSet<u64> = words.collect();
        Ok(sorted.into_iter().flat_map(u64::to_le_bytes).collect())
    }
}

/// The value with the latest stamp; of equal ones the highest bytes.
struct Latest;

impl Merge for Latest {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let latest = siblings.iter().max_by_key(|sibling| (sibling.stamp_ms, &sibling.value));
        latest.map(|sibling| sibling.value.clone()).ok_or_else(|| "nothing to merge".into())
    }
}

/// The cart of `plugins/cart`.
pub(crate) struct Carts;

impl Merge for Carts {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let mut merged = Cart::default();
        for sibling in siblings {
            merged.join(&Cart::parse(&sibling.value).map_err(|bad| bad.to_string())?);
        }
        Ok(merged.to_json())
    }
}

/// The activation of a bucket's plugin.
pub(crate) fn activation(kind: Kind, wasm: bool) -> Activation {
    let (plugin, self_causal) = (Version::First.digest(kind, wasm), Version::First.is_self_causal(kind));
    Activation { plugin, self_causal, since: Hlc::default(), replaces: false, validates: true }
}

/// The plugin of a kind, natively.
#[must_use]
pub fn of(kind: Kind) -> &'static dyn Merge {
    match kind {
        Kind::Set => &Union,
        Kind::Latest => &Latest,
        Kind::Cart => &Carts,
    }
}

/// Runs a merge natively.
pub(crate) fn native(plugin: &dyn Merge, job: &MergeJob) -> Result<Merged, PluginError> {
    let lend = |one: &rejoin_proto::client::Sibling| Sibling {
        value: one.value.to_vec(),
        stamp_ms: one.stamp_ms,
        writer: one.writer,
    };
    let siblings: Vec<Sibling> = job.siblings.iter().map(lend).collect();
    let value = plugin.merge(&job.key, &siblings).map_err(fault)?.into();
    Ok(Merged { value, shown: None, profile: NATIVE, fuel_used: 0 })
}

fn fault(failure: MergeError) -> PluginError {
    PluginError::Call(match failure {
        MergeError::Refused(_) => MergeFault::Refused(Refusal::Malformed),
        MergeError::Trapped(_) => MergeFault::Trapped(TrapKind::Unreachable),
        MergeError::Exceeded(_) => MergeFault::OutOfFuel { limit: 0 },
        MergeError::TooLarge(_) => MergeFault::Refused(Refusal::TooLarge),
    })
}

/// Runs a validation natively.
pub(crate) fn validate(kind: Kind, job: &ValidateJob) -> Result<(), PluginError> {
    let sound = match kind {
        Kind::Cart => Cart::parse(&job.value).is_ok(),
        Kind::Set | Kind::Latest => job.value.len().is_multiple_of(8),
    };
    if sound { Ok(()) } else { Err(MergeFault::Refused(Refusal::Malformed).into()) }
}

/// Runs a merge of carts on the real host.
pub(crate) fn wasm(job: &MergeJob) -> Result<Merged, PluginError> {
    let plugin = component().clone();
    let lend = |one: &rejoin_proto::client::Sibling| rejoin_merge::Sibling {
        value: one.value.clone(),
        stamp_ms: one.stamp_ms,
        writer: one.writer,
    };
    let limits = CallLimits {
        fuel: job.fuel,
        memory_bytes: job.memory_bytes as usize,
        result_bytes: job.result_bytes as usize,
        max_siblings: 1024,
        wall: WALL,
    };
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    let done = move |outcome| drop(answer.send(outcome));
    let (call, siblings) = (
        PluginCall { bucket: job.bucket.0, tenant: TenantShare::default(), plugin, limits, fresh: job.fresh },
        job.siblings.iter().map(lend).collect(),
    );
    pool()
        .merge(call, job.key.clone(), siblings, || true, done)
        .map_err(|full| PluginError::Overloaded { waiting: full.waiting, of: full.of })?;
    // A pool without threads has answered before it returned.
    let merged = answered.try_recv().map_err(|error| MergeFault::Host { reason: error.to_string() })??;
    Ok(Merged { value: merged.value, shown: None, profile: pool().host().profile(), fuel_used: merged.fuel_used })
}

/// One for all seeds and threads: results depend on their inputs only.
fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let host = Host::new(HostConfig::default()).unwrap_or_else(|error| panic!("{error}"));
        Pool::inline(host, Memo::new(MEMO_BYTES))
    })
}

/// The cart's component, built from its source once a process.
fn component() -> &'static Plugin {
    static BUILT: OnceLock<Plugin> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/cart");
        let bytes = build::guest(&dir, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
        pool().host().compile(&bytes, &ModuleLimits::default()).unwrap_or_else(|rejection| panic!("{rejection}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::client::Sibling as Given;
    use rejoin_proto::{BucketId, Name};

    fn job(values: &[&'static str]) -> MergeJob {
        let sibling =
            |(at, value): (usize, &&'static str)| Given { value: (*value).into(), stamp_ms: at as u64, writer: 1 };
        MergeJob {
            plugin: PluginDigest([0; 32]),
            bucket: BucketId(1),
            bucket_name: Name::new("b").unwrap(),
            key: "k".into(),
            key_hash: 0,
            siblings: values.iter().enumerate().map(sibling).collect(),
            show: rejoin_proto::client::Show::Nothing,
            fresh: false,
            fuel: 5_000_000_000,
            memory_bytes: 64 << 20,
            result_bytes: 1 << 20,
            deadline_us: 0,
        }
    }

    #[test]
    fn sets_unite_in_order_and_the_latest_wins() {
        let merged = native(&Union, &job(&["bbbbbbbbcccccccc", "aaaaaaaabbbbbbbb"])).unwrap();
        assert_eq!(merged.value, "aaaaaaaabbbbbbbbcccccccc");
        assert_eq!(native(&Latest, &job(&["old", "new"])).unwrap().value, "new");
    }

    #[test]
    fn a_digest_tells_kind_and_version() {
        for kind in [Kind::Set, Kind::Cart, Kind::Latest] {
            for version in Version::ALL {
                assert_eq!(Version::of(&version.digest(kind, false)), (kind, version));
            }
        }
        assert_eq!(Version::of(&Version::First.digest(Kind::Cart, true)), (Kind::Cart, Version::First));
        assert_eq!(native(BAD, &job(&["b", "a", "c"])).unwrap().value, "a");
    }

    #[test]
    fn the_component_makes_of_carts_what_the_native_cart_does() {
        let carts = [r#"{"clock":{"1":1},"items":{"a":{"1:1":2}}}"#, r#"{"clock":{"2":1},"items":{"b":{"2:1":1}}}"#];
        let (native, wasm) = (native(&Carts, &job(&carts)).unwrap(), wasm(&job(&carts)).unwrap());
        assert_eq!(native.value, wasm.value);
    }
}
