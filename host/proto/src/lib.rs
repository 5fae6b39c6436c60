//! The words that every part of Rejoin shares.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod id;

pub use id::{ActorId, BadName, BucketId, ClusterId, Dot, Name, NodeId, PartitionId, PluginDigest, ProfileId, RequestId, TenantId};
