//! The requests of clients that wait before a shard: sessions add them, and the shard's driver takes them in the order
//! of a fair queue between tenants ([`rejoin_core::fair`]).
//!
//! A request that was taken is under way until its [`UnderWay`] is dropped. Where several tenants use the shard, what
//! is under way of each leaves room to the others, and a batch takes so few requests that a light tenant waits for
//! little work of others.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use rejoin_core::fair::{FairQueue, Full, Item, Load, Next, Room};
use rejoin_core::shard::event::ClientRequest;
use rejoin_proto::client::Receipt;
use rejoin_proto::peer::PeerEnvelope;
use rejoin_proto::{NodeId, TenantId};
use rejoin_wire::Sender;

use crate::config::Config;
use crate::lock::lock;
use crate::messages::InboxItem;
use crate::metering::InFlight;

/// The cost at which a batch is full while several tenants use the shard: 64 small requests, about two milliseconds.
/// One request is always in it.
const SHARED_BATCH_COST: u64 = 256 << 10;
/// What a receipt takes of the queue's bytes.
const RECEIPT_BYTES: usize = 32;

/// What waits.
pub(crate) enum Waiting {
    Client(Box<ClientRequest>, Sender, InFlight),
    /// One that a peer has forwarded.
    Forwarded(NodeId, Box<PeerEnvelope>),
    /// Receipts for answers that a client has.
    Settled(Vec<Receipt>),
    /// A session has ended. It is a notice behind the session's last request, which would otherwise create the
    /// session's state anew.
    SessionClosed(u64),
}

/// Why something was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotTaken {
    Full(Full),
    /// The shard has stopped.
    Stopped,
}

/// A tenant, and its weight now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Weighed {
    pub(crate) tenant: TenantId,
    pub(crate) weight: u32,
}

/// The queue, for sessions.
#[derive(Clone)]
pub(crate) struct RequestQueue(Arc<Shared>);

/// The end of the queue that the driver has. Dropped, it ends the queue.
pub(crate) struct Requests(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something can be taken.
    ready: Notify,
    /// Something was taken.
    taken: Notify,
}

struct State {
    queue: FairQueue<TenantId, Waiting>,
    stopped: bool,
}

impl RequestQueue {
    /// A queue of a shard, and the end that its driver has.
    pub(crate) fn new(config: &Config) -> (Self, Requests) {
        let bytes = usize::try_from(config.inbox_bytes).unwrap_or(usize::MAX);
        let room = Room {
            waiting: Load { items: config.inbox, bytes },
            flow_waiting: Load { items: config.tenant_inbox, bytes: config.tenant_inbox_bytes as usize },
            under_way: Load { items: config.in_flight, bytes: config.in_flight_bytes },
            wait_us: u64::from(config.queue_wait_ms) * 1_000,
        };
        let state = Mutex::new(State { queue: FairQueue::new(room), stopped: false });
        let shared = Arc::new(Shared { state, ready: Notify::new(), taken: Notify::new() });
        (Self(shared.clone()), Requests(shared))
    }

    /// Adds a request of so many bytes.
    ///
    /// # Errors
    /// There is no room for it, or the shard has stopped. It is dropped then.
    pub(crate) fn push(&self, now_us: u64, of: Weighed, bytes: usize, request: Waiting) -> Result<(), NotTaken> {
        let item = Item { value: request, weight: of.weight, bytes };
        let mut state = lock(&self.0.state);
        if state.stopped {
            return Err(NotTaken::Stopped);
        }
        let pushed = state.queue.push(now_us, of.tenant, item);
        drop(state);
        // What was refused is dropped outside of the lock: it has others to tell.
        pushed.map_err(|(full, _request)| NotTaken::Full(full))?;
        self.0.ready.notify_one();
        Ok(())
    }

    /// Adds receipts. If there is no room for them, they are dropped.
    pub(crate) fn push_receipts(&self, now_us: u64, of: Weighed, receipts: Vec<Receipt>) {
        let bytes = receipts.len().saturating_mul(RECEIPT_BYTES);
        let _ = self.push(now_us, of, bytes, Waiting::Settled(receipts));
    }

    /// Says that a session of a tenant has ended.
    pub(crate) fn close_session(&self, tenant: TenantId, session: u64) {
        let mut state = lock(&self.0.state);
        if !state.stopped {
            state.queue.push_notice(tenant, Waiting::SessionClosed(session));
            drop(state);
            self.0.ready.notify_one();
        }
    }

    /// Waits until a tenant has at most half of what it may have waiting, and is not refused for being late. Both are
    /// looked at whenever something was taken; `now_us` is the clock.
    pub(crate) async fn eased(&self, tenant: TenantId, now_us: impl Fn() -> u64) {
        loop {
            // Created before the state is looked at, so that a notification in between is not missed.
            let taken = self.0.taken.notified();
            {
                let state = lock(&self.0.state);
                if state.stopped || state.queue.has_eased(now_us(), tenant) {
                    return;
                }
            }
            taken.await;
        }
    }
}

impl Requests {
    /// Resolves when something may be there to be taken.
    pub(crate) async fn ready(&self) {
        self.0.ready.notified().await;
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.0.state).queue.waiting().items
    }

    /// Whether several tenants use the shard.
    pub(crate) fn is_shared(&self, now_us: u64) -> bool {
        lock(&self.0.state).queue.is_shared(now_us)
    }

    /// Takes the requests of a batch, at most `most`. Returns whether there are more for the next batch.
    pub(crate) fn take(&self, now_us: u64, most: usize, batch: &mut Vec<InboxItem>) -> bool {
        let mut state = lock(&self.0.state);
        let shared = state.queue.is_shared(now_us);
        let (mut cost, mut count) = (0_u64, 0);
        let is_full = |count: usize, cost: u64| count >= most || shared && cost >= SHARED_BATCH_COST;
        while !is_full(count, cost)
            && let Some(next) = state.queue.pop(now_us)
        {
            cost = cost.saturating_add(next.cost);
            count += 1;
            batch.push(self.item(next));
        }
        let more = is_full(count, cost) && !state.queue.is_empty();
        drop(state);
        if count > 0 {
            self.0.taken.notify_waiters();
        }
        more
    }

    fn item(&self, next: Next<TenantId, Waiting>) -> InboxItem {
        let Next { flow: tenant, value, load, .. } = next;
        // Made only where it is kept: dropping one takes the lock, which is held here.
        let under_way = || UnderWay { queue: self.0.clone(), tenant, load, reply_bytes: 0 };
        match value {
            Waiting::Client(request, sender, in_flight) => InboxItem::Client(request, sender, in_flight, under_way()),
            Waiting::Forwarded(from, envelope) => InboxItem::Forwarded(from, envelope, under_way()),
            Waiting::Settled(receipts) => InboxItem::Settled(receipts, under_way()),
            Waiting::SessionClosed(session) => InboxItem::SessionClosed(session),
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.stopped = true;
        let mut left = Vec::new();
        // At a time at which no flow is held back.
        while let Some(next) = state.queue.pop(u64::MAX) {
            left.push(next);
        }
        drop(state);
        self.0.taken.notify_waiters();
    }
}

/// A request that is under way, until this is dropped.
pub(crate) struct UnderWay {
    queue: Arc<Shared>,
    tenant: TenantId,
    load: Load,
    reply_bytes: u64,
}

impl UnderWay {
    /// The bytes of the request.
    pub(crate) fn bytes(&self) -> usize {
        self.load.bytes
    }

    /// Charges the tenant for the reply.
    pub(crate) fn replied(&mut self, bytes: usize) {
        self.reply_bytes = bytes as u64;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.queue.done(self.tenant, self.load, self.reply_bytes);
        let waits = !state.queue.is_empty();
        drop(state);
        if waits {
            // A tenant may have been held back for it.
            self.queue.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHA: Weighed = Weighed { tenant: TenantId(1), weight: 1 };
    const BETA: Weighed = Weighed { tenant: TenantId(2), weight: 1 };

    fn queue(inbox: usize) -> (RequestQueue, Requests) {
        queue_where(inbox, u64::MAX)
    }

    fn queue_where(inbox: usize, wait_us: u64) -> (RequestQueue, Requests) {
        let room = Room {
            waiting: Load { items: inbox, bytes: 64 << 20 },
            flow_waiting: Load { items: inbox, bytes: 32 << 20 },
            under_way: Load { items: 4_000, bytes: 64 << 20 },
            wait_us,
        };
        let state = Mutex::new(State { queue: FairQueue::new(room), stopped: false });
        let shared = Arc::new(Shared { state, ready: Notify::new(), taken: Notify::new() });
        (RequestQueue(shared.clone()), Requests(shared))
    }

    fn receipts() -> Waiting {
        Waiting::Settled(Vec::new())
    }

    #[test]
    fn a_batch_is_large_for_one_tenant_and_small_for_several() {
        let (queue, requests) = queue(4_000);
        let mut batch = Vec::new();
        for _ in 0..1_000 {
            queue.push(0, ALPHA, 100, receipts()).expect("there is room");
        }
        assert!(!requests.take(0, 2_000, &mut batch) && batch.len() == 1_000, "nobody else is there");
        drop(batch.drain(..));
        for _ in 0..500 {
            queue.push(1, ALPHA, 100, receipts()).expect("there is room");
        }
        queue.push(2, BETA, 100, receipts()).expect("there is room");
        assert!(requests.take(3, 2_000, &mut batch), "there are more");
        let small = usize::try_from(SHARED_BATCH_COST / (4 << 10)).expect("small");
        assert!(batch.len() <= small, "{}", batch.len());
        let under_way = |of: Weighed| {
            let of_tenant = |item: &&InboxItem| matches!(item, InboxItem::Settled(_, way) if way.tenant == of.tenant);
            batch.iter().filter(of_tenant).count()
        };
        assert_eq!(under_way(BETA), 1, "it is in the first batch, however many were there before it");
    }

    #[test]
    fn one_large_request_is_a_batch_where_tenants_share() {
        let (queue, requests) = queue(100);
        queue.push(0, ALPHA, 16 << 20, receipts()).expect("there is room");
        queue.push(0, BETA, 10, receipts()).expect("there is room");
        queue.push(0, ALPHA, 10, receipts()).expect("there is room");
        let mut batch = Vec::new();
        assert!(requests.take(1, 100, &mut batch), "the rest is for the next one");
        assert_eq!(batch.len(), 1);
        batch.clear();
        assert!(!requests.take(1, 100, &mut batch) && batch.len() == 2);
    }

    #[tokio::test]
    async fn a_session_waits_until_its_tenant_has_room_again() {
        let (queue, requests) = queue(8);
        let taken = (0..8).filter(|_| queue.push(0, ALPHA, 10, receipts()).is_ok()).count();
        assert_eq!(taken, 4, "half of the queue is left to others");
        assert!(matches!(queue.push(0, ALPHA, 10, receipts()), Err(NotTaken::Full(Full::Flow(_)))));
        queue.push(0, BETA, 10, receipts()).expect("another tenant has a place");
        queue.eased(BETA.tenant, || 0).await;
        let eased = queue.eased(ALPHA.tenant, || 0);
        tokio::pin!(eased);
        tokio::select! { biased;
            () = &mut eased => panic!("it has as many as it may"),
            () = std::future::ready(()) => {}
        }
        let mut batch = Vec::new();
        requests.take(1, 8, &mut batch);
        eased.await;
        drop(requests);
        assert_eq!(queue.push(0, ALPHA, 10, receipts()), Err(NotTaken::Stopped));
        // It is not waited for when the shard has stopped, and what was under way can end.
        queue.eased(ALPHA.tenant, || 0).await;
        drop(batch);
    }

    #[tokio::test]
    async fn a_session_waits_while_its_tenant_is_late() {
        const WAIT_US: u64 = 10_000;
        let (queue, requests) = queue_where(100, WAIT_US);
        let (mut batch, mut now_us) = (Vec::new(), 0);
        // Late on each turn, with one left behind, for longer than is forgiven.
        queue.push(now_us, ALPHA, 10, receipts()).expect("there is room");
        for _ in 0..6 {
            queue.push(now_us, ALPHA, 10, receipts()).expect("it is not refused yet");
            now_us += 2 * WAIT_US;
            requests.take(now_us, 1, &mut batch);
        }
        assert!(matches!(queue.push(now_us, ALPHA, 10, receipts()), Err(NotTaken::Full(Full::Late(_)))));
        let eased = queue.eased(ALPHA.tenant, || now_us);
        tokio::pin!(eased);
        tokio::select! { biased;
            () = &mut eased => panic!("little of it waits, and more is refused all the same"),
            () = std::future::ready(()) => {}
        }
        requests.take(now_us, 100, &mut batch);
        eased.await;
    }

    #[test]
    fn the_end_of_a_session_comes_behind_its_requests_and_is_never_refused() {
        let (queue, requests) = queue(2);
        queue.push(0, ALPHA, 10, receipts()).expect("there is room");
        queue.close_session(ALPHA.tenant, 7);
        queue.close_session(ALPHA.tenant, 8);
        let mut batch = Vec::new();
        requests.take(0, 10, &mut batch);
        assert!(matches!(
            batch.as_slice(),
            [InboxItem::Settled(..), InboxItem::SessionClosed(7), InboxItem::SessionClosed(8)]
        ));
    }
}
