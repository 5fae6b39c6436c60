//! Calls of a plugin's operations.

use wasmtime::Store;

use crate::bindings::operate::exports::rejoin::plugin::operator;
use crate::call::{CallState, Merged, fits, run};
use crate::fault::{MergeFault, Refusal};
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// The unique id of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperationDot {
    /// The actor that coordinates it.
    pub actor: u64,
    /// Its number among those of the actor, growing.
    pub counter: u64,
}

impl Host {
    /// The state after an operation. `None` is the state of a key without a value.
    ///
    /// # Errors
    /// [`MergeFault::NotExported`] if the plugin has no operations; otherwise as for a merge.
    pub fn apply(
        &self,
        plugin: &Plugin,
        (key, state): (&[u8], Option<&[u8]>),
        (operation, dot): (&[u8], OperationDot),
        limits: &CallLimits,
    ) -> Result<Merged, MergeFault> {
        let operate = plugin.0.operate.as_ref().ok_or(MergeFault::NotExported { interface: "operator" })?;
        let dot = operator::Dot { actor: dot.actor, counter: dot.counter };
        let call = |store: &mut Store<CallState>| {
            operate.instantiate(&mut *store)?.rejoin_plugin_operator().call_apply(store, key, state, operation, dot)
        };
        let (answer, fuel_used) = run(operate.engine(), limits, call)?;
        let value = answer.map_err(|fault| MergeFault::Refused(fault.into()))?;
        Ok(Merged { value: fits(value, limits)?.into(), fuel_used })
    }

    /// The answer to a question about a state.
    ///
    /// # Errors
    /// As [`Host::apply`].
    pub fn query(
        &self,
        plugin: &Plugin,
        state: &[u8],
        question: &[u8],
        limits: &CallLimits,
    ) -> Result<Merged, MergeFault> {
        let operate = plugin.0.operate.as_ref().ok_or(MergeFault::NotExported { interface: "operator" })?;
        let call = |store: &mut Store<CallState>| {
            operate.instantiate(&mut *store)?.rejoin_plugin_operator().call_query(store, state, question)
        };
        let (answer, fuel_used) = run(operate.engine(), limits, call)?;
        let value = answer.map_err(|fault| MergeFault::Refused(fault.into()))?;
        Ok(Merged { value: fits(value, limits)?.into(), fuel_used })
    }
}

impl From<operator::Fault> for Refusal {
    fn from(fault: operator::Fault) -> Self {
        match fault {
            operator::Fault::Malformed => Self::Malformed,
            operator::Fault::Unsupported => Self::Unsupported,
            operator::Fault::TooLarge => Self::TooLarge,
        }
    }
}
