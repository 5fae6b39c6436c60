//! `plugin show`: one plugin, by name, `name@version`, or the beginning of its digest.

use rejoin_client::admin::{Admin, PluginDigest, PluginInfo};
use rejoin_wire::utc_text_ms;

use crate::commands::json::TranscriptJson;
use crate::commands::readiness::{NodeState, with_nodes};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::Output;

/// The fewest digits of a digest that name a plugin.
const DIGITS: usize = 4;

pub(crate) async fn run(global: &GlobalArgs, out: Output, named: &str) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let plugins = admin.plugins().await?;
    let plugin = chosen(named, &plugins)?;
    let plugin = with_nodes(&admin.plugin_readiness(None).await?, plugin);
    if out.json {
        return out.json(&plugin);
    }
    let laws = match &plugin.unchecked {
        Some(by) => format!("not checked: pushed by {by} with --unchecked"),
        None => "checked before it was stored".to_owned(),
    };
    let folds = if plugin.self_causal { "yes" } else { "no" };
    let quarantined = plugin.quarantined.as_deref().unwrap_or("no");
    let from = plugin.provenance.as_ref();
    let pushed =
        from.map_or_else(|| "-".to_owned(), |from| format!("by {} at {}", from.pushed_by, utc_text_ms(from.pushed_ms)));
    let text = |text: Option<&String>| text.map_or("-", String::as_str).to_owned();
    let (signer, builder) =
        (text(from.and_then(|from| from.signer.as_ref())), text(from.and_then(|from| from.builder.as_ref())));
    let lines = [
        ("name", plugin.name.as_str()),
        ("version", &plugin.version),
        ("digest", &plugin.digest),
        ("bytes", &plugin.bytes.to_string()),
        ("self-causal", folds),
        ("laws", &laws),
        ("quarantined", quarantined),
        ("pushed", &pushed),
        ("signed with", &signer),
        ("built with", &builder),
        ("state", &plugin.state),
    ];
    lines.iter().try_for_each(|(what, text)| out.line(format_args!("{what:<12} {text}")))?;
    for TranscriptJson { profile, hash, .. } in &plugin.transcripts {
        out.line(format_args!("{:<12} {hash:.12} of engine {profile}", "transcript"))?;
    }
    for NodeState { node, state, why } in plugin.nodes.iter().flatten() {
        let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        out.line(format_args!("{:<12} {node} {state}{why}", "node"))?;
    }
    Ok(())
}

/// The one plugin of that name.
pub(super) fn chosen<'a>(named: &str, plugins: &'a [PluginInfo]) -> Result<&'a PluginInfo, Failure> {
    let of = |plugin: &'a PluginInfo| Called {
        name: plugin.name.as_str(),
        version: &plugin.version,
        digest: plugin.digest.to_string(),
    };
    let all: Vec<Called<'_>> = plugins.iter().map(of).collect();
    place(named, &all).map(|place| &plugins[place])
}

/// The digest of the one plugin of that name.
pub(super) async fn digest(admin: &Admin, named: &str) -> Result<PluginDigest, Failure> {
    Ok(chosen(named, &admin.plugins().await?)?.digest)
}

/// What a plugin is called by.
struct Called<'a> {
    name: &'a str,
    version: &'a str,
    digest: String,
}

fn place(named: &str, plugins: &[Called<'_>]) -> Result<usize, Failure> {
    let is_it = |plugin: &Called<'_>| {
        let full = plugin.name == named || format!("{}@{}", plugin.name, plugin.version) == named;
        full || named.len() >= DIGITS && plugin.digest.starts_with(named)
    };
    let found: Vec<usize> = (0..plugins.len()).filter(|place| is_it(&plugins[*place])).collect();
    match found.as_slice() {
        [place] => Ok(*place),
        [] => Err(Failure::new(Exit::Negative, format!("there is no plugin {named}"))
            .next("`rejoin plugin list` shows the names and digests")),
        several => {
            let shown: Vec<String> = several
                .iter()
                .map(|place| &plugins[*place])
                .map(|plugin| format!("{}@{} {:.12}", plugin.name, plugin.version, plugin.digest))
                .collect();
            Err(Failure::usage(format!("{named} is the name of several plugins: {}", shown.join(", ")))
                .next("give the beginning of the digest"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &'static str, version: &'static str, digest: &str) -> Called<'static> {
        Called { name, version, digest: digest.into() }
    }

    #[test]
    fn a_plugin_is_named_by_its_name_its_version_or_the_beginning_of_its_digest() {
        let all = [plugin("cart", "1", "aaaa01"), plugin("cart", "2", "aaaa02"), plugin("top", "1", "bbbb01")];
        let digest = |named: &str| place(named, &all).map(|at| all[at].digest.as_str()).map_err(|why| why.exit);
        assert_eq!(digest("top"), Ok("bbbb01"));
        assert_eq!(digest("cart@2"), Ok("aaaa02"));
        assert_eq!(digest("bbbb"), Ok("bbbb01"));
        assert_eq!(digest("bbb"), Err(Exit::Negative), "too few digits");
        assert_eq!(digest("aaaa0"), Err(Exit::Usage));
        assert!(place("cart", &all).expect_err("two of them").to_string().contains("cart@1 aaaa01, cart@2 aaaa02"));
    }
}
