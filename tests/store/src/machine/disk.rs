//! The machine as a [`Disk`] of the store.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rejoin_store::{Disk, DiskFile};

use super::{Call, FileChange, FileId, Image, Machine};
use crate::Tree;

/// A fault of the disk.
#[derive(Clone, Debug)]
pub struct Fault {
    /// During which of the calls that change or sync something, counted from the disk's beginning.
    pub calls: Range<u64>,
    /// How they fail.
    pub kind: ErrorKind,
    /// Only calls that need more room than this fail, in bytes: the disk is full, and what has room already can be
    /// overwritten.
    pub room: Option<usize>,
}

/// An event at the disk.
#[derive(Clone, Debug)]
pub enum DiskEvent {
    /// A call.
    Call(Call),
    /// The tree's directory is found changed. The tree makes its own calls, and has synced what it wants to rely on.
    Tree(Arc<Tree>),
}

/// A disk in memory that remembers every call and can fail. Directories, locks and the tree are on the real file
/// system, in a directory of the same name.
#[derive(Clone)]
pub struct MemoryDisk {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    machine: Machine,
    fault: Option<Fault>,
    calls: u64,
    seen: Vec<DiskEvent>,
    /// Where the tree is, if its changes are to be seen, and what it was last.
    tree: Option<(PathBuf, Arc<Tree>)>,
}

impl MemoryDisk {
    /// A disk with this on its platter, for the data directory at `root`.
    #[must_use]
    pub fn new(root: &Path, image: &Image) -> Self {
        let state = State { machine: Machine::holding(image), ..State::default() };
        Self { root: root.to_path_buf(), state: Arc::new(Mutex::new(state)) }
    }

    /// From now on the tree there is looked at around every call.
    #[must_use]
    pub fn watching(self, tree: &Path) -> Self {
        self.state().tree = Some((tree.to_path_buf(), Arc::new(Tree::read(tree))));
        self
    }

    /// From now on this is wrong.
    pub fn break_down(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// From now on nothing is wrong.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// How many calls changed or synced something so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// What happened since this was last asked.
    #[must_use]
    pub fn seen(&self) -> Vec<DiskEvent> {
        let mut state = self.state();
        state.look_at_the_tree();
        std::mem::take(&mut state.seen)
    }

    /// The machine as it is now.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.state().machine.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).expect("a path of this data directory").to_string_lossy().into_owned()
    }

    fn file(&self, file: FileId) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile { disk: self.clone(), file })
    }
}

impl State {
    /// Counts a call that needs so much more room. Fails if it is one of those that do.
    fn count(&mut self, needs: usize) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match &self.fault {
            Some(fault) if fault.calls.contains(&call) && fault.room.is_none_or(|room| needs > room) => {
                Err(fault.kind.into())
            }
            _ => Ok(()),
        }
    }

    fn call(&mut self, call: Call) {
        self.look_at_the_tree();
        self.machine.apply(&call);
        if self.tree.is_some() {
            self.seen.push(DiskEvent::Call(call));
        }
    }

    fn look_at_the_tree(&mut self) {
        let Some((path, last)) = &mut self.tree else { return };
        if !last.is_still_at(path) {
            *last = Arc::new(Tree::read(path));
            self.seen.push(DiskEvent::Tree(Arc::clone(last)));
        }
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.count(1)?;
        let file = state.machine.files.len();
        state.call(Call::Create(self.name(path), file));
        Ok(self.file(file))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().machine.live.get(&self.name(path)).copied().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(file))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = self.name(dir);
        let here = |name: &String| {
            if dir.is_empty() { Some(name.as_str()) } else { name.strip_prefix(&dir)?.strip_prefix('/') }
                .map(str::to_owned)
        };
        let state = self.state();
        let mut names: Vec<String> = state.machine.live.keys().filter_map(here).collect();
        // Of what lies deeper, the directory.
        names.iter_mut().for_each(|name| name.truncate(name.find('/').unwrap_or(name.len())));
        names.dedup();
        Ok(names)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count(0)?;
        state.call(Call::Rename(self.name(from), self.name(to)));
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, name) = (self.state(), self.name(path));
        if !state.machine.live.contains_key(&name) {
            return Err(ErrorKind::NotFound.into());
        }
        state.count(0)?;
        state.call(Call::Remove(name));
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count(0)?;
        if let Ok(dir) = dir.strip_prefix(&self.root) {
            state.call(Call::SyncNames(dir.to_string_lossy().into_owned()));
        }
        Ok(())
    }
    fn free_space(&self, _: &Path) -> io::Result<u64> {
        let state = self.state();
        let fault = state.fault.as_ref().filter(|fault| fault.calls.contains(&state.calls));
        Ok(fault.and_then(|fault| fault.room).map_or(1 << 40, |room| room as u64))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: FileId,
}

impl MemoryFile {
    fn length(&self, state: &State) -> usize {
        state.machine.files[self.file].live.length()
    }

    fn change_length(&self, state: &mut State, length: usize) -> io::Result<()> {
        state.count(length.saturating_sub(self.length(state)))?;
        state.call(Call::Change(self.file, FileChange::Length(length)));
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length(&self.disk.state()) as u64)
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if length as usize <= self.length(&state) { Ok(()) } else { self.change_length(&mut state, length as usize) }
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change_length(&mut self.disk.state(), length as usize)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let offset = offset as usize;
        let needs = (offset + bytes.len()).saturating_sub(self.length(&state));
        let counted = state.count(needs);
        // A write that fails may have been done in part.
        let done = if counted.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        if counted.is_ok() || needs == 0 {
            state.call(Call::Change(self.file, FileChange::Write(offset, done.into())));
        }
        counted
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.disk.state().machine.files[self.file].live.read(bytes, offset as usize))
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let counted = state.count(0);
        state.call(if counted.is_ok() { Call::Sync(self.file) } else { Call::FailedSync(self.file) });
        counted
    }
}
