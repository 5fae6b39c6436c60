//! A compiling process without the rest of `rejoin`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rejoin_merge::child_main()
}
