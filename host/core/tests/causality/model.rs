//! A few replicas of one key, beside what is true of them: every write with exactly the writes that its writer had been
//! shown, as plain sets. The sets know nothing of contexts and spans, so they catch what those get wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use rejoin_core::causal::{self, Write};
use rejoin_proto::{ActorId, Content, Dot, FoldedBy, Hlc, Object, PluginDigest, ProfileId, VersionVector};

pub(crate) const REPLICAS: usize = 3;

/// One thing that happens. The numbers choose among what there is then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A write or delete at a replica, with the context of that number among those handed out so far (0 is none).
    Put { at: usize, context: usize, tombstone: bool },
    /// A client reads a replica and keeps the context.
    Read { at: usize },
    /// One replica's object reaches another; what is not drawn was lost on the way.
    Deliver { from: usize, to: usize },
    /// What one replica had some time ago reaches another.
    DeliverOld { which: usize, to: usize },
    /// A replica folds what is visible, by one of two plugin versions.
    Fold { at: usize, plugin: u8 },
    /// A replica ends its tenure.
    NewActor { at: usize },
}

pub(crate) fn steps(folds: bool) -> impl Strategy<Value = Vec<Step>> {
    let at = 0..REPLICAS;
    let put = (at.clone(), any::<usize>(), prop::bool::weighted(0.25));
    let put = put.prop_map(|(at, context, tombstone)| Step::Put { at, context, tombstone });
    let deliver = (at.clone(), at.clone()).prop_map(|(from, to)| Step::Deliver { from, to });
    let old = (any::<usize>(), at.clone()).prop_map(|(which, to)| Step::DeliverOld { which, to });
    let fold = (at.clone(), 0..2u8).prop_map(|(at, plugin)| Step::Fold { at, plugin });
    let (read, actor) = (at.clone().prop_map(|at| Step::Read { at }), at.prop_map(|at| Step::NewActor { at }));
    vec(
        prop_oneof![6 => put, 3 => read, 5 => deliver, 2 => old, (if folds { 4 } else { 0 }) => fold, 1 => actor],
        1..40,
    )
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    pub(crate) object: Object,
    /// The dots of every write that this replica was ever told of, itself or through another.
    known: BTreeSet<Dot>,
    actor: u64,
    next: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) replicas: Vec<Replica>,
    /// Each write, and whether it is a tombstone.
    pub(crate) minted: BTreeMap<Dot, bool>,
    /// Every write that some writer had been shown when it wrote: the only ones that may be gone.
    pub(crate) overwritten: BTreeSet<Dot>,
    /// Those of them that a context named in its cloud: they may leave holes between live writes of their actor.
    pub(crate) clouded: BTreeSet<Dot>,
    contexts: Vec<(VersionVector, BTreeSet<Dot>)>,
    past: Vec<(Object, BTreeSet<Dot>)>,
    actors: u64,
}

impl Model {
    pub(crate) fn run(steps: &[Step]) -> Self {
        let replicas =
            (0..REPLICAS).map(|at| Replica { actor: at as u64 + 1, next: 1, ..Replica::default() }).collect();
        let mut model = Self {
            replicas,
            minted: BTreeMap::new(),
            overwritten: BTreeSet::new(),
            clouded: BTreeSet::new(),
            contexts: vec![Default::default()],
            past: vec![Default::default()],
            actors: REPLICAS as u64,
        };
        for &step in steps {
            model.step(step);
            model.check();
        }
        model
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put { at, context, tombstone } => self.put(at, context, tombstone),
            Step::Read { at } => {
                let replica = &self.replicas[at];
                self.contexts.push((replica.object.context.clone(), replica.known.clone()));
            }
            Step::Deliver { from, to } => {
                let (object, known) = (self.replicas[from].object.clone(), self.replicas[from].known.clone());
                self.past.push((object.clone(), known.clone()));
                self.absorb(to, &object, &known);
            }
            Step::DeliverOld { which, to } => {
                let (object, known) = self.past[which % self.past.len()].clone();
                self.absorb(to, &object, &known);
            }
            Step::Fold { at, plugin } => fold(&mut self.replicas[at].object, plugin),
            Step::NewActor { at } => {
                self.actors += 1;
                (self.replicas[at].actor, self.replicas[at].next) = (self.actors, 1);
            }
        }
    }

    fn put(&mut self, at: usize, context: usize, tombstone: bool) {
        let (seen, shown) = self.contexts[context % self.contexts.len()].clone();
        let replica = &mut self.replicas[at];
        let dot = Dot { actor: ActorId(replica.actor), counter: replica.next };
        // Counters are the actor's and not the key's: other keys have taken some.
        replica.next += 1 + (context as u64 % 3);
        let text = format!("{}.{}", dot.actor.0, dot.counter);
        let content = if tombstone { Content::Tombstone } else { Content::Value(text.into()) };
        causal::put(
            &mut replica.object,
            Write { seen: seen.clone(), dot, content, stamp: Hlc(dot.counter), expires: None },
        );
        replica.known.extend(shown.iter().copied().chain([dot]));
        self.overwritten.extend(shown.iter().copied());
        self.clouded
            .extend(self.minted.keys().copied().filter(|other| seen.cloud().iter().any(|run| run.holds(*other))));
        self.minted.insert(dot, tombstone);

        let view = causal::writers_view(&replica.object, &seen, dot);
        assert!(
            view.contains(dot) && view.covers(&seen),
            "a writer is told of its own write, and of nothing less than it knew: {view:?}"
        );
        let mut told = shown;
        told.insert(dot);
        for (unseen, tombstone) in
            self.minted.iter().filter(|(other, _)| view.contains(**other) && !told.contains(other))
        {
            // A tombstone may have been dropped by a fold; its effect is in the context, and nothing is lost by naming
            // it.
            let harmless = *tombstone || self.overwritten.contains(unseen);
            assert!(harmless, "the writer of {dot:?} is told to have seen {unseen:?}, which is live");
        }
        self.contexts.push((view, told));
    }

    fn absorb(&mut self, to: usize, object: &Object, known: &BTreeSet<Dot>) {
        let replica = &mut self.replicas[to];
        let (joined, alarm) = causal::sync(&replica.object, object);
        assert_eq!(alarm, None, "no dot has two values here");
        replica.object = joined;
        replica.known.extend(known);
    }

    pub(crate) fn live(&self, object: &Object) -> BTreeSet<Dot> {
        self.minted.keys().copied().filter(|&dot| object.entries.iter().any(|entry| entry.dots.contains(dot))).collect()
    }

    /// What must be true at every moment.
    fn check(&self) {
        for replica in &self.replicas {
            let (object, live) = (&replica.object, self.live(&replica.object));
            for (&dot, &tombstone) in &self.minted {
                let seen = object.context.contains(dot);
                assert!(seen || !replica.known.contains(&dot), "{dot:?} is forgotten");
                assert!(seen || !live.contains(&dot), "{dot:?} is live and not in the context");
                let may_be_gone = self.overwritten.contains(&dot) || tombstone;
                assert!(
                    !seen || live.contains(&dot) || may_be_gone,
                    "{dot:?} was lost: nobody who overwrote it had seen it"
                );
            }
            for entry in &object.entries {
                assert!(!entry.dots.is_empty() && entry.dots.is_subset(&entry.covers), "{entry:?}");
            }
        }
    }

    /// Lets all replicas meet until nothing changes; returns the state they end in.
    pub(crate) fn settle(&mut self) -> Object {
        for round in 0.. {
            assert!(round < 10, "the replicas never agree: {:#?}", self.replicas);
            let before: Vec<Object> = self.replicas.iter().map(|replica| replica.object.clone()).collect();
            for (from, to) in [(0, 1), (1, 2), (2, 0), (2, 1), (1, 0)] {
                self.step(Step::Deliver { from, to });
            }
            self.check();
            if self.replicas.iter().zip(&before).all(|(replica, before)| replica.object == *before) {
                break;
            }
        }
        let end = self.replicas[0].object.clone();
        assert!(self.replicas.iter().all(|replica| replica.object == end), "{:#?}", self.replicas);
        end
    }
}

/// Folds what is visible by a plugin version that shows in the value.
pub(crate) fn fold(object: &mut Object, plugin: u8) {
    let inputs = causal::visible(object, 0);
    if inputs.len() > 1 {
        let siblings = causal::siblings(&inputs);
        let values: Vec<_> = siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value)).collect();
        let merged = format!("v{plugin}({})", values.join(" "));
        let by = FoldedBy { plugin: PluginDigest([plugin; 32]), profile: ProfileId(1) };
        assert!(causal::fold(object, &inputs, merged.into(), Some(by)), "its inputs are there");
    }
}
