//! Pushing plugins. A node checks the laws of a plugin before it stores it, which takes seconds to minutes.

use std::time::Duration;

use bytes::Bytes;

use rejoin_proto::client::{AdminRequest, LawState, MAX_FIXTURE_BYTES, MAX_FIXTURES, PushChecks, Reply, RequestBody};
use rejoin_proto::{Name, PluginDigest, PluginSignature};
use rejoin_wire::Class;

use super::{Admin, PluginInfo, admin_name, plugin_info};
use crate::engine::unexpected;
use crate::{Error, ErrorKind, Result};

/// The least time-out of a push, unless [`Admin::timeout`] names another: before it answers, a node compiles the
/// component and records its transcript, beside all else that it does.
pub const PUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a component is sent whose check the node does not know any more.
const MAX_PUSHES: usize = 8;

/// What came of a push.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PushedPlugin {
    /// The plugin, or why it was not stored: the laws that it breaks.
    pub plugin: std::result::Result<PluginInfo, String>,
    /// The report on its laws, the JSON of `rejoin plugin test --json`. `None` if they were not checked now: the node
    /// does not check them, or was released with this very component.
    pub report: Option<Bytes>,
}

/// A plugin's component, a signature if there is one, and what its laws are checked on beside its own values.
///
/// ```
/// use rejoin_client::admin::Component;
///
/// let component = Component::from(b"\0asm".to_vec());
/// assert!(component.signature.is_none());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Component {
    /// Its bytes.
    pub bytes: Bytes,
    /// That of a key that may sign plugins of the tenant. A tenant that has such keys takes no component without.
    pub signature: Option<PluginSignature>,
    /// What its operations mean, values that it is checked on among those of its sampler, and a bucket whose siblings
    /// it is checked on. The report may show those, so a bucket takes a token that may push plugins and read it.
    pub checks: PushChecks,
}

impl From<Vec<u8>> for Component {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), signature: None, checks: PushChecks::default() }
    }
}

impl Admin {
    /// Pushes a plugin's component. The node checks its laws and stores it, and the other nodes fetch it from there.
    /// `name` is used if the component has no card with a name.
    ///
    /// Returns when the laws are checked. The time-out is that of each of the requests in between.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let component = std::fs::read("cart.wasm").unwrap();
    /// let plugin = client.admin().push_plugin("cart", component).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::PluginRejected`] with the reason, such as the laws that it breaks; [`ErrorKind::TooLarge`] above
    /// 2 MiB, [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn push_plugin(&self, name: &str, component: Vec<u8>) -> Result<PluginInfo> {
        let pushed = self.push_plugin_with_report(name, component.into(), |_| {}).await?;
        pushed.plugin.map_err(|why| {
            let what = format!("{why}; `rejoin plugin test FILE` shows the siblings");
            Error::new(ErrorKind::PluginRejected, what)
        })
    }

    /// As [`Admin::push_plugin`], with the report on its laws, and with what the node says meanwhile. A broken law is
    /// no error.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let component = std::fs::read("cart.wasm").unwrap();
    /// let watch = |state: &rejoin_client::admin::LawState| println!("{state:?}");
    /// let pushed = client.admin().push_plugin_with_report("cart", component.into(), watch).await?;
    /// if let Err(why) = pushed.plugin {
    ///     println!("{why}: {:?}", pushed.report);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::push_plugin`]; [`ErrorKind::NotFound`] without the bucket of [`PushChecks::siblings_of`],
    /// [`ErrorKind::BadRequest`] for an intent that is none, [`ErrorKind::TooLarge`] for more fixtures, or more bytes
    /// of them, than the node takes. What is above [`MAX_FIXTURES`] or [`MAX_FIXTURE_BYTES`] is not sent.
    pub async fn push_plugin_with_report(
        &self,
        name: &str,
        component: Component,
        mut watch: impl FnMut(&LawState),
    ) -> Result<PushedPlugin> {
        let name = admin_name(name)?;
        check_fixtures(&component.checks)?;
        for _ in 0..MAX_PUSHES {
            match self.pushed(name.clone(), component.clone(), false).await? {
                Reply::Changed { record, .. } => {
                    let plugin = plugin_info(record).ok_or_else(|| unexpected("the node"))?;
                    let report = self.law_report(plugin.digest).await;
                    return Ok(PushedPlugin { plugin: Ok(plugin), report });
                }
                Reply::Laws { state: LawState::Checked { broken: Some(why), report }, .. } => {
                    return Ok(PushedPlugin { plugin: Err(why), report: Some(report) });
                }
                Reply::Laws { digest, state } => {
                    watch(&state);
                    self.until_checked(digest, &mut watch).await?;
                }
                _ => return Err(unexpected("the node")),
            }
        }
        Err(Error::new(
            ErrorKind::Overloaded,
            "the node has forgotten the checks of other pushes meanwhile: push again",
        ))
    }

    /// Pushes a plugin without a check of its laws, which its record says from then on. Takes a token of scope
    /// `operator`.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let component = std::fs::read("cart.wasm").unwrap();
    /// let plugin = client.admin().push_plugin_unchecked("cart", component).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::push_plugin`], without the laws; [`ErrorKind::BadRequest`] if the component has something to be
    /// checked on.
    pub async fn push_plugin_unchecked(&self, name: &str, component: impl Into<Component>) -> Result<PluginInfo> {
        let component = component.into();
        if !component.checks.is_empty() {
            let what = "a push that is not checked takes no intent, no fixtures and no siblings";
            return Err(Error::new(ErrorKind::BadRequest, what));
        }
        match self.pushed(admin_name(name)?, component, true).await? {
            Reply::Changed { record, .. } => plugin_info(record).ok_or_else(|| unexpected("the node")),
            _ => Err(unexpected("the node")),
        }
    }

    async fn pushed(&self, name: Name, component: Component, unchecked: bool) -> Result<Reply> {
        let Component { bytes: module, signature, checks } = component;
        let push = if checks.is_empty() {
            AdminRequest::PluginPush { name, module, unchecked, signature }
        } else {
            AdminRequest::PluginPushWith { name, module, signature, checks: Box::new(checks) }
        };
        self.engine.once(Class::Bulk, RequestBody::Admin(push), self.push_timeout).await
    }

    /// Waits until a node has checked the laws, or does not know of the check any more. It answers about once a second.
    async fn until_checked(&self, digest: PluginDigest, watch: &mut impl FnMut(&LawState)) -> Result<()> {
        loop {
            match self.ask(AdminRequest::PluginLaws { digest }).await {
                Ok(Reply::Laws { state: LawState::Checked { .. }, .. }) => return Ok(()),
                Ok(Reply::Laws { state, .. }) => watch(&state),
                Ok(_) => return Err(unexpected("the node")),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The report of a check that is over, if the node still has it.
    async fn law_report(&self, digest: PluginDigest) -> Option<Bytes> {
        match self.ask(AdminRequest::PluginLaws { digest }).await {
            Ok(Reply::Laws { state: LawState::Checked { report, .. }, .. }) => Some(report),
            _ => None,
        }
    }
}

/// Refuses fixtures that no node takes.
fn check_fixtures(checks: &PushChecks) -> Result<()> {
    let (count, bytes) = (checks.fixtures.len(), checks.fixture_bytes());
    if count <= MAX_FIXTURES && bytes <= MAX_FIXTURE_BYTES {
        return Ok(());
    }
    let what = format!(
        "{count} fixtures of {bytes} bytes cannot be sent with a push: it takes {MAX_FIXTURES} of {MAX_FIXTURE_BYTES} \
         bytes at most; push with fewer, and check the others with `rejoin plugin test --fixture`"
    );
    Err(Error::new(ErrorKind::TooLarge, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures_that_no_node_takes_are_not_sent() {
        let of = |count: usize, bytes: usize| PushChecks {
            fixtures: vec![Bytes::from(vec![b'x'; bytes]); count],
            ..PushChecks::default()
        };
        assert!(check_fixtures(&of(MAX_FIXTURES, 1)).is_ok() && check_fixtures(&of(1, MAX_FIXTURE_BYTES)).is_ok());
        for more in [of(MAX_FIXTURES + 1, 0), of(1, MAX_FIXTURE_BYTES + 1)] {
            let refused = check_fixtures(&more).expect_err("that is too much");
            assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
        }
    }
}
