//! Splices mutants into the source of the core.
//!
//! A mutant names the text that it replaces. White space does not count when that text is looked up, so that formatting
//! breaks no mutant; everything else does, so that a mutant whose place has changed fails the build.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

/// One file of `mutants/`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// The name of the file without `.toml`, in CamelCase. The core marks the place with the same words:
    /// `// Rule: acks wait for the disk`.
    #[serde(skip)]
    pub(crate) name: String,
    /// What holds while the rule is kept.
    pub(crate) rule: String,
    /// What breaks it.
    #[serde(rename = "change")]
    pub(crate) changes: Vec<Edit>,
}

/// One place of the core that a mutant changes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    /// The file, below `host/core/src`.
    pub(crate) file: String,
    /// Text that stands there exactly once.
    pub(crate) original: String,
    /// What takes its place. It asks `broken!(Name)` and does as the original while that is false.
    pub(crate) mutated: String,
}

/// The sources with all mutants in them, by file.
///
/// # Errors
/// What does not fit, a line each: a text that is not there or not unique, mutants that overlap, a rule that the core
/// does not mark, a mark without a mutant, a mutant without its switch.
pub(crate) fn all(
    sources: &BTreeMap<String, String>,
    mutants: &[Mutant],
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut problems = unmarked(sources, mutants);
    let unswitched = mutants.iter().filter(|mutant| {
        let switch = format!("broken!({})", mutant.name);
        !mutant.changes.iter().any(|change| change.mutated.contains(&switch))
    });
    problems.extend(unswitched.map(|mutant| format!("{0}: the mutated text never asks broken!({0})", mutant.name)));
    let mut edits: BTreeMap<&str, Vec<(usize, usize, &Mutant, &Edit)>> = BTreeMap::new();
    for (mutant, change) in mutants.iter().flat_map(|mutant| mutant.changes.iter().map(move |change| (mutant, change)))
    {
        match sources.get(&change.file).map(|text| find(text, &change.original)) {
            None => problems.push(format!("{}: host/core/src has no file {}", mutant.name, change.file)),
            Some(Err(times)) => {
                let original = change.original.trim();
                problems.push(format!(
                    "{}: its original text stands {times} times in {}, not once:\n{original}",
                    mutant.name, change.file
                ));
            }
            Some(Ok((start, end))) => edits.entry(&change.file).or_default().push((start, end, mutant, change)),
        }
    }
    let mut twin = sources.clone();
    for (file, mut edits) in edits {
        edits.sort_by_key(|&(start, ..)| start);
        for pair in edits.windows(2).filter(|pair| pair[0].1 > pair[1].0) {
            problems.push(format!("{} and {} change the same text of {file}", pair[0].2.name, pair[1].2.name));
        }
        let text = twin.get_mut(file).expect("edits are of known files");
        // From the end, so that what comes before keeps its place.
        for &(start, end, _, change) in edits.iter().rev() {
            if end <= text.len() {
                text.replace_range(start..end, &change.mutated);
            }
        }
    }
    if let Some(root) = twin.get_mut("lib.rs") {
        // The root is included into another one, where these are not allowed.
        *root = root
            .lines()
            .filter(|line| !line.starts_with("//!") && !line.starts_with("#!["))
            .fold(String::new(), |text, line| text + line + "\n");
    }
    if problems.is_empty() { Ok(twin) } else { Err(problems) }
}

/// Where a text stands in a source, white space apart; or how often, if that is not once.
fn find(source: &str, wanted: &str) -> Result<(usize, usize), usize> {
    let dense: Vec<(usize, char)> = source.char_indices().filter(|(_, c)| !c.is_whitespace()).collect();
    let wanted: Vec<char> = wanted.chars().filter(|c| !c.is_whitespace()).collect();
    if wanted.is_empty() {
        return Err(0);
    }
    let starts = |window: &&[(usize, char)]| window.iter().map(|&(_, c)| c).eq(wanted.iter().copied());
    let found: Vec<&[(usize, char)]> = dense.windows(wanted.len()).filter(starts).collect();
    match found.as_slice() {
        [[(start, _), .., (last, c)]] => Ok((*start, last + c.len_utf8())),
        _ => Err(found.len()),
    }
}

/// Rules that no comment of the core names, and comments that name a rule without a mutant.
fn unmarked(sources: &BTreeMap<String, String>, mutants: &[Mutant]) -> Vec<String> {
    let marks: Vec<(&str, String)> =
        sources.iter().flat_map(|(file, text)| marks(text).map(move |mark| (file.as_str(), mark))).collect();
    let mut problems = Vec::new();
    for mutant in mutants {
        let words = words(&mutant.name);
        if !marks.iter().any(|(file, mark)| *mark == words && mutant.changes.iter().any(|change| change.file == *file))
        {
            problems.push(format!("{}: no file that it changes has the comment `// Rule: {words}.`", mutant.name));
        }
    }
    let known: Vec<String> = mutants.iter().map(|mutant| words(&mutant.name)).collect();
    problems.extend(
        marks
            .iter()
            .filter(|(_, mark)| !known.contains(mark))
            .map(|(file, mark)| format!("{file}: `Rule: {mark}` has no mutant")),
    );
    problems
}

/// The rules that a source marks: the words between `Rule:` and the next full stop or comma, in comments.
fn marks(text: &str) -> impl Iterator<Item = String> {
    let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("// "));
    comments.flat_map(|comment| comment.split("Rule: ").skip(1)).map(|rest| {
        let end = rest.find(['.', ',', ':']).unwrap_or(rest.len());
        rest[..end].trim().to_owned()
    })
}

/// `AcksWaitForTheDisk` as "acks wait for the disk".
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

/// The source of `enum Rule`.
#[allow(dead_code, reason = "only the build script writes it")]
pub(crate) fn rules(mutants: &[Mutant]) -> String {
    let mut text = String::from(
        "/// A rule of the core that a mutant breaks.\n#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, \
            Debug)]\npub enum Rule {\n",
    );
    for mutant in mutants {
        let _ = writeln!(text, "    /// {}\n    {},", mutant.rule, mutant.name);
    }
    text.push_str("}\n\nimpl Rule {\n    /// All of them.\n    pub const ALL: &[Self] = &[\n");
    for mutant in mutants {
        let _ = writeln!(text, "        Self::{},", mutant.name);
    }
    text.push_str("    ];\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(original: &str, mutated: &str) -> Mutant {
        let change = Edit { file: "a.rs".into(), original: original.into(), mutated: mutated.into() };
        Mutant { name: "AcksWait".into(), rule: "x".into(), changes: vec![change] }
    }

    fn spliced(source: &str, mutants: &[Mutant]) -> Result<String, Vec<String>> {
        let sources = BTreeMap::from([("a.rs".to_owned(), source.to_owned())]);
        all(&sources, mutants).map(|mut twin| twin.remove("a.rs").expect("it is there"))
    }

    const SOURCE: &str = "// Rule: acks wait.\nif a\n    .ready() {\n    go();\n}\n";

    #[test]
    fn a_mutant_takes_the_place_of_its_text_however_that_is_formatted() {
        let twin =
            spliced(SOURCE, &[mutant("if a.ready() {", "if a.ready() || broken!(AcksWait) {")]).expect("it fits");
        assert_eq!(twin, "// Rule: acks wait.\nif a.ready() || broken!(AcksWait) {\n    go();\n}\n");
    }

    #[test]
    fn a_mutant_that_does_not_fit_is_named() {
        let problem =
            |mutants: &[Mutant], source: &str| spliced(source, mutants).expect_err("it does not fit").join("\n");
        let good = mutant("go();", "if !broken!(AcksWait) { go(); }");
        assert!(spliced(SOURCE, std::slice::from_ref(&good)).is_ok());
        assert!(problem(&[mutant("gone();", "broken!(AcksWait)")], SOURCE).contains("stands 0 times in a.rs"));
        assert!(problem(&[good.clone()], &SOURCE.repeat(2)).contains("stands 2 times in a.rs"));
        assert!(problem(&[mutant("go();", "stop();")], SOURCE).contains("never asks broken!(AcksWait)"));
        assert!(problem(&[good.clone()], "go();").contains("has the comment `// Rule: acks wait.`"));
        assert!(problem(&[], SOURCE).contains("a.rs: `Rule: acks wait` has no mutant"));
        let overlapping = mutant(".ready() { go();", "broken!(AcksWait)");
        assert!(problem(&[good, overlapping], SOURCE).contains("change the same text of a.rs"));
    }
}
