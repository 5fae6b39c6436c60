//! A corpus of merges, most of them wrong, to measure the checker itself: each wrong one names what refutes it.
//!
//! [`broken`] has merges that break a law, [`typed`] has data types with operations, most of which obey every law and
//! still lose or bring back what somebody wrote, and [`right`] has merges that must not be accused. The merges of
//! [`strangers`](crate::strangers) belong to it, too.

pub mod broken;
pub mod right;
pub mod typed;

use std::collections::{BTreeMap, BTreeSet};

use rejoin_laws::{
    CheckConfig, ConvergenceConfig, HistoryConfig, Intent, Law, Memoised, Merge, MergeError, MergeResult,
    RememberedSamples, Rng, Sampler, Sibling, Violation, check_classics, check_convergence, check_histories, check_law,
    check_small_scope,
};

/// What refutes a wrong merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refutation {
    /// A law does not hold.
    Law(Law),
    /// Its sampler draws nothing to check.
    Sampler,
    /// It obeys the laws, and a history ends otherwise than its operations mean.
    History,
}

/// A merge with its sampler.
#[derive(Clone, Copy)]
pub struct Specimen {
    /// A short name.
    pub name: &'static str,
    /// The merge.
    pub merge: fn(&[u8], &[Sibling]) -> MergeResult,
    /// The sampler.
    pub sample: fn(u64, u32) -> Vec<u8>,
    /// What its operations mean, if it has any.
    pub intent: Option<fn() -> Box<dyn Intent>>,
    /// What refutes it; `None` if it is right.
    pub refuted_by: Option<Refutation>,
}

impl std::fmt::Debug for Specimen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Specimen({})", self.name)
    }
}

impl Merge for Specimen {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        (self.merge)(key, siblings)
    }
}

impl Sampler for Specimen {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        Ok((self.sample)(seed, size))
    }
}

/// Everything that refutes a merge, with what it says.
#[must_use]
pub fn refutations(
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    intent: Option<&dyn Intent>,
    config: CheckConfig,
) -> Vec<(Refutation, String)> {
    let (merge, sampler) = (&Memoised::new(merge), &RememberedSamples::new(sampler));
    let mut found = Vec::new();
    for law in Law::ALL.into_iter().filter(|law| *law != Law::Limits) {
        if let Err(wrong) = check_law(law, merge, sampler, config) {
            let is_sampler = matches!(wrong.violation, Violation::NoSample { .. });
            found.push((if is_sampler { Refutation::Sampler } else { Refutation::Law(law) }, wrong.to_string()));
        }
    }
    if let Err(wrong) = check_small_scope(merge, sampler, config, &mut |_| {})
        && !found.iter().any(|(known, _)| *known == Refutation::Law(wrong.law))
    {
        found.push((Refutation::Law(wrong.law), wrong.to_string()));
    }
    if config.fixed
        && found.is_empty()
        && let Err(wrong) = check_convergence(merge, sampler, ConvergenceConfig::default())
    {
        found.push((Refutation::History, wrong.to_string()));
    }
    if let Some(intent) = intent {
        // Three operations are enough for all of these; four take a while for so many.
        let short = HistoryConfig { operations: 3, ..HistoryConfig::default() };
        let histories = check_histories(merge, intent, short, &mut |_| {}).map(drop);
        if let Err(wrong) = histories.and_then(|()| check_classics(merge, intent).map(drop)) {
            found.push((Refutation::History, wrong.to_string()));
        }
    }
    found
}

/// A refusal.
pub(crate) fn bad<T>() -> Result<T, MergeError> {
    Err("malformed".into())
}

/// The text of a value, if it is small printable ASCII.
pub(crate) fn text(value: &[u8]) -> Result<&str, MergeError> {
    str::from_utf8(value).map_err(|_| "malformed".into())
}

/// Numbers without leading zeros.
pub(crate) fn numbers(siblings: &[Sibling]) -> Result<Vec<u64>, MergeError> {
    let number = |sibling: &Sibling| {
        let text = text(&sibling.value)?;
        let number: u64 = text.parse().map_err(|_| MergeError::from("malformed"))?;
        if number.to_string() == text { Ok(number) } else { bad() }
    };
    siblings.iter().map(number).collect()
}

pub(crate) fn number(number: Option<u64>) -> MergeResult {
    number.map(|number| number.to_string().into_bytes()).ok_or_else(|| "nothing".into())
}

/// Twelve numbers.
pub(crate) fn digits(seed: u64, _size: u32) -> Vec<u8> {
    (seed % 12).to_string().into_bytes()
}

/// Sixty numbers.
pub(crate) fn sixty(seed: u64, _size: u32) -> Vec<u8> {
    (seed % 60).to_string().into_bytes()
}

/// The words of a value, one after each comma: not empty, of letters and digits, in order, each once.
pub(crate) fn words(value: &[u8]) -> Result<Vec<&str>, MergeError> {
    let text = text(value)?;
    let words: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(',').collect() };
    let good = words.iter().all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if good && words.is_sorted() && words.windows(2).all(|pair| pair[0] != pair[1]) { Ok(words) } else { bad() }
}

pub(crate) fn joined<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let words: BTreeSet<&str> = words.into_iter().collect();
    words.into_iter().collect::<Vec<_>>().join(",").into_bytes()
}

/// All words, in the order of the siblings.
pub(crate) fn all_words(siblings: &[Sibling]) -> Result<Vec<&str>, MergeError> {
    Ok(siblings.iter().map(|sibling| words(&sibling.value)).collect::<Result<Vec<_>, _>>()?.concat())
}

/// A set of words that grows with `size`.
pub(crate) fn set(seed: u64, size: u32) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let words: Vec<String> = (0..size).map(|_| format!("word{}", rng.below(5 + u64::from(size) / 2))).collect();
    joined(words.iter().map(String::as_str))
}

/// Lines of `name=content`, in order, each name once.
pub(crate) type Lines = BTreeMap<String, String>;

pub(crate) fn lines(value: &[u8]) -> Result<Lines, MergeError> {
    let mut lines = Lines::new();
    for line in text(value)?.lines() {
        let Some((name, content)) = line.split_once('=') else { return bad() };
        lines.insert(name.into(), content.into());
    }
    if written(&lines) == value { Ok(lines) } else { bad() }
}

pub(crate) fn written(lines: &Lines) -> Vec<u8> {
    lines.iter().fold(String::new(), |text, (name, content)| text + name + "=" + content + "\n").into_bytes()
}

pub(crate) fn all_lines(siblings: &[Sibling]) -> Result<Vec<Lines>, MergeError> {
    siblings.iter().map(|sibling| lines(&sibling.value)).collect()
}
