//! Updates: read, change and write with the context of the read.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Bucket, Codec, Context, Error, ErrorKind, Result, Sibling, retry, time};

/// A change to be awaited. Made by [`Bucket::update`].
///
/// It reads the key, calls the function with the value (`None` if there is none), and writes the result with the
/// context of the read. It does not lock: two concurrent updates are both written, as siblings, and the bucket's plugin
/// merges them at the next read. So the function should change the value that it is given, not replace it.
///
/// A bucket without a plugin does not merge: pass a merge function to [`Update::resolve`]. Without one, every update
/// after two concurrent ones finds siblings and fails with [`ErrorKind::Conflict`].
///
/// If the write certainly did not happen, the update is repeated from the read, so the function may be called several
/// times. If the outcome of a write is unknown, it is not repeated ([`ErrorKind::Unknown`]): the change could be made
/// twice. After other errors it is repeated as often as the client's attempts allow. At the sibling limit of the key it
/// is repeated with growing pauses until the time-out: the next read covers all siblings, so that its write replaces
/// them.
#[must_use = "an update does nothing until it is awaited"]
pub struct Update<'f, C: Codec> {
    bucket: Bucket<C>,
    key: Vec<u8>,
    edit: Edit<'f, C>,
    resolve: Option<Resolve<'f, C>>,
    options: Options,
}

type Resolve<'f, C> = Box<dyn FnMut(Vec<Sibling<<C as Codec>::Value>>) -> <C as Codec>::Value + Send + 'f>;
type Edit<'f, C> = Box<dyn FnMut(Option<<C as Codec>::Value>) -> <C as Codec>::Value + Send + 'f>;

#[derive(Clone, Copy, Debug)]
struct Options {
    timeout: Duration,
    r: Option<u8>,
    w: Option<u8>,
    ttl: Option<Duration>,
}

/// An update that was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Updated<V> {
    /// The written value.
    pub value: V,
    /// Covers the write and what it replaced.
    pub context: Context,
    /// The number of replicas that acknowledged in time.
    pub acked: u8,
    /// The number of acknowledgements needed.
    pub needed: u8,
}

impl<C: Codec> fmt::Debug for Update<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update")
            .field("bucket", &self.bucket)
            .field("key", &self.key)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<C: Codec> Bucket<C> {
    /// Reads a key, calls `edit` with the value, and writes the result with the context of the read; see [`Update`]. In
    /// a bucket without a merge plugin, also pass a merge function to [`Update::resolve`].
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let updated = bucket.update("apples", |stock| stock.unwrap_or(0) + 1).await?;
    /// println!("now {}", updated.value);
    /// # Ok(()) }
    /// ```
    pub fn update<'f>(
        &self,
        key: impl AsRef<[u8]>,
        edit: impl FnMut(Option<C::Value>) -> C::Value + Send + 'f,
    ) -> Update<'f, C> {
        Update::new(self.clone(), key.as_ref(), Box::new(edit))
    }
}

impl<'f, C: Codec> Update<'f, C> {
    fn new(bucket: Bucket<C>, key: &[u8], edit: Edit<'f, C>) -> Self {
        let options = Options { timeout: bucket.engine.timeout, r: None, w: None, ttl: None };
        Self { bucket, key: key.to_vec(), edit, resolve: None, options }
    }

    /// Merges siblings in a bucket without a plugin, or when its plugin fails. The update function is then called with
    /// the result, and the write replaces the siblings. Data that is in a sibling and not in the result is lost.
    ///
    /// ```no_run
    /// use rejoin_client::{Bucket, Json, Result, Sibling};
    ///
    /// type Tags = std::collections::BTreeSet<String>;
    ///
    /// # async fn run(bucket: Bucket<Json<Tags>>) -> Result<()> {
    /// let add = |tags: Option<Tags>| tags.into_iter().flatten().chain(["new".into()]).collect();
    /// let union = |siblings: Vec<Sibling<Tags>>| siblings.into_iter().flat_map(|one| one.value).collect();
    /// bucket.update("tags", add).resolve(union).await?;
    /// # Ok(()) }
    /// ```
    pub fn resolve(mut self, resolve: impl FnMut(Vec<Sibling<C::Value>>) -> C::Value + Send + 'f) -> Self {
        self.resolve = Some(Box::new(resolve));
        self
    }

    /// The number of replicas that must answer the read. Overrides the bucket's `r`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// bucket.update("apples", |stock| stock.unwrap_or(0) + 1).r(1).await?;
    /// # Ok(()) }
    /// ```
    pub fn r(mut self, replicas: u8) -> Self {
        self.options.r = Some(replicas);
        self
    }

    /// The number of replicas that must acknowledge the write. Overrides the bucket's `w`.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// bucket.update("apples", |stock| stock.unwrap_or(0) + 1).w(3).await?;
    /// # Ok(()) }
    /// ```
    pub fn w(mut self, replicas: u8) -> Self {
        self.options.w = Some(replicas);
        self
    }

    /// The time to live of the new value. Overrides the bucket's.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let hour = std::time::Duration::from_secs(3600);
    /// bucket.update("visits", |count| count.unwrap_or(0) + 1).ttl(hour).await?;
    /// # Ok(()) }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// The time-out of all rounds together.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let second = std::time::Duration::from_secs(1);
    /// bucket.update("apples", |stock| stock.unwrap_or(0) + 1).timeout(second).await?;
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    async fn run(mut self) -> Result<Updated<C::Value>> {
        let deadline = Instant::now() + time::bounded("a time-out", self.options.timeout)?;
        let mut rounds = Rounds { left: self.bucket.engine.attempts.max(1), made: 0 };
        loop {
            let error = match self.round(deadline).await {
                Err(error) if rounds.again(&error) => error,
                done => return done,
            };
            let pause =
                retry::pause(rounds.made, self.bucket.engine.rng.jitter()).max(error.retry_after().unwrap_or_default());
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, ?pause, "an update begins again with its read");
            tokio::time::sleep(pause).await;
        }
    }

    async fn round(&mut self, deadline: Instant) -> Result<Updated<C::Value>> {
        let mut get = self.bucket.get(&self.key).timeout(left(deadline)?);
        if let Some(r) = self.options.r {
            get = get.r(r);
        }
        let object = get.await?;
        let context = object.context.clone();
        let old = match &mut self.resolve {
            Some(resolve) => object.into_value_with(resolve),
            None => object.into_value().map_err(unresolved)?,
        };
        let value = (self.edit)(old);
        let mut put = self.bucket.put(&self.key, &value).context(&context).timeout(left(deadline)?);
        if let Some(w) = self.options.w {
            put = put.w(w);
        }
        if let Some(ttl) = self.options.ttl {
            put = put.ttl(ttl);
        }
        let written = put.await?;
        Ok(Updated { value, context: written.context, acked: written.acked, needed: written.needed })
    }
}

/// The time left until an update's deadline.
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    let over = || {
        Error::new(
            ErrorKind::TimedOut,
            "the time was over before the update had written anything: give it more with `timeout`",
        )
    };
    if left.is_zero() { Err(over()) } else { Ok(left) }
}

/// Adds advice to the error about unmerged siblings.
fn unresolved(error: Error) -> Error {
    let advice = "say how to merge them with `update(..).resolve(..)`, or give the bucket a merge plugin";
    Error::new(error.kind(), format!("{error}; {advice}"))
}

/// Counts the rounds of an update.
struct Rounds {
    /// Rounds left, except for those at the sibling limit.
    left: u8,
    made: u8,
}

impl Rounds {
    /// Whether to run another round after that error: it must have written nothing, and may not occur again. A context
    /// becomes invalid when the cluster's secret is rotated; a new read returns a valid one. At the sibling limit a new
    /// read covers all siblings, so its write is accepted unless other writers fill the key again, which may repeat
    /// until the time-out.
    fn again(&mut self, error: &Error) -> bool {
        self.made = self.made.saturating_add(1);
        if error.kind() == ErrorKind::TooManySiblings {
            return true;
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0 && (error.is_retryable() || error.kind() == ErrorKind::BadContext)
    }
}

impl<'f, C: Codec> IntoFuture for Update<'f, C> {
    type Output = Result<Updated<C::Value>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'f>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_begins_again_only_if_nothing_was_written() {
        let again = |kind| Rounds { left: 3, made: 0 }.again(&Error::new(kind, "x"));
        assert!(again(ErrorKind::Unavailable) && again(ErrorKind::Overloaded) && again(ErrorKind::BadContext));
        assert!(!again(ErrorKind::Unknown) && !again(ErrorKind::Conflict) && !again(ErrorKind::Denied));
    }

    #[test]
    fn only_a_full_key_is_tried_for_as_long_as_there_is_time() {
        let mut rounds = Rounds { left: 2, made: 0 };
        let (full, away) = (Error::new(ErrorKind::TooManySiblings, "x"), Error::new(ErrorKind::Unavailable, "x"));
        assert!((0..300).all(|_| rounds.again(&full)));
        assert!(rounds.again(&away) && !rounds.again(&away));
    }
}
