//! Garbage: what a merge meets when a client is broken, hostile, or of another version.

use crate::merge::Sampler;
use crate::rng::Rng;

/// What parsers stumble over: nothing, other types, broken UTF-8, lengths that promise too much, numbers without end.
const NASTY: [&[u8]; 12] =
    [b"", b"\0", b"null", b"0", b"-1", b"1e999", b"[]", b"{}", b"\"", b"\xff\xfe\x00", &[0xff; 16], b"{\"a\":1,\"a\":2}"];
/// Deep enough to overflow the stack of a parser that follows brackets by calling itself.
const DEEP: usize = 50_000;

/// The value after an accident; the same seed, the same accident.
#[must_use]
pub fn damaged(value: &[u8], seed: u64) -> Vec<u8> {
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

/// Values for a merge without a sampler: short texts, numbers, JSON and bytes. Nobody vouches that they are valid.
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

    fn vouches(&self) -> bool {
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
    fn raw_values_differ_and_grow_with_their_size() {
        let draw = |size| (0..40).map(|seed| RawBytes.sample(seed, size).expect("it always has one")).collect::<BTreeSet<_>>();
        assert!(draw(9).len() > 20);
        assert!(draw(1_000).iter().any(|value| value.len() >= 1_000));
        assert!(!RawBytes.vouches());
    }
}
