//! Tokens, by which clients authenticate.
//!
//! A token is `NAME:SECRET`. The catalog has only the BLAKE3 hash of the secret part. The root token is derived from
//! the cluster's secret file and is not in the catalog: the owner of that file is the operator.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use rejoin_proto::catalog::{Record, RecordBody, RecordKey, Scope};
use rejoin_proto::{ClusterId, Name, TenantId};

/// The name of the root token. No other token can have it.
pub const ROOT: &str = "root";

/// The name of a new cluster's only tenant.
pub const DEFAULT_TENANT: &str = "default";

/// The most bytes of a token's text. Longer ones are refused without hashing them.
const MAX_TOKEN_BYTES: usize = 256;

/// The fewest bytes of a cluster's secret.
const MIN_SECRET_BYTES: usize = 16;

/// A cluster's secret, the same on every node. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The secret is so short that it could be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "it has fewer than {MIN_SECRET_BYTES} bytes, its line end not counted: give every node the file that `rejoin cert \
        ca` has made"
)]
pub struct ShortSecret;

impl Secret {
    /// The secret in a file with that content. One line end (`\n` or `\r\n`) at the end does not count: editors add it,
    /// `printf` does not.
    ///
    /// # Errors
    /// [`ShortSecret`].
    pub fn from_file(content: &[u8]) -> Result<Self, ShortSecret> {
        let secret = without_line_end(content);
        if secret.len() < MIN_SECRET_BYTES { Err(ShortSecret) } else { Ok(Self(secret.to_vec())) }
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> String {
        derived_token(&self.0)
    }

    /// A check value: equal on two nodes of a cluster exactly if their secrets are equal. It reveals nothing else.
    #[must_use]
    pub fn key_check(&self, cluster: ClusterId) -> u64 {
        let check =
            blake3::derive_key("rejoin 2026 secret key check", &[&cluster.0.to_le_bytes()[..], &self.0].concat());
        u64::from_le_bytes(std::array::from_fn(|at| check[at]))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn without_line_end(content: &[u8]) -> &[u8] {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    if line.len() < content.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
}

/// The root token of the cluster whose secret file has that content, of any length. See [`Secret::root_token`].
#[must_use]
pub fn root_token(file: &[u8]) -> String {
    derived_token(without_line_end(file))
}

fn derived_token(secret: &[u8]) -> String {
    let secret = blake3::derive_key("rejoin 2026 root token", secret);
    format!("{ROOT}:{}", URL_SAFE_NO_PAD.encode(secret))
}

/// The owner and rights of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Principal {
    pub(crate) name: String,
    pub(crate) tenant: TenantId,
    pub(crate) scope: Scope,
}

/// The valid tokens.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    root: [u8; 32],
    known: BTreeMap<Name, (TenantId, Scope, [u8; 32])>,
}

impl Tokens {
    pub(crate) fn new<'a>(secret: &Secret, records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut known = BTreeMap::new();
        for record in records {
            if let (RecordKey::Token(name), RecordBody::Token { tenant, scope, secret_hash, revoked: false }) =
                (&record.key, &record.body)
            {
                known.insert(name.clone(), (*tenant, *scope, *secret_hash));
            }
        }
        let root = secret.root_token();
        let secret = root.rsplit(':').next().unwrap_or_default();
        Self { root: *blake3::hash(secret.as_bytes()).as_bytes(), known }
    }

    /// The owner of a token, or `None` if it is wrong, unknown or revoked. The caller cannot tell which.
    pub(crate) fn check(&self, token: &str) -> Option<Principal> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (name, secret) = token.split_once(':')?;
        let hash = blake3::hash(secret.as_bytes());
        if name == ROOT {
            let tenant = TenantId::from_name(&Name::new(DEFAULT_TENANT).ok()?);
            // BLAKE3 hashes compare in constant time.
            return (hash == self.root).then(|| Principal { name: name.to_owned(), tenant, scope: Scope::Admin });
        }
        let (tenant, scope, expected) = self.known.get(&Name::new(name).ok()?)?;
        (hash == *expected).then(|| Principal { name: name.to_owned(), tenant: *tenant, scope: *scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::Hlc;

    #[test]
    fn only_the_right_secret_of_a_known_token_is_taken() {
        let name = Name::new("app").unwrap();
        let (text, secret_hash) = ("app:s3cret", *blake3::hash(b"s3cret").as_bytes());
        let tenant = TenantId(7);
        let body = |revoked| RecordBody::Token { tenant, scope: Scope::Data, secret_hash, revoked };
        let record = |revoked| Record {
            key: RecordKey::Token(name.clone()),
            version: 1,
            stamp: Hlc::default(),
            body: body(revoked),
        };
        let cluster = Secret(b"secret".to_vec());
        let tokens = Tokens::new(&cluster, [&record(false)]);
        assert_eq!(tokens.check(text).map(|principal| principal.tenant), Some(tenant));
        assert_eq!(tokens.check(&root_token(b"secret")).map(|principal| principal.scope), Some(Scope::Admin));
        for wrong in [&text[..text.len() - 1], "app:", "nobody:x", "app", "", &root_token(b"other")] {
            assert_eq!(tokens.check(wrong), None, "{wrong:?}");
        }
        assert_eq!(Tokens::new(&cluster, [&record(true)]).check(text), None, "withdrawn");
    }

    #[test]
    fn a_line_end_is_no_part_of_a_secret() {
        let text = "0123456789abcdef";
        let secret = |content: String| Secret::from_file(content.as_bytes());
        let plain = secret(text.into()).unwrap();
        for end in ["\n", "\r\n"] {
            let ended = secret(format!("{text}{end}")).unwrap();
            assert_eq!(ended, plain);
            assert_eq!(root_token(format!("{text}{end}").as_bytes()), plain.root_token());
            assert_eq!(ended.key_check(ClusterId(1)), plain.key_check(ClusterId(1)));
        }
        for other in ["\n\n", "\r", " ", "\n\r"] {
            let other = secret(format!("{text}{other}")).unwrap();
            assert!(other != plain && other.key_check(ClusterId(1)) != plain.key_check(ClusterId(1)));
        }
        assert_ne!(plain.key_check(ClusterId(1)), plain.key_check(ClusterId(2)));
        assert_eq!(secret(format!("{}\n", &text[1..])), Err(ShortSecret));
        assert!(!format!("{plain:?}").contains(text));
    }

    #[test]
    fn a_token_above_its_limit_is_not_looked_at_even_if_it_is_right() {
        let check = |length: usize| {
            let secret = "s".repeat(length - 4);
            let secret_hash = *blake3::hash(secret.as_bytes()).as_bytes();
            let body = RecordBody::Token { tenant: TenantId(7), scope: Scope::Data, secret_hash, revoked: false };
            let key = RecordKey::Token(Name::new("app").unwrap());
            let tokens =
                Tokens::new(&Secret(b"secret".to_vec()), [&Record { key, version: 1, stamp: Hlc::default(), body }]);
            tokens.check(&format!("app:{secret}")).is_some()
        };
        assert!(check(MAX_TOKEN_BYTES) && !check(MAX_TOKEN_BYTES + 1));
    }
}
