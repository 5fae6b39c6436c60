//! The content of a file.

/// A file's bytes. What lies between the last byte written and the length reads as zero and takes no memory, so that
/// preallocated segments cost nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Content {
    bytes: Vec<u8>,
    length: usize,
}

impl Content {
    /// A file of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len(), bytes }
    }

    /// The length in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The bytes up to the last that was ever written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.bytes
    }

    /// Cuts or extends the file.
    pub fn set_length(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.length = length;
    }

    /// Writes at an offset, past the end if need be.
    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.length = self.length.max(end);
    }

    /// Reads at an offset; fewer bytes only at the end of the file.
    pub fn read(&self, bytes: &mut [u8], offset: usize) -> usize {
        let count = self.length.saturating_sub(offset).min(bytes.len());
        let there = self.bytes.get(offset..).unwrap_or_default();
        let there = &there[..there.len().min(count)];
        bytes[..there.len()].copy_from_slice(there);
        bytes[there.len()..count].fill(0);
        count
    }

    /// Changes the bytes in place.
    pub fn edit(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_reserved_room_read_as_zero() {
        let mut content = Content::default();
        content.set_length(10);
        content.write(b"ab", 4);
        let mut bytes = [9; 12];
        assert_eq!((content.read(&mut bytes, 0), &bytes[..10]), (10, &b"\0\0\0\0ab\0\0\0\0"[..]));
        assert_eq!((content.read(&mut bytes, 9), content.read(&mut bytes, 10)), (1, 0));
        content.write(b"cd", 9);
        assert_eq!(content.length(), 11);
        content.set_length(5);
        content.set_length(7);
        assert_eq!((content.read(&mut bytes, 3), &bytes[..4]), (4, &b"\0a\0\0"[..]), "what was cut does not come back");
    }
}
