//! The protocol between a node and its process that checks laws. The request is a line with the limits, followed by
//! the component; the answer is lines of JSON: any number about the progress, and one at the end.

use serde::{Deserialize, Serialize};

use super::{LawError, LawProgress};
use crate::law_report::LawTest;

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
