//! Quotas: what a tenant or a bucket may use, and what they do use.

use std::collections::BTreeMap;

use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::{AdminRequest, ReachedLimit, RecordKind, Reply, RequestBody, TenantUsage};
use rejoin_proto::quota::Quota;
use rejoin_proto::{BucketId, Name};

use super::{Admin, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

/// What a tenant uses at the nodes that answered, all together, and has used since each of them started.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Usage {
    /// The nodes that answered.
    pub nodes: usize,
    /// Requests for objects that were taken.
    pub requests: u64,
    /// Requests and merges that were refused because of a quota.
    pub refused: u64,
    /// Bytes of the requests that were taken.
    pub bytes_in: u64,
    /// Bytes of the replies to them.
    pub bytes_out: u64,
    /// Fuel of merges.
    pub fuel: u64,
    /// Connections now.
    pub connections: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// What is stored of each bucket, all copies together.
    pub buckets: BTreeMap<BucketId, Stored>,
    /// The limits that are reached, of each limit what the node says that has most.
    pub reached: Vec<ReachedLimit>,
}

/// What is stored of a bucket, all copies together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// Copies of objects that have a value. One that is deleted does not count.
    pub objects: u64,
    /// Bytes of all copies, with the tombstones of what is deleted.
    pub bytes: u64,
}

impl Usage {
    /// What is stored of all buckets.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let add = |all: Stored, of: &Stored| Stored { objects: all.objects + of.objects, bytes: all.bytes + of.bytes };
        self.buckets.values().fold(Stored::default(), add)
    }

    fn add(&mut self, of: TenantUsage) {
        let TenantUsage { requests, refused, bytes_in, bytes_out, fuel, connections, in_flight, buckets, reached } = of;
        self.nodes += 1;
        for (sum, value) in [
            (&mut self.requests, requests),
            (&mut self.refused, refused),
            (&mut self.bytes_in, bytes_in),
            (&mut self.bytes_out, bytes_out),
            (&mut self.fuel, fuel),
            (&mut self.connections, connections),
            (&mut self.in_flight, in_flight),
        ] {
            *sum = sum.saturating_add(value);
        }
        for bucket in buckets {
            let sum = self.buckets.entry(bucket.bucket).or_default();
            *sum = Stored { objects: sum.objects + bucket.objects, bytes: sum.bytes + bucket.bytes };
        }
        for limit in reached {
            let is_same = |known: &&mut ReachedLimit| {
                (&known.bucket, known.limit, known.hard) == (&limit.bucket, limit.limit, limit.hard)
            };
            match self.reached.iter_mut().find(is_same) {
                Some(known) if known.used >= limit.used => {}
                Some(known) => *known = limit,
                None => self.reached.push(limit),
            }
        }
    }
}

impl Admin {
    /// What the tenant uses at the nodes. Those that cannot be reached do not count.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let bytes = client.admin().usage().await?.stored().bytes;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn usage(&self) -> Result<Usage> {
        let request = RequestBody::Admin(AdminRequest::Usage);
        let mut usage = Usage::default();
        for (_, reply) in self.engine.every(&request, self.timeout).await?.answers {
            let Reply::Usage(of) = reply else { return Err(unexpected("the node")) };
            usage.add(of);
        }
        Ok(usage)
    }

    /// The quotas of the tenant (`None`) and of its buckets.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let of_tenant = client.admin().quotas().await?.get(&None).copied();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn quotas(&self) -> Result<BTreeMap<Option<BucketId>, Quota>> {
        Ok(self.list(RecordKind::Quota).await?.into_iter().filter_map(quota).collect())
    }

    /// Sets the quota of the tenant, or of one of its buckets. What it does not limit is not limited any more. Returns
    /// the nodes that do not know of it yet.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{Limit, Quota};
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let quota = Quota::default().with(Limit::Bytes, 1 << 30).warn(Limit::Bytes, 1 << 29);
    /// client.admin().set_quota(None, quota).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a malformed name, [`ErrorKind::NotFound`] without such a bucket,
    /// [`ErrorKind::BadRequest`] for a limit that it cannot have; else as [`Admin::status`].
    pub async fn set_quota(&self, bucket: Option<&str>, quota: Quota) -> Result<Vec<Name>> {
        let bucket = bucket.map(admin_name).transpose()?;
        self.change(AdminRequest::QuotaSet { bucket, quota: Box::new(quota) }, self::quota)
            .await
            .map(|(_, behind)| behind)
    }
}

fn quota(record: Record) -> Option<(Option<BucketId>, Quota)> {
    match (record.key, record.body) {
        (RecordKey::Quota(_, bucket), RecordBody::Quota(quota)) => Some((bucket, *quota)),
        _ => None,
    }
}
