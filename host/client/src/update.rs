//! Read, change, write: with the context carried along.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Bucket, Codec, Context, Error, ErrorKind, Result};

/// A change to be awaited. Made by [`Bucket::update`].
///
/// It reads the key, calls the function with the value found (`None` if there is none), and writes what that returns with the context of
/// the read. It is no lock: of two updates at the same time both are written, as siblings, and the bucket's plugin merges them at the next
/// read. So the function should change what it was given, not make a value from nothing.
///
/// When the write certainly did not happen, the whole is tried again from the read, so the function may be called several times; once
/// the outcome of a write is unknown it is not ([`ErrorKind::Unknown`]), since the change could be made twice. If the
/// siblings found cannot be merged, the function is not called and the error is [`ErrorKind::Conflict`].
#[must_use = "an update does nothing until it is awaited"]
pub struct Update<'f, C: Codec> {
    bucket: Bucket<C>,
    key: Vec<u8>,
    edit: Edit<'f, C>,
    options: Options,
}

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
        Self { bucket, key: key.to_vec(), edit, options }
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
        let deadline = Instant::now() + self.options.timeout;
        let mut rounds = self.bucket.engine.attempts.max(1);
        loop {
            rounds -= 1;
            match self.round(deadline).await {
                Err(error) if rounds > 0 && again(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, "an update begins again with its read");
                }
                done => return done,
            }
        }
    }

    async fn round(&mut self, deadline: Instant) -> Result<Updated<C::Value>> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut get = self.bucket.get(&self.key).timeout(left());
        if let Some(r) = self.options.r {
            get = get.r(r);
        }
        let object = get.await?;
        let context = object.context.clone();
        let value = (self.edit)(object.into_value()?);
        let mut put = self.bucket.put(&self.key, &value).context(&context).timeout(left());
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

/// Whether a round that ended so is worth another one: it wrote nothing, and what it was refused for may be gone. A context stops being taken when the
/// cluster's secret is rotated; a new read brings a new one.
fn again(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::BadContext
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
        let again = |kind| again(&Error::new(kind, "x"));
        assert!(again(ErrorKind::Unavailable) && again(ErrorKind::Overloaded) && again(ErrorKind::BadContext));
        assert!(!again(ErrorKind::Unknown) && !again(ErrorKind::Conflict) && !again(ErrorKind::Denied));
    }
}
