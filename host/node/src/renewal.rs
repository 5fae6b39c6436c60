//! Loads new certificate files without a restart, and warns before certificates end.

use std::sync::Arc;
use std::time::Duration;

use rejoin_wire::{Endpoint, utc_text};

use crate::certificates::DAY;
use crate::context::NodeContext;

/// How often the files are read.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Loads new files as they appear. Logs warnings when they change, and repeats them once a day.
pub(crate) async fn watch(ctx: Arc<NodeContext>, endpoint: Endpoint) {
    let mut logged: (Vec<String>, u64) = (Vec::new(), 0);
    loop {
        // A failure is kept in the certificates' state and is one of the warnings below.
        let _ = reload(&ctx, &endpoint);
        let mut warnings = ctx.certificates.warnings(&ctx.config);
        warnings.extend(ctx.peer_certificate_warnings());
        let today = ctx.clock.now().wall_ms / (DAY * 1_000);
        if logged != (warnings.clone(), today) {
            warnings.iter().for_each(|why| tracing::warn!(why, "certificates"));
            logged = (warnings, today);
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Reads the files now and uses them if they have changed. Returns whether they have.
///
/// # Errors
/// Why the new files are not used.
pub(crate) fn reload(ctx: &NodeContext, endpoint: &Endpoint) -> Result<bool, String> {
    let reloaded = ctx.certificates.reload(&ctx.config, endpoint);
    if reloaded == Ok(true) {
        let (own, authority) = ctx.certificates.ends();
        tracing::info!(until = utc_text(own), authority_until = utc_text(authority), "new certificates are in use");
    }
    reloaded
}
