//! Adds a member to a map of a CBOR value (RFC 8949), as a newer client would.

/// How deep a value may be nested.
const MAX_DEPTH: u32 = 64;

/// A map with the place of its head and of its first member, and the number of members; `None` if it is ended by a
/// break.
struct Map {
    head: usize,
    body: usize,
    members: Option<u64>,
}

/// The value with one more member `name` in its `nth` map, from 0: `{"a":[null]}`. `None` unless the value is one
/// well-formed item that has such a map.
pub(crate) fn with_member(value: &[u8], nth: u64, name: &str) -> Option<Vec<u8>> {
    let mut reader = Reader { bytes: value, at: 0, maps: Vec::new() };
    reader.item(0)?;
    if reader.at != value.len() {
        return None;
    }
    let map = reader.maps.get(usize::try_from(nth).ok()?)?;
    let mut changed = value[..map.head].to_vec();
    match map.members {
        Some(members) => head(&mut changed, 5, members.checked_add(1)?),
        None => changed.extend(&value[map.head..map.body]),
    }
    head(&mut changed, 3, name.len() as u64);
    changed.extend(name.as_bytes());
    changed.extend(b"\xa1\x61a\x81\xf6");
    changed.extend(&value[map.body..]);
    Some(changed)
}

/// The head of an item in its shortest form.
fn head(bytes: &mut Vec<u8>, major: u8, number: u64) {
    let kind = major << 5;
    let [.., b3, b2, b1, b0] = number.to_be_bytes();
    match number {
        0..24 => bytes.push(kind | b0),
        24..0x100 => bytes.extend([kind | 24, b0]),
        0x100..0x1_0000 => bytes.extend([kind | 25, b1, b0]),
        0x1_0000..0x1_0000_0000 => bytes.extend([kind | 26, b3, b2, b1, b0]),
        _ => {
            bytes.push(kind | 27);
            bytes.extend(number.to_be_bytes());
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    maps: Vec<Map>,
}

impl Reader<'_> {
    fn take(&mut self, count: u64) -> Option<&[u8]> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// Whether the next byte is a break, which is taken.
    fn at_break(&mut self) -> bool {
        let is_break = self.bytes.get(self.at) == Some(&0xff);
        self.at += usize::from(is_break);
        is_break
    }

    /// Reads one item. Every item takes a byte or more, so this ends with the bytes.
    fn item(&mut self, depth: u32) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let start = self.at;
        let first = *self.take(1)?.first()?;
        let (major, info) = (first >> 5, first & 31);
        let number = match info {
            0..24 => Some(u64::from(info)),
            24..28 => {
                let bytes = self.take(1 << (info - 24))?;
                Some(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
            }
            31 => None,
            _ => return None,
        };
        match major {
            2 | 3 => match number {
                Some(length) => {
                    self.take(length)?;
                }
                None => {
                    while !self.at_break() {
                        self.item(depth + 1)?;
                    }
                }
            },
            4 => self.items(number, depth)?,
            5 => {
                self.maps.push(Map { head: start, body: self.at, members: number });
                match number {
                    Some(members) => self.items(Some(members.checked_mul(2)?), depth)?,
                    None => self.items(None, depth)?,
                }
            }
            6 => {
                number?;
                self.item(depth + 1)?;
            }
            _ => {
                number?;
            }
        }
        Some(())
    }

    fn items(&mut self, number: Option<u64>, depth: u32) -> Option<()> {
        match number {
            Some(number) => (0..number).try_for_each(|_| self.item(depth + 1)),
            None => {
                while !self.at_break() {
                    self.item(depth + 1)?;
                }
                Some(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_added_to_each_map() {
        // {"k": [{}, 1]}
        let value = b"\xa1\x61k\x82\xa0\x01";
        assert_eq!(
            with_member(value, 0, "new").as_deref(),
            Some(&b"\xa2\x63new\xa1\x61a\x81\xf6\x61k\x82\xa0\x01"[..])
        );
        assert_eq!(
            with_member(value, 1, "new").as_deref(),
            Some(&b"\xa1\x61k\x82\xa1\x63new\xa1\x61a\x81\xf6\x01"[..])
        );
        assert_eq!(with_member(value, 2, "new"), None);
    }

    #[test]
    fn maps_of_many_members_and_those_without_a_number_are_known() {
        let many = [b"\xb7".to_vec(), (0..46).map(|_| 1).collect()].concat();
        let added = with_member(&many, 0, "n").expect("a map of 23 members");
        assert!(added.starts_with(b"\xb8\x18\x61n") && added.len() == many.len() + 1 + 2 + 5);
        assert_eq!(
            with_member(b"\xbf\x01\x02\xff", 0, "n").as_deref(),
            Some(&b"\xbf\x61n\xa1\x61a\x81\xf6\x01\x02\xff"[..])
        );
    }

    #[test]
    fn what_is_no_cbor_is_left_alone() {
        let deep = [0x81; 100];
        for bad in [
            &b"{\"a\":1}"[..],
            b"",
            b"\xa1\x01",
            b"\xa0\x01",
            b"\xfc",
            b"\x5f\x01",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            &deep,
        ] {
            assert_eq!(with_member(bad, 0, "n"), None, "{bad:02x?}");
        }
    }
}
