//! The shared parts of the fuzz targets. The targets are in `tests/fuzz`.
//!
//! Every target is a property of bytes ([`Target::property`]), so an input is a file, whether the random engine, a
//! person or an earlier bug has produced it. A target runs its corpus (`corpus/NAME`: inputs made by hand and every
//! input that once failed), then its seeds, and then mutations of its seeds by [`Hostile`] until its time is over. A
//! failing input is stored as a file, and the report has the command to run it again.
//!
//! The random engine is bolero's, on the pinned compiler and without coverage. Seeds that are whole messages, and edits
//! at places where formats break, make up for that. `cargo xtask fuzz` gives it more time.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

pub mod corpus;
mod hostile;
mod target;

pub use hostile::Hostile;
pub use target::Target;
