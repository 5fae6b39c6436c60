//! The ready-made merges: plugins of the tree that `build.rs` has built, so that a bucket can name one without a
//! compiler and without an upload of one's own.

use std::collections::BTreeSet;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use rejoin_client::Client;
use rejoin_client::admin::{Activation, PluginDigest};

use crate::failure::Failure;
use crate::output::note;

/// A ready-made merge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyMerge {
    /// The value of `--merge`.
    pub(crate) name: &'static str,
    /// For `--help`.
    pub(crate) about: &'static str,
    /// The core module. It is made a component at run time by the code of `rejoin plugin build`, so that both give the
    /// same bytes.
    pub(crate) core: &'static [u8],
}

macro_rules! ready {
    ($($constant:ident: $name:literal, $plugin:literal, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub(crate) const $constant: ReadyMerge = ReadyMerge {
                name: $name,
                about: $about,
                core: include_bytes!(concat!(env!("OUT_DIR"), "/", $plugin, ".core.wasm")),
            };
        )*
        /// All of them, by name.
        pub(crate) static ALL: &[ReadyMerge] = &[$($constant),*];
    };
}

ready! {
    CART: "cart", "cart", "items and quantities; an add wins over a concurrent removal";
    COUNTER: "counter", "counter", "a number that goes up and down";
    LAST_WRITER: "last-writer", "last-writer", "any bytes; of concurrent writes all but the last are lost";
    LEADERBOARD: "leaderboard", "leaderboard", "the best scores, one of each player";
    MAX: "max", "highest", "the largest whole number";
    METADATA: "metadata", "metadata", "named JSON values; of a field that was changed twice at once both are kept";
    SESSION: "session", "session", "named texts; the last writer of each wins";
    SET: "set", "set", "texts; an add wins over a concurrent removal";
}

impl ReadyMerge {
    /// The component.
    ///
    /// # Errors
    /// Only if this binary was built with a broken module.
    pub(crate) fn component(&self) -> Result<Vec<u8>, Failure> {
        rejoin_merge::build::componentize(self.core).map_err(Failure::usage)
    }

    /// Pushes the component as `rejoin plugin push` does, and says what a bucket needs to merge with it.
    ///
    /// # Errors
    /// An error of the SDK.
    pub(crate) async fn push(&self, client: &Client) -> Result<Activation, Failure> {
        let plugin = client.admin().push_plugin(self.name, self.component()?).await?;
        note(format!("the merge {} is plugin {} {}, {}", self.name, plugin.name, plugin.version, plugin.digest));
        Ok(plugin.activation())
    }
}

/// The digests of all of them. The release was tested with them, so a node does not check their laws again.
///
/// # Errors
/// As [`ReadyMerge::component`].
pub(crate) fn released() -> Result<BTreeSet<PluginDigest>, Failure> {
    ALL.iter().map(|merge| Ok(rejoin_merge::digest_of(&merge.component()?))).collect()
}

/// Parses the value of `--merge`.
pub(crate) fn parser() -> impl TypedValueParser<Value = &'static ReadyMerge> {
    let names = ALL.iter().map(|merge| PossibleValue::new(merge.name).help(merge.about));
    PossibleValuesParser::new(names).try_map(|name| {
        ALL.iter().find(|merge| merge.name == name).ok_or_else(|| format!("there is no ready-made merge {name:?}"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rejoin_merge::build;

    use super::*;

    #[test]
    fn plugin_build_gives_the_bytes_of_the_embedded_merges() {
        for merge in ALL {
            let plugin = if merge.name == "max" { "highest" } else { merge.name };
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(plugin);
            let built = build::guest(&dir, &build::Options::default()).unwrap();
            assert!(built == merge.component().unwrap(), "{plugin}: the digest would depend on who has built it");
        }
    }
}
