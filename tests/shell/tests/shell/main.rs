//! The real node over simulated UDP, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod access;
mod audit;
mod bulk;
mod cuts;
mod dashboard;
mod deadlines;
mod deletions;
mod exchanges;
mod fair;
mod fallbacks;
mod identity;
mod impostor;
mod members;
mod overload;
mod plain;
mod quotas;
mod readiness;
mod restart;
mod returns;
mod seeds;
mod silence;
mod storms;
mod views;
