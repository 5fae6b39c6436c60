//! The wire over loopback UDP: what it carries, whom it lets in, and what it withstands.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod hostile;
mod identity;
mod restart;
mod support;
mod traffic;
