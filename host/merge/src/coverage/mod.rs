//! Which of a merge's code a check of its laws has run: a check that never leaves the first branch proves little, and a
//! sampler that draws nothing but small values shows here.
//!
//! The component is run once more with counters in it (`component`, `module`; `bytes` has the encoding), in a fresh
//! instance for each merge as always, and the counters are read after each. The verdicts of the laws are those of the
//! component itself: the instrumented one only tells where it has been. It needs more fuel, so it gets more.

pub(crate) mod bytes;
mod component;
mod module;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use self::module::{FunctionEdges, READER};
use crate::bindings::merge::Merge;
use crate::call::{self, CallState, Sibling, lend_all, value_of};
use crate::compile::{CancelToken, Compiler};
use crate::escape::escape_untrusted;
use crate::fault::MergeFault;
use crate::host::Host;
use crate::limits::{CallLimits, ModuleLimits};

/// How many times the fuel of a merge the instrumented one gets.
const FUEL: u64 = 16;
/// How many times the limits of a component the instrumented one may have.
const LARGER: usize = 8;
/// Larger inputs are not run again: they take long and reach little that smaller ones do not.
const MAX_BYTES: usize = 64 << 10;
/// After so many merges without a new edge no more are run again.
const ENOUGH: u64 = 20_000;
/// The most functions that are named.
const MAX_NAMED: usize = 200;

/// Which code of the merge was run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coverage {
    /// Edges of all functions that the merge can reach: their beginnings, and the ways of their branches.
    pub edges: usize,
    /// Those of them that were run.
    pub seen: usize,
    /// Functions that the merge can reach.
    pub functions: usize,
    /// The functions that were never called, at most 200, the largest first; by their number if they have no name.
    pub never_called: Vec<String>,
}

/// A component with counters, and what was seen so far.
pub(crate) struct Covered {
    pre: InstancePre<CallState>,
    functions: Vec<FunctionEdges>,
    words: u32,
    seen: Mutex<Vec<u64>>,
    has_new: AtomicBool,
    since_new: AtomicU64,
    /// Set if the instrumented component once gave another result, which makes its figures worthless.
    differs: AtomicBool,
}

impl std::fmt::Debug for Covered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Covered").field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}

impl Covered {
    /// A component with counters.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn new(
        host: &Host,
        compiler: &Compiler,
        component: &[u8],
        modules: &ModuleLimits,
    ) -> Result<Self, String> {
        let counted = component::counted(component)?;
        let limits = ModuleLimits::for_bytes(modules.bytes.saturating_mul(LARGER));
        let compiled = compiler.compile(host, &counted.bytes, &limits, &CancelToken::default());
        let compiled = compiled.map_err(|why| why.to_string())?;
        let pre = host.prepare(&compiled).map_err(|error| escape_untrusted(&format!("{error:#}")))?;
        Ok(Self {
            pre,
            seen: Mutex::new(vec![0; counted.words as usize]),
            functions: counted.functions,
            words: counted.words,
            has_new: AtomicBool::new(false),
            since_new: AtomicU64::new(0),
            differs: AtomicBool::new(false),
        })
    }

    /// Merges siblings again and notes what code runs. `result` is that of the component itself.
    pub(crate) fn note(&self, key: &[u8], siblings: &[Sibling], limits: &CallLimits, result: Option<&[u8]>) {
        let bytes: usize = siblings.iter().map(|sibling| sibling.value.len()).sum();
        if bytes > MAX_BYTES || self.since_new.load(Ordering::Relaxed) >= ENOUGH {
            return;
        }
        let limits = CallLimits { fuel: limits.fuel.saturating_mul(FUEL), ..*limits };
        // After a trap no more can be called in the instance: what it ran is not known then.
        let Ok((value, words)) = self.run(key, siblings, &limits) else { return };
        if value.as_deref() != result {
            self.differs.store(true, Ordering::Relaxed);
        }
        let mut seen = self.seen();
        let new = seen.iter_mut().zip(words).fold(false, |new, (seen, word)| {
            let before = *seen;
            *seen |= word;
            new || *seen != before
        });
        drop(seen);
        if new {
            self.has_new.store(true, Ordering::Relaxed);
            self.since_new.store(0, Ordering::Relaxed);
        } else {
            self.since_new.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The merged value, unless it was refused, and the counters.
    fn run(
        &self,
        key: &[u8],
        siblings: &[Sibling],
        limits: &CallLimits,
    ) -> Result<(Option<Vec<u8>>, Vec<u64>), MergeFault> {
        let lent = lend_all(siblings);
        let call = |store: &mut Store<CallState>| {
            let instance = self.pre.instantiate(&mut *store)?;
            let answer =
                Merge::new(&mut *store, &instance)?.rejoin_plugin_merger().call_merge(&mut *store, key, &lent)?;
            let read = instance.get_typed_func::<(u32,), (u64,)>(&mut *store, READER)?;
            let mut words = Vec::with_capacity(self.words as usize);
            for word in 0..self.words {
                words.push(read.call(&mut *store, (word,))?.0);
            }
            Ok((answer, words))
        };
        let ((answer, words), _) = call::run(self.pre.engine(), limits, call)?;
        Ok((value_of(answer, limits).ok().map(|value| value.to_vec()), words))
    }

    /// Whether code was run since the last question that was never run before.
    pub(crate) fn take_new(&self) -> bool {
        self.has_new.swap(false, Ordering::Relaxed)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was run so far.
    ///
    /// # Errors
    /// Why it is not known.
    pub(crate) fn report(&self) -> Result<Coverage, String> {
        if self.differs.load(Ordering::Relaxed) {
            return Err("with counters in it, it gave another result".into());
        }
        let seen = self.seen();
        let has = |edge: &u32| seen.get(*edge as usize / 64).is_some_and(|word| word >> (edge % 64) & 1 == 1);
        let called = |function: &&FunctionEdges| function.edges.first().is_some_and(has);
        let mut never: Vec<&FunctionEdges> = self.functions.iter().filter(|function| !called(function)).collect();
        never.sort_by_key(|function| (std::cmp::Reverse(function.edges.len()), function.index));
        let name = |function: &&FunctionEdges| match &function.name {
            Some(name) => escape_untrusted(name),
            None => format!("function {}", function.index),
        };
        let all = || self.functions.iter().flat_map(|function| &function.edges);
        Ok(Coverage {
            edges: all().count(),
            seen: all().filter(|edge| has(edge)).count(),
            functions: self.functions.len(),
            never_called: never.iter().take(MAX_NAMED).map(name).collect(),
        })
    }
}
