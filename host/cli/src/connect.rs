//! The client that the global options describe.

use std::ffi::OsString;
use std::path::PathBuf;

use rejoin_client::{Client, Profile};

use crate::failure::Failure;
use crate::global::GlobalArgs;

const VARIABLE: &str = "REJOIN_PROFILE";

/// Connects with the profile, or with `--node` to that node only.
///
/// # Errors
/// The profile is missing or invalid, or no node admits the client.
pub(crate) async fn connect(global: &GlobalArgs) -> Result<Client, Failure> {
    Ok(builder(global)?.connect().await?)
}

/// The builder of that client.
///
/// # Errors
/// The profile is missing or invalid.
pub(crate) fn builder(global: &GlobalArgs) -> Result<rejoin_client::ClientBuilder, Failure> {
    let missing = || {
        Failure::usage("no profile: it has the addresses, authority and token of a cluster")
            .next("give --profile FILE or set REJOIN_PROFILE; `rejoin dev` makes a cluster and names its profile")
    };
    let named = global.profile.clone().or_else(|| from_environment(std::env::var_os(VARIABLE)));
    let profile = Profile::load(named.ok_or_else(missing)?)?;
    let builder = profile.builder().name(concat!("rejoin-cli/", env!("CARGO_PKG_VERSION"))).timeout(global.timeout);
    let builder = match &global.tenant {
        Some(tenant) => builder.tenant(tenant.clone()),
        None => builder,
    };
    Ok(match &global.node {
        Some(node) => builder.seeds([node.clone()]).pinned(),
        None => builder,
    })
}

/// The names and addresses of the nodes that are to be asked one by one: all, or with `--node` that one.
///
/// # Errors
/// No node tells them.
pub(crate) async fn nodes(global: &GlobalArgs) -> Result<Vec<(String, String)>, Failure> {
    let status = connect(global).await?.admin().status().await?;
    let asked = status.nodes.iter().filter(|node| global.node.is_none() || node.name == status.node);
    Ok(asked.map(|node| (node.name.to_string(), node.address.to_string())).collect())
}

/// Connects to that node only.
///
/// # Errors
/// It does not admit the client.
pub(crate) async fn pinned(global: &GlobalArgs, address: &str) -> Result<Client, Failure> {
    Ok(builder(global)?.seeds([address]).pinned().connect().await?)
}

/// The profile of `REJOIN_PROFILE`. An empty variable counts as unset.
fn from_environment(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: GlobalArgs,
    }

    fn global(line: &str) -> GlobalArgs {
        Line::try_parse_from(line.split_whitespace()).unwrap().global
    }

    #[test]
    fn a_profile_that_cannot_be_read_is_a_matter_of_configuration() {
        let failure = builder(&global("rejoin --profile no/such/profile.toml")).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.to_string().contains("no/such/profile.toml"), "{failure}");
    }

    #[test]
    fn an_empty_variable_names_no_profile() {
        assert_eq!(from_environment(Some("".into())), None);
        assert_eq!(from_environment(Some("p.toml".into())), Some("p.toml".into()));
    }

    #[test]
    fn a_named_node_is_the_only_seed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.toml");
        std::fs::write(&path, "seeds = [\"127.0.0.1:7401\"]\nca = \"ca.pem\"\ntoken = \"t\"\n").unwrap();
        let line = format!("rejoin --node 127.0.0.1:7403 --profile {}", path.display());
        let shown = format!("{:?}", builder(&global(&line)).unwrap());
        assert!(shown.contains("7403") && !shown.contains("7401") && shown.contains("pinned: true"), "{shown}");
    }
}
