//! Records the message of a panic for the host.
//!
//! A plugin has no imports, so it cannot print. Its panic hook writes location and message into a marked record in its
//! own linear memory, and the host finds the record there after the trap. [`rejoin_laws::panic_record`] defines its
//! bytes.

use std::fmt::{self, Write as _};
use std::panic::PanicHookInfo;
use std::sync::Mutex;

use rejoin_laws::panic_record::{RECORD_BYTES, TEXT_BYTES, encode};

static RECORD: Mutex<[u8; RECORD_BYTES]> = Mutex::new([0; RECORD_BYTES]);

/// Records panics from now on.
pub(crate) fn record() {
    std::panic::set_hook(Box::new(write_record));
}

fn write_record(info: &PanicHookInfo<'_>) {
    let mut text = Text { bytes: [0; TEXT_BYTES], len: 0 };
    let message = info.payload().downcast_ref::<&str>().copied();
    let message = message
        .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    // The text is cut where the record ends, which is no error.
    let _ = match info.location() {
        Some(place) => write!(text, "{}:{}:{}: {message}", place.file(), place.line(), place.column()),
        None => text.write_str(message),
    };
    let Ok(mut record) = RECORD.try_lock() else { return };
    *record = encode(&text.bytes[..text.len]);
    // The guest never reads the record; without this the compiler could omit the writes.
    std::hint::black_box(&*record);
}

/// A text of bounded length. It never allocates, because the panic may be a failed allocation.
struct Text {
    bytes: [u8; TEXT_BYTES],
    len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let fits = part.len().min(TEXT_BYTES - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&part.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_laws::panic_record::decode;

    #[test]
    fn a_long_text_is_cut_and_its_record_can_be_read() {
        let mut text = Text { bytes: [0; TEXT_BYTES], len: 0 };
        write!(text, "src/lib.rs:1:2: {}", "x".repeat(2 * TEXT_BYTES)).expect("a long text is cut");
        let record = encode(&text.bytes[..text.len]);
        let read = decode(&record).expect("it was just written");
        assert!(read.len() == TEXT_BYTES && read.starts_with(b"src/lib.rs:1:2: xxx") && read.ends_with(b"x"));
    }
}
