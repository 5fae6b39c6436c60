//! The SDK against nodes with the real protocol over real QUIC that misbehave on demand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod admin;
mod connecting;
mod fake;
mod reads;
mod writes;
