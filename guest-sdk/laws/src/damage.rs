//! Damaged values, as a broken, hostile or newer client writes them.

use crate::cbor;
use crate::merge::Sampler;
use crate::rng::Rng;

/// Inputs that break careless parsers: empty, of other types, broken UTF-8, huge lengths, numbers out of range.
const NASTY: [&[u8]; 12] = [
    b"",
    b"\0",
    b"null",
    b"0",
    b"-1",
    b"1e999",
    b"[]",
    b"{}",
    b"\"",
    b"\xff\xfe\x00",
    &[0xff; 16],
    b"{\"a\":1,\"a\":2}",
];
/// Nested brackets, enough to overflow the stack of a recursive parser.
const DEEP: usize = 50_000;

/// Bytes that no format reads: no UTF-8, and of lengths that no array of machine words has.
const UNREADABLE: [&[u8]; 3] =
    [b"\xff\xfe\x80", b"\x80{\"\xc1:\xff", b"\xf8\x88\x80\x80\x80\xfe\xff\xc0\xaf\xf5\xee\xff\x81"];
/// Texts of UTF-8 that no format reads. They differ in their letters, so that a merge which cleans texts up makes
/// different values of them.
const NO_FORMAT: [&[u8]; 3] = [b"{\"q\":]", b"[7,,zx", b"<w>&y{k"];
/// Damage from this seed on replaces the value by one of the [`UNREADABLE`] texts.
pub(crate) const TO_UNREADABLE: u64 = 1 << 40;
/// Damage from this seed on adds the member [`UNKNOWN`] to the value's first JSON object or CBOR map, its second, and
/// so on.
pub(crate) const TO_UNKNOWN: u64 = 1 << 41;
/// Damage from this seed on changes one byte of the value: [`BYTE_CHANGES`] seeds for its last byte, as many for the
/// middle one and the first.
pub(crate) const TO_CHANGED: u64 = 1 << 42;
/// Damage from this seed on replaces the value by one of the texts of [`NO_FORMAT`].
pub(crate) const TO_NO_FORMAT: u64 = 1 << 43;
/// Changes of one byte.
pub(crate) const BYTE_CHANGES: u64 = 3;
/// The name of a member that no plugin knows. Its content fits no type but a value of JSON or CBOR.
pub(crate) const UNKNOWN: &str = "rejoin-unknown";

/// The number of texts of each kind that cannot be read.
pub(crate) fn unreadable_texts() -> u64 {
    UNREADABLE.len() as u64
}

/// Whether a value is one of the texts that cannot be read, of either kind.
pub(crate) fn is_unreadable(value: &[u8]) -> bool {
    UNREADABLE.contains(&value) || NO_FORMAT.contains(&value)
}

/// Whether a value has the unknown member.
pub(crate) fn has_unknown(value: &[u8]) -> bool {
    value.windows(UNKNOWN.len()).any(|part| part == UNKNOWN.as_bytes())
}

/// The value with one more byte changed: the last, the middle or the first one. The change keeps most ASCII characters
/// printable, and digits digits.
fn with_changed_byte(value: &[u8], nth: u64) -> Vec<u8> {
    let mut bytes = value.to_vec();
    let at = match nth / BYTE_CHANGES {
        0 => value.len().checked_sub(1),
        1 => Some(value.len() / 2),
        _ => Some(0),
    };
    if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1 + (nth % BYTE_CHANGES).to_le_bytes()[0];
    }
    bytes
}

/// The value with one more member in its `nth` JSON object, from 0; unchanged if it has no such object.
fn with_unknown(value: &[u8], nth: u64) -> Vec<u8> {
    let (mut in_text, mut escaped, mut objects) = (false, false, 0);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' if !in_text && objects == nth => {
                let (head, rest) = value.split_at(at + 1);
                let empty = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
                let member = format!("\"{UNKNOWN}\":{{\"a\":[null]}}{}", if empty { "" } else { "," });
                return [head, member.as_bytes(), rest].concat();
            }
            b'{' if !in_text => objects += 1,
            _ => {}
        }
    }
    value.to_vec()
}

/// One of the texts.
fn nth_of(texts: &[&[u8]], nth: u64) -> Vec<u8> {
    let text = usize::try_from(nth).ok().and_then(|nth| texts.get(nth));
    text.map(|text| text.to_vec()).unwrap_or_default()
}

/// The damaged value. The same seed gives the same damage.
pub(crate) fn damaged(value: &[u8], seed: u64) -> Vec<u8> {
    if let Some(nth) = seed.checked_sub(TO_NO_FORMAT) {
        return nth_of(&NO_FORMAT, nth);
    }
    if let Some(nth) = seed.checked_sub(TO_CHANGED) {
        return with_changed_byte(value, nth);
    }
    if let Some(nth) = seed.checked_sub(TO_UNKNOWN) {
        return cbor::with_member(value, nth, UNKNOWN).unwrap_or_else(|| with_unknown(value, nth));
    }
    if let Some(nth) = seed.checked_sub(TO_UNREADABLE) {
        return nth_of(&UNREADABLE, nth);
    }
    let mut rng = Rng::new(seed);
    let mut bytes = value.to_vec();
    let at = usize::try_from(rng.below(value.len() as u64 + 1)).unwrap_or(0);
    match rng.below(8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random_byte(&mut rng)),
        2 | 3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        4 => bytes.extend_from_within(at..),
        5 => bytes = rng.pick(b"[{\xff\0").map(|byte| vec![*byte; DEEP]).unwrap_or_default(),
        6 => bytes = (0..rng.below(40)).map(|_| random_byte(&mut rng)).collect(),
        _ => bytes = rng.pick(&NASTY).map(|nasty| nasty.to_vec()).unwrap_or_default(),
    }
    bytes
}

fn random_byte(rng: &mut Rng) -> u8 {
    rng.next_u64().to_le_bytes()[0]
}

/// Values for a merge without a sampler: short texts, numbers, JSON and bytes. They may be invalid.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawBytes;

impl Sampler for RawBytes {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        let mut rng = Rng::new(seed);
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let kind = rng.below(5);
        let small = rng.below(u64::from(size) + 2);
        Ok(match kind {
            0 => small.to_string().into_bytes(),
            1 => format!("\"{}\"", "abc".repeat(length).get(..length).unwrap_or_default()).into_bytes(),
            2 => format!("[{}]", vec![small.to_string(); length].join(",")).into_bytes(),
            3 => format!("{{\"a\":{small}}}").into_bytes(),
            _ => (0..length).map(|_| random_byte(&mut rng)).collect(),
        })
    }

    fn draws_valid_values(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn accidents_are_of_many_kinds_and_can_be_repeated() {
        let value = b"{\"a\":[1,2,3]}";
        let all: BTreeSet<Vec<u8>> = (0..500).map(|seed| damaged(value, seed)).collect();
        assert!(all.len() > 100, "only {} different ones", all.len());
        assert!(all.contains(&b""[..]) && all.iter().any(|bytes| bytes.len() == DEEP));
        assert_eq!(damaged(value, 7), damaged(value, 7));
        assert!((0..500).all(|seed| damaged(b"", seed).len() <= DEEP), "nothing can be damaged as well");
    }

    #[test]
    fn one_byte_is_changed_at_each_place() {
        let changed = |nth| String::from_utf8(damaged(b"12345", TO_CHANGED + nth)).expect("text");
        assert_eq!([0, 1, 2, 3, 8].map(changed), ["12344", "12347", "12346", "12245", "22345"]);
        assert_eq!(damaged(b"", TO_CHANGED), b"");
    }

    #[test]
    fn a_member_is_added_to_each_object_and_to_no_text() {
        let value = br#"{"a{":{"\"{":1},"b":[{}]}"#;
        let added = |nth| String::from_utf8(damaged(value, TO_UNKNOWN + nth)).expect("text");
        let member = r#""rejoin-unknown":{"a":[null]}"#;
        assert_eq!(added(0), format!(r#"{{{member},"a{{":{{"\"{{":1}},"b":[{{}}]}}"#));
        assert_eq!(added(1), format!(r#"{{"a{{":{{{member},"\"{{":1}},"b":[{{}}]}}"#));
        assert_eq!(added(2), format!(r#"{{"a{{":{{"\"{{":1}},"b":[{{{member}}}]}}"#));
        assert_eq!(added(3).as_bytes(), value);
        assert!((0..3).all(|nth| has_unknown(added(nth).as_bytes())) && !has_unknown(value));
    }

    #[test]
    fn unreadable_texts_differ_and_are_no_text() {
        let all: BTreeSet<Vec<u8>> = (0..unreadable_texts()).map(|nth| damaged(b"7", TO_UNREADABLE + nth)).collect();
        assert!(
            all.len() == 3
                && all.iter().all(|text| is_unreadable(text) && str::from_utf8(text).is_err() && text.len() % 4 != 0)
        );
        let texts: BTreeSet<Vec<u8>> = (0..unreadable_texts()).map(|nth| damaged(b"7", TO_NO_FORMAT + nth)).collect();
        assert!(texts.len() == 3 && texts.iter().all(|text| is_unreadable(text) && str::from_utf8(text).is_ok()));
    }

    #[test]
    fn a_member_is_added_to_cbor_as_well() {
        let added = damaged(b"\xa1\x61k\x01", TO_UNKNOWN);
        assert!(added.starts_with(b"\xa2\x6erejoin-unknown") && added.ends_with(b"\x61k\x01"), "{added:02x?}");
    }

    #[test]
    fn raw_values_differ_and_grow_with_their_size() {
        let draw =
            |size| (0..40).map(|seed| RawBytes.sample(seed, size).expect("it always has one")).collect::<BTreeSet<_>>();
        assert!(draw(9).len() > 20);
        assert!(draw(1_000).iter().any(|value| value.len() >= 1_000));
        assert!(!RawBytes.draws_valid_values());
    }
}
