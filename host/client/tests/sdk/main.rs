//! The SDK against nodes that speak the real protocol over real QUIC and misbehave as they are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod admin;
mod connecting;
mod fake;
mod reads;
mod writes;
