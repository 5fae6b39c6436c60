//! From the command line to a connected client.

use rejoin_client::{Client, Profile};

use crate::args::Global;
use crate::failure::Failure;

/// Connects by the profile, or to the one node that was named.
///
/// # Errors
/// No profile or a bad one, or that no node lets us in.
pub(crate) async fn connect(global: &Global) -> Result<Client, Failure> {
    Ok(builder(global)?.connect().await?)
}

fn builder(global: &Global) -> Result<rejoin_client::ClientBuilder, Failure> {
    let missing = || {
        Failure::usage("no profile: it tells where the cluster is and how to get in")
            .next("give --profile FILE or set REJOIN_PROFILE; `rejoin dev` makes a cluster and names its profile")
    };
    let profile = Profile::load(global.profile.as_ref().ok_or_else(missing)?)?;
    let builder = profile.builder().name(concat!("rejoin-cli/", env!("CARGO_PKG_VERSION"))).timeout(global.timeout);
    Ok(match &global.node {
        Some(node) => builder.seeds([node.clone()]).pinned(),
        None => builder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::failure::Exit;
    use clap::Parser;

    fn global(line: &str) -> Global {
        Cli::try_parse_from(line.split_whitespace()).unwrap().global
    }

    #[test]
    fn without_a_profile_the_next_command_is_named() {
        let mut global = global("rejoin status");
        global.profile = None;
        assert_eq!(builder(&global).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_named_node_is_the_only_seed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.toml");
        std::fs::write(&path, "seeds = [\"127.0.0.1:7401\"]\nca = \"ca.pem\"\ntoken = \"t\"\n").unwrap();
        let line = format!("rejoin status --node 127.0.0.1:7403 --profile {}", path.display());
        let shown = format!("{:?}", builder(&global(&line)).unwrap());
        assert!(shown.contains("7403") && !shown.contains("7401") && shown.contains("pinned: true"), "{shown}");
    }
}
