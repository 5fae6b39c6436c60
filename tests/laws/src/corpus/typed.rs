//! Data types with operations, right and wrong. Most of the wrong ones obey every law: only histories refute them.

use std::collections::{BTreeMap, BTreeSet};

use rejoin_laws::{
    DeclaredIntent, Edit, Facts, Intent, MergeError, MergeResult, OperationDot, Rng, Roles, Sibling, Specification,
};

use super::{
    Lines, Refutation, Specimen, all_lines, all_words, bad, digits, joined, lines, number, numbers, set, text, words,
    written,
};

/// How a data type carries out an edit.
type Apply = fn(Option<&[u8]>, &Edit, OperationDot) -> Result<Vec<u8>, MergeError>;

/// A data type of a well-known specification.
struct Declared {
    intent: DeclaredIntent,
    apply: Apply,
    facts: fn(&[u8]) -> Result<Facts, MergeError>,
}

impl Intent for Declared {
    fn operations(&self) -> Vec<String> {
        self.intent.operations()
    }

    fn apply(&self, state: Option<&[u8]>, operation: &str, dot: OperationDot) -> Result<Vec<u8>, String> {
        let edit = self.intent.edits.get(operation).ok_or("no such operation")?;
        (self.apply)(state, edit, dot).map_err(|why| why.to_string())
    }

    fn facts(&self, value: &[u8]) -> Result<Facts, String> {
        (self.facts)(value).map_err(|why| why.to_string())
    }

    fn specification(&self, operations: &[&str]) -> Facts {
        self.intent.after(operations)
    }

    fn roles(&self) -> Option<Roles> {
        self.intent.roles()
    }
}

fn declared(
    specification: Specification,
    apply: Apply,
    facts: fn(&[u8]) -> Result<Facts, MergeError>,
) -> Box<dyn Intent> {
    let add = |name: &str| Edit::Add { name: name.into(), amount: 1 };
    let put = |name: &str, to: &str| Edit::Set { name: name.into(), to: to.into() };
    let remove = |name: &str| Edit::Remove { name: name.into() };
    let edits = match specification {
        Specification::Maximum => vec![("9", put("", "9")), ("10", put("", "10"))],
        Specification::Map => vec![
            ("set x", put("x", "1")),
            ("set x again", put("x", "2")),
            ("drop x", remove("x")),
            ("set y", put("y", "1")),
        ],
        // Of one counter nothing is removed.
        Specification::Counts => vec![("add x", add("x")), ("add y", add("y"))],
        _ => vec![("add x", add("x")), ("drop x", remove("x")), ("add y", add("y"))],
    };
    let edits = edits.into_iter().map(|(name, edit)| (name.to_owned(), edit)).collect();
    Box::new(Declared { intent: DeclaredIntent { specification, edits }, apply, facts })
}

const fn wrong(
    name: &'static str,
    sample: fn(u64, u32) -> Vec<u8>,
    merge: fn(&[u8], &[Sibling]) -> MergeResult,
    intent: fn() -> Box<dyn Intent>,
) -> Specimen {
    Specimen { name, merge, sample, intent: Some(intent), refuted_by: Some(Refutation::History) }
}

const fn right(
    name: &'static str,
    sample: fn(u64, u32) -> Vec<u8>,
    merge: fn(&[u8], &[Sibling]) -> MergeResult,
    intent: fn() -> Box<dyn Intent>,
) -> Specimen {
    Specimen { name, merge, sample, intent: Some(intent), refuted_by: None }
}

/// Those that lose or bring back what somebody wrote.
#[must_use]
pub fn broken() -> Vec<Specimen> {
    vec![
        wrong("a union brings back", set, |_, siblings| Ok(joined(all_words(siblings)?)), plain_set),
        wrong(
            "the last set wins as a whole",
            set,
            |_, siblings| {
                all_words(siblings)?;
                let last = siblings.iter().max_by_key(|sibling| (sibling.stamp_ms, &sibling.value));
                last.map(|sibling| sibling.value.clone()).ok_or_else(|| "nothing".into())
            },
            plain_set,
        ),
        wrong(
            "a maximum of text",
            digits,
            |_, siblings| {
                numbers(siblings)?;
                siblings.iter().map(|sibling| sibling.value.clone()).max().ok_or_else(|| "nothing".into())
            },
            maximum,
        ),
        wrong(
            "a counter by its maximum",
            counts_sample,
            |_, siblings| merge_largest(siblings),
            || {
                declared(
                    Specification::Counts,
                    |state, edit, _| {
                        let mut all = state.map_or_else(|| Ok(Lines::new()), lines)?;
                        let Edit::Add { name, amount } = edit else { return bad() };
                        let count = all.entry(name.clone()).or_default();
                        *count = format!("{:04}", count.parse::<u64>().unwrap_or(0) + amount);
                        Ok(written(&all))
                    },
                    |value| {
                        let number = |count: &str| count.parse::<u64>().unwrap_or(0).to_string();
                        Ok(lines(value)?.into_iter().map(|(name, count)| (name, number(&count))).collect())
                    },
                )
            },
        ),
        wrong(
            "a total that nobody counts again",
            with_totals,
            |_, siblings| {
                let mut all: BTreeSet<&str> = BTreeSet::new();
                let mut most = 0;
                for sibling in siblings {
                    let Some((parts, total)) = text(&sibling.value)?.split_once('|') else { return bad() };
                    let Ok(total) = total.parse::<u64>() else { return bad() };
                    all.extend(words(parts.as_bytes())?);
                    most = most.max(total);
                }
                Ok([joined(all), format!("|{most}").into_bytes()].concat())
            },
            || Box::new(Totals),
        ),
        wrong(
            "a removal is for ever",
            two_phases_sample,
            |_, siblings| Ok(written(&all_lines(siblings)?.into_iter().flatten().collect())),
            || {
                declared(
                    Specification::Set,
                    |state, edit, _| {
                        let mut all = state.map_or_else(|| Ok(Lines::new()), lines)?;
                        match edit {
                            Edit::Add { name, .. } => all.insert(format!("added {name}"), String::new()),
                            Edit::Remove { name } if all.contains_key(&format!("added {name}")) => {
                                all.insert(format!("removed {name}"), String::new())
                            }
                            _ => None,
                        };
                        Ok(written(&all))
                    },
                    |value| {
                        let all = lines(value)?;
                        let names = all.keys().filter_map(|line| line.strip_prefix("added "));
                        Ok(names
                            .filter(|name| !all.contains_key(&format!("removed {name}")))
                            .map(|name| (name.to_owned(), String::new()))
                            .collect())
                    },
                )
            },
        ),
        wrong(
            "one tag for a name",
            tags_sample,
            |_, siblings| merge_largest(siblings),
            || {
                declared(
                    Specification::Set,
                    |state, edit, dot| {
                        let mut all = state.map_or_else(|| Ok(Lines::new()), lines)?;
                        match edit {
                            Edit::Add { name, .. } => {
                                all.insert(format!("added {name}"), format!("{:04}", dot.counter))
                            }
                            Edit::Remove { name } => all
                                .get(&format!("added {name}"))
                                .cloned()
                                .and_then(|tag| all.insert(format!("removed {name}"), tag)),
                            _ => None,
                        };
                        Ok(written(&all))
                    },
                    |value| {
                        let all = lines(value)?;
                        let is_there = |(line, tag): (&String, &String)| {
                            let name = line.strip_prefix("added ")?;
                            let removed = all.get(&format!("removed {name}"));
                            removed.is_none_or(|removed| removed < tag).then(|| (name.to_owned(), String::new()))
                        };
                        Ok(all.iter().filter_map(is_there).collect())
                    },
                )
            },
        ),
        wrong(
            "a map that forgets removals",
            stamped_sample,
            |_, siblings| merge_largest(siblings),
            || declared(Specification::Map, |state, edit, dot| stamped(state, edit, dot, false), stamped_facts),
        ),
        wrong(
            "the last record wins as a whole",
            stamped_sample,
            |_, siblings| {
                let all = all_lines(siblings)?;
                let newest = |record: &Lines| record.values().max().cloned();
                let last = all.into_iter().max_by_key(|record| (newest(record), written(record)));
                last.map(|record| written(&record)).ok_or_else(|| "nothing".into())
            },
            || declared(Specification::Map, |state, edit, dot| stamped(state, edit, dot, true), stamped_facts),
        ),
    ]
}

/// Those that keep what everybody meant.
#[must_use]
pub fn sound() -> Vec<Specimen> {
    vec![
        right("a maximum of numbers", digits, |_, siblings| number(numbers(siblings)?.into_iter().max()), maximum),
        right(
            "a counter for each writer",
            counters_sample,
            |_, siblings| {
                let mut slots: BTreeMap<String, u64> = BTreeMap::new();
                for (slot, count) in all_lines(siblings)?.into_iter().flatten() {
                    let Ok(number) = count.parse::<u64>() else { return bad() };
                    if number.to_string() != count {
                        return bad();
                    }
                    let kept = slots.entry(slot).or_default();
                    *kept = (*kept).max(number);
                }
                Ok(written(&slots.into_iter().map(|(slot, count)| (slot, count.to_string())).collect()))
            },
            || {
                declared(
                    Specification::Counts,
                    |state, edit, dot| {
                        let mut all = state.map_or_else(|| Ok(Lines::new()), lines)?;
                        let Edit::Add { name, amount } = edit else { return bad() };
                        let slot = all.entry(format!("{name} {:016x}", dot.actor)).or_default();
                        *slot = (slot.parse::<u64>().unwrap_or(0) + amount).to_string();
                        Ok(written(&all))
                    },
                    |value| {
                        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
                        for (slot, count) in lines(value)? {
                            let name = slot.split(' ').next().unwrap_or_default();
                            *totals.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
                        }
                        Ok(totals.into_iter().map(|(name, total)| (name, total.to_string())).collect())
                    },
                )
            },
        ),
        right(
            "a map that keeps removals",
            stamped_sample,
            |_, siblings| merge_largest(siblings),
            || declared(Specification::Map, |state, edit, dot| stamped(state, edit, dot, true), stamped_facts),
        ),
        right(
            "a set with a clock",
            Observed::sample,
            |_, siblings| {
                let all =
                    siblings.iter().map(|sibling| Observed::parse(&sibling.value)).collect::<Result<Vec<_>, _>>()?;
                Ok(Observed::merge(&all).write())
            },
            || {
                declared(
                    Specification::Set,
                    |state, edit, dot| {
                        let mut set = state.map_or_else(|| Ok(Observed::default()), Observed::parse)?;
                        match edit {
                            Edit::Add { name, .. } => set.add(name, dot),
                            Edit::Remove { name } => set.tags.retain(|(tagged, _, _)| tagged != name),
                            _ => return bad(),
                        }
                        Ok(set.write())
                    },
                    |value| {
                        Ok(Observed::parse(value)?.tags.into_iter().map(|(name, _, _)| (name, String::new())).collect())
                    },
                )
            },
        ),
    ]
}

fn plain_set() -> Box<dyn Intent> {
    declared(
        Specification::Set,
        |state, edit, _| {
            let mut names: BTreeSet<&str> = words(state.unwrap_or_default())?.into_iter().collect();
            match edit {
                Edit::Add { name, .. } => names.insert(name),
                Edit::Remove { name } => names.remove(name.as_str()),
                _ => return bad(),
            };
            Ok(joined(names))
        },
        |value| Ok(words(value)?.into_iter().map(|name| (name.to_owned(), String::new())).collect()),
    )
}

fn maximum() -> Box<dyn Intent> {
    declared(
        Specification::Maximum,
        |state, edit, _| {
            let Edit::Set { to, .. } = edit else { return bad() };
            let known: u64 = state.map_or(Ok(0), |state| text(state).map(|text| text.parse().unwrap_or(0)))?;
            Ok(known.max(to.parse().unwrap_or(0)).to_string().into_bytes())
        },
        |value| Ok([(String::new(), text(value)?.to_owned())].into()),
    )
}

/// A set with the number of its members.
struct Totals;

fn with_totals(seed: u64, size: u32) -> Vec<u8> {
    let names = set(seed, size);
    let count = words(&names).map_or(0, |names| names.len());
    [names, format!("|{count}").into_bytes()].concat()
}

impl Intent for Totals {
    fn operations(&self) -> Vec<String> {
        ["x", "y"].map(String::from).to_vec()
    }

    fn apply(&self, state: Option<&[u8]>, operation: &str, _dot: OperationDot) -> Result<Vec<u8>, String> {
        let parts = state.and_then(|state| state.split(|byte| *byte == b'|').next()).unwrap_or_default();
        let names: BTreeSet<&str> =
            words(parts).map_err(|why| why.to_string())?.into_iter().chain([operation]).collect();
        let count = names.len();
        Ok([joined(names), format!("|{count}").into_bytes()].concat())
    }

    fn facts(&self, value: &[u8]) -> Result<Facts, String> {
        let total = text(value).ok().and_then(|text| text.split_once('|'));
        total.map(|(_, total)| [("total".to_owned(), total.to_owned())].into()).ok_or("no total".into())
    }

    fn specification(&self, operations: &[&str]) -> Facts {
        let names: BTreeSet<&&str> = operations.iter().collect();
        [("total".to_owned(), names.len().to_string())].into()
    }
}

/// Of each name the largest content.
fn merge_largest(siblings: &[Sibling]) -> MergeResult {
    let mut all = Lines::new();
    for (name, content) in all_lines(siblings)?.into_iter().flatten() {
        let kept = all.entry(name).or_default();
        if content > *kept {
            *kept = content;
        }
    }
    Ok(written(&all))
}

/// Contents after a logical clock and the actor that set them. A removal has a clock, too, if it is kept.
fn stamped(state: Option<&[u8]>, edit: &Edit, dot: OperationDot, keeps_removals: bool) -> Result<Vec<u8>, MergeError> {
    let mut all = state.map_or_else(|| Ok(Lines::new()), lines)?;
    let clock = all.values().filter_map(|content| content.get(..4)?.parse::<u64>().ok()).max().unwrap_or(0) + 1;
    match edit {
        Edit::Set { name, to } => all.insert(name.clone(), format!("{clock:04} {:016x} {to}", dot.actor)),
        Edit::Remove { name } if keeps_removals => all.insert(name.clone(), format!("{clock:04} {:016x}", dot.actor)),
        Edit::Remove { name } => all.remove(name),
        _ => return bad(),
    };
    Ok(written(&all))
}

fn stamped_facts(value: &[u8]) -> Result<Facts, MergeError> {
    let content = |(name, content): (String, String)| Some((name, content.split(' ').nth(2)?.to_owned()));
    Ok(lines(value)?.into_iter().filter_map(content).collect())
}

fn stamped_sample(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut line = |_| {
        let content = if rng.one_in(4) { String::new() } else { format!(" {}", rng.below(3)) };
        (format!("f{}", rng.below(3)), format!("{:04} {:016x}{content}", 1 + rng.below(4), rng.below(3)))
    };
    written(&(0..size.min(4)).map(&mut line).collect())
}

fn two_phases_sample(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let line = |_| (format!("{} n{}", if rng.one_in(3) { "removed" } else { "added" }, rng.below(4)), String::new());
    written(&(0..size).map(line).collect())
}

fn tags_sample(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let line = |_| {
        let what = if rng.one_in(3) { "removed" } else { "added" };
        (format!("{what} n{}", rng.below(4)), format!("{:04}", 1 + rng.below(4)))
    };
    written(&(0..size).map(line).collect())
}

fn counts_sample(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let line = |_| (format!("n{}", rng.below(4)), format!("{:04}", 1 + rng.below(5)));
    written(&(0..size).map(line).collect())
}

fn counters_sample(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let line = |_| (format!("x {:016x}", rng.below(4)), (1 + rng.below(5)).to_string());
    written(&(0..size).map(line).collect())
}

/// A set of tags `(name, actor, counter)`, and a clock of the tags that it has seen.
#[derive(Default)]
struct Observed {
    clock: BTreeMap<u64, u64>,
    tags: BTreeSet<(String, u64, u64)>,
}

impl Observed {
    fn parse(value: &[u8]) -> Result<Self, MergeError> {
        let mut set = Self::default();
        for (line, content) in lines(value)? {
            let parts: Vec<&str> = line.split(' ').collect();
            let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| MergeError::from("malformed"));
            match (parts.as_slice(), content.as_str()) {
                (["clock", actor], counter) => {
                    set.clock.insert(hex(actor)?, hex(counter)?);
                }
                (["tag", name, actor, counter], "") => {
                    set.tags.insert(((*name).to_owned(), hex(actor)?, hex(counter)?));
                }
                _ => return bad(),
            }
        }
        let covered = set.tags.iter().all(|(_, actor, counter)| set.covers(*actor, *counter));
        if covered && set.write() == value { Ok(set) } else { bad() }
    }

    fn covers(&self, actor: u64, counter: u64) -> bool {
        self.clock.get(&actor).is_some_and(|seen| *seen >= counter)
    }

    fn write(&self) -> Vec<u8> {
        let clock = self.clock.iter().map(|(actor, counter)| (format!("clock {actor:016x}"), format!("{counter:04x}")));
        let tags = self
            .tags
            .iter()
            .map(|(name, actor, counter)| (format!("tag {name} {actor:016x} {counter:04x}"), String::new()));
        written(&clock.chain(tags).collect())
    }

    fn add(&mut self, name: &str, dot: OperationDot) {
        self.tags.retain(|(tagged, _, _)| tagged != name);
        self.tags.insert((name.to_owned(), dot.actor, dot.counter));
        self.clock.insert(dot.actor, dot.counter);
    }

    fn merge(all: &[Self]) -> Self {
        let mut merged = Self::default();
        for set in all {
            for (actor, counter) in &set.clock {
                let seen = merged.clock.entry(*actor).or_default();
                *seen = (*seen).max(*counter);
            }
            let stays = |tag: &&(String, u64, u64)| {
                all.iter().all(|other| other.tags.contains(*tag) || !other.covers(tag.1, tag.2))
            };
            merged.tags.extend(set.tags.iter().filter(stays).cloned());
        }
        merged
    }

    /// One history, cut at different places.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let (mut rng, mut set) = (Rng::new(seed), Self::default());
        for actor in 1..=3 {
            for counter in 1..=rng.below(2 + u64::from(size) / 3) {
                let name = Rng::new(counter * 31 + actor).below(3 + u64::from(size) / 8);
                set.clock.insert(actor, counter);
                if !rng.one_in(3) {
                    set.tags.insert((format!("n{name}"), actor, counter));
                }
            }
        }
        set.write()
    }
}
