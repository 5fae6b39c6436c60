//! Hostile components for tests of the merge host.
//!
//! The guests are WebAssembly text, because no compiler would produce them: each does exactly one thing wrong. The code
//! that makes real components makes components of them.
//!
//! `guests` misbehave when they run, `lawless` break a law, `bombs` are expensive to compile, `oddities` have strange
//! content, `costly` burn fuel. `corpus` lists them by name with what must come of each, `cost` measures that.

#![forbid(unsafe_code)]

pub mod bombs;
pub mod corpus;
pub mod cost;
pub mod costly;
pub mod guests;
pub mod lawless;
pub mod oddities;

use wit_component::StringEncoding;
use wit_parser::Resolve;

use rejoin_merge::build::componentize;
use rejoin_merge::{CallLimits, Host, HostConfig, MergeFault, Merged, ModuleLimits, Plugin, Sibling};

/// The contract as guests see it.
const WIT: &str = include_str!("../../../guest-sdk/wit/rejoin.wit");

/// A component of a core module in text form, for a world of the contract or of `more`, WIT that is added to it.
///
/// # Panics
/// If the text is wrong: a mistake of the test.
#[must_use]
pub fn component(core: &str, world: &str, more: &str) -> Vec<u8> {
    component_of(core, world, &format!("{WIT}\n{more}"))
}

/// As [`component`], for a contract of the caller's own.
///
/// # Panics
/// If the text is wrong: a mistake of the test.
#[must_use]
pub fn component_of(core: &str, world: &str, wit: &str) -> Vec<u8> {
    let mut module = wat::parse_str(core).unwrap_or_else(|error| panic!("{error}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("rejoin.wit", wit).unwrap_or_else(|error| panic!("{error:#}"));
    let world = resolve.select_world(&[package], Some(world)).unwrap_or_else(|error| panic!("{error:#}"));
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .unwrap_or_else(|error| panic!("{error:#}"));
    componentize(&module).unwrap_or_else(|error| panic!("{error}"))
}

/// A host, and a well-behaved plugin that shows whether it is still usable.
#[derive(Debug)]
pub struct Bench {
    /// The host.
    pub host: Host,
    good: Plugin,
    expected: Merged,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new(HostConfig::default())
    }
}

impl Bench {
    /// A host of that size with the well-behaved plugin on it.
    ///
    /// # Panics
    /// If the host cannot start.
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        let host = Host::new(config).unwrap_or_else(|error| panic!("{error}"));
        let good =
            host.compile(&guests::first(), &ModuleLimits::default()).unwrap_or_else(|rejection| panic!("{rejection}"));
        let expected = host.merge(&good, b"k", &siblings(), &CallLimits::default()).expect("it behaves well");
        assert_eq!(expected.value, "one");
        Self { host, good, expected }
    }

    /// Compiles a component that the host must take: what is wrong with it shows only when it runs.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn plugin(&self, component: &[u8]) -> Plugin {
        self.host.compile(component, &ModuleLimits::default()).unwrap_or_else(|rejection| panic!("{rejection}"))
    }

    /// What a component does with two siblings; the host must be as good as new afterwards.
    ///
    /// # Panics
    /// If the host or the well-behaved plugin has suffered.
    pub fn outcome(&self, component: &[u8], limits: &CallLimits) -> Result<Merged, MergeFault> {
        let outcome = self.host.merge(&self.plugin(component), b"key", &siblings(), limits);
        self.assert_unharmed();
        outcome
    }

    /// The fault that a component meets under given limits.
    ///
    /// # Panics
    /// If it meets none, or the host has suffered.
    #[must_use]
    pub fn fault(&self, component: &[u8], limits: &CallLimits) -> MergeFault {
        self.outcome(component, limits).expect_err("it does not behave well")
    }

    /// The well-behaved plugin must answer as ever, for the same fuel.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_unharmed(&self) {
        let again = self.host.merge(&self.good, b"k", &siblings(), &CallLimits::default());
        assert_eq!(again.as_ref(), Ok(&self.expected), "the host has suffered");
    }

    /// The well-behaved plugin.
    #[must_use]
    pub fn good(&self) -> &Plugin {
        &self.good
    }
}

/// Two siblings, `one` and `two`.
#[must_use]
pub fn siblings() -> Vec<Sibling> {
    vec![
        Sibling { value: "one".into(), stamp_ms: 1_700_000_000_000, writer: 1 },
        Sibling { value: "two".into(), stamp_ms: 1_700_000_000_001, writer: 2 },
    ]
}
