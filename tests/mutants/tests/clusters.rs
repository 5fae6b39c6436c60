//! Mutants on whole simulated clusters: rules of the core are broken, one at a time, and the checker named for the rule
//! must find it. On the same seeds nothing is found without the mutant.
//!
//! Every rule also has a test of its own, see `core.rs`. Here are the rules whose breach shows in what clients and
//! owners see. The options make the breach likely, so that a few seeds are enough; any seed will do. Each mutant is
//! hunted several times on seeds of their own, and the median number of operations until it is caught is printed.
//! `REJOIN_MUTANTS=Name,Name cargo test --workspace --test clusters -- --nocapture` hunts some of them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rejoin_core::mutants::{Rule, without};
use rejoin_mutant_sim::campaign::failure;
use rejoin_mutant_sim::check::{
    Finding, bounds, carts as cart_checker, convergence, deletions, dots, handoff, reads, steps, survival, tenants,
    undos, values, versions,
};
use rejoin_mutant_sim::history::Kind;
use rejoin_mutant_sim::options::{BucketOptions, FaultOptions, Options, PerMillion, VersionOptions};
use rejoin_mutant_sim::run::{self, CATALOG, CLASHES, LIVENESS, PANIC, TREES};

/// The seeds that are tried before a mutant has survived.
const SEEDS: u64 = 300;
/// Hunts for each mutant, an odd number for the sake of the median.
const HUNTS: u64 = 3;
/// A virtual second, in microseconds.
const SECOND: u64 = 1_000_000;

/// A broken rule, the checkers of which one must find it, and the options that make that likely.
struct Mutant {
    rule: Rule,
    /// Rules that are broken along with it, because each of them hides its absence. The core that lacks only these must
    /// not be accused on the seed that catches the mutant.
    along_with: &'static [Rule],
    caught_by: &'static [&'static str],
    favour: fn(&mut Options),
}

const MUTANTS: &[Mutant] = &[
    mutant(Rule::EveryOwnerConfirms, &[handoff::NAME, survival::NAME, LIVENESS], fallbacks),
    mutant(Rule::ChangedObjectsAreNotDropped, &[handoff::NAME, survival::NAME], |options| {
        fallbacks(options);
        (options.clients.sessions, options.clients.think_us) = (12, 2_000);
    }),
    mutant(Rule::DropsEndATenure, &[dots::NAME, survival::NAME, convergence::NAME, PANIC, CLASHES], |options| {
        fallbacks(options);
        (options.buckets[0].n, options.buckets[0].r, options.buckets[0].w) = (1, 1, 1);
        options.clients.blind = share(60);
    }),
    mutant(Rule::HoldingsEndEmpty, &[LIVENESS, survival::NAME, dots::NAME, convergence::NAME], fallbacks),
    mutant(Rule::FallbacksAreNoOwners, &[reads::NAME], |options| {
        fallbacks(options);
        (options.buckets[0].pr, options.buckets[0].pw) = (2, 2);
    }),
    mutant(Rule::FormerOwnersHold, &[LIVENESS, survival::NAME], layouts),
    mutant(Rule::EachLayoutHasItsQuorum, &[reads::NAME, survival::NAME], copies),
    mutant(Rule::ChangedCopiesMeet, &[reads::NAME, steps::NAME], |options| {
        copies(options);
        quiet_keys(options);
        slow_exchanges(options);
    }),
    mutant(Rule::EveryOlderOwnerIsMet, &[reads::NAME, steps::NAME], |options| {
        hurried_layouts(options);
        single_copies(options);
    }),
    behind(
        Rule::SourcesHaveClosed,
        &[Rule::ExchangesWaitForAcknowledgements],
        &[reads::NAME, steps::NAME, survival::NAME],
        |options| {
            single_copies(options);
            late_mints(options);
        },
    ),
    behind(Rule::ReadsWaitForTheExchange, &[Rule::GainsCountWhenTaken], &[reads::NAME], hurried_layouts),
    mutant(Rule::LayoutsRetireUnread, &[reads::NAME, steps::NAME, survival::NAME], hurried_layouts),
    mutant(Rule::StrictBucketsUseNoFallbacks, &[reads::NAME, survival::NAME, LIVENESS], |options| {
        fallbacks(options);
        options.buckets[0].sloppy = false;
    }),
    mutant(Rule::LossEndsTenures, &[dots::NAME, PANIC], |options| {
        (options.faults.power, options.faults.slow_disk) = (SECOND / 2, SECOND / 2);
        options.faults.reset = SECOND / 4;
    }),
    mutant(Rule::PeersObject, &[dots::NAME, PANIC], old_copies),
    mutant(Rule::ObjectionsEndATenure, &[dots::NAME, PANIC], old_copies),
    mutant(Rule::WritesWaitForServing, &[dots::NAME, PANIC], |options| {
        old_copies(options);
        (options.clients.sessions, options.clients.think_us, options.clients.reads) = (12, 2000, share(10));
    }),
    mutant(Rule::UnmetPeersEndTenures, &[dots::NAME, survival::NAME, reads::NAME, PANIC, CLASHES], |options| {
        old_copies(options);
        (options.faults.old_copy, options.faults.partition) = (SECOND / 2, SECOND / 2);
        options.start_grace_us = SECOND / 4;
    }),
    mutant(
        Rule::EndsAreOwed,
        &[dots::NAME, survival::NAME, reads::NAME, convergence::NAME, PANIC, CLASHES],
        ends_on_full_disks,
    ),
    behind(
        Rule::CopiesEndATenure,
        &[Rule::PeersObject, Rule::ContextsEndATenure],
        &[dots::NAME, PANIC, CLASHES],
        |options| {
            old_copies(options);
            (options.clients.reads, options.clients.blind) = (share(50), share(0));
        },
    ),
    mutant(Rule::ReplacedReplicasDoNotCount, &[reads::NAME], |options| {
        (options.faults.wipe, options.faults.partition, options.network.loss) = (SECOND, SECOND, share(5));
        options.buckets[0].keys = 8;
    }),
    mutant(Rule::CatalogsAreEqualAtTheStart, &[CATALOG], |options| {
        (options.faults.wipe, options.clients.think_us) = (SECOND, 2000);
        options.network.jitter_us = 10_000;
    }),
    mutant(Rule::RacesRenumberNoBucket, &[CATALOG], |options| options.faults.race = SECOND),
    mutant(Rule::InvalidIsNotWritten, &[values::NAME], |options| {
        carts(options);
        options.clients.malformed = share(5);
    }),
    mutant(Rule::AcksWaitForTheDisk, &[reads::NAME, survival::NAME], |options| {
        options.faults.power = SECOND;
        options.faults.slow_disk = SECOND;
    }),
    mutant(Rule::RefusedIsNotSent, &[survival::NAME, convergence::NAME, reads::NAME], busy_disks),
    mutant(Rule::NodesCountOnce, &[reads::NAME, survival::NAME], |options| {
        options.network.duplicates = share(20);
        options.network.stragglers = share(5);
        options.faults.partition = SECOND;
        options.buckets[0].w = 3;
        options.buckets[0].r = 1;
    }),
    mutant(Rule::RefusalsDoNotCount, &[reads::NAME, survival::NAME], busy_disks),
    mutant(Rule::ErrorsAreNoCopies, &[reads::NAME], bad_blocks),
    mutant(
        Rule::UnreadableIsNotAbsent,
        &[reads::NAME, survival::NAME, dots::NAME, convergence::NAME, PANIC],
        bad_blocks,
    ),
    mutant(Rule::JoinsKeepBoth, &[survival::NAME, reads::NAME], |_| {}),
    mutant(Rule::SiblingsStay, &[survival::NAME, reads::NAME], |_| {}),
    mutant(Rule::SiblingsStay, &[cart_checker::NAME], carts_in_a_crowd),
    mutant(Rule::WritesReplaceWhatWasSeen, &[deletions::NAME], deletes),
    mutant(Rule::ContextsAreRemembered, &[deletions::NAME, convergence::NAME, dots::NAME], deletes),
    mutant(Rule::WritersAreToldTheirOwn, &[survival::NAME, reads::NAME], |options| options.clients.blind = share(50)),
    mutant(Rule::ReadersAreToldWhatIsShown, &[survival::NAME, reads::NAME], |options| {
        plugin(options);
        crowd(options);
        options.faults.plugin = SECOND / 2;
        options.network.jitter_us = 10_000;
    }),
    mutant(Rule::ContextsOpenOneKey, &[dots::NAME], |options| options.clients.forged = share(5)),
    mutant(Rule::ContextsOpenOneKey, &[tenants::NAME], |options| {
        two_tenants(options);
        options.clients.foreign = share(5);
    }),
    mutant(Rule::BucketsAreOfTheirTenant, &[tenants::NAME], two_tenants),
    mutant(Rule::LateMergesAreDropped, &[convergence::NAME], |options| {
        carts_in_a_crowd(options);
        options.faults.plugin = SECOND / 2;
    }),
    mutant(Rule::FoldsForgetNothing, &[convergence::NAME, dots::NAME, survival::NAME], |options| {
        deletes(options);
        plugin(options);
        crowd(options);
        options.buckets[0].siblings = 2;
    }),
    mutant(Rule::RunsAreWhole, &[convergence::NAME], carts),
    mutant(Rule::TombstonesAreNoValues, &[convergence::NAME], |options| {
        deletes(options);
        plugin(options);
        options.buckets[0].siblings = 2;
    }),
    mutant(Rule::FailuresChooseNothing, &[survival::NAME, reads::NAME], |options| {
        plugin(options);
        options.faults.plugin = SECOND;
    }),
    mutant(Rule::LimitsAreKept, &[bounds::NAME], |options| {
        options.buckets[0].siblings = 2;
        options.clients.blind = share(100);
        options.clients.deletes = share(0);
        crowd(options);
    }),
    mutant(Rule::LimitsDropNothing, &[survival::NAME, convergence::NAME, reads::NAME], |options| {
        options.buckets[0].siblings = 2
    }),
    mutant(Rule::RetriesOutliveRestarts, &[dots::NAME], retries),
    mutant(Rule::RetriesOutliveTheirValue, &[dots::NAME], retries),
    mutant(Rule::ReadsRepair, &[LIVENESS], |options| options.faults.partition = 3 * SECOND),
    mutant(Rule::LeavesAreWrittenWithTheirObjects, &[TREES, LIVENESS], |options| options.faults.kill = SECOND),
    mutant(Rule::DoubtfulTreesAreRecounted, &[TREES, LIVENESS], |options| {
        (options.exchange, options.faults.loss) = (true, SECOND);
    }),
    mutant(Rule::UnreadableRowsAreRecounted, &[TREES], |options| {
        bad_blocks(options);
        options.exchange = true;
    }),
    mutant(Rule::WholeRootsAreCompared, &[LIVENESS], |options| {
        (options.exchange, options.faults.partition, options.network.loss) = (true, SECOND, share(5));
        (options.buckets[0].keys, options.clients.reads) = (40, share(0));
    }),
    mutant(Rule::LossesAreNoticed, &[LIVENESS], |options| {
        (options.exchange, options.faults.lost_range, options.clients.reads) = (true, SECOND, share(0));
        options.buckets[0].keys = 40;
    }),
    mutant(Rule::GapsEndByQuorum, &[reads::NAME], |options| {
        (options.exchange, options.faults.wipe, options.faults.partition) = (true, SECOND, SECOND);
        (options.network.loss, options.buckets[0].keys) = (share(5), 8);
    }),
    mutant(Rule::CanariesHaveAShareOfTheKeys, &[versions::NAME], |options| {
        good_versions(options);
        (options.versions.canaries, options.versions.fold_delay_ms) = (share(100), 24 * 60 * 60 * 1000);
        (options.buckets[0].keys, options.faults.version) = (40, 5 * SECOND);
    }),
    mutant(Rule::StoppedPluginsFoldNothing, &[versions::NAME], |options| {
        good_versions(options);
        (options.faults.plugin, options.faults.version) = (SECOND / 2, SECOND / 2);
    }),
    mutant(Rule::FoldsLeaveReceipts, &[versions::NAME], good_versions),
    mutant(Rule::ReceiptsAreBounded, &[bounds::NAME], |options| {
        good_versions(options);
        options.max_receipt_bytes = 2_000;
    }),
    mutant(Rule::UndosRestoreWhatWasAccepted, &[values::NAME], |options| {
        bad_versions(options);
        options.clients.malformed = share(30);
    }),
    mutant(Rule::UndosRestoreWhatIsLive, &[undos::NAME], bad_versions),
    mutant(Rule::UndosMeetEveryWrite, &[undos::NAME], |options| {
        bad_versions(options);
        (options.faults.partition, options.faults.version, options.buckets[0].keys) = (SECOND / 2, SECOND / 4, 16);
    }),
];

const fn mutant(rule: Rule, caught_by: &'static [&'static str], favour: fn(&mut Options)) -> Mutant {
    Mutant { rule, along_with: &[], caught_by, favour }
}

/// A rule that backs up others.
const fn behind(
    rule: Rule,
    along_with: &'static [Rule],
    caught_by: &'static [&'static str],
    favour: fn(&mut Options),
) -> Mutant {
    Mutant { rule, along_with, caught_by, favour }
}

/// Two tenants with a bucket of one name, and keys of the same names in it.
fn two_tenants(options: &mut Options) {
    options.tenants = 2;
}

/// Many busy sessions on one key.
fn crowd(options: &mut Options) {
    (options.clients.sessions, options.clients.think_us, options.buckets[0].keys) = (12, 2000, 1);
}

const fn share(percent: u32) -> PerMillion {
    PerMillion(percent * 10_000)
}

fn old_copies(options: &mut Options) {
    options.network.ghosts = false;
    options.faults.old_copy = SECOND;
    options.faults.kill = SECOND;
}

fn busy_disks(options: &mut Options) {
    options.faults.busy = SECOND / 2;
    options.faults.full_disk = 2 * SECOND;
}

/// Nodes start on disks that have lost objects and take no writes, so the end of their tenures is not written, and are
/// killed there. Later they write blindly to keys whose own earlier writes they have lost.
fn ends_on_full_disks(options: &mut Options) {
    (options.faults.crammed, options.start_grace_us) = (SECOND, SECOND / 2);
    (options.clients.think_us, options.clients.blind) = (5_000, share(60));
    options.buckets[0].keys = 8;
}

fn bad_blocks(options: &mut Options) {
    options.faults.bad_block = SECOND / 2;
    options.faults.partition = 2 * SECOND;
}

/// Owners are often away, and fallbacks take their writes.
fn fallbacks(options: &mut Options) {
    (options.nodes, options.zones, options.buckets[0].sloppy) = (5, 3, true);
    (options.faults.partition, options.faults.kill, options.faults.full_disk) = (SECOND, SECOND, 2 * SECOND);
}

fn deletes(options: &mut Options) {
    options.clients.deletes = share(20);
    options.clients.stale = share(20);
    options.network.loss = share(5);
    options.faults.partition = 2 * SECOND;
}

fn plugin(options: &mut Options) {
    options.buckets[0].plugin = true;
}

fn carts(options: &mut Options) {
    (options.buckets[0].kind, options.buckets[0].plugin) = (Kind::Cart, true);
    options.clients.deletes = share(10);
    options.network.loss = share(5);
    options.faults.partition = 2 * SECOND;
}

fn carts_in_a_crowd(options: &mut Options) {
    carts(options);
    crowd(options);
}

fn retries(options: &mut Options) {
    options.clients.retries = share(90);
    options.clients.deadline_ms = 100;
    options.network.loss = share(10);
    options.network.stragglers = share(5);
    options.faults.kill = SECOND;
    options.faults.reset = SECOND / 4;
}

/// Changes of layout one after the other, and a network that tears.
fn layouts(options: &mut Options) {
    (options.nodes, options.spares, options.exchange) = (5, 2, true);
    (options.faults.layout, options.faults.partition, options.clients.reads) = (SECOND, SECOND, share(50));
}

/// The same with changes of a bucket's copies.
fn copies(options: &mut Options) {
    layouts(options);
    (options.spares, options.network.loss) = (0, share(2));
    options.change_copies();
}

/// Changes of layout follow each other quickly, under many writes, and nodes hear of them late.
fn hurried_layouts(options: &mut Options) {
    layouts(options);
    (options.faults.layout, options.faults.partition, options.faults.kill) = (SECOND / 2, SECOND / 2, SECOND);
    (options.clients.sessions, options.clients.think_us) = (8, 5_000);
    (options.network.jitter_us, options.network.ordered) = (10_000, false);
    options.buckets[0].keys = 8;
}

/// One copy of each object: the new owner of a key is the only one that readers ask.
fn single_copies(options: &mut Options) {
    (options.buckets[0].n, options.buckets[0].r, options.buckets[0].w) = (1, 1, 1);
}

/// Changes of layout are told at once, while exchanges and handoffs take long.
fn slow_exchanges(options: &mut Options) {
    options.network.bulk_stalls = share(40);
    options.faults.bridge = SECOND;
}

/// Between the view that a write goes by and its dot is a validator, which is often slow: dots are minted by layouts
/// that were the newest long ago. Nothing else delays the changes.
fn late_mints(options: &mut Options) {
    layouts(options);
    quiet_keys(options);
    plugin(options);
    (options.faults.partition, options.faults.layout, options.faults.plugin) = (0, SECOND / 2, SECOND / 4);
    (options.clients.sessions, options.clients.deadline_ms, options.clients.blind) = (6, 3_000, share(60));
    (options.network.latency_us, options.network.jitter_us) = (200, 1_000);
}

/// Many keys, each of which is hardly ever written during a change: a write carries all that its coordinator has.
fn quiet_keys(options: &mut Options) {
    (options.buckets[0].keys, options.clients.reads, options.clients.heat) = (60, share(70), 0);
    (options.clients.sessions, options.clients.think_us) = (10, 3_000);
}

/// Carts that are written apart, and whose plugin is replaced again and again by one that merges the same.
fn good_versions(options: &mut Options) {
    carts(options);
    (options.clients.blind, options.clients.reads, options.buckets[0].keys) = (share(60), share(30), 8);
    options.faults.version = SECOND;
    let (late_us, fold_delay_ms) = (0, 0);
    let (bad, canaries, shadows, late) = (share(0), share(0), share(0), share(0));
    options.versions = VersionOptions { bad, canaries, shadows, fold_delay_ms, late, late_us };
    options.max_receipt_bytes = 4 << 20;
}

/// The same with a version that loses siblings. It is rolled back, and its folds are undone.
fn bad_versions(options: &mut Options) {
    good_versions(options);
    options.versions.bad = share(100);
}

/// A small cluster with a busy bucket of sets, a network that loses a little, and no other fault.
fn options(seed: u64, favour: fn(&mut Options)) -> Options {
    let mut options = Options::draw(seed);
    let bucket = BucketOptions {
        kind: Kind::Set,
        n: 3,
        r: 2,
        w: 2,
        pr: 0,
        pw: 0,
        fsync: true,
        siblings: 32,
        plugin: false,
        keys: 2,
        sloppy: false,
    };
    (options.nodes, options.shards, options.partitions, options.buckets) = (3, 1, 4, vec![bucket]);
    (options.chaos_us, options.wasm, options.max_ops, options.max_retry_bytes) = (10 * SECOND, false, 1024, 20 << 20);
    (options.clients.sessions, options.clients.think_us, options.clients.deadline_ms) = (6, 20_000, 300);
    (options.clients.ttl, options.clients.creates, options.clients.forged) = (share(0), share(0), share(0));
    options.faults = FaultOptions::default();
    // Exchanges mend what most mutants break before anybody sees it.
    (options.exchange, options.spares, options.change_copies) = (false, 0, false);
    (options.tenants, options.clients.foreign) = (1, share(0));
    favour(&mut options);
    options
}

/// A mutant that was caught: on which seed, with what, and after how many operations of clients.
struct Caught {
    seed: u64,
    finding: Finding,
    operations: u64,
}

/// Runs a seed on the core that lacks only what hides a mutant: the sound one, unless the rule is a second safety.
fn without_what_hides(mutant: &Mutant, seed: u64) -> run::Report {
    let run: Box<dyn Fn() -> run::Report> = Box::new(|| run::with(options(seed, mutant.favour), None));
    let breaking =
        |run: Box<dyn Fn() -> run::Report>, rule: &'static Rule| Box::new(move || without(*rule, &run)) as Box<_>;
    mutant.along_with.iter().fold(run, breaking)()
}

fn hunt(mutant: &Mutant, first_seed: u64) -> Option<Caught> {
    let mut operations = 0;
    (first_seed..first_seed + SEEDS).find_map(|seed| {
        let report = without(mutant.rule, || without_what_hides(mutant, seed));
        operations += report.operations;
        let finding = report.findings.into_iter().find(|finding| mutant.caught_by.contains(&finding.checker))?;
        // A finding without the mutant proves nothing.
        let is_hidden = !mutant.along_with.is_empty();
        let accused = is_hidden && !without_what_hides(mutant, seed).findings.is_empty();
        (!accused).then_some(Caught { seed, finding, operations })
    })
}

/// The mutants that are hunted.
fn hunted() -> Vec<&'static Mutant> {
    let wanted = std::env::var("REJOIN_MUTANTS").unwrap_or_default();
    MUTANTS
        .iter()
        .filter(|mutant| wanted.is_empty() || wanted.split(',').any(|name| name == format!("{:?}", mutant.rule)))
        .collect()
}

/// Hunts a mutant. The error says what is wrong.
#[allow(clippy::print_stdout)] // The figures are part of what a run of the tests prints.
fn judge(mutant: &Mutant) -> Result<(), String> {
    let mut operations = Vec::new();
    for number in 0..HUNTS {
        let Some(caught) = hunt(mutant, number * 1000) else {
            return Err(format!("{:?} survives {SEEDS} seeds from {}", mutant.rule, number * 1000));
        };
        let sound = run::with(options(caught.seed, mutant.favour), None);
        if !sound.findings.is_empty() {
            return Err(format!(
                "the sound core is accused where {:?} is caught, seed {}: {:?}",
                mutant.rule, caught.seed, sound.findings
            ));
        }
        if number == 0 || std::env::var("REJOIN_MUTANTS").is_ok() {
            println!(
                "{:?}: seed {}, {}: {:.120}",
                mutant.rule, caught.seed, caught.finding.checker, caught.finding.evidence
            );
        }
        operations.push(caught.operations);
    }
    operations.sort_unstable();
    println!(
        "{:?}: caught after {} operations (median of {HUNTS} hunts)",
        mutant.rule,
        operations[operations.len() / 2]
    );
    Ok(())
}

#[test]
fn every_mutant_is_caught_by_name_and_the_sound_core_is_not_accused() {
    assert!(MUTANTS.len() >= 15);
    let (next, problems, hunted) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()), hunted());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some(mutant) = hunted.get(next.fetch_add(1, Relaxed)) {
                    if let Err(problem) = judge(mutant) {
                        problems.lock().expect("no thread panics").push(problem);
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().expect("no thread panics");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The first seed from there on that finds the breach of a rule.
fn miss(rule: Rule, from: u64) -> run::Report {
    let runs = (from..from + 200).map(|seed| without(rule, || run::with(Options::draw(seed), None)));
    runs.into_iter().find(|report| !report.findings.is_empty()).unwrap_or_else(|| panic!("{rule:?} is not missed"))
}

#[test]
fn a_failing_seed_says_all_that_is_needed_to_see_it_again() {
    let report = miss(Rule::SiblingsStay, 0);
    let text = failure(&report);
    let seed = report.options.seed;
    for part in [
        format!("seed {seed} failed"),
        format!("\"seed\":{seed},"),
        "commit".into(),
        format!("cargo xtask sim --replay {seed}"),
    ] {
        assert!(text.contains(&part), "{part} is missing in\n{text}");
    }
    assert!(text.contains(report.findings[0].checker) && text.contains(&report.findings[0].evidence));
}

#[test]
fn replicas_that_no_read_repairs_do_not_come_together() {
    let report = miss(Rule::ReadsRepair, 0);
    assert_eq!(report.findings[0].checker, run::LIVENESS, "{:?}", report.findings);
}
