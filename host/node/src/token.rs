//! Tokens, by which clients authenticate.
//!
//! A token is `TENANT/NAME:SECRET`, or `NAME:SECRET` of the tenant `default`. The catalog has only the BLAKE3 hash of
//! the secret part. The root token is derived from the cluster's secret file and is not in the catalog: the owner of
//! that file is the operator. A client that shows a certificate of a tenant shows no token: the certificate says what a
//! token would.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use rejoin_core::tenants::TenantNames;
use rejoin_proto::access::{DEFAULT_TENANT, Grant, Scope, TokenText};
use rejoin_proto::catalog::{OldSecret, Record, RecordBody, RecordKey};
use rejoin_proto::{Name, TenantId};

use crate::secret::{Secret, without_line_end};

/// The name of the root token. No other token can have it.
pub const ROOT: &str = "root";

/// The root token of the cluster whose secret was never replaced and whose file has that content, of any length. See
/// [`Secret::root_token`].
#[must_use]
pub fn root_token(file: &[u8]) -> String {
    derived_token(without_line_end(file))
}

/// The root token that is derived from a secret.
pub(crate) fn derived_token(secret: &[u8]) -> String {
    let secret = blake3::derive_key("rejoin 2026 root token", secret);
    format!("{ROOT}:{}", URL_SAFE_NO_PAD.encode(secret))
}

/// The owner and rights of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Principal {
    pub(crate) name: Name,
    /// The tenant that the token belongs to.
    pub(crate) tenant: TenantId,
    pub(crate) grant: Grant,
    /// When the text of the token ceases to be taken, in milliseconds since 1970: the token expires, or its secret is
    /// one from before a rotation.
    pub(crate) until_ms: Option<u64>,
}

/// The certificate of a client that shows no token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Certificate {
    pub(crate) tenant: Name,
    pub(crate) scope: Scope,
    pub(crate) name: Name,
    /// When it was made, in milliseconds since 1970.
    pub(crate) issued_ms: u64,
    /// When it ends, in milliseconds since 1970.
    pub(crate) until_ms: u64,
}

/// A token of the catalog that is not revoked.
#[derive(Clone, Debug)]
struct Known {
    grant: Grant,
    secret_hash: [u8; 32],
    before: Option<OldSecret>,
}

/// The valid tokens.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// One, or two while the cluster's secret is replaced.
    roots: Vec<blake3::Hash>,
    known: BTreeMap<(TenantId, Name), Known>,
    /// The names of certificates that are refused.
    barred: BTreeSet<(TenantId, Name)>,
    tenants: TenantNames,
}

impl Tokens {
    pub(crate) fn new<'a>(secret: &Secret, records: impl IntoIterator<Item = &'a Record> + Clone) -> Self {
        let tenants = TenantNames::new(records.clone());
        let (mut known, mut barred) = (BTreeMap::new(), BTreeSet::new());
        for record in records {
            let RecordKey::Token(tenant, name) = &record.key else { continue };
            match &record.body {
                RecordBody::Token { grant, secret_hash, before, revoked: false, .. } => {
                    let token = Known { grant: grant.clone(), secret_hash: *secret_hash, before: *before };
                    known.insert((*tenant, name.clone()), token);
                }
                RecordBody::Token { barred: true, .. } => drop(barred.insert((*tenant, name.clone()))),
                _ => {}
            }
        }
        let hash = |root: String| blake3::hash(root.rsplit(':').next().unwrap_or_default().as_bytes());
        Self { roots: secret.root_tokens().map(hash).collect(), known, barred, tenants }
    }

    /// The owner of a token, or `None` if it is wrong, unknown, expired or revoked. The caller cannot tell which.
    pub(crate) fn check(&self, token: &str, now_ms: u64) -> Option<Principal> {
        let TokenText { tenant, name, secret } = TokenText::parse(token)?;
        let is_root = tenant.as_str() == DEFAULT_TENANT && name.as_str() == ROOT;
        let tenant = self.tenants.get(&tenant);
        let hash = blake3::hash(secret.as_bytes());
        if is_root {
            let grant = Grant::of(Scope::Operator);
            // BLAKE3 hashes compare in constant time.
            return self.roots.contains(&hash).then(|| Principal { name, tenant, grant, until_ms: None });
        }
        let known = self.known.get(&(tenant, name.clone()))?;
        let grant = known.grant.clone();
        let until_ms = match known.before {
            _ if hash == known.secret_hash => grant.expires_ms,
            Some(OldSecret { hash: old, until_ms }) if hash == old => {
                Some(grant.expires_ms.map_or(until_ms, |expires_ms| expires_ms.min(until_ms)))
            }
            _ => return None,
        };
        until_ms.is_none_or(|until_ms| now_ms < until_ms).then_some(Principal { name, tenant, grant, until_ms })
    }

    /// The owner of a certificate, which TLS has verified; `None` if it has ended or is revoked.
    pub(crate) fn certified(&self, certificate: &Certificate, now_ms: u64) -> Option<Principal> {
        let Certificate { tenant, scope, name, issued_ms, until_ms } = certificate;
        // One that was made for an earlier tenant of the name is none of this one's.
        let is_of_tenant = *issued_ms >= self.tenants.since_ms(tenant);
        let tenant = self.tenants.get(tenant);
        let is_taken = is_of_tenant && now_ms < *until_ms && !self.barred.contains(&(tenant, name.clone()));
        let (name, grant, until_ms) = (name.clone(), Grant::of(*scope), Some(*until_ms));
        is_taken.then_some(Principal { name, tenant, grant, until_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::Hlc;
    use rejoin_proto::access::MAX_TOKEN_BYTES;
    use rejoin_proto::catalog::Deleted;

    const NOW_MS: u64 = 1_000;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn hash(secret: &str) -> [u8; 32] {
        *blake3::hash(secret.as_bytes()).as_bytes()
    }

    /// The token `app` of the tenant `shop`.
    fn record(body: RecordBody) -> Record {
        let key = RecordKey::Token(TenantId::from_name(&name("shop")), name("app"));
        Record { key, version: 1, stamp: Hlc::default(), body }
    }

    fn body(secret: &str, expires_ms: Option<u64>) -> RecordBody {
        let grant = Grant { expires_ms, ..Grant::of(Scope::ReadWrite) };
        RecordBody::Token { grant, secret_hash: hash(secret), before: None, revoked: false, barred: false }
    }

    fn tokens(body: RecordBody) -> Tokens {
        Tokens::new(&Secret::from_file(b"a secret for tests").unwrap(), [&record(body)])
    }

    #[test]
    fn only_the_right_secret_of_a_known_token_is_taken() {
        let text = "shop/app:s3cret";
        let known = tokens(body("s3cret", None));
        let check = |text: &str| known.check(text, NOW_MS);
        assert_eq!(check(text).map(|principal| principal.tenant), Some(TenantId::from_name(&name("shop"))));
        let root = check(&root_token(b"a secret for tests")).expect("the owner of the secret");
        assert_eq!((root.grant.scope, root.tenant), (Scope::Operator, TenantId::from_name(&name(DEFAULT_TENANT))));
        let other_root = root_token(b"other");
        let wrong_tenants = ["app:s3cret", "other/app:s3cret", &format!("shop/{}", root_token(b"a secret for tests"))];
        for wrong in [&text[..text.len() - 1], "shop/app:", "nobody:x", "app", "", &other_root] {
            assert_eq!(check(wrong), None, "{wrong:?}");
        }
        for wrong in wrong_tenants {
            assert_eq!(check(wrong), None, "{wrong:?}");
        }
        let RecordBody::Token { grant, secret_hash, before, .. } = body("s3cret", None) else { panic!("a token") };
        let revoked = RecordBody::Token { grant, secret_hash, before, revoked: true, barred: true };
        assert_eq!(tokens(revoked).check(text, NOW_MS), None, "withdrawn");
    }

    #[test]
    fn a_token_ends_when_it_expires_and_an_old_secret_with_its_overlap() {
        let until = |known: &Tokens, secret: &str, now_ms| {
            known.check(&format!("shop/app:{secret}"), now_ms).map(|principal| principal.until_ms)
        };
        let expiring = tokens(body("new", Some(5_000)));
        assert_eq!([until(&expiring, "new", 4_999), until(&expiring, "new", 5_000)], [Some(Some(5_000)), None]);

        for (expires_ms, ends_ms) in [(None, 2_000), (Some(1_500), 1_500), (Some(9_000), 2_000)] {
            let RecordBody::Token { grant, secret_hash, .. } = body("new", expires_ms) else { panic!("a token") };
            let before = Some(OldSecret { hash: hash("old"), until_ms: 2_000 });
            let rotated = tokens(RecordBody::Token { grant, secret_hash, before, revoked: false, barred: false });
            assert_eq!(until(&rotated, "new", NOW_MS), Some(expires_ms));
            assert_eq!(until(&rotated, "old", ends_ms - 1), Some(Some(ends_ms)));
            assert_eq!(until(&rotated, "old", ends_ms), None);
            assert_eq!(until(&rotated, "older", NOW_MS), None);
        }
    }

    #[test]
    fn a_certificate_is_taken_until_it_ends_or_its_name_is_barred() {
        let certificate = |tenant: &str| {
            let (tenant, scope, until_ms) = (name(tenant), Scope::TenantAdmin, NOW_MS + 1);
            Certificate { tenant, scope, name: name("app"), issued_ms: 0, until_ms }
        };
        let shop = certificate("shop");
        let known = tokens(body("s3cret", None));
        let owner = known.certified(&shop, NOW_MS).expect("nothing bars it");
        assert_eq!((owner.grant.scope, owner.tenant), (Scope::TenantAdmin, TenantId::from_name(&name("shop"))));
        assert_eq!(known.certified(&shop, NOW_MS + 1), None, "it has ended");
        let RecordBody::Token { grant, secret_hash, before, .. } = body("s3cret", None) else { panic!("a token") };
        let barred = tokens(RecordBody::Token { grant, secret_hash, before, revoked: true, barred: true });
        assert_eq!(barred.certified(&shop, NOW_MS), None);
        assert!(barred.certified(&certificate("other"), NOW_MS).is_some(), "that of another tenant");
    }

    #[test]
    fn a_name_used_again_is_opened_by_nothing_that_was_made_before() {
        let (shop, next) = (name("shop"), TenantId::of_incarnation(&name("shop"), 1));
        let record = |key, body| Record { key, version: 3, stamp: Hlc(1), body };
        let deleted = Deleted { reap_ms: 500, reaped: true };
        let gone = RecordBody::DeletedTenant { name: shop.clone(), deleted };
        let token = |tenant, secret| record(RecordKey::Token(tenant, name("app")), body(secret, None));
        let known = |records: &[Record]| Tokens::new(&Secret::from_file(&[7; 32]).unwrap(), records);
        let first = TenantId::from_name(&shop);
        let gone = [record(RecordKey::Tenant(first), gone), token(first, "old")];
        let again = record(RecordKey::Tenant(next), RecordBody::Tenant { name: shop.clone() });
        let [deleted, again] = [known(&gone), known(&[gone.as_slice(), &[again, token(next, "new")]].concat())];
        let owner = |known: &Tokens, text| known.check(text, NOW_MS).map(|principal| principal.tenant);
        // Whether its tenant is still there is not asked of the token.
        assert_eq!(owner(&deleted, "shop/app:old"), Some(first));
        assert_eq!([owner(&again, "shop/app:old"), owner(&again, "shop/app:new")], [None, Some(next)]);
        let certified = |issued_ms| {
            let (tenant, scope) = (shop.clone(), Scope::ReadOnly);
            let certificate = Certificate { tenant, scope, name: name("app"), issued_ms, until_ms: NOW_MS + 1 };
            again.certified(&certificate, NOW_MS).map(|principal| principal.tenant)
        };
        assert_eq!([certified(499), certified(500)], [None, Some(next)]);
    }

    #[test]
    fn a_token_above_its_limit_is_not_looked_at_even_if_it_is_right() {
        let check = |length: usize| {
            let secret = "s".repeat(length - "shop/app:".len());
            tokens(body(&secret, None)).check(&format!("shop/app:{secret}"), NOW_MS).is_some()
        };
        assert!(check(MAX_TOKEN_BYTES) && !check(MAX_TOKEN_BYTES + 1));
    }
}
