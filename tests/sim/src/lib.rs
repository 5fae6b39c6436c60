//! The whole cluster in one thread.
#![forbid(unsafe_code)]

pub mod check;
pub mod history;
