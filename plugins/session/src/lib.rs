//! Session attributes: the last writer wins, field by field.
#![forbid(unsafe_code)]
