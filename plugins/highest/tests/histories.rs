//! What clients do with the number, and every short history of it. `rejoin plugin test --intent intent.json` tries the
//! same on the component.

use rejoin_guest::laws::{Facts, HistoryConfig, Intent, OperationDot, Roles, check_classics, check_histories};
use rejoin_guest::{Merger, Native, Sibling};
use rejoin_plugin_highest::Highest;

/// A client that raises the number to one of its own.
struct Raise;

impl Intent for Raise {
    fn operations(&self) -> Vec<String> {
        ["5", "9", "10"].map(String::from).to_vec()
    }

    fn apply(&self, state: Option<&[u8]>, operation: &str, _dot: OperationDot) -> Result<Vec<u8>, String> {
        let sibling = |value: &[u8]| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 };
        let own = sibling(operation.as_bytes());
        let seen = state.map_or_else(|| own.clone(), sibling);
        Highest::merge(b"key", &[seen, own]).map_err(|fault| format!("{fault:?}"))
    }

    fn facts(&self, value: &[u8]) -> Result<Facts, String> {
        let number = str::from_utf8(value).map_err(|error| error.to_string())?;
        Ok([("number".to_owned(), number.to_owned())].into())
    }

    /// The highest of all.
    fn specification(&self, operations: &[&str]) -> Facts {
        let highest = operations.iter().filter_map(|number| number.parse::<u64>().ok()).max();
        highest.map(|number| ("number".to_owned(), number.to_string())).into_iter().collect()
    }

    fn roles(&self) -> Option<Roles> {
        Some(Roles { add: "9".into(), remove: None, other: "10".into() })
    }
}

#[test]
fn every_short_history_ends_with_the_highest_number() {
    let plugin = Native::<Highest>::default();
    check_histories(&plugin, &Raise, HistoryConfig::default(), &mut |_| {}).unwrap_or_else(|wrong| panic!("{wrong}"));
    check_classics(&plugin, &Raise).unwrap_or_else(|wrong| panic!("{wrong}"));
}
