//! Which plugin merges a bucket: activation, and the way back.

use rejoin_proto::PluginDigest;

use super::readiness::READY_WAIT;
use super::{Activation, Admin, BucketInfo, PastPlugin, activation};
use crate::{Error, ErrorKind, Result};

/// What one can do about nodes that are not ready.
const AT_ONCE: &str = "`activate_plugin_at_once` and `activate_canary_at_once` do not wait for them: then siblings are \
    kept where the plugin is not ready";

impl Admin {
    /// Makes a plugin that was pushed the one that merges a bucket, in place of the one it has. `None` takes that away:
    /// readers get all siblings. A bucket that has the plugin already stays as it is. A canary ends.
    ///
    /// Waits up to 30 s until every node that answers is ready to run the plugin, unless it merges keys of the bucket
    /// already: a node that is not keeps siblings, so the cluster refuses the change.
    /// [`Admin::activate_plugin_at_once`] does it anyway.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// let plugin = admin.push_plugin("cart", std::fs::read("cart.wasm").unwrap()).await?;
    /// admin.activate_plugin("cart", Some(plugin.digest)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::PluginRejected`] and [`ErrorKind::TimedOut`] with the nodes that are not ready, as
    /// [`Admin::wait_until_ready`], or [`ErrorKind::PluginNotReady`] with those that did not answer this client;
    /// [`ErrorKind::NotFound`] for a bucket or a plugin that there is not, [`ErrorKind::BadRequest`] for a plugin that
    /// is quarantined; else as [`Admin::set_bucket`].
    pub async fn activate_plugin(&self, bucket: &str, plugin: Option<PluginDigest>) -> Result<BucketInfo> {
        self.ready_for(bucket, plugin).await?;
        self.activate(bucket, plugin, false).await
    }

    /// As [`Admin::activate_plugin`], whether the nodes are ready or not. One that is not keeps all siblings, and shows
    /// them to readers, until it is.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// client.admin().activate_plugin_at_once("cart", Some(digest)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::activate_plugin`], but for those of nodes that are not ready.
    pub async fn activate_plugin_at_once(&self, bucket: &str, plugin: Option<PluginDigest>) -> Result<BucketInfo> {
        self.activate(bucket, plugin, true).await
    }

    async fn activate(&self, bucket: &str, plugin: Option<PluginDigest>, force: bool) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        if info.props.plugin.map(|active| active.plugin) == plugin && info.props.canary.is_none() {
            return Ok(info);
        }
        (info.props.plugin, info.props.canary) = (plugin.map(activation), None);
        self.put_bucket(bucket, info.version, info.props, force).await
    }

    /// Waits until the nodes are ready for a plugin that a bucket is to get, unless it has it, or there is none.
    pub(super) async fn ready_for(&self, bucket: &str, plugin: Option<PluginDigest>) -> Result<()> {
        let Some(plugin) = plugin else { return Ok(()) };
        let props = self.bucket(bucket).await?.props;
        let canary = props.canary.map(|canary| canary.plugin);
        if [props.plugin, canary].into_iter().flatten().any(|of| of.plugin == plugin) {
            return Ok(());
        }
        // No node will be ready for what there is not.
        if !self.plugins().await?.iter().any(|known| known.digest == plugin && known.deleted.is_none()) {
            let what = format!("there is no plugin {plugin}: push it first, or restore it if it is deleted");
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        let ready = self.wait_until_ready(plugin, READY_WAIT, |_| {}).await;
        ready.map(drop).map_err(|error| match error.kind() {
            ErrorKind::PluginRejected | ErrorKind::TimedOut => Error::new(error.kind(), format!("{error}; {AT_ONCE}")),
            _ => error,
        })
    }

    /// Gives a bucket the plugin back that it had before its last activation, or the latest earlier one with that
    /// digest. It may also have had none. The last 100 are known ([`BucketInfo::past_plugins`]). A rollback is an
    /// activation like any other: the next one without a digest takes it back. While a canary runs, a rollback without
    /// a digest ends that, and the bucket keeps its plugin.
    ///
    /// Waits up to 30 s for nodes that are not ready, as [`Admin::create_bucket`]; [`Admin::roll_back_plugin_at_once`]
    /// does not.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let bucket = client.admin().roll_back_plugin("cart", None).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bucket has had no other plugin, or not that one; else as [`Admin::set_bucket`].
    pub async fn roll_back_plugin(&self, bucket: &str, to: Option<PluginDigest>) -> Result<BucketInfo> {
        self.roll_back(bucket, to, false).await
    }

    /// As [`Admin::roll_back_plugin`], whether the nodes are ready or not. One that is not keeps all siblings.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let bucket = client.admin().roll_back_plugin_at_once("cart", None).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::roll_back_plugin`], but for those of nodes that are not ready.
    pub async fn roll_back_plugin_at_once(&self, bucket: &str, to: Option<PluginDigest>) -> Result<BucketInfo> {
        self.roll_back(bucket, to, true).await
    }

    async fn roll_back(&self, bucket: &str, to: Option<PluginDigest>, force: bool) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        if to.is_none() && info.props.canary.take().is_some() {
            return self.put_bucket(bucket, info.version, info.props, force).await;
        }
        let digest_of = |plugin: Option<Activation>| plugin.map(|of| of.plugin);
        let is_it = |past: &&PastPlugin| to.is_none() || digest_of(past.plugin) == to;
        let Some(past) = info.past_plugins.iter().rev().find(is_it) else {
            let which = to.map_or_else(|| "another plugin".to_owned(), |digest| format!("plugin {digest}"));
            let what = format!(
                "bucket {bucket} has not had {which} before; `rejoin plugin activate {bucket} PLUGIN` makes any plugin \
                 that was pushed the active one"
            );
            return Err(Error::new(ErrorKind::NotFound, what));
        };
        (info.props.plugin, info.props.canary) = (digest_of(past.plugin).map(activation), None);
        self.put_bucket(bucket, info.version, info.props, force).await
    }
}
