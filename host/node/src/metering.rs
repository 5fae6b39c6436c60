//! What each tenant uses at this node: counted for metrics and for `rejoin tenant usage`, and held against its quota.
//!
//! A request is counted when it is taken, and its reply when it is sent. Fuel is counted after a merge, because it is
//! not known before: a tenant that owes fuel waits until it has paid. Merges that the node does by itself, such as
//! those of an exchange, are their tenant's like all others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rejoin_core::quota::{Rate, Reached};
use rejoin_core::shard::event::PluginError;
use rejoin_core::view::{Bucket, ClusterView, Owner};
use rejoin_merge::job_fuel;
use rejoin_proto::client::ReachedLimit;
use rejoin_proto::quota::{Limit, Quota};
use rejoin_proto::{BucketId, ErrorReply, TenantId};

use crate::lock::lock;

/// The most tenants that have a label of their own in the metrics. All others together are [`OTHERS`].
const MAX_LABELS: usize = 100;
/// The label of the tenants that have none of their own. It is the name of no tenant.
const OTHERS: &str = "(others)";
/// How long a client should wait that has as many requests under way as it may, in milliseconds.
const IN_FLIGHT_RETRY_MS: u32 = 50;

/// What was used since the node started, and the requests under way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) fuel: u64,
    pub(crate) in_flight: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        let Self { requests, refused, bytes_in, bytes_out, fuel, in_flight } = other;
        self.requests += requests;
        self.refused += refused;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
        self.fuel += fuel;
        self.in_flight += in_flight;
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct State {
    totals: Totals,
    requests: Rate,
    bytes: Rate,
    fuel: Rate,
}

impl State {
    /// This state with one more request of so many bytes.
    ///
    /// # Errors
    /// The limit that it would break, how much there may be, and how long to wait in milliseconds.
    fn with_request(mut self, quota: Option<&Quota>, bytes: u64, now_us: u64) -> Result<Self, (Limit, u64, u32)> {
        let most = |limit| quota.and_then(|quota| quota.hard.get(limit));
        if let Some(most) = most(Limit::InFlight)
            && self.totals.in_flight >= most
        {
            return Err((Limit::InFlight, most, IN_FLIGHT_RETRY_MS));
        }
        let rates =
            [(&mut self.requests, Limit::RequestsPerSecond, 1), (&mut self.bytes, Limit::BytesPerSecond, bytes)];
        for (rate, limit, units) in rates {
            if let Some(most) = most(limit) {
                rate.take(now_us, most, units).map_err(|wait_ms| (limit, most, wait_ms))?;
            }
        }
        self.totals.requests += 1;
        self.totals.bytes_in += bytes;
        self.totals.in_flight += 1;
        Ok(self)
    }
}

/// The meter of a tenant, or of a bucket that has a quota.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The tenant's name in the metrics.
    label: String,
    state: Mutex<State>,
}

impl Meter {
    pub(crate) fn totals(&self) -> Totals {
        lock(&self.state).totals
    }
}

/// The meters by whom they are of.
#[derive(Default)]
struct Meters {
    /// One entry for each tenant, and for each bucket that has a quota: no more than the catalog has records.
    all: BTreeMap<Owner, Arc<Meter>>,
    /// The labels of tenants since the node started.
    labels: BTreeSet<String>,
}

/// All meters of a node.
#[derive(Default)]
pub(crate) struct Metering {
    meters: Mutex<Meters>,
    /// The limits that were reached when that was last looked at.
    reached: Mutex<BTreeMap<TenantId, Vec<ReachedLimit>>>,
}

impl Metering {
    /// The meter of a tenant.
    pub(crate) fn tenant(&self, view: &ClusterView, tenant: TenantId) -> Arc<Meter> {
        self.meter(view, (tenant, None))
    }

    fn meter(&self, view: &ClusterView, owner: Owner) -> Arc<Meter> {
        let mut meters = lock(&self.meters);
        let Meters { all, labels } = &mut *meters;
        if let Some(meter) = all.get(&owner) {
            return meter.clone();
        }
        let name = view.tenant_name(owner.0).map_or_else(|| owner.0.to_string(), ToString::to_string);
        let has_label = labels.contains(&name) || labels.len() < MAX_LABELS && labels.insert(name.clone());
        let label = if has_label { name } else { OTHERS.to_owned() };
        let meter = Arc::new(Meter { label, state: Mutex::default() });
        all.insert(owner, meter.clone());
        meter
    }

    /// Forgets the meters of tenants that are gone, and of buckets without a quota.
    pub(crate) fn forget(&self, view: &ClusterView) {
        let is_kept = |(tenant, bucket): &Owner| {
            view.tenant_name(*tenant).is_some() && (bucket.is_none() || view.quota((*tenant, *bucket)).is_some())
        };
        lock(&self.meters).all.retain(|owner, _| is_kept(owner));
    }

    /// The meters that count what is done in a bucket: of its tenant, and its own if it has a quota.
    fn payers<'a>(
        &self,
        view: &'a ClusterView,
        tenant: (TenantId, Arc<Meter>),
        bucket: Option<BucketId>,
    ) -> Payers<'a> {
        let (tenant, meter) = tenant;
        let own = bucket.and_then(|bucket| {
            let owner = (tenant, Some(bucket));
            let quota = view.quota(owner)?;
            Some(Payer { owner, meter: self.meter(view, owner), quota: Some(quota) })
        });
        let owner = (tenant, None);
        (Payer { owner, meter, quota: view.quota(owner) }, own)
    }

    /// Counts a request of so many bytes, until the answer is dropped.
    ///
    /// # Errors
    /// A quota of its tenant or bucket is used up. Then it is counted as refused only.
    pub(crate) fn begin(
        &self,
        view: &ClusterView,
        (tenant, meter): (TenantId, &Arc<Meter>),
        bucket: Option<&Bucket>,
        (bytes, now_us): (usize, u64),
    ) -> Result<InFlight, ErrorReply> {
        let (of_tenant, of_bucket) = self.payers(view, (tenant, meter.clone()), bucket.map(|bucket| bucket.id));
        let bytes = bytes as u64;
        // Always in this order, so that two requests cannot wait for each other.
        let mut first = lock(&of_tenant.meter.state);
        let mut second = of_bucket.as_ref().map(|payer| lock(&payer.meter.state));
        let refused = |payer: &Payer<'_>, (limit, most, wait_ms): (Limit, u64, u32)| {
            Reached { whose: whose(view, payer.owner), limit, most, used: None }.refusal(wait_ms)
        };
        let decided = first.with_request(of_tenant.quota, bytes, now_us).map_err(|limit| refused(&of_tenant, limit));
        let decided = decided.and_then(|taken| match (&second, &of_bucket) {
            (Some(state), Some(payer)) => {
                let of_bucket =
                    state.with_request(payer.quota, bytes, now_us).map_err(|limit| refused(payer, limit))?;
                Ok((taken, Some(of_bucket)))
            }
            _ => Ok((taken, None)),
        });
        match decided {
            Ok((taken, of_bucket)) => {
                *first = taken;
                if let (Some(state), Some(taken)) = (&mut second, of_bucket) {
                    **state = taken;
                }
            }
            Err(refusal) => {
                first.totals.refused += 1;
                if let Some(state) = &mut second {
                    state.totals.refused += 1;
                }
                return Err(refusal);
            }
        }
        drop((first, second));
        Ok(InFlight { tenant: of_tenant.meter, bucket: of_bucket.map(|payer| payer.meter) })
    }

    /// Who pays for a merge of a bucket.
    ///
    /// # Errors
    /// It owes too much already.
    pub(crate) fn begin_merge(
        &self,
        view: &ClusterView,
        bucket: BucketId,
        now_us: u64,
    ) -> Result<FuelPayers, PluginError> {
        // A bucket that was deleted meanwhile: nobody pays for the last merges.
        let Some(bucket) = view.bucket(bucket) else { return Ok(FuelPayers::default()) };
        let (of_tenant, of_bucket) =
            self.payers(view, (bucket.tenant, self.tenant(view, bucket.tenant)), Some(bucket.id));
        paying(view, [Some(of_tenant), of_bucket], now_us).map_err(|refusal| PluginError::OverQuota(refusal.message))
    }

    /// Who pays for a check of the laws of a plugin that a tenant pushes.
    ///
    /// # Errors
    /// It owes too much already.
    pub(crate) fn begin_laws(
        &self,
        view: &ClusterView,
        tenant: TenantId,
        now_us: u64,
    ) -> Result<FuelPayers, ErrorReply> {
        let (of_tenant, _) = self.payers(view, (tenant, self.tenant(view, tenant)), None);
        paying(view, [Some(of_tenant), None], now_us)
    }

    /// What every tenant and every bucket with a quota has used.
    pub(crate) fn totals(&self) -> BTreeMap<Owner, Totals> {
        lock(&self.meters).all.iter().map(|(owner, meter)| (*owner, meter.totals())).collect()
    }

    /// What the tenants of each label have used.
    pub(crate) fn by_label(&self) -> BTreeMap<String, Totals> {
        let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
        for (_, meter) in lock(&self.meters).all.iter().filter(|((_, bucket), _)| bucket.is_none()) {
            totals.entry(meter.label.clone()).or_default().add(meter.totals());
        }
        totals
    }

    /// The label of a tenant.
    pub(crate) fn label(&self, view: &ClusterView, tenant: TenantId) -> String {
        self.tenant(view, tenant).label.clone()
    }

    /// The limits of a tenant and its buckets that are reached.
    pub(crate) fn reached(&self, tenant: TenantId) -> Vec<ReachedLimit> {
        lock(&self.reached).get(&tenant).cloned().unwrap_or_default()
    }

    pub(crate) fn set_reached(&self, reached: BTreeMap<TenantId, Vec<ReachedLimit>>) {
        *lock(&self.reached) = reached;
    }
}

/// Those who pay, if none of them owes fuel.
fn paying(view: &ClusterView, payers: [Option<Payer<'_>>; 2], now_us: u64) -> Result<FuelPayers, ErrorReply> {
    let mut paying = FuelPayers::default();
    for payer in payers.into_iter().flatten() {
        let most = payer.quota.and_then(|quota| quota.hard.get(Limit::FuelPerSecond));
        let mut state = lock(&payer.meter.state);
        if let Some(most) = most
            && let Err(wait_ms) = state.fuel.check(now_us)
        {
            state.totals.refused += 1;
            let whose = whose(view, payer.owner);
            let reached = Reached { whose, limit: Limit::FuelPerSecond, most, used: None };
            return Err(reached.refusal(wait_ms));
        }
        drop(state);
        paying.0.push((payer.meter, most));
    }
    Ok(paying)
}

/// Somebody whose meter counts.
struct Payer<'a> {
    owner: Owner,
    meter: Arc<Meter>,
    quota: Option<&'a Quota>,
}

/// A tenant, and its bucket if that has a quota.
type Payers<'a> = (Payer<'a>, Option<Payer<'a>>);

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    tenant: Arc<Meter>,
    bucket: Option<Arc<Meter>>,
}

impl InFlight {
    fn meters(&self) -> impl Iterator<Item = &Arc<Meter>> {
        [Some(&self.tenant), self.bucket.as_ref()].into_iter().flatten()
    }

    /// Counts that a shard has refused it because of a quota.
    pub(crate) fn refused(&self) {
        self.meters().for_each(|meter| lock(&meter.state).totals.refused += 1);
    }

    /// Counts the reply.
    pub(crate) fn replied(&self, bytes: usize) {
        self.meters().for_each(|meter| lock(&meter.state).totals.bytes_out += bytes as u64);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.meters().for_each(|meter| lock(&meter.state).totals.in_flight -= 1);
    }
}

/// Who pays for the fuel of a merge, and at what rate.
#[derive(Clone, Default, Debug)]
pub(crate) struct FuelPayers(Vec<(Arc<Meter>, Option<u64>)>);

impl FuelPayers {
    /// Charges what all calls of the pool's present job have used, answered or not. It is called where the job's result
    /// is taken.
    pub(crate) fn charge_job(&self, now_us: u64) {
        self.charge(job_fuel(), now_us);
    }

    /// Whether one of them owes fuel.
    pub(crate) fn owe(&self, now_us: u64) -> bool {
        self.0.iter().any(|(meter, most)| most.is_some() && lock(&meter.state).fuel.check(now_us).is_err())
    }

    /// Charges fuel that was used.
    pub(crate) fn charge(&self, fuel: u64, now_us: u64) {
        for (meter, most) in &self.0 {
            let mut state = lock(&meter.state);
            state.totals.fuel = state.totals.fuel.saturating_add(fuel);
            if let Some(most) = most {
                state.fuel.owe(now_us, *most, fuel);
            }
        }
    }
}

/// Whose quota it is, for people.
pub(crate) fn whose(view: &ClusterView, (tenant, bucket): Owner) -> String {
    match (bucket.and_then(|bucket| view.bucket(bucket)), view.tenant_name(tenant)) {
        (Some(bucket), _) => format!("bucket {}", bucket.name),
        (None, Some(tenant)) => format!("tenant {tenant}"),
        (None, None) => format!("tenant {tenant}"),
    }
}
