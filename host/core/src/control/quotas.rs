//! Changes of quotas, and what the quota of plugins allows.

use alloc::boxed::Box;
use alloc::string::ToString;

use rejoin_proto::catalog::{PluginRecord, Record, RecordBody, RecordKey};
use rejoin_proto::quota::{Limit, MAX_WEIGHT, Quota};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Name, TenantId};

use super::Control;
use super::decide::absent;
use crate::quota::Reached;

impl Control {
    /// The record of a quota of a tenant, or of one of its buckets.
    pub(super) fn quota_set(
        &self,
        stamp: Hlc,
        (tenant, bucket): (TenantId, Option<Name>),
        quota: Box<Quota>,
    ) -> Result<Record, ErrorReply> {
        let refused = |message| Err(ErrorReply::new(ErrorCode::BadRequest, message));
        let named = || quota.hard.iter().chain(quota.soft.iter()).map(|(limit, _)| limit);
        if let (Some(bucket), Some(limit)) = (&bucket, named().find(|limit| limit.is_of_tenants())) {
            let name = limit.name();
            return refused(alloc::format!("{name} is limited for a whole tenant, and not for bucket {bucket} alone"));
        }
        if quota.soft.get(Limit::Siblings).is_some() {
            let message = "siblings have no soft limit: the property `siblings` of a bucket says when they are merged";
            return refused(message.to_string());
        }
        if bucket.is_some() && quota.weight.is_some() {
            return refused("a weight is that of a whole tenant, and not of a bucket alone".to_string());
        }
        if quota.weight.is_some_and(|weight| !(1..=MAX_WEIGHT).contains(&weight)) {
            return refused(alloc::format!("a weight is 1 to {MAX_WEIGHT}"));
        }
        let bucket = match bucket {
            None => None,
            Some(name) => match self.records.get(&RecordKey::Bucket(tenant, name.clone())).map(|record| &record.body) {
                Some(RecordBody::Bucket { id, .. }) => Some(*id),
                _ => return Err(absent("bucket", &name)),
            },
        };
        let key = RecordKey::Quota(tenant, bucket);
        let version = self.records.get(&key).map_or(1, |known| known.version + 1);
        Ok(Record { key, version, stamp, body: RecordBody::Quota(quota) })
    }

    /// Whether a tenant may have that plugin beside those that it has.
    ///
    /// # Errors
    /// Which limit there is.
    pub(super) fn check_plugins(&self, tenant: TenantId, wanted: &PluginRecord) -> Result<(), ErrorReply> {
        let Some(Record { body: RecordBody::Quota(quota), .. }) = self.records.get(&RecordKey::Quota(tenant, None))
        else {
            return Ok(());
        };
        let size = |record: &Record| match (&record.key, &record.body) {
            (RecordKey::Plugin(of, _), RecordBody::Plugin(plugin)) if *of == tenant => Some(plugin.bytes),
            _ => None,
        };
        let sizes = || self.records.values().filter_map(size);
        let used = [
            (Limit::Plugins, sizes().count() as u64, 1),
            (Limit::PluginBytes, sizes().fold(0, u64::saturating_add), wanted.bytes),
        ];
        for (limit, used, more) in used {
            // Rule: plugins are within their quota.
            if let Some(most) = quota.hard.get(limit)
                && used.saturating_add(more) > most
            {
                let whose = "the tenant".to_string();
                let refusal = Reached { whose, limit, most, used: Some(used) }.refusal(0);
                let advice = "; `rejoin plugin delete` makes room";
                return Err(ErrorReply { message: refusal.message + advice, ..refusal });
            }
        }
        Ok(())
    }
}
