//! A bucket: get, put, delete, apply and query. `update.rs` has update.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use rejoin_proto::{Content, Name};

use crate::engine::Engine;
use crate::query::Query;
use crate::read::Get;
use crate::write::{HasBasis, NeedsDeleteBasis, NeedsPutBasis, Write};
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

    /// Applies an operation of the data type that the bucket's plugin has, such as an increment of a counter: the node
    /// that coordinates it makes the new value of its own copy, so nothing has to be read before. Its format is the
    /// plugin's. Await it as any write.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// bucket.apply("visits", "1").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// An operation sees what that copy holds, and not what other owners have and it does not. Fails with
    /// [`ErrorKind::InvalidValue`] if the plugin refuses it or has no operations, and with [`ErrorKind::Unknown`] as
    /// any write: one that may have been done is not done again.
    pub fn apply(&self, key: impl AsRef<[u8]>, operation: impl AsRef<[u8]>) -> Write<HasBasis> {
        let content = Ok(Content::Value(operation.as_ref().to_vec().into()));
        Write::operation(Arc::clone(&self.engine), self.name.clone(), key.as_ref(), content)
    }

    /// Asks the bucket's plugin a question about the merged value of a key, such as whether a set has an element. Only
    /// the answer is sent. The formats of both are the plugin's. `None`: the key has no value.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Bytes>) -> rejoin_client::Result<()> {
    /// let answer = bucket.query("visits", "\"total\"").r(2).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Fails with [`ErrorKind::InvalidValue`] if the plugin refuses the question or answers none.
    pub fn query(&self, key: impl AsRef<[u8]>, question: impl AsRef<[u8]>) -> Query {
        Query::new(Arc::clone(&self.engine), self.name.clone(), key.as_ref(), question.as_ref())
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
