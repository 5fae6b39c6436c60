//! The core's own rows in [`Space::Pinned`]: their keys and their frozen encodings.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::{ActorId, Dot, LayoutRef, NodeId, PartitionId, RequestId};

use crate::port::{Space, Store, StoreFault};

/// The first byte of a row's key: its kind.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    Actor = b'a',
    Former = b'f',
    Gain = b'n',
    Gap = b'g',
    Grid = b'q',
    Holding = b'h',
    Loss = b'c',
    HoldingVersion = b'v',
    Observed = b'o',
    Receipts = b'p',
    Retry = b'r',
    Start = b's',
    Vouched = b'l',
}

/// The actor of a partition and the counter it uses next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ActorRow {
    pub(crate) actor: ActorId,
    pub(crate) next: u64,
}

impl Versioned for ActorRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "actor row";
}

/// A write that was done for a request id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RetryRow {
    pub(crate) dot: Dot,
    /// The sealed context of the reply.
    pub(crate) context: Vec<u8>,
    /// The epoch in which it was written.
    pub(crate) epoch: u64,
}

impl Versioned for RetryRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "retry row";
}

/// The start ids of a shard, see [`StartIds`](crate::start::StartIds).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct StartRow {
    pub(crate) memory: u64,
    pub(crate) tenures: u64,
}

impl Versioned for StartRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "start row";
}

/// An observed counter, or the version of an advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NumberRow(pub(crate) u64);

impl Versioned for NumberRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "number row";
}

/// A partition that is being taken from the owners in an older layout, see [`Gains`](crate::exchange::gains::Gains).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct GainRow {
    /// The layout by which it is gained.
    pub(crate) layout: LayoutRef,
    /// The owners from which everything was taken.
    pub(crate) met: Vec<NodeId>,
}

impl Versioned for GainRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "gain row";
}

/// When everything was lost that this replica had, in milliseconds of the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LossRow(pub(crate) u64);

impl Versioned for LossRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "loss row";
}

/// The newest layout for which everything was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct VouchedRow(pub(crate) LayoutRef);

impl Versioned for VouchedRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "vouched row";
}

/// The key of a row: kind (1 byte) ‖ partition (2 bytes) ‖ the rest.
pub(crate) fn key(kind: Kind, partition: PartitionId, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + rest.len());
    key.push(kind as u8);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

pub(crate) fn observed_key(partition: PartitionId, actor: ActorId) -> Vec<u8> {
    key(Kind::Observed, partition, &actor.0.to_be_bytes())
}

pub(crate) fn retry_key(partition: PartitionId, request: RequestId) -> Vec<u8> {
    key(Kind::Retry, partition, &request.0.to_be_bytes())
}

/// All rows of a kind: partition, the rest of the key, the row.
///
/// # Errors
/// What the store says, or [`StoreFault::Damaged`] if a row cannot be decoded.
pub(crate) fn load<T: Versioned>(store: &dyn Store, kind: Kind) -> Result<Vec<(PartitionId, Vec<u8>, T)>, StoreFault> {
    let mut rows = Vec::new();
    let mut fault = None;
    store.scan(Space::Pinned, &[kind as u8], Some(&[kind as u8 + 1]), &mut |key, value| match (
        key,
        codec::decode(&value),
    ) {
        ([_, high, low, rest @ ..], Ok(row)) => {
            rows.push((PartitionId(u16::from_be_bytes([*high, *low])), rest.to_vec(), row));
            core::ops::ControlFlow::Continue(())
        }
        (_, decoded) => {
            let why = decoded
                .err()
                .map_or_else(|| alloc::format!("{}: short key", T::WHAT), |error| alloc::format!("{error}"));
            fault = Some(StoreFault::Damaged(why));
            core::ops::ControlFlow::Break(())
        }
    })?;
    fault.map_or(Ok(rows), Err)
}
