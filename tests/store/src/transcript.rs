//! A recording as text that another run of the same seed must repeat to the byte.
//!
//! The tree writes the time into its tables, so a table's bytes and its checksum differ from run to run. Checksums
//! stand in the copy of the tree's list of tables, which is why each is replaced by the name of the table that it
//! belongs to. All other bytes are compared as they are.

use std::collections::BTreeMap;
use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_128;

use crate::{Call, Content, DiskEvent, Event, FileChange, Image, Machine, Promise, Recording, SECTOR, SHARD, Tree};

/// The lines of a recording, one per event.
#[must_use]
pub fn transcript(recording: &Recording) -> Vec<String> {
    let (mut machine, mut lists) = (Machine::default(), TableLists::default());
    let mut line = |event: &Event| match event {
        Event::DiskEvent(DiskEvent::Call(call)) => {
            let line = match call {
                Call::Change(file, FileChange::Write(at, bytes)) if TableLists::is_one(machine.name_of(*file)) => {
                    format!("Write {file} at {at}: {}", lists.written(bytes))
                }
                call => format!("{call:?}"),
            };
            machine.apply(call);
            line
        }
        Event::DiskEvent(DiskEvent::Tree(tree)) => lists.tree(tree),
        Event::Promise(Promise::Found(image)) => {
            machine = Machine::holding(image);
            lists.found(image)
        }
        Event::Promise(told) => format!("{told:?}"),
    };
    recording.events.iter().map(&mut line).collect()
}

/// The copies of the tree's list of tables that were written, and the checksums that may stand in them.
#[derive(Default)]
struct TableLists {
    tables: BTreeMap<[u8; 16], String>,
    written: Vec<Vec<u8>>,
}

impl TableLists {
    fn is_one(name: &str) -> bool {
        name.strip_prefix(SHARD).is_some_and(|name| name == "/tables" || name == "/tables.new")
    }

    /// Learns the checksums of a tree's tables. Of the tree itself, names and lengths are the same in every run.
    fn tree(&mut self, tree: &Tree) -> String {
        let mut line = "Tree".to_owned();
        for (name, bytes) in &tree.files {
            if name.starts_with("tables/") {
                self.tables.insert(xxh3_128(bytes).to_le_bytes(), name.clone());
            }
            let _ = write!(line, " {name} {}", bytes.len());
        }
        line
    }

    /// A whole list, with names in place of checksums. The line in front of it ends with a checksum over all of it.
    fn written(&mut self, bytes: &[u8]) -> String {
        self.written.push(bytes.to_vec());
        let first = bytes.iter().position(|byte| *byte == b'\n').expect("a list has a first line");
        let (head, mut rest) = bytes.split_at(first);
        let mut line = String::from_utf8_lossy(&head[..head.len() - 8]).into_owned();
        while let Some(byte) = rest.first() {
            match rest.first_chunk().and_then(|sum| self.tables.get(sum)) {
                Some(table) => {
                    let _ = write!(line, "[{table}]");
                    rest = &rest[16..];
                }
                None => {
                    let _ = write!(line, "{byte:02x}");
                    rest = &rest[1..];
                }
            }
        }
        line
    }

    /// What a loss of power has left. It may have left some sectors of a list only: each is named by the write that it
    /// is of.
    fn found(&self, image: &Image) -> String {
        let mut line = "Outcome".to_owned();
        for (name, content) in &image.files {
            let shown = if Self::is_one(name) { self.sectors(content) } else { format!("{content:?}") };
            let _ = write!(line, " {name}: {shown}");
        }
        line
    }

    fn sectors(&self, content: &Content) -> String {
        let mut line = content.length().to_string();
        for (place, sector) in content.written().chunks(SECTOR).enumerate() {
            let is_of = |list: &Vec<u8>| list.get(place * SECTOR..).is_some_and(|rest| rest.starts_with(sector));
            match self.written.iter().rposition(is_of) {
                Some(list) => drop(write!(line, " sector {place} of list {list}")),
                None => drop(write!(line, " {sector:?}")),
            }
        }
        line
    }
}
