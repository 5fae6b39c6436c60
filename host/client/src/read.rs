//! Reads.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{self, Reply, RequestBody};

use crate::bucket::check_key;
use crate::engine::{Route, unexpected};
use crate::{Bucket, Codec, Object, Result};

/// A read to be awaited. Made by [`Bucket::get`].
///
/// It is sent to the key's first owner, and to others if that one cannot be reached, does not answer or says no. Reads
/// may be repeated at will, so all retries within the time-out and the client's budget are made.
#[derive(Clone, Debug)]
#[must_use = "a read does nothing until it is awaited"]
pub struct Get<C> {
    bucket: Bucket<C>,
    ask: client::Get,
    timeout: Duration,
    hedge: Option<Duration>,
}

impl<C: Codec> Get<C> {
    pub(crate) fn new(bucket: Bucket<C>, key: &[u8]) -> Self {
        let key = key.to_vec().into();
        let ask = client::Get { bucket: bucket.name.clone(), key, r: None, pr: None, siblings: false, show: false };
        let timeout = bucket.engine.timeout;
        Self { bucket, ask, timeout, hedge: None }
    }

    /// How many replicas must answer, instead of the bucket's `r`. More than the bucket's `n` counts as `n`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let everyone_asked = bucket.get("k").r(3).await?;
    /// # Ok(()) }
    /// ```
    pub fn r(mut self, replicas: u8) -> Self {
        self.ask.r = Some(Quorum::Count(replicas));
        self
    }

    /// How many of those that answer must be owners of the key, instead of the bucket's `pr`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("k").r(2).pr(2).await?;
    /// # Ok(()) }
    /// ```
    pub fn pr(mut self, owners: u8) -> Self {
        self.ask.pr = Some(Quorum::Count(owners));
        self
    }

    /// Returns all siblings also where they were merged.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let parts = bucket.get("k").siblings().await?.siblings;
    /// # Ok(()) }
    /// ```
    pub fn siblings(mut self) -> Self {
        self.ask.siblings = true;
        self
    }

    /// Asks for the plugin's readable form of the value as well.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let readable = bucket.get("k").show().await?.shown;
    /// # Ok(()) }
    /// ```
    pub fn show(mut self) -> Self {
        self.ask.show = true;
        self
    }

    /// How long all attempts together may take.
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

    /// Asks a second node when the first has not answered after that time, and takes what comes first. Costs a retry
    /// from the client's budget each time it happens. A little above the usual latency's 95th percentile is a good
    /// value.
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
        check_key(&self.ask.key)?;
        let (name, key) = (self.ask.bucket.clone(), self.ask.key.clone());
        let body = RequestBody::Get(self.ask);
        match self.bucket.engine.read(Route::Key(&name, &key), &body, self.timeout, self.hedge).await? {
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
