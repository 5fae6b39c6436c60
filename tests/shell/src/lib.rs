//! Real nodes over simulated UDP, in virtual time.
//!
//! [`simulate`] runs real nodes with real QUIC, TLS and files. Each is a turmoil host with a virtual clock. Beside them
//! runs the test's script: it has the real SDK, cuts and heals links, and kills and starts nodes. Everything is polled
//! on the test's thread, so a seed decides the order of all events. Only the random numbers of TLS are not seeded;
//! nothing above TLS depends on them, and [`traced`] records everything above TLS.
//!
//! In reading order: `world` ([`simulate`], [`World`]), `network`, `files`, `disk`, `trace`.
#![forbid(unsafe_code)]

mod disk;
mod files;
mod network;
mod trace;
mod world;

pub use files::{Files, name};
pub use network::{Losses, SimNetwork};
pub use trace::traced;
pub use world::{SCRIPT, Setup, StandIn, World, simulate, simulate_with};
