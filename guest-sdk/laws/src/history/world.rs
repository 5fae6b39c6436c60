//! A few replicas of one key: the same algebra as that of [`ModelCluster`], without its log, so that a copy is cheap.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::history::intent::{Intent, OperationDot};
use crate::history::linear::Done;
use crate::merge::Merge;
use crate::scenario::object::Object;
use crate::scenario::{BEGIN_MS, ModelCluster, ScenarioError, actor};

/// The key of all histories.
pub(crate) const KEY: &[u8] = b"history";
/// The names of replicas in logs.
pub(crate) const NAMES: [&str; 6] = ["east", "west", "south", "north", "attic", "cellar"];

/// One step of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A client carries out an operation, by its index in the vocabulary.
    Apply { at: usize, operation: u8 },
    /// Two replicas exchange what they have.
    Sync { one: usize, other: usize },
    /// A replica stores the merged value in place of its siblings.
    Fold { at: usize },
}

#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) counter: u64,
    pub(crate) object: Object,
    /// The operations that have reached it, a bit for each.
    pub(crate) seen: u32,
}

/// The replicas, and the operations so far.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) done: Vec<Done>,
    pub(crate) now_ms: u64,
}

/// Results of operations, by state, operation and dot.
type Applied = HashMap<(Option<Vec<u8>>, u8, OperationDot), Result<Vec<u8>, String>>;

/// What the steps of a world need.
pub(crate) struct Actions<'a> {
    pub(crate) merge: &'a dyn Merge,
    pub(crate) intent: &'a dyn Intent,
    pub(crate) operations: &'a [String],
    applied: RefCell<Applied>,
}

impl<'a> Actions<'a> {
    pub(crate) fn new(merge: &'a dyn Merge, intent: &'a dyn Intent, operations: &'a [String]) -> Self {
        Self { merge, intent, operations, applied: RefCell::default() }
    }

    /// What a reader of the object is shown.
    pub(crate) fn view(&self, object: &Object) -> Result<Option<Vec<u8>>, String> {
        let mut siblings = object.siblings();
        if siblings.len() < 2 {
            return Ok(siblings.pop().map(|sibling| sibling.value));
        }
        self.merge.merge(KEY, &siblings).map(Some).map_err(|why| format!("a merge failed: {why}"))
    }

    fn applied(&self, state: Option<Vec<u8>>, operation: u8, dot: OperationDot) -> Result<Vec<u8>, String> {
        let call = (state, operation, dot);
        if let Some(known) = self.applied.borrow().get(&call) {
            return known.clone();
        }
        let name = &self.operations[usize::from(operation)];
        let value = self.intent.apply(call.0.as_deref(), name, dot);
        let value = value.map_err(|why| format!("the operation {name:?} failed: {why}"));
        self.applied.borrow_mut().insert(call, value.clone());
        value
    }

    /// Carries out a step.
    ///
    /// # Errors
    /// Why a merge or an operation has failed.
    pub(crate) fn step(&self, world: &mut World, step: Step) -> Result<(), String> {
        match step {
            Step::Apply { at, operation } => {
                let state = self.view(&world.replicas[at].object)?;
                world.now_ms += 1;
                let (now_ms, bit, actor) = (world.now_ms, 1 << world.done.len(), actor_of(at));
                let replica = &mut world.replicas[at];
                replica.counter += 1;
                let dot = OperationDot { actor, counter: replica.counter };
                let value = self.applied(state, operation, dot)?;
                let context = replica.object.context.clone();
                replica.object.put(&context, (actor, replica.counter), Some(value), now_ms);
                world.done.push(Done { operation, seen: replica.seen });
                replica.seen |= bit;
            }
            Step::Sync { one, other } => {
                let joined = world.replicas[one].object.sync(&world.replicas[other].object);
                let seen = world.replicas[one].seen | world.replicas[other].seen;
                for at in [one, other] {
                    world.replicas[at].object = joined.clone();
                    world.replicas[at].seen = seen;
                }
            }
            Step::Fold { at } => {
                if let Some(merged) = self.view(&world.replicas[at].object)? {
                    let replica = &mut world.replicas[at];
                    replica.object = std::mem::take(&mut replica.object).fold(merged);
                }
            }
        }
        Ok(())
    }

    /// Plays the steps on a model cluster, for the log of a failure.
    pub(crate) fn replay(&self, replicas: usize, steps: &[Step], what: &str) -> ScenarioError {
        let mut cluster = ModelCluster::new(self.merge, KEY);
        // Actors are drawn as replicas are named.
        for name in &NAMES[..replicas] {
            cluster.object(name);
        }
        let mut play = |step: &Step| match *step {
            Step::Apply { at, operation } => {
                cluster.apply(NAMES[at], self.intent, &self.operations[usize::from(operation)])
            }
            Step::Sync { one, other } => {
                cluster.sync(NAMES[one], NAMES[other]);
                Ok(())
            }
            Step::Fold { at } => cluster.fold(NAMES[at]),
        };
        let played = steps.iter().try_for_each(&mut play);
        let error = cluster.error(what.to_owned());
        played.err().map_or(error, |error| ScenarioError { what: what.to_owned(), ..error })
    }
}

/// The actor of a replica, the same as on a model cluster.
pub(crate) fn actor_of(replica: usize) -> u64 {
    actor(2 + replica as u64)
}

impl World {
    pub(crate) fn new(replicas: usize) -> Self {
        let replica = Replica { counter: 0, object: Object::default(), seen: 0 };
        Self { replicas: vec![replica; replicas], done: Vec::new(), now_ms: BEGIN_MS }
    }

    /// The join of all replicas.
    pub(crate) fn joined(&self) -> Object {
        self.replicas
            .iter()
            .skip(1)
            .fold(self.replicas.first().map(|replica| replica.object.clone()).unwrap_or_default(), |joined, replica| {
                joined.sync(&replica.object)
            })
    }
}
