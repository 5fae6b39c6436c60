//! A client that edits carts in the format that the cart plugin documents. Rejoin does not link the plugin, so this is
//! the code that an application would have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use rejoin_client::{Bucket, Client, ErrorKind, Json, Profile};

use crate::cart::BUCKET;
use crate::failure::{Exit, Failure};

/// A cart. Each add has a tag `writer:counter`, and `clock` has the adds that were seen. A tag that is in the clock and
/// not in the items was removed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Cart {
    clock: BTreeMap<String, u64>,
    items: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Cart {
    pub(super) fn add(&mut self, writer: &str, item: &str, quantity: u32) {
        let counter = self.clock.entry(writer.into()).or_insert(0);
        *counter += 1;
        self.items.entry(item.into()).or_default().insert(format!("{writer}:{counter}"), quantity);
    }

    pub(super) fn remove(&mut self, item: &str) {
        self.items.remove(item);
    }

    /// The quantity of an item.
    pub(super) fn quantity(&self, item: &str) -> u32 {
        self.items.get(item).map_or(0, |tags| tags.values().sum())
    }

    /// The quantity of each item by writer, from the tags.
    pub(super) fn writers(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (item, tags) in &self.items {
            let by: Vec<String> = tags
                .iter()
                .map(|(tag, quantity)| {
                    format!("{quantity} by {}", tag.rsplit_once(':').map_or(tag.as_str(), |(writer, _)| writer))
                })
                .collect();
            lines.push(format!("{item}: {}", by.join(", ")));
        }
        lines
    }

    /// The quantities of all items.
    pub(super) fn contents(&self) -> BTreeMap<&str, u32> {
        self.items
            .keys()
            .map(|item| (item.as_str(), self.quantity(item)))
            .filter(|(_, quantity)| *quantity > 0)
            .collect()
    }
}

impl std::fmt::Display for Cart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let items: Vec<String> = self.contents().iter().map(|(item, quantity)| format!("{quantity} {item}")).collect();
        f.write_str(&if items.is_empty() { "nothing".into() } else { items.join(", ") })
    }
}

/// The result of a read.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) cart: Cart,
    pub(super) siblings: usize,
    /// Name and digest of the plugin that merged it.
    pub(super) merged_by: Option<(String, String)>,
}

/// A shopper at one node, whether or not it owns the cart.
pub(super) struct CartClient {
    /// The writer in the tags.
    pub(super) writer: String,
    carts: Bucket<Json<Cart>>,
}

impl CartClient {
    /// Connects. The writer's name is made unique, because two writers must never share one.
    pub(super) async fn at(profile: &Profile, node: std::net::SocketAddr, name: &str) -> Result<Self, Failure> {
        let client: Client = profile.builder().seeds([node.to_string()]).pinned().name(name).connect().await?;
        Ok(Self { writer: format!("{name}-{:04x}", rand::random::<u16>()), carts: client.bucket(BUCKET)? })
    }

    /// Reads at `quorum` replicas, edits, and writes at as many with the context of the read.
    pub(super) async fn edit(
        &self,
        key: &str,
        quorum: u8,
        edit: impl Fn(&mut Cart, &str) + Send + Sync,
    ) -> Result<Cart, Failure> {
        let edited = |cart: Option<Cart>| {
            let mut cart = cart.unwrap_or_default();
            edit(&mut cart, &self.writer);
            cart
        };
        Ok(self.carts.update(key, edited).r(quorum).w(quorum).await?.value)
    }

    /// Reads the cart from that many replicas; `None` if a retry may succeed.
    pub(super) async fn read(&self, key: &str, r: u8) -> Result<Option<Seen>, Failure> {
        let object = match self.carts.get(key).r(r).siblings().await {
            Ok(object) => object,
            Err(error) if error.is_retryable() => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Codec => return Err(Failure::new(Exit::Negative, error)),
            Err(error) => return Err(error.into()),
        };
        let merged_by = object.merged_by.as_ref().map(|by| (by.name.clone().unwrap_or_default(), by.digest.clone()));
        let siblings = object.siblings.len();
        Ok(Some(Seen { cart: object.into_value()?.unwrap_or_default(), siblings, merged_by }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carts_are_written_as_the_plugin_documents_it() {
        let mut cart = Cart::default();
        cart.add("ann-7f3a", "pears", 1);
        cart.add("ann-7f3a", "apples", 3);
        cart.remove("pears");
        let json = serde_json::to_string(&cart).unwrap();
        assert_eq!(json, r#"{"clock":{"ann-7f3a":2},"items":{"apples":{"ann-7f3a:2":3}}}"#);
        assert_eq!((cart.quantity("apples"), cart.quantity("pears"), cart.to_string().as_str()), (3, 0, "3 apples"));
        cart.add("bob-01c9", "apples", 1);
        assert_eq!(cart.writers(), ["apples: 3 by ann-7f3a, 1 by bob-01c9"]);
    }
}
