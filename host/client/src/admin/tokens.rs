//! Tokens: made, listed, rotated, revoked.

use std::collections::BTreeMap;
use std::time::Duration;

use rejoin_proto::Name;
use rejoin_proto::access::{Grant, TokenText};
use rejoin_proto::catalog::{Record, RecordKey};
use rejoin_proto::client::{AdminRequest, RecordKind, Reply, RequestBody, TokenStatus};

use super::{Admin, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

impl Admin {
    /// All tokens of the tenant, by name, revoked ones too. Every node is asked when each was last used; those that
    /// cannot be reached do not count.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for token in client.admin().tokens().await?.into_iter().filter(|token| !token.revoked) {
    ///     println!("{}, last used {:?}", token.name, token.last_used_ms);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn tokens(&self) -> Result<Vec<TokenStatus>> {
        let request = RequestBody::Admin(AdminRequest::List(RecordKind::Token));
        let mut tokens: BTreeMap<Name, TokenStatus> = BTreeMap::new();
        for (_, reply) in self.engine.every(&request, self.timeout).await?.answers {
            let Reply::Tokens(seen) = reply else { return Err(unexpected("the node")) };
            for token in seen {
                let known = tokens.entry(token.name.clone()).or_insert_with(|| token.clone());
                known.last_used_ms = known.last_used_ms.max(token.last_used_ms);
            }
        }
        Ok(tokens.into_values().collect())
    }

    /// Makes a token of the tenant. The client draws its secret and sends only the hash.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{Grant, Limits, Name, Scope};
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let token = client.admin().create_token("checkout", Scope::ReadWrite).await?;
    /// println!("{}", token.text());
    /// let limits = Limits { buckets: vec![Name::new("cart").expect("a name")], prefix: "eu/".into() };
    /// let europe = Grant { limits, ..Grant::of(Scope::ReadOnly) };
    /// println!("{}", client.admin().create_token("reports", europe).await?.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Exists`], [`ErrorKind::VersionConflict`] if another node has made one at the same time, and that
    /// one has won, [`ErrorKind::Config`] for a malformed name, [`ErrorKind::BadRequest`] for limits that the scope
    /// cannot have; else as [`Admin::status`].
    pub async fn create_token(&self, name: &str, grant: impl Into<Grant>) -> Result<NewToken> {
        let (name, grant) = (admin_name(name)?, grant.into());
        let token = NewToken::draw(&self.engine.tenant, &name);
        let secret_hash = token.secret_hash;
        self.change_to(token, AdminRequest::TokenCreate { name, grant, secret_hash }).await
    }

    /// Gives a token another secret. The secret before is taken for `overlap`, so that its users can change over; the
    /// one before that ends at once.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let token = client.admin().rotate_token("checkout", Duration::from_secs(24 * 60 * 60)).await?;
    /// println!("{}", token.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, or it is revoked, [`ErrorKind::VersionConflict`] if it was changed at
    /// another node at the same time, [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn rotate_token(&self, name: &str, overlap: Duration) -> Result<NewToken> {
        let name = admin_name(name)?;
        let token = NewToken::draw(&self.engine.tenant, &name);
        let overlap_ms = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
        let secret_hash = token.secret_hash;
        self.change_to(token, AdminRequest::TokenRotate { name, secret_hash, overlap_ms }).await
    }

    async fn change_to(&self, token: NewToken, request: AdminRequest) -> Result<NewToken> {
        let ((), behind) = self.change(request, is_token).await?;
        Ok(NewToken { behind, ..token })
    }

    /// Revokes a token, and ends its connections. Returns the nodes that do not have the change yet and still accept
    /// the token.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let still_taken_by = client.admin().revoke_token("checkout").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn revoke_token(&self, name: &str) -> Result<Vec<Name>> {
        let name = admin_name(name)?;
        self.revoke(AdminRequest::TokenRevoke { name, certificates: false }).await
    }

    /// As [`Admin::revoke_token`], and every certificate of that name (`rejoin cert client --scope`) is refused for
    /// good, whether or not there is a token of the name. The name cannot be used again.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().revoke_certificates("checkout").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::revoke_token`], except that a name without a token is no error.
    pub async fn revoke_certificates(&self, name: &str) -> Result<Vec<Name>> {
        let name = admin_name(name)?;
        self.revoke(AdminRequest::TokenRevoke { name, certificates: true }).await
    }

    async fn revoke(&self, request: AdminRequest) -> Result<Vec<Name>> {
        self.change(request, is_token).await.map(|((), behind)| behind)
    }
}

fn is_token(record: Record) -> Option<()> {
    matches!(record.key, RecordKey::Token(..)).then_some(())
}

/// A new token, with the text for its user. Neither the cluster nor the client keeps the text.
#[derive(Clone)]
pub struct NewToken {
    text: String,
    secret_hash: [u8; 32],
    behind: Vec<Name>,
}

impl NewToken {
    /// Draws a secret of 256 bits. The text is `tenant/name:secret`, without the tenant if that is `default`, the
    /// secret as 64 hexadecimal digits; the cluster keeps the BLAKE3 hash of those digits.
    ///
    /// ```
    /// use rejoin_client::admin::{Name, NewToken};
    ///
    /// let token = NewToken::draw(&Name::new("shop")?, &Name::new("app")?);
    /// assert!(token.text().starts_with("shop/app:"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn draw(tenant: &Name, name: &Name) -> Self {
        let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let secret_hash = *blake3::hash(secret.as_bytes()).as_bytes();
        let text = TokenText { tenant: tenant.clone(), name: name.clone(), secret: &secret }.to_text();
        Self { text, secret_hash, behind: Vec::new() }
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
    pub fn behind(&self) -> &[Name] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_random_and_hashed_over_its_secret_part() {
        let (tenant, name) = (Name::new("shop").unwrap(), Name::new("app").unwrap());
        let (one, two) = (NewToken::draw(&tenant, &name), NewToken::draw(&tenant, &name));
        assert_ne!(one.text(), two.text());
        let (prefix, secret) = one.text().split_once(':').unwrap();
        assert_eq!((prefix, secret.len()), ("shop/app", 64));
        assert_eq!(one.secret_hash(), *blake3::hash(secret.as_bytes()).as_bytes());
        assert!(!format!("{one:?}").contains(secret));
    }
}
