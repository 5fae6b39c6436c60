//! Merges in a second engine, the interpreter wasmi: a compiler that computes wrongly would otherwise be wrong on every
//! node alike.
//!
//! wasmi runs core modules, not components. So the module is taken out of the component, and called as the canonical
//! ABI says: lists are a pointer and a length in the memory of the guest, which allocates them with `cabi_realloc`;
//! what a call returns is read from the pointer it gives, and `cabi_post_…` frees it. Every call has a fresh instance.

use std::cell::RefCell;

use wasmparser::{Instance as CoreInstance, Parser, Payload};

use rejoin_laws::{Merge, MergeError, MergeResult, Sampler, Sibling};

/// The exports of the module.
const MERGE: &str = "rejoin:plugin/merger@0.1.0#merge";
const REALLOC: &str = "cabi_realloc";
/// Bytes of a sibling: pointer and length of the value, stamp and writer.
const SIBLING_BYTES: u32 = 24;

/// What a merge gives in either engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The merged value.
    Value(Vec<u8>),
    /// The guest returned a fault.
    Refused,
    /// The guest trapped.
    Trapped,
}

/// A component's core module in wasmi.
#[derive(Debug)]
pub struct SecondEngine {
    engine: wasmi::Engine,
    module: wasmi::Module,
}

/// An instance that is being called.
struct Guest {
    store: wasmi::Store<()>,
    instance: wasmi::Instance,
    memory: wasmi::Memory,
}

impl SecondEngine {
    /// Takes the core module out of a component and loads it.
    ///
    /// # Panics
    /// If the component has no module that can run by itself, or wasmi refuses it: a mistake of the test.
    #[must_use]
    pub fn load(component: &[u8]) -> Self {
        let engine = wasmi::Engine::default();
        let module = wasmi::Module::new(&engine, core_module(component)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(module.imports().count(), 0, "the module imports from other modules of the component");
        Self { engine, module }
    }

    /// Merges siblings.
    ///
    /// # Panics
    /// If the module does not have what the contract asks for.
    #[must_use]
    pub fn merge(&self, key: &[u8], siblings: &[Sibling]) -> Answer {
        self.call(key, siblings).unwrap_or_else(|error| {
            assert!(error.as_trap_code().is_some(), "no trap: {error}");
            Answer::Trapped
        })
    }

    fn call(&self, key: &[u8], siblings: &[Sibling]) -> Result<Answer, wasmi::Error> {
        let mut guest = self.start()?;
        let (key_at, key_bytes) = guest.lower(key)?;
        let count = length(siblings.len());
        let list = guest.allocate(8, count * SIBLING_BYTES)?;
        for (place, sibling) in (list..).step_by(SIBLING_BYTES as usize).zip(siblings) {
            let (at, bytes) = guest.lower(&sibling.value)?;
            guest.write(place, &at.to_le_bytes());
            guest.write(place + 4, &bytes.to_le_bytes());
            guest.write(place + 8, &sibling.stamp_ms.to_le_bytes());
            guest.write(place + 16, &sibling.writer.to_le_bytes());
        }
        let merge = guest.instance.get_typed_func::<(u32, u32, u32, u32), u32>(&guest.store, MERGE)?;
        let result = merge.call(&mut guest.store, (key_at, key_bytes, list, count))?;
        // A result is one byte that tells which it is, and what it has at the next multiple of four.
        let answer = match guest.read(result, 1)[0] {
            0 => {
                let (at, bytes) = (guest.number(result + 4), guest.number(result + 8));
                Answer::Value(guest.read(at, bytes))
            }
            _ => Answer::Refused,
        };
        guest.free(MERGE, result)?;
        Ok(answer)
    }

    fn start(&self) -> Result<Guest, wasmi::Error> {
        let mut store = wasmi::Store::new(&self.engine, ());
        let instance = wasmi::Linker::new(&self.engine).instantiate_and_start(&mut store, &self.module)?;
        let memory = instance.get_memory(&store, "memory").expect("a guest exports its memory");
        let mut guest = Guest { store, instance, memory };
        if let Ok(initialize) = guest.instance.get_typed_func::<(), ()>(&guest.store, "_initialize") {
            initialize.call(&mut guest.store, ())?;
        }
        Ok(guest)
    }
}

impl Guest {
    fn allocate(&mut self, align: u32, bytes: u32) -> Result<u32, wasmi::Error> {
        let realloc = self.instance.get_typed_func::<(u32, u32, u32, u32), u32>(&self.store, REALLOC)?;
        realloc.call(&mut self.store, (0, 0, align, bytes))
    }

    /// Puts bytes into the guest's memory.
    fn lower(&mut self, bytes: &[u8]) -> Result<(u32, u32), wasmi::Error> {
        let at = self.allocate(1, length(bytes.len()))?;
        self.write(at, bytes);
        Ok((at, length(bytes.len())))
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        self.memory.write(&mut self.store, at as usize, bytes).expect("the guest has allocated it");
    }

    fn read(&self, at: u32, bytes: u32) -> Vec<u8> {
        let mut read = vec![0; bytes as usize];
        self.memory.read(&self.store, at as usize, &mut read).expect("the guest has returned it");
        read
    }

    fn number(&self, at: u32) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read(&self.store, at as usize, &mut bytes).expect("the guest has returned it");
        u32::from_le_bytes(bytes)
    }

    fn free(&mut self, function: &str, result: u32) -> Result<(), wasmi::Error> {
        let post = self.instance.get_typed_func::<u32, ()>(&self.store, &format!("cabi_post_{function}"));
        match post {
            Ok(post) => post.call(&mut self.store, result),
            Err(_) => Ok(()),
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("it fits into the guest's memory")
}

/// The largest core module that the component instantiates.
fn core_module(component: &[u8]) -> &[u8] {
    let (mut modules, mut instantiated, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap_or_else(|error| panic!("{error}")) {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ModuleSection { unchecked_range, .. } if depth == 1 => modules.push(unchecked_range),
            Payload::InstanceSection(instances) if depth == 1 => {
                for instance in instances {
                    if let Ok(CoreInstance::Instantiate { module_index, .. }) = instance {
                        instantiated.push(module_index as usize);
                    }
                }
            }
            _ => {}
        }
    }
    let ranges = instantiated.into_iter().filter_map(|module| modules.get(module));
    let largest = ranges.max_by_key(|range| range.len()).expect("the component instantiates a module");
    &component[largest.clone()]
}

/// One merge of a transcript.
#[derive(Clone, Debug)]
pub struct Call {
    /// The key.
    pub key: Vec<u8>,
    /// The siblings.
    pub siblings: Vec<Sibling>,
    /// What the engine of the nodes gave.
    pub answer: Answer,
}

/// A merge that notes the calls of the checker: its transcript.
#[derive(Debug)]
pub struct Recorder<'a, M> {
    inner: &'a M,
    calls: RefCell<Vec<Call>>,
    most: usize,
}

impl<'a, M: Merge> Recorder<'a, M> {
    /// Notes at most so many calls.
    pub fn new(inner: &'a M, most: usize) -> Self {
        Self { inner, calls: RefCell::default(), most }
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(self) -> Vec<Call> {
        self.calls.into_inner()
    }

    /// Whether no more is noted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.calls.borrow().len() >= self.most
    }
}

/// Larger merges are not noted: an interpreter takes long for them.
const MAX_BYTES: usize = 8 << 10;

impl<M: Merge> Merge for Recorder<'_, M> {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let result = self.inner.merge(key, siblings);
        let bytes: usize = siblings.iter().map(|sibling| sibling.value.len()).sum();
        // Fuel, memory and sizes are limits of the host: another engine counts them in another way.
        let answer = match &result {
            Ok(value) => Answer::Value(value.clone()),
            Err(MergeError::Refused(_)) => Answer::Refused,
            Err(MergeError::Trapped(_)) => Answer::Trapped,
            Err(MergeError::TooLarge(_) | MergeError::Exceeded(_)) => return result,
        };
        if bytes <= MAX_BYTES && !self.is_full() {
            self.calls.borrow_mut().push(Call { key: key.to_vec(), siblings: siblings.to_vec(), answer });
        }
        result
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        self.inner.merge_elsewhere(key, siblings)
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        self.inner.validate(key, value)
    }
}

/// Records merges of the checker until there are so many, from one seed after the other, and runs all in the second
/// engine. Returns how many there were, and the first that differs.
///
/// # Panics
/// As [`SecondEngine::load`].
pub fn compare<M: Merge + Sampler>(component: &[u8], under_test: &M, seed: u64, most: usize) -> (usize, Option<Call>) {
    let second = SecondEngine::load(component);
    let (mut compared, mut seed) = (0, seed);
    while compared < most {
        let recorder = Recorder::new(under_test, (most - compared).min(10_000));
        let config = rejoin_laws::CheckConfig { seed, cases: 100, ..rejoin_laws::CheckConfig::default() };
        for law in rejoin_laws::Law::ALL.into_iter().filter(|law| *law != rejoin_laws::Law::Limits) {
            if !recorder.is_full() {
                // Whether a law holds is not asked here.
                let _ = rejoin_laws::check_law(law, &recorder, under_test, config);
            }
        }
        let calls = recorder.calls();
        assert!(!calls.is_empty(), "the checker calls the merge");
        compared += calls.len();
        let differs = calls.into_iter().find(|call| second.merge(&call.key, &call.siblings) != call.answer);
        if differs.is_some() {
            return (compared, differs);
        }
        seed += 1;
    }
    (compared, None)
}
