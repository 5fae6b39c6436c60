//! What is encoded for disks and the network: its bytes, its bounds, and what comes of any other bytes.
//!
//! One binary: each would compile the encodings of all messages once more.

mod allocation;
mod bounds;
mod bytes_of_today;
mod contexts;
mod decoding;
mod support;
