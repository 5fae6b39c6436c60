//! The Rust SDK of Rejoin: layout-aware, always carrying contexts, with a retry budget.
//!
//! A [`Client`] knows the cluster's layout and sends each request to an owner of its key, over one connection per node.
//! A [`Bucket`] reads and writes typed values. Reads return a [`Context`], and a write says what it replaces; what was
//! written concurrently is kept as siblings and merged by the bucket's plugin.
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
//! What it does not do: it never repeats a write that may have happened where the repetition could count twice (see
//! [`Write`]); it does not merge; it keeps no cache of values. It needs tokio, and nothing of its dependencies but
//! serde's traits shows in its types; [`admin`] shares types with the cluster itself, and a simulation gives a
//! [`Network`](ClientBuilder::network) of the cluster's kind.
//!
//! In reading order: [`ClientBuilder`] and [`Profile`], [`Bucket`], [`Get`], [`Write`], [`Update`], [`Object`],
//! [`Codec`], [`Error`], [`admin`].
#![forbid(unsafe_code)]

pub mod admin;
mod bucket;
mod builder;
mod chance;
mod client;
mod codec;
mod context;
mod engine;
mod error;
mod links;
mod meet;
mod object;
mod profile;
mod read;
mod retry;
mod routing;
mod session;
mod time;
mod tries;
mod update;
mod write;

pub use bucket::Bucket;
pub use builder::{ClientBuilder, Tls};
pub use client::Client;
pub use codec::{Bytes, Codec, CodecError, Json, Postcard};
pub use context::Context;
pub use error::{Error, ErrorKind, NodeFailure, Result};
pub use object::{MergedBy, Object, Sibling};
pub use profile::Profile;
pub use read::Get;
pub use update::{Update, Updated};
pub use write::{DeleteBasis, PutBasis, Ready, Undecided, Write, Written};
