//! The few parts of the binary format that components are changed with.

use std::ops::Range;

/// An unsigned number in LEB128.
pub(crate) fn unsigned(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// A signed number in LEB128.
pub(crate) fn signed(mut number: i64, out: &mut Vec<u8>) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if (number == 0 && low & 0x40 == 0) || (number == -1 && low & 0x40 != 0) {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// A number from the beginning of bytes, and its length.
fn read_unsigned(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

/// Bytes with their length before them.
pub(crate) fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    unsigned(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A section with its id and length.
pub(crate) fn section(id: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    sized(content, out);
}

/// A list with more items before its first.
pub(crate) fn prepended(list: &[u8], more: u64, items: &[u8]) -> Option<Vec<u8>> {
    let (count, length) = read_unsigned(list)?;
    let mut out = Vec::with_capacity(list.len() + items.len() + 2);
    unsigned(count + more, &mut out);
    out.extend_from_slice(items);
    out.extend_from_slice(list.get(length..)?);
    Some(out)
}

/// A list with more items at its end.
pub(crate) fn appended(list: &[u8], more: u64, items: &[u8]) -> Option<Vec<u8>> {
    let (count, length) = read_unsigned(list)?;
    let mut out = Vec::with_capacity(list.len() + items.len() + 2);
    unsigned(count + more, &mut out);
    out.extend_from_slice(list.get(length..)?);
    out.extend_from_slice(items);
    Some(out)
}

/// The sections of a module or component: ids, and where their contents are.
pub(crate) fn sections(binary: &[u8]) -> Option<Vec<(u8, Range<usize>)>> {
    let (mut sections, mut at) = (Vec::new(), HEADER);
    while at < binary.len() {
        let id = *binary.get(at)?;
        let (size, length) = read_unsigned(binary.get(at + 1..)?)?;
        let begin = at + 1 + length;
        let end = begin.checked_add(usize::try_from(size).ok()?)?;
        binary.get(begin..end)?;
        sections.push((id, begin..end));
        at = end;
    }
    Some(sections)
}

/// Bytes before the first section.
pub(crate) const HEADER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for number in [0, 1, 63, 64, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            unsigned(number, &mut out);
            assert_eq!(read_unsigned(&out), Some((number, out.len())));
        }
        for (number, bytes) in
            [(0, &[0][..]), (-1, &[0x7f]), (64, &[0xc0, 0]), (-64, &[0x40]), (1 << 13, &[0x80, 0xc0, 0])]
        {
            let mut out = Vec::new();
            signed(number, &mut out);
            assert_eq!(out, bytes, "{number}");
        }
        assert_eq!(read_unsigned(&[0x80]), None);
    }

    #[test]
    fn sections_that_are_cut_off_are_none() {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        section(0, &[7; 200], &mut module);
        assert_eq!(sections(&module), Some(vec![(0, 11..211)]));
        assert_eq!(sections(&module[..210]), None);
        assert_eq!(appended(&[2, 8, 9], 1, &[10]), Some(vec![3, 8, 9, 10]));
    }
}
