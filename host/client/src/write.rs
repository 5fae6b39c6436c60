//! Writes and deletes. The types make sure that each says what it replaces.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{Basis, Put, StartId};
use rejoin_proto::{Content, Name, RequestId};

use crate::bucket::check_key;
use crate::engine::Engine;
use crate::{Context, Result, time};

/// A put that has not yet said what it replaces.
#[derive(Clone, Copy, Debug)]
pub struct PutBasis(());

/// A delete that has not yet said what it deletes.
#[derive(Clone, Copy, Debug)]
pub struct DeleteBasis(());

/// A write that has said what it replaces and can be awaited.
#[derive(Clone, Copy, Debug)]
pub struct Ready(());

/// A basis that is still to be chosen: [`PutBasis`] or [`DeleteBasis`].
pub trait Undecided: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::PutBasis {}
    impl Sealed for super::DeleteBasis {}
}

impl Undecided for PutBasis {}
impl Undecided for DeleteBasis {}

/// A write or delete to be awaited, once it has said what it replaces. Made by [`Bucket::put`](crate::Bucket::put) and
/// [`Bucket::delete`](crate::Bucket::delete).
///
/// When nothing was written for certain, it is tried again within the time-out and the client's budget, at any node.
/// When it was sent and no answer came, it is repeated only where that cannot make a second write of it: at the same
/// node, under the same request id, within the node's retry window and while the node remembers the first attempt.
/// Otherwise the answer is [`ErrorKind::Unknown`](crate::ErrorKind::Unknown). The same holds if the future is dropped
/// before it is done.
#[must_use = "a write does nothing until it is awaited"]
pub struct Write<S> {
    engine: Arc<Engine>,
    put: Result<Put>,
    timeout: Duration,
    state: std::marker::PhantomData<S>,
}

impl<S> fmt::Debug for Write<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("put", &self.put).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A write that reached its quorum.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Written {
    /// What the writer has seen now: its own write and what that replaced. The next write with it replaces both, and
    /// stands beside siblings that this writer has not read, such as those that were there before a blind write.
    pub context: Context,
    /// Replicas that acknowledged in time.
    pub acked: u8,
    /// Replicas that had to.
    pub needed: u8,
}

impl<S> Write<S> {
    pub(crate) fn new(engine: Arc<Engine>, bucket: Name, key: &[u8], content: Result<Content>) -> Self {
        let put = content.and_then(|content| {
            check_key(key)?;
            let (request, start) = (RequestId(engine.chance.id()), StartId::default());
            let key = key.to_vec().into();
            Ok(Put { bucket, key, content, basis: Basis::Blind, request, start, attempt: 0, w: None, pw: None, ttl_ms: None })
        });
        let timeout = engine.timeout;
        Self { engine, put, timeout, state: std::marker::PhantomData }
    }

    fn set(mut self, change: impl FnOnce(&mut Put)) -> Self {
        if let Ok(put) = &mut self.put {
            change(put);
        }
        self
    }

    fn based_on(self, basis: Basis) -> Write<Ready> {
        let Self { engine, put, timeout, .. } = self.set(|put| put.basis = basis);
        Write { engine, put, timeout, state: std::marker::PhantomData }
    }

    /// How many replicas must acknowledge, instead of the bucket's `w`. More than the bucket's `n` counts as `n`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).blind().w(3).await?;
    /// # Ok(()) }
    /// ```
    pub fn w(self, replicas: u8) -> Self {
        self.set(|put| put.w = Some(Quorum::Count(replicas)))
    }

    /// How many of those that acknowledge must be owners of the key, instead of the bucket's `pw`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).blind().w(2).pw(2).await?;
    /// # Ok(()) }
    /// ```
    pub fn pw(self, owners: u8) -> Self {
        self.set(|put| put.pw = Some(Quorum::Count(owners)))
    }

    /// After how long the value stops being visible, instead of the bucket's time to live. Counted in milliseconds,
    /// from when it is written. Zero is refused with [`ErrorKind::Config`](crate::ErrorKind::Config).
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("session", b"v".to_vec()).blind().ttl(std::time::Duration::from_secs(3600)).await?;
    /// # Ok(()) }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        match time::ttl_ms(ttl) {
            Ok(ms) => self.set(|put| put.ttl_ms = Some(ms)),
            Err(error) => {
                self.put = self.put.and(Err(error));
                self
            }
        }
    }

    /// How long all attempts together may take.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).create().timeout(std::time::Duration::from_secs(1)).await?;
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<S: Undecided> Write<S> {
    /// Replaces what that context has seen, and stands beside what it has not.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("k").await?;
    /// bucket.put("k", b"v".to_vec()).context(&object.context).await?;
    /// # Ok(()) }
    /// ```
    pub fn context(self, context: &Context) -> Write<Ready> {
        self.based_on(Basis::Context(context.as_bytes().to_vec().into()))
    }

    /// Replaces nothing on purpose: a put always becomes a sibling of what is there, a delete removes nothing that is
    /// there.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).blind().await?;
    /// # Ok(()) }
    /// ```
    pub fn blind(self) -> Write<Ready> {
        self.based_on(Basis::Blind)
    }
}

impl Write<PutBasis> {
    /// Is refused with [`ErrorKind::Exists`](crate::ErrorKind::Exists) if a read at the bucket's `r` finds a value. Two
    /// creates at once may both succeed and become siblings.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).create().await?;
    /// # Ok(()) }
    /// ```
    pub fn create(self) -> Write<Ready> {
        self.based_on(Basis::Create)
    }
}

impl IntoFuture for Write<Ready> {
    type Output = Result<Written>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let reply = self.engine.write(self.put?, self.timeout).await?;
            Ok(Written { context: Context::from_wire(reply.context), acked: reply.acked, needed: reply.needed })
        })
    }
}
