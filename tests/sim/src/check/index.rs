//! An index of a record, computed once for all checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;

use rejoin_proto::{Content, Dot, Object, VersionVector};

use super::Native;
use crate::history::{Answers, Asked, Basis, Call, CallId, Element, Fold, KeyId, Kind, Loss, Outcome, Run, elements};

/// A record with its calls sorted by key.
pub(super) struct Index<'a> {
    pub(super) run: &'a Run,
    pub(super) native: Native,
    /// By [`KeyId`].
    pub(super) keys: Vec<ByKey>,
    /// By [`CallId`]: of a get what it showed, of a put what its value has. In ascending order.
    shown: Vec<Rc<[Element]>>,
    /// By [`CallId`]: of a put, what its writer had been shown of what it replaces; of a cart, all that the session
    /// knew of it. In ascending order.
    observed: Vec<Rc<[Element]>>,
    /// By first attempt: the dot that a write was given.
    dots: BTreeMap<CallId, Dot>,
    /// Elements that a writer may have in its value without having seen the write that added them: its own, see
    /// [`Index::seen_after`].
    pub(super) copied: BTreeSet<(KeyId, Element)>,
    /// Gets that were answered with bytes that are no value.
    pub(super) malformed: Vec<CallId>,
    /// By place in [`Run::finals`]: the elements of its siblings. `None` if it cannot be read, or has bytes that are no
    /// value.
    held: Vec<Option<Rc<[Element]>>>,
}

/// The calls on one key.
#[derive(Default)]
pub(super) struct ByKey {
    /// Writes, each with all its attempts, in the order of the first attempts.
    pub(super) writes: Vec<Write>,
    /// Gets that were answered.
    pub(super) gets: Vec<CallId>,
    /// Places in [`Run::finals`].
    pub(super) finals: Vec<usize>,
    /// Places in [`Run::minted`].
    pub(super) minted: Vec<usize>,
}

/// A write with all attempts at it.
#[derive(Clone, Copy)]
pub(super) struct Write {
    /// The first attempt.
    pub(super) call: CallId,
    pub(super) invoked_us: u64,
    /// When its client learned that it was done.
    pub(super) acked_us: Option<u64>,
    /// Whether it may have been done: not all attempts were refused.
    pub(super) attempted: bool,
    pub(super) adds: Option<Element>,
    pub(super) expires: bool,
    pub(super) w: Answers,
}

impl<'a> Index<'a> {
    pub(super) fn new(run: &'a Run, native: Native) -> Self {
        let mut keys: Vec<ByKey> = run.keys.iter().map(|_| ByKey::default()).collect();
        let nothing: Rc<[Element]> = Rc::new([]);
        let dots = run.minted.iter().map(|minted| (first_attempt(run, minted.call), minted.dot)).collect();
        let mut index = Self {
            run,
            native,
            keys: Vec::new(),
            shown: Vec::new(),
            observed: Vec::new(),
            dots,
            copied: BTreeSet::new(),
            malformed: Vec::new(),
            held: Vec::new(),
        };
        let mut known = Decoded::default();
        // A session of carts joins what it reads with all that it has read and written of the cart before.
        let mut carts: BTreeMap<(u32, KeyId), Rc<[Element]>> = BTreeMap::new();
        // Where the write that begins with a call stands among those of its key.
        let mut places = vec![usize::MAX; run.calls.len()];
        for (id, call) in run.calls.iter().enumerate() {
            let by_key = &mut keys[call.key as usize];
            let kind = run.keys[call.key as usize].kind;
            let (mut shown, mut observed) = (nothing.clone(), nothing.clone());
            match &call.asked {
                Asked::Get { .. } => {
                    if let Some(answer) = call.answer() {
                        by_key.gets.push(id as CallId);
                        match known.elements(kind, &answer.values) {
                            Some(read) => shown = read,
                            None => index.malformed.push(id as CallId),
                        }
                    }
                }
                // It must be refused, and tells nothing of the key.
                Asked::Put { malformed: true, .. } => {}
                // It brings back what others have written.
                Asked::Undo { .. } => {}
                Asked::Put { w, basis, value, adds, expires, retry_of, .. } => {
                    if let Some(value) = value {
                        shown = known
                            .elements(kind, std::slice::from_ref(value))
                            .expect("clients write values of the key's kind");
                    }
                    // A context of another key tells nothing of this one, and must be refused.
                    if let Basis::After(basis) = *basis
                        && run.calls[basis as usize].key == call.key
                    {
                        observed = index.seen_after(basis);
                        if !index.names_itself(basis) {
                            index.copied.extend(index.shown[basis as usize].iter().map(|&element| (call.key, element)));
                        }
                    }
                    if kind == Kind::Cart {
                        let known = carts.entry((call.session, call.key)).or_insert_with(|| nothing.clone());
                        observed = union(known, &observed);
                        *known = union(&observed, &shown);
                    }
                    let first = retry_of.unwrap_or(id as CallId);
                    let given_up = index.dots.get(&first).is_some_and(|dot| run.given_up.contains(dot));
                    let acked_us = call.answer().map(|_| call.ended_us).filter(|_| !given_up);
                    let attempted = !matches!(call.outcome, Outcome::Refused);
                    let first = first as usize;
                    match by_key.writes.get_mut(places[first]) {
                        Some(write) => {
                            write.attempted |= attempted;
                            write.acked_us = [write.acked_us, acked_us].into_iter().flatten().min();
                        }
                        None => {
                            places[first] = by_key.writes.len();
                            let (call_id, invoked_us) = (first as CallId, call.invoked_us);
                            let write = Write {
                                call: call_id,
                                invoked_us,
                                acked_us,
                                attempted,
                                adds: *adds,
                                expires: *expires,
                                w: *w,
                            };
                            by_key.writes.push(write);
                        }
                    }
                }
            }
            index.shown.push(shown);
            index.observed.push(observed);
        }
        for (at, held) in run.finals.iter().enumerate() {
            keys[held.key as usize].finals.push(at);
            let kind = run.keys[held.key as usize].kind;
            index.held.push(held.object.as_ref().and_then(|object| known.held(kind, object)));
        }
        for (at, minted) in run.minted.iter().enumerate() {
            keys[run.calls[minted.call as usize].key as usize].minted.push(at);
        }
        index.keys = keys;
        index
    }

    /// The elements that a get showed, or that a put's value has.
    pub(super) fn shown(&self, call: CallId) -> &[Element] {
        &self.shown[call as usize]
    }

    /// What the writer of a put had been shown of what it replaces.
    pub(super) fn observed(&self, call: CallId) -> &[Element] {
        &self.observed[call as usize]
    }

    /// What a client has been shown when it holds the context of that call: of a get what it was shown, of a put also
    /// what that replaced. A put's context may leave out the put itself, where it could not be named without a sibling
    /// that its writer has not seen.
    fn seen_after(&self, call: CallId) -> Rc<[Element]> {
        let (shown, observed) = (&self.shown[call as usize], &self.observed[call as usize]);
        if self.names_itself(call) { union(shown, observed) } else { observed.clone() }
    }

    /// Whether the context that a call was answered with names the write that it was. A get was none.
    fn names_itself(&self, call: CallId) -> bool {
        let dot = self.dots.get(&first_attempt(self.run, call));
        dot.is_none_or(|dot| context(self.call(call)).is_some_and(|context| context.contains(*dot)))
    }

    /// The elements that a writer had seen and its value does not have.
    pub(super) fn removed(&self, write: &Write) -> impl Iterator<Item = Element> + '_ {
        let kept = self.shown(write.call);
        self.observed(write.call).iter().copied().filter(|element| kept.binary_search(element).is_err())
    }

    /// Elements that may be gone once this write may have taken effect: what it removed, or everything in it if it
    /// expires; and what the bad version of a plugin had hidden from its writer.
    pub(super) fn may_end(&self, write: &Write) -> impl Iterator<Item = Element> + '_ {
        let expiring = if write.expires { self.shown(write.call) } else { &[] };
        self.removed(write).chain(expiring.iter().copied()).chain(self.hidden(write))
    }

    /// Elements of writes that a writer has replaced and was not shown, because the bad version of the plugin had
    /// merged them away.
    fn hidden(&self, write: &Write) -> Vec<Element> {
        let key = self.call(write.call).key;
        let spoiled = self.run.spoiled.get(&key).filter(|spoiled| write.invoked_us >= spoiled.from_us);
        let Some(seen) = spoiled.and_then(|_| self.seen(write.call)) else { return Vec::new() };
        let replaced =
            |other: &&Write| other.call != write.call && self.dot(other).is_some_and(|dot| seen.contains(dot));
        let elements = self.keys[key as usize].writes.iter().filter(replaced).flat_map(|other| self.shown(other.call));
        elements.copied().filter(|element| self.observed(write.call).binary_search(element).is_err()).collect()
    }

    /// The dot of a write.
    pub(super) fn dot(&self, write: &Write) -> Option<Dot> {
        self.dots.get(&write.call).copied()
    }

    /// Whether a call may have been shown less than there was, because of the bad version of the key's plugin.
    pub(super) fn is_spoiled(&self, key: KeyId, call: &Call) -> bool {
        let spoiled = self.run.spoiled.get(&key);
        spoiled.is_some_and(|spoiled| spoiled.from_us <= call.ended_us && call.invoked_us < spoiled.until_us)
    }

    /// The folds of a key whose receipts are lost: they have gone for want of room, or their node's disk has lost
    /// something since.
    pub(super) fn folds_beyond_undo(&self, key: KeyId) -> impl Iterator<Item = &Fold> {
        let is_lost = |fold: &&Fold| {
            let after = |loss: &Loss| loss.node == fold.node && loss.at_us >= fold.at_us;
            fold.given_up || self.run.losses.iter().any(after)
        };
        self.run.folds.iter().filter(move |fold| fold.key == key).filter(is_lost)
    }

    /// The elements of writes that have gone into a fold which cannot be undone: what the bad version has made of them
    /// stays.
    pub(super) fn beyond_undo(&self, key: KeyId) -> Vec<Element> {
        if !self.run.spoiled.contains_key(&key) {
            return Vec::new();
        }
        let folds: Vec<&Fold> = self.folds_beyond_undo(key).collect();
        let is_in = |write: &&Write| {
            let is_folded = |dot: Dot| folds.iter().any(|fold| fold.covers.contains(dot));
            self.run.receipts_given_up || self.dot(write).is_some_and(is_folded)
        };
        let writes = self.keys[key as usize].writes.iter().filter(is_in);
        writes.flat_map(|write| self.shown(write.call).iter().copied()).collect()
    }

    pub(super) fn call(&self, call: CallId) -> &Call {
        &self.run.calls[call as usize]
    }

    /// The context of a write. `None` if the record does not tell.
    pub(super) fn seen(&self, call: CallId) -> Option<VersionVector> {
        let Asked::Put { basis, .. } = &self.call(call).asked else { return None };
        match *basis {
            Basis::Blind => Some(VersionVector::new()),
            Basis::After(basis) => context(self.call(basis)).cloned(),
            // A create's own reply tells what it had found: its context has that and its own dot.
            Basis::Create => context(self.call(call)).cloned(),
        }
    }

    /// The elements of an owner's siblings in the end, in ascending order. `None` if its copy cannot be read.
    pub(super) fn held(&self, at: usize) -> Option<&[Element]> {
        self.held[at].as_deref()
    }

    pub(super) fn kind(&self, key: KeyId) -> Kind {
        self.run.keys[key as usize].kind
    }
}

/// Carts that were decoded. Calls and owners show the same ones again and again, and decoding JSON is slow.
#[derive(Default)]
struct Decoded<'a>(BTreeMap<&'a [u8], Rc<[Element]>>);

impl<'a> Decoded<'a> {
    /// As [`elements`].
    fn elements(&mut self, kind: Kind, values: &'a [Bytes]) -> Option<Rc<[Element]>> {
        match (kind, values) {
            (Kind::Cart, [cart]) => self.cart(cart),
            _ => elements(kind, values).map(Rc::from),
        }
    }

    /// The elements of an object's siblings.
    fn held(&mut self, kind: Kind, object: &'a Object) -> Option<Rc<[Element]>> {
        let value = |content: &'a Content| match content {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        };
        let values: Vec<&'a Bytes> = object.entries.iter().filter_map(|entry| value(&entry.content)).collect();
        match (kind, &values[..]) {
            (Kind::Cart, [cart]) => self.cart(cart),
            _ => elements(kind, &values.into_iter().cloned().collect::<Vec<_>>()).map(Rc::from),
        }
    }

    fn cart(&mut self, cart: &'a Bytes) -> Option<Rc<[Element]>> {
        if let Some(known) = self.0.get(&cart[..]) {
            return Some(known.clone());
        }
        let decoded: Rc<[Element]> = elements(Kind::Cart, std::slice::from_ref(cart))?.into();
        self.0.insert(cart, decoded.clone());
        Some(decoded)
    }
}

fn union(a: &Rc<[Element]>, b: &Rc<[Element]>) -> Rc<[Element]> {
    if a.is_empty() || b.is_empty() {
        return if a.is_empty() { b.clone() } else { a.clone() };
    }
    let mut both: Vec<Element> = a.iter().chain(b.iter()).copied().collect();
    both.sort_unstable();
    both.dedup();
    both.into()
}

/// The context that a call was answered with, also beside an *unknown*.
pub(super) fn context(call: &Call) -> Option<&VersionVector> {
    match &call.outcome {
        Outcome::Ok(answer) => Some(&answer.context),
        Outcome::Unknown(context) => context.as_ref(),
        Outcome::Refused => None,
    }
}

/// The call with which a write began.
pub(super) fn first_attempt(run: &Run, call: CallId) -> CallId {
    match run.calls[call as usize].asked {
        Asked::Put { retry_of: Some(first), .. } => first,
        _ => call,
    }
}
