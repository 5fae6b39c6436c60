//! Whether an operator's change is good, and the record that it makes.
//!
//! Nothing is changed here: [`Control::decide`] answers from the records that there are.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rejoin_proto::catalog::{
    Activation, BucketProps, MAX_QUARANTINE_BYTES, PluginRecord, Record, RecordBody, RecordKey,
};
use rejoin_proto::signing::Provenance;
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Hlc, Name, PluginDigest, TenantId};

use super::deletions::no_plugin;
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
            CatalogChange::PluginAdd(tenant, digest, mut plugin) => {
                self.check_signed(tenant, &digest, &plugin)?;
                if let Some(from) = &mut plugin.provenance {
                    from.pushed = stamp;
                }
                let key = RecordKey::Plugin(tenant, digest);
                let version = match self.records.get(&key) {
                    Some(known @ Record { body: RecordBody::Plugin(before), .. }) => {
                        let provenance = self.provenance_again(tenant, before, &plugin);
                        let again = pushed_again(before, &plugin, provenance);
                        return Ok(changed(known, stamp, RecordBody::Plugin(again)));
                    }
                    Some(Record { version, body: RecordBody::DeletedPlugin { plugin: before, .. }, .. }) => {
                        plugin.unchecked = plugin.unchecked.take().or_else(|| before.unchecked.clone());
                        // As far ahead as a restoration.
                        version + 2
                    }
                    _ => 1,
                };
                self.check_plugins(tenant, &plugin)?;
                Ok(Record { key, version, stamp, body: RecordBody::Plugin(plugin) })
            }
            CatalogChange::PluginQuarantine(tenant, digest, why) => self.quarantined((tenant, digest), stamp, why),
            CatalogChange::PluginRelease(tenant, digest) => {
                let (known, plugin) = self.plugin(tenant, digest)?;
                // The transcripts too: one that a faulty node has recorded would keep all others from running it.
                let released = PluginRecord { quarantined: None, transcripts: Vec::new(), ..plugin.clone() };
                Ok(changed(known, stamp, RecordBody::Plugin(Box::new(released))))
            }
            CatalogChange::PluginTranscript(tenant, digest, transcript) => {
                let (known, plugin) = self.plugin(tenant, digest)?;
                let plugin = transcribed_record(Box::new(plugin.clone()), &[transcript]);
                Ok(changed(known, stamp, RecordBody::Plugin(plugin)))
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

    /// The record of a plugin that is quarantined for that reason from now on. One that is already stays as it is.
    fn quarantined(
        &self,
        (tenant, digest): (TenantId, PluginDigest),
        stamp: Hlc,
        why: String,
    ) -> Result<Record, ErrorReply> {
        let (known, plugin) = self.plugin(tenant, digest)?;
        if plugin.quarantined.is_some() {
            return Ok(known.clone());
        }
        let quarantined = Some(cut(why, MAX_QUARANTINE_BYTES));
        Ok(changed(known, stamp, RecordBody::Plugin(Box::new(PluginRecord { quarantined, ..plugin.clone() }))))
    }

    /// The record of a plugin that is not deleted, and what it says.
    fn plugin(&self, tenant: TenantId, digest: PluginDigest) -> Result<(&Record, &PluginRecord), ErrorReply> {
        match self.records.get(&RecordKey::Plugin(tenant, digest)) {
            Some(known @ Record { body: RecordBody::Plugin(plugin), .. }) => Ok((known, plugin)),
            _ => Err(no_plugin(&digest)),
        }
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
        let Some(RecordBody::Plugin(known)) = known else {
            let message =
                alloc::format!("there is no plugin {plugin} here: push it first with `rejoin plugin push FILE`");
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        };
        if let Some(why) = &known.quarantined {
            let message =
                alloc::format!("plugin {plugin} is quarantined: {why}; `rejoin plugin release {plugin}` ends that");
            return Err(ErrorReply::new(ErrorCode::BadRequest, message));
        }
        self.check_signed(tenant, &plugin, known)?;
        let (self_causal, validates) = (known.self_causal, known.validates);
        Ok(Activation { plugin, self_causal, since: stamp, replaces, validates })
    }
}

/// What is known of a plugin that is pushed again: nothing changes, and it is no error. But if its laws were not
/// checked this time, the record says so from then on, which nothing takes away again; it gets the transcript of an
/// engine that it has none of; and it has that provenance.
fn pushed_again(known: &PluginRecord, pushed: &PluginRecord, provenance: Option<Box<Provenance>>) -> Box<PluginRecord> {
    let unchecked = known.unchecked.clone().or_else(|| pushed.unchecked.clone());
    let record = Box::new(PluginRecord { unchecked, provenance, ..known.clone() });
    transcribed_record(record, &pushed.transcripts)
}

/// The next version of a record, if its content changes.
fn changed(known: &Record, stamp: Hlc, body: RecordBody) -> Record {
    if body == known.body {
        return known.clone();
    }
    Record { key: known.key.clone(), version: known.version + 1, stamp, body }
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
