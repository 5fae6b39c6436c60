//! After the storm: the owners of each key must show the same, each from its own copy, without a read that repairs
//! them.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rejoin_client::Client;
use rejoin_test_sim::history::{Final, KeyId, NodeIndex};

use crate::clients::{Load, name_of};
use crate::plan::Place;

/// How long owners may differ after everything is healed.
pub const BOUND: Duration = Duration::from_secs(120);
/// Reads under way at the same time.
const AT_ONCE: usize = 24;
/// The pause before owners that differ are looked at again.
const PAUSE: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client for each node that asks only this one.
#[derive(Debug)]
pub struct Pins(pub Vec<Client>);

impl Pins {
    /// An owner's own copy.
    ///
    /// # Errors
    /// It does not answer, or others had to.
    pub async fn copy(&self, load: &Load, node: NodeIndex, key: KeyId) -> Result<Final, String> {
        let place = Place::Node(node).to_string();
        let bucket = self.0[usize::from(node)].bucket::<rejoin_client::Bytes>(load.bucket_of(key).name);
        let bucket = bucket.map_err(|error| error.to_string())?;
        let read = bucket.get(name_of(key)).r(1).siblings().timeout(TIMEOUT).await;
        let object = read.map_err(|error| format!("{place}: {error}"))?;
        if object.answered != [place.as_str()] {
            return Err(format!("{place} cannot answer from its own copy: {:?} did", object.answered));
        }
        let context = load.open(key, &object.context)?;
        let siblings = object.siblings.into_iter().map(|sibling| (sibling.value.into(), sibling.stamp_ms)).collect();
        Ok(Final::read(key, node, context, siblings))
    }
}

/// How the owners came together.
#[derive(Debug)]
pub enum Healing {
    /// After that time.
    Healed(Duration),
    /// Not within [`BOUND`]: for each key why.
    Unhealed(Vec<(KeyId, String)>),
}

/// Waits until all owners of each key show the same, and records what they show.
pub async fn wait(load: &Load, pins: &Pins, since: Instant) -> Healing {
    let mut pending: Vec<KeyId> = (0..load.key_count()).collect();
    loop {
        let (behind, ended) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let last = since.elapsed() > BOUND;
        each(0..pending.len() as u32, async |at| {
            let key = pending[at as usize];
            let (copies, why) = look(load, pins, key).await;
            if let Some(why) = why {
                behind.lock().unwrap_or_else(PoisonError::into_inner).push((key, why));
                if !last {
                    return;
                }
            }
            ended.lock().unwrap_or_else(PoisonError::into_inner).extend(copies);
        })
        .await;
        load.recording.ends_with(ended.into_inner().unwrap_or_else(PoisonError::into_inner));
        let behind = behind.into_inner().unwrap_or_else(PoisonError::into_inner);
        if behind.is_empty() {
            return Healing::Healed(since.elapsed());
        }
        if last {
            return Healing::Unhealed(behind);
        }
        pending = behind.into_iter().map(|(key, _)| key).collect();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until no node holds anything that it does not own. Returns those that do in the end.
pub async fn empty(pins: &Pins, since: Instant) -> Vec<String> {
    loop {
        let mut held = Vec::new();
        for (node, pin) in (0..).zip(&pins.0) {
            let status = pin.admin().timeout(TIMEOUT).exchange().await;
            match status.map(|status| status.holdings) {
                Ok(0) => {}
                other => held.push(format!("{} still holds what it does not own: {other:?}", Place::Node(node))),
            }
        }
        if held.is_empty() || since.elapsed() > BOUND {
            return held;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The partitions of the ring, and what is wrong with them: all nodes must have the same number, and at least that one.
pub async fn partitions(pins: &Pins, least: u32) -> (u32, Vec<String>) {
    let (mut wrong, mut most) = (Vec::new(), 0);
    for (node, pin) in (0..).zip(&pins.0) {
        let place = Place::Node(node);
        match pin.admin().timeout(TIMEOUT).layout().await.map(|status| status.partitions) {
            Ok(partitions) if partitions >= least && (most == 0 || partitions == most) => most = partitions,
            Ok(other) => wrong.push(format!("{place} has {other} partitions, others {most}; the splits make {least}")),
            Err(why) => wrong.push(format!("{place} does not tell its partitions: {why}")),
        }
    }
    (most, wrong)
}

/// The copies of a key's owners, and why they are not yet what they must be.
async fn look(load: &Load, pins: &Pins, key: KeyId) -> (Vec<Final>, Option<String>) {
    let owners = load.recording.run().keys[key as usize].owners.clone();
    let (mut copies, mut why): (Vec<Final>, _) = (Vec::new(), None);
    for owner in owners {
        match pins.copy(load, owner, key).await {
            Ok(copy) => copies.push(copy),
            Err(instead) => why = Some(instead),
        }
    }
    for pair in copies.windows(2) {
        if pair[0].object != pair[1].object {
            let [one, other] = [&pair[0], &pair[1]].map(|copy| Place::Node(copy.node));
            why = Some(format!("{one} and {other} differ: {:?} and {:?}", pair[0].object, pair[1].object));
        }
    }
    (copies, why)
}

/// Does something for each number, many at a time.
pub async fn each(numbers: Range<u32>, act: impl AsyncFn(u32)) {
    let next = std::cell::Cell::new(numbers.start);
    let worker = async || {
        while next.get() < numbers.end {
            let number = next.replace(next.get() + 1);
            act(number).await;
        }
    };
    let mut workers: Vec<_> = (0..AT_ONCE).map(|_| Box::pin(worker())).collect();
    std::future::poll_fn(|context| {
        workers.retain_mut(|worker| std::future::Future::poll(worker.as_mut(), context).is_pending());
        if workers.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
