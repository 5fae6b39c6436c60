//! The command line of `rejoin token`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use rejoin_client::admin::{Name, Scope};

use crate::values::{duration, some_duration};

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; its secret is stored nowhere
    Create(CreateArgs),
    /// List all tokens of the tenant, and when each was last used, without their secrets
    List,
    /// Give a token another secret and print it; the old one is taken for a while
    Rotate {
        name: String,
        /// For how long the old secret is taken; 0s ends it at once
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = some_duration)]
        overlap: Duration,
    },
    /// Revoke a token, and end its connections
    Revoke {
        name: String,
        /// Also refuse every certificate of that name, for good; there need not be a token
        #[arg(long)]
        certificates: bool,
    },
    /// Print the first token, of scope operator, which is derived from the cluster's secret. Needs no node
    Root {
        /// The cluster's secret, as `cert ca` made it
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Its name, unique within the tenant
    pub(crate) name: String,
    /// What it is for: read-only, read-write, plugin-author, tenant-admin or operator
    #[arg(long, default_value = "read-write", value_parser = scope)]
    pub(crate) scope: Scope,
    /// Only this bucket; may be repeated
    #[arg(long = "bucket", value_name = "BUCKET", value_parser = name)]
    pub(crate) buckets: Vec<Name>,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// After how long it ends, such as 12h, 30d [default: when it is revoked]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
}

pub(crate) fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|why| format!("{why}"))
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_or_refused_with_advice() {
        assert_eq!(scope("tenant-admin"), Ok(Scope::TenantAdmin));
        assert!(scope("admin").unwrap_err().contains("tenant-admin or operator"));
    }
}
