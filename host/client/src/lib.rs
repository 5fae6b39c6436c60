//! The Rust SDK of Rejoin: layout-aware, always carrying contexts, with a retry budget.
//!
//! A [`Client`] knows the layout of the cluster and sends each request to an owner of its key, over one connection per
//! node. A [`Bucket`] reads and writes typed values. A read returns a [`Context`], and a write names the context that
//! it replaces. Concurrent writes are kept as siblings and merged by the bucket's plugin.
//!
//! ```no_run
//! use rejoin_client::{Client, Json};
//!
//! # async fn run() -> rejoin_client::Result<()> {
//! let client = Client::from_profile("dev/profile.toml").await?;
//! let notes = client.bucket::<Json<Vec<String>>>("notes")?;
//!
//! notes.update("alice", |old| {
//!     let mut list = old.unwrap_or_default();
//!     list.push("water the plants".into());
//!     list
//! }).await?;
//!
//! let object = notes.get("alice").await?;
//! println!("{:?} from {:?}", object.value, object.answered);
//! # Ok(()) }
//! ```
//!
//! The client never repeats a write where the repetition could become a second write (see [`Write`]), never merges, and
//! caches no values. It needs a tokio runtime. Of its dependencies only serde's traits are in its API, except that
//! [`admin`] shares types with the cluster, and a simulation passes a [`Network`](ClientBuilder::network).
//!
//! In reading order: [`ClientBuilder`] and [`Profile`], [`Bucket`], [`Get`], [`Query`], [`Write`], [`Update`],
//! [`Object`], [`Codec`], [`Error`], [`admin`].
#![forbid(unsafe_code)]

pub mod admin;
mod attempts;
mod bootstrap;
mod bucket;
mod builder;
mod client;
mod codec;
mod connections;
mod context;
mod engine;
mod error;
mod key;
mod object;
mod profile;
mod query;
mod read;
mod retry;
mod rng;
mod routing;
mod session;
mod sync;
mod time;
mod update;
mod window;
mod write;

pub use bucket::Bucket;
pub use builder::{ClientBuilder, Tls};
pub use client::Client;
pub use codec::{Bytes, Codec, CodecError, Json, Postcard};
pub use context::Context;
pub use error::{Error, ErrorKind, NodeFailure, Result};
pub use object::{MergedBy, Object, Sibling};
pub use profile::Profile;
pub use query::Query;
pub use read::Get;
pub use update::{Update, Updated};
pub use write::{HasBasis, NeedsBasis, NeedsDeleteBasis, NeedsPutBasis, Write, Written};
