//! Who may read the admin port: anybody on this machine's loopback addresses, elsewhere whoever shows a token.
//!
//! A token is one of the cluster that may show nodes and layouts, or a line of the file that `admin_token` names. The
//! file is for programs that only read metrics: its lines open nothing else. It is read at each request, so that a line
//! can be added and another one removed while the node runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use rejoin_core::access::{Denial, Verb, Whose, allows};
use rejoin_proto::access::MAX_TOKEN_BYTES;

use crate::certificates::read;
use crate::config::Config;
use crate::context::NodeContext;
use crate::error::StartError;

/// The fewest bytes of a token in the file of `admin_token`.
const LEAST_TOKEN_BYTES: usize = 16;
/// The most tokens in it.
const MAX_TOKENS: usize = 16;

/// Whether a port at that address asks for no token.
pub(crate) fn is_open(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Checks the file of `admin_token`, if there is one.
///
/// # Errors
/// It cannot be read, or has no tokens, too many, or one that could be guessed.
pub(crate) fn check_file(config: &Config) -> Result<(), StartError> {
    let Some(path) = &config.admin_token else { return Ok(()) };
    let text = String::from_utf8_lossy(&read("admin_token", path)?).into_owned();
    let tokens: Vec<&str> = tokens(&text).collect();
    let unfit = |why: String| Err(StartError::Unfit(format!("admin_token = {}: {why}", path.display())));
    if !(1..=MAX_TOKENS).contains(&tokens.len()) {
        return unfit(format!("it has {} tokens: write 1 to {MAX_TOKENS}, each on a line of its own", tokens.len()));
    }
    let fits = |token: &&str| (LEAST_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len());
    match tokens.iter().all(fits) {
        true => Ok(()),
        false => unfit(format!("a token has {LEAST_TOKEN_BYTES} to {MAX_TOKEN_BYTES} bytes, and others are refused")),
    }
}

/// The tokens of a file: its lines, without those that are empty or begin with `#`.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Lets a request pass that shows a token, and answers every other one with what it takes.
pub(crate) async fn check(State(ctx): State<Arc<NodeContext>>, request: Request, next: Next) -> Response {
    match admitted(&ctx, request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => {
            tracing::info!(%status, path = request.uri().path(), "a request to the admin port was refused");
            (status, [(WWW_AUTHENTICATE, "Bearer")], format!("{why}\n")).into_response()
        }
    }
}

fn admitted(ctx: &NodeContext, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let name = &ctx.config.name;
    let refused = |why: &str| {
        let message = format!(
            "the admin port of {name} is not on loopback, and {why}: send the header `Authorization: Bearer TOKEN`, with \
             a token of scope operator or a line of the file that admin_token in the node's configuration names"
        );
        Err((StatusCode::UNAUTHORIZED, message))
    };
    let Some(header) = headers.get(AUTHORIZATION) else { return refused("asks for a token") };
    let shown = header.to_str().ok().and_then(|header| header.split_once(' '));
    let Some(token) = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim())
    else {
        return refused("takes no other credentials than a bearer token");
    };
    if ctx.config.admin_token.as_deref().is_some_and(|path| is_in_file(path, token)) {
        return Ok(());
    }
    let Some(principal) = ctx.view.borrow().tokens.check(token, ctx.clock.now().wall_ms) else {
        return refused("does not know the token that was shown");
    };
    let verb = Verb::ClusterShow;
    if allows(principal.grant.scope, verb, Whose::Own) {
        return Ok(());
    }
    let denial = Denial::Scope { verb, whose: Whose::Own };
    Err((StatusCode::FORBIDDEN, format!("token {} ({}) {denial}", principal.name, principal.grant.scope)))
}

/// Whether a token is in the file. One that cannot be read has none.
fn is_in_file(path: &Path, token: &str) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let fits = |known: &&str| (LEAST_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&known.len());
    // BLAKE3 hashes compare in constant time.
    let shown = blake3::hash(token.as_bytes());
    tokens(&text).take(MAX_TOKENS).filter(fits).any(|known| blake3::hash(known.as_bytes()) == shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_open() {
        for (address, open) in [
            ("127.0.0.1:7500", true),
            ("127.9.9.9:1", true),
            ("[::1]:7500", true),
            ("[::ffff:127.0.0.1]:7500", true),
            ("0.0.0.0:7500", false),
            ("[::]:7500", false),
            ("10.0.0.1:7500", false),
            ("[::ffff:10.0.0.1]:7500", false),
        ] {
            assert_eq!(is_open(address.parse().unwrap()), open, "{address}");
        }
    }

    #[test]
    fn a_file_has_a_token_on_each_line_and_short_ones_open_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "# for Prometheus\n\n  a-token-of-prometheus \r\nshort\nanother-token-here\n").unwrap();
        for (token, there) in [
            ("a-token-of-prometheus", true),
            ("another-token-here", true),
            ("another-token-her", false),
            ("short", false),
            ("# for Prometheus", false),
            ("", false),
        ] {
            assert_eq!(is_in_file(&path, token), there, "{token:?}");
        }
        assert!(!is_in_file(&dir.path().join("none"), "a-token-of-prometheus"));
    }
}
