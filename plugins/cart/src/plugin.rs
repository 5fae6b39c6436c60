//! The exports of the cart's component.

use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Fault, Merger, Metadata, Presenter, Sampler, Sibling, Validator};

use crate::cart::Cart;

/// The merge plugin for [`Cart`] values.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Presenter, Sampler, Describer);

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

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        Cart::parse(value).map(drop).map_err(|_| Fault::Malformed)
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "cart", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = Cart::parse(value).map(|cart| serde_json::json!(cart.items()));
        shown.unwrap_or_else(|bad| serde_json::json!({ "error": bad.to_string() })).to_string().into_bytes()
    }
}

impl Sampler for Plugin {
    /// Draws from few writers and items, so that carts of different seeds share tags, also with different items and
    /// quantities. Larger carts have more items.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let (mut rng, items) = (Rng::new(seed), u64::from(size / 8));
        let mut cart = Cart::default();
        for _ in 0..size {
            let item = match rng.below(3 + items) {
                0 => "apples".into(),
                1 => "\"fi\u{e9}\"".into(),
                2 => "pears".into(),
                number => format!("item {number}"),
            };
            let writer = rng.pick(&["ann", "bob", "cy:1"]).copied().unwrap_or_default();
            match rng.below(3) {
                0 => cart.remove(&item),
                quantity => cart.add(writer, &item, u32::try_from(quantity).unwrap_or(1)),
            }
        }
        cart.to_json()
    }
}
