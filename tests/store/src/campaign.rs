//! Runs a test over many seeds and counts its cuts. A failure names its seed, its place, and the command that repeats
//! that cut alone.

use std::any::Any;
use std::collections::BTreeMap;
use std::env::var;
use std::fmt::Display;
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use crate::verify::{Expected, Outcome, verify};
use crate::{Image, Recording, Tree};

/// The seeds to run instead of the test's own, as `A..B`.
const SEEDS: &str = "REJOIN_STORE_SEEDS";
/// The only place to cut.
const PLACE: &str = "REJOIN_STORE_PLACE";

/// An empty directory: in memory where there is such a place, since tens of thousands of starts each sync the tree's
/// files.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

/// The cuts of one seed in one test.
pub struct Cuts {
    test: &'static str,
    seed: u64,
    only: Option<usize>,
    scratch: tempfile::TempDir,
    last: Option<(Image, Arc<Tree>, [u64; 3])>,
    figures: Figures,
}

/// What the cuts came to.
#[derive(Default, Debug)]
struct Figures {
    cuts: u64,
    lost: u64,
    damaged: u64,
}

impl Cuts {
    /// Whether this place is to be cut.
    #[must_use]
    pub fn wants(&self, place: usize) -> bool {
        self.only.is_none_or(|only| only == place)
    }

    /// Starts on the files of a cut, unless files and expectations are those of the last cut.
    ///
    /// # Panics
    /// If what was promised is not kept.
    pub fn cut(&mut self, place: usize, what: &dyn Display, image: Image, tree: &Arc<Tree>, expected: &Expected<'_>) {
        let promised = [*expected.end.start(), *expected.end.end(), expected.model.heard()];
        if !self.wants(place)
            || self
                .last
                .as_ref()
                .is_some_and(|(last, at, was)| *last == image && Arc::ptr_eq(at, tree) && *was == promised)
        {
            return;
        }
        let found = self.on_a_fresh_directory(place, what, |root| verify(root, &image, tree, expected));
        self.count(&found);
        self.last = Some((image, Arc::clone(tree), promised));
    }

    /// Does something with an empty directory.
    ///
    /// # Panics
    /// If it fails, with what is needed to repeat it.
    pub fn on_a_fresh_directory<T>(
        &self,
        place: usize,
        what: &dyn Display,
        work: impl FnOnce(&Path) -> Result<T, String>,
    ) -> T {
        let root: PathBuf = self.scratch.path().join("node");
        std::fs::create_dir(&root).unwrap();
        let done = catch_unwind(AssertUnwindSafe(|| work(&root)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", message(panic.as_ref()))));
        let Self { test, seed, .. } = self;
        let again = format!("{SEEDS}={seed}..{} {PLACE}={place} cargo test -p rejoin-test-store {test}", seed + 1);
        let done =
            done.unwrap_or_else(|wrong| panic!("seed {seed}, place {place}, {what}: {wrong}\nto repeat it: {again}"));
        std::fs::remove_dir_all(&root).unwrap();
        done
    }

    /// Counts what was found.
    pub fn count(&mut self, found: &Outcome) {
        self.figures.cuts += 1;
        match found {
            Outcome::Sound => {}
            Outcome::Lost => self.figures.lost += 1,
            Outcome::Damaged => self.figures.damaged += 1,
        }
    }
}

/// Runs a test over seeds, on all cores, and prints its figures.
///
/// # Panics
/// As the work does; and if it made no cut, since then it has shown nothing.
pub fn campaign(test: &'static str, seeds: Range<u64>, work: impl Fn(u64, &mut Cuts) + Sync) {
    let seeds = var(SEEDS).map_or(seeds, |seeds| range(&seeds));
    let only = var(PLACE).ok().map(|place| place.parse().expect("a place is a number"));
    let (next, total) = (AtomicU64::new(seeds.start), Mutex::new(Figures::default()));
    let work_off = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            let mut cuts = Cuts { test, seed, only, scratch: scratch(), last: None, figures: Figures::default() };
            work(seed, &mut cuts);
            let mut total = total.lock().unwrap();
            total.cuts += cuts.figures.cuts;
            total.lost += cuts.figures.lost;
            total.damaged += cuts.figures.damaged;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let ended = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work_off)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    if let Some(panic) = ended.into_iter().find_map(Result::err) {
        panic!("{}", message(panic.as_ref()));
    }
    let Figures { cuts, lost, damaged } = total.into_inner().unwrap();
    assert!(cuts > 0, "nothing was cut");
    let told = format!("{lost} losses and {damaged} damaged rows were told");
    // Past the capture of the test's output: the figures are to be seen in every run.
    let line =
        format!("{test}: {cuts} cuts of {} seeds; {told}; nothing wrong, nothing silent\n", seeds.end - seeds.start);
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The recording of a seed, made once for all tests of a binary.
pub fn recording(seed: u64) -> Arc<Recording> {
    static MADE: Mutex<BTreeMap<u64, Arc<OnceLock<Arc<Recording>>>>> = Mutex::new(BTreeMap::new());
    let made = Arc::clone(MADE.lock().unwrap().entry(seed).or_default());
    Arc::clone(made.get_or_init(|| Arc::new(Recording::new(seed))))
}

fn range(text: &str) -> Range<u64> {
    let (start, end) = text.split_once("..").expect("seeds are A..B");
    start.parse().expect("a number")..end.parse().expect("a number")
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
