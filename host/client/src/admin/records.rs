//! Records of the catalog as types for operators.

use rejoin_proto::catalog::{Activation, BucketProps, Record, RecordBody, RecordKey, Scope};
use rejoin_proto::{BucketId, Hlc, Name, PluginDigest, TenantId};

/// A bucket in the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BucketInfo {
    /// Its name.
    pub name: Name,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Its id, never reused.
    pub id: BucketId,
    /// Grows by one with each change.
    pub version: u64,
    /// Its properties.
    pub props: BucketProps,
    /// After a change: the nodes that do not have it yet. Empty for a listed bucket.
    pub behind: Vec<Name>,
}

/// A token in the catalog, which has only the hash of its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Its name.
    pub name: Name,
    /// The tenant whose buckets it opens.
    pub tenant: TenantId,
    /// Its permissions.
    pub scope: Scope,
    /// A revoked token is refused.
    pub revoked: bool,
}

/// A plugin in the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PluginInfo {
    /// The SHA-256 of its component.
    pub digest: PluginDigest,
    /// The name in its card, or the one it was pushed with.
    pub name: Name,
    /// The version in its card.
    pub version: String,
    /// The size of the component.
    pub bytes: u64,
    /// Whether it declares that its values carry their own causality, so that reads may fold.
    pub self_causal: bool,
    /// Whether it has a validator, which is called before every put.
    pub validates: bool,
    /// Why its merges are not run, if it is quarantined.
    pub quarantined: Option<String>,
}

impl PluginInfo {
    /// The value of [`BucketProps::plugin`] that activates it. The node that changes the bucket fills in the other
    /// fields.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{BucketProps, PluginInfo};
    /// # fn run(plugin: PluginInfo) {
    /// let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
    /// # }
    /// ```
    #[must_use]
    pub fn activation(&self) -> Activation {
        Activation {
            plugin: self.digest,
            self_causal: self.self_causal,
            since: Hlc::default(),
            replaces: false,
            validates: self.validates,
        }
    }
}

/// The value of [`BucketProps::plugin`] that activates the plugin with that digest. The node that changes the bucket
/// fills in the other fields.
///
/// ```
/// use rejoin_client::admin::{BucketProps, PluginDigest, activation};
///
/// let digest: PluginDigest = "00".repeat(32).parse()?;
/// let props = BucketProps { plugin: Some(activation(digest)), ..BucketProps::default() };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn activation(digest: PluginDigest) -> Activation {
    Activation { plugin: digest, self_causal: false, since: Hlc::default(), replaces: false, validates: false }
}

/// A new token, with the text for its user. Neither the cluster nor the client keeps the text.
#[derive(Clone)]
pub struct NewToken {
    text: String,
    pub(super) secret_hash: [u8; 32],
    pub(super) behind: Vec<Name>,
}

impl NewToken {
    /// Draws a secret of 256 bits. The text is `name:secret`, the secret as 64 hexadecimal digits; the cluster keeps
    /// the BLAKE3 hash of those digits.
    ///
    /// ```
    /// use rejoin_client::admin::{Name, NewToken};
    ///
    /// let token = NewToken::draw(&Name::new("app")?);
    /// assert!(token.text().starts_with("app:"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn draw(name: &Name) -> Self {
        let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let secret_hash = *blake3::hash(secret.as_bytes()).as_bytes();
        Self { text: format!("{name}:{secret}"), secret_hash, behind: Vec::new() }
    }

    /// The text of the token, for [`ClientBuilder::token`](crate::ClientBuilder::token).
    ///
    /// ```no_run
    /// # fn run(token: rejoin_client::admin::NewToken) {
    /// println!("{}", token.text());
    /// # }
    /// ```
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The nodes that do not accept it yet.
    ///
    /// ```no_run
    /// # fn run(token: rejoin_client::admin::NewToken) {
    /// let everywhere = token.behind().is_empty();
    /// # }
    /// ```
    #[must_use]
    pub fn behind(&self) -> &[rejoin_proto::Name] {
        &self.behind
    }

    /// The BLAKE3 hash of the secret part, which the cluster stores.
    ///
    /// ```no_run
    /// # fn run(token: rejoin_client::admin::NewToken) {
    /// let kept: [u8; 32] = token.secret_hash();
    /// # }
    /// ```
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        self.secret_hash
    }
}

impl std::fmt::Debug for NewToken {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewToken({})", self.text.split(':').next().unwrap_or_default())
    }
}

pub(super) fn bucket_info(record: Record) -> Option<BucketInfo> {
    match (record.key, record.body) {
        (RecordKey::Bucket(tenant, name), RecordBody::Bucket { id, props }) => {
            Some(BucketInfo { name, tenant, id, version: record.version, props, behind: Vec::new() })
        }
        _ => None,
    }
}

pub(super) fn token_info(record: Record) -> Option<TokenInfo> {
    match (record.key, record.body) {
        (RecordKey::Token(name), RecordBody::Token { tenant, scope, revoked, .. }) => {
            Some(TokenInfo { name, tenant, scope, revoked })
        }
        _ => None,
    }
}

pub(super) fn plugin_info(record: Record) -> Option<PluginInfo> {
    match (record.key, record.body) {
        (
            RecordKey::Plugin(digest),
            RecordBody::Plugin { name, version, bytes, self_causal, validates, quarantined },
        ) => Some(PluginInfo { digest, name, version, bytes, self_causal, validates, quarantined }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_random_and_hashed_over_its_secret_part() {
        let name = Name::new("app").unwrap();
        let (one, two) = (NewToken::draw(&name), NewToken::draw(&name));
        assert_ne!(one.text(), two.text());
        let (prefix, secret) = one.text().split_once(':').unwrap();
        assert_eq!((prefix, secret.len()), ("app", 64));
        assert_eq!(one.secret_hash(), *blake3::hash(secret.as_bytes()).as_bytes());
        assert!(!format!("{one:?}").contains(secret));
    }
}
