//! Which plugin merges a bucket: activation, and the way back.

use rejoin_proto::PluginDigest;

use super::{Activation, Admin, BucketInfo, PastPlugin, activation};
use crate::{Error, ErrorKind, Result};

impl Admin {
    /// Makes a plugin that was pushed the one that merges a bucket, in place of the one it has. `None` takes that away:
    /// readers get all siblings. A bucket that has the plugin already stays as it is. A canary ends.
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
    /// [`ErrorKind::NotFound`] for a bucket or a plugin that there is not, [`ErrorKind::BadRequest`] for a plugin that
    /// is quarantined; else as [`Admin::set_bucket`].
    pub async fn activate_plugin(&self, bucket: &str, plugin: Option<PluginDigest>) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        if info.props.plugin.map(|active| active.plugin) == plugin && info.props.canary.is_none() {
            return Ok(info);
        }
        (info.props.plugin, info.props.canary) = (plugin.map(activation), None);
        self.set_bucket(bucket, info.version, info.props).await
    }

    /// Gives a bucket the plugin back that it had before its last activation, or the latest earlier one with that
    /// digest. It may also have had none. The last 100 are known ([`BucketInfo::past_plugins`]). A rollback is an
    /// activation like any other: the next one without a digest takes it back. While a canary runs, a rollback without
    /// a digest ends that, and the bucket keeps its plugin.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let bucket = client.admin().roll_back_plugin("cart", None).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bucket has had no other plugin, or not that one; else as
    /// [`Admin::activate_plugin`].
    pub async fn roll_back_plugin(&self, bucket: &str, to: Option<PluginDigest>) -> Result<BucketInfo> {
        let mut info = self.bucket(bucket).await?;
        if to.is_none() && info.props.canary.take().is_some() {
            return self.set_bucket(bucket, info.version, info.props).await;
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
        self.set_bucket(bucket, info.version, info.props).await
    }
}
