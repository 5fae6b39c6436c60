//! The sample bucket of the cart.

use rejoin_client::Client;
use rejoin_client::admin::{BucketProps, PluginInfo};
use rejoin_client::{ErrorKind, Result as ClientResult};

use crate::failure::Failure;
use crate::ready;

/// The bucket that `dev` and `demo` make.
pub(crate) const BUCKET: &str = "cart";

/// Pushes the cart plugin, and makes the bucket that uses it unless it exists.
///
/// # Errors
/// An error of the SDK.
pub(crate) async fn set_up(client: &Client, n: u8) -> Result<PluginInfo, Failure> {
    let admin = client.admin();
    let plugin = admin.push_plugin(BUCKET, ready::CART.component()?).await?;
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
