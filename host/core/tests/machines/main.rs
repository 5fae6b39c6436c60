//! The shards and the control machine of the core, driven event by event.

mod access;
mod batches;
mod bounds;
mod contacts;
mod control;
mod copies;
mod deletions;
mod exchange;
mod faults;
mod former_owners;
mod forwards;
mod gaps;
mod handoff;
mod layouts;
mod limits;
mod links;
mod members;
mod pace;
mod plans;
mod quotas;
mod reads;
mod replicas;
mod retries;
mod ring;
mod ring_splits;
mod scenarios;
mod sloppy;
mod splits;
#[path = "../support/mod.rs"]
mod support;
mod tenures;
mod trees;
mod validation;
mod views;
mod writes;
mod zones;
