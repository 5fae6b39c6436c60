//! Merges without operations that obey every law. None may be accused.

use std::collections::BTreeMap;

use rejoin_laws::{MergeResult, Rng, Sibling};

use super::{Specimen, all_lines, all_words, bad, digits, joined, number, numbers, set, sixty, text, written};

const fn right(
    name: &'static str,
    sample: fn(u64, u32) -> Vec<u8>,
    merge: fn(&[u8], &[Sibling]) -> MergeResult,
) -> Specimen {
    Specimen { name, merge, sample, intent: None, refuted_by: None }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Specimen> {
    vec![
        right("the largest", sixty, |_, siblings| number(numbers(siblings)?.into_iter().max())),
        right("the smallest", digits, |_, siblings| number(numbers(siblings)?.into_iter().min())),
        right("flags", sixty, |_, siblings| number(numbers(siblings)?.into_iter().reduce(|flags, more| flags | more))),
        right("a union", set, |_, siblings| Ok(joined(all_words(siblings)?))),
        right("the last stamp, then the value", digits, |_, siblings| {
            numbers(siblings)?;
            let last = siblings.iter().max_by_key(|sibling| (sibling.stamp_ms, &sibling.value));
            last.map(|sibling| sibling.value.clone()).ok_or_else(|| "nothing".into())
        }),
        right(
            "the longest text",
            |seed, size| vec![b'a' + (seed % 5) as u8; size as usize],
            |_, siblings| {
                let texts = siblings.iter().map(|sibling| text(&sibling.value)).collect::<Result<Vec<_>, _>>()?;
                let longest = texts.into_iter().max_by_key(|text| (text.len(), *text));
                longest.map(|text| text.as_bytes().to_vec()).ok_or_else(|| "nothing".into())
            },
        ),
        right("the span of all numbers", spans, |_, siblings| {
            let mut span: Option<(u64, u64)> = None;
            for sibling in siblings {
                let Some((low, high)) = text(&sibling.value)?.split_once("..") else { return bad() };
                let (Ok(low), Ok(high)) = (low.parse::<u64>(), high.parse::<u64>()) else { return bad() };
                let canonical = format!("{low}..{high}").as_bytes() == sibling.value;
                if !canonical || low > high {
                    return bad();
                }
                span = Some(span.map_or((low, high), |(least, most)| (least.min(low), most.max(high))));
            }
            span.map(|(low, high)| format!("{low}..{high}").into_bytes()).ok_or_else(|| "nothing".into())
        }),
        right("the three best scores", boards, |_, siblings| {
            let mut best: BTreeMap<String, u64> = BTreeMap::new();
            for (name, score) in all_lines(siblings)?.into_iter().flatten() {
                let Ok(number) = score.parse::<u64>() else { return bad() };
                if number.to_string() != score {
                    return bad();
                }
                let kept = best.entry(name).or_default();
                *kept = (*kept).max(number);
            }
            let mut rows: Vec<(String, u64)> = best.into_iter().collect();
            rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            rows.truncate(3);
            Ok(written(&rows.into_iter().map(|(name, score)| (name, score.to_string())).collect()))
        }),
    ]
}

fn spans(seed: u64, _size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let low = rng.below(9);
    format!("{low}..{}", low + rng.below(5)).into_bytes()
}

fn boards(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let row = |_| (format!("p{}", rng.below(4 + u64::from(size))), rng.below(6).to_string());
    written(&(0..size).map(row).collect())
}
