//! Merges as plugin authors write them after one look at the contract: some are right, and each of the others has a
//! mistake that authors make.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use rejoin_guest::laws::Rng;
use rejoin_guest::{Fault, Merger, Sampler, Sibling};

fn json<T: for<'a> Deserialize<'a>>(sibling: &Sibling) -> Result<T, Fault> {
    serde_json::from_slice(&sibling.value).map_err(|_| Fault::Malformed)
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn numbers(siblings: &[Sibling]) -> Result<Vec<u64>, Fault> {
    siblings
        .iter()
        .map(|sibling| str::from_utf8(&sibling.value).ok()?.parse().ok())
        .collect::<Option<_>>()
        .ok_or(Fault::Malformed)
}

/// A word of a few letters, as long as `size` says and a letter more.
fn word(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..=size).map(|_| b'a' + (rng.below(3) as u8)).collect()
}

fn last_word(siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
    siblings.iter().map(|sibling| sibling.value.clone()).max().ok_or(Fault::Malformed)
}

fn digits(seed: u64) -> Vec<u8> {
    (seed % 12).to_string().into_bytes()
}

/// A set of texts that grows with `size`.
fn set(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    bytes(&(0..size).map(|_| format!("item{}", rng.below(5 + u64::from(size) / 2))).collect::<BTreeSet<String>>())
}

fn board(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let row = |_| (format!("p{}", rng.below(16 + u64::from(size))), rng.below(8));
    bytes(&(0..2 * size).map(row).collect::<BTreeMap<String, u64>>())
}

/// Declares the types, each with its sampler and its merge.
macro_rules! strangers {
    ($($(#[$doc:meta])* $name:ident($seed:ident, $size:ident) $sample:expr, |$siblings:ident| $merge:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;

            impl Sampler for $name {
                fn sample($seed: u64, $size: u32) -> Vec<u8> {
                    $sample
                }
            }

            impl Merger for $name {
                fn merge(_key: &[u8], $siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
                    $merge
                }
            }
        )*
    };
}

strangers! {
    /// Wrong: gives the same for everything, and keeps nothing.
    Constant(seed, _size) digits(seed), |siblings| numbers(siblings).map(|_| b"0".to_vec());
    /// Wrong: empties every value.
    Nothing(seed, size) word(seed, size), |_siblings| Ok(Vec::new());

    /// Wrong: looks at the length of a value only.
    LengthOnly(seed, size) word(seed, size),
    |siblings| Ok(vec![b'x'; siblings.iter().map(|sibling| sibling.value.len()).max().unwrap_or(0)]);

    /// Wrong: keeps the first four bytes of the last word in the dictionary.
    FirstBytes(seed, size) word(seed, size),
    |siblings| last_word(siblings).map(|word| word[..word.len().min(4)].to_vec());

    /// Wrong: keeps a hundred bytes of it. No small value shows it.
    FirstHundred(seed, size) word(seed, size),
    |siblings| last_word(siblings).map(|word| word[..word.len().min(100)].to_vec());

    /// Right: the last word in the dictionary, without the blanks behind it, so that values have several spellings.
    Trimmed(seed, size) [word(seed, size), b" ".repeat((seed % 3) as usize)].concat(),
    |siblings| {
        let words = siblings.iter().map(|sibling| sibling.value.trim_ascii_end());
        words.max().map(<[u8]>::to_vec).ok_or(Fault::Malformed)
    };

    /// Wrong: takes each of two shapes and cannot merge one with the other, so that two accepted writes stop a key for
    /// good.
    TwoShapes(seed, _size) digits(seed), |siblings| {
        let shape = |sibling: &Sibling| sibling.value.iter().all(u8::is_ascii_digit);
        match siblings.iter().map(shape).collect::<BTreeSet<bool>>().len() {
            1 => siblings.iter().map(|sibling| sibling.value.clone()).max().ok_or(Fault::Malformed),
            _ => Err(Fault::Malformed),
        }
    };
    /// Right: the last writer by the stamp, then the value, as the advice of the laws has it.
    LastByValue(seed, _size) digits(seed),
    |siblings| {
        let last = siblings.iter().max_by_key(|s| (s.stamp_ms, s.value.clone()));
        last.map(|s| s.value.clone()).ok_or(Fault::Malformed)
    };

    /// Wrong: the writer decides between equal stamps, and a merged value does not always have the writer of the one
    /// that won.
    LastByWriter(seed, _size) digits(seed),
    |siblings| {
        let last = siblings.iter().max_by_key(|s| (s.stamp_ms, s.writer, s.value.clone()));
        last.map(|s| s.value.clone()).ok_or(Fault::Malformed)
    };

    /// Wrong: the average where the maximum was meant.
    Average(seed, _size) digits(seed),
    |siblings| numbers(siblings).map(|all| (all.iter().sum::<u64>() / all.len() as u64).to_string().into_bytes());

    /// Wrong: a counter as a sum.
    Sum(seed, _size) digits(seed),
    |siblings| Ok(numbers(siblings)?.into_iter().fold(0_u64, u64::saturating_add).to_string().into_bytes());

    /// Wrong: the answer is in the order of a hash map.
    HashOrder(seed, size) board(seed, size / 2),
    |siblings| {
        let mut best: HashMap<String, u64> = HashMap::new();
        for sibling in siblings {
            for (player, score) in json::<HashMap<String, u64>>(sibling)? {
                let kept = best.entry(player).or_default();
                *kept = (*kept).max(score);
            }
        }
        Ok(bytes(&best))
    };

    /// Right: the ten best players, each with the best score; ties by name.
    TopTen(seed, size) board(seed, size),
    |siblings| {
        let mut best: BTreeMap<String, u64> = BTreeMap::new();
        for sibling in siblings {
            for (player, score) in json::<BTreeMap<String, u64>>(sibling)? {
                let kept = best.entry(player).or_default();
                *kept = (*kept).max(score);
            }
        }
        let mut rows: Vec<(String, u64)> = best.into_iter().collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        rows.truncate(10);
        Ok(bytes(&rows.into_iter().collect::<BTreeMap<_, _>>()))
    };

    /// Wrong: written for two sides of a split, it looks at two siblings.
    FirstTwo(seed, size) set(seed, size),
    |siblings| {
        let all = siblings.iter().take(2).map(json::<BTreeSet<String>>).collect::<Result<Vec<_>, _>>()?;
        Ok(bytes(&all.into_iter().flatten().collect::<BTreeSet<_>>()))
    };

    /// Wrong: the sixth sibling is not looked at.
    FirstFive(seed, size) set(seed, size.min(40)),
    |siblings| {
        let all = siblings.iter().take(5).map(json::<BTreeSet<String>>).collect::<Result<Vec<_>, _>>()?;
        Ok(bytes(&all.into_iter().flatten().collect::<BTreeSet<_>>()))
    };

    /// Wrong: it keeps fifty items, those that came first. No small value shows it.
    FirstFifty(seed, size) set(seed, size),
    |siblings| {
        let mut all: BTreeSet<String> = BTreeSet::new();
        for sibling in siblings {
            for item in json::<BTreeSet<String>>(sibling)? {
                if all.len() < 50 {
                    all.insert(item);
                }
            }
        }
        Ok(bytes(&all))
    };

    /// Wrong: what cannot be read is skipped, where a fault would have kept it.
    SkipsBad(seed, size) set(seed, size.min(40)),
    |siblings| Ok(bytes(&siblings.iter().filter_map(|s| json::<BTreeSet<String>>(s).ok()).flatten().collect::<BTreeSet<_>>()));

    /// Wrong: the same, but where nothing can be read it says so.
    SkipsSomeBad(seed, _size) digits(seed),
    |siblings| {
        let readable = siblings.iter().filter_map(|s| numbers(std::slice::from_ref(s)).ok()?.first().copied());
        readable.max().map(|highest| highest.to_string().into_bytes()).ok_or(Fault::Malformed)
    };

    /// Wrong: members that a newer client writes are read over and lost, which is serde's default.
    DropsUnknown(seed, _size) {
        let mut rng = Rng::new(seed);
        bytes(&Profile { stamp: rng.below(4), name: format!("n{}", rng.below(4)) })
    },
    |siblings| {
        let all = siblings.iter().map(json::<Profile>).collect::<Result<Vec<_>, _>>()?;
        all.into_iter().max().map(|latest| bytes(&latest)).ok_or(Fault::Malformed)
    };

    /// Right: the same, and unknown members are refused.
    RefusesUnknown(seed, size) DropsUnknown::sample(seed, size),
    |siblings| {
        let all = siblings.iter().map(json::<StrictProfile>).collect::<Result<Vec<_>, _>>()?;
        all.into_iter().max().map(|latest| bytes(&latest)).ok_or(Fault::Malformed)
    };

    /// Right: an OR-map of registers. A field keeps every dot that nobody has seen removed or replaced.
    Registers(seed, size) Map::sample(seed, size),
    |siblings| Map::merge(&siblings.iter().map(Map::parse).collect::<Result<Vec<_>, _>>()?);

    /// Wrong in its sampler: with one value for everything no law can fail.
    Lazy(_seed, _size) b"7".to_vec(),
    |siblings| Ok(siblings[0].value.clone());
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Profile {
    stamp: u64,
    name: String,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct StrictProfile {
    stamp: u64,
    name: String,
}

/// A clock of all dots that were seen, and of each field the dots that are left with their values.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    clock: BTreeMap<String, u64>,
    fields: BTreeMap<String, BTreeMap<String, String>>,
}

impl Map {
    fn parse(sibling: &Sibling) -> Result<Self, Fault> {
        let map: Self = json(sibling)?;
        let covered = map.fields.values().all(|dots| !dots.is_empty() && dots.keys().all(|dot| map.covers(dot)));
        if covered && map.clock.values().all(|counter| *counter > 0) { Ok(map) } else { Err(Fault::Malformed) }
    }

    fn covers(&self, dot: &str) -> bool {
        let Some((writer, counter)) = dot.split_once(':') else { return false };
        let number = counter.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == counter);
        number.is_some_and(|number| self.clock.get(writer).is_some_and(|seen| *seen >= number))
    }

    fn has(&self, field: &str, dot: &str) -> bool {
        self.fields.get(field).is_some_and(|dots| dots.contains_key(dot))
    }

    fn merge(maps: &[Self]) -> Result<Vec<u8>, Fault> {
        let mut merged = Self::default();
        for map in maps {
            for (writer, counter) in &map.clock {
                let seen = merged.clock.entry(writer.clone()).or_default();
                *seen = (*seen).max(*counter);
            }
            for (field, dots) in &map.fields {
                for (dot, value) in
                    dots.iter().filter(|(dot, _)| maps.iter().all(|other| other.has(field, dot) || !other.covers(dot)))
                {
                    let kept = merged.fields.entry(field.clone()).or_default().entry(dot.clone()).or_default();
                    *kept = value.max(kept).clone();
                }
            }
        }
        Ok(bytes(&merged))
    }

    /// One history, cut at different places, so that a dot is the same everywhere.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let (mut rng, mut map) = (Rng::new(seed), Self::default());
        for writer in ["a", "b", "c"] {
            for counter in 1..=rng.below(2 + u64::from(size) / 3) {
                let mut fixed = Rng::new(counter * 31 + u64::from(writer.as_bytes()[0]));
                let (field, value) =
                    (format!("f{}", fixed.below(3 + u64::from(size) / 8)), format!("v{}", fixed.below(3)));
                map.clock.insert(writer.into(), counter);
                if !rng.one_in(3) {
                    map.fields.entry(field).or_default().insert(format!("{writer}:{counter}"), value);
                }
            }
        }
        bytes(&map)
    }
}
