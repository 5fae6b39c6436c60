//! Parsers against whatever bytes arrive.
#![forbid(unsafe_code)]
