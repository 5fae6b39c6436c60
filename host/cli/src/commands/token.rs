//! `token create|list|rotate|revoke|root`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rejoin_client::admin::{Grant, Limits, NewToken, Scope};

use crate::commands::bucket::names;
use crate::commands::token_json::Token;
use crate::connect::connect;
use crate::failure::Failure;
use crate::files;
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::token_args::{CreateArgs, TokenCommand};

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(global, out, args).await,
        TokenCommand::List => list(global, out).await,
        TokenCommand::Rotate { name, overlap } => rotate(global, out, &name, overlap).await,
        TokenCommand::Revoke { name, certificates } => {
            let admin = connect(global).await?.admin();
            let behind = match certificates {
                true => admin.revoke_certificates(&name).await?,
                false => admin.revoke_token(&name).await?,
            };
            let what = if certificates { "certificates and token" } else { "token" };
            note(format!("{what} {name} revoked, and the connections end"));
            if !behind.is_empty() {
                note(format!("not yet known to {}: a node accepts what was revoked until it connects", names(&behind)));
            }
            Ok(())
        }
        TokenCommand::Root { secret } => root(out, &secret),
    }
}

/// The time, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn create(global: &GlobalArgs, out: Output, args: CreateArgs) -> Result<(), Failure> {
    let limits = Limits { buckets: args.buckets, prefix: args.prefix.unwrap_or_default().into_bytes().into() };
    let expires_ms = args.expires.map(|after| now_ms().saturating_add(millis(after)));
    let grant = Grant { scope: args.scope, limits, expires_ms };
    grant.check().map_err(Failure::usage)?;
    let token = connect(global).await?.admin().create_token(&args.name, grant.clone()).await?;
    print(out, &args.name, (&token, &grant))
}

fn print(out: Output, name: &str, (token, grant): (&NewToken, &Grant)) -> Result<(), Failure> {
    if out.json {
        return out.json(&Token::made(name, grant, token.text()));
    }
    tell_new(token);
    out.line(token.text())
}

fn tell_new(token: &NewToken) {
    if !token.behind().is_empty() {
        note(format!("not yet known to {}: a node refuses the token until it connects", names(token.behind())));
    }
    note("store it now: it cannot be shown again");
}

async fn rotate(global: &GlobalArgs, out: Output, name: &str, overlap: Duration) -> Result<(), Failure> {
    let token = connect(global).await?.admin().rotate_token(name, overlap).await?;
    if out.json {
        return out.json(&serde_json::json!({ "name": name, "token": token.text(), "overlap_ms": millis(overlap) }));
    }
    match overlap.is_zero() {
        true => note("the old secret has ended"),
        false => note(format!("the old secret is taken for another {overlap:?}")),
    }
    tell_new(&token);
    out.line(token.text())
}

async fn list(global: &GlobalArgs, out: Output) -> Result<(), Failure> {
    let tokens = connect(global).await?.admin().tokens().await?;
    let now_ms = now_ms();
    let tokens: Vec<Token> = tokens.iter().map(|token| Token::listed(token, now_ms)).collect();
    if out.json {
        return out.json(&tokens);
    }
    out.table(
        &["token", "scope", "limits", "state", "last used"],
        tokens.iter().map(|token| token.row(now_ms)).collect(),
    )
}

fn root(out: Output, path: &Path) -> Result<(), Failure> {
    let token = root_token(path)?;
    if out.json {
        return out.json(&Token::made("root", &Grant::of(Scope::Operator), &token));
    }
    out.line(token)
}

/// The first token of the cluster with that secret, of scope operator.
pub(crate) fn root_token(path: &Path) -> Result<String, Failure> {
    let secret = rejoin_node::Secret::from_file(&files::read(path)?);
    Ok(secret.map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?.root_token())
}
