//! `plugin test`: the laws of merging, tried on a component in this process. No cluster is asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rejoin_client::admin::BucketProps;
use rejoin_merge::laws::{CheckConfig, Counterexample, Law, Progress, Trial, Verdict, Violation};
use rejoin_merge::{
    Compiler, EncodedBytes, Fixture, FixtureCase, LawReport, LoadError, ModuleLimits, PluginUnderTest, build,
    check_laws_with_progress,
};

use crate::args::TestArgs;
use crate::commands::component::{not_built, rejected, stem};
use crate::commands::json;
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::output::{Output, note};
use crate::progress::Bar;

/// Longer values than this are cut on a terminal; the file has all of them.
const SHOWN_CHARS: usize = 300;

pub(crate) fn run(out: Output, compiler: &Compiler, args: &TestArgs) -> Result<(), Failure> {
    let props = BucketProps::default();
    let modules = ModuleLimits::for_bytes(args.module_bytes);
    let under_test = PluginUnderTest::load(&component(&args.file)?, compiler, &modules, &props).map_err(not_loaded)?;
    note(introduction(&under_test, &args.file));
    match &args.replay {
        Some(path) => replay(out, &under_test, args, path),
        None => test(out, &under_test, &props, args),
    }
}

fn component(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.is_dir() {
        let what = format!("{} is a directory, not a component", path.display());
        return Err(Failure::usage(what)
            .next(format!("`rejoin plugin build {}` makes it, if that is a guest crate", path.display())));
    }
    build::component_in(files::read(path)?).map_err(|why| not_built(&why))
}

fn not_loaded(why: LoadError) -> Failure {
    match why {
        LoadError::Rejected(why) => rejected(&why),
        why => Failure::usage(why),
    }
}

fn introduction(under_test: &PluginUnderTest, file: &Path) -> String {
    let digest = under_test.plugin.digest();
    match under_test.plugin.metadata() {
        Some(metadata) => format!("{} {}, component {digest}", metadata.name, metadata.version),
        None => format!("{}, component {digest}", stem(file)),
    }
}

fn test(out: Output, under_test: &PluginUnderTest, props: &BucketProps, args: &TestArgs) -> Result<(), Failure> {
    let config = CheckConfig { seed: args.seed, cases: args.cases, shrink: args.shrink_time, ..CheckConfig::default() };
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
    let report = check_laws_with_progress(under_test, props, config, &mut |progress| printer.show(progress));
    drop(printer);
    // A sampler that fails leaves nothing to run again.
    let found = report.counterexamples().filter(|found| !matches!(found.violation, Violation::NoSample { .. }));
    let fixture = Fixture::new(under_test, args.seed, found);
    let file =
        (!fixture.cases().is_empty()).then(|| args.counterexample.clone().unwrap_or_else(|| default_file(&args.file)));
    if let Some(file) = &file {
        files::replace(file, &fixture.to_json(), Mode::Public)?;
    }
    let laws: Vec<json::Law> =
        report.outcomes.iter().map(|outcome| law(outcome.law, outcome.result.as_ref().ok())).collect();
    print(out, under_test, Some(args.seed), laws, fixture.cases(), file.as_deref())?;
    conclude(out, under_test, &report, &fixture, &args.file, file.as_deref())
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

fn law(law: Law, tried: Option<&rejoin_merge::laws::LawStats>) -> json::Law {
    let (cases, judged) = (tried.map(|tried| tried.cases), tried.map(|tried| tried.judged));
    json::Law { law: law.name(), says: law.statement(), held: tried.is_some(), cases, judged }
}

/// Prints the result of each law.
fn print(
    out: Output,
    under_test: &PluginUnderTest,
    seed: Option<u64>,
    laws: Vec<json::Law>,
    counterexamples: &[FixtureCase],
    file: Option<&Path>,
) -> Result<(), Failure> {
    if out.json {
        let metadata = under_test.plugin.metadata();
        return out.json(&json::LawTest {
            digest: under_test.plugin.digest().to_string(),
            name: metadata.map(|metadata| metadata.name.clone()),
            version: metadata.map(|metadata| metadata.version.clone()),
            sampler: under_test.plugin.exports().sample,
            seed,
            held: laws.iter().all(|law| law.held) && laws.iter().any(|law| law.judged != Some(0)),
            laws,
            most_fuel: under_test.most_fuel(),
            fuel: under_test.fuel(),
            counterexamples,
            file: file.map(|file| file.display().to_string()),
        });
    }
    let count = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let row = |law: json::Law| {
        vec![law.law.to_owned(), law.verdict().to_owned(), count(law.cases), count(law.judged), law.says.to_owned()]
    };
    out.table(&["law", "verdict", "cases", "judged", "what it says"], laws.into_iter().map(row).collect())
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
        note(format!(
            "no law was broken; one merge took at most {} of the {} fuel that a bucket gives its largest siblings",
            under_test.most_fuel(),
            under_test.fuel()
        ));
        note(format!(
            "next: `rejoin plugin push {}`; the laws are not sufficient: write scenarios too",
            component.display()
        ));
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

fn default_file(component: &Path) -> PathBuf {
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
    let laws = verdicts.iter().map(|(law, held, _)| json::Law {
        law: law.name(),
        says: law.statement(),
        held: *held,
        cases: held.then_some(1),
        judged: held.then_some(1),
    });
    print(out, under_test, None, laws.collect(), still.cases(), None)?;
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
fn explain(found: &FixtureCase) {
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
            "  (a sibling is garbage: it may be refused, but what is accepted must be merged by the laws, and nothing \
                may break)",
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

fn shown(bytes: &EncodedBytes) -> String {
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
            cases: 10,
            seed: 1,
            shrink_time: Duration::from_secs(20),
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
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cart.wasm");
        std::fs::write(&file, crate::cart::component().expect("a component")).expect("it is ours");
        let small = TestArgs { module_bytes: 1000, ..args(&file) };
        let failure = run(QUIET, &Compiler::InProcess, &small).expect_err("it has more bytes");
        assert!(failure.exit == Exit::Rejected && failure.to_string().contains("1000 are allowed"), "{failure}");
    }

    #[test]
    fn a_core_module_is_tested_as_its_component_and_a_bad_fixture_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let (core, fixture) = (dir.path().join("cart.core.wasm"), dir.path().join("fixture.json"));
        std::fs::write(&core, crate::cart::CORE).expect("it is ours");
        assert_eq!(component(&core).expect("a core module"), crate::cart::component().expect("the same"));
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
