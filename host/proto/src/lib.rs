//! The types that all parts share: ids, keys, objects, requests, messages between nodes, errors, contexts and layouts.
//!
//! This crate owns their encoding, their bounds, and the look-ups that clients and nodes must agree on (key → hash →
//! partition → owners). It makes no decisions (`rejoin-core`), moves no bytes (`rejoin-wire`), and has no files, clocks
//! or random numbers.
//!
//! ```
//! use rejoin_proto::{codec, hash::ObjectId, Name, TenantId, BucketId, Object};
//!
//! let tenant = TenantId::from_name(&Name::new("shop")?);
//! let bucket = BucketId::derive(tenant, &Name::new("cart")?, 0);
//! let object = ObjectId { tenant, bucket, key: "alice".into() };
//! assert!(u32::from(rejoin_proto::hash::partition_of(object.hash(), 256).0) < 256);
//!
//! let bytes = codec::encode(&Object::default());
//! assert_eq!(codec::decode::<Object>(&bytes)?, Object::default());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In reading order: [`id`], [`causal`], [`object`], [`encoded`], [`hash`], [`address`], [`layout`], [`ring`],
//! [`catalog`], [`access`], [`quota`], [`context`], [`client`], [`layout_request`], [`audit`], [`conflict`],
//! [`receipt`], [`trial`], [`plugin_state`], [`signing`], [`peer`], [`exchange`], [`error`], [`fault`], [`codec`],
//! [`hex`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod address;
pub mod audit;
mod bounded;
pub mod catalog;
pub mod causal;
pub mod client;
pub mod codec;
pub mod conflict;
pub mod context;
pub mod encoded;
pub mod error;
pub mod exchange;
pub mod fault;
pub mod hash;
pub mod hex;
pub mod hlc;
pub mod id;
pub mod layout;
pub mod layout_request;
pub mod object;
pub mod peer;
pub mod plugin_state;
pub mod quota;
pub mod receipt;
pub mod ring;
pub mod signing;
pub mod trial;
pub mod undo;

pub use address::{Address, BadAddress};
pub use causal::{DotSet, DotSpan, VersionVector};
pub use encoded::EncodedObject;
pub use error::{ErrorCode, ErrorReply, NodeFailure};
pub use hash::ObjectId;
pub use hlc::Hlc;
pub use id::{
    ActorId, BadName, BucketId, ClusterId, Dot, Name, NodeId, PartitionId, PluginDigest, ProfileId, RequestId, TenantId,
};
pub use layout::{BucketCopies, Layout, LayoutNode, LayoutPolicy, LayoutRange, LayoutRef, ZoneDemand};
pub use object::{Content, Entry, FoldedBy, Object, ReapEpoch};
pub use ring::{Ring, RingMessage};
pub use signing::{PluginSignature, SignerKey};
