//! The host's side of `guest-sdk/wit`, one world an ability: all six are views of one instance, and a missing one is
//! simply absent.
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
