//! Plugins on trial: a canary merges a share of a bucket's keys, a shadow only shows what it would make.

use bytes::Bytes;

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::trial::{Canary, MAX_CANARY_PERCENT, Shadow, ShadowReport};
use rejoin_proto::{Name, PluginDigest};
use rejoin_wire::Class;

use super::{Admin, BucketInfo, FromNodes, activation, admin_name};
use crate::engine::unexpected;
use crate::{Error, ErrorKind, Result};

impl Admin {
    /// Makes a plugin that was pushed merge a share of a bucket's keys, 1 to 99 percent, in the place of the bucket's
    /// plugin. Which keys these are is decided by the bucket and the key alone; a greater share has all of a smaller
    /// one. `None` for the plugin changes the share of the canary that there is.
    ///
    /// [`Admin::activate_plugin`] gives a plugin all keys, [`Admin::end_canary`] takes them away from the canary. As
    /// the former, this waits until the nodes are ready; [`Admin::activate_canary_at_once`] does not.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// let plugin = admin.push_plugin("cart", std::fs::read("cart.wasm").unwrap()).await?;
    /// admin.activate_canary("cart", Some(plugin.digest), 10).await?;
    /// admin.activate_canary("cart", None, 50).await?;
    /// admin.activate_plugin("cart", Some(plugin.digest)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::activate_plugin`]; [`ErrorKind::NotFound`] without a canary, [`ErrorKind::BadRequest`] for another
    /// share, a plugin that merges the bucket already, or a bucket without one.
    pub async fn activate_canary(&self, bucket: &str, plugin: Option<PluginDigest>, percent: u8) -> Result<BucketInfo> {
        check_share(percent)?;
        self.ready_for(bucket, plugin).await?;
        self.begin_canary(bucket, plugin, percent, false).await
    }

    /// As [`Admin::activate_canary`], whether the nodes are ready or not. One that is not keeps all siblings until it
    /// is.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// client.admin().activate_canary_at_once("cart", Some(digest), 10).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a bucket or a plugin that there is not, or without a canary;
    /// [`ErrorKind::BadRequest`] for another share, a plugin that is quarantined or merges the bucket already, or a
    /// bucket without one; else as [`Admin::set_bucket`].
    pub async fn activate_canary_at_once(
        &self,
        bucket: &str,
        plugin: Option<PluginDigest>,
        percent: u8,
    ) -> Result<BucketInfo> {
        check_share(percent)?;
        self.begin_canary(bucket, plugin, percent, true).await
    }

    async fn begin_canary(
        &self,
        bucket: &str,
        plugin: Option<PluginDigest>,
        percent: u8,
        force: bool,
    ) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        let plugin = plugin.map(activation).or(info.props.canary.map(|canary| canary.plugin));
        let Some(plugin) = plugin else { return Err(no_canary(bucket)) };
        info.props.canary = Some(Canary { plugin, percent });
        self.put_bucket(bucket, info.version, info.props, force).await
    }

    /// Ends the canary of a bucket: its plugin merges all keys again.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().end_canary("cart").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without such a bucket, or if it has no canary; else as [`Admin::set_bucket`].
    pub async fn end_canary(&self, bucket: &str) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        if info.props.canary.take().is_none() {
            return Err(no_canary(bucket));
        }
        self.set_bucket(bucket, info.version, info.props).await
    }

    /// Runs a plugin as the shadow of a bucket's, on the merges of a share of the keys, 1 to 100 percent. Its results
    /// are compared and counted, and neither stored nor read. `None` ends that. Waits up to 30 s for nodes that are not
    /// ready, as [`Admin::create_bucket`].
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// let plugin = admin.push_plugin("cart", std::fs::read("cart.wasm").unwrap()).await?;
    /// admin.shadow_plugin("cart", Some((plugin.digest, 100))).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::activate_canary`].
    pub async fn shadow_plugin(&self, bucket: &str, shadow: Option<(PluginDigest, u8)>) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        let since = Default::default();
        info.props.shadow = shadow.map(|(plugin, percent)| Shadow { plugin, since, percent });
        self.set_bucket(bucket, info.version, info.props).await
    }

    /// What each node has counted of a bucket's shadow since the node's start, without samples and keys, by name.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let reports = client.admin().shadow_counts("cart").await?;
    /// let different: u64 = reports.answers.iter().map(|report| report.counts.different).sum();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without such a bucket; else as [`Admin::status`].
    pub async fn shadow_counts(&self, bucket: &str) -> Result<FromNodes<Vec<ShadowReport>>> {
        self.shadow(bucket, false).await
    }

    /// As [`Admin::shadow_counts`], with the last merges whose results were not the same, and the keys of which
    /// siblings were merged lately.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let reports = client.admin().shadow_reports("cart").await?;
    /// for sample in reports.answers.iter().flat_map(|report| &report.samples) {
    ///     println!("{:?}: {:?}, not {:?}", sample.key, sample.shadow, sample.made);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::shadow_counts`].
    pub async fn shadow_reports(&self, bucket: &str) -> Result<FromNodes<Vec<ShadowReport>>> {
        self.shadow(bucket, true).await
    }

    async fn shadow(&self, bucket: &str, samples: bool) -> Result<FromNodes<Vec<ShadowReport>>> {
        let request = RequestBody::Admin(AdminRequest::ShadowReport { bucket: admin_name(bucket)?, samples });
        let report = |(node, reply): (Name, Reply)| match reply {
            Reply::ShadowReport(report) => Ok(*report),
            _ => Err(unexpected(node.as_str())),
        };
        self.engine.every(&request, self.timeout).await?.try_with(|replies| replies.into_iter().map(report).collect())
    }

    /// The component of a plugin that was pushed, from the first node that has it.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// for plugin in admin.plugins().await? {
    ///     let component = admin.fetch_plugin(plugin.digest).await?;
    ///     println!("{}: {} bytes", plugin.name, component.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such plugin, or no node has it; else as [`Admin::status`].
    pub async fn fetch_plugin(&self, digest: PluginDigest) -> Result<Bytes> {
        let request = RequestBody::Admin(AdminRequest::PluginFetch { digest });
        let first = self.engine.once(Class::Bulk, request.clone(), self.timeout).await;
        let missing = match first.and_then(component) {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            fetched => return fetched,
        };
        // That node does not have it, or has not heard of it yet. One after the other: an answer may be large.
        let mut failed = None;
        for target in self.engine.targets() {
            let answered = self.engine.at(&target, (Class::Bulk, &request), self.timeout).await;
            match answered.and_then(component) {
                Ok(fetched) => return Ok(fetched),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => failed = Some(error),
            }
        }
        // A node that could not be asked may have it.
        Err(failed.unwrap_or(missing))
    }
}

fn component(reply: Reply) -> Result<Bytes> {
    match reply {
        Reply::Module(component) => Ok(component),
        _ => Err(unexpected("the node")),
    }
}

fn no_canary(bucket: &str) -> Error {
    let what = format!(
        "bucket {bucket} has no canary; `rejoin plugin activate {bucket} PLUGIN --partitions PERCENT` begins one"
    );
    Error::new(ErrorKind::NotFound, what)
}

fn check_share(percent: u8) -> Result<()> {
    if (1..=MAX_CANARY_PERCENT).contains(&percent) {
        return Ok(());
    }
    let what = format!("a canary merges 1 to {MAX_CANARY_PERCENT} percent of the keys, not {percent}");
    Err(Error::new(ErrorKind::BadRequest, what))
}
