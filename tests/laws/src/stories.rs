//! Stories of the ready-made data types: operations on replicas that are apart, meet, fold and come back with old
//! disks, and what a reader must be shown in the end.

use std::collections::BTreeMap;
use std::num::Wrapping;

use rejoin_guest::{Dot, Operator, Presenter};
use rejoin_laws::{DiskImage, Merge, ModelCluster, ScenarioError};

/// A step of a story. The first text names the replica.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// An operation, with the replica's next dot.
    Apply(&'static str, &'static str),
    /// As [`Step::Apply`], of an operation that is no text.
    Update(&'static str, &'static [u8]),
    /// The key is deleted by someone who has read it there.
    Delete(&'static str),
    /// Two replicas exchange what they have.
    Meet(&'static str, &'static str),
    /// A replica stores the merged value in the place of its siblings.
    Fold(&'static str),
    /// A replica's disk is copied.
    Copy(&'static str),
    /// A replica comes back with the copy, and numbers its operations as another actor.
    Restore(&'static str),
    /// What a reader is shown.
    Shown(&'static str, &'static str),
    /// The answer to a question.
    Answer(&'static str, &'static str, &'static str),
    /// A reader finds nothing.
    Nothing(&'static str),
}

/// A story.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// What happens.
    pub steps: &'static [Step],
}

/// The actors of the replicas, with the counters of their last dots.
#[derive(Default)]
struct Actors {
    last: BTreeMap<&'static str, Dot>,
    drawn: Wrapping<u64>,
}

impl Actors {
    fn next(&mut self, at: &'static str) -> Dot {
        let drawn = &mut self.drawn;
        let dot = self.last.entry(at).or_insert_with(|| {
            // Actor ids have no order in time.
            *drawn += 0x9e37_79b9_7f4a_7c15;
            Dot { actor: drawn.0, counter: 0 }
        });
        // Counters have gaps: a dot is of an actor, and not of a key.
        dot.counter += 3;
        *dot
    }
}

impl Story {
    /// Runs the story: operations and the presenter natively, merges with `merge`.
    ///
    /// # Errors
    /// [`ScenarioError`] with what was found instead, and the steps before.
    pub fn run<P: Operator + Presenter>(&self, merge: &dyn Merge) -> Result<(), ScenarioError> {
        let (mut cluster, mut actors) = (ModelCluster::new(merge, b"story"), Actors::default());
        let mut disks: BTreeMap<&str, DiskImage> = BTreeMap::new();
        let told = self.steps.iter().try_for_each(|step| match *step {
            Step::Apply(at, operation) => applied::<P>(&mut cluster, at, operation.as_bytes(), actors.next(at)),
            Step::Update(at, update) => applied::<P>(&mut cluster, at, update, actors.next(at)),
            Step::Delete(at) => {
                let seen = cluster.read(at)?;
                cluster.delete(at, "someone", &seen);
                Ok(())
            }
            Step::Meet(one, other) => {
                cluster.sync(one, other);
                Ok(())
            }
            Step::Fold(at) => cluster.fold(at),
            Step::Copy(at) => {
                disks.insert(at, cluster.copy_disk(at));
                Ok(())
            }
            Step::Restore(at) => {
                let disk = disks.get(at).cloned().ok_or_else(|| cluster.error(format!("{at} has no copy")))?;
                actors.last.remove(at);
                cluster.restore_disk(at, disk);
                Ok(())
            }
            Step::Shown(at, wanted) => {
                cluster.expect_that(at, wanted, |value| value.is_some_and(|value| P::show(value) == wanted.as_bytes()))
            }
            Step::Answer(at, question, wanted) => cluster.expect_that(at, wanted, |value| {
                let answer = value.map(|value| P::query(value, question.as_bytes()));
                answer.is_some_and(|answer| answer == Ok(wanted.into()))
            }),
            Step::Nothing(at) => cluster.expect_nothing(at),
        });
        told.map_err(|error| ScenarioError { scenario: Some(self.about), ..error })
    }
}

/// Applies an operation to what is read at a replica, and writes the result there.
fn applied<P: Operator>(
    cluster: &mut ModelCluster<'_>,
    at: &str,
    operation: &[u8],
    dot: Dot,
) -> Result<(), ScenarioError> {
    let (seen, name) = (cluster.read(at)?, String::from_utf8_lossy(operation));
    let value = P::apply(b"story", seen.value.as_deref(), operation, dot);
    let value = value.map_err(|fault| cluster.error(format!("{name} is refused: {fault:?}")))?;
    cluster.write(at, &name, &value, &seen);
    Ok(())
}
