//! The rules that keep a shard sound, by name, so that tests can break one and see that it is missed.
//!
//! A test that passes proves little unless it fails where it should. So each rule stands here once, as one bit of [`Rules`], and at the
//! place where it is kept the core asks whether it is. A shard of [`Shard::open`](crate::shard::Shard::open) keeps all of them; only
//! tests open one with [`Shard::open_with`](crate::shard::Shard::open_with) that does not. That is an argument and never a cargo
//! feature, because features unify across a workspace, and a node could be built without a rule.

use alloc::vec::Vec;
use bytes::Bytes;

use rejoin_proto::{Content, Entry, FoldedBy, Object, Run, VersionVector};

use crate::causal::{self, OneDotTwoValues, Write};

/// What stands before the vector in a context's token, see `rejoin_proto::context`.
const SEAL_BYTES: usize = 18;

/// Declares the rules and the list of them, so that none is missing there.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One rule. The first words of each say what is so while it is kept.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

rules! {
    /// After a loss of data, or a crash that may have been one, no actor goes on.
    LossEndsTenures,
    /// A copy that cannot be read ends the tenure of its partition's actor.
    DamageEndsATenure,
    /// The end of a tenure that the store did not take is owed until it does.
    EndsAreOwed,
    /// A start ends every actor of which something was observed: that is noted of an actor that has ended only.
    ObservedEndsATenure,
    /// A stored copy that names a counter which the actor has not used yet ends the tenure.
    CopiesEndATenure,
    /// An objection is judged by the counter that the actor has come to, and not by the one that was announced.
    ObjectionsAreJudgedNow,
    /// A copy that cannot be read is lost: what comes in takes its place, behind the end of the tenure.
    UnreadableIsReplaced,
    /// A peer that has seen a counter which an announced actor has not used yet says so.
    PeersObject,
    /// What a peer objects ends the tenure.
    ObjectionsEndATenure,
    /// A context that names a counter which the actor has not used yet ends the tenure before anything is minted.
    ContextsEndATenure,
    /// *Superseded* by a context that has seen more of the minting actor than its node's own copy does not count towards W.
    OutrunWritesAreNotAcked,
    /// The copies of a replica whose data directory was replaced do not count towards R.
    ReplacedReplicasDoNotCount,
    /// What was seen of other actors survives a restart.
    ObservedIsDurable,
    /// Nothing is written before the peers have had their time to object.
    WritesWaitForServing,
    /// Of two buckets that were made under one name each keeps its own id and number of copies.
    RacesRenumberNoBucket,
    /// A starting node lets nobody in before its catalog has everything that its peers have.
    CatalogsAreEqualAtTheStart,
    /// A start that has not met every peer ends the tenures that it has kept.
    UnmetPeersEndTenures,
    /// An acknowledgement under `durability = fsync` waits for the disk.
    AcksWaitForTheDisk,
    /// A write that the store did not take leaves the node for nowhere.
    RefusedIsNotSent,
    /// A node counts once towards W.
    NodesCountOnce,
    /// A refusal does not count towards W.
    RefusalsDoNotCount,
    /// An error does not count towards R.
    ErrorsAreNoCopies,
    /// A copy that cannot be read is not taken for an absent one.
    UnreadableIsNotAbsent,
    /// An answer to what the last run asked answers nothing in this one.
    RunsNumberApart,
    /// A join keeps what both sides have, and not what came last.
    JoinsKeepBoth,
    /// A join keeps concurrent values side by side, and not the one with the latest stamp.
    SiblingsStay,
    /// One dot under two values keeps both, with an alarm.
    ClashesAreKept,
    /// A write takes the place of what its writer had seen.
    WritesReplaceWhatWasSeen,
    /// What a writer had seen is remembered, also where it had not arrived.
    ContextsAreRemembered,
    /// The context of a put's reply names no write that its writer was not shown.
    WritersAreToldTheirOwn,
    /// The context of a read names no write that came while the plugin ran.
    ReadersAreToldWhatIsShown,
    /// A context opens its own key only.
    ContextsOpenOneKey,
    /// The result of a merge is stored only while its inputs are there unchanged.
    LateMergesAreDropped,
    /// What a fold drops stays seen.
    FoldsForgetNothing,
    /// A folded value speaks for every write of its inputs, and not only for the latest.
    RunsAreWhole,
    /// A tombstone is no value: it is not shown, and a fold does not speak for it.
    TombstonesAreNoValues,
    /// A merge that fails chooses no value.
    FailuresChooseNothing,
    /// An expired value is not shown.
    ExpiredIsHidden,
    /// An expired value is dropped only when it has expired by every clock.
    ExpiryWaitsForSkew,
    /// A stamp that no honest clock can have given moves no clock.
    FutureStampsMoveNothing,
    /// An object above its bucket's limits takes no write that leaves it so.
    LimitsAreKept,
    /// At the limit a write is refused rather than a value dropped.
    LimitsDropNothing,
    /// A write that has seen everything passes every limit.
    FullContextsPass,
    /// Rows of retries age by the time that the shard has run, and not by the wall clock.
    RetriesAgeByRunningTime,
    /// A retry is recognised after a restart.
    RetriesOutliveRestarts,
    /// A retry is recognised after its value is gone: deleted, overwritten or folded.
    RetriesOutliveTheirValue,
    /// A retry of what this node cannot know of is answered *unknown*.
    StrangeRetriesAreUnknown,
    /// Requests under way hold no more bytes than they may.
    BytesAreBounded,
    /// A read repairs the owners that were behind.
    ReadsRepair,
    /// A value that the bucket's plugin refuses is not written.
    InvalidIsNotWritten,
}

// Each rule is a bit of `Rules::broken`.
const _: () = assert!(Rule::ALL.len() <= 64, "there are more rules than bits for them");

/// Which of the rules are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    broken: u64,
}

impl Rules {
    /// All of them.
    pub const SOUND: Self = Self { broken: 0 };

    /// These without one.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self { broken: self.broken | 1 << rule as u8 }
    }

    /// Whether a rule is kept.
    #[must_use]
    pub const fn keep(self, rule: Rule) -> bool {
        self.broken & 1 << rule as u8 == 0
    }

    /// What a token says, whosever it is, if [`Rule::ContextsOpenOneKey`] is broken.
    pub(crate) fn unsealed(self, token: &[u8]) -> Option<VersionVector> {
        let vector = token.get(SEAL_BYTES..).filter(|_| !self.keep(Rule::ContextsOpenOneKey))?;
        postcard::from_bytes(vector).ok()
    }

    /// [`causal::sync`].
    pub(crate) fn sync(self, local: &Object, incoming: &Object) -> (Object, Option<OneDotTwoValues>) {
        if !self.keep(Rule::JoinsKeepBoth) {
            return (incoming.clone(), None);
        }
        let (mut joined, mut alarm) = causal::sync(local, incoming);
        if !self.keep(Rule::SiblingsStay) {
            joined.entries = joined.entries.into_iter().max_by_key(|entry| entry.stamp).into_iter().collect();
        }
        if !self.keep(Rule::ClashesAreKept) && alarm.take().is_some() {
            joined.entries.dedup_by(|a, b| a.dots == b.dots);
        }
        (joined, alarm)
    }

    /// [`causal::put`].
    pub(crate) fn put(self, object: &mut Object, mut write: Write) {
        if !self.keep(Rule::WritesReplaceWhatWasSeen) {
            write.seen = VersionVector::new();
        }
        let forgetful = (!self.keep(Rule::ContextsAreRemembered)).then(|| (object.context.clone(), write.dot));
        causal::put(object, write);
        if let Some((before, dot)) = forgetful {
            object.context = before;
            object.context.insert(dot);
        }
    }

    /// [`causal::fold`].
    pub(crate) fn fold(self, object: &mut Object, inputs: &[Entry], merged: Bytes, by: Option<FoldedBy>) -> bool {
        let is_late = !self.keep(Rule::LateMergesAreDropped) && !inputs.iter().all(|input| object.entries.contains(input));
        if is_late {
            object.entries.retain(|entry| !inputs.contains(entry));
            object.entries.extend_from_slice(inputs);
            *object = causal::sync(object, object).0;
        }
        let folded = causal::fold(object, inputs, merged, by);
        if folded && !self.keep(Rule::FoldsForgetNothing) {
            object.context = object.entries.iter().flat_map(|entry| entry.dots.highest()).collect();
        }
        if folded && !self.keep(Rule::RunsAreWhole) {
            for entry in object.entries.iter_mut().filter(|entry| !entry.is_unfolded()) {
                let latest = entry.dots.highest().max();
                entry.dots = latest.iter().map(|dot| Run { actor: dot.actor, lo: dot.counter - 1, hi: dot.counter }).collect();
            }
        }
        folded
    }

    /// [`causal::visible`].
    pub(crate) fn visible(self, object: &Object, now_ms: u64) -> Vec<Entry> {
        let mut shown = causal::visible(object, if self.keep(Rule::ExpiredIsHidden) { now_ms } else { 0 });
        if !self.keep(Rule::TombstonesAreNoValues) {
            shown.extend(object.entries.iter().filter(|entry| entry.content == Content::Tombstone).cloned());
        }
        shown
    }

    /// [`causal::drop_expired`].
    pub(crate) fn drop_expired(self, object: &mut Object, now_ms: u64, max_skew_ms: u64) {
        causal::drop_expired(object, now_ms, if self.keep(Rule::ExpiryWaitsForSkew) { max_skew_ms } else { 0 });
    }
}
