//! A program that only compiles, as `rejoin` does when a node starts it for that.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rejoin_merge::child_main()
}
