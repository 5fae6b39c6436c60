//! What a panic leaves behind for the host.
//!
//! A plugin has no imports, so it cannot print. Before it traps, its panic hook writes a record into its own linear
//! memory, where the host looks for it: 16 bytes that mark it, the text's length and its FNV-1a hash (32 bits each,
//! little-endian), and the text, which is the place, `: `, and the message, cut to [`TEXT`] bytes. The record is no
//! part of a value: whoever traps has answered nothing.

use std::fmt::{self, Write as _};
use std::panic::PanicHookInfo;
use std::sync::Mutex;

/// The mark, in two halves, so that it stands nowhere in memory but in a record.
const MARK: [u64; 2] = [0x9d1c_63e5_a8f0_274b, 0x36b7_f95e_0c82_d1a4];
/// The most bytes of a text.
const TEXT: usize = 1000;
const HEADER: usize = 24;

static RECORD: Mutex<[u8; HEADER + TEXT]> = Mutex::new([0; HEADER + TEXT]);

/// Has panics recorded from now on. Called at the beginning of every export, since each call has an instance of its
/// own.
pub(crate) fn record() {
    std::panic::set_hook(Box::new(write_down));
}

fn write_down(info: &PanicHookInfo<'_>) {
    let mut text = Text { bytes: [0; TEXT], len: 0 };
    let message = info.payload().downcast_ref::<&str>().copied();
    let message = message.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words");
    // What does not fit is cut.
    let _ = match info.location() {
        Some(place) => write!(text, "{}:{}:{}: {message}", place.file(), place.line(), place.column()),
        None => text.write_str(message),
    };
    let Ok(mut record) = RECORD.try_lock() else { return };
    *record = text.into_record();
    // Nothing here reads it: without this the writes could be left out.
    std::hint::black_box(&*record);
}

/// A text of bounded length. It allocates nothing: memory may be what is missing.
struct Text {
    bytes: [u8; TEXT],
    len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let fits = part.len().min(TEXT - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&part.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

impl Text {
    fn into_record(self) -> [u8; HEADER + TEXT] {
        let mut record = [0; HEADER + TEXT];
        let text = &self.bytes[..self.len];
        let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        record[..8].copy_from_slice(&MARK[0].to_le_bytes());
        record[8..16].copy_from_slice(&MARK[1].to_le_bytes());
        record[16..20].copy_from_slice(&(self.len as u32).to_le_bytes());
        record[20..24].copy_from_slice(&hash.to_le_bytes());
        record[HEADER..HEADER + self.len].copy_from_slice(text);
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_and_its_record_says_how_long_it_is() {
        let mut text = Text { bytes: [0; TEXT], len: 0 };
        write!(text, "src/lib.rs:1:2: {}", "x".repeat(2 * TEXT)).expect("what does not fit is cut");
        let record = text.into_record();
        assert_eq!(record[16..20], 1000_u32.to_le_bytes());
        assert!(record[HEADER..].starts_with(b"src/lib.rs:1:2: xxx") && record.ends_with(b"x"));
    }
}
