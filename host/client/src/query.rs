//! Questions to a bucket's plugin.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rejoin_proto::Name;
use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{Get, Reply, RequestBody, Show};

use crate::Result;
use crate::engine::{Engine, Route, unexpected};
use crate::key::check_key;

/// A question to be awaited. Made by [`Bucket::query`](crate::Bucket::query). It reads as a get does, and is as safe to
/// repeat.
#[must_use = "a question is not asked until it is awaited"]
#[derive(Clone)]
pub struct Query {
    engine: Arc<Engine>,
    get: Get,
    timeout: Duration,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("get", &self.get).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Query {
    pub(crate) fn new(engine: Arc<Engine>, bucket: Name, key: &[u8], question: &[u8]) -> Self {
        let show = Show::Answer(question.to_vec().into());
        let get = Get { bucket, key: key.to_vec().into(), r: None, pr: None, siblings: false, show };
        let timeout = engine.timeout;
        Self { engine, get, timeout }
    }

    /// The number of replicas whose copies are merged. Overrides the bucket's `r`. More than the bucket's `n` counts as
    /// `n`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let everyone_asked = bucket.query("k", "").r(3).await?;
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
    /// let answer = bucket.query("k", "").r(2).pr(2).await?;
    /// # Ok(()) }
    /// ```
    pub fn pr(mut self, owners: u8) -> Self {
        self.get.pr = Some(Quorum::Count(owners));
        self
    }

    /// The time-out of all attempts together.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let answer = bucket.query("k", "").timeout(std::time::Duration::from_millis(300)).await?;
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn send(self) -> Result<Option<Vec<u8>>> {
        check_key(&self.get.key)?;
        let (name, key) = (self.get.bucket.clone(), self.get.key.clone());
        let body = RequestBody::Get(self.get);
        match self.engine.read(Route::Key(&name, &key), &body, self.timeout, None).await? {
            Reply::Get(reply) => Ok(reply.shown.map(|answer| answer.to_vec())),
            _ => Err(unexpected("the node")),
        }
    }
}

impl IntoFuture for Query {
    type Output = Result<Option<Vec<u8>>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
