//! `plugin show`: one plugin, by name, `name@version`, or the beginning of its digest.

use rejoin_wire::utc_text_ms;

use crate::commands::json::{Plugin, TranscriptJson};
use crate::commands::readiness::{self, NodeState};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::Output;

/// The fewest digits of a digest that name a plugin.
const DIGITS: usize = 4;

pub(crate) async fn run(global: &GlobalArgs, out: Output, named: &str) -> Result<(), Failure> {
    let plugins = readiness::list(&connect(global).await?.admin()).await?;
    let plugin = chosen(named, &plugins)?;
    if out.json {
        return out.json(plugin);
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
pub(super) fn chosen<'a>(named: &str, plugins: &'a [Plugin]) -> Result<&'a Plugin, Failure> {
    let is_it = |plugin: &&Plugin| {
        let full = plugin.name == named || format!("{}@{}", plugin.name, plugin.version) == named;
        full || named.len() >= DIGITS && plugin.digest.starts_with(named)
    };
    let found: Vec<&Plugin> = plugins.iter().filter(is_it).collect();
    match found.as_slice() {
        [plugin] => Ok(plugin),
        [] => Err(Failure::new(Exit::Negative, format!("there is no plugin {named}"))
            .next("`rejoin plugin list` shows the names and digests")),
        several => {
            let shown: Vec<String> = several
                .iter()
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

    fn plugin(name: &str, version: &str, digest: &str) -> Plugin {
        Plugin {
            digest: digest.into(),
            name: name.into(),
            version: version.into(),
            bytes: 1,
            self_causal: false,
            quarantined: None,
            unchecked: None,
            transcripts: Vec::new(),
            nodes: None,
            provenance: None,
            reap_ms: None,
            file: None,
            state: "good".into(),
        }
    }

    #[test]
    fn a_plugin_is_named_by_its_name_its_version_or_the_beginning_of_its_digest() {
        let all = [plugin("cart", "1", "aaaa01"), plugin("cart", "2", "aaaa02"), plugin("top", "1", "bbbb01")];
        let digest = |named: &str| chosen(named, &all).map(|plugin| plugin.digest.as_str()).map_err(|why| why.exit);
        assert_eq!(digest("top"), Ok("bbbb01"));
        assert_eq!(digest("cart@2"), Ok("aaaa02"));
        assert_eq!(digest("bbbb"), Ok("bbbb01"));
        assert_eq!(digest("bbb"), Err(Exit::Negative), "too few digits");
        assert_eq!(digest("aaaa0"), Err(Exit::Usage));
        assert!(chosen("cart", &all).expect_err("two of them").to_string().contains("cart@1 aaaa01, cart@2 aaaa02"));
    }
}
