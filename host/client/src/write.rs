//! Writes and deletes. A typestate makes sure that each names what it replaces before it can be awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{Basis, Put, StartId};
use rejoin_proto::{Content, Name, RequestId};

use crate::engine::Engine;
use crate::key::check_key;
use crate::{Context, Result, time};

/// The state of a put for which no basis was chosen yet.
#[derive(Clone, Copy, Debug)]
pub struct NeedsPutBasis(());

/// The state of a delete for which no basis was chosen yet.
#[derive(Clone, Copy, Debug)]
pub struct NeedsDeleteBasis(());

/// The state of a write with a basis, which can be awaited.
#[derive(Clone, Copy, Debug)]
pub struct HasBasis(());

/// The states without a basis: [`NeedsPutBasis`] and [`NeedsDeleteBasis`].
pub trait NeedsBasis: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NeedsPutBasis {}
    impl Sealed for super::NeedsDeleteBasis {}
}

impl NeedsBasis for NeedsPutBasis {}
impl NeedsBasis for NeedsDeleteBasis {}

/// A write or delete, to be awaited once its basis, what it replaces, is chosen. Made by
/// [`Bucket::put`](crate::Bucket::put) and [`Bucket::delete`](crate::Bucket::delete).
///
/// If an attempt certainly wrote nothing, the write is retried at any node, within the time-out and the client's retry
/// budget. If an attempt was sent and not answered, it is repeated only where it cannot become a second write: at the
/// same node, under the same request id, within the node's retry window, and while the node remembers the first
/// attempt. Otherwise the write fails with [`ErrorKind::Unknown`](crate::ErrorKind::Unknown). After a future is dropped
/// before it is done, the outcome is unknown too.
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
    /// Covers the write and what it replaced. The next write with it replaces both, and becomes a sibling of values
    /// that this writer has not read, such as those from before a blind write.
    pub context: Context,
    /// The number of replicas that acknowledged in time.
    pub acked: u8,
    /// The number of acknowledgements needed.
    pub needed: u8,
}

impl<S> Write<S> {
    pub(crate) fn new(engine: Arc<Engine>, bucket: Name, key: &[u8], content: Result<Content>) -> Self {
        let put = content.and_then(|content| {
            check_key(key)?;
            let (request, start) = (RequestId(engine.rng.request_id()), StartId::default());
            let key = key.to_vec().into();
            Ok(Put {
                bucket,
                key,
                content,
                basis: Basis::Blind,
                request,
                start,
                attempt: 0,
                w: None,
                pw: None,
                ttl_ms: None,
            })
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

    fn based_on(self, basis: Basis) -> Write<HasBasis> {
        let Self { engine, put, timeout, .. } = self.set(|put| put.basis = basis);
        Write { engine, put, timeout, state: std::marker::PhantomData }
    }

    /// The number of replicas that must acknowledge. Overrides the bucket's `w`. More than the bucket's `n` counts as
    /// `n`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).blind().w(3).await?;
    /// # Ok(()) }
    /// ```
    pub fn w(self, replicas: u8) -> Self {
        self.set(|put| put.w = Some(Quorum::Count(replicas)))
    }

    /// How many of them must be owners of the key. Overrides the bucket's `pw`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).blind().w(2).pw(2).await?;
    /// # Ok(()) }
    /// ```
    pub fn pw(self, owners: u8) -> Self {
        self.set(|put| put.pw = Some(Quorum::Count(owners)))
    }

    /// The time to live, from the time of the write, in milliseconds rounded up. Overrides the bucket's. Zero is
    /// refused with [`ErrorKind::Config`](crate::ErrorKind::Config).
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

    /// The time-out of all attempts together.
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

impl Write<HasBasis> {
    /// An operation of the plugin's data type.
    pub(crate) fn operation(engine: Arc<Engine>, bucket: Name, key: &[u8], content: Result<Content>) -> Self {
        Self::new(engine, bucket, key, content).based_on(Basis::Operation)
    }

    /// The inputs of a fold, in the place of the folded entry that the context is of.
    pub(crate) fn undo(engine: Arc<Engine>, bucket: Name, (key, content): (&[u8], Content), of: &Context) -> Self {
        Write::<NeedsPutBasis>::new(engine, bucket, key, Ok(content))
            .based_on(Basis::Undo(of.as_bytes().to_vec().into()))
    }
}

impl<S: NeedsBasis> Write<S> {
    /// Replaces the values that the context has seen, and becomes a sibling of the others.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("k").await?;
    /// bucket.put("k", b"v".to_vec()).context(&object.context).await?;
    /// # Ok(()) }
    /// ```
    pub fn context(self, context: &Context) -> Write<HasBasis> {
        self.based_on(Basis::Context(context.as_bytes().to_vec().into()))
    }

    /// Replaces nothing: a put always becomes a sibling of the stored values, a delete removes none of them.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).blind().await?;
    /// # Ok(()) }
    /// ```
    pub fn blind(self) -> Write<HasBasis> {
        self.based_on(Basis::Blind)
    }
}

impl Write<NeedsPutBasis> {
    /// Fails with [`ErrorKind::Exists`](crate::ErrorKind::Exists) if a read at the bucket's `r` finds a value. Two
    /// concurrent creates may both succeed and become siblings.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.put("k", b"v".to_vec()).create().await?;
    /// # Ok(()) }
    /// ```
    pub fn create(self) -> Write<HasBasis> {
        self.based_on(Basis::Create)
    }
}

impl IntoFuture for Write<HasBasis> {
    type Output = Result<Written>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let reply = self.engine.write(self.put?, self.timeout).await?;
            Ok(Written { context: Context::from_wire(reply.context), acked: reply.acked, needed: reply.needed })
        })
    }
}
