//! Merges that break a law, each by one mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use rejoin_laws::{Law, MergeError, MergeResult, Rng, Sibling};

use super::Refutation::{self, Sampler};
use super::{Specimen, all_lines, all_words, bad, digits, joined, number, numbers, set, sixty, text, written};

const fn broken(
    name: &'static str,
    law: Law,
    sample: fn(u64, u32) -> Vec<u8>,
    merge: fn(&[u8], &[Sibling]) -> MergeResult,
) -> Specimen {
    Specimen { name, merge, sample, intent: None, refuted_by: Some(Refutation::Law(law)) }
}

fn value(sibling: Option<&Sibling>) -> MergeResult {
    sibling.map(|sibling| sibling.value.clone()).ok_or_else(|| "nothing".into())
}

/// Those that arithmetic or the order of siblings betrays: any property test finds them.
#[must_use]
pub fn plain() -> Vec<Specimen> {
    vec![
        broken("the average", Law::Bracketing, digits, |_, siblings| {
            let all = numbers(siblings)?;
            number(Some(all.iter().sum::<u64>() / all.len() as u64))
        }),
        broken("the sum", Law::Idempotence, digits, |_, siblings| {
            number(Some(numbers(siblings)?.into_iter().fold(0, u64::saturating_add)))
        }),
        broken("a version that every merge raises", Law::Idempotence, digits, |_, siblings| {
            number(numbers(siblings)?.into_iter().max().map(|highest| highest.saturating_add(1)))
        }),
        broken("the median", Law::Bracketing, digits, |_, siblings| {
            let mut all = numbers(siblings)?;
            all.sort_unstable();
            number(all.get(all.len() / 2).copied())
        }),
        broken("the majority", Law::Bracketing, digits, |_, siblings| {
            let mut votes: BTreeMap<u64, u32> = BTreeMap::new();
            numbers(siblings)?.into_iter().for_each(|vote| *votes.entry(vote).or_default() += 1);
            number(votes.into_iter().max_by_key(|(vote, count)| (*count, *vote)).map(|(vote, _)| vote))
        }),
        broken("the largest of two, the smallest of more", Law::Bracketing, digits, |_, siblings| {
            let all = numbers(siblings)?;
            number(if all.len() == 2 { all.into_iter().max() } else { all.into_iter().min() })
        }),
        broken("the first in line", Law::Permutation, digits, |_, siblings| {
            numbers(siblings)?;
            value(siblings.first())
        }),
        broken("the last in line", Law::Permutation, digits, |_, siblings| {
            numbers(siblings)?;
            value(siblings.last())
        }),
        broken("the last stamp, then the first in line", Law::Permutation, digits, |_, siblings| {
            numbers(siblings)?;
            value(siblings.iter().rev().max_by_key(|sibling| sibling.stamp_ms))
        }),
        broken("a score whose name does not count", Law::Permutation, scores, |_, siblings| {
            let mut best: Option<(u64, &Sibling)> = None;
            for sibling in siblings {
                let Some((score, _)) = text(&sibling.value)?.split_once(':') else { return bad() };
                let Ok(score) = score.parse() else { return bad() };
                if best.is_none_or(|(highest, _)| score > highest) {
                    best = Some((score, sibling));
                }
            }
            value(best.map(|(_, sibling)| sibling))
        }),
        broken("numbers of which one is none", Law::Permutation, fractions, |_, siblings| {
            let mut best: Option<(f64, &Sibling)> = None;
            for sibling in siblings {
                let Ok(fraction) = text(&sibling.value)?.parse::<f64>() else { return bad() };
                if best.is_none_or(|(highest, _)| fraction > highest) {
                    best = Some((fraction, sibling));
                }
            }
            value(best.map(|(_, sibling)| sibling))
        }),
        broken("names without regard to case", Law::Permutation, names, |_, siblings| {
            let mut seen = BTreeSet::new();
            Ok(joined(all_words(siblings)?.into_iter().filter(|name| seen.insert(name.to_ascii_lowercase()))))
        }),
        broken("names with one beginning are one", Law::Permutation, names, |_, siblings| {
            let mut seen = BTreeSet::new();
            Ok(joined(
                all_words(siblings)?.into_iter().filter(|name| seen.insert(name.get(..2).unwrap_or(name).to_owned())),
            ))
        }),
        broken("a checksum of the siblings as they come", Law::Permutation, digits_with_sum, |_, siblings| {
            let (mut sum, mut highest) = (7_u32, 0);
            for sibling in siblings {
                let Some((digit, _)) = text(&sibling.value)?.split_once('#') else { return bad() };
                let Ok(digit) = digit.parse::<u32>() else { return bad() };
                sum = sum.wrapping_mul(31).wrapping_add(digit);
                highest = highest.max(digit);
            }
            Ok(format!("{highest}#{sum}").into_bytes())
        }),
        broken("the time of day", Law::Bracketing, digits, |_, siblings| {
            numbers(siblings)?;
            value(siblings.iter().max_by_key(|sibling| (sibling.stamp_ms % 86_400_000, &sibling.value)))
        }),
        broken("the writer decides", Law::Bracketing, digits, |_, siblings| {
            numbers(siblings)?;
            value(siblings.iter().max_by_key(|sibling| (sibling.stamp_ms, sibling.writer, &sibling.value)))
        }),
        broken("fields of the last whole record", Law::Bracketing, records, |_, siblings| {
            let mut fields: BTreeMap<String, (u64, String)> = BTreeMap::new();
            for (record, sibling) in all_lines(siblings)?.into_iter().zip(siblings) {
                for (name, content) in record {
                    let new = (sibling.stamp_ms, content);
                    let kept = fields.entry(name).or_insert_with(|| new.clone());
                    *kept = new.max(kept.clone());
                }
            }
            Ok(written(&fields.into_iter().map(|(name, (_, content))| (name, content)).collect()))
        }),
        broken("one after the other", Law::Idempotence, digits, |_, siblings| {
            let all: Vec<&str> = siblings.iter().map(|sibling| text(&sibling.value)).collect::<Result<_, _>>()?;
            let good = all.iter().all(|text| text.split('+').all(|part| part.parse::<u64>().is_ok()));
            if good { Ok(all.join("+").into_bytes()) } else { bad() }
        }),
        broken("a page about the conflict", Law::Growth, digits, |_, siblings| {
            let all: BTreeSet<&str> = siblings.iter().map(|sibling| text(&sibling.value)).collect::<Result<_, _>>()?;
            let page = "they differ; ".repeat(40);
            match all.first() {
                Some(only) if all.len() == 1 => Ok(only.as_bytes().to_vec()),
                _ => Ok(page.into_bytes()),
            }
        }),
        broken("a division by the time between", Law::Totality, digits, |_, siblings| {
            let [first, .., last] = siblings else { return bad() };
            let apart = last.stamp_ms.abs_diff(first.stamp_ms);
            100_u64.checked_div(apart).ok_or_else(|| MergeError::Trapped("division by zero".into()))?;
            number(numbers(siblings)?.into_iter().max())
        }),
        broken("the first byte of the key", Law::Totality, digits, |key, siblings| {
            key.first().ok_or_else(|| MergeError::Trapped("index out of bounds".into()))?;
            number(numbers(siblings)?.into_iter().max())
        }),
        broken("what the call before has left", Law::Replay, digits, |_, siblings| {
            static CALLS: AtomicU64 = AtomicU64::new(0);
            let calls = CALLS.fetch_add(1, Ordering::Relaxed);
            number(numbers(siblings)?.into_iter().max().map(|highest| highest + calls % 2))
        }),
        Specimen {
            refuted_by: Some(Sampler),
            ..broken(
                "a sampler with one value",
                Law::Totality,
                |_, _| b"7".to_vec(),
                |_, siblings| value(siblings.first()),
            )
        },
    ]
}

/// Those that pass random cases of a few small values.
#[must_use]
pub fn hidden() -> Vec<Specimen> {
    vec![
        broken("the sixth sibling", Law::Permutation, set, |_, siblings| {
            all_words(siblings)?;
            Ok(joined(all_words(&siblings[..siblings.len().min(5)])?))
        }),
        broken("room for twenty siblings", Law::Permutation, set, |_, siblings| {
            all_words(siblings)?;
            Ok(joined(all_words(&siblings[..siblings.len().min(20)])?))
        }),
        broken("the first four hundred bytes", Law::Absorption, set, |_, siblings| {
            let mut all = joined(all_words(siblings)?);
            all.truncate(400);
            Ok(all.strip_suffix(b",").unwrap_or(&all).to_vec())
        }),
        broken("the first forty words as they come", Law::Permutation, set, |_, siblings| {
            let mut kept = BTreeSet::new();
            all_words(siblings)?.into_iter().for_each(|word| {
                if kept.len() < 40 {
                    kept.insert(word);
                }
            });
            Ok(joined(kept))
        }),
        broken("lengths of one byte", Law::Totality, counted::<1>, |_, siblings| longest::<1>(siblings)),
        broken("lengths of two bytes", Law::Totality, counted::<2>, |_, siblings| longest::<2>(siblings)),
        broken(
            "a rule for two values that loses a third",
            Law::Bracketing,
            |seed, _| format!("n{}", seed % 60).into_bytes(),
            |_, siblings| {
                let all = all_words(siblings)?;
                let whole = |word: &str| siblings.iter().any(|sibling| sibling.value == word.as_bytes());
                let loses = whole("n32") && whole("n35");
                Ok(joined(all.into_iter().filter(|word| !(loses && *word == "n37"))))
            },
        ),
        broken("three values that beat each other", Law::Bracketing, sixty, |_, siblings| {
            let mut all = numbers(siblings)?;
            all.sort_unstable();
            // Of 37, 38 and 39 each is above the one before, and 37 above 39.
            let above = |one: u64, other: u64| if (one, other) == (37, 39) { one } else { one.max(other) };
            number(all.into_iter().reduce(above))
        }),
        broken("text that is no number is passed over", Law::Totality, digits, |_, siblings| {
            let all = siblings.iter().map(|sibling| text(&sibling.value)).collect::<Result<Vec<_>, _>>()?;
            number(Some(all.into_iter().filter_map(|text| text.parse().ok()).max().unwrap_or(0)))
        }),
        broken("what is no number is nought", Law::Totality, digits, |_, siblings| {
            let value = |sibling: &Sibling| text(&sibling.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            number(siblings.iter().map(value).max())
        }),
        broken(
            "unknown members of a map",
            Law::Totality,
            |seed, _| cbor(seed % 12),
            |_, siblings| {
                let all = siblings.iter().map(|sibling| read_cbor(&sibling.value)).collect::<Option<Vec<_>>>();
                let highest = all.and_then(|all| all.into_iter().max());
                highest.map(cbor).ok_or_else(|| "malformed".into())
            },
        ),
    ]
}

fn scores(seed: u64, _size: u32) -> Vec<u8> {
    format!("{}:p{}", seed % 4, seed % 7).into_bytes()
}

fn fractions(seed: u64, _size: u32) -> Vec<u8> {
    if seed % 9 == 8 { b"NaN".to_vec() } else { format!("{}.5", seed % 9).into_bytes() }
}

/// Short names of large and small letters.
fn names(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut name = || (0..4).filter_map(|_| rng.pick(b"aAbB").map(|letter| char::from(*letter))).collect::<String>();
    let names: Vec<String> = (0..size).map(|_| name()).collect();
    joined(names.iter().map(String::as_str))
}

fn digits_with_sum(seed: u64, _size: u32) -> Vec<u8> {
    format!("{}#0", seed % 9).into_bytes()
}

fn records(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let field = |_| (format!("f{}", rng.below(3)), rng.below(4).to_string());
    written(&(0..size.min(3)).map(field).collect())
}

/// Letters after their number, in so many bytes.
fn with_length<const BYTES: usize>(letters: &[u8]) -> Vec<u8> {
    [&letters.len().to_be_bytes()[8 - BYTES..], letters].concat()
}

fn counted<const BYTES: usize>(seed: u64, size: u32) -> Vec<u8> {
    with_length::<BYTES>(&vec![b'a' + (seed % 5) as u8; size as usize])
}

/// The longest letters, and of those the last in the alphabet.
fn longest<const BYTES: usize>(siblings: &[Sibling]) -> MergeResult {
    let mut longest: &[u8] = b"";
    for sibling in siblings {
        let Some((length, letters)) = sibling.value.split_at_checked(BYTES) else { return bad() };
        if length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)) != letters.len() {
            return bad();
        }
        longest = longest.max_by_length(letters);
    }
    Ok(with_length::<BYTES>(longest))
}

trait Longer<'a> {
    fn max_by_length(self, other: &'a [u8]) -> &'a [u8];
}

impl<'a> Longer<'a> for &'a [u8] {
    fn max_by_length(self, other: &'a [u8]) -> &'a [u8] {
        std::cmp::max_by_key(self, other, |letters| (letters.len(), *letters))
    }
}

/// The CBOR map {"n": number}, of a number below 24.
fn cbor(number: u64) -> Vec<u8> {
    vec![0xa1, 0x61, b'n', (number % 24) as u8]
}

/// The member "n" of a CBOR map. Others are passed over.
fn read_cbor(value: &[u8]) -> Option<u64> {
    let (head, mut rest) = value.split_first().filter(|(head, _)| (0xa0..0xb8).contains(*head))?;
    let mut found = None;
    for _ in 0xa0..*head {
        let length = usize::from(rest.first()?.checked_sub(0x60).filter(|length| *length < 24)?);
        let (name, after) = rest[1..].split_at_checked(length)?;
        let length = length_of(after)?;
        if name == b"n" {
            found = after.first().filter(|byte| **byte < 24).map(|byte| u64::from(*byte));
        }
        rest = after.get(length..)?;
    }
    found.filter(|_| rest.is_empty())
}

/// The bytes of a CBOR item of short lengths.
fn length_of(item: &[u8]) -> Option<usize> {
    let first = *item.first()?;
    let (major, count) = (first >> 5, usize::from(first & 31));
    if count >= 24 {
        return None;
    }
    let items = match major {
        2 | 3 => return (item.len() > count).then_some(1 + count),
        4 => count,
        5 => 2 * count,
        _ => 0,
    };
    (0..items).try_fold(1, |at, _| Some(at + length_of(item.get(at..)?)?))
}
