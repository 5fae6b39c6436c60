//! The client: a handle from which buckets and the operator's interface are made.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use rejoin_proto::Name;

use crate::admin::Admin;
use crate::engine::Engine;
use crate::{Bucket, ClientBuilder, Codec, Error, ErrorKind, Profile, Result};

/// A connection to a cluster. Clones are cheap and share everything: connections, the layout, the retry budget.
///
/// Must be used within the tokio runtime in which it was connected. Connections to other nodes are opened when they are
/// first needed, and closed with the last clone, bucket and pending operation.
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
    /// A builder with default settings.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().seeds(["127.0.0.1:7401"]).attempts(1);
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects with a profile file, such as `rejoin dev` writes; see [`Profile::load`].
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

    /// The tenant whose data this client reads and writes: that of its token, or the one that
    /// [`ClientBuilder::tenant`] named.
    ///
    /// ```no_run
    /// # fn run(client: rejoin_client::Client) {
    /// println!("in tenant {}", client.tenant());
    /// # }
    /// ```
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.0.tenant.as_str()
    }

    /// How many nodes the layout in use has.
    ///
    /// ```no_run
    /// # fn run(client: rejoin_client::Client) {
    /// println!("{} nodes", client.nodes());
    /// # }
    /// ```
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.0.routes().len()
    }

    /// A bucket of the tenant, whose values are encoded by `C`. Sends nothing: an unknown bucket is reported by
    /// the first operation.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let notes = client.bucket::<rejoin_client::Bytes>("notes")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the name is invalid.
    pub fn bucket<C: Codec>(&self, name: &str) -> Result<Bucket<C>> {
        let name = Name::new(name)
            .map_err(|why| Error::new(ErrorKind::Config, format!("{name:?} cannot be a bucket's name: {why}")))?;
        Ok(Bucket { engine: Arc::clone(&self.0), name, codec: PhantomData })
    }

    /// The interface of operators and of tenants' administrators. Each call needs a token whose scope allows it.
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

    /// The name of the node that was connected first. With [`ClientBuilder::pinned`] it serves every request.
    ///
    /// ```no_run
    /// # fn run(client: rejoin_client::Client) {
    /// println!("connected to {}", client.node());
    /// # }
    /// ```
    #[must_use]
    pub fn node(&self) -> &str {
        self.0.first_node().name.as_str()
    }

    /// The version of the layout in use. It grows once the client has learned of a change of the cluster.
    ///
    /// ```no_run
    /// # fn run(client: rejoin_client::Client) {
    /// println!("routing by layout {}", client.layout_version());
    /// # }
    /// ```
    #[must_use]
    pub fn layout_version(&self) -> u64 {
        self.0.routes().name().version
    }
}
