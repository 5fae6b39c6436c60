//! Measures Rejoin beside Redis and etcd: see [`rejoin_test_cluster::peers`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    rejoin_test_cluster::peers::main()
}
