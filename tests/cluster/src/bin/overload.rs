//! Measures an overloaded cluster: see [`rejoin_test_cluster::overload`].
#![forbid(unsafe_code)]

fn main() {
    rejoin_test_cluster::overload::main();
}
