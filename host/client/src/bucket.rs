//! A bucket: get, put, delete, update.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use rejoin_proto::hash::MAX_KEY_BYTES;
use rejoin_proto::{Content, Name};

use crate::engine::Engine;
use crate::read::Get;
use crate::update::Update;
use crate::write::{DeleteBasis, PutBasis, Write};
use crate::{Codec, Error, ErrorKind, Result};

/// A bucket whose values are encoded by `C`. Clones are cheap.
///
/// Keys are up to 1 KiB of any bytes. A write says what it replaces: the context of a read, nothing
/// ([`Write::create`]), or nothing on purpose ([`Write::blind`]); there is no write that just overwrites, because that
/// is how concurrent changes are lost.
pub struct Bucket<C> {
    pub(crate) engine: Arc<Engine>,
    pub(crate) name: Name,
    pub(crate) codec: PhantomData<fn() -> C>,
}

impl<C> Clone for Bucket<C> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), name: self.name.clone(), codec: PhantomData }
    }
}

impl<C> fmt::Debug for Bucket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.name)
    }
}

impl<C: Codec> Bucket<C> {
    /// The bucket's name.
    ///
    /// ```no_run
    /// # fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) {
    /// println!("{}", bucket.name());
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Reads what is stored under a key. Await the result, or set something on it first.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("apples").r(2).await?;
    /// println!("{:?}, merged by {:?}", object.value, object.merged_by);
    /// # Ok(()) }
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get<C> {
        Get::new(self.clone(), key.as_ref())
    }

    /// Writes a value. Say what it replaces, then await it.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("apples").await?;
    /// let written = bucket.put("apples", 3).context(&object.context).w(2).await?;
    /// bucket.put("pears", 1).create().await?;
    /// bucket.put("plums", 9).blind().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// A write that does not say it does not compile:
    ///
    /// ```compile_fail
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// bucket.put("apples", 3).await?;
    /// # Ok(()) }
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Borrow<C::Value>) -> Write<PutBasis> {
        let content = encode::<C>(value.borrow()).map(|bytes| Content::Value(bytes.into()));
        Write::new(Arc::clone(&self.engine), self.name.clone(), key.as_ref(), content)
    }

    /// Deletes a key. Say what is deleted (what a read has seen, or whatever this node knows nothing of), then await
    /// it.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("apples").await?;
    /// bucket.delete("apples").context(&object.context).await?;
    /// # Ok(()) }
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Write<DeleteBasis> {
        Write::new(Arc::clone(&self.engine), self.name.clone(), key.as_ref(), Ok(Content::Tombstone))
    }

    /// Reads a key, lets `edit` make a new value of what is there, and writes that with the context of the read; see
    /// [`Update`]. In a bucket without a merge plugin, also say how siblings are merged: [`Update::resolve`].
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let updated = bucket.update("apples", |stock| stock.unwrap_or(0) + 1).await?;
    /// println!("now {}", updated.value);
    /// # Ok(()) }
    /// ```
    pub fn update<'f>(&self, key: impl AsRef<[u8]>, edit: impl FnMut(Option<C::Value>) -> C::Value + Send + 'f) -> Update<'f, C> {
        Update::new(self.clone(), key.as_ref(), Box::new(edit))
    }
}

pub(crate) fn encode<C: Codec>(value: &C::Value) -> Result<Vec<u8>> {
    C::encode(value).map_err(|why| Error::new(ErrorKind::Codec, format!("the value cannot be encoded: {why}")))
}

/// Checks a key before a trip is made for nothing.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() <= MAX_KEY_BYTES {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, format!("the key has {} bytes, at most {MAX_KEY_BYTES} are possible: use a hash of it", key.len())))
}
