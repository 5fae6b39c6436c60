//! Measures an overloaded cluster: see [`rejoin_test_cluster::overload`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    rejoin_test_cluster::overload::main()
}
