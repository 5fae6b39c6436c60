//! The command line of `rejoin audit`.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use rejoin_client::admin::AuditHash;
use rejoin_proto::hex::hex;

use crate::values::duration;

#[derive(Subcommand, Debug)]
pub(crate) enum AuditCommand {
    /// List what was asked of the control plane, by whom, and what came of it; with --tenant only what is about that
    /// tenant
    List(ListArgs),
    /// Check that no record was altered or removed: exit code 1 and the first such record if one was
    Verify {
        /// A head that was printed before, as NODE:NUMBER:HASH: that record must still be there; may be repeated
        #[arg(long = "head", value_name = "HEAD")]
        heads: Vec<KnownHead>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only commands with this token or certificate: NAME or TENANT/NAME
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Only this kind of command, such as "token create", or all that begin with a word, such as token
    #[arg(long, value_name = "VERB")]
    pub(crate) verb: Option<String>,
    /// Only commands about the bucket, token, plugin, tenant, node or layout of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) object: Option<String>,
    /// Only what is not older than this, such as 30m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only what was refused, or denied for want of a scope
    #[arg(long)]
    pub(crate) refused: bool,
}

/// The last record of a node's log at some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KnownHead {
    pub(crate) node: String,
    pub(crate) number: u64,
    pub(crate) hash: AuditHash,
}

impl FromStr for KnownHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (node, rest) = text.split_once(':')?;
            let (number, hash) = rest.split_once(':')?;
            Some(Self { node: node.to_owned(), number: number.parse().ok()?, hash: unhex(hash)? })
        };
        parsed().ok_or_else(|| format!("{text:?} is not NODE:NUMBER:HASH, as `audit list` and `audit verify` print it"))
    }
}

impl std::fmt::Display for KnownHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.node, self.number, hex(&self.hash))
    }
}

fn unhex(text: &str) -> Option<AuditHash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_printed_or_refused_with_advice() {
        let head = KnownHead { node: "n1".into(), number: 12, hash: [0xa5; 32] };
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        let short = format!("n1:12:{}", "a5".repeat(31));
        for wrong in ["", "n1", "n1:12", "n1:x:00", short.as_str(), &head.to_string().replace('a', "g")] {
            let refused = wrong.parse::<KnownHead>().unwrap_err();
            assert!(refused.contains("NODE:NUMBER:HASH"), "{refused}");
        }
    }
}
