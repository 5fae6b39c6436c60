//! What the catalog holds, as an operator sees it.

use rejoin_proto::catalog::{Activation, BucketProps, Record, RecordBody, RecordKey, Scope};
use rejoin_proto::{BucketId, Hlc, Name, PluginDigest, TenantId};

/// A bucket as the catalog has it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BucketInfo {
    /// Its name.
    pub name: Name,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id, never reused.
    pub id: BucketId,
    /// Grows by one with each change.
    pub version: u64,
    /// Its properties.
    pub props: BucketProps,
    /// After a change: the nodes that have not taken it yet. Empty for a bucket that was listed.
    pub behind: Vec<Name>,
}

/// A token as the catalog has it. Nobody keeps its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Its name.
    pub name: Name,
    /// Whose buckets it opens.
    pub tenant: TenantId,
    /// What it allows.
    pub scope: Scope,
    /// Whether it was withdrawn.
    pub revoked: bool,
}

/// A plugin as the catalog has it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PluginInfo {
    /// The SHA-256 of its component.
    pub digest: PluginDigest,
    /// As its author calls it, or as it was pushed.
    pub name: Name,
    /// Its own version text.
    pub version: String,
    /// The component's size.
    pub bytes: u64,
    /// Whether its author says that its values carry their own causality.
    pub self_causal: bool,
    /// Whether it has a validator, which is asked before every put.
    pub validates: bool,
}

impl PluginInfo {
    /// What makes it a bucket's plugin. The node that changes the bucket fills in since when, and what it replaces.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{BucketProps, PluginInfo};
    /// # fn run(plugin: PluginInfo) {
    /// let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
    /// # }
    /// ```
    #[must_use]
    pub fn activation(&self) -> Activation {
        Activation { plugin: self.digest, self_causal: self.self_causal, since: Hlc::default(), replaces: false, validates: self.validates }
    }
}

/// What makes the plugin of that digest a bucket's plugin. The node that changes the bucket fills in the rest.
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

/// A token that was just made: what the cluster keeps of it, and the text to be handed out, which nobody keeps.
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

    /// The text to be handed out, and given to [`ClientBuilder::token`](crate::ClientBuilder::token).
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

    /// The nodes that do not take it yet.
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

    /// What the cluster keeps: the BLAKE3 hash of the secret part.
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
        (RecordKey::Token(name), RecordBody::Token { tenant, scope, revoked, .. }) => Some(TokenInfo { name, tenant, scope, revoked }),
        _ => None,
    }
}

pub(super) fn plugin_info(record: Record) -> Option<PluginInfo> {
    match (record.key, record.body) {
        (RecordKey::Plugin(digest), RecordBody::Plugin { name, version, bytes, self_causal, validates }) => {
            Some(PluginInfo { digest, name, version, bytes, self_causal, validates })
        }
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
