//! Reads the state of a plugin that has trapped: the message of its panic, or the functions on its stack.
//!
//! Guests of the SDK leave their message as a record in linear memory, see [`rejoin_laws::panic_record`]. For other
//! guests the names of the functions on the stack are read, if the module has names. Both come from the plugin, so they
//! are bounded and escaped.

use memchr::memmem;
use wasmtime::{AsContext, WasmCoreDump};

use rejoin_laws::panic_record::{decode, mark};

use crate::escape::escape_untrusted;

/// The most functions that are named.
const NAMED: usize = 6;
/// The most marks that are checked. A guest of the SDK has two at the most: the record, and a copy of its mark.
const CANDIDATES: usize = 16;

/// The location and message of a panic, if the plugin has left a record.
pub(crate) fn message(error: &wasmtime::Error, store: impl AsContext) -> Option<String> {
    let dump = error.downcast_ref::<WasmCoreDump>()?;
    dump.memories().iter().find_map(|memory| record_in(memory.data(&store)))
}

/// The functions on the stack, the innermost first, if the module has names.
pub(crate) fn function_names(error: &wasmtime::Error) -> Option<String> {
    let dump = error.downcast_ref::<WasmCoreDump>()?;
    let names: Vec<&str> = dump.frames().iter().filter_map(|frame| frame.func_name()).take(NAMED).collect();
    (!names.is_empty()).then(|| escape_untrusted(&names.join(", called by ")))
}

/// The text of the first whole record in a memory. The plugin has paid no fuel for this search, so it is one pass over
/// the memory that decodes a bounded number of records.
fn record_in(memory: &[u8]) -> Option<String> {
    let mark = mark();
    let texts = memmem::find_iter(memory, &mark).take(CANDIDATES).filter_map(|at| decode(&memory[at..]));
    texts.map(|text| escape_untrusted(&String::from_utf8_lossy(text))).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_laws::panic_record::encode;

    #[test]
    fn a_whole_record_is_found_and_escaped() {
        let memory = [&[0; 5000][..], &encode(b"src/lib.rs:3:4: \x1b[31mno\xff"), &[7; 100]].concat();
        assert_eq!(record_in(&memory).as_deref(), Some("src/lib.rs:3:4: \\u{1b}[31mno\u{fffd}"));
    }

    #[test]
    fn damaged_records_are_skipped_up_to_a_bound() {
        let whole = encode(b"text");
        assert_eq!(record_in(&[0; 70_000]), None);
        assert_eq!(record_in(&whole[..16]), None);
        let mut damaged = whole;
        damaged[25] ^= 1;
        assert_eq!(record_in(&damaged), None);
        assert_eq!(record_in(&[damaged, whole].concat()).as_deref(), Some("text"), "the next one is whole");
        assert_eq!(
            record_in(&[damaged.repeat(CANDIDATES), whole.to_vec()].concat()),
            None,
            "only a bounded number is decoded"
        );
    }
}
