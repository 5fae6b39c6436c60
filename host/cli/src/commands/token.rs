//! `token create|list|revoke|root`.

use std::path::Path;

use rejoin_client::admin::Scope;

use crate::args::TokenCommand;
use crate::commands::bucket::names;
use crate::commands::json::{Token, scope};
use crate::connect::connect;
use crate::failure::Failure;
use crate::files;
use crate::global::GlobalArgs;
use crate::output::{Output, note};

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, admin } => create(global, out, &name, admin).await,
        TokenCommand::List => {
            let tokens = connect(global).await?.admin().tokens().await?;
            let tokens: Vec<Token> = tokens.iter().map(Token::from).collect();
            if out.json {
                return out.json(&tokens);
            }
            let state = |token: &Token| if token.revoked { "withdrawn" } else { "valid" }.to_owned();
            let rows = tokens.into_iter().map(|token| vec![token.name.clone(), token.scope.into(), state(&token)]);
            out.table(&["token", "scope", "state"], rows.collect())
        }
        TokenCommand::Revoke { name } => {
            let behind = connect(global).await?.admin().revoke_token(&name).await?;
            note(format!("token {name} is revoked"));
            if !behind.is_empty() {
                note(format!("not yet known to {}: a node accepts the token until it connects", names(&behind)));
            }
            Ok(())
        }
        TokenCommand::Root { secret } => root(out, &secret),
    }
}

async fn create(global: &GlobalArgs, out: Output, name: &str, admin: bool) -> Result<(), Failure> {
    let allowed = if admin { Scope::Admin } else { Scope::Data };
    let token = connect(global).await?.admin().create_token(name, allowed).await?;
    if out.json {
        return out.json(&Token {
            name: name.into(),
            scope: scope(allowed),
            revoked: false,
            token: Some(token.text().into()),
        });
    }
    if !token.behind().is_empty() {
        note(format!("not yet known to {}: a node refuses the token until it connects", names(token.behind())));
    }
    note("store it now: it cannot be shown again");
    out.line(token.text())
}

fn root(out: Output, path: &Path) -> Result<(), Failure> {
    let token = root_token(path)?;
    if out.json {
        return out.json(&Token {
            name: "root".into(),
            scope: scope(Scope::Admin),
            revoked: false,
            token: Some(token),
        });
    }
    out.line(token)
}

/// The first admin token of the cluster with that secret.
pub(crate) fn root_token(path: &Path) -> Result<String, Failure> {
    let secret = rejoin_node::Secret::from_file(&files::read(path)?);
    Ok(secret.map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?.root_token())
}
