//! Takes what can be read out of a damaged table into a sound one, and says which ranges of keys are lost.
//!
//! A table is blocks of rows in key order, then an index that says where each block is and with which key it ends, a
//! filter, and a few facts about the table. Each block has a checksum of its own, so one flipped bit or one unreadable
//! sector costs one block of rows; damage behind the rows costs none.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::{Bound, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use lsm_tree::coding::Decode;
use lsm_tree::config::BloomConstructionPolicy;
use lsm_tree::table::block::decoder::ParsedItem;
use lsm_tree::table::block::{BlockType, Header};
use lsm_tree::table::{Block, DataBlock, IndexBlock, Writer};
use lsm_tree::{CompressionType, Error, InternalValue, SeqNo, Slice};

use super::lost::LostRange;
use super::manifest::{Entry, contents};
use crate::disk::is_damage;

/// How much is read at a time once a file has shown unreadable blocks.
const SECTOR: usize = 4096;
/// Bits of a table's filter for each key, as the tree has them.
const FILTER_BITS: f32 = 10.0;

/// What became of a damaged table.
pub(super) struct Salvaged {
    /// The table that takes its place; none if no row could be read.
    pub(super) instead: Option<Entry>,
    /// What is lost.
    pub(super) lost: Vec<LostRange>,
}

/// A damaged table, and what is known of it without its file.
pub(in crate::shard) struct Damaged {
    pub(super) entry: Entry,
    pub(super) level: usize,
    /// The highest sequence number that its rows can have, if its file does not say.
    pub(super) upto: SeqNo,
    /// The keys between which its rows are, if its file does not say.
    pub(super) between: (Bound<Bytes>, Bound<Bytes>),
}

impl Damaged {
    /// Its number.
    pub(in crate::shard) fn id(&self) -> u64 {
        self.entry.id
    }
}

/// Writes the rows of a damaged table that can be read into a new one with this number.
///
/// # Errors
/// What the operating system says when the new table cannot be written, or the old one not be opened for want of
/// descriptors or memory.
pub(super) fn salvage(tables: &Path, damaged: &Damaged, number: u64) -> Result<Salvaged, Error> {
    let bytes = read_what_can_be_read(&tables.join(damaged.entry.id.to_string()))?;
    let sections = contents(&bytes, "").unwrap_or_default();
    let section = |name: &[u8]| sections.iter().find(|(section, _)| section == name).map(|(_, place)| place.clone());
    let facts = Facts::read(&bytes, section(b"meta"), damaged);
    let pieces = match index(&bytes, section(b"index").or_else(|| section(b"tli"))) {
        Some(index) => by_index(&bytes, &index, &facts),
        None => in_order(&bytes, &facts),
    };
    let instead = write(tables, damaged, number, &pieces.blocks)?;
    let lost = pieces.gaps.into_iter().map(|(from, to)| LostRange { table: damaged.entry.id, upto: facts.upto, from, to }).collect();
    Ok(Salvaged { instead, lost })
}

/// What a table says of itself, or else what is known of it.
struct Facts {
    upto: SeqNo,
    between: (Bound<Bytes>, Bound<Bytes>),
}

impl Facts {
    fn read(bytes: &[u8], meta: Option<Range<usize>>, damaged: &Damaged) -> Self {
        let known = || Self { upto: damaged.upto, between: damaged.between.clone() };
        let Some((block, BlockType::Meta, _)) = meta.and_then(|place| block_at(bytes.get(place)?)) else { return known() };
        let meta = DataBlock::new(block);
        let fact = |name: &[u8]| meta.point_read(name, SeqNo::MAX).map(|row| Bytes::copy_from_slice(&row.value));
        let highest = fact(b"seqno#max").and_then(|word| Some(SeqNo::from_le_bytes(word[..].try_into().ok()?)));
        let (Some(first), Some(last), Some(highest)) = (fact(b"key#min"), fact(b"key#max"), highest) else { return known() };
        let upto = highest.saturating_add(damaged.entry.seqno);
        Self { upto, between: (Bound::Included(first), Bound::Included(last)) }
    }
}

/// The blocks of rows that can be read, and the ranges between them.
#[derive(Default)]
struct Pieces {
    blocks: Vec<DataBlock>,
    gaps: Vec<(Bound<Bytes>, Bound<Bytes>)>,
}

impl Pieces {
    /// Notes that what lies between these bounds is lost; what touches the range before it becomes one with it.
    fn gap(&mut self, from: Bound<Bytes>, to: Bound<Bytes>) {
        if let (Some((_, end)), Bound::Excluded(key)) = (self.gaps.last_mut(), &from)
            && *end == Bound::Included(key.clone())
        {
            *end = to;
        } else {
            self.gaps.push((from, to));
        }
    }
}

/// Where a block of rows is, and the last key in it.
struct Place {
    bytes: Range<usize>,
    last: Bytes,
}

/// The places of a table's blocks, if all of its index can be read.
fn index(bytes: &[u8], section: Option<Range<usize>>) -> Option<Vec<Place>> {
    let mut rest = bytes.get(section?)?;
    let mut places = Vec::new();
    while !rest.is_empty() {
        let (block, BlockType::Index, length) = block_at(rest)? else { return None };
        let block = IndexBlock::new(block);
        for item in block.iter() {
            let handle = item.materialize(block.as_slice());
            let from = usize::try_from(*handle.offset()).ok()?;
            let last = Bytes::copy_from_slice(handle.end_key());
            places.push(Place { bytes: from..from.checked_add(handle.size() as usize)?, last });
        }
        rest = &rest[length..];
    }
    Some(places)
}

/// Reads each block where the index says it is. A bad one costs the keys between the last of the block before it and
/// its own last.
fn by_index(bytes: &[u8], index: &[Place], facts: &Facts) -> Pieces {
    let (mut pieces, mut from) = (Pieces::default(), facts.between.0.clone());
    for Place { bytes: place, last } in index {
        match bytes.get(place.clone()).and_then(block_at) {
            // Another block in its place has a good checksum too.
            Some((block, BlockType::Data, _)) if ends_with(&block, last) => pieces.blocks.push(DataBlock::new(block)),
            _ => pieces.gap(from, Bound::Included(last.clone())),
        }
        from = Bound::Excluded(last.clone());
    }
    pieces
}

fn ends_with(block: &Block, last: &[u8]) -> bool {
    rows(&DataBlock::new(block.clone())).last().is_some_and(|row| row.key.user_key == last)
}

/// Without an index: from block to block, up to the first that has no rows. A block whose rows are damaged is passed
/// over by its length; where the length is damaged too, everything behind it is lost, since bytes that look like a
/// block may be a part of somebody's value.
fn in_order(bytes: &[u8], facts: &Facts) -> Pieces {
    let (mut pieces, mut rest) = (Pieces::default(), bytes);
    let (mut last, mut open) = (facts.between.0.clone(), None);
    loop {
        let Some((header, payload)) = header_at(rest) else {
            pieces.gap(open.unwrap_or(last), facts.between.1.clone());
            return pieces;
        };
        if header.block_type != BlockType::Data {
            if let Some(from) = open {
                pieces.gap(from, facts.between.1.clone());
            }
            return pieces;
        }
        match block_at(rest) {
            Some((block, _, _)) => {
                let block = DataBlock::new(block);
                if let (Some(from), Some(first)) = (open.take(), rows(&block).next()) {
                    pieces.gap(from, Bound::Excluded(Bytes::copy_from_slice(&first.key.user_key)));
                }
                if let Some(row) = rows(&block).last() {
                    last = Bound::Excluded(Bytes::copy_from_slice(&row.key.user_key));
                }
                pieces.blocks.push(block);
            }
            None => open = open.or_else(|| Some(last.clone())),
        }
        rest = &rest[payload.end..];
    }
}

/// The header at the front of these bytes, and where its payload lies, if both are there.
fn header_at(bytes: &[u8]) -> Option<(Header, Range<usize>)> {
    let header = Header::decode_from(&mut &bytes[..]).ok()?;
    let payload = Header::serialized_len()..Header::serialized_len() + header.data_length as usize;
    (payload.end <= bytes.len()).then_some((header, payload))
}

/// The block at the front of these bytes, its kind and its length, if it is what was written.
fn block_at(bytes: &[u8]) -> Option<(Block, BlockType, usize)> {
    let (header, payload) = header_at(bytes)?;
    let block = Block::from_reader(&mut &bytes[..payload.end], CompressionType::None).ok()?;
    Some((block, header.block_type, payload.end))
}

fn rows(block: &DataBlock) -> impl Iterator<Item = InternalValue> {
    block.iter().map(|row| row.materialize(block.as_slice()))
}

/// Writes the table that takes the damaged one's place, durably.
fn write(tables: &Path, damaged: &Damaged, number: u64, blocks: &[DataBlock]) -> Result<Option<Entry>, Error> {
    if blocks.is_empty() {
        return Ok(None);
    }
    let path = tables.join(number.to_string());
    let level = u8::try_from(damaged.level).unwrap_or_default();
    let mut writer = Writer::new(path, number, level)?.use_bloom_policy(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
    for block in blocks {
        for row in rows(block) {
            // A copy: the rows of a block share its memory, and the writer keeps keys for its index.
            let key = Slice::from(&row.key.user_key[..]);
            writer.write(InternalValue::from_components(key, row.value, row.key.seqno, row.key.value_type))?;
        }
    }
    let written = writer.finish()?;
    Ok(written.map(|(id, checksum)| Entry { id, checksum: checksum.into_u128(), seqno: damaged.entry.seqno }))
}

/// The file's bytes, with zeros where a sector cannot be read; none if there is no such file.
fn read_what_can_be_read(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_damage(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if is_damage(&error) => {}
        read => return read.map(|()| bytes),
    }
    for (place, sector) in bytes.chunks_mut(SECTOR).enumerate() {
        match file.read_exact_at(sector, (place * SECTOR) as u64) {
            Err(error) if is_damage(&error) => sector.fill(0),
            read => read?,
        }
    }
    Ok(bytes)
}
