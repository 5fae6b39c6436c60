//! A machine's disk in memory: the files as processes see them, and as they are on the platter. Processes can end and
//! the power can fail at any moment, and the platter can be damaged at rest.

mod content;
mod crash;
mod disk;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use content::Content;
pub use crash::{Crash, Image, Noise, SECTOR, Survival, sealed};
pub use disk::{DiskEvent, Fault, MemoryDisk};

/// The number of a file, whatever its present name.
pub(crate) type FileId = usize;

/// A change of a file. It reaches the platter when the file is synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileChange {
    /// Bytes at an offset.
    Write(usize, Arc<[u8]>),
    /// A new length.
    Length(usize),
}

impl FileChange {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write(offset, bytes) => content.write(bytes, *offset),
            Self::Length(length) => content.set_length(*length),
        }
    }
}

/// One call to the disk. Names are relative to the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// A new, empty file takes a name.
    Create(String, FileId),
    /// A file is changed.
    Change(FileId, FileChange),
    /// A file is synced.
    Sync(FileId),
    /// A file's sync fails: the system forgets that what was written is not on the platter, so a later sync does not
    /// bring it there.
    FailedSync(FileId),
    /// A file changes its name.
    Rename(String, String),
    /// A name is removed.
    Remove(String),
    /// The names in a directory are synced.
    SyncNames(String),
}

/// A change that is not on the platter.
#[derive(Clone)]
struct Pending {
    /// The number of the change, among all changes of the machine.
    at: u64,
    piece: FileChange,
    /// A failed sync has dropped it: no later sync writes it to the platter.
    dropped: bool,
}

/// A file and its past.
#[derive(Clone, Default)]
struct File {
    live: Content,
    platter: Content,
    pending: Vec<Pending>,
}

/// A change of a directory entry that is not on the platter.
#[derive(Clone)]
struct NameChange {
    at: u64,
    name: String,
    file: Option<FileId>,
}

/// The machine's disk.
#[derive(Clone, Default)]
pub struct Machine {
    files: Vec<File>,
    live: BTreeMap<String, FileId>,
    platter: BTreeMap<String, FileId>,
    pending: Vec<NameChange>,
    clock: u64,
}

impl Machine {
    /// A machine that starts with this on its platter.
    #[must_use]
    pub fn holding(image: &Image) -> Self {
        let mut machine = Self::default();
        for (name, content) in &image.files {
            machine.live.insert(name.clone(), machine.files.len());
            machine.files.push(File { live: content.clone(), platter: content.clone(), pending: Vec::new() });
        }
        machine.platter = machine.live.clone();
        machine
    }

    /// Does one call.
    pub fn apply(&mut self, call: &Call) {
        self.clock += 1;
        match call {
            Call::Create(name, file) => {
                assert_eq!(*file, self.files.len(), "files are numbered in the order of their creation");
                self.files.push(File::default());
                self.name(name, Some(*file));
            }
            Call::Change(file, piece) => {
                let file = &mut self.files[*file];
                piece.apply(&mut file.live);
                file.pending.push(Pending { at: self.clock, piece: piece.clone(), dropped: false });
            }
            Call::Sync(file) => {
                let File { platter, pending, .. } = &mut self.files[*file];
                pending.iter().filter(|pending| !pending.dropped).for_each(|pending| pending.piece.apply(platter));
                pending.retain(|pending| pending.dropped);
            }
            Call::FailedSync(file) => self.files[*file].pending.iter_mut().for_each(|pending| pending.dropped = true),
            Call::Rename(from, to) => {
                let file = self.live[from];
                self.name(from, None);
                self.name(to, Some(file));
            }
            Call::Remove(name) => self.name(name, None),
            Call::SyncNames(dir) => {
                self.platter.retain(|name, _| parent(name) != dir);
                let here = self.live.iter().filter(|(name, _)| parent(name) == dir);
                self.platter.extend(here.map(|(name, file)| (name.clone(), *file)));
                self.pending.retain(|naming| parent(&naming.name) != dir);
            }
        }
    }

    /// The present name of a file.
    #[must_use]
    pub fn name_of(&self, file: FileId) -> &str {
        self.live.iter().find(|(_, other)| **other == file).map_or("", |(name, _)| name)
    }

    fn name(&mut self, name: &str, file: Option<FileId>) {
        match file {
            Some(file) => self.live.insert(name.to_owned(), file),
            None => self.live.remove(name),
        };
        self.pending.push(NameChange { at: self.clock, name: name.to_owned(), file });
    }
}

/// The directory that a name is in.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn write(machine: &mut Machine, file: FileId, offset: usize, bytes: &[u8]) {
        machine.apply(&Call::Change(file, FileChange::Write(offset, bytes.into())));
    }

    fn text(machine: &Machine, survival: Survival) -> Option<String> {
        let image = machine.crash(survival, &mut Random::new(1, 1)).image;
        image.files.get("a/f").map(|content| String::from_utf8(content.written().to_vec()).expect("text"))
    }

    #[test]
    fn a_sync_saves_what_was_written_and_only_a_sync_of_the_directory_saves_the_name() {
        let mut machine = Machine::default();
        machine.apply(&Call::Create("a/f".into(), 0));
        write(&mut machine, 0, 0, b"one");
        machine.apply(&Call::Sync(0));
        assert_eq!(text(&machine, Survival::Nothing), None);
        machine.apply(&Call::SyncNames(String::new()));
        assert_eq!(text(&machine, Survival::Nothing), None, "another directory's sync is not enough");
        machine.apply(&Call::SyncNames("a".into()));
        write(&mut machine, 0, 3, b"two");
        assert_eq!(text(&machine, Survival::Nothing).as_deref(), Some("one"));
        assert_eq!(text(&machine, Survival::Everything).as_deref(), Some("onetwo"));
        machine.apply(&Call::FailedSync(0));
        machine.apply(&Call::Sync(0));
        assert_eq!(
            text(&machine, Survival::Nothing).as_deref(),
            Some("one"),
            "a failed sync is not made good by the next"
        );
        write(&mut machine, 0, 3, b"two");
        machine.apply(&Call::Sync(0));
        machine.apply(&Call::Remove("a/f".into()));
        assert_eq!(text(&machine, Survival::Nothing).as_deref(), Some("onetwo"), "a removal may be undone");
        assert_eq!(text(&machine, Survival::Everything), None);
    }

    #[test]
    fn a_rename_is_there_or_not_and_takes_the_content_along() {
        let mut machine =
            Machine::holding(&Image { files: [("a/f".to_owned(), Content::new(b"old".to_vec()))].into() });
        machine.apply(&Call::Create("a/f.new".into(), 1));
        write(&mut machine, 1, 0, b"new");
        machine.apply(&Call::Sync(1));
        machine.apply(&Call::Rename("a/f.new".into(), "a/f".into()));
        assert_eq!(text(&machine, Survival::Nothing).as_deref(), Some("old"));
        assert_eq!(text(&machine, Survival::Everything).as_deref(), Some("new"));
        machine.apply(&Call::SyncNames("a".into()));
        assert_eq!(text(&machine, Survival::Nothing).as_deref(), Some("new"));
    }

    #[test]
    fn torn_sectors_are_old_or_new_each_for_itself() {
        let mut machine =
            Machine::holding(&Image { files: [("a/f".to_owned(), Content::new(vec![b'o'; 4 * SECTOR]))].into() });
        write(&mut machine, 0, 0, &[b'n'; 4 * SECTOR]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let image = machine.crash(Survival::Sectors(SECTOR), &mut Random::new(seed, 1)).image;
            let sectors: Vec<u8> = image.files["a/f"].written().chunks(SECTOR).map(|sector| sector[0]).collect();
            assert!(
                image.files["a/f"].written().chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0]))
            );
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 16, "every mixture of four sectors");
    }
}
