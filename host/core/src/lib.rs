//! The decisions of a node, as pure state machines: causality, quorums, placement, coordination and the catalog.
//!
//! Time, random numbers, messages and results of plugins come in as arguments and events, and requests to the outside
//! go out as effects. Only the disk is asked directly, through a synchronous [`port::Store`]. There are no files,
//! clocks, threads, sockets or WebAssembly here: the crate is `no_std`.
//!
//! ```
//! use rejoin_core::causal::{self, Write};
//! use rejoin_proto::{ActorId, Content, Dot, Hlc, Object, VersionVector};
//!
//! // Two replicas take a write each, and neither has seen the other's ...
//! let write = |actor, value: &'static str| {
//!     let mut object = Object::default();
//!     let dot = Dot { actor: ActorId(actor), counter: 1 };
//!     let content = Content::Value(value.into());
//!     let seen = VersionVector::new();
//!     causal::put(&mut object, Write { seen, dot, content, stamp: Hlc::from_ms(1), expires: None });
//!     object
//! };
//! // ... so their join has both values.
//! let (joined, _) = causal::sync(&write(1, "milk"), &write(2, "bread"));
//! assert_eq!(causal::visible(&joined, 0).len(), 2);
//! ```
//!
//! Reading order: [`causal`] (the algebra of an object), [`layouts`], [`copies`], [`quorum`], [`placement`], [`port`],
//! [`view`], [`trials`], [`shard`], [`exchange`], [`access`], [`quota`], [`fair`], [`control`], [`ring`], [`members`],
//! [`node`].
//!
//! A comment `// Rule: …` marks a line that a safety property depends on. `tests/twin` has a mutant for each of them: a
//! copy of the core without that line, which a test must catch.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod causal;
pub mod control;
pub mod copies;
pub mod exchange;
pub mod fair;
pub mod layouts;
pub mod members;
pub mod node;
pub mod placement;
pub mod port;
pub mod quorum;
pub mod quota;
mod receipts;
mod retries;
pub mod ring;
mod rows;
pub mod shard;
mod start;
pub mod tenants;
mod tenure;
pub mod trials;
pub mod view;

/// The random numbers of all machines. Seeded by the shell, so that a seed is a run.
pub type Prng = rand_xoshiro::Xoshiro256PlusPlus;
