//! Copies the readable rows of a damaged table into a new one, and names the key ranges that are lost.
//!
//! A table is blocks of rows in key order, then an index with the place and the last key of each block, a filter, and
//! the table's metadata. Each block has its own checksum. So one flipped bit or one unreadable sector costs one block
//! of rows, and damage behind the rows costs none.

use std::fs::File;
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

use super::error::TreeError;
use super::lost_ranges::LostRange;
use super::manifest::{TableEntry, contents, contents_of};
use crate::disk::{OsDisk, read_readable};
use crate::io_cause::IoCause;

/// Bits of a table's filter for each key, as lsm-tree has them.
pub(super) const FILTER_BITS: f32 = 10.0;

/// The result of a salvage.
pub(super) struct Salvaged {
    /// The new table; `None` if no row could be read.
    pub(super) replacement: Option<TableEntry>,
    pub(super) lost: Vec<LostRange>,
}

/// A damaged table, and what is known of it without its file.
pub(in crate::shard) struct DamagedTable {
    pub(super) entry: TableEntry,
    pub(super) level: usize,
    /// The highest sequence number that its rows can have, for a file that does not tell.
    pub(super) upto: SeqNo,
    /// The bounds of its keys, for a file that does not tell.
    pub(super) between: (Bound<Bytes>, Bound<Bytes>),
    /// The damage, for people.
    pub(super) why: String,
}

impl DamagedTable {
    pub(in crate::shard) fn id(&self) -> u64 {
        self.entry.id
    }

    pub(in crate::shard) fn why(&self) -> &str {
        &self.why
    }
}

/// Writes the readable rows of a damaged table into a new one with this number.
///
/// # Errors
/// [`TreeError`] if the new table cannot be written, or if an error that is not damage kept the old one from being
/// read.
pub(super) fn salvage(tables: &Path, damaged: &DamagedTable, number: u64) -> Result<Salvaged, TreeError> {
    let bytes = match OsDisk::open_to_read(&tables.join(damaged.entry.id.to_string())) {
        Err(error) if IoCause::of(&error).is_damage() => Vec::new(),
        file => read_readable(file?.as_ref())?.0,
    };
    let sections = contents(&bytes, "").unwrap_or_default();
    let section = |name: &[u8]| sections.iter().find(|(section, _)| section == name).map(|(_, place)| place.clone());
    let bounds = TableBounds::read(&bytes, section(b"meta"), damaged);
    let index = section(b"index").or_else(|| section(b"tli")).and_then(|place| decode_index(bytes.get(place)?));
    let salvaged = match index {
        Some(index) => by_index(&bytes, &index, &bounds),
        None => in_order(&bytes, &bounds),
    };
    let replacement = write(tables, damaged, number, &salvaged.blocks)?;
    let range = |(from, to)| LostRange { table: damaged.entry.id, upto: bounds.upto, from, to };
    Ok(Salvaged { replacement, lost: salvaged.gaps.into_iter().map(range).collect() })
}

/// The last key of the block in which the keys behind `from` begin, according to the table's index; `None` if the index
/// cannot be read.
pub(super) fn end_of_block(table: &Path, from: Bound<&[u8]>) -> Option<Bytes> {
    let file = File::open(table).ok()?;
    let sections = contents_of(&file, "").ok()?;
    let section = |name: &[u8]| sections.iter().find(|(section, _)| section == name).map(|(_, place)| place.clone());
    let place = section(b"index").or_else(|| section(b"tli"))?;
    let mut bytes = vec![0; place.len()];
    file.read_exact_at(&mut bytes, place.start as u64).ok()?;
    let reaches = |block: &BlockLocation| match from {
        Bound::Included(key) => block.last >= key,
        Bound::Excluded(key) => block.last > key,
        Bound::Unbounded => true,
    };
    decode_index(&bytes)?.into_iter().find(reaches).map(|block| block.last)
}

/// The bounds of a table's rows: from its metadata if they can be read, else what is known without the file.
struct TableBounds {
    upto: SeqNo,
    between: (Bound<Bytes>, Bound<Bytes>),
}

impl TableBounds {
    fn read(bytes: &[u8], meta: Option<Range<usize>>, damaged: &DamagedTable) -> Self {
        let known = || Self { upto: damaged.upto, between: damaged.between.clone() };
        let Some((block, BlockType::Meta, _)) = meta.and_then(|place| block_at(bytes.get(place)?)) else {
            return known();
        };
        let meta = DataBlock::new(block);
        let fact = |name: &[u8]| meta.point_read(name, SeqNo::MAX).map(|row| Bytes::copy_from_slice(&row.value));
        let highest = fact(b"seqno#max").and_then(|word| Some(SeqNo::from_le_bytes(word[..].try_into().ok()?)));
        let (Some(first), Some(last), Some(highest)) = (fact(b"key#min"), fact(b"key#max"), highest) else {
            return known();
        };
        let upto = highest.saturating_add(damaged.entry.seqno);
        Self { upto, between: (Bound::Included(first), Bound::Included(last)) }
    }
}

/// The readable blocks of rows, and the key ranges between them.
#[derive(Default)]
struct SalvagedBlocks {
    blocks: Vec<DataBlock>,
    gaps: Vec<(Bound<Bytes>, Bound<Bytes>)>,
}

impl SalvagedBlocks {
    /// Adds a lost range, and merges it with the one before if they touch.
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

/// The place of a block of rows, and its last key.
struct BlockLocation {
    bytes: Range<usize>,
    last: Bytes,
}

/// Decodes a table's index; `None` if any part of it is damaged.
fn decode_index(mut rest: &[u8]) -> Option<Vec<BlockLocation>> {
    let mut places = Vec::new();
    while !rest.is_empty() {
        let (block, BlockType::Index, length) = block_at(rest)? else { return None };
        let block = IndexBlock::new(block);
        for item in block.iter() {
            let handle = item.materialize(block.as_slice());
            let from = usize::try_from(*handle.offset()).ok()?;
            let last = Bytes::copy_from_slice(handle.end_key());
            places.push(BlockLocation { bytes: from..from.checked_add(handle.size() as usize)?, last });
        }
        rest = &rest[length..];
    }
    Some(places)
}

/// Reads each block at its place in the index. A bad block costs the keys between the last key of the block before it
/// and its own.
fn by_index(bytes: &[u8], index: &[BlockLocation], bounds: &TableBounds) -> SalvagedBlocks {
    let (mut salvaged, mut from) = (SalvagedBlocks::default(), bounds.between.0.clone());
    for BlockLocation { bytes: place, last } in index {
        match bytes.get(place.clone()).and_then(block_at) {
            // A misplaced block has a good checksum too.
            Some((block, BlockType::Data, _)) if ends_with(&block, last) => salvaged.blocks.push(DataBlock::new(block)),
            _ => salvaged.gap(from, Bound::Included(last.clone())),
        }
        from = Bound::Excluded(last.clone());
    }
    salvaged
}

fn ends_with(block: &Block, last: &[u8]) -> bool {
    rows(&DataBlock::new(block.clone())).last().is_some_and(|row| row.key.user_key == last)
}

/// Reads the blocks one after the other, for a table without an index, up to the first block that has no rows. A block
/// with damaged rows is skipped by its length. If its length is damaged too, everything behind it is lost: bytes that
/// look like a block may be part of a value.
fn in_order(bytes: &[u8], bounds: &TableBounds) -> SalvagedBlocks {
    let (mut salvaged, mut rest) = (SalvagedBlocks::default(), bytes);
    let (mut last, mut open) = (bounds.between.0.clone(), None);
    loop {
        let Some((header, payload)) = header_at(rest) else {
            salvaged.gap(open.unwrap_or(last), bounds.between.1.clone());
            return salvaged;
        };
        if header.block_type != BlockType::Data {
            if let Some(from) = open {
                salvaged.gap(from, bounds.between.1.clone());
            }
            return salvaged;
        }
        match block_at(rest) {
            Some((block, _, _)) => {
                let block = DataBlock::new(block);
                if let (Some(from), Some(first)) = (open.take(), rows(&block).next()) {
                    salvaged.gap(from, Bound::Excluded(Bytes::copy_from_slice(&first.key.user_key)));
                }
                if let Some(row) = rows(&block).last() {
                    last = Bound::Excluded(Bytes::copy_from_slice(&row.key.user_key));
                }
                salvaged.blocks.push(block);
            }
            None => open = open.or_else(|| Some(last.clone())),
        }
        rest = &rest[payload.end..];
    }
}

/// The header at the front of these bytes and the place of its payload, if both are complete.
fn header_at(bytes: &[u8]) -> Option<(Header, Range<usize>)> {
    let header = Header::decode_from(&mut &bytes[..]).ok()?;
    let payload = Header::serialized_len()..Header::serialized_len() + header.data_length as usize;
    (payload.end <= bytes.len()).then_some((header, payload))
}

/// The block at the front of these bytes, its type and its length, if its checksum is right.
fn block_at(bytes: &[u8]) -> Option<(Block, BlockType, usize)> {
    let (header, payload) = header_at(bytes)?;
    let block = Block::from_reader(&mut &bytes[..payload.end], CompressionType::None).ok()?;
    Some((block, header.block_type, payload.end))
}

fn rows(block: &DataBlock) -> impl Iterator<Item = InternalValue> {
    block.iter().map(|row| row.materialize(block.as_slice()))
}

/// Durably writes the new table.
fn write(
    tables: &Path,
    damaged: &DamagedTable,
    number: u64,
    blocks: &[DataBlock],
) -> Result<Option<TableEntry>, Error> {
    if blocks.is_empty() {
        return Ok(None);
    }
    let path = tables.join(number.to_string());
    let level = u8::try_from(damaged.level).unwrap_or_default();
    let mut writer =
        Writer::new(path, number, level)?.use_bloom_policy(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
    for block in blocks {
        for row in rows(block) {
            // A copy: the rows of a block share its memory, and the writer keeps keys for its index.
            let key = Slice::from(&row.key.user_key[..]);
            writer.write(InternalValue::from_components(key, row.value, row.key.seqno, row.key.value_type))?;
        }
    }
    let written = writer.finish()?;
    Ok(written.map(|(id, checksum)| TableEntry { id, checksum: checksum.into_u128(), seqno: damaged.entry.seqno }))
}
