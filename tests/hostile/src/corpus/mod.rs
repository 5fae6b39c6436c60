//! Every hostile component by name, with what must come of it: the reason for which it is refused, or by which its call
//! is contained.
//!
//! `refused` are those that never get into a cluster, `contained` those that do and misbehave when they are called.

mod contained;
mod refused;

use rejoin_merge::{CallLimits, Compiled, Host, MergeFault, OperationDot, Plugin, Rejection};

use crate::siblings;

/// The longest that a rejection may be.
const MESSAGE_BYTES: usize = 1_000;

/// A hostile component.
#[derive(Debug)]
pub struct Hostile {
    /// What it does, no two alike.
    pub name: String,
    /// Its bytes.
    pub component: Vec<u8>,
    /// What must come of it.
    pub outcome: Outcome,
}

/// What must come of a hostile component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is refused for good, in a message that has one of these words.
    Refused(&'static [&'static str]),
    /// It is taken, and the call fails for one of these reasons ([`MergeFault::reason`]), on every node alike.
    Fails(Call, &'static [&'static str]),
    /// It is taken, and the call is answered: what is wrong with it stays within the answer.
    Answers(Call),
}

/// A call of a plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Two siblings are merged.
    Merge,
    /// This value is validated.
    Validate(&'static [u8]),
    /// A value is shown.
    Show,
    /// A value is drawn.
    Sample,
    /// An operation is applied to a key without a value.
    Apply,
    /// A question is asked.
    Query,
}

impl Call {
    /// Makes the call. Gives the bytes of the answer.
    ///
    /// # Errors
    /// The fault of the call.
    pub fn make(self, host: &Host, plugin: &Plugin, limits: &CallLimits) -> Result<usize, MergeFault> {
        match self {
            Self::Merge => host.merge(plugin, b"key", &siblings(), limits).map(|merged| merged.value.len()),
            Self::Validate(value) => host.validate(plugin, b"key", value, limits).map(|()| 0),
            Self::Show => host.show(plugin, b"value", limits).map(|shown| shown.len()),
            Self::Sample => host.sample(plugin, 1, 8, limits).map(|value| value.len()),
            Self::Apply => {
                let dot = OperationDot { actor: 1, counter: 1 };
                host.apply(plugin, (b"key", None), (b"operation", dot), limits).map(|merged| merged.value.len())
            }
            Self::Query => host.query(plugin, b"state", b"question", limits).map(|merged| merged.value.len()),
        }
    }
}

impl Outcome {
    /// Loads what has been compiled and makes the call, on this thread.
    ///
    /// # Errors
    /// What came of it instead.
    pub fn judge(self, host: &Host, compiled: Result<Compiled, Rejection>, limits: &CallLimits) -> Result<(), String> {
        let loaded = compiled.and_then(|compiled| host.load(&compiled));
        match (self, loaded) {
            (Self::Refused(words), Err(rejection)) => {
                let said = rejection.to_string();
                let named = words.iter().any(|words| said.contains(words));
                let good = named && rejection.is_final() && said.len() <= MESSAGE_BYTES;
                if good { Ok(()) } else { Err(said) }
            }
            (Self::Refused(_), Ok(_)) => Err("it was taken".into()),
            (_, Err(rejection)) => Err(format!("it was refused: {rejection}")),
            (Self::Answers(call), Ok(plugin)) => {
                call.make(host, &plugin, limits).map(drop).map_err(|fault| fault.to_string())
            }
            (Self::Fails(call, reasons), Ok(plugin)) => match call.make(host, &plugin, limits) {
                Err(fault) if reasons.contains(&fault.reason()) && fault.is_deterministic() => Ok(()),
                other => Err(format!("{other:?}")),
            },
        }
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Hostile> {
    let mut all = refused::all();
    all.extend(contained::all());
    all
}
