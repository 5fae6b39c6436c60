//! A plugin's transcript: what it answers in a fixed, bounded run of calls, and the fuel they use, as one hash.
//!
//! The node where a plugin is pushed records it in the catalog. Every other node repeats the run once it has compiled
//! the component, and does not run a plugin whose answers differ there: replicas would make different values of the
//! same siblings. The run compares machines and not plugins. What a plugin should answer is what the laws are about.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmtime::{Engine, Store};

use rejoin_proto::catalog::Transcript;

use crate::bindings::merge::exports::rejoin::plugin::merger;
use crate::bindings::operate::exports::rejoin::plugin::operator;
use crate::call::{CallState, Sibling, fits, lend_all, measured};
use crate::fault::{MergeFault, Refusal, TrapKind};
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// The version of the list of calls below. Raised whenever that changes: nodes compare transcripts of one version only.
pub const TRANSCRIPT_CASES: u16 = 1;
/// The fuel of all calls together: at most 0.4 s of a processor that waits for memory at each instruction.
const TRANSCRIPT_FUEL: u64 = 100_000_000;
/// The wall-clock limit of a call. Only fuel is to end it.
const WALL: Duration = Duration::from_secs(20);
/// The size hints of the sampler, the typical one first: a plugin that is slow is not asked all.
const SIZES: &[u32] = &[4, 1, 16, 64, 0];
/// The seeds of the values of one size, as many as a merge has siblings at most.
const SEEDS: [u64; VALUES] = [1, 2, 3, 4];
/// The values of one size.
const VALUES: usize = 4;
/// What stands for a value that the sampler does not draw, or for all of them without one.
const RAW: [&[u8]; VALUES] = [b"1", b"{}", b"text", b""];
/// No plugin's value.
const GARBAGE: &[u8] = b"\xff\x00{\"garbage\":[";
/// Operations, and questions.
const WORDS: [&[u8]; 3] = [b"1", b"{}", GARBAGE];
const KEY: &[u8] = b"transcript";

impl Host {
    /// Makes a plugin's transcript. It is the same on every node with the same [`Host::profile`]. A plugin that
    /// overflows its stack has none: how deep a stack is depends on the processor, so another node may get an answer
    /// where this one gets none.
    ///
    /// # Errors
    /// A fault of this host, such as a lack of instances, which says nothing about the plugin. What the plugin itself
    /// does wrong is a part of its transcript.
    pub fn transcript(&self, plugin: &Plugin) -> Result<Option<Transcript>, MergeFault> {
        let mut run =
            TranscriptRun { plugin, answers: Sha256::new(), fuel_left: TRANSCRIPT_FUEL, has_overflowed: false };
        run.all()?;
        let hash = run.answers.finalize().into();
        let transcript = Transcript { profile: self.profile(), cases: TRANSCRIPT_CASES, hash };
        Ok((!run.has_overflowed).then_some(transcript))
    }
}

/// The calls so far.
struct TranscriptRun<'a> {
    plugin: &'a Plugin,
    answers: Sha256,
    /// Once it is zero nothing more is called.
    fuel_left: u64,
    /// Whether its stack has overflowed.
    has_overflowed: bool,
}

impl TranscriptRun<'_> {
    fn all(&mut self) -> Result<(), MergeFault> {
        let rounds = if self.plugin.exports().sample { SIZES } else { &SIZES[..1] };
        for (round, size) in rounds.iter().enumerate() {
            let values = self.values(*size)?;
            self.merges(&values)?;
            self.others(&values)?;
            if round == 0 {
                self.merge(&[(&values[0], 1_000, 1), (&Bytes::from_static(GARBAGE), 1_000, 2)])?;
                self.operations(&values[0])?;
            }
        }
        Ok(())
    }

    /// The values of one size.
    fn values(&mut self, size: u32) -> Result<Vec<Bytes>, MergeFault> {
        let mut values = Vec::with_capacity(VALUES);
        for (seed, raw) in SEEDS.into_iter().zip(RAW) {
            values.push(self.sample(seed, size)?.unwrap_or(Bytes::from_static(raw)));
        }
        Ok(values)
    }

    /// Merges two to four values: equal ones, several of one stamp or writer, and the result of an earlier merge.
    fn merges(&mut self, values: &[Bytes]) -> Result<(), MergeFault> {
        let [a, b, c, d] = values else { return Ok(()) };
        self.merge(&[(a, 1_000, 1), (a, 1_000, 2)])?;
        let merged = self.merge(&[(a, 1_000, 1), (b, 1_000, 2)])?;
        self.merge(&[(a, 1_000, 1), (b, 1_000, 2), (c, 1_001, 1)])?;
        self.merge(&[(b, 1_000, 1), (a, 1_000, 2), (d, 1_000, 3), (c, 1_002, 2)])?;
        if let Some(merged) = merged {
            self.merge(&[(a, 1_000, 1), (&merged, 1_001, 2)])?;
            self.merge(&[(c, 1_000, 3), (&merged, 1_001, 2)])?;
        }
        Ok(())
    }

    /// Calls what else the plugin exports.
    fn others(&mut self, values: &[Bytes]) -> Result<(), MergeFault> {
        let plugin = self.plugin;
        let inner = &plugin.0;
        for value in values.iter().take(2) {
            if let Some(validate) = &inner.validate {
                self.call(b'v', validate.engine(), |store| {
                    let made = validate.instantiate(&mut *store)?;
                    let answer = made.rejoin_plugin_validator().call_validate(store, KEY, value)?;
                    Ok(answer.map(|()| Vec::new()))
                })?;
            }
            if let Some(present) = &inner.present {
                self.call(b'p', present.engine(), |store| {
                    let made = present.instantiate(&mut *store)?;
                    made.rejoin_plugin_presenter().call_show(store, value).map(Ok::<_, merger::Fault>)
                })?;
            }
        }
        Ok(())
    }

    /// Applies operations to no state and to a value, and asks questions. The words are not the plugin's: most are
    /// refused, and that is to be the same too.
    fn operations(&mut self, value: &Bytes) -> Result<(), MergeFault> {
        let plugin = self.plugin;
        let Some(operate) = &plugin.0.operate else { return Ok(()) };
        for (counter, word) in (1..).zip(WORDS) {
            for state in [None, Some(value.as_ref())] {
                let dot = operator::Dot { actor: 7, counter };
                self.call(b'o', operate.engine(), |store| {
                    let made = operate.instantiate(&mut *store)?;
                    made.rejoin_plugin_operator().call_apply(store, KEY, state, word, dot)
                })?;
            }
            self.call(b'q', operate.engine(), |store| {
                operate.instantiate(&mut *store)?.rejoin_plugin_operator().call_query(store, value, word)
            })?;
        }
        Ok(())
    }

    fn sample(&mut self, seed: u64, size: u32) -> Result<Option<Bytes>, MergeFault> {
        let plugin = self.plugin;
        let Some(sample) = &plugin.0.sample else { return Ok(None) };
        self.call(b's', sample.engine(), |store| {
            let made = sample.instantiate(&mut *store)?;
            made.rejoin_plugin_sampler().call_sample(store, seed, size).map(Ok::<_, merger::Fault>)
        })
    }

    /// Merges values with their stamps and writers.
    fn merge(&mut self, siblings: &[(&Bytes, u64, u64)]) -> Result<Option<Bytes>, MergeFault> {
        let sibling =
            |&(value, stamp_ms, writer): &(&Bytes, u64, u64)| Sibling { value: value.clone(), stamp_ms, writer };
        let siblings: Vec<Sibling> = siblings.iter().map(sibling).collect();
        let plugin = self.plugin;
        let (lent, merge) = (lend_all(&siblings), &plugin.0.merge);
        self.call(b'm', merge.engine(), |store| {
            merge.instantiate(&mut *store)?.rejoin_plugin_merger().call_merge(store, KEY, &lent)
        })
    }

    /// Makes one call, unless the fuel is used up, and adds its answer. Returns that, unless it is a fault of the
    /// plugin. Every part has a fixed length or its length before it.
    fn call<F>(
        &mut self,
        kind: u8,
        engine: &Engine,
        call: impl FnOnce(&mut Store<CallState>) -> wasmtime::Result<Result<Vec<u8>, F>>,
    ) -> Result<Option<Bytes>, MergeFault>
    where
        Refusal: From<F>,
    {
        if self.fuel_left == 0 {
            return Ok(None);
        }
        let limits = CallLimits { fuel: self.fuel_left, wall: WALL, ..CallLimits::default() };
        let (answer, used) = measured(engine, &limits, call);
        let answer =
            answer.and_then(|answer| fits(answer.map_err(|fault| MergeFault::Refused(fault.into()))?, &limits));
        if matches!(&answer, Err(MergeFault::Trapped(TrapKind::StackOverflow))) {
            // The size of a frame may differ between two processors of one architecture, and with it whether the stack
            // overflows at all. So there is nothing to compare.
            (self.fuel_left, self.has_overflowed) = (0, true);
            return Ok(None);
        }
        let (is_answer, bytes) = match &answer {
            Ok(value) => (1, value.as_slice()),
            Err(fault) if fault.is_deterministic() => (0, fault.reason().as_bytes()),
            Err(fault) => return Err(fault.clone()),
        };
        self.answers.update([kind, is_answer]);
        self.answers.update((bytes.len() as u64).to_le_bytes());
        self.answers.update(bytes);
        self.answers.update(used.fuel.to_le_bytes());
        self.fuel_left = self.fuel_left.saturating_sub(used.fuel);
        Ok(answer.ok().map(Bytes::from))
    }
}
