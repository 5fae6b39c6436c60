//! Who may sign a tenant's plugins.

use rejoin_proto::SignerKey;
use rejoin_proto::catalog::{Record, RecordBody};
use rejoin_proto::client::{AdminRequest, RecordKind};
use rejoin_proto::signing::SignerChange;

use super::Admin;
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;

impl Admin {
    /// The keys that may sign the tenant's plugins, in their order. Without any its plugins need no signature.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for key in client.admin().signers().await? {
    ///     println!("{key}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn signers(&self) -> Result<Vec<SignerKey>> {
        Ok(self.list(RecordKind::Signers).await?.into_iter().find_map(keys).unwrap_or_default())
    }

    /// Lets a key sign the tenant's plugins. From the first one on every plugin that is pushed, or that a bucket begins
    /// to use, must be signed with one of the keys. What buckets use already goes on. Returns the keys there are now.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// client.admin().add_signer(text.parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if there are 16 already, [`ErrorKind::Denied`] for a token whose scope does not allow
    /// it; else as [`Admin::status`].
    pub async fn add_signer(&self, key: SignerKey) -> Result<Vec<SignerKey>> {
        self.change(AdminRequest::SignersSet(SignerChange::Add(key)), keys).await.map(|(keys, _)| keys)
    }

    /// Takes that from a key. What it has signed can still be merged with, and not be activated again.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for key in client.admin().signers().await? {
    ///     client.admin().remove_signer(key).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is no signer; else as [`Admin::add_signer`].
    pub async fn remove_signer(&self, key: SignerKey) -> Result<Vec<SignerKey>> {
        self.change(AdminRequest::SignersSet(SignerChange::Remove(key)), keys).await.map(|(keys, _)| keys)
    }
}

fn keys(record: Record) -> Option<Vec<SignerKey>> {
    match record.body {
        RecordBody::Signers(keys) => Some(keys),
        _ => None,
    }
}
