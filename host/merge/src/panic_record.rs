//! What a plugin that has trapped left behind: the message of its panic, and the functions that it was in.
//!
//! Guests of the SDK write their panics into a marked record in linear memory (`guest-sdk/src/panic.rs` has the form).
//! Of others the names of the functions on the stack are told, if the module has names. Both are the plugin's own
//! words: bounded, and escaped for terminals.

use memchr::memmem;
use wasmtime::{AsContext, WasmCoreDump};

use crate::escape::escape_untrusted;

/// The mark of a record, in two halves as the SDK has it.
const MARK: [u64; 2] = [0x9d1c_63e5_a8f0_274b, 0x36b7_f95e_0c82_d1a4];
/// The most bytes of a record's text.
const TEXT: usize = 1000;
const HEADER: usize = 24;
/// The most functions that are named.
const NAMED: usize = 6;
/// The most marks that are looked at. A guest of the SDK has two at the most: the record, and a copy of its mark.
const CANDIDATES: usize = 16;

/// The place and message of a panic, if the plugin has left a record of it.
pub(crate) fn message(error: &wasmtime::Error, store: impl AsContext) -> Option<String> {
    let remains = error.downcast_ref::<WasmCoreDump>()?;
    remains.memories().iter().find_map(|memory| record_in(memory.data(&store)))
}

/// The functions it was in, the innermost first, if the module has names.
pub(crate) fn function_names(error: &wasmtime::Error) -> Option<String> {
    let remains = error.downcast_ref::<WasmCoreDump>()?;
    let names: Vec<&str> = remains.frames().iter().filter_map(|frame| frame.func_name()).take(NAMED).collect();
    (!names.is_empty()).then(|| escape_untrusted(&names.join(", called by ")))
}

/// The text of the record in a memory, if there is one that is whole. The plugin has paid no fuel for this, so it reads
/// the memory once, and checks a bounded number of records.
fn record_in(memory: &[u8]) -> Option<String> {
    let mark = [MARK[0].to_le_bytes(), MARK[1].to_le_bytes()].concat();
    let texts = memmem::find_iter(memory, &mark).take(CANDIDATES).filter_map(|at| text_of(&memory[at..]));
    texts.map(|text| escape_untrusted(&String::from_utf8_lossy(text))).next()
}

fn text_of(record: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| record.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let len = usize::try_from(word(16)?).ok().filter(|len| *len <= TEXT)?;
    let text = record.get(HEADER..HEADER + len)?;
    let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (word(20)? == hash).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &[u8], len: u32) -> Vec<u8> {
        let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        [&MARK[0].to_le_bytes()[..], &MARK[1].to_le_bytes(), &len.to_le_bytes(), &hash.to_le_bytes(), text].concat()
    }

    #[test]
    fn a_whole_record_is_found_and_escaped() {
        let memory = [&[0; 5000][..], &record(b"src/lib.rs:3:4: \x1b[31mno\xff", 24), &[7; 100]].concat();
        assert_eq!(record_in(&memory).as_deref(), Some("src/lib.rs:3:4: \\u{1b}[31mno\u{fffd}"));
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let (cut, long) = (record(b"text", 4), record(b"text", 5000));
        assert_eq!(record_in(&[0; 70_000]), None);
        assert_eq!(record_in(&cut[..cut.len() - 1]), None);
        assert_eq!(record_in(&long), None);
        assert_eq!(record_in(&cut[..16]), None);
        let mut wrong = record(b"text", 4);
        wrong[25] ^= 1;
        assert_eq!(record_in(&wrong), None);
        assert_eq!(record_in(&[wrong.clone(), cut.clone()].concat()).as_deref(), Some("text"), "the next one is");
        assert_eq!(record_in(&[wrong.repeat(CANDIDATES), cut].concat()), None, "not every mark is worth a look");
    }
}
