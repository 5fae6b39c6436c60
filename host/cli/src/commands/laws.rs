//! `plugin test`: the laws of merging, tried on a component in this process. No cluster is asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rejoin_client::admin::BucketProps;
use rejoin_merge::laws::{CheckConfig, Counterexample, HistoryConfig, Law, Progress, Trial, Verdict, Violation};
use rejoin_merge::{
    Compiler, Coverage, EncodedBytes, Fixture, FixtureCase, IntentError, IntentFile, LawLine, LawOptions, LawReport,
    LawTest, LoadError, ModuleLimits, PluginUnderTest, build, check_laws_with_options,
};

use crate::args::TestArgs;
use crate::commands::component::{not_built, rejected, stem};
use crate::commands::{findings, fixtures};
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::output::{Output, note};
use crate::progress::Bar;

/// Longer values than this are cut on a terminal; the file has all of them.
const SHOWN_CHARS: usize = 300;

pub(crate) fn run(out: Output, compiler: &Compiler, args: &TestArgs) -> Result<(), Failure> {
    let props = BucketProps { value_bytes: args.value_bytes, ..BucketProps::default() };
    let modules = ModuleLimits::for_bytes(args.module_bytes);
    let under_test = PluginUnderTest::load(&component(&args.file)?, compiler, &modules, &props).map_err(not_loaded)?;
    note(introduction(&under_test, &args.file));
    match &args.replay {
        Some(path) => replay(out, &under_test, args, path),
        None => test(out, &under_test, &props, args),
    }
}

pub(super) fn component(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.is_dir() {
        let what = format!("{} is a directory, not a component", path.display());
        return Err(Failure::usage(what)
            .next(format!("`rejoin plugin build {}` makes it, if that is a guest crate", path.display())));
    }
    build::component_in(files::read(path)?).map_err(|why| not_built(&why))
}

pub(super) fn not_loaded(why: LoadError) -> Failure {
    match why {
        LoadError::Rejected(why) => rejected(&why),
        why => Failure::usage(why),
    }
}

pub(super) fn introduction(under_test: &PluginUnderTest, file: &Path) -> String {
    let digest = under_test.plugin.digest();
    match under_test.plugin.metadata() {
        Some(metadata) => format!("{} {}, component {digest}", metadata.name, metadata.version),
        None => format!("{}, component {digest}", stem(file)),
    }
}

fn test(out: Output, under_test: &PluginUnderTest, props: &BucketProps, args: &TestArgs) -> Result<(), Failure> {
    let options = options(args)?;
    note(match under_test.plugin.exports().sample {
        true => format!("{} cases a law from seed {}, with values of the plugin's own sampler", args.cases, args.seed),
        false => format!(
            "it has no sampler: {} cases a law from seed {}, of raw bytes, and only values that it accepts are judged \
                (`judged` says how \
             many cases); list Sampler in rejoin_guest::export! to check it on valid values",
            args.cases, args.seed
        ),
    });
    let mut printer = ProgressPrinter::new(Bar::on_terminal());
    let report = check_laws_with_options(under_test, props, &options, &mut |progress| printer.show(progress));
    drop(printer);
    let report = report.map_err(Failure::usage)?;
    // A sampler that fails leaves nothing to run again.
    let found = report.counterexamples().filter(|found| !matches!(found.violation, Violation::NoSample { .. }));
    let fixture = Fixture::new(under_test, args.seed, found);
    let file =
        (!fixture.cases().is_empty()).then(|| args.counterexample.clone().unwrap_or_else(|| default_file(&args.file)));
    if let Some(file) = &file {
        files::replace(file, &fixture.to_json(), Mode::Public)?;
    }
    let shown = file.as_ref().map(|file| file.display().to_string());
    print(out, &LawTest { file: shown, ..LawTest::new(under_test, args.seed, &report) })?;
    conclude(out, under_test, &report, &fixture, &args.file, file.as_deref())
}

fn options(args: &TestArgs) -> Result<LawOptions, Failure> {
    let fixtures = fixtures::read(&args.fixture)?;
    let bad = |path: &Path, why: IntentError| Failure::usage(why).during(&path.display().to_string());
    let intent = match &args.intent {
        Some(path) => Some(IntentFile::parse(&files::read(path)?).map_err(|why| bad(path, why))?),
        None => None,
    };
    let config = CheckConfig {
        seed: args.seed,
        cases: args.cases,
        shrink: args.shrink_time,
        smallest: usize::from(args.smallest),
        exhaust: args.exhaust_time,
        ..CheckConfig::default()
    };
    let histories = HistoryConfig { time: args.history_time, ..HistoryConfig::default() };
    Ok(LawOptions { config, fixtures, intent, histories, ..LawOptions::default() })
}

/// How often the progress of a test is printed where there is no terminal for a bar.
const PRINT_INTERVAL: Duration = Duration::from_secs(1);

/// Shows the progress of a test on stderr: with a bar on a terminal, with a line a second elsewhere. The start and the
/// end of shrinking are lines in both cases.
struct ProgressPrinter {
    bar: Option<Bar>,
    last: Instant,
    shrinking: Option<Law>,
}

impl ProgressPrinter {
    fn new(bar: Option<Bar>) -> Self {
        Self { bar, last: Instant::now(), shrinking: None }
    }

    fn show(&mut self, progress: Progress) {
        if let Some(bar) = &self.bar {
            match progress {
                Progress::Checking { law, case, cases } => bar.set(law.name(), case, cases),
                Progress::Exhausting { values, of } => {
                    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                    bar.set("triples", count(values), count(of));
                }
                Progress::Histories { histories, operations } => {
                    bar.message(&format!("{histories} histories of up to {operations} operations"));
                }
                Progress::Shrinking { attempts, .. } => bar.message(&format!("shrinking, {attempts} attempts")),
                Progress::OutOfTime { .. } => {}
            }
        }
        let due = self.bar.is_none() && self.last.elapsed() >= PRINT_INTERVAL;
        if let Some(line) = self.line(progress, due) {
            self.last = Instant::now();
            match &self.bar {
                Some(bar) => bar.suspend(|| note(line)),
                None => note(line),
            }
        }
    }

    /// The line to print. Unless one is `due`, only those that are printed at once.
    fn line(&mut self, progress: Progress, due: bool) -> Option<String> {
        match progress {
            Progress::Checking { law, case, cases } => due.then(|| format!("{law}: case {case} of {cases}")),
            Progress::Exhausting { values, of } => due.then(|| format!("all triples of {values} values, of {of}")),
            Progress::Histories { histories, operations } => {
                due.then(|| format!("{histories} histories of up to {operations} operations"))
            }
            Progress::Shrinking { law, attempts, siblings, bytes } => {
                let begins = self.shrinking.replace(law) != Some(law);
                let size = format!("{siblings} siblings of {bytes} bytes");
                match (begins, due) {
                    (true, _) => Some(format!("the law of {law} is broken on {size}; looking for less …")),
                    (false, true) => Some(format!("{law}: {size} after {attempts} attempts")),
                    (false, false) => None,
                }
            }
            Progress::OutOfTime { law, budget } => {
                Some(format!("{law}: nothing smaller was found within {budget:?}; --shrink-time gives it longer"))
            }
        }
    }
}

/// Prints the result of each law.
pub(super) fn print(out: Output, test: &LawTest) -> Result<(), Failure> {
    if out.json {
        return out.json(test);
    }
    let count = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let row = |law: &LawLine| {
        vec![law.law.clone(), law.verdict().to_owned(), count(law.cases), count(law.judged), law.says.clone()]
    };
    out.table(&["law", "verdict", "cases", "judged", "what it says"], test.laws.iter().map(row).collect())?;
    if let Some(coverage) = &test.coverage {
        note(covered(coverage));
    }
    Ok(())
}

/// Beginnings of the names of functions that are not the author's own.
const LIBRARIES: [&str; 8] = ["core::", "alloc::", "std::", "compiler_builtins::", "dlmalloc", "__", "<", "cabi_"];
/// The most functions that are named.
const NAMED: usize = 8;

/// How much of the merge was run, and the author's functions that were not.
fn covered(coverage: &Coverage) -> String {
    let Coverage { edges, seen, functions, never_called } = coverage;
    let own = |name: &&String| !LIBRARIES.iter().any(|library| name.starts_with(library));
    let own: Vec<&str> = never_called.iter().filter(own).map(String::as_str).collect();
    let named = own.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let rest = own.len().saturating_sub(NAMED);
    let never = match (own.is_empty(), rest) {
        (true, _) => String::new(),
        (false, 0) => format!("; never called: {named}"),
        (false, rest) => format!("; never called: {named} and {rest} more"),
    };
    format!("the cases have run {seen} of the {edges} edges of the merge, in {functions} functions{never}")
}

fn conclude(
    out: Output,
    under_test: &PluginUnderTest,
    report: &LawReport,
    fixture: &Fixture,
    component: &Path,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let broken: Vec<&Counterexample> = report.counterexamples().collect();
    if !report.has_judged() {
        let what = "no law has judged a case: the plugin refused every value, so nothing is known of its merge";
        return Err(Failure::new(Exit::Negative, what)
            .next("list Sampler in rejoin_guest::export!, and draw values that the merge accepts"));
    }
    if broken.is_empty() {
        warn_of_results(report, under_test.limits.result_bytes);
        findings::tell(&report.findings);
        findings::check_histories(out, &report.findings)?;
        note(format!(
            "no law was broken; one merge took at most {} of the {} fuel that a bucket gives its largest siblings",
            under_test.most_fuel(),
            under_test.fuel()
        ));
        let advice = match report.findings.histories {
            Some(_) => "",
            None => "; the laws are not sufficient: say with --intent what operations mean, or write scenarios",
        };
        note(format!("next: `rejoin plugin push {}`{advice}", component.display()));
        return Ok(());
    }
    if let Some(Counterexample { violation: Violation::NoSample { seed, size, reason }, .. }) = broken.first() {
        let what = format!(
            "the plugin's sampler has no value for seed {seed} and size {size}, so nothing could be tried: {reason}"
        );
        return Err(
            Failure::new(Exit::Negative, what).next("fix the sampler: it must return a value for every seed and size")
        );
    }
    if !out.json {
        fixture.cases().iter().for_each(explain);
    }
    let laws: Vec<&str> = broken.iter().map(|found| found.law.name()).collect();
    let failure = Failure::new(Exit::Negative, format!("the plugin breaks the law of {}", laws.join(", of ")));
    Err(match file {
        Some(file) => failure.next(format!(
            "fix it, build it, and check the same cases again: `rejoin plugin test {} --replay {}`",
            component.display(),
            file.display()
        )),
        None => failure,
    })
}

/// Warns of results that a bucket refuses. They break no law, since the siblings are kept.
fn warn_of_results(report: &LawReport, result_bytes: usize) {
    if report.too_large() > 0 {
        note(format!(
            "warning: the largest siblings of a bucket merge to more than the {result_bytes} bytes that it takes as a \
                value; such keys keep \
             their siblings unmerged until a client writes less, or the bucket has a larger value_bytes"
        ));
    }
}

pub(super) fn default_file(component: &Path) -> PathBuf {
    PathBuf::from(format!("{}.counterexample.json", stem(component)))
}

fn replay(out: Output, under_test: &PluginUnderTest, args: &TestArgs, path: &Path) -> Result<(), Failure> {
    let bad = |why| Failure::usage(why).during(&path.display().to_string());
    let fixture = Fixture::parse(&files::read(path)?).map_err(bad)?;
    let trials = fixture.trials(&under_test.plugin).map_err(bad)?;
    if fixture.digest() != under_test.plugin.digest().to_string() {
        note(format!("{} was found on another component, {}", path.display(), fixture.digest()));
    }
    let verdicts: Vec<(Law, bool, Option<Counterexample>)> =
        trials.into_iter().map(|(law, trial)| again(under_test, law, trial)).collect();
    let found: Vec<&Counterexample> = verdicts.iter().filter_map(|(_, _, found)| found.as_ref()).collect();
    let still = Fixture::new(under_test, 0, found);
    let laws = verdicts.iter().map(|(law, held, _)| LawLine {
        law: law.name().into(),
        says: law.statement().into(),
        held: *held,
        cases: held.then_some(1),
        judged: held.then_some(1),
    });
    print(out, &LawTest::of(under_test, None, laws.collect(), still.cases()))?;
    let failed: Vec<&str> = verdicts.iter().filter(|(_, held, _)| !held).map(|(law, ..)| law.name()).collect();
    if failed.is_empty() {
        note(format!(
            "what broke a law breaks none now; next: `rejoin plugin test {}`, for others",
            args.file.display()
        ));
        return Ok(());
    }
    if !out.json {
        still.cases().iter().for_each(explain);
    }
    Err(Failure::new(Exit::Negative, format!("the plugin still breaks the law of {}", failed.join(", of "))))
}

/// Tries a law once more. A merge that no longer answers valid siblings has not been mended; one that refuses garbage
/// has.
fn again(under_test: &PluginUnderTest, law: Law, trial: Trial) -> (Law, bool, Option<Counterexample>) {
    let verdict = match law.judge(under_test, &trial) {
        Verdict::Unjudged if trial.valid => Law::Totality.judge(under_test, &trial),
        verdict => verdict,
    };
    match verdict {
        Verdict::Broken(violation) => (law, false, Some(Counterexample { law, trial, violation, seed: 0 })),
        _ => (law, true, None),
    }
}

/// Explains a counterexample: the law, the siblings, the results, and advice.
pub(super) fn explain(found: &FixtureCase) {
    note(format!("\nthe law of {} is broken: {}", found.law, found.says));
    note(format!("  key         {}", shown(&found.key)));
    for (index, sibling) in found.siblings.iter().enumerate() {
        note(format!(
            "  sibling {index}   {}   written at {} ms by {}",
            shown(&sibling.value),
            sibling.stamp_ms,
            sibling.writer
        ));
    }
    if !found.valid {
        note(
            "  (a sibling may be garbage, or was cut: it may be refused, but what is accepted must be merged by the \
                laws, and nothing may break)",
        );
    }
    note(format!("  expected    {}", found.violation.expected));
    for answer in &found.violation.got {
        let said = answer.value.as_ref().map_or_else(|| answer.failure.clone().unwrap_or_default(), shown);
        note(format!("  {}: {said}", answer.of));
    }
    if let Some(law) = Law::from_name(&found.law) {
        note(format!("  in a cluster: {}", law.consequence()));
        note(format!("  what to do: {}", law.advice()));
    }
}

pub(super) fn shown(bytes: &EncodedBytes) -> String {
    let text = bytes.shown.as_ref().map_or_else(|| format!("base64 {}", bytes.base64), ToString::to_string);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}… ({} characters)", &text[..at], text.chars().count()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Output = Output { json: false, color: false };

    fn args(file: &Path) -> TestArgs {
        TestArgs {
            file: file.into(),
            module_bytes: 2 << 20,
            value_bytes: 1 << 20,
            cases: 10,
            seed: 1,
            shrink_time: Duration::from_secs(20),
            smallest: 100,
            exhaust_time: Duration::from_secs(60),
            fixture: Vec::new(),
            intent: None,
            history_time: Duration::from_secs(60),
            counterexample: None,
            replay: None,
        }
    }

    #[test]
    fn what_cannot_be_tested_is_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("plugin.wasm");
        let failed = |args: &TestArgs| run(QUIET, &Compiler::InProcess, args).expect_err("it is no plugin");
        assert_eq!(failed(&args(&file)).exit, Exit::Usage, "there is no such file");
        let folder = failed(&args(dir.path()));
        assert!(folder.exit == Exit::Usage && folder.to_string().contains("is a directory"), "{folder}");
        for bytes in [&b"text"[..], b"", b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"] {
            std::fs::write(&file, bytes).expect("it is ours");
            assert_eq!(failed(&args(&file)).exit, Exit::Rejected, "{bytes:?}");
        }
    }

    #[test]
    fn a_component_is_checked_under_the_limits_of_the_nodes() {
        assert_eq!(crate::args::DEFAULT_MODULE_BYTES, ModuleLimits::default().bytes);
        assert_eq!(crate::args::DEFAULT_VALUE_BYTES, BucketProps::default().value_bytes);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cart.wasm");
        std::fs::write(&file, crate::ready::CART.component().expect("a component")).expect("it is ours");
        let small = TestArgs { module_bytes: 1000, ..args(&file) };
        let failure = run(QUIET, &Compiler::InProcess, &small).expect_err("it has more bytes");
        assert!(failure.exit == Exit::Rejected && failure.to_string().contains("1000 are allowed"), "{failure}");
    }

    #[test]
    fn a_core_module_is_tested_as_its_component_and_a_bad_fixture_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let (core, fixture) = (dir.path().join("cart.core.wasm"), dir.path().join("fixture.json"));
        std::fs::write(&core, crate::ready::CART.core).expect("it is ours");
        assert_eq!(component(&core).expect("a core module"), crate::ready::CART.component().expect("the same"));
        std::fs::write(&fixture, b"{\"format\":2}").expect("it is ours");
        let failure = run(QUIET, &Compiler::InProcess, &TestArgs { replay: Some(fixture), ..args(&core) })
            .expect_err("another format");
        assert!(failure.exit == Exit::Usage && failure.to_string().contains("format 2"), "{failure}");
    }

    #[test]
    fn whoever_waits_is_told_once_a_second_and_when_shrinking_begins_and_ends() {
        let mut printer = ProgressPrinter::new(None);
        let law = Law::Growth;
        let trying = Progress::Checking { law, case: 7, cases: 300 };
        assert_eq!(
            (printer.line(trying, false), printer.line(trying, true)),
            (None, Some("growth: case 7 of 300".into()))
        );
        let shrinking = |attempts| Progress::Shrinking { law, attempts, siblings: 2, bytes: 9 };
        let begun = printer.line(shrinking(0), false).expect("it begins");
        assert!(begun.contains("the law of growth is broken on 2 siblings of 9 bytes"), "{begun}");
        assert_eq!(printer.line(shrinking(1), false), None);
        assert_eq!(
            printer.line(shrinking(40), true).as_deref(),
            Some("growth: 2 siblings of 9 bytes after 40 attempts")
        );
        let over = printer.line(Progress::OutOfTime { law, budget: Duration::from_millis(1500) }, false);
        assert!(over.is_some_and(|line| line.contains("within 1.5s") && line.contains("--shrink-time")));
    }

    #[test]
    fn long_values_are_cut_for_people_between_characters() {
        let long = EncodedBytes { shown: Some(serde_json::Value::String("é".repeat(1000))), base64: String::new() };
        let text = shown(&long);
        assert!(text.ends_with("… (1002 characters)") && text.chars().count() < SHOWN_CHARS + 30, "{text}");
        assert_eq!(shown(&EncodedBytes { shown: None, base64: "/w==".into() }), "base64 /w==");
    }
}
