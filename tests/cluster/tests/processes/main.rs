//! Tests of real processes, in one program: each file of its own would link all of the node once more, and would wait
//! for the one before.
//!
//! `traces` and `in_process` run nodes within the test's process, and have programs of their own.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod activations;
mod addresses;
mod admin_ports;
mod answers;
mod audits;
mod authorisation;
mod barriers;
mod bench;
mod bounded;
mod canaries;
mod certificates;
mod changes;
mod command_line;
mod documents;
mod drains;
mod encryption;
mod first_plugin;
mod full_disk;
mod intruders;
mod layouts;
mod lost_tables;
mod places;
mod plugin_laws;
mod plugins;
mod pushes;
mod ready_merges;
mod rebuilds;
mod rotations;
mod sentinels;
mod signatures;
mod starts;
mod stories;
mod tenants;
mod torture;
mod trials;
mod undo;
mod updates;
