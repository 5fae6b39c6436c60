//! What the parts cost.
#![forbid(unsafe_code)]
