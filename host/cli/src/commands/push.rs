//! `plugin push`: a node checks the laws of a component, and stores it if none is broken.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rejoin_client::ErrorKind;
use rejoin_client::admin::{Component, LawState, Name, PluginInfo, PushChecks};
use rejoin_merge::{Fixture, IntentError, IntentFile, LawTest, RecordedLine};

use crate::commands::component::stem;
use crate::commands::json::Plugin;
use crate::commands::signing::signature_of;
use crate::commands::{findings, fixtures, laws};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::progress::Bar;
use crate::push_args::PushArgs;

/// How often the progress is printed where there is no terminal.
const PRINT_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) async fn run(global: &GlobalArgs, out: Output, args: &PushArgs) -> Result<(), Failure> {
    let file = args.file.as_path();
    let signature = signature_of(file, args.signature.as_deref())?;
    let component = Component { signature, checks: checks(args)?, ..files::read(file)?.into() };
    let fixtures = component.checks.fixtures.len();
    let name = args.name.clone().unwrap_or_else(|| stem(file));
    let admin = connect(global).await?.admin();
    let rejected = |error: rejoin_client::Error| match error.kind() {
        ErrorKind::TooLarge => Failure::new(Exit::Rejected, error),
        _ => error.into(),
    };
    if args.unchecked {
        return pushed(out, &admin.push_plugin_unchecked(&name, component).await.map_err(rejected)?);
    }
    let mut progress = LawProgress::new();
    let push = admin.push_plugin_with_report(&name, component, |state| progress.show(state)).await;
    drop(progress);
    let push = push.map_err(rejected)?;
    let report = push.report.as_ref().map(|json| serde_json::from_slice::<LawTest>(json));
    let report = report.transpose().map_err(|why| {
        Failure::usage(format!("the node's report on the laws cannot be read: {why}")).next("use the node's release")
    })?;
    let taken = args.siblings_of.as_deref().zip(report.as_ref());
    taken.into_iter().for_each(|(bucket, test)| note(recorded(bucket, test)));
    if fixtures > 0 && report.is_some() {
        note(format!("{fixtures} {} among the cases", if fixtures == 1 { "fixture was" } else { "fixtures were" }));
    }
    match (push.plugin, report) {
        (Ok(plugin), report) => {
            if let Some(test) = report {
                held(&test);
            }
            pushed(out, &plugin)
        }
        (Err(why), report) => broken(out, file, (&why, report), args.counterexample.clone()),
    }
}

/// What the node is to check beside the values of the plugin's own sampler. Nothing is sent if a file is a bad one.
fn checks(args: &PushArgs) -> Result<PushChecks, Failure> {
    let intent = match &args.intent {
        Some(path) => {
            let text = files::read(path)?;
            let bad = |why: IntentError| Failure::usage(why).during(&path.display().to_string());
            IntentFile::parse(&text).map_err(bad)?;
            Some(text.into())
        }
        None => None,
    };
    let siblings_of = match &args.siblings_of {
        Some(bucket) => Some(Name::new(bucket.as_str()).map_err(|why| Failure::usage(format!("{bucket:?}: {why}")))?),
        None => None,
    };
    let fixtures = fixtures::read_to_push(&args.fixture)?.into_iter().map(Into::into).collect();
    Ok(PushChecks { intent, siblings_of, fixtures })
}

/// How many siblings of a bucket were used.
fn recorded(bucket: &str, test: &LawTest) -> String {
    match &test.recorded {
        Some(RecordedLine { sets, siblings, left, .. }) => {
            let sets = if *sets == 1 { "1 set".to_owned() } else { format!("{sets} sets") };
            let left =
                if *left == 0 { String::new() } else { format!("; there was no time for {left} of their checks") };
            format!("{sets} of siblings of bucket {bucket}, with {siblings} values, were among the cases{left}")
        }
        None => format!(
            "the node has no siblings of bucket {bucket}, and no receipt of any: the laws were checked without them"
        ),
    }
}

/// What was checked of a plugin that has broken nothing.
fn held(test: &LawTest) {
    let cases: u32 = test.laws.iter().filter_map(|law| law.judged).sum();
    note(format!("{} laws held, {cases} cases judged", test.laws.len()));
    let of_an_intent = test.histories.as_ref().and_then(|all| Some((all.histories?, all.operations?, all.classics?)));
    if let Some((histories, operations, classics)) = of_an_intent {
        note(findings::right(histories, operations, classics));
    }
    if let Some(scenarios) = test.histories.as_ref().and_then(|all| all.scenarios) {
        note(findings::played(scenarios));
    }
}

fn pushed(out: Output, plugin: &PluginInfo) -> Result<(), Failure> {
    let plugin = Plugin::from(plugin);
    if out.json {
        return out.json(&plugin);
    }
    note(format!("pushed {} {}, {} bytes", plugin.name, plugin.version, plugin.bytes));
    if let Some(by) = &plugin.unchecked {
        note(format!("its laws were not checked, pushed by {by}; `rejoin plugin list` says so"));
    }
    if let Some(signer) = plugin.provenance.as_ref().and_then(|from| from.signer.as_ref()) {
        note(format!("signed with {signer}"));
    }
    note(format!("next: `rejoin bucket create NAME --plugin {}`", plugin.digest));
    out.line(&plugin.digest)
}

/// Prints the report on a plugin that was not stored, and writes its counterexamples.
fn broken(
    out: Output,
    component: &Path,
    (why, report): (&str, Option<LawTest>),
    counterexample: Option<PathBuf>,
) -> Result<(), Failure> {
    let failure = Failure::new(Exit::Rejected, format!("{why}, so it was not stored"));
    let Some(mut test) = report else { return Err(failure) };
    let fixture = Fixture::of_report(&test);
    if fixture.cases().is_empty() {
        laws::print(out, &test)?;
        let wrong = test.histories.as_ref().map(|histories| histories.wrong.as_slice()).unwrap_or_default();
        if !wrong.is_empty() {
            findings::explain_histories(out, wrong);
            return Err(failure.next(findings::ADVICE));
        }
        return Err(failure.next(format!("`rejoin plugin test {}` shows it here", component.display())));
    }
    let file = counterexample.unwrap_or_else(|| laws::default_file(component));
    files::replace(&file, &fixture.to_json(), Mode::Public)?;
    test.file = Some(file.display().to_string());
    laws::print(out, &test)?;
    if !out.json {
        fixture.cases().iter().for_each(laws::explain);
    }
    Err(failure.next(format!(
        "fix it, build it, and check the same cases again: `rejoin plugin test {} --replay {}`",
        component.display(),
        file.display()
    )))
}

/// Shows how far a node is: with a bar on a terminal, with a line every few seconds elsewhere.
struct LawProgress {
    bar: Option<Bar>,
    last: Option<Instant>,
}

impl LawProgress {
    fn new() -> Self {
        Self { bar: Bar::spinner("pushing"), last: None }
    }

    fn show(&mut self, state: &LawState) {
        let text = match state {
            LawState::Waiting => "the laws are checked after those of others".to_owned(),
            LawState::Checking { law, case, cases: 0 } => format!("the node checks {law}: {case} so far"),
            LawState::Checking { law, case, cases } => format!("the node checks {law}: case {case} of {cases}"),
            LawState::Checked { .. } => return,
        };
        match &self.bar {
            Some(bar) => bar.message(&text),
            None if self.last.is_none_or(|last| last.elapsed() >= PRINT_INTERVAL) => {
                self.last = Some(Instant::now());
                note(text);
            }
            None => {}
        }
    }
}
