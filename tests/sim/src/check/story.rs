//! Histories for the checkers' own tests: three replicas of one key, written and read through the real algebra, and
//! then broken by the test.

use bytes::Bytes;

use rejoin_core::causal::{self, Write};
use rejoin_laws::{Merge, Sibling};
use rejoin_plugin_cart::Cart;
use rejoin_proto::catalog::Durability;
use rejoin_proto::{
    ActorId, Content, Dot, DotSet, Entry, FoldedBy, Hlc, Object, PluginDigest, ProfileId, VersionVector,
};

use super::index::{Index, context};
use super::{Check, Finding};
use crate::history::{
    Answer, Answers, Asked, Basis, Call, CallId, Element, Final, Fold, Key, KeyId, Kind, Loss, Minted, Outcome, Run,
    Spoiled, elements, set_bytes,
};

const MS: u64 = 1000;

pub(super) struct Story {
    pub(super) run: Run,
    pub(super) replicas: [Object; 3],
    kind: Kind,
    now_us: u64,
    counters: [u64; 3],
    adds: u32,
}

impl Story {
    pub(super) fn new(kind: Kind) -> Self {
        let key = Key {
            kind,
            owners: vec![0, 1, 2],
            durability: Durability::Fsync,
            siblings: 32,
            folds: kind != Kind::Set,
            fallbacks: 0,
            later_fallbacks: 0,
            moves: false,
            later_owners: 0,
            strict_from_us: None,
            tenant: 0,
        };
        let run = Run { keys: vec![key], ..Run::default() };
        Self { run, replicas: Default::default(), kind, now_us: 0, counters: [0; 3], adds: 0 }
    }

    /// The time of the next call at the earliest.
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The tag of an element, as it stands in a cart.
    pub(super) fn tag(element: Element) -> String {
        format!("{}:{}", Element::writer((element.0 >> 32) as u32), element.0 & 0xffff_ffff)
    }

    fn call(&mut self, node: usize, asked: Asked, outcome: Outcome) -> CallId {
        self.now_us += MS;
        let call = Call {
            session: node as u32,
            node: node as u8,
            key: 0,
            invoked_us: self.now_us,
            ended_us: self.now_us + MS / 2,
            asked,
            outcome,
        };
        self.run.calls.push(call);
        (self.run.calls.len() - 1) as CallId
    }

    /// Adds an element of its own to `known`, acknowledged by two.
    pub(super) fn add(&mut self, node: usize, basis: Basis, known: &[Element]) -> (CallId, Element) {
        self.adds += 1;
        // A session for each add: in a cart, an element's clock then covers no other.
        let element = Element::new(self.adds, 1);
        let with: Vec<Element> = known.iter().copied().chain([element]).collect();
        (self.write(node, basis, &with, Some(element), &[]), element)
    }

    /// Writes these elements; a cart also knows of those that it `removed`.
    pub(super) fn write(
        &mut self,
        node: usize,
        basis: Basis,
        with: &[Element],
        adds: Option<Element>,
        removed: &[Element],
    ) -> CallId {
        let value = match self.kind {
            Kind::Set | Kind::Latest => set_bytes(with.iter().copied()),
            Kind::Cart => cart(with, removed),
        };
        self.put(node, basis, Some(value), adds)
    }

    /// Adds an element after a call, whose context lost its cloud at the bound on spans.
    pub(super) fn add_without_cloud(&mut self, node: usize, after: CallId) {
        let full = context(&self.run.calls[after as usize]).cloned().expect("a context");
        self.answer_mut(after).context.drop_cloud();
        self.add(node, Basis::After(after), &[]);
        self.answer_mut(after).context = full;
        self.run.minted.last_mut().expect("it was minted").cloudless = true;
    }

    pub(super) fn delete(&mut self, node: usize, basis: Basis) -> CallId {
        self.put(node, basis, None, None)
    }

    /// A create: what its coordinator has seen is what it replaces.
    pub(super) fn create(&mut self, node: usize) -> CallId {
        self.adds += 1;
        let element = Element::new(self.adds, 1);
        self.put(node, Basis::Create, Some(set_bytes([element])), Some(element))
    }

    fn put(&mut self, node: usize, basis: Basis, value: Option<Bytes>, adds: Option<Element>) -> CallId {
        let seen = match basis {
            Basis::Blind => VersionVector::new(),
            Basis::After(call) => context(&self.run.calls[call as usize]).cloned().expect("a context"),
            Basis::Create => self.replicas[node].context.clone(),
        };
        self.counters[node] += 1;
        let dot = Dot { actor: ActorId(node as u64 + 1), counter: self.counters[node] };
        let content = value.clone().map_or(Content::Tombstone, Content::Value);
        let asked = Asked::Put { w: 2.into(), basis, value, adds, expires: false, malformed: false, retry_of: None };
        let call = self.call(node, asked, Outcome::Refused);
        let stamp = Hlc::from_ms(self.now_us);
        causal::put(&mut self.replicas[node], Write { seen: seen.clone(), dot, content, stamp, expires: None });
        self.run.minted.push(Minted {
            call,
            node: node as u8,
            at_us: self.now_us,
            dot,
            stamp,
            expires: None,
            cloudless: false,
            restored: None,
        });
        let context = causal::writers_view(&self.replicas[node], &seen, dot);
        self.run.calls[call as usize].outcome = Outcome::Ok(Answer { values: Vec::new(), context });
        call
    }

    /// Counters that the node's actor uses for other keys.
    pub(super) fn skip_counters(&mut self, node: usize, count: u64) {
        self.counters[node] += count;
    }

    /// A read that one replica answers for two.
    pub(super) fn get(&mut self, node: usize) -> CallId {
        let object = &self.replicas[node];
        let values = causal::siblings(&causal::visible(object, 0)).into_iter().map(|sibling| sibling.value).collect();
        let answer = Answer { values, context: object.context.clone() };
        self.call(node, Asked::Get { r: 2.into() }, Outcome::Ok(answer))
    }

    /// What a read showed.
    pub(super) fn shown(&self, call: CallId) -> Vec<Element> {
        let answer = self.run.calls[call as usize].answer().expect("it was answered");
        elements(self.kind, &answer.values).expect("values of the kind")
    }

    pub(super) fn answer_mut(&mut self, call: CallId) -> &mut Answer {
        match &mut self.run.calls[call as usize].outcome {
            Outcome::Ok(answer) => answer,
            other => panic!("not answered: {other:?}"),
        }
    }

    /// The record is one of real processes.
    pub(super) fn forget_dots(&mut self) {
        self.run.minted.clear();
        self.run.dots_unknown = true;
    }

    pub(super) fn read_quorum(&mut self, call: CallId, r: Answers) {
        self.run.calls[call as usize].asked = Asked::Get { r };
    }

    pub(super) fn write_quorum(&mut self, call: CallId, answers: Answers) {
        if let Asked::Put { w, .. } = &mut self.run.calls[call as usize].asked {
            *w = answers;
        }
    }

    /// The client was told that nothing was done.
    pub(super) fn refuse(&mut self, call: CallId) {
        self.run.calls[call as usize].outcome = Outcome::Refused;
    }

    /// The client was told nothing.
    pub(super) fn forget_answer(&mut self, call: CallId) {
        self.run.calls[call as usize].outcome = Outcome::Unknown(None);
    }

    /// The client asks the same again, and is told that it was done.
    pub(super) fn retry(&mut self, call: CallId) -> CallId {
        let mut again = self.run.calls[call as usize].asked.clone();
        if let Asked::Put { retry_of, .. } = &mut again {
            *retry_of = Some(call);
        }
        let context = self.replicas[0].context.clone();
        self.call(0, again, Outcome::Ok(Answer { values: Vec::new(), context }))
    }

    /// That write had a time to live, which is over.
    pub(super) fn expire(&mut self, call: CallId) {
        let Asked::Put { expires, .. } = &mut self.run.calls[call as usize].asked else { panic!("a put") };
        *expires = true;
        let minted = self.run.minted.iter_mut().find(|minted| minted.call == call).expect("its dot");
        minted.expires = Some(Hlc::from_ms(1));
        for entry in self
            .replicas
            .iter_mut()
            .flat_map(|replica| &mut replica.entries)
            .filter(|entry| entry.dots.contains(minted.dot))
        {
            entry.expires = minted.expires;
        }
    }

    /// A disk has lost what was synced.
    /// Whether the nodes know by now that what they have lost was the whole disk.
    pub(super) fn losses_are_known(&mut self, known: bool) {
        let known_us = known.then_some(self.now_us);
        self.run.losses.iter_mut().for_each(|loss| loss.known_us = known_us);
    }

    pub(super) fn loss(&mut self, node: u8) {
        self.now_us += MS;
        self.run.losses.push(Loss { node, at_us: self.now_us, synced: true, wiped: false, known_us: None });
    }

    pub(super) fn another_key(&mut self) -> KeyId {
        self.run.keys.push(self.run.keys[0].clone());
        (self.run.keys.len() - 1) as KeyId
    }

    /// Folds what one replica shows.
    pub(super) fn fold(&mut self, node: usize) {
        let inputs = causal::visible(&self.replicas[node], 0);
        let values: Vec<Bytes> = causal::siblings(&inputs).into_iter().map(|sibling| sibling.value).collect();
        let merged = set_bytes(elements(self.kind, &values).expect("values of the kind"));
        let by = FoldedBy { plugin: PluginDigest([1; 32]), profile: ProfileId(1) };
        assert!(causal::fold(&mut self.replicas[node], &inputs, merged, Some(by)));
    }

    /// The bad version of the plugin folds what one replica shows to the first of its values. Its node keeps the
    /// receipt, and all that comes of it is returned: the dots of the fold, and what it was made of.
    pub(super) fn fold_badly(&mut self, node: usize) -> (DotSet, Vec<Entry>) {
        let inputs = causal::visible(&self.replicas[node], 0);
        let values: Vec<Bytes> = causal::siblings(&inputs).into_iter().map(|sibling| sibling.value).collect();
        let least = values.iter().min().expect("values").clone();
        let by = FoldedBy { plugin: PluginDigest([9; 32]), profile: ProfileId(1) };
        assert!(causal::fold(&mut self.replicas[node], &inputs, least, Some(by)));
        let made = self.replicas[node].entries.iter().find(|entry| entry.folded_by == Some(by)).expect("a fold");
        let (dots, covers) = (made.dots.clone(), made.covers.clone());
        let (plugin, at_us) = (by.plugin, self.now_us);
        self.run.bad.insert(plugin);
        self.run.spoiled.insert(0, Spoiled { from_us: at_us, until_us: u64::MAX });
        let fold = Fold {
            key: 0,
            node: node as u8,
            at_us,
            plugin,
            inputs: values,
            dots: dots.clone(),
            covers,
            given_up: false,
        };
        self.run.folds.push(fold);
        (dots, inputs)
    }

    /// An operator undoes a fold at a node.
    pub(super) fn undo(&mut self, node: usize, (dots, inputs): &(DotSet, Vec<Entry>)) -> CallId {
        let seen = causal::context_of(dots);
        let asked = Asked::Undo {
            seen: seen.clone(),
            inputs: inputs.iter().map(|input| input.content.clone()).collect(),
            stood_for: inputs.iter().map(|input| input.dots.clone()).collect(),
            malformed: false,
        };
        let call = self.call(node, asked, Outcome::Ok(Answer::default()));
        let stamp = Hlc::from_ms(self.now_us);
        for (place, input) in inputs.iter().enumerate() {
            self.counters[node] += 1;
            let dot = Dot { actor: ActorId(node as u64 + 1), counter: self.counters[node] };
            let (seen, content) = (seen.clone(), input.content.clone());
            causal::put(&mut self.replicas[node], Write { seen, dot, content, stamp, expires: None });
            self.run.minted.push(Minted {
                call,
                node: node as u8,
                at_us: self.now_us,
                dot,
                stamp,
                expires: None,
                cloudless: false,
                restored: Some(place),
            });
        }
        call
    }

    /// All replicas meet.
    pub(super) fn settle(&mut self) {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (2, 1), (1, 0)] {
            self.replicas[to] = causal::sync(&self.replicas[to], &self.replicas[from]).0;
        }
    }

    /// What the replicas have is what the owners end with.
    pub(super) fn end(&mut self) {
        let held = self.replicas.iter().enumerate();
        self.run.finals =
            held.map(|(node, object)| Final { key: 0, node: node as u8, object: Some(object.clone()) }).collect();
    }

    pub(super) fn findings(&self, check: Check) -> Vec<String> {
        let mut findings: Vec<Finding> = Vec::new();
        check(&Index::new(&self.run, native), &mut findings);
        findings.into_iter().map(|finding| finding.evidence).collect()
    }
}

fn native(_kind: Kind) -> &'static dyn Merge {
    &Union
}

/// Sets united.
struct Union;

impl Merge for Union {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> rejoin_laws::MergeResult {
        let values: Vec<Bytes> = siblings.iter().map(|sibling| sibling.value.clone().into()).collect();
        elements(Kind::Set, &values).map(|united| set_bytes(united).into()).ok_or_else(|| "no set".into())
    }
}

/// A cart that has these adds and has removed those.
fn cart(with: &[Element], removed: &[Element]) -> Bytes {
    let mut cart = Cart::default();
    for element in with.iter().chain(removed) {
        cart.add(&Element::writer((element.0 >> 32) as u32), &Story::tag(*element), 1);
    }
    removed.iter().for_each(|element| cart.remove(&Story::tag(*element)));
    cart.to_json().into()
}
