//! The crate over loopback UDP: frames, certificates, restarts and hostile peers.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod hostile;
mod identity;
mod restart;
mod support;
mod traffic;
