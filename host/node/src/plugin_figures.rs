//! What plugins do at this node, for the metrics: of each bucket and version how many merges, what they cost, why they
//! fail, and what has come of shadows.
//!
//! A figure is kept for each bucket and plugin that a node has met, up to [`MAX_LABELS`] of them, and up to
//! [`MAX_TENANT_LABELS`] of one tenant. All others are counted together, so that no tenant can fill a metrics store
//! with buckets or versions, nor take the places of others. The figures of a bucket and plugin that no longer belong
//! together are forgotten.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rejoin_core::shard::event::MergeJob;
use rejoin_merge::TenantShare;
use rejoin_proto::{BucketId, Name, PluginDigest, TenantId};

use crate::lock::lock;

/// The most pairs of a bucket and a plugin that have labels of their own.
const MAX_LABELS: usize = 100;
/// The most of them of one tenant.
const MAX_TENANT_LABELS: usize = 20;
/// Classes of fuel: four for each power of two.
const CLASSES: usize = 256;
/// The digits of a digest in a label.
const DIGITS: usize = 12;
/// The label of all pairs that have none of their own. It is the name of no bucket.
const OTHERS: &str = "(others)";

/// The figures of all buckets and plugins.
#[derive(Default)]
pub(crate) struct PluginFigures {
    /// `None`: all that have no labels of their own.
    all: Mutex<BTreeMap<Option<Pair>, Figures>>,
}

/// A tenant, its bucket, and a plugin.
type Pair = (TenantId, BucketId, PluginDigest);

/// The figures of one bucket and plugin.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The bucket's name when it was met first, and the beginning of the plugin's digest.
    pub(crate) bucket: String,
    pub(crate) plugin: String,
    /// Results that were made, and that were taken from the memo.
    pub(crate) merges: u64,
    pub(crate) memo_hits: u64,
    /// Siblings before and after.
    pub(crate) siblings_in: u64,
    pub(crate) siblings_out: u64,
    /// The limit of the last merge.
    pub(crate) fuel_limit: u64,
    /// Merges without a result, by reason.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// What has come of comparisons in which the plugin was the shadow.
    pub(crate) shadow: BTreeMap<&'static str, u64>,
    fuel: Vec<u32>,
}

impl Figures {
    fn new(bucket: String, plugin: String) -> Self {
        Self {
            bucket,
            plugin,
            merges: 0,
            memo_hits: 0,
            siblings_in: 0,
            siblings_out: 0,
            fuel_limit: 0,
            faults: BTreeMap::new(),
            shadow: BTreeMap::new(),
            fuel: vec![0; CLASSES],
        }
    }

    fn ran(&mut self, fuel: u64, limit: u64) {
        let count = &mut self.fuel[class(fuel)];
        *count = count.saturating_add(1);
        self.fuel_limit = limit;
    }

    /// The fuel that so many of a thousand merges have not exceeded, to a fifth. `None` if none has run.
    pub(crate) fn fuel(&self, permille: u64) -> Option<u64> {
        let all: u64 = self.fuel.iter().copied().map(u64::from).sum();
        let wanted = (all * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let is_there = |count: &u32| {
            seen += u64::from(*count);
            seen >= wanted
        };
        self.fuel.iter().position(is_there).map(upper)
    }
}

/// The class of an amount: its power of two, and the next two digits.
fn class(amount: u64) -> usize {
    let amount = amount.max(1);
    let power = amount.ilog2();
    let digits = (u128::from(amount) << 2 >> power) & 3;
    4 * power as usize + digits as usize
}

/// The largest amount of a class.
fn upper(class: usize) -> u64 {
    let (power, digits) = (class / 4, class % 4);
    let next = (5 + digits as u128) << power;
    u64::try_from((next - 1) >> 2).unwrap_or(u64::MAX)
}

impl PluginFigures {
    fn with(
        &self,
        (tenant, bucket, name): (TenantId, BucketId, &Name),
        plugin: PluginDigest,
        change: impl FnOnce(&mut Figures),
    ) {
        let mut all = lock(&self.all);
        let own = Some((tenant, bucket, plugin));
        let has_room = || {
            let of_tenant = all.keys().flatten().filter(|(of, _, _)| *of == tenant).count();
            of_tenant < MAX_TENANT_LABELS && all.keys().flatten().count() < MAX_LABELS
        };
        if all.contains_key(&own) || has_room() {
            let short: String = plugin.to_string().chars().take(DIGITS).collect();
            return change(all.entry(own).or_insert_with(|| Figures::new(name.to_string(), short)));
        }
        change(all.entry(None).or_insert_with(|| Figures::new(OTHERS.into(), OTHERS.into())));
    }

    /// A merge has a result, for so much fuel; none if it comes from the memo.
    pub(crate) fn merged(&self, share: TenantShare, job: &MergeJob, fuel: u64) {
        self.with((TenantId(share.tenant), job.bucket, &job.bucket_name), job.plugin, |figures| {
            match fuel {
                0 => figures.memo_hits += 1,
                fuel => {
                    figures.merges += 1;
                    figures.ran(fuel, job.fuel);
                }
            }
            figures.siblings_in += job.siblings.len() as u64;
            figures.siblings_out += 1;
        });
    }

    /// A merge has no result: all siblings stay.
    pub(crate) fn failed(&self, share: TenantShare, job: &MergeJob, reason: &'static str) {
        self.with((TenantId(share.tenant), job.bucket, &job.bucket_name), job.plugin, |figures| {
            *figures.faults.entry(reason).or_default() += 1;
            figures.siblings_in += job.siblings.len() as u64;
            figures.siblings_out += job.siblings.len() as u64;
        });
    }

    /// What has come of a comparison with a shadow, which has used so much of its fuel if it was run.
    pub(crate) fn compared(
        &self,
        bucket: (TenantId, BucketId, &Name),
        shadow: PluginDigest,
        result: &'static str,
        fuel: Option<(u64, u64)>,
    ) {
        self.with(bucket, shadow, |figures| {
            *figures.shadow.entry(result).or_default() += 1;
            if let Some((used, limit)) = fuel {
                figures.ran(used, limit);
            }
        });
    }

    /// Forgets the figures of plugins that their bucket does not have.
    pub(crate) fn retain(&self, has: impl Fn(BucketId, PluginDigest) -> bool) {
        lock(&self.all).retain(|pair, _| pair.is_none_or(|(_, bucket, plugin)| has(bucket, plugin)));
    }

    /// All of them, each with the bucket's id.
    pub(crate) fn all(&self) -> Vec<(Option<BucketId>, Figures)> {
        lock(&self.all).iter().map(|(pair, figures)| (pair.map(|(_, bucket, _)| bucket), figures.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::of_plugins;

    #[test]
    fn every_amount_is_in_a_class_that_is_at_most_a_quarter_wide() {
        for amount in [1, 2, 3, 4, 5, 7, 100, 1_000, 123_456_789, u64::MAX / 3, u64::MAX] {
            let most = upper(class(amount));
            assert!(most >= amount && u128::from(most) <= u128::from(amount) * 5 / 4, "{amount}: {most}");
        }
        assert_eq!(class(u64::MAX), CLASSES - 1);
    }

    #[test]
    fn quantiles_are_of_the_merges_that_ran() {
        let mut figures = Figures::new("cart".into(), "aa".into());
        assert_eq!(figures.fuel(500), None);
        (0..98).for_each(|_| figures.ran(1_000, 5_000));
        (0..2).for_each(|_| figures.ran(4_000, 5_000));
        let (half, most) = (figures.fuel(500).expect("they ran"), figures.fuel(990).expect("they ran"));
        assert!((1_000..1_250).contains(&half) && (4_000..5_000).contains(&most), "{half}, {most}");
    }

    #[test]
    fn there_are_so_many_labels_at_most_and_one_tenant_does_not_take_those_of_others() {
        let figures = PluginFigures::default();
        let name = Name::new("cart").expect("a name");
        let compare = |tenant: u64, bucket: u64| {
            let bucket = (TenantId(tenant), BucketId(bucket), &name);
            figures.compared(bucket, PluginDigest([1; 32]), "equal", Some((5, 10)));
        };
        let own = || figures.all().iter().filter(|(bucket, _)| bucket.is_some()).count();
        (0..3 * MAX_TENANT_LABELS as u64).for_each(|bucket| compare(1, bucket));
        assert_eq!(own(), MAX_TENANT_LABELS);
        (0..MAX_LABELS as u64).for_each(|tenant| compare(2 + tenant, 1_000 + tenant));
        assert_eq!((own(), figures.all().len()), (MAX_LABELS, MAX_LABELS + 1));
        let all = figures.all();
        let others = &all.iter().find(|(bucket, _)| bucket.is_none()).expect("the others").1;
        let many = 3 * MAX_TENANT_LABELS as u64;
        assert_eq!((others.bucket.as_str(), others.shadow["equal"]), (OTHERS, many));
        // A bucket that is gone, or has another plugin, leaves its place.
        figures.retain(|bucket, _| bucket.0 >= 1_000);
        assert_eq!(own(), MAX_LABELS - MAX_TENANT_LABELS);
        let text = of_plugins(&figures.all());
        let labels = |metric: &str| text.lines().filter(|line| line.starts_with(metric)).count();
        let left = MAX_LABELS - MAX_TENANT_LABELS + 1;
        assert_eq!((labels("rejoin_plugin_merges_total{"), labels("rejoin_plugin_fuel_limit{")), (left, left));
        compare(1, 1);
        assert!(figures.all().iter().any(|(bucket, of)| *bucket == Some(BucketId(1)) && of.shadow["equal"] == 1));
    }
}
