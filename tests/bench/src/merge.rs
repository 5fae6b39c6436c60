//! One call of a merge plugin, in a fresh instance or answered from the memo.

use std::path::Path;

use bytes::Bytes;

use rejoin_merge::build::{self, Options};
use rejoin_merge::{CallLimits, Host, HostConfig, Memo, ModuleLimits, Plugin, Sibling};

/// The cart plugin and siblings for it.
pub struct Merge {
    host: Host,
    plugin: Plugin,
    memo: Memo,
    siblings: Vec<Sibling>,
    limits: CallLimits,
}

impl Merge {
    /// Merges of `siblings` carts of about `bytes` bytes each.
    ///
    /// # Panics
    /// If the cart's component does not build or run.
    #[must_use]
    pub fn new(siblings: u64, bytes: usize) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/cart");
        let component = build::guest(&dir, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
        let host = Host::new(HostConfig::default()).expect("an engine");
        let plugin = host.compile(&component, &ModuleLimits::default()).expect("a plugin");
        let siblings =
            (1..=siblings).map(|writer| Sibling { value: cart(writer, bytes), stamp_ms: writer, writer }).collect();
        Self { host, plugin, memo: Memo::new(32 << 20), siblings, limits: CallLimits::default() }
    }

    /// Does `merges` merges, each in a fresh instance.
    ///
    /// # Panics
    /// If the plugin fails.
    pub fn fresh(&self, merges: u64) {
        for _ in 0..merges {
            self.host.merge(&self.plugin, b"key", &self.siblings, &self.limits).expect("a merged cart");
        }
    }

    /// Does `merges` merges. Only the first merge runs the plugin; the memo answers the others.
    ///
    /// # Panics
    /// If the plugin fails.
    pub fn remembered(&self, merges: u64) {
        for _ in 0..merges {
            self.memo.merge(&self.host, &self.plugin, b"key", &self.siblings, &self.limits).expect("a merged cart");
        }
    }
}

/// A cart of one writer with one item. The item's name fills the cart up to its size.
fn cart(writer: u64, bytes: usize) -> Bytes {
    let item = "i".repeat(bytes.saturating_sub(45).max(1));
    format!(r#"{{"clock":{{"w{writer}":1}},"items":{{"{item}{writer}":{{"w{writer}:1":1}}}}}}"#).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_not_merged_again() {
        let merge = Merge::new(3, 100);
        merge.fresh(1);
        merge.remembered(5);
        assert_eq!(merge.memo.hits_and_misses(), (4, 1));
    }
}
