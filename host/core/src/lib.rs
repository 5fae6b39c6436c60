//! Decides: causality, quorums, placement, coordination and the catalog.
//!
//! What is here: pure state machines. Time, randomness, the network and plugins come in as arguments and events and go
//! out as effects; the only thing that is asked directly is a synchronous [`port::Store`]. What is not here: files,
//! clocks, threads, sockets, WebAssembly. The crate is `no_std`, so that none of them can slip in.
//!
//! ```
//! use rejoin_core::causal::{self, Write};
//! use rejoin_proto::{ActorId, Content, Dot, Hlc, Object, VersionVector};
//!
//! // Two replicas take a write each, neither having seen the other's ...
//! let write = |actor, value: &'static str| {
//!     let mut object = Object::default();
//!     let dot = Dot { actor: ActorId(actor), counter: 1 };
//!     let content = Content::Value(value.into());
//!     causal::put(&mut object, Write { seen: VersionVector::new(), dot, content, stamp: Hlc::from_ms(1), expires: None });
//!     object
//! };
//! // ... and when they meet, both values are there.
//! let (joined, _) = causal::sync(&write(1, "milk"), &write(2, "bread"));
//! assert_eq!(causal::visible(&joined, 0).len(), 2);
//! ```
//!
//! Reading order: [`causal`] (the algebra of an object), [`layouts`], [`quorum`], [`placement`], [`port`], [`view`], [`shard`],
//! [`control`], [`node`].
//!
//! A comment `// Rule: …` marks a line that a safety property depends on. `tests/twin` has a mutant for each of them: a
//! copy of the core without that line, which a test must catch.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod causal;
pub mod control;
pub mod layouts;
pub mod node;
pub mod placement;
pub mod port;
pub mod quorum;
mod retries;
mod rows;
pub mod shard;
mod start;
mod tenure;
pub mod view;

/// The random numbers of all machines. Seeded by the shell, so that a seed is a run.
pub type Prng = rand_xoshiro::Xoshiro256PlusPlus;
