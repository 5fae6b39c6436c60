//! The plugins that `build.rs` has built, and the sample bucket of the cart.

use rejoin_client::Client;
use rejoin_client::admin::{BucketProps, PluginInfo};
use rejoin_client::{ErrorKind, Result as ClientResult};

use crate::failure::Failure;

/// The core module. It is made a component at run time by the code of `rejoin plugin build`, so that both give the same
/// bytes.
pub(crate) const CORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cart.core.wasm"));

/// The same of the session plugin.
const SESSION_CORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/session.core.wasm"));

/// The bucket that `dev` and `demo` make.
pub(crate) const BUCKET: &str = "cart";

/// The cart's component.
///
/// # Errors
/// Only if this binary was built with a broken module.
pub(crate) fn component() -> Result<Vec<u8>, Failure> {
    rejoin_merge::build::componentize(CORE).map_err(Failure::usage)
}

/// The session's component.
///
/// # Errors
/// As [`component`].
pub(crate) fn session_component() -> Result<Vec<u8>, Failure> {
    rejoin_merge::build::componentize(SESSION_CORE).map_err(Failure::usage)
}

/// Pushes the cart plugin, and makes the bucket that uses it unless it exists.
///
/// # Errors
/// An error of the SDK.
pub(crate) async fn set_up(client: &Client, n: u8) -> Result<PluginInfo, Failure> {
    let admin = client.admin();
    let plugin = admin.push_plugin(BUCKET, component()?).await?;
    let props = BucketProps { n, plugin: Some(plugin.activation()), ..BucketProps::default() };
    made_or_there(admin.create_bucket(BUCKET, props).await.map(|_| ()))?;
    Ok(plugin)
}

fn made_or_there(made: ClientResult<()>) -> ClientResult<()> {
    match made {
        Err(error) if error.kind() == ErrorKind::Exists => Ok(()),
        other => other,
    }
}
