//! Tier 2: the real node over simulated UDP.
//!
//! [`simulate`] runs real nodes, with real QUIC and TLS and real files, each on a host of turmoil's whose clock is
//! virtual, and a script that looks on: it has the real SDK, cuts and heals links, kills nodes and starts them again.
//! All of it is polled on the thread of the test, so that a seed decides what happens. Randomness of TLS is the one
//! exception, and nothing above TLS can see it: [`traced`] shows what is above.
#![forbid(unsafe_code)]

mod disk;
mod files;
mod network;
mod trace;
mod world;

pub use files::{Files, name};
pub use network::{SimNetwork, Weather};
pub use trace::traced;
pub use world::{Impostor, SCRIPT, Setup, World, simulate, simulate_with};
