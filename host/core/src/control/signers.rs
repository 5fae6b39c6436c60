//! Who may sign a tenant's plugins, and which plugins are signed by them.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rejoin_proto::catalog::{PluginRecord, Record, RecordBody, RecordKey};
use rejoin_proto::signing::{MAX_SIGNERS, Provenance, SignerChange, SignerKey};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, PluginDigest, TenantId};

use super::Control;

impl Control {
    /// The keys that may sign a tenant's plugins. Without any they need no signature.
    fn signers(&self, tenant: TenantId) -> &[SignerKey] {
        match self.records.get(&RecordKey::Signers(tenant)).map(|record| &record.body) {
            Some(RecordBody::Signers(keys)) => keys,
            _ => &[],
        }
    }

    /// The record of a tenant's signers after a change. One that is already so stays as it is.
    pub(super) fn signers_set(&self, stamp: Hlc, tenant: TenantId, change: SignerChange) -> Result<Record, ErrorReply> {
        let key = RecordKey::Signers(tenant);
        let mut keys = self.signers(tenant).to_vec();
        match change {
            SignerChange::Add(signer) => {
                if let Err(place) = keys.binary_search(&signer) {
                    keys.insert(place, signer);
                }
            }
            SignerChange::Remove(signer) => match keys.binary_search(&signer) {
                Ok(place) => {
                    keys.remove(place);
                }
                Err(_) => {
                    let message = alloc::format!("{signer} is no key that signs the plugins of this tenant");
                    return Err(ErrorReply::new(ErrorCode::NotFound, message));
                }
            },
        }
        if keys.len() > MAX_SIGNERS {
            let message = alloc::format!("a tenant has {MAX_SIGNERS} signers at most: remove one first");
            return Err(ErrorReply::new(ErrorCode::TooLarge, message));
        }
        let known = self.records.get(&key);
        if let Some(known) = known.filter(|known| matches!(&known.body, RecordBody::Signers(now) if *now == keys)) {
            return Ok(known.clone());
        }
        let version = known.map_or(1, |known| known.version + 1);
        Ok(Record { key, version, stamp, body: RecordBody::Signers(keys) })
    }

    /// Checks that a plugin is signed by one of the tenant's signers, if it has any.
    ///
    /// # Errors
    /// It is not. Says which keys would do.
    pub(super) fn check_signed(
        &self,
        tenant: TenantId,
        digest: &PluginDigest,
        plugin: &PluginRecord,
    ) -> Result<(), ErrorReply> {
        let signers = self.signers(tenant);
        let signer = plugin.provenance.as_ref().and_then(|from| from.signer);
        // Rule: unsigned plugins are not used.
        if signers.is_empty() || signer.is_some_and(|signer| signers.contains(&signer)) {
            return Ok(());
        }
        let by = signer.map_or_else(
            || "is not signed".to_string(),
            |signer| alloc::format!("is signed with {signer}, which is no signer of this tenant now"),
        );
        let keys: Vec<String> = signers.iter().map(ToString::to_string).collect();
        let message = alloc::format!(
            "plugin {digest} {by}: this tenant takes plugins that are signed with one of {}. `rejoin plugin sign FILE \
             --key KEY` signs a component, and `rejoin plugin push FILE` takes the signature with it",
            keys.join(", ")
        );
        Err(ErrorReply::new(ErrorCode::PluginRejected, message))
    }

    /// The provenance of a plugin that is pushed again. It stays as it is, so that pushing twice changes nothing. Only
    /// a signature takes the place of one that the tenant does not take (any more).
    pub(super) fn provenance_again(
        &self,
        tenant: TenantId,
        known: &PluginRecord,
        pushed: &PluginRecord,
    ) -> Option<Box<Provenance>> {
        let (known, pushed) = (known.provenance.as_deref(), pushed.provenance.as_deref());
        let mut kept = known.or(pushed)?.clone();
        let signers = self.signers(tenant);
        let is_taken = |signer: Option<SignerKey>| signer.is_some_and(|signer| signers.contains(&signer));
        if let Some(pushed) = pushed
            && (kept.signer.is_none() || !is_taken(kept.signer) && is_taken(pushed.signer))
        {
            kept.signer = pushed.signer;
        }
        Some(Box::new(kept))
    }
}
