//! A weighted fair queue: of the flows that wait, that one is served next which has had the least for its weight.
//!
//! It is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). Every flow has a *tag*: what it has been
//! served, divided by its weight. The flow with the lowest tag is served, and the queue's own time is the tag of what
//! was served last. A flow that begins to wait starts at that time, so that it has no credit for having been idle.
//! While two flows wait, what they are served differs from their weights by at most one item of each.
//!
//! What may wait is bounded by *dynamic thresholds* (Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998): a
//! flow may have no more waiting than there is room left. One flow alone has half of the queue at most, two have a
//! third each, and a flow that comes late always finds a place. What is under way is bounded in the same way while
//! there is more than one flow.
//!
//! How long items wait is bounded as CoDel does it (Nichols and Jacobson, ACM Queue 2012): a queue that is long for a
//! moment does its work, one that stays long is a *standing* queue, which only makes everybody late. Once on every turn
//! for [`STANDING_US`] the oldest item of a flow had waited longer than it may, and some were left, the flow is refused
//! more while its oldest item has. That is before anything was done for the item, and costs next to nothing. A flow of
//! which a turn takes everything has waited for that turn and not for its own queue (CoDel drops nothing of a queue
//! that holds no more than one packet): refusing it would turn away clients that wait for each answer, and only because
//! the turns are long, as those with large values are.
//!
//! Every operation takes time logarithmic in the number of flows, and in addition linear in the number of those that
//! are held back because they have too much under way.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a request costs beside its bytes, as bytes: a small one takes a shard about as long as so many bytes of a large
/// one.
pub const REQUEST_COST: u64 = 4 << 10;
/// How long a flow counts as one that shares the queue after it has last sent something, in microseconds.
pub const SHARED_US: u64 = 1_000_000;
/// A flow must have been late, with items left behind, on every turn for so long before it is refused anything for
/// that, in microseconds.
pub const STANDING_US: u64 = 100_000;
/// The units of a tag for each unit of cost, so that weights up to this many can be told apart.
const SCALE: u128 = 1 << 16;

/// What a request of so many bytes costs.
#[must_use]
pub fn request_cost(bytes: usize) -> u64 {
    // Rule: large requests cost more.
    REQUEST_COST.saturating_add(bytes as u64)
}

/// A number of items, and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// How many.
    pub items: usize,
    /// Their bytes, all together.
    pub bytes: usize,
}

impl Load {
    /// One item of so many bytes.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        Self { items: 1, bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        Self { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// Whether it is no more than another, in items and in bytes.
    fn within(self, other: Self) -> bool {
        self.items <= other.items && self.bytes <= other.bytes
    }
}

/// How much may be in a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// What may wait, of all flows together.
    pub waiting: Load,
    /// What may wait of one flow, besides that it may not be more than there is room left.
    pub flow_waiting: Load,
    /// What may be under way. While only one flow uses the queue this is not looked at: another bound holds then.
    pub under_way: Load,
    /// How long the oldest item of a flow may wait, in microseconds, before the flow is late. A flow of which nothing
    /// is left waiting is not late.
    pub wait_us: u64,
}

/// Why an item was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The flow has as much waiting as it may.
    Flow(Load),
    /// There is no room at all. What waits is this.
    All(Load),
    /// The flow has been late for a while, and its oldest item has waited for so long, in microseconds.
    Late(u64),
}

/// An item that comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<T> {
    /// What waits.
    pub value: T,
    /// The weight of its flow from now on; 0 is taken for 1.
    pub weight: u32,
    /// Its bytes.
    pub bytes: usize,
}

/// An item whose turn has come. It is under way until [`FairQueue::done`] is told so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Next<K, T> {
    /// Its flow.
    pub flow: K,
    /// What has waited.
    pub value: T,
    /// What it takes of the room of what is under way.
    pub load: Load,
    /// What its flow was charged for it.
    pub cost: u64,
}

type Tag = u128;

#[derive(Debug)]
struct Entry<T> {
    value: T,
    load: Load,
    cost: u64,
    /// When it came. A notice never waits.
    at_us: u64,
}

#[derive(Debug)]
struct Flow<T> {
    entries: VecDeque<Entry<T>>,
    weight: u32,
    /// At which its next item is served.
    tag: Tag,
    waiting: Load,
    under_way: Load,
}

impl<T> Flow<T> {
    fn charge(&mut self, cost: u64) {
        // Rule: weights count.
        let weight = Tag::from(self.weight.max(1));
        self.tag = self.tag.saturating_add(Tag::from(cost).saturating_mul(SCALE) / weight);
    }
}

/// A flow whose oldest item had waited too long on its last turn.
#[derive(Clone, Copy, Debug)]
struct Late {
    /// The first of the turns since which this was so on every turn.
    since_us: u64,
    turn_us: u64,
}

/// A weighted fair queue of items `T` of flows that are known by `K`.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    room: Room,
    /// The flows that wait, have something under way, or were served more than others lately.
    flows: BTreeMap<K, Flow<T>>,
    /// The flows that wait, by their tags.
    ready: BTreeSet<(Tag, K)>,
    /// The other flows, by their tags.
    idle: BTreeSet<(Tag, K)>,
    /// The tag of what was served last.
    now: Tag,
    waiting: Load,
    under_way: Load,
    /// The flows that are late.
    late: BTreeMap<K, Late>,
    /// The flow that has sent something last, and when.
    last: Option<(K, u64)>,
    /// When a flow other than the last one has sent something last.
    other_us: Option<u64>,
}

impl<K: Copy + Ord, T> FairQueue<K, T> {
    /// An empty queue.
    #[must_use]
    pub fn new(room: Room) -> Self {
        Self {
            room,
            flows: BTreeMap::new(),
            ready: BTreeSet::new(),
            idle: BTreeSet::new(),
            now: 0,
            waiting: Load::default(),
            under_way: Load::default(),
            late: BTreeMap::new(),
            last: None,
            other_us: None,
        }
    }

    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> Load {
        self.waiting
    }

    /// What waits of a flow.
    #[must_use]
    pub fn waiting_of(&self, flow: K) -> Load {
        self.flows.get(&flow).map_or_else(Load::default, |flow| flow.waiting)
    }

    /// Whether nothing waits, be it counted or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// How many flows there is something to remember of.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Whether several flows use the queue: they have sent something within [`SHARED_US`].
    #[must_use]
    pub fn is_shared(&self, now_us: u64) -> bool {
        self.other_us.is_some_and(|at_us| now_us.saturating_sub(at_us) < SHARED_US)
    }

    /// Whether a flow has at most half of the waiting items that it may have, and is not refused for being late.
    #[must_use]
    pub fn has_eased(&self, now_us: u64, flow: K) -> bool {
        let twice = |load: Load| load.plus(load);
        self.late_by(now_us, flow).is_none() && self.room_for(twice(self.waiting_of(flow)), Load::default()).is_ok()
    }

    /// Takes an item.
    ///
    /// # Errors
    /// There is no room for it; it is given back.
    pub fn push(&mut self, now_us: u64, flow: K, item: Item<T>) -> Result<(), (Full, T)> {
        let load = Load::of(item.bytes);
        // A flow that is refused uses the queue too.
        self.note(flow, now_us);
        // Rule: standing queues take no more.
        if let Some(waited_us) = self.late_by(now_us, flow) {
            return Err((Full::Late(waited_us), item.value));
        }
        if let Err(full) = self.room_for(self.waiting_of(flow), load) {
            return Err((full, item.value));
        }
        let entry = Entry { value: item.value, load, cost: request_cost(item.bytes), at_us: now_us };
        self.add(flow, item.weight, entry);
        Ok(())
    }

    /// Adds a notice behind the items of its flow. It costs nothing, and there is always room for it: the caller bounds
    /// how many there are.
    pub fn push_notice(&mut self, flow: K, value: T) {
        let weight = self.flows.get(&flow).map_or(1, |flow| flow.weight);
        self.add(flow, weight, Entry { value, load: Load::default(), cost: 0, at_us: u64::MAX });
    }

    fn note(&mut self, flow: K, now_us: u64) {
        if let Some((last, at_us)) = self.last
            && last != flow
        {
            self.other_us = Some(at_us);
        }
        self.last = Some((flow, now_us));
    }

    /// How long the oldest item of a flow has waited, if that is too long and has been on every turn for a while.
    fn late_by(&self, now_us: u64, flow: K) -> Option<u64> {
        let late = self.late.get(&flow).filter(|late| late.turn_us.saturating_sub(late.since_us) >= STANDING_US);
        let oldest = late.and_then(|_| self.flows.get(&flow)?.entries.front());
        let waited_us = now_us.saturating_sub(oldest?.at_us);
        (waited_us > self.room.wait_us).then_some(waited_us)
    }

    /// An item of a flow is taken that has waited for so long. On each turn, the first one is the oldest.
    fn note_wait(&mut self, now_us: u64, flow: K, waited_us: u64) {
        let is_late = waited_us > self.room.wait_us;
        match self.late.get_mut(&flow) {
            Some(late) if late.turn_us == now_us => {}
            Some(late) if is_late && now_us.saturating_sub(late.turn_us) < SHARED_US => late.turn_us = now_us,
            Some(late) if is_late => *late = Late { since_us: now_us, turn_us: now_us },
            Some(_) => drop(self.late.remove(&flow)),
            None if is_late => {
                // Those that have sent nothing since are forgotten.
                self.late.retain(|_, late| now_us.saturating_sub(late.turn_us) < SHARED_US);
                self.late.insert(flow, Late { since_us: now_us, turn_us: now_us });
            }
            None => {}
        }
    }

    /// Whether a flow with so much waiting may have one more.
    fn room_for(&self, of_flow: Load, more: Load) -> Result<(), Full> {
        let Room { waiting: all, flow_waiting: most, .. } = self.room;
        // An item that is larger than the queue waits alone.
        if self.waiting.items == 0 {
            return Ok(());
        }
        if !self.waiting.plus(more).within(all) {
            return Err(Full::All(self.waiting));
        }
        let left = all.minus(self.waiting);
        let most = Load { items: most.items.min(left.items), bytes: most.bytes.min(left.bytes) };
        // Rule: a flow leaves room to others.
        if of_flow.items > 0 && !of_flow.plus(more).within(most) {
            return Err(Full::Flow(of_flow));
        }
        Ok(())
    }

    fn add(&mut self, key: K, weight: u32, entry: Entry<T>) {
        if self.ready.is_empty() {
            // Nobody waits, so nobody owes anything to those that wait.
            self.now = self.idle.last().map_or(self.now, |(tag, _)| self.now.max(*tag));
            self.forget();
        }
        let (load, now) = (entry.load, self.now);
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            entries: VecDeque::new(),
            weight,
            tag: 0,
            waiting: Load::default(),
            under_way: Load::default(),
        });
        flow.weight = weight;
        if flow.entries.is_empty() {
            self.idle.remove(&(flow.tag, key));
            // Rule: idle flows earn nothing.
            flow.tag = flow.tag.max(now);
            self.ready.insert((flow.tag, key));
        }
        flow.entries.push_back(entry);
        flow.waiting = flow.waiting.plus(load);
        self.waiting = self.waiting.plus(load);
    }

    /// The next item. `None`: nothing waits, or what waits is of flows that have too much under way beside others.
    pub fn pop(&mut self, now_us: u64) -> Option<Next<K, T>> {
        let shared = self.is_shared(now_us);
        let mut held = BTreeSet::new();
        let found = loop {
            let Some((tag, key)) = self.ready.pop_first() else { break None };
            match self.flows.get(&key) {
                Some(flow) if shared && self.is_held(flow) => held.insert(key),
                _ => break Some((tag, key)),
            };
        };
        if let Some((tag, _)) = found {
            self.now = self.now.max(tag);
        }
        for key in held {
            // It is served from now on like one that was idle.
            if let Some(flow) = self.flows.get_mut(&key) {
                flow.tag = flow.tag.max(self.now);
                self.ready.insert((flow.tag, key));
            }
        }
        let (_, key) = found?;
        let flow = self.flows.get_mut(&key)?;
        let entry = flow.entries.pop_front()?;
        flow.charge(entry.cost);
        flow.waiting = flow.waiting.minus(entry.load);
        flow.under_way = flow.under_way.plus(entry.load);
        self.waiting = self.waiting.minus(entry.load);
        self.under_way = self.under_way.plus(entry.load);
        let is_empty = flow.entries.is_empty();
        let set = if is_empty { &mut self.idle } else { &mut self.ready };
        set.insert((flow.tag, key));
        self.forget();
        // Rule: emptied queues are not standing.
        if is_empty {
            self.late.remove(&key);
        } else if entry.load.items > 0 {
            // Notices do not count.
            self.note_wait(now_us, key, now_us.saturating_sub(entry.at_us));
        }
        Some(Next { flow: key, value: entry.value, load: entry.load, cost: entry.cost })
    }

    /// Whether a flow has too much under way beside the others.
    fn is_held(&self, flow: &Flow<T>) -> bool {
        let left = self.room.under_way.minus(self.under_way);
        // Rule: what is under way leaves room.
        flow.under_way.items > 0 && !flow.under_way.within(left)
    }

    /// An item that was under way has ended. Its flow is charged what was not known before, such as the bytes of the
    /// reply.
    pub fn done(&mut self, key: K, load: Load, more_cost: u64) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let waits = !flow.entries.is_empty();
        let set = if waits { &mut self.ready } else { &mut self.idle };
        set.remove(&(flow.tag, key));
        flow.charge(more_cost);
        set.insert((flow.tag, key));
        flow.under_way = flow.under_way.minus(load);
        self.under_way = self.under_way.minus(load);
        self.forget();
    }

    /// Forgets idle flows that the others have caught up with.
    fn forget(&mut self) {
        while let Some(&(tag, key)) = self.idle.first()
            && tag <= self.now
        {
            self.idle.pop_first();
            match self.flows.get_mut(&key) {
                // Looked at again when it has ended.
                Some(flow) if flow.under_way != Load::default() => {}
                _ => drop(self.flows.remove(&key)),
            }
        }
    }
}
