//! The result of a read.

use rejoin_proto::client::GetReply;

use crate::{Codec, CodecError, Context, Error, ErrorKind, Result};

/// The result of a read.
///
/// There are three cases: nothing (no `value`, no `siblings`), one value (single or merged), and unmerged siblings (no
/// `value`, several `siblings`, and the reason in `merge_fault`). [`Object::into_value`] tells them apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Object<V> {
    /// The single or merged value.
    pub value: Option<V>,
    /// For the write that follows this read, also if nothing was found.
    pub context: Context,
    /// One sibling for a single or merged value, all if they were requested or could not be merged, none if nothing was
    /// found.
    pub siblings: Vec<Sibling<V>>,
    /// The plugin that merged `value`, now or in an earlier fold.
    pub merged_by: Option<MergedBy>,
    /// Why the siblings were not merged.
    pub merge_fault: Option<String>,
    /// The plugin's readable form of the value, if requested and available.
    pub shown: Option<String>,
    /// The names of the replicas that answered in time.
    pub answered: Vec<String>,
    /// The names of fallbacks that may hold writes to the key and could not be asked. If nothing was found, one of them
    /// may still have the value.
    pub unreachable: Vec<String>,
}

/// One of several concurrently written values.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Sibling<V> {
    /// The value.
    pub value: V,
    /// The time of the write in milliseconds since 1970, by the clock of its coordinator.
    pub stamp_ms: u64,
    /// The actor that coordinated the write: the same on every replica.
    pub writer: u64,
}

/// The plugin that merged a value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MergedBy {
    /// The name in the catalog, if the node has the record.
    pub name: Option<String>,
    /// The SHA-256 of its component, as hexadecimal digits.
    pub digest: String,
}

impl<V> Object<V> {
    /// Whether there is a value or siblings.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.value.is_some() || !self.siblings.is_empty()
    }

    /// Returns the value, `None` if nothing was found.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// let stock = bucket.get("apples").await?.into_value()?.unwrap_or(0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there are unmerged siblings: merge [`Object::siblings`] and put the result with
    /// [`Object::context`].
    pub fn into_value(self) -> Result<Option<V>> {
        if self.value.is_some() || self.siblings.is_empty() {
            return Ok(self.value);
        }
        let why = self.merge_fault.as_deref().unwrap_or("the bucket has no plugin");
        let advice = "merge them yourself and put the result with the context of this read";
        Err(Error::new(
            ErrorKind::Conflict,
            format!("the key has {} siblings that were not merged ({why}); {advice}", self.siblings.len()),
        ))
    }

    /// Returns the value, `merge`d if there are unmerged siblings; `None` if nothing was found.
    ///
    /// ```no_run
    /// # async fn run(bucket: rejoin_client::Bucket<rejoin_client::Json<u32>>) -> rejoin_client::Result<()> {
    /// use rejoin_client::Sibling;
    ///
    /// let most = |siblings: Vec<Sibling<u32>>| siblings.into_iter().map(|one| one.value).max().unwrap_or(0);
    /// let stock = bucket.get("apples").await?.into_value_with(most);
    /// # Ok(()) }
    /// ```
    pub fn into_value_with(self, merge: impl FnOnce(Vec<Sibling<V>>) -> V) -> Option<V> {
        if self.value.is_some() || self.siblings.is_empty() { self.value } else { Some(merge(self.siblings)) }
    }

    /// Decodes a reply.
    pub(crate) fn from_reply<C: Codec<Value = V>>(reply: GetReply) -> Result<Self> {
        let decode = |bytes: &[u8]| C::decode(bytes).map_err(|why| undecodable(&why));
        let sibling = |s: rejoin_proto::client::Sibling| {
            Ok(Sibling { value: decode(&s.value)?, stamp_ms: s.stamp_ms, writer: s.writer })
        };
        let merged_by = reply
            .merged_by
            .map(|by| MergedBy { name: by.name.map(|name| name.to_string()), digest: by.digest.to_string() });
        Ok(Self {
            value: reply.value.as_deref().map(decode).transpose()?,
            context: Context::from_wire(reply.context),
            siblings: reply.siblings.into_iter().map(sibling).collect::<Result<_>>()?,
            merged_by,
            merge_fault: reply.merge_fault,
            shown: reply.shown.map(|text| String::from_utf8_lossy(&text).into_owned()),
            answered: reply.answered.into_iter().map(|name| name.to_string()).collect(),
            unreachable: reply.unreachable.into_iter().map(|name| name.to_string()).collect(),
        })
    }
}

fn undecodable(why: &CodecError) -> Error {
    let advice = "read it as `Bytes` to see it";
    Error::new(ErrorKind::Codec, format!("what is stored cannot be decoded as this bucket's type ({why}); {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Json;

    fn reply(value: Option<&'static str>, siblings: &[&'static str]) -> GetReply {
        let sibling =
            |text: &&'static str| rejoin_proto::client::Sibling { value: (*text).into(), stamp_ms: 1, writer: 2 };
        GetReply {
            value: value.map(Into::into),
            shown: None,
            siblings: siblings.iter().map(sibling).collect(),
            context: vec![1].into(),
            merged_by: None,
            merge_fault: (value.is_none() && !siblings.is_empty()).then(|| "it trapped".into()),
            answered: Vec::new(),
            unreachable: Vec::new(),
        }
    }

    #[test]
    fn the_three_cases_are_told_apart() {
        let object = |value, siblings: &[&'static str]| Object::from_reply::<Json<u32>>(reply(value, siblings));
        assert_eq!(object(Some("7"), &["7"]).unwrap().into_value().unwrap(), Some(7));
        let nothing = object(None, &[]).unwrap();
        assert!(!nothing.is_found());
        assert_eq!(nothing.into_value().unwrap(), None);
        let conflict = object(None, &["1", "2"]).unwrap();
        assert!(conflict.is_found());
        let error = conflict.into_value().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("it trapped"), "{error}");
        let sum = |siblings: Vec<Sibling<u32>>| siblings.iter().map(|sibling| sibling.value).sum();
        let merged = |value, siblings| object(value, siblings).unwrap().into_value_with(sum);
        assert_eq!(
            (merged(Some("7"), &["3", "4"]), merged(None, &["1", "2"]), merged(None, &[])),
            (Some(7), Some(3), None)
        );
        assert_eq!(object(Some("seven"), &[]).unwrap_err().kind(), ErrorKind::Codec);
    }
}
