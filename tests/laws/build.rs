//! Generates the bindings of the cart in C with wit-bindgen, for a test that compares them with those of the tree.
//!
//! A build script runs what the procedural macros of the guests are built of already: as a dependency of a test the
//! generator would be built a second time, with all that it needs.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::{env, fs};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut resolve = Resolve::default();
    let mut last = None;
    for file in ["guest-sdk/wit/rejoin.wit", "plugins/cart-c/wit/cart.wit"] {
        let path = root.join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        last = Some(resolve.push_file(&path).unwrap_or_else(|why| panic!("{file}: {why:?}")));
    }
    let package = last.expect("there are two files");
    let world = resolve.select_world(&[package], Some("cart")).expect("the world of the cart");
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files).expect("the world has bindings");
    for (name, bytes) in files.iter() {
        fs::write(out.join(name), bytes).expect("OUT_DIR can be written");
    }
}
