//! Tenants by their names.
//!
//! The id of a tenant is derived from its name and from how often the name was used before: one that is reaped keeps
//! its id for ever, and with it all that ever belonged to it.

use alloc::collections::BTreeMap;

use rejoin_proto::catalog::{MAX_PAST, Record, RecordBody, RecordKey};
use rejoin_proto::{Name, TenantId};

/// How many tenants of a name were there before that id, if it is an id of the name.
#[must_use]
pub fn incarnation_of(id: TenantId, name: &Name) -> Option<u8> {
    (0..=MAX_PAST as u8).find(|incarnation| TenantId::of_incarnation(name, *incarnation) == id)
}

/// All tenants of a catalog by their names, those that are gone too.
#[derive(Clone, Default, Debug)]
pub struct TenantNames {
    /// When each incarnation was reaped or is to be, in milliseconds since 1970; 0 for one that is not deleted.
    known: BTreeMap<Name, BTreeMap<u8, u64>>,
}

impl TenantNames {
    /// The tenants of these records.
    #[must_use]
    pub fn new<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut names = Self::default();
        for record in records {
            let (RecordKey::Tenant(id), body) = (&record.key, &record.body) else { continue };
            let (name, reap_ms) = match body {
                RecordBody::Tenant { name } => (name, 0),
                RecordBody::DeletedTenant { name, deleted } => (name, deleted.reap_ms),
                _ => continue,
            };
            if let Some(incarnation) = incarnation_of(*id, name) {
                names.known.entry(name.clone()).or_default().insert(incarnation, reap_ms);
            }
        }
        names
    }

    /// The tenant that has a name: the last of those that had it. There need not be one.
    #[must_use]
    pub fn get(&self, name: &Name) -> TenantId {
        let last = self.known.get(name).and_then(BTreeMap::last_key_value);
        // Rule: names are of their last tenant.
        last.map_or_else(|| TenantId::from_name(name), |(last, _)| TenantId::of_incarnation(name, *last))
    }

    /// Since when a name is that of its tenant, in milliseconds since 1970: what was issued for the name before is that
    /// of another tenant. 0 if there was no other.
    #[must_use]
    pub fn since_ms(&self, name: &Name) -> u64 {
        let before = self.known.get(name).and_then(|all| all.values().rev().nth(1));
        before.copied().unwrap_or_default()
    }
}
