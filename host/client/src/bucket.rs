//! A bucket: get, put and delete. `update.rs` has update.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use rejoin_proto::{Content, Name};

use crate::engine::Engine;
use crate::read::Get;
use crate::write::{NeedsDeleteBasis, NeedsPutBasis, Write};
use crate::{Codec, Error, ErrorKind, Result};

/// A bucket whose values are encoded by `C`. Clones are cheap.
///
/// Keys are up to 1 KiB of any bytes. A write names what it replaces: the context of a read, an absent value
/// ([`Write::create`]), or nothing ([`Write::blind`]). There is no plain overwrite, because it would lose concurrent
/// changes.
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

    /// Reads a key. Set options on the result, then await it.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("apples").r(2).await?;
    /// println!("{:?}, merged by {:?}", object.value, object.merged_by);
    /// # Ok(()) }
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get<C> {
        Get::new(Arc::clone(&self.engine), self.name.clone(), key.as_ref())
    }

    /// Writes a value. Choose what it replaces, then await it.
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
    /// A write without that choice does not compile:
    ///
    /// ```compile_fail
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// bucket.put("apples", 3).await?;
    /// # Ok(()) }
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Borrow<C::Value>) -> Write<NeedsPutBasis> {
        let content = encode::<C>(value.borrow()).map(|bytes| Content::Value(bytes.into()));
        Write::new(Arc::clone(&self.engine), self.name.clone(), key.as_ref(), content)
    }

    /// Deletes a key. Choose what is deleted, usually the context of a read, then await it.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let object = bucket.get("apples").await?;
    /// bucket.delete("apples").context(&object.context).await?;
    /// # Ok(()) }
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Write<NeedsDeleteBasis> {
        Write::new(Arc::clone(&self.engine), self.name.clone(), key.as_ref(), Ok(Content::Tombstone))
    }
}

pub(crate) fn encode<C: Codec>(value: &C::Value) -> Result<Vec<u8>> {
    C::encode(value).map_err(|why| Error::new(ErrorKind::Codec, format!("the value cannot be encoded: {why}")))
}
