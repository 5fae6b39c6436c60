//! One client of a cluster under load.

use std::time::Duration;

use rejoin_client::{Bucket, Bytes, Context, Object};

use super::args::{Mode, Plan};
use super::record::{Kind, Outcome};

/// A client that writes to keys of its own and reads all keys.
pub(crate) struct Writer {
    bucket: Bucket<Bytes>,
    number: u32,
    /// The context of the last write to each of its keys, which are `number`, `number + clients`, `number + 2 *
    /// clients`, ...
    seen: Vec<Option<Context>>,
    value: Vec<u8>,
    writes: u64,
}

impl Writer {
    /// The client with that number.
    pub(crate) fn new(bucket: Bucket<Bytes>, number: u32, plan: &Plan) -> Self {
        let own = (number..plan.keys).step_by(plan.clients as usize).count();
        Self { bucket, number, seen: vec![None; own], value: random_value(plan.value_bytes), writes: 0 }
    }

    /// Writes each of its keys once.
    pub(crate) async fn fill(&mut self, plan: &Plan) -> rejoin_client::Result<()> {
        for own in 0..self.seen.len() {
            self.put(plan, own, None).await?;
        }
        Ok(())
    }

    /// One operation of that kind on a random key.
    pub(crate) async fn operate(&mut self, plan: &Plan, kind: Kind) -> Outcome {
        let done = match (kind, plan.mode) {
            (Kind::Read, _) => self.get(plan).await,
            (Kind::Write, Mode::Conflict) => self.put_blind(plan).await,
            (Kind::Write, _) => self.put(plan, rand::random_range(0..self.seen.len()), plan.deadline).await,
        };
        done.unwrap_or_else(|error| Outcome::Failed(format!("{:?}", error.kind())))
    }

    /// Writes one of its keys, within the time-out of the connection or a shorter one.
    async fn put(&mut self, plan: &Plan, own: usize, timeout: Option<Duration>) -> rejoin_client::Result<Outcome> {
        let number = u32::try_from(own).unwrap_or(u32::MAX) * plan.clients + self.number;
        let put = self.bucket.put(plan.key(number), &self.value);
        let put = match &self.seen[own] {
            Some(context) => put.context(context),
            None => put.blind(),
        };
        let put = match timeout {
            Some(timeout) => put.timeout(timeout),
            None => put,
        };
        let context = put.await?.context;
        // Who only reads needs none, and those of many keys take memory.
        if plan.mode != Mode::Get {
            self.seen[own] = Some(context);
        }
        Ok(Outcome::Done { siblings: 0, merged: false })
    }

    /// Blindly writes a cart with one item of this client. It becomes a sibling of all others.
    async fn put_blind(&mut self, plan: &Plan) -> rejoin_client::Result<Outcome> {
        self.writes += 1;
        let (writer, counter) = (self.number, self.writes);
        let head = format!(r#"{{"clock":{{"c{writer}":{counter}}},"items":{{""#);
        let tail = format!(r#"":{{"c{writer}:{counter}":1}}}}}}"#);
        let item = "i".repeat(plan.value_bytes.saturating_sub(head.len() + tail.len()).max(1));
        let cart = [head, item, tail].concat().into_bytes();
        let put = self.bucket.put(plan.key(rand::random_range(0..plan.keys)), &cart).blind();
        match plan.deadline {
            Some(deadline) => put.timeout(deadline).await?,
            None => put.await?,
        };
        Ok(Outcome::Done { siblings: 0, merged: false })
    }

    async fn get(&self, plan: &Plan) -> rejoin_client::Result<Outcome> {
        let get = self.bucket.get(plan.key(rand::random_range(0..plan.keys)));
        let get = match plan.deadline {
            Some(deadline) => get.timeout(deadline),
            None => get,
        };
        Ok(read(plan.mode, &get.await?))
    }
}

/// The outcome of a read. In `conflict` a missing key is not a failure; unmerged siblings always are.
fn read(mode: Mode, object: &Object<Vec<u8>>) -> Outcome {
    if mode != Mode::Conflict && !object.is_found() {
        return Outcome::Failed("Missing".into());
    }
    if object.merge_fault.is_some() {
        return Outcome::Failed("MergeFault".into());
    }
    Outcome::Done { siblings: object.siblings.len() as u64, merged: object.merged_by.is_some() }
}

/// Random bytes, which do not compress.
pub(crate) fn random_value(bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    rand::fill(&mut value[..]);
    value
}
