//! The clients: they read and write through the SDK, as an application does, and record every call.
//!
//! Each write adds one element of its own, so that a value tells which writes are in it. Sets have no plugin: their
//! readers unite the siblings. Carts are merged by `plugins/cart`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use rejoin_client::{Client, Context, Error, ErrorKind, Written};
use rejoin_plugin_cart::{Cart, Session as CartSession};
use rejoin_proto::catalog::Durability;
use rejoin_proto::context::ContextKey;
use rejoin_proto::{BucketId, ClusterId, Layout, ObjectId, TenantId, VersionVector};
use rejoin_test_sim::history::{
    Answer, Asked, Basis, CallId, Element, Key, KeyId, Kind, NodeIndex, Outcome, elements, set_bytes,
};
use rejoin_test_sim::rng::{Rng, Stream};

use crate::NODES;
use crate::health::FailedRead;
use crate::recording::Recording;

/// The clients.
pub const CLIENTS: u64 = 6;
/// Of these, so many ask only one node, whether it owns the key or not.
pub const PINNED: u64 = 2;
/// The time-out of a call with all its attempts.
pub const TIMEOUT: Duration = Duration::from_millis(1_500);
/// The copies of each object.
pub const COPIES: u8 = 3;
/// The quorums of reads and writes.
pub const QUORUM: u8 = 2;
/// The time-out of a read of a strict bucket. It is longer, because it is judged whether it should have been answered.
const STRICT_TIMEOUT: Duration = Duration::from_secs(5);
/// The keys of each bucket in use at the same time.
const SLOTS: usize = 24;
/// The size at which a key is full, and another is begun in its place.
const FULL: usize = 40;
/// The mean pause of a client between two calls, so that checking takes no longer than the storm.
const PAUSE_US: u64 = 12_000;
/// One in so many cart sessions is given up before its next write. A session brings back all that it knows, and would
/// hide a lost element.
const SESSION_PERCENT: u32 = 20;
/// Items of a cart.
const ITEMS: u64 = 6;

/// A bucket.
#[derive(Clone, Debug)]
pub struct BucketOf {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Whether other nodes may stand in for owners.
    pub sloppy: bool,
    /// Its tenant and id.
    pub id: (TenantId, BucketId),
}

/// The keys in use.
#[derive(Default, Debug)]
struct Keys {
    /// By [`KeyId`]: the place of the bucket.
    bucket: Vec<usize>,
    /// By bucket: a key for each slot.
    current: Vec<Vec<KeyId>>,
}

/// What all clients share.
#[derive(Debug)]
pub struct Load {
    /// The record.
    pub recording: Recording,
    /// The buckets.
    pub buckets: Vec<BucketOf>,
    /// The newest layout that is known.
    layout: Mutex<Layout>,
    /// Strict reads of a quorum that were answered, and those that were not.
    pub strict_reads: AtomicU64,
    failed_reads: Mutex<Vec<FailedRead>>,
    contexts: ContextKey,
    keys: Mutex<Keys>,
    sessions: AtomicU32,
}

impl Load {
    /// A load on these buckets of a cluster whose nodes are named `n1`, `n2` and so on.
    #[must_use]
    pub fn new(layout: Layout, cluster: ClusterId, secret: &[u8], buckets: Vec<BucketOf>) -> Self {
        // As nodes derive it. A context that cannot be opened by it ends the storm.
        let contexts = ContextKey::of_secret(&[&cluster.0.to_le_bytes()[..], secret].concat());
        let load = Self {
            recording: Recording::default(),
            layout: Mutex::new(layout),
            strict_reads: AtomicU64::new(0),
            failed_reads: Mutex::default(),
            contexts,
            keys: Mutex::default(),
            sessions: AtomicU32::new(0),
            buckets,
        };
        for bucket in 0..load.buckets.len() {
            load.keys().current.push(Vec::new());
            (0..SLOTS).for_each(|slot| load.make(bucket, slot));
        }
        load
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new key into a slot.
    fn make(&self, bucket: usize, slot: usize) {
        let mut keys = self.keys();
        let of = &self.buckets[bucket];
        let id = keys.bucket.len() as KeyId;
        let owners = owners_in(&self.layout.lock().unwrap_or_else(PoisonError::into_inner), of, id);
        let key = Key {
            kind: of.kind,
            // In sloppy buckets every other node may stand in for an owner.
            fallbacks: if of.sloppy { usize::from(NODES) - owners.len() } else { 0 },
            later_fallbacks: 0,
            moves: true,
            later_owners: 0,
            strict_from_us: None,
            tenant: 0,
            owners,
            durability: Durability::Fsync,
            siblings: 32,
            folds: of.kind == Kind::Cart,
        };
        assert_eq!(self.recording.key(key), id, "keys are made one after the other");
        keys.bucket.push(bucket);
        match keys.current[bucket].get_mut(slot) {
            Some(current) => *current = id,
            None => keys.current[bucket].push(id),
        }
    }

    /// A new key in the place of one that is full, unless another client was quicker.
    fn replace(&self, key: KeyId) {
        let bucket = self.keys().bucket[key as usize];
        let slot = self.keys().current[bucket].iter().position(|current| *current == key);
        if let Some(slot) = slot {
            self.make(bucket, slot);
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> KeyId {
        self.keys().bucket.len() as KeyId
    }

    /// The bucket of a key.
    #[must_use]
    pub fn bucket_of(&self, key: KeyId) -> &BucketOf {
        &self.buckets[self.keys().bucket[key as usize]]
    }

    /// Opens the context of an answer.
    ///
    /// # Errors
    /// It is not one of this key.
    pub fn open(&self, key: KeyId, context: &Context) -> Result<VersionVector, String> {
        let opened = self.contexts.open(&object(self.bucket_of(key), key), context.as_bytes());
        opened.map_err(|why| format!("the context of an answer about {} cannot be opened: {why}", name_of(key)))
    }

    /// The owners of a key in a layout.
    #[must_use]
    pub fn owners(&self, layout: &Layout, key: KeyId) -> Vec<NodeIndex> {
        owners_in(layout, self.bucket_of(key), key)
    }

    /// There is another layout, and nobody changes it any more for now: the owners of all keys are those in it.
    pub fn settle(&self, layout: Layout) {
        for key in 0..self.key_count() {
            let owners = self.owners(&layout, key);
            self.recording.run().keys[key as usize].owners = owners;
        }
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = layout;
    }

    /// The reads of strict buckets that were not answered.
    #[must_use]
    pub fn failed_reads(&self) -> Vec<FailedRead> {
        self.failed_reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn session(&self) -> u32 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }
}

/// A key's name.
#[must_use]
pub fn name_of(key: KeyId) -> String {
    format!("k{key}")
}

fn owners_in(layout: &Layout, bucket: &BucketOf, key: KeyId) -> Vec<NodeIndex> {
    let number = |name: &str| name[1..].parse::<NodeIndex>().map_or(NodeIndex::MAX, |number| number - 1);
    let owners = layout.owners(layout.partition(&object(bucket, key)), COPIES);
    owners.map(|owner| number(owner.name.as_str())).collect()
}

fn object(bucket: &BucketOf, key: KeyId) -> ObjectId {
    let (tenant, id) = bucket.id;
    ObjectId { tenant, bucket: id, key: name_of(key).into() }
}

/// What became of a call that failed. Whatever does not certainly mean that nothing was written is unknown.
fn failed(error: &Error) -> Outcome {
    use ErrorKind::{
        BadContext, BadRequest, Codec, Config, Damaged, Denied, Exists, InvalidValue, NotFound, TooLarge,
        TooManySiblings, Untrusted,
    };
    let refusals = [
        BadContext,
        BadRequest,
        Codec,
        Config,
        Damaged,
        Denied,
        Exists,
        InvalidValue,
        NotFound,
        TooLarge,
        TooManySiblings,
        Untrusted,
    ];
    let kind = error.kind();
    if kind.is_retryable() || refusals.contains(&kind) { Outcome::Refused } else { Outcome::Unknown(None) }
}

/// What was read, for the write that follows.
struct Read {
    call: CallId,
    context: Context,
    values: Vec<Bytes>,
}

/// One client.
struct Worker {
    client: Client,
    load: Arc<Load>,
    rng: Rng,
    session: u32,
    /// The only node that it asks, if there is one.
    pinned: Option<NodeIndex>,
    adds: u32,
    /// By key: the session that writes this client's carts, its number, and its adds.
    carts: BTreeMap<KeyId, (CartSession, u32, u32)>,
}

/// Reads and writes until told to stop.
///
/// # Errors
/// The cluster has answered with what no client may be shown.
pub async fn work(
    client: Client,
    load: Arc<Load>,
    (seed, number, pinned): (u64, u64, Option<NodeIndex>),
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    let (rng, session) = (Rng::new(seed, Stream::Client(number)), load.session());
    let mut worker = Worker { client, load, rng, session, pinned, adds: 0, carts: BTreeMap::new() };
    while !stop.load(Ordering::Relaxed) {
        worker.step().await?;
        tokio::time::sleep(Duration::from_micros(worker.rng.exponential(PAUSE_US))).await;
    }
    Ok(())
}

impl Worker {
    async fn step(&mut self) -> Result<(), String> {
        let bucket = self.rng.index(self.load.buckets.len());
        // The first slots are hotter.
        let slot = self.rng.index(SLOTS).min(self.rng.index(SLOTS));
        let key = self.load.keys().current[bucket][slot];
        match self.rng.below(100) {
            0..25 => drop(self.read(key).await?),
            25..40 => self.write(key, None).await?,
            _ => {
                if let Some(read) = self.read(key).await? {
                    self.write(key, Some(read)).await?;
                }
            }
        }
        Ok(())
    }

    async fn read(&mut self, key: KeyId) -> Result<Option<Read>, String> {
        let r = if self.rng.percent(5) { 1 } else { QUORUM };
        let bucket = self.bucket(key)?;
        let call = self.load.recording.asks(self.session, key, Asked::Get { r: r.into() });
        let is_strict = r == QUORUM && !self.load.bucket_of(key).sloppy;
        let from_us = self.load.recording.now_us();
        let get = bucket.get(name_of(key)).r(r).timeout(if is_strict { STRICT_TIMEOUT } else { TIMEOUT });
        let object = match get.await {
            Ok(object) => object,
            Err(error) => {
                self.load.recording.ended(call, failed(&error));
                if is_strict {
                    let (to_us, why) = (self.load.recording.now_us(), error.to_string());
                    let read = FailedRead { key, from_us, to_us, pinned: self.pinned, why };
                    self.load.failed_reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
                }
                return Ok(None);
            }
        };
        self.load.strict_reads.fetch_add(u64::from(is_strict), Ordering::Relaxed);
        let opened = self.load.open(key, &object.context)?;
        let values: Vec<Bytes> = match object.value {
            Some(value) => vec![value.into()],
            None => object.siblings.into_iter().map(|sibling| sibling.value.into()).collect(),
        };
        self.load.recording.ended(call, Outcome::Ok(Answer { values: values.clone(), context: opened }));
        let known = elements(self.load.bucket_of(key).kind, &values);
        if known.is_some_and(|known| known.len() >= FULL) {
            self.load.replace(key);
        }
        Ok(Some(Read { call, context: object.context, values }))
    }

    async fn write(&mut self, key: KeyId, read: Option<Read>) -> Result<(), String> {
        let known = read.as_ref().map_or(&[][..], |read| &read.values);
        let deletes = self.rng.percent(15);
        let kind = self.load.bucket_of(key).kind;
        let (session, value, adds, malformed) = match kind {
            Kind::Cart if self.rng.percent(1) => (self.session, Some(Bytes::from_static(b"no cart")), None, true),
            Kind::Cart => {
                let (session, value, adds) = self.cart(key, known, deletes)?;
                (session, Some(value), adds, false)
            }
            Kind::Set | Kind::Latest if deletes => (self.session, None, None, false),
            Kind::Set | Kind::Latest => {
                self.adds += 1;
                let element = Element::new(self.session, self.adds);
                let known = elements(kind, known).unwrap_or_default();
                (self.session, Some(set_bytes(known.into_iter().chain([element]))), Some(element), false)
            }
        };
        let basis = read.as_ref().map_or(Basis::Blind, |read| Basis::After(read.call));
        let asked = Asked::Put {
            w: QUORUM.into(),
            basis,
            value: value.clone(),
            adds,
            expires: false,
            malformed,
            retry_of: None,
        };
        let bucket = self.bucket(key)?;
        let call = self.load.recording.asks(session, key, asked);
        let written = match (value, &read) {
            (Some(value), Some(read)) => bucket.put(name_of(key), value.to_vec()).context(&read.context).await,
            (Some(value), None) => bucket.put(name_of(key), value.to_vec()).blind().await,
            (None, Some(read)) => bucket.delete(name_of(key)).context(&read.context).await,
            (None, None) => bucket.delete(name_of(key)).blind().await,
        };
        self.load.recording.ended(call, self.outcome(key, written)?);
        Ok(())
    }

    fn outcome(&self, key: KeyId, written: rejoin_client::Result<Written>) -> Result<Outcome, String> {
        Ok(match written {
            Ok(written) => Outcome::Ok(Answer { values: Vec::new(), context: self.load.open(key, &written.context)? }),
            Err(error) => failed(&error),
        })
    }

    fn bucket(&self, key: KeyId) -> Result<rejoin_client::Bucket<rejoin_client::Bytes>, String> {
        self.client.bucket(self.load.bucket_of(key).name).map_err(|error| error.to_string())
    }

    /// A cart with one item more, or without one of its items. An emptied cart is not deleted: it would lose its clock.
    fn cart(&mut self, key: KeyId, known: &[Bytes], removes: bool) -> Result<(u32, Bytes, Option<Element>), String> {
        if self.rng.percent(SESSION_PERCENT) {
            self.carts.remove(&key);
        }
        let item = format!("i{}", self.rng.below(ITEMS));
        let load = &self.load;
        let (cart, number, adds) = self.carts.entry(key).or_insert_with(|| {
            let number = load.session();
            (CartSession::new(Element::writer(number)), number, 0)
        });
        let mut read = Cart::default();
        for value in known {
            read.join(&Cart::parse(value).map_err(|bad| format!("{} shows what is no cart: {bad}", name_of(key)))?);
        }
        let read = (!known.is_empty()).then(|| read.to_json());
        let change = |cart: &mut Cart, me: &str| if removes { cart.remove(&item) } else { cart.add(me, &item, 1) };
        let value = cart.edit(read.as_deref(), change).map_err(|bad| bad.to_string())?;
        let element = (!removes).then(|| {
            *adds += 1;
            Element::new(*number, *adds)
        });
        Ok((*number, value.into(), element))
    }
}
