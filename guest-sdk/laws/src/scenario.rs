//! Scenarios: reads and writes with contexts on a small model cluster, and the value that must come out.
//!
//! A law only compares results with one another. A scenario knows the right one. A [`ModelCluster`] holds one key:
//! replicas store siblings with their causal contexts, clients read, edit and write, replicas synchronise, fold, and
//! come back with an old disk. It is exact in what a plugin can observe: a write replaces the values that its client
//! has read, every other value becomes a sibling, and siblings reach the merge in canonical order.
//!
//! ```
//! use rejoin_laws::{MergeResult, Merge, Sibling, ModelCluster};
//!
//! struct Union;
//! impl Merge for Union {
//!     fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
//!         let mut all: Vec<u8> = siblings.iter().flat_map(|sibling| sibling.value.clone()).collect();
//!         all.sort_unstable();
//!         all.dedup();
//!         Ok(all)
//!     }
//! }
//!
//! let mut cluster = ModelCluster::new(&Union, b"letters");
//! let nothing = cluster.read("east")?;
//! cluster.write("east", "ann", b"a", &nothing);
//! cluster.write("west", "bob", b"b", &nothing);
//! cluster.sync("east", "west");
//! cluster.expect("east", b"ab")?;
//! cluster.expect("west", b"ab")?;
//! # Ok::<(), rejoin_laws::ScenarioError>(())
//! ```

pub(crate) mod object;

use std::collections::BTreeMap;
use std::fmt;

use object::Object;

use crate::counterexample::readable;
use crate::history::{Intent, OperationDot};
use crate::merge::Merge;

/// A scenario, as a plugin ships it.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// A short name for reports.
    pub name: &'static str,
    /// What happens and what the result must be, in a sentence.
    pub about: &'static str,
    /// The steps. They create replicas by naming them, and end with an expectation.
    pub steps: fn(&mut ModelCluster<'_>) -> Result<(), ScenarioError>,
}

impl Scenario {
    /// Runs the scenario with a merge.
    ///
    /// # Errors
    /// [`ScenarioError`] with the wrong result and the steps that led to it.
    pub fn run(&self, merge: &dyn Merge) -> Result<(), ScenarioError> {
        (self.steps)(&mut ModelCluster::new(merge, b"scenario"))
            .map_err(|error| ScenarioError { scenario: Some(self.name), ..error })
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scenario({})", self.name)
    }
}

/// A scenario with a wrong result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScenarioError {
    /// The scenario's name; `None` for a cluster that a test has built itself.
    pub scenario: Option<&'static str>,
    /// The difference between the expected and the actual result.
    pub what: String,
    /// The steps before, one line each.
    pub log: Vec<String>,
}

impl std::error::Error for ScenarioError {}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.scenario.unwrap_or("the scenario"), self.what)?;
        self.log.iter().enumerate().try_for_each(|(number, line)| write!(f, "\n  {:>2}. {line}", number + 1))
    }
}

/// The result of a read: the merged value, and the context for the next write of this client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadResult {
    /// The merged value; `None` if the key has none.
    pub value: Option<Vec<u8>>,
    context: BTreeMap<u64, u64>,
}

/// The id of the actor with that number, from 2.
pub(crate) fn actor(number: u64) -> u64 {
    crate::rng::Rng::new(number).next_u64()
}

/// When the first write of a scenario comes, less a millisecond.
pub(crate) const BEGIN_MS: u64 = 1_700_000_000_000;

/// A copy of a replica's disk, see [`ModelCluster::copy_disk`].
#[derive(Clone, Debug)]
pub struct DiskImage(Object);

struct Replica {
    actor: u64,
    counter: u64,
    object: Object,
}

/// One key on a few replicas. Naming a replica creates it.
pub struct ModelCluster<'a> {
    merge: &'a dyn Merge,
    key: Vec<u8>,
    replicas: BTreeMap<String, Replica>,
    next_actor: u64,
    now_ms: u64,
    log: Vec<String>,
}

impl<'a> ModelCluster<'a> {
    /// An empty cluster.
    #[must_use]
    pub fn new(merge: &'a dyn Merge, key: &[u8]) -> Self {
        Self { merge, key: key.to_vec(), replicas: BTreeMap::new(), next_actor: 1, now_ms: BEGIN_MS, log: Vec::new() }
    }

    /// Reads the key at a replica.
    ///
    /// # Errors
    /// [`ScenarioError`] if the merge fails.
    pub fn read(&mut self, at: &str) -> Result<ReadResult, ScenarioError> {
        let object = self.replica(at).object.clone();
        let value = self.view(at, &object)?;
        let shown = value.as_deref().map_or("nothing".into(), readable);
        self.log.push(format!("a read at {at} gives {shown}"));
        Ok(ReadResult { value, context: object.context })
    }

    /// `who` writes a value at a replica, with the context of the read `seen`: values that the read covers are
    /// replaced, all others stay as siblings.
    pub fn write(&mut self, at: &str, who: &str, value: &[u8], seen: &ReadResult) {
        self.put(at, Some(value.to_vec()), &seen.context);
        self.log.push(format!("{who} writes {} at {at}", readable(value)));
    }

    /// `who` deletes the key at a replica, with the context of the read `seen`.
    pub fn delete(&mut self, at: &str, who: &str, seen: &ReadResult) {
        self.put(at, None, &seen.context);
        self.log.push(format!("{who} deletes the key at {at}"));
    }

    /// A client reads at a replica, carries out an operation on what it has read, and writes the result there.
    ///
    /// # Errors
    /// [`ScenarioError`] if a merge or the operation fails.
    pub fn apply(&mut self, at: &str, intent: &dyn Intent, operation: &str) -> Result<(), ScenarioError> {
        let object = self.replica(at).object.clone();
        let seen = self.view(at, &object)?;
        let replica = self.replica(at);
        let dot = OperationDot { actor: replica.actor, counter: replica.counter + 1 };
        let value = intent
            .apply(seen.as_deref(), operation, dot)
            .map_err(|why| self.error(format!("the operation {operation:?} at {at} failed: {why}")))?;
        self.put(at, Some(value.clone()), &object.context);
        let seen = seen.as_deref().map_or("nothing".into(), readable);
        self.log.push(format!("{operation} at {at}: {seen} becomes {}", readable(&value)));
        Ok(())
    }

    /// Two replicas exchange their objects.
    pub fn sync(&mut self, one: &str, other: &str) {
        let theirs = self.replica(other).object.clone();
        let joined = self.replica(one).object.sync(&theirs);
        self.replica(one).object = joined.clone();
        self.replica(other).object = joined;
        self.log.push(format!("{one} and {other} synchronise"));
    }

    /// A replica stores the merged value instead of its siblings, as a cluster does for a self-causal plugin.
    ///
    /// # Errors
    /// [`ScenarioError`] if the merge fails.
    pub fn fold(&mut self, at: &str) -> Result<(), ScenarioError> {
        let object = self.replica(at).object.clone();
        let Some(merged) = self.view(at, &object)? else { return Ok(()) };
        self.replica(at).object = object.fold(merged);
        self.log.push(format!("{at} folds its siblings"));
        Ok(())
    }

    /// Copies a replica's disk, for [`ModelCluster::restore_disk`].
    pub fn copy_disk(&mut self, at: &str) -> DiskImage {
        self.log.push(format!("the disk of {at} is copied"));
        DiskImage(self.replica(at).object.clone())
    }

    /// A replica comes back with an old disk. It gets a new actor, because it no longer knows which dots it has minted.
    pub fn restore_disk(&mut self, at: &str, disk: DiskImage) {
        let actor = self.draw_actor();
        self.replicas.insert(at.into(), Replica { actor, counter: 0, object: disk.0 });
        self.log.push(format!("{at} comes back with an old disk"));
    }

    /// Expects a read at a replica to give exactly these bytes.
    ///
    /// # Errors
    /// [`ScenarioError`] if it gives others.
    pub fn expect(&mut self, at: &str, value: &[u8]) -> Result<(), ScenarioError> {
        self.expect_that(at, &readable(value), |found| found == Some(value))
    }

    /// Expects a read at a replica to find no value.
    ///
    /// # Errors
    /// [`ScenarioError`] if it finds one.
    pub fn expect_nothing(&mut self, at: &str) -> Result<(), ScenarioError> {
        self.expect_that(at, "nothing", |found| found.is_none())
    }

    /// Expects a read at a replica to pass the test; `wanted` describes the expected value.
    ///
    /// # Errors
    /// [`ScenarioError`] if it does not.
    pub fn expect_that(
        &mut self,
        at: &str,
        wanted: &str,
        test: impl FnOnce(Option<&[u8]>) -> bool,
    ) -> Result<(), ScenarioError> {
        let seen = self.read(at)?;
        if test(seen.value.as_deref()) {
            return Ok(());
        }
        let found = seen.value.as_deref().map_or("nothing".into(), readable);
        Err(self.error(format!("a read at {at} should give {wanted}, and gives {found}")))
    }

    /// An error with this text and the steps so far.
    #[must_use]
    pub fn error(&self, what: String) -> ScenarioError {
        ScenarioError { scenario: None, what, log: self.log.clone() }
    }

    pub(crate) fn view(&self, at: &str, object: &Object) -> Result<Option<Vec<u8>>, ScenarioError> {
        let mut siblings = object.siblings();
        if siblings.len() < 2 {
            return Ok(siblings.pop().map(|sibling| sibling.value));
        }
        let merged = self.merge.merge(&self.key, &siblings);
        merged
            .map(Some)
            .map_err(|reason| self.error(format!("the merge of {} siblings at {at} failed: {reason}", siblings.len())))
    }

    fn put(&mut self, at: &str, value: Option<Vec<u8>>, context: &BTreeMap<u64, u64>) {
        self.now_ms += 1;
        let stamp_ms = self.now_ms;
        let replica = self.replica(at);
        replica.counter += 1;
        let dot = (replica.actor, replica.counter);
        replica.object.put(context, dot, value, stamp_ms);
    }

    pub(crate) fn object(&mut self, at: &str) -> Object {
        self.replica(at).object.clone()
    }

    fn replica(&mut self, name: &str) -> &mut Replica {
        if !self.replicas.contains_key(name) {
            let actor = self.draw_actor();
            self.replicas.insert(name.into(), Replica { actor, counter: 0, object: Object::default() });
        }
        self.replicas.get_mut(name).expect("a replica is made by naming it")
    }

    /// Actor ids have no order in time: a later one may be smaller.
    fn draw_actor(&mut self) -> u64 {
        self.next_actor += 1;
        actor(self.next_actor)
    }
}
