//! The client: buckets, the operator's verbs, and what it knows of the cluster.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use rejoin_proto::Name;

use crate::admin::Admin;
use crate::engine::Engine;
use crate::{Bucket, ClientBuilder, Codec, Error, ErrorKind, Profile, Result};

/// A connection to a cluster. Clones are cheap and share everything: connections, the layout, the retry budget.
///
/// Must be used within the tokio runtime in which it was connected. Connections to further nodes are opened when they
/// are first needed; when the last clone, bucket and pending operation is gone they are closed.
///
/// ```no_run
/// use std::time::Duration;
/// use rejoin_client::{Client, Json, Tls};
///
/// # async fn run() -> rejoin_client::Result<()> {
/// let client = Client::builder()
///     .seeds(["127.0.0.1:7401", "127.0.0.1:7402"])
///     .tls(Tls::file("ca.pem"))
///     .token("app:6d2f")
///     .timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// let carts = client.bucket::<Json<Vec<String>>>("cart")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client(pub(crate) Arc<Engine>);

impl Client {
    /// A client to be set up.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().seeds(["127.0.0.1:7401"]).attempts(1);
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects by a profile file, such as `rejoin dev` writes; see [`Profile::load`].
    ///
    /// ```no_run
    /// # async fn run() -> rejoin_client::Result<()> {
    /// let client = rejoin_client::Client::from_profile("dev/profile.toml").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Profile::load`] and [`ClientBuilder::connect`].
    pub async fn from_profile(path: impl AsRef<Path>) -> Result<Self> {
        Profile::load(path)?.builder().connect().await
    }

    /// A bucket of the token's tenant, whose values are encoded by `C`. Nothing is sent: an unknown bucket shows at the
    /// first operation.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let notes = client.bucket::<rejoin_client::Bytes>("notes")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if that cannot be a bucket's name.
    pub fn bucket<C: Codec>(&self, name: &str) -> Result<Bucket<C>> {
        let name = Name::new(name).map_err(|why| Error::new(ErrorKind::Config, format!("{name:?} cannot be a bucket's name: {why}")))?;
        Ok(Bucket { engine: Arc::clone(&self.0), name, codec: PhantomData })
    }

    /// The verbs of an operator. They need a token that allows them.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let status = client.admin().status().await?;
    /// println!("{} nodes", status.nodes.len());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.0))
    }

    /// The name of the node that was met first; with [`ClientBuilder::pinned`] it serves every request.
    ///
    /// ```no_run
    /// # fn run(client: rejoin_client::Client) {
    /// println!("connected to {}", client.node());
    /// # }
    /// ```
    #[must_use]
    pub fn node(&self) -> &str {
        self.0.home().name.as_str()
    }

    /// The version of the layout in use. It grows when the cluster changes and the client has learned of it.
    ///
    /// ```no_run
    /// # fn run(client: rejoin_client::Client) {
    /// println!("routing by layout {}", client.layout_version());
    /// # }
    /// ```
    #[must_use]
    pub fn layout_version(&self) -> u64 {
        self.0.map().name().version
    }
}
