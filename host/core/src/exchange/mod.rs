//! What makes the replicas of a partition agree: compare what is stored, and send what the other side lacks.
//!
//! In reading order: [`hash`] (what is compared).

pub mod hash;
