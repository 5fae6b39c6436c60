//! The bindings generated from `wit/rejoin.wit`. Each optional interface has a world of its own, so that a plugin
//! exports exactly the interfaces that it implements.
//!
//! The generated code crosses the canonical ABI with raw pointers, so `unsafe` is allowed in this file and nowhere else
//! in this crate. All code behind the macro is generated.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::undocumented_unsafe_blocks, clippy::all)]

macro_rules! world {
    ($module:ident, $world:literal, $export:literal, $path:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: $path,
            });
        }
    };
}

world!(merge, "merge", "export_merge", "rejoin_guest::macro_support::merge");
world!(validate, "validate", "export_validate", "rejoin_guest::macro_support::validate");
world!(operate, "operate", "export_operate", "rejoin_guest::macro_support::operate");
world!(sample, "sample", "export_sample", "rejoin_guest::macro_support::sample");
world!(present, "present", "export_present", "rejoin_guest::macro_support::present");
world!(describe, "describe", "export_describe", "rejoin_guest::macro_support::describe");
