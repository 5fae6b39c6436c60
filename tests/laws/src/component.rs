//! Builds the components of the tree's plugins as `rejoin plugin build` does.

use std::path::Path;
use std::sync::OnceLock;

use rejoin_merge::build::{self, Options};
use rejoin_merge::{CallLimits, Host, HostConfig, ModuleLimits, PluginUnderTest};

/// The bytes of a plugin's component. The build's own directory makes it quick after the first time.
///
/// # Panics
/// If the guest does not build; the message says why.
#[must_use]
pub fn built(plugin: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(plugin);
    build::guest(&dir, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The bytes of the cart's component. Built once a process.
///
/// # Panics
/// As [`built`].
pub fn cart_bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("cart"))
}

/// The cart's component on a host.
///
/// # Panics
/// If the host cannot start or refuses the cart; the message says why.
pub fn cart() -> &'static PluginUnderTest {
    static CART: OnceLock<PluginUnderTest> = OnceLock::new();
    CART.get_or_init(|| on_a_host(cart_bytes()))
}

/// A component on a host of its own.
///
/// # Panics
/// If the host cannot start or refuses it; the message says why.
#[must_use]
pub fn on_a_host(bytes: &[u8]) -> PluginUnderTest {
    let host = Host::new(HostConfig::default()).unwrap_or_else(|error| panic!("{error}"));
    let plugin = host.compile(bytes, &ModuleLimits::default()).unwrap_or_else(|rejection| panic!("{rejection}"));
    PluginUnderTest::new(host, plugin, CallLimits::default())
}
