//! The real node over simulated UDP.
#![forbid(unsafe_code)]
