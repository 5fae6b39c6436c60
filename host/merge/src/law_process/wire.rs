//! The protocol between a node and its process that checks laws. The request is a line with the limits and what is
//! checked beside the plugin's own values, followed by the component; the answer is lines of JSON: any number about the
//! progress, and one at the end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use rejoin_laws::{Sibling, Trial};

use super::{LawError, LawInputs, LawProgress};
use crate::law_report::LawTest;
use crate::limits::{CallLimits, ModuleLimits};

/// The line of a request.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct LawRequest {
    modules: ModuleLimits,
    /// In base64, as all bytes are.
    intent: Option<String>,
    recorded: Vec<RecordedSet>,
    recorded_limits: Option<CallLimits>,
    fixtures: Vec<String>,
}

/// Siblings of one key.
#[derive(Serialize, Deserialize, Debug)]
struct RecordedSet {
    key: String,
    siblings: Vec<RecordedSibling>,
}

#[derive(Serialize, Deserialize, Debug)]
struct RecordedSibling {
    value: String,
    stamp_ms: u64,
    writer: u64,
}

impl LawRequest {
    pub(super) fn new(modules: ModuleLimits, inputs: &LawInputs) -> Self {
        let sibling = |one: &Sibling| RecordedSibling {
            value: STANDARD.encode(&one.value),
            stamp_ms: one.stamp_ms,
            writer: one.writer,
        };
        let set = |trial: &Trial| RecordedSet {
            key: STANDARD.encode(&trial.key),
            siblings: trial.siblings.iter().map(sibling).collect(),
        };
        Self {
            modules,
            intent: inputs.intent.as_ref().map(|intent| STANDARD.encode(intent)),
            recorded: inputs.recorded.iter().map(set).collect(),
            recorded_limits: inputs.recorded_limits,
            fixtures: inputs.fixtures.iter().map(|value| STANDARD.encode(value)).collect(),
        }
    }

    /// What it asks for. `None`: it is damaged.
    pub(super) fn read(self) -> Option<(ModuleLimits, LawInputs)> {
        let bytes = |text: String| STANDARD.decode(text).ok();
        let sibling = |one: RecordedSibling| {
            Some(Sibling { value: bytes(one.value)?, stamp_ms: one.stamp_ms, writer: one.writer })
        };
        let set = |set: RecordedSet| {
            let siblings = set.siblings.into_iter().map(sibling).collect::<Option<_>>()?;
            Some(Trial { key: bytes(set.key)?, siblings, valid: true })
        };
        let intent = match self.intent {
            Some(text) => Some(bytes(text)?.into()),
            None => None,
        };
        let recorded = self.recorded.into_iter().map(set).collect::<Option<_>>()?;
        let fixtures = self.fixtures.into_iter().map(|value| bytes(value).map(Bytes::from));
        let fixtures = fixtures.collect::<Option<_>>()?;
        let recorded_limits = self.recorded_limits;
        Some((self.modules, LawInputs { intent, recorded, recorded_limits, fixtures }))
    }
}

/// A line of the answer.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum LawAnswer {
    /// A law is checked on its next case.
    Checking { law: String, case: u32, cases: u32 },
    /// The laws were checked.
    Checked(Box<LawTest>),
    /// The component is no plugin.
    Rejected(String),
    /// They could not be checked.
    NotTried(String),
}

/// A line about the progress, or the end.
pub(super) fn read_line(line: &[u8]) -> Option<Result<LawProgress, Result<LawTest, LawError>>> {
    Some(match serde_json::from_slice(line).ok()? {
        LawAnswer::Checking { law, case, cases } => Ok(LawProgress { law, case, cases }),
        LawAnswer::Checked(test) => Err(Ok(*test)),
        LawAnswer::Rejected(why) => Err(Err(LawError::Rejected(why))),
        LawAnswer::NotTried(reason) => Err(Err(LawError::NotTried { reason })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_line;
    use rejoin_proto::catalog::BucketProps;

    #[test]
    fn a_request_has_all_bytes_of_what_is_checked() {
        let sibling = |value: &[u8], writer| Sibling { value: value.to_vec(), stamp_ms: u64::MAX, writer };
        let siblings = vec![sibling(b"\xff\n", 1), sibling(b"", u64::MAX)];
        let recorded = vec![Trial { key: b"k\0".to_vec(), siblings, valid: true }];
        let recorded_limits = Some(CallLimits::of_bucket(&BucketProps { siblings: 7, ..BucketProps::default() }));
        let fixtures = vec![b"\xff\n".to_vec().into(), Vec::new().into()];
        let inputs = LawInputs { intent: Some(b"{\n}".to_vec().into()), recorded, recorded_limits, fixtures };
        let line = json_line::to_line(&LawRequest::new(ModuleLimits::default(), &inputs)).expect("JSON");
        let bytes = [&line[..], b"\0asm"].concat();
        let (request, component) = json_line::split::<LawRequest>(&bytes).expect("a request");
        let (modules, read) = request.read().expect("a sound one");
        assert_eq!((modules.bytes, read, component), (ModuleLimits::default().bytes, inputs, &b"\0asm"[..]));
        let intent = Some("no base64".into());
        let sound = || LawRequest::new(modules, &LawInputs::default());
        assert!(sound().read().is_some());
        assert!(LawRequest { intent, ..sound() }.read().is_none());
        assert!(LawRequest { fixtures: vec!["no base64".into()], ..sound() }.read().is_none());
    }
}
