//! The clients: they read, and write what follows from it, as an application does. Some writes follow from nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_laws::{Merge, Sibling};
use rejoin_plugin_cart::{Cart, Session as CartSession};
use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{Basis as Given, Get, Put, StartId};
use rejoin_proto::peer::DataRequest;
use rejoin_proto::{Content, RequestId};

use crate::history::{Answers, Asked, Basis, CallId, Element, KeyId, Kind, elements, set_bytes};
use crate::keys::Keys;
use crate::options::ClientOptions;
use crate::plugins::Carts;
use crate::rng::Rng;

/// The size at which a set is full, and another key is begun.
const FULL: usize = 40;
/// The fewest bytes of a value that is full: an element is eight bytes of a set, and more of a cart.
const FULL_BYTES: usize = FULL * 8;
/// The answers that a session remembers per key.
const REMEMBERED: usize = 4;
/// Values that are no carts. A parser that takes the last of two equal names would lose an item in the second and
/// third.
const BAD_CARTS: [&str; 5] = [
    "{\"clock\":{\"1\":1},\"items\":",
    "{\"clock\":{\"1\":2},\"items\":{\"i0\":{\"1:1\":1},\"i0\":{\"1:2\":1}}}",
    "{\"clock\":{\"1\":2},\"items\":{\"i0\":{\"1:1\":1}},\"items\":{}}",
    "{\"clock\":{\"1\":1},\"items\":{\"\\ud800\":{\"1:1\":1}}}",
    "[]",
];
/// Items of a cart.
const ITEMS: u64 = 6;

/// An answer that a session remembers.
#[derive(Clone, Debug)]
struct Known {
    call: CallId,
    context: Bytes,
    /// What it read, or wrote.
    values: Vec<Bytes>,
}

/// A write that a session may try again.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub(crate) first: CallId,
    pub(crate) first_us: u64,
    pub(crate) node: u8,
    pub(crate) ask: Ask,
}

/// A call to be made.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) key: KeyId,
    pub(crate) asked: Asked,
    pub(crate) request: DataRequest,
}

/// One client: one call at a time.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u32,
    adds: u32,
    known: BTreeMap<KeyId, Vec<Known>>,
    carts: BTreeMap<KeyId, (CartSession, u32)>,
    /// The call that it waits for, and the node it has asked.
    pub(crate) pending: Option<(CallId, u8)>,
    /// Whether its next call is a write that follows from its last read.
    next: Option<KeyId>,
    pub(crate) retry: Option<Retry>,
    /// Whether it has keys of its own.
    is_apart: bool,
}

impl Session {
    pub(crate) fn new(number: u32) -> Self {
        let (known, carts) = (BTreeMap::new(), BTreeMap::new());
        Self { number, adds: 0, known, carts, pending: None, next: None, retry: None, is_apart: false }
    }

    /// Has it use keys of its own.
    pub(crate) fn apart(mut self, is_apart: bool) -> Self {
        self.is_apart = is_apart;
        self
    }

    /// The next call, and the bucket and slot whose key is full and has to be replaced.
    pub(crate) fn step(
        &mut self,
        options: &ClientOptions,
        keys: &Keys,
        rng: &mut Rng,
    ) -> (Ask, Option<(usize, usize)>) {
        if let Some(key) = self.next.take() {
            let fresh = self.known.get(&key).and_then(|known| known.last()).cloned();
            return (self.write(key, fresh, options, keys, rng), None);
        }
        let own = keys.buckets_of(self.number);
        let bucket = own.start + rng.index(own.len());
        let slots = &keys.current[bucket];
        let slot = match self.is_apart {
            true => self.number as usize % slots.len(),
            false => (0..=options.heat).map(|_| rng.index(slots.len())).min().unwrap_or_default(),
        };
        let key = slots[slot];
        let full = self.is_full(key, keys);
        if rng.chance(options.reads) {
            return (self.read(key, keys, rng), full.then_some((bucket, slot)));
        }
        let known = self.known.get(&key);
        let ask = if rng.chance(options.blind) {
            self.write(key, None, options, keys, rng)
        } else if rng.chance(options.creates) {
            self.create(key, keys)
        } else if let Some(old) = known.and_then(|known| known.first()).filter(|_| rng.chance(options.stale)).cloned() {
            self.write(key, Some(old), options, keys, rng)
        } else if let Some(last) = known.and_then(|known| known.last()).filter(|_| rng.percent(15)).cloned() {
            self.write(key, Some(last), options, keys, rng)
        } else {
            self.next = Some(key);
            self.read(key, keys, rng)
        };
        (ask, full.then_some((bucket, slot)))
    }

    /// Whether the values that the session has last seen of a key have many elements.
    fn is_full(&self, key: KeyId, keys: &Keys) -> bool {
        let Some(last) = self.known.get(&key).and_then(|known| known.last()) else { return false };
        last.values.iter().map(Bytes::len).sum::<usize>() >= FULL_BYTES
            && elements(keys.kind(key), &last.values).is_some_and(|elements| elements.len() >= FULL)
    }

    fn read(&self, key: KeyId, keys: &Keys, rng: &mut Rng) -> Ask {
        let of = keys.bucket_of(key);
        let r = if rng.percent(5) { Some(rng.between(1, u64::from(of.options.n)) as u8) } else { None };
        // A fixed number is no majority any more when the copies change.
        get(key, r.filter(|_| !keys.changes_copies), keys)
    }

    fn create(&mut self, key: KeyId, keys: &Keys) -> Ask {
        let (value, adds) = self.value(key, keys.kind(key), &[]);
        self.put(key, Given::Create, Basis::Create, Some(value), Some(adds), None, keys)
    }

    fn write(&mut self, key: KeyId, basis: Option<Known>, options: &ClientOptions, keys: &Keys, rng: &mut Rng) -> Ask {
        let kind = keys.kind(key);
        if keys.bucket_of(key).options.plugin && rng.chance(options.malformed) {
            return self.malformed(key, basis, keys, rng);
        }
        // A client that passes off another key's context has not read this one.
        let foreign = rng.chance(options.foreign).then(|| keys.foreign(key)).flatten();
        let foreign = foreign.map(|(call, context)| Known { call, context, values: Vec::new() });
        let forged = foreign.or_else(|| rng.chance(options.forged).then(|| self.another_keys(key)).flatten());
        let known = basis.as_ref().filter(|_| forged.is_none()).map_or(&[][..], |known| &known.values);
        let deletes = rng.chance(options.deletes);
        let (value, adds) = match (deletes, kind) {
            // A cart that is deleted loses its clock with it; to empty one, its items are removed.
            (true, Kind::Cart) => (Some(self.without_item(key, known, rng)), None),
            (true, _) => (None, None),
            (false, _) => {
                let (value, adds) = self.value(key, kind, known);
                (Some(value), Some(adds))
            }
        };
        let ttl_ms = (rng.chance(options.ttl) && value.is_some()).then(|| rng.between(50, 3000));
        let (given, basis) = match forged.or(basis) {
            Some(known) => (Given::Context(known.context), Basis::After(known.call)),
            None => (Given::Blind, Basis::Blind),
        };
        self.put(key, given, basis, value, adds, ttl_ms, keys)
    }

    /// A write that the bucket's plugin must refuse.
    fn malformed(&self, key: KeyId, basis: Option<Known>, keys: &Keys, rng: &mut Rng) -> Ask {
        let value = Bytes::from_static(match keys.kind(key) {
            Kind::Cart => rng.pick(&BAD_CARTS).as_bytes(),
            Kind::Set | Kind::Latest => b"no eight",
        });
        let value = if keys.kind(key) == Kind::Cart { value } else { value.slice(..rng.between(1, 7) as usize) };
        let (given, basis) = match basis {
            Some(known) => (Given::Context(known.context), Basis::After(known.call)),
            None => (Given::Blind, Basis::Blind),
        };
        let mut ask = self.put(key, given, basis, Some(value), None, None, keys);
        if let Asked::Put { malformed, .. } = &mut ask.asked {
            *malformed = true;
        }
        ask
    }

    /// A context of another key, to be passed off as this one's.
    fn another_keys(&self, key: KeyId) -> Option<Known> {
        self.known.iter().find(|(other, _)| **other != key).and_then(|(_, known)| known.last()).cloned()
    }

    /// The known elements and one more.
    fn value(&mut self, key: KeyId, kind: Kind, known: &[Bytes]) -> (Bytes, Element) {
        if kind == Kind::Cart {
            let item = format!("i{}", u64::from(self.adds) % ITEMS);
            let (_, count) = self.cart(key);
            *count += 1;
            let count = *count;
            let element = Element::new(self.number, count);
            self.adds += 1;
            return (self.edit(key, known, |cart, me| cart.add(me, &item, 1)), element);
        }
        self.adds += 1;
        let element = Element::new(self.number, self.adds);
        let before = if kind == Kind::Set { elements(kind, known).unwrap_or_default() } else { Vec::new() };
        (set_bytes(before.into_iter().chain([element])), element)
    }

    fn without_item(&mut self, key: KeyId, known: &[Bytes], rng: &mut Rng) -> Bytes {
        let item = format!("i{}", rng.below(ITEMS));
        self.edit(key, known, |cart, _| cart.remove(&item))
    }

    fn cart(&mut self, key: KeyId) -> &mut (CartSession, u32) {
        let number = self.number;
        self.carts.entry(key).or_insert_with(|| (CartSession::new(Element::writer(number)), 0))
    }

    fn edit(&mut self, key: KeyId, known: &[Bytes], change: impl Fn(&mut Cart, &str)) -> Bytes {
        let session = &mut self.cart(key).0;
        // The application skips values that are no carts; the checkers report those.
        let edited = match known {
            [] => session.edit(None, change),
            [only] => session.edit(Some(&only[..]), &change).or_else(|_| session.edit(None, &change)),
            several => session.edit(merged(several).as_deref(), change),
        };
        edited.expect("an edit of a cart").into()
    }

    #[expect(clippy::too_many_arguments, reason = "one call, put together")]
    fn put(
        &self,
        key: KeyId,
        given: Given,
        basis: Basis,
        value: Option<Bytes>,
        adds: Option<Element>,
        ttl_ms: Option<u64>,
        keys: &Keys,
    ) -> Ask {
        let of = keys.bucket_of(key);
        let w = Answers { nodes: of.options.w, owners: of.options.pw };
        let asked = Asked::Put {
            w,
            basis,
            value: value.clone(),
            adds,
            expires: ttl_ms.is_some(),
            malformed: false,
            retry_of: None,
        };
        let put = Put {
            bucket: of.name.clone(),
            key: keys.place(key).name.clone(),
            content: value.map_or(Content::Tombstone, Content::Value),
            basis: given,
            request: RequestId(0),
            start: StartId(0),
            attempt: 0,
            w: None,
            pw: None,
            ttl_ms,
        };
        Ask { key, asked, request: DataRequest::Put(put) }
    }

    /// Remembers a good answer.
    pub(crate) fn answered(&mut self, key: KeyId, call: CallId, context: Bytes, values: Vec<Bytes>) {
        let known = self.known.entry(key).or_default();
        if known.len() >= REMEMBERED {
            // The first is kept for long, as a stale context.
            known.remove(1);
        }
        known.push(Known { call, context, values });
    }

    /// Whether a write is to follow from the read.
    pub(crate) fn is_in_the_middle(&self) -> bool {
        self.next.is_some()
    }

    /// A call has failed: nothing follows from it.
    pub(crate) fn failed(&mut self) {
        self.next = None;
    }
}

/// Siblings that no plugin has merged are merged by the application. `None` if none of them is a cart.
fn merged(known: &[Bytes]) -> Option<Vec<u8>> {
    let sibling = |value: &Bytes| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 };
    let known: Vec<Sibling> = known.iter().filter(|value| Cart::parse(value).is_ok()).map(sibling).collect();
    (!known.is_empty()).then(|| Carts.merge(b"", &known).expect("these are carts"))
}

/// A read.
pub(crate) fn get(key: KeyId, r: Option<u8>, keys: &Keys) -> Ask {
    let of = keys.bucket_of(key);
    let get = Get {
        bucket: of.name.clone(),
        key: keys.place(key).name.clone(),
        r: r.map(Quorum::Count),
        pr: None,
        siblings: false,
        show: rejoin_proto::client::Show::Nothing,
    };
    Ask {
        key,
        asked: Asked::Get { r: Answers { nodes: r.unwrap_or(of.options.r), owners: of.options.pr } },
        request: DataRequest::Get(get),
    }
}
