//! Whether an operator's change is good, and the record that it makes.
//!
//! Nothing is changed here: [`Control::decide`] answers from the records that there are.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use rejoin_proto::catalog::{Activation, BucketProps, MAX_QUARANTINE_BYTES, Record, RecordBody, RecordKey};
use rejoin_proto::signing::Provenance;
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Hlc, Name, PluginDigest, TenantId};

use super::signers::{from, pushed_at};
use super::{CatalogChange, Control, MAX_RECORDS, MAX_VERSION, transcribed_record};

impl Control {
    /// The record that a change makes, if it may.
    pub(super) fn decide(&self, wall_ms: u64, change: CatalogChange) -> Result<Record, ErrorReply> {
        let record = self.changed(Hlc::from_ms(wall_ms), change)?;
        // A full catalog takes no new records, but those that are there can be changed: above all, a token can be
        // withdrawn.
        if self.records.len() >= MAX_RECORDS && !self.records.contains_key(&record.key) {
            return Err(ErrorReply::new(
                ErrorCode::TooLarge,
                alloc::format!("the catalog has its {MAX_RECORDS} records"),
            ));
        }
        if record.version > MAX_VERSION {
            return Err(ErrorReply::new(
                ErrorCode::TooLarge,
                "this record has the last version that there is, and cannot be changed",
            ));
        }
        Ok(record)
    }

    fn changed(&self, stamp: Hlc, change: CatalogChange) -> Result<Record, ErrorReply> {
        match change {
            CatalogChange::BucketCreate(tenant, name, props) => {
                let key = RecordKey::Bucket(tenant, name.clone());
                let (version, past) = self.free_bucket(&key, &name)?;
                let props = self.checked(tenant, props, None, stamp)?;
                // Rule: names used again have new ids. The version is that of no earlier bucket of the name.
                let incarnation = props.incarnation().wrapping_add(version - 1);
                let id = BucketId::derive(tenant, &name, incarnation);
                if past.buckets.contains(&id) {
                    let message = "the id of this bucket would be that of a deleted one: make it with other properties";
                    return Err(ErrorReply::new(ErrorCode::Exists, message));
                }
                Ok(Record { key, version, stamp, body: RecordBody::Bucket { id, props, past } })
            }
            CatalogChange::BucketSet(tenant, name, version, props) => {
                let key = RecordKey::Bucket(tenant, name.clone());
                let Some(Record { version: current, body: RecordBody::Bucket { id, props: old, past }, .. }) =
                    self.records.get(&key)
                else {
                    return Err(absent("bucket", &name));
                };
                if *current != version {
                    let message = alloc::format!(
                        "bucket {name} is at version {current}, not {version}: look at it again, then set it"
                    );
                    return Err(ErrorReply::new(ErrorCode::VersionConflict, message));
                }
                let props = self.checked(tenant, props, Some(old), stamp)?;
                // The copies are changed in the ring: a record keeps those that the bucket was made with.
                let props = BucketProps { n: old.n, sloppy: old.sloppy, ..props };
                let mut past = past.clone();
                if old.plugin.map(|of| of.plugin) != props.plugin.map(|of| of.plugin) {
                    past.replaced(old.plugin, stamp);
                }
                let body = RecordBody::Bucket { id: *id, props, past };
                Ok(Record { key, version: version + 1, stamp, body })
            }
            CatalogChange::Token(tenant, name, by, change) => self.changed_token(stamp, (tenant, name), by, change),
            CatalogChange::PluginAdd(tenant, digest, body) => {
                self.check_signed(tenant, &digest, &body)?;
                let (key, body) = (RecordKey::Plugin(tenant, digest), pushed_at(body, stamp));
                let known = self.records.get(&key);
                let version = match known {
                    // As far ahead as a restoration.
                    Some(Record { version, body: RecordBody::DeletedPlugin { .. }, .. }) => version + 2,
                    Some(known) => {
                        let provenance = self.provenance_again(tenant, &known.body, &body);
                        return Ok(pushed_again(known, stamp, &body, provenance));
                    }
                    None => 1,
                };
                let body = marked(body, known.and_then(|known| unchecked(&known.body)));
                self.check_plugins(tenant, &body)?;
                Ok(Record { key, version, stamp, body })
            }
            CatalogChange::PluginQuarantine(tenant, digest, why) => {
                self.quarantined((tenant, digest), stamp, Some(why))
            }
            CatalogChange::PluginRelease(tenant, digest) => self.quarantined((tenant, digest), stamp, None),
            CatalogChange::PluginTranscript(tenant, digest, transcript) => {
                let known = self.plugin(tenant, digest)?;
                Ok(changed(known, stamp, transcribed_record(known.body.clone(), &[transcript])))
            }
            CatalogChange::QuotaSet(tenant, bucket, quota) => self.quota_set(stamp, (tenant, bucket), quota),
            CatalogChange::TenantDelete(name, after_ms) => self.tenant_deleted(stamp, name, after_ms),
            CatalogChange::TenantRestore(name) => self.tenant_restored(stamp, name),
            CatalogChange::BucketDelete(tenant, name, after_ms) => self.bucket_deleted(stamp, (tenant, name), after_ms),
            CatalogChange::BucketRestore(tenant, name) => self.bucket_restored(stamp, (tenant, name)),
            CatalogChange::PluginDelete(tenant, digest, after_ms) => {
                self.plugin_deleted(stamp, (tenant, digest), after_ms)
            }
            CatalogChange::PluginRestore(tenant, digest) => self.plugin_restored(stamp, (tenant, digest)),
            CatalogChange::SignersSet(tenant, change) => self.signers_set(stamp, tenant, change),
            CatalogChange::TenantCreate(name) => {
                let key = RecordKey::Tenant(self.free_tenant(&name)?);
                Ok(Record { key, version: 1, stamp, body: RecordBody::Tenant { name } })
            }
        }
    }

    /// The record of a plugin that is quarantined for that reason from now on, or is not any more. One that is already
    /// as wanted stays as it is.
    fn quarantined(
        &self,
        (tenant, digest): (TenantId, PluginDigest),
        stamp: Hlc,
        why: Option<String>,
    ) -> Result<Record, ErrorReply> {
        let known = self.plugin(tenant, digest)?;
        let mut record = known.clone();
        if let RecordBody::Plugin { quarantined, .. } = &mut record.body
            && quarantined.is_some() != why.is_some()
        {
            *quarantined = why.map(|why| cut(why, MAX_QUARANTINE_BYTES));
            (record.version, record.stamp) = (known.version + 1, stamp);
        }
        Ok(record)
    }

    /// The record of a plugin that is not deleted.
    fn plugin(&self, tenant: TenantId, digest: PluginDigest) -> Result<&Record, ErrorReply> {
        let known = self.records.get(&RecordKey::Plugin(tenant, digest));
        known
            .filter(|known| matches!(known.body, RecordBody::Plugin { .. }))
            .ok_or_else(|| ErrorReply::new(ErrorCode::NotFound, alloc::format!("there is no plugin {digest}")))
    }

    /// Checks properties, and fills in of the plugin what the catalog knows and when it was activated.
    fn checked(
        &self,
        tenant: TenantId,
        mut props: BucketProps,
        old: Option<&BucketProps>,
        stamp: Hlc,
    ) -> Result<BucketProps, ErrorReply> {
        props.check().map_err(|bad| ErrorReply::new(ErrorCode::BadRequest, bad.to_string()))?;
        let before = old.and_then(|old| old.plugin);
        props.plugin = match props.plugin {
            None => None,
            Some(wanted) => Some(match before.filter(|before| before.plugin == wanted.plugin) {
                Some(same) => same,
                None => self.activation((tenant, wanted.plugin), before.is_some(), stamp)?,
            }),
        };
        self.with_trials(tenant, props, old, stamp)
    }

    /// The activation of a plugin that the catalog has, that is not quarantined, and that is signed where it must be.
    pub(super) fn activation(
        &self,
        (tenant, plugin): (TenantId, PluginDigest),
        replaces: bool,
        stamp: Hlc,
    ) -> Result<Activation, ErrorReply> {
        let known = self.records.get(&RecordKey::Plugin(tenant, plugin)).map(|record| &record.body);
        let Some(body @ RecordBody::Plugin { self_causal, validates, quarantined, .. }) = known else {
            let message =
                alloc::format!("there is no plugin {plugin} here: push it first with `rejoin plugin push FILE`");
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        };
        if let Some(why) = quarantined {
            let message =
                alloc::format!("plugin {plugin} is quarantined: {why}; `rejoin plugin release {plugin}` ends that");
            return Err(ErrorReply::new(ErrorCode::BadRequest, message));
        }
        self.check_signed(tenant, &plugin, body)?;
        Ok(Activation { plugin, self_causal: *self_causal, since: stamp, replaces, validates: *validates })
    }
}

/// The record of a plugin that is pushed again: nothing changes, and it is no error. But if its laws were not checked
/// this time, the record says so from then on; it gets the transcript of an engine that it has none of; and it has that
/// provenance.
fn pushed_again(known: &Record, stamp: Hlc, pushed: &RecordBody, provenance: Option<Box<Provenance>>) -> Record {
    let added = if let RecordBody::Plugin { transcripts, .. } = pushed { transcripts.as_slice() } else { &[] };
    let body = from(marked(known.body.clone(), unchecked(pushed)), provenance);
    changed(known, stamp, transcribed_record(body, added))
}

/// The next version of a record, if its content changes.
fn changed(known: &Record, stamp: Hlc, body: RecordBody) -> Record {
    if body == known.body {
        return known.clone();
    }
    Record { key: known.key.clone(), version: known.version + 1, stamp, body }
}

/// The record of a plugin, with the mark that it was pushed unchecked, which nothing takes away again.
fn marked(mut body: RecordBody, by: Option<&Name>) -> RecordBody {
    if let RecordBody::Plugin { unchecked, .. } = &mut body
        && unchecked.is_none()
    {
        *unchecked = by.cloned();
    }
    body
}

/// Who has pushed a plugin unchecked.
fn unchecked(body: &RecordBody) -> Option<&Name> {
    match body {
        RecordBody::Plugin { unchecked, .. } | RecordBody::DeletedPlugin { unchecked, .. } => unchecked.as_ref(),
        _ => None,
    }
}

/// The beginning of a text that has so many bytes at most.
fn cut(mut text: String, most: usize) -> String {
    while text.len() > most {
        text.pop();
    }
    text
}

pub(super) fn absent(kind: &str, name: &Name) -> ErrorReply {
    ErrorReply::new(ErrorCode::NotFound, alloc::format!("there is no {kind} {name}"))
}
