//! Implements the generated bindings for every plugin type. Each world of the bindings has its own types, so values are
//! converted here.

use core::marker::PhantomData;

use crate::bindings::describe::exports::rejoin::plugin::about;
use crate::bindings::merge::exports::rejoin::plugin::merger;
use crate::bindings::operate::exports::rejoin::plugin::operator;
use crate::bindings::present::exports::rejoin::plugin::presenter;
use crate::bindings::sample::exports::rejoin::plugin::sampler;
use crate::bindings::validate::exports::rejoin::plugin::validator;
use crate::traits::{Describer, Dot, Fault, Merger, Operator, Presenter, Sampler, Sibling, Validator};

/// Implements the exports of the generated bindings with the traits of the plugin `T`.
pub struct Adapter<T>(PhantomData<T>);

/// Every export calls this first, since each call runs in a fresh instance.
fn install_panic_hook() {
    #[cfg(target_arch = "wasm32")]
    crate::panic::record();
}

/// Every world has a `fault` enum of its own.
macro_rules! from_fault {
    ($module:ident) => {
        impl From<Fault> for $module::Fault {
            fn from(fault: Fault) -> Self {
                match fault {
                    Fault::Malformed => Self::Malformed,
                    Fault::Unsupported => Self::Unsupported,
                    Fault::TooLarge => Self::TooLarge,
                }
            }
        }
    };
}

from_fault!(merger);
from_fault!(validator);
from_fault!(operator);

impl<T: Merger> merger::Guest for Adapter<T> {
    fn merge(key: Vec<u8>, siblings: Vec<merger::Sibling>) -> Result<Vec<u8>, merger::Fault> {
        install_panic_hook();
        let lend = |sibling: merger::Sibling| Sibling {
            value: sibling.value,
            stamp_ms: sibling.stamp_ms,
            writer: sibling.writer,
        };
        let siblings: Vec<Sibling> = siblings.into_iter().map(lend).collect();
        T::merge(&key, &siblings).map_err(Into::into)
    }
}

impl<T: Validator> validator::Guest for Adapter<T> {
    fn validate(key: Vec<u8>, value: Vec<u8>) -> Result<(), validator::Fault> {
        install_panic_hook();
        T::validate(&key, &value).map_err(Into::into)
    }
}

impl<T: Operator> operator::Guest for Adapter<T> {
    fn apply(
        key: Vec<u8>,
        state: Option<Vec<u8>>,
        operation: Vec<u8>,
        dot: operator::Dot,
    ) -> Result<Vec<u8>, operator::Fault> {
        install_panic_hook();
        let dot = Dot { actor: dot.actor, counter: dot.counter };
        T::apply(&key, state.as_deref(), &operation, dot).map_err(Into::into)
    }

    fn query(state: Vec<u8>, question: Vec<u8>) -> Result<Vec<u8>, operator::Fault> {
        install_panic_hook();
        T::query(&state, &question).map_err(Into::into)
    }
}

impl<T: Sampler> sampler::Guest for Adapter<T> {
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        install_panic_hook();
        T::sample(seed, size)
    }
}

impl<T: Presenter> presenter::Guest for Adapter<T> {
    fn show(value: Vec<u8>) -> Vec<u8> {
        install_panic_hook();
        T::show(&value)
    }
}

impl<T: Describer> about::Guest for Adapter<T> {
    fn describe() -> about::Card {
        install_panic_hook();
        let metadata = T::describe();
        about::Card {
            name: metadata.name.into(),
            version: metadata.version.into(),
            schema: metadata.schema,
            self_causal: metadata.self_causal,
        }
    }
}
