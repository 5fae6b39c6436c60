//! Reads of one key.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rejoin_proto::Name;
use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{self, Reply, RequestBody};

use crate::engine::{Engine, Route, unexpected};
use crate::key::check_key;
use crate::{Codec, Object, Result};

/// A read to be awaited. Made by [`Bucket::get`](crate::Bucket::get).
///
/// It is sent to the first owner of the key, and to other nodes if that one cannot be reached, does not answer or
/// refuses. Reads are safe to repeat, so it is retried within the time-out and the client's retry budget.
#[must_use = "a read does nothing until it is awaited"]
pub struct Get<C> {
    engine: Arc<Engine>,
    get: client::Get,
    timeout: Duration,
    hedge: Option<Duration>,
    codec: PhantomData<fn() -> C>,
}

impl<C> Clone for Get<C> {
    fn clone(&self) -> Self {
        let (engine, get) = (Arc::clone(&self.engine), self.get.clone());
        Self { engine, get, timeout: self.timeout, hedge: self.hedge, codec: PhantomData }
    }
}

impl<C> fmt::Debug for Get<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("get", &self.get)
            .field("timeout", &self.timeout)
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}

impl<C: Codec> Get<C> {
    pub(crate) fn new(engine: Arc<Engine>, bucket: Name, key: &[u8]) -> Self {
        let get = client::Get {
            bucket,
            key: key.to_vec().into(),
            r: None,
            pr: None,
            siblings: false,
            show: client::Show::Nothing,
        };
        let timeout = engine.timeout;
        Self { engine, get, timeout, hedge: None, codec: PhantomData }
    }

    /// The number of replicas that must answer. Overrides the bucket's `r`. More than the bucket's `n` counts as `n`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let everyone_asked = bucket.get("k").r(3).await?;
    /// # Ok(()) }
    /// ```
    pub fn r(mut self, replicas: u8) -> Self {
        self.get.r = Some(Quorum::Count(replicas));
        self
    }

    /// How many of them must be owners of the key. Overrides the bucket's `pr`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("k").r(2).pr(2).await?;
    /// # Ok(()) }
    /// ```
    pub fn pr(mut self, owners: u8) -> Self {
        self.get.pr = Some(Quorum::Count(owners));
        self
    }

    /// Also returns the siblings of a merged value.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let parts = bucket.get("k").siblings().await?.siblings;
    /// # Ok(()) }
    /// ```
    pub fn siblings(mut self) -> Self {
        self.get.siblings = true;
        self
    }

    /// Also returns the plugin's readable form of the value.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let readable = bucket.get("k").show().await?.shown;
    /// # Ok(()) }
    /// ```
    pub fn show(mut self) -> Self {
        self.get.show = client::Show::Readable;
        self
    }

    /// The time-out of all attempts together.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("k").timeout(std::time::Duration::from_millis(300)).await?;
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the read to a second node too if the first has not answered after that time, and returns the first reply.
    /// Each such read takes one retry from the client's budget. A good value is a little above the 95th percentile of
    /// the latency.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("k").hedge(std::time::Duration::from_millis(20)).await?;
    /// # Ok(()) }
    /// ```
    pub fn hedge(mut self, after: Duration) -> Self {
        self.hedge = Some(after);
        self
    }

    async fn send(self) -> Result<Object<C::Value>> {
        check_key(&self.get.key)?;
        let (name, key) = (self.get.bucket.clone(), self.get.key.clone());
        let body = RequestBody::Get(self.get);
        match self.engine.read(Route::Key(&name, &key), &body, self.timeout, self.hedge).await? {
            Reply::Get(reply) => Object::from_reply::<C>(reply),
            _ => Err(unexpected("the node")),
        }
    }
}

impl<C: Codec> IntoFuture for Get<C> {
    type Output = Result<Object<C::Value>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
