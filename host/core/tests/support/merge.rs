//! A merge that stands for a plugin: the union of comma-separated words. That is a lattice join, so its order does not
//! matter.

use std::collections::BTreeSet;

use bytes::Bytes;

use rejoin_core::shard::event::{ApplyJob, MergeJob, Merged, PluginError, ValidateJob};
use rejoin_proto::ProfileId;
use rejoin_proto::client::Show;
use rejoin_proto::fault::{MergeFault, Refusal};

pub(crate) fn words(values: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Bytes {
    let mut words = BTreeSet::new();
    for value in values {
        let text = std::str::from_utf8(value.as_ref()).expect("words are text");
        words.extend(text.split(',').filter(|word| !word.is_empty()).map(str::to_owned));
    }
    words.into_iter().collect::<Vec<_>>().join(",").into()
}

pub(crate) fn union(job: &MergeJob) -> Result<Merged, PluginError> {
    let value = words(job.siblings.iter().map(|sibling| &sibling.value));
    let shown = match &job.show {
        Show::Nothing => None,
        Show::Readable => Some(format!("<{}>", String::from_utf8_lossy(&value)).into()),
        // Whether it is one of the words.
        Show::Answer(word) if word.as_ref() == b"?" => {
            return Err(MergeFault::NotExported { interface: "operator" }.into());
        }
        Show::Answer(word) => {
            Some(value.split(|byte| *byte == b',').any(|known| known == word.as_ref()).to_string().into())
        }
    };
    Ok(Merged { value, shown, profile: ProfileId(7), fuel_used: 7 })
}

/// Takes what [`union`] can read.
pub(crate) fn is_words(job: &ValidateJob) -> Result<(), PluginError> {
    let words = std::str::from_utf8(&job.value).is_ok_and(|text| !text.contains('!'));
    if words { Ok(()) } else { Err(MergeFault::Refused(Refusal::Malformed).into()) }
}

/// Adds a word with the counter of the operation's dot to those of the siblings.
pub(crate) fn add_word(job: &ApplyJob) -> Result<Bytes, PluginError> {
    let word = std::str::from_utf8(&job.operation).ok().filter(|word| !word.contains(['!', ',']));
    let word = word.ok_or(MergeFault::Refused(Refusal::Malformed))?;
    let added = format!("{word}.{}", job.dot.counter);
    let known = job.siblings.iter().map(|sibling| sibling.value.to_vec());
    Ok(words(known.chain([added.into_bytes()])))
}
