//! The protocol between a node and its compiling process: one request, a line with the limits followed by the
//! component, and one answer.

use serde::{Deserialize, Serialize};

use super::Compiled;
use crate::fault::Rejection;
use crate::json_line;
use crate::plugin::digest_of;
use crate::scan::QUANTITIES;

/// The first bytes of an answer, which tell it from the output of another program.
const MAGIC: &[u8] = b"rejoin-compiled 1\n";

/// The result of compiling a component.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum ChildVerdict {
    /// Machine code follows.
    Compiled {
        exports: Vec<String>,
    },
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    CoreModule,
    NotAComponent {
        reason: String,
    },
    Imports {
        name: String,
    },
    NoMerger {
        exports: String,
    },
    StructureLimit {
        what: String,
        count: u64,
        limit: u64,
    },
    Uncompilable {
        reason: String,
    },
    OutOfMemory,
    Panicked {
        reason: String,
    },
}

pub(super) fn answer(verdict: &ChildVerdict) -> serde_json::Result<Vec<u8>> {
    let mut line = MAGIC.to_vec();
    line.extend(json_line::to_line(verdict)?);
    Ok(line)
}

/// The verdict of an answer, and the machine code behind it.
pub(super) fn read_answer(bytes: &[u8]) -> Option<(ChildVerdict, &[u8])> {
    json_line::split(bytes.strip_prefix(MAGIC)?)
}

impl ChildVerdict {
    /// A rejection as a verdict. `None`: scanning and compiling never give this one.
    pub(super) fn of(rejection: Rejection) -> Option<Self> {
        Some(match rejection {
            Rejection::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            Rejection::CoreModule => Self::CoreModule,
            Rejection::NotAComponent { reason } => Self::NotAComponent { reason },
            Rejection::Imports { name } => Self::Imports { name },
            Rejection::NoMerger { exports } => Self::NoMerger { exports },
            Rejection::StructureLimit { what, count, limit } => {
                Self::StructureLimit { what: what.to_owned(), count, limit }
            }
            // The engine reports what it cannot map as any other error.
            Rejection::Uncompilable { reason } if reason.contains("os error 12") => Self::OutOfMemory,
            Rejection::Uncompilable { reason } => Self::Uncompilable { reason },
            _ => return None,
        })
    }

    /// The compiled component or the rejection. `Err(None)`: the process ran out of memory.
    pub(super) fn into_result(self, component: &[u8], artefact: &[u8]) -> Result<Compiled, Option<Rejection>> {
        Err(Some(match self {
            Self::Compiled { exports } => {
                return Ok(Compiled { digest: digest_of(component), exports, artefact: artefact.to_vec() });
            }
            Self::TooLarge { bytes, limit } => Rejection::TooLarge { bytes, limit },
            Self::CoreModule => Rejection::CoreModule,
            Self::NotAComponent { reason } => Rejection::NotAComponent { reason },
            Self::Imports { name } => Rejection::Imports { name },
            Self::NoMerger { exports } => Rejection::NoMerger { exports },
            Self::StructureLimit { what, count, limit } => {
                let named = QUANTITIES.iter().map(|(name, _)| *name).find(|name| *name == what);
                Rejection::StructureLimit { what: named.unwrap_or("parts"), count, limit }
            }
            Self::Uncompilable { reason } => Rejection::Uncompilable { reason },
            Self::Panicked { reason } => {
                Rejection::Uncompilable { reason: format!("the compiler failed on it: {reason}") }
            }
            Self::OutOfMemory => return Err(None),
        }))
    }
}
