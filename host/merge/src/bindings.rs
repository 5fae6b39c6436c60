//! The host's bindings of `guest-sdk/wit`, one world for each interface. All are views of one instance, and a plugin
//! may lack any but the merger.
#![allow(missing_docs, unreachable_pub, clippy::all)]

macro_rules! world {
    ($module:ident, $world:literal) => {
        pub(crate) mod $module {
            wasmtime::component::bindgen!({
                path: "../../guest-sdk/wit",
                world: $world,
                ownership: Borrowing { duplicate_if_necessary: false },
            });
        }
    };
}

world!(merge, "merge");
world!(validate, "validate");
world!(operate, "operate");
world!(sample, "sample");
world!(present, "present");
world!(describe, "describe");
