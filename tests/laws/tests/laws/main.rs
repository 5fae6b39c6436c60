//! The laws, intents and scenarios of merges, natively and on components in Rust, C and JavaScript. One binary, so that
//! wasmtime is linked once and all of it runs side by side.

mod broken;
mod cart;
mod components;
mod corpus;
mod coverage;
mod determinism;
mod engines;
mod intents;
mod languages;
mod panics;
mod ready;
mod strangers;
