//! Read, change, write: with the context carried along.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Bucket, Codec, Context, Error, ErrorKind, Result, Sibling, retry, time};

/// A change to be awaited. Made by [`Bucket::update`].
///
/// It reads the key, calls the function with the value found (`None` if there is none), and writes what that returns
/// with the context of the read. It is no lock: of two updates at the same time both are written, as siblings, and the
/// bucket's plugin merges them at the next read. So the function should change what it was given, not make a value from
/// nothing.
///
/// In a bucket without a plugin nobody merges them: say how with [`Update::resolve`]. Without it, the first update
/// after two at the same time finds siblings, does not call the function, and fails with [`ErrorKind::Conflict`]; so
/// does each one after it.
///
/// When the write certainly did not happen, the whole is tried again from the read, so the function may be called
/// several times; once the outcome of a write is unknown it is not ([`ErrorKind::Unknown`]), since the change could be
/// made twice. What failed for want of a node is tried as often as the client's attempts allow. Where so many write at
/// once that the key is at its sibling limit, it is tried after growing pauses until the time-out: the read of one of
/// them covers all siblings, and its write makes room.
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
    /// The value that was written.
    pub value: V,
    /// What the writer has seen now: its own write and what that replaced.
    pub context: Context,
    /// Replicas that acknowledged in time.
    pub acked: u8,
    /// Replicas that had to.
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

impl<'f, C: Codec> Update<'f, C> {
    pub(crate) fn new(bucket: Bucket<C>, key: &[u8], edit: Edit<'f, C>) -> Self {
        let options = Options { timeout: bucket.engine.timeout, r: None, w: None, ttl: None };
        Self { bucket, key: key.to_vec(), edit, resolve: None, options }
    }

    /// What several siblings come to that nobody else has merged: in a bucket without a plugin, or when its plugin
    /// fails. The function is then called with the result, and the write replaces the siblings. Each sibling is one of
    /// several values that were written at the same time; what is in none but one of them and not in the result is
    /// lost.
    ///
    /// ```no_run
    /// use std::collections::BTreeSet;
    ///
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<BTreeSet<String>>>) -> rejoin_client::Result<()> {
    /// let add = |tags: Option<BTreeSet<String>>| tags.into_iter().flatten().chain(["new".into()]).collect();
    /// let union = |siblings: Vec<rejoin_client::Sibling<BTreeSet<String>>>| siblings.into_iter().flat_map(|one| one.value).collect();
    /// bucket.update("tags", add).resolve(union).await?;
    /// # Ok(()) }
    /// ```
    pub fn resolve(mut self, resolve: impl FnMut(Vec<Sibling<C::Value>>) -> C::Value + Send + 'f) -> Self {
        self.resolve = Some(Box::new(resolve));
        self
    }

    /// How many replicas must answer the read, instead of the bucket's `r`.
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

    /// How many replicas must acknowledge the write, instead of the bucket's `w`.
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

    /// After how long the new value stops being visible, instead of the bucket's time to live.
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

    /// How long everything together may take.
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
            let pause = retry::pause(rounds.made, self.bucket.engine.chance.share()).max(error.retry_after().unwrap_or_default());
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

/// What is left of an update's time.
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    let over = || Error::new(ErrorKind::TimedOut, "the time was over before the update had written anything: give it more with `timeout`");
    if left.is_zero() { Err(over()) } else { Ok(left) }
}

/// Says what the one who updates can do about siblings.
fn unresolved(error: Error) -> Error {
    let advice = "say how to merge them with `update(..).resolve(..)`, or give the bucket a merge plugin";
    Error::new(error.kind(), format!("{error}; {advice}"))
}

/// The rounds of an update.
struct Rounds {
    /// How many may still be made for want of a node.
    left: u8,
    made: u8,
}

impl Rounds {
    /// Whether a round that ended so is worth another one: it wrote nothing, and what it was refused for may be gone. A
    /// context stops being taken when the cluster's secret is rotated; a new read brings a new one. A new read of a key
    /// at its sibling limit covers all siblings, so that a write with its context is taken unless others fill the key
    /// again: that may go on for as long as there is time.
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
