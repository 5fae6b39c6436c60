//! Hostile inputs: whole messages, damaged at places where formats break.

use bolero::generator::bolero_generator::driver::{ByteSliceDriver, Options};
use bolero::{Driver, ValueGenerator};

/// The most bytes of an input, enough to reach every branch of the parsers.
const MAX_LEN: usize = 16 << 10;

/// Mutates seeds. Some inputs are random bytes, which reach branches that no whole message does.
#[derive(Clone, Debug)]
pub struct Hostile {
    seeds: Vec<Vec<u8>>,
}

impl Hostile {
    /// Inputs made of these.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn of(seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty(), "hostile bytes are made of seeds");
        Self { seeds }
    }

    /// One input, the same for the same number: for tests that must not depend on chance.
    ///
    /// # Panics
    /// Never: any bytes make an input.
    #[must_use]
    pub fn drawn(&self, number: u64) -> Vec<u8> {
        // The mixing step of splitmix64 (Steele, Lea, Flood 2014), one word after the other.
        let word = |at: u64| {
            let mut word = (number << 8 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
        };
        let draws: Vec<u8> = (0..64).flat_map(|at| word(at).to_le_bytes()).collect();
        self.generate(&mut ByteSliceDriver::new(&draws, &Options::default())).expect("any bytes make an input")
    }

    fn seed<D: Driver>(&self, driver: &mut D) -> Option<&Vec<u8>> {
        self.seeds.get(below(driver, self.seeds.len())?)
    }

    /// One edit. Positions are drawn for the bytes as they are, so none is ever outside.
    fn edit<D: Driver>(&self, bytes: &mut Vec<u8>, driver: &mut D) -> Option<()> {
        let (from, to) = span(driver, bytes.len())?;
        match below(driver, 13)? {
            0 => flip(bytes, from, 1 << below(driver, 8)?),
            1 => put(bytes, from, driver.produce()?),
            2 => put(bytes, from, [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff][below(driver, 7)?]),
            3 => add(bytes, from, [1, 2, 0xff, 0xfe][below(driver, 4)?]),
            4 => drop(bytes.drain(from..to)),
            5 => bytes.truncate(from),
            6 => bytes.splice(from..from, noise(driver, 16)?).for_each(drop),
            7 => bytes.splice(from..to, claim(driver)?).for_each(drop),
            8 => bytes.splice(from..from, claim(driver)?).for_each(drop),
            9 => bytes[from..to].fill(driver.produce()?),
            10 => bytes.splice(to..to, bytes[from..to].to_vec()).for_each(drop),
            11 => {
                // The tail of another message behind the head of this one.
                let other = self.seed(driver)?;
                let tail = below(driver, other.len() + 1)?;
                bytes.truncate(from);
                bytes.extend_from_slice(&other[tail..]);
            }
            _ => {
                let copied = bytes[from..to].to_vec();
                let at = below(driver, bytes.len() + 1)?;
                let end = (at + copied.len()).min(bytes.len());
                bytes.splice(at..end, copied).for_each(drop);
            }
        }
        bytes.truncate(MAX_LEN);
        Some(())
    }
}

impl ValueGenerator for Hostile {
    type Output = Vec<u8>;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Vec<u8>> {
        match below(driver, 16)? {
            0 => noise(driver, 400),
            // Small bytes are the tags, flags and lengths of real messages, behind the version that all of them begin
            // with.
            1 => Some([vec![1], noise(driver, 200)?.into_iter().map(|byte| byte % 6).collect()].concat()),
            _ => {
                let mut bytes = self.seed(driver)?.clone();
                for _ in 0..=below(driver, 5)? {
                    self.edit(&mut bytes, driver)?;
                }
                Some(bytes)
            }
        }
    }
}

/// A number below `end`, 0 if that is 0.
fn below<D: Driver>(driver: &mut D, end: usize) -> Option<usize> {
    if end == 0 { Some(0) } else { (0..end).generate(driver) }
}

/// A range of a few bytes somewhere in `len`, seldom of many.
fn span<D: Driver>(driver: &mut D, len: usize) -> Option<(usize, usize)> {
    let from = below(driver, len + 1)?;
    let most = if below(driver, 8)? == 0 { len } else { 8 };
    Some((from, from + below(driver, most.min(len - from) + 1)?))
}

fn noise<D: Driver>(driver: &mut D, most: usize) -> Option<Vec<u8>> {
    (0..below(driver, most + 1)?).map(|_| driver.produce()).collect()
}

/// A number as formats write them, at an edge where a length that is believed does harm.
fn claim<D: Driver>(driver: &mut D) -> Option<Vec<u8>> {
    let number = (1u64 << below(driver, 64)?).wrapping_sub(below(driver, 2)? as u64);
    Some(match below(driver, 3)? {
        0 => (number as u32).to_le_bytes().to_vec(),
        1 => number.to_le_bytes().to_vec(),
        _ => varint(number),
    })
}

/// Seven bits a byte, the lowest first, as postcard and WebAssembly write numbers.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
}

fn put(bytes: &mut [u8], at: usize, value: u8) {
    bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
}

fn add(bytes: &mut [u8], at: usize, more: u8) {
    bytes.get_mut(at).into_iter().for_each(|byte| *byte = byte.wrapping_add(more));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn inputs_differ_stay_small_and_keep_parts_of_their_seeds() {
        let hostile = Hostile::of(vec![b"\x01a message of some length".to_vec(), b"\x01another".to_vec(), vec![]]);
        let all: Vec<Vec<u8>> = (0..4000).map(|number| hostile.drawn(number)).collect();
        assert!(all.iter().collect::<BTreeSet<_>>().len() > 1000);
        assert!(all.iter().all(|bytes| bytes.len() <= MAX_LEN));
        let like =
            |part: &[u8]| all.iter().filter(|bytes| bytes.windows(part.len()).any(|window| window == part)).count();
        let (one, other, lies) = (like(b"message"), like(b"another"), like(b"\xff\xff\xff"));
        assert!(one > 200 && other > 100, "damaged, but still near what is understood: {one} {other}");
        assert!(lies > 10, "lengths that are a lie: {lies}");
    }

    #[test]
    fn numbers_are_written_as_formats_do() {
        assert_eq!([varint(0), varint(127), varint(300)], [vec![0], vec![0x7f], vec![0xac, 2]]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }
}
