//! The options of `rejoin layout`.

use clap::{Args, Subcommand};

use rejoin_client::admin::{Name, ZoneDemand};

#[derive(Subcommand, Debug)]
pub(crate) enum LayoutCommand {
    /// Show the members, what is staged, and how far a change has come
    Show,
    /// Stage a node as a member, or another zone or capacity of it, or another policy
    Assign(AssignArgs),
    /// Stage the removal of a member: what it has is handed over first
    Remove {
        /// The name of the node
        #[arg(id = "member", value_name = "NODE", required = true, value_parser = name)]
        members: Vec<Name>,
    },
    /// Stage twice as many partitions: nothing moves, and nothing is rewritten
    Split,
    /// Show what the staged changes would move, and the version and hash to apply
    Plan,
    /// Apply the staged changes, if they still give the layout that `plan` has shown
    Apply {
        /// The version that `plan` has shown
        #[arg(long)]
        version: u64,
        /// The hash that `plan` has shown
        #[arg(long, value_name = "HASH", value_parser = hash)]
        plan: u64,
    },
    /// Take back everything that is staged
    Revert,
    /// List the layouts that were applied
    History,
    /// Do not wait for a dead node in the change that is under way
    Skip {
        /// The name of the node
        #[arg(id = "member", value_name = "NODE")]
        member: String,
        /// Do not ask: what only this node has acknowledged is given up
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AssignArgs {
    /// The names of the nodes
    #[arg(id = "member", value_name = "NODE", value_parser = name, required_unless_present_any = ["n", "zones"])]
    pub(crate) members: Vec<Name>,
    /// Their zone: copies are spread over zones [default: the one that they have, or default]
    #[arg(long, value_parser = name)]
    pub(crate) zone: Option<Name>,
    /// Their share in relation to the others'; 0 to drain them [default: the one that they have, or 1]
    #[arg(long)]
    pub(crate) capacity: Option<u32>,
    /// The copies for which shares are balanced, 1 to 5
    #[arg(long)]
    pub(crate) n: Option<u8>,
    /// The zones of these copies: spread (as many as there are), any, or at least a number
    #[arg(long, value_name = "spread|any|COUNT", value_parser = zones)]
    pub(crate) zones: Option<ZoneDemand>,
}

/// Parses the name of a node or zone.
pub(crate) fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|why| why.to_string())
}

fn hash(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no hash: `rejoin layout plan` shows it, 16 hexadecimal digits");
    if text.len() != 16 {
        return Err(bad());
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or_else(bad)
}

fn zones(text: &str) -> Result<ZoneDemand, String> {
    match text {
        "spread" => Ok(ZoneDemand::Spread),
        "any" => Ok(ZoneDemand::Waived),
        count => count
            .parse()
            .map(ZoneDemand::AtLeast)
            .map_err(|_| format!("{text:?} is neither `spread` nor `any` nor a number of zones")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_hashes_are_read_or_refused_with_advice() {
        assert_eq!(zones("spread"), Ok(ZoneDemand::Spread));
        assert_eq!(zones("any"), Ok(ZoneDemand::Waived));
        assert_eq!(zones("2"), Ok(ZoneDemand::AtLeast(2)));
        assert!(zones("most").unwrap_err().contains("`spread` nor `any`"));
        assert_eq!(hash("00000000000000ff"), Ok(255));
        assert!(hash("ff").unwrap_err().contains("rejoin layout plan") && hash("+0000000000000ff").is_err());
    }
}
