//! What a plugin author writes against: the WIT contract and its Rust bindings.
