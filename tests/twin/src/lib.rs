//! The core with every mutant in it, each behind a switch.
//!
//! A test proves little unless it fails when the rule is broken. Each file of `mutants/` breaks one rule of
//! `host/core`: it names the text that keeps the rule and the text that does not. The build script copies the source of
//! the core and splices all of them in, so this crate has the interface of `rejoin_core`, and behaves like it until
//! [`without`] breaks a rule. The product contains nothing of this.
//!
//! A test compiles against the twin by `extern crate rejoin_test_twin as rejoin_core;` at its root.
#![forbid(unsafe_code)]
#![allow(
    unused,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "the core is linted where it stands, and mutants are no style"
)]
#![allow(rustdoc::broken_intra_doc_links, reason = "the documentation is the core's")]

/// Whether the rule of that name is broken on this thread.
macro_rules! broken {
    ($rule:ident) => {
        $crate::mutants::is_broken($crate::mutants::Rule::$rule)
    };
}

pub mod mutants {
    //! The switches.

    use std::cell::Cell;

    include!(concat!(env!("OUT_DIR"), "/rules.rs"));

    /// A bit for each rule.
    type Switches = [u64; 4];

    const _: () = assert!(Rule::ALL.len() <= 256, "there are more rules than bits for them");

    thread_local! {
        static BROKEN: Cell<Switches> = const { Cell::new([0; 4]) };
    }

    /// Restores the switches, also when a test panics.
    struct Restore(Switches);

    impl Drop for Restore {
        fn drop(&mut self) {
            BROKEN.set(self.0);
        }
    }

    /// Runs something while a rule is broken on this thread. Calls may be nested, to break several.
    pub fn without<T>(rule: Rule, run: impl FnOnce() -> T) -> T {
        let mut broken = BROKEN.get();
        let _restore = Restore(broken);
        broken[rule as usize / 64] |= 1 << (rule as usize % 64);
        BROKEN.set(broken);
        run()
    }

    /// Whether a rule is broken on this thread.
    #[must_use]
    pub fn is_broken(rule: Rule) -> bool {
        BROKEN.get()[rule as usize / 64] & 1 << (rule as usize % 64) != 0
    }
}

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));

#[cfg(test)]
mod splice;
