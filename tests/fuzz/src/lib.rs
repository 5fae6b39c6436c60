//! Whatever bytes arrive: what the fuzz targets share. The targets themselves are in `tests/fuzz`.
//!
//! Every target is a property of bytes ([`Target::property`]), so that an input is a file whoever found it: the random
//! engine, a person, or a bug of the past. In order, a target looks at its corpus (`corpus/NAME`: hand-made evil and
//! every input that once failed), at its seeds, and then at what [`Hostile`] makes of its seeds until its time is over.
//! What fails is kept as a file, with the command that looks at it again.
//!
//! The random engine is bolero's, on the pinned compiler, without coverage: what stands for it are seeds that are whole
//! messages, and edits that know where formats break. `cargo xtask fuzz` gives it more time.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

pub mod corpus;
mod hostile;
mod target;

pub use hostile::Hostile;
pub use target::Target;
