//! The cart as the host knows it.

use crate::cart::Cart;
use rejoin_guest::{About, Card, Fault, Merger, Presenter, Sampler, Sibling};

/// The plugin.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Presenter, Sampler, About);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let read = |sibling: &Sibling| Cart::parse(&sibling.value).map_err(|_| Fault::Malformed);
        let (first, rest) = siblings.split_first().ok_or(Fault::Malformed)?;
        let mut merged = read(first)?;
        for sibling in rest {
            merged.join(&read(sibling)?);
        }
        Ok(merged.to_json())
    }
}

impl About for Plugin {
    fn describe() -> Card {
        Card { name: "cart", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = Cart::parse(value).map(|cart| serde_json::json!(cart.items()));
        shown.unwrap_or_else(|bad| serde_json::json!({ "error": bad.to_string() })).to_string().into_bytes()
    }
}

impl Sampler for Plugin {
    /// Few writers, few items: different seeds touch the same tags, also under different items and quantities.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut state = seed;
        let mut draw = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((state >> 33) % bound).expect("small")
        };
        let mut cart = Cart::default();
        for _ in 0..size.min(64) {
            let item = ["apples", "pears", "\"fi\u{e9}\""][draw(3)];
            match draw(3) {
                0 => cart.remove(item),
                quantity => cart.add(["ann", "bob", "cy:1"][draw(3)], item, u32::try_from(quantity).expect("small")),
            }
        }
        cart.to_json()
    }
}
