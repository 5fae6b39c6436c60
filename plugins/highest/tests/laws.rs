//! The laws on the plain functions. `rejoin plugin test` tries them on the component.

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Fault, Merger, Native, Sibling, Validator};
use rejoin_plugin_highest::Highest;

fn merge(values: &[&str]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: (*value).into(), stamp_ms: 0, writer: 0 }).collect();
    Highest::merge(b"key", &siblings)
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Highest>::with_validator();
    check(&plugin, &plugin, CheckConfig::default()).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn the_highest_number_wins_whatever_its_length() {
    assert_eq!(merge(&["9", "10", "2"]), Ok(b"10".to_vec()));
    for bad in ["many", "", "-1", "+9", "09", "9 ", "9.0", "9e0", "18446744073709551616"] {
        assert_eq!(merge(&["9", bad]), Err(Fault::Malformed), "{bad:?}");
        assert_eq!(Highest::validate(b"key", bad.as_bytes()), Err(Fault::Malformed), "{bad:?}");
    }
    assert_eq!(Highest::validate(b"key", b"18446744073709551615"), Ok(()));
}
