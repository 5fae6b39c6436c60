//! The exports of the session's component.

use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Fault, Merger, Metadata, Presenter, Sampler, Sibling, Validator};

use crate::{Field, Session};

/// The merge plugin for [`Session`] values.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Presenter, Sampler, Describer);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let mut merged = Session::default();
        for sibling in siblings {
            merged.join(Session::parse(&sibling.value).map_err(|_| Fault::Malformed)?);
        }
        Ok(merged.to_json())
    }
}

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        Session::parse(value).map(drop).map_err(|_| Fault::Malformed)
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "session", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = Session::parse(value).map(|session| serde_json::json!(session.attributes()));
        shown.unwrap_or_else(|why| serde_json::json!({ "error": why })).to_string().into_bytes()
    }
}

impl Sampler for Plugin {
    /// Draws from few names, stamps, writers and values, so that fields tie in all of them. Larger sessions have more
    /// names.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let mut session = Session::default();
        for _ in 0..size {
            let name = match rng.below(2 + u64::from(size / 4)) {
                0 => "theme".into(),
                number => format!("n\u{e4}me {number}"),
            };
            let writer = rng.pick(&["app", "web"]).copied().unwrap_or_default();
            let value = rng.pick(&[None, Some("\"dark\""), Some("light")]).copied().flatten();
            session.0.insert(name, Field { stamp: rng.below(4), writer: writer.into(), value: value.map(Into::into) });
        }
        session.to_json()
    }
}
