//! The functions of the C library that the tree calls, defined here so that they can fail: the reason for the unsafe
//! code in this binary. What is not about a file of the tree goes to the kernel as it is.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How large a block is that cannot be read.
const BLOCK: u64 = 4096;

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Create,
    Open,
    Read,
    Write,
    Sync,
    Rename,
    Remove,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trigger {
    Never,
    Once(u64, Errno),
    From(u64, Errno),
    /// The block that this call reads is bad from then on.
    BadBlock(u64),
}

/// What is done to the calls about one tree.
pub(crate) struct Plan {
    tree: PathBuf,
    kinds: Vec<Kind>,
    trigger: Trigger,
    /// How many calls of these kinds there were.
    pub(crate) calls: u64,
    bad: Option<(PathBuf, u64)>,
    /// Files with bytes that are not synced.
    unsynced: Vec<PathBuf>,
    /// Names that were given or taken and are not synced, with what they stood for before.
    names: Vec<(PathBuf, Option<Vec<u8>>)>,
    /// The file that says which version of the tree counts, as it was last seen: its number and what is in it.
    current: Option<(u64, Vec<u8>)>,
}

static ARMED: AtomicBool = AtomicBool::new(false);
static PLAN: Mutex<Option<Plan>> = Mutex::new(None);
static ALONE: Mutex<()> = Mutex::new(());

/// One test at a time: the calls are those of the process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn arm(plan: Plan) {
    *PLAN.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    ARMED.store(true, SeqCst);
}

/// From here on all calls are as they were. Returns the plan; an empty one if there was none.
pub(crate) fn disarm() -> Plan {
    ARMED.store(false, SeqCst);
    let plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner).take();
    plan.unwrap_or_else(|| Plan::new(PathBuf::new(), &[], Trigger::Never))
}

/// From here on no further call fails, but a bad block stays bad. Returns how many calls there were.
pub(crate) fn calm_down() -> u64 {
    let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
    plan.as_mut().map_or(0, |plan| {
        plan.trigger = Trigger::Never;
        plan.calls
    })
}

impl Plan {
    pub(crate) fn new(tree: PathBuf, kinds: &[Kind], trigger: Trigger) -> Self {
        Self {
            tree,
            kinds: kinds.to_vec(),
            trigger,
            calls: 0,
            bad: None,
            unsynced: Vec::new(),
            names: Vec::new(),
            current: None,
        }
    }

    /// From now on a block of a file cannot be read.
    pub(crate) fn break_block(&mut self, file: &Path, block: u64) {
        self.bad = Some((file.to_path_buf(), block * BLOCK));
    }

    /// What a loss of power leaves of the tree's directory.
    pub(crate) fn lose_what_is_not_synced(mut self) {
        self.look_at_current();
        for file in self.unsynced {
            if file.exists() {
                std::fs::write(file, b"").unwrap();
            }
        }
        for (name, before) in self.names.into_iter().rev() {
            match before {
                Some(bytes) => std::fs::write(name, bytes).unwrap(),
                None => drop(std::fs::remove_file(name)),
            }
        }
    }

    /// Whether the call fails.
    fn fails(&mut self, kind: Kind, path: &Path, at: Option<(u64, u64)>) -> Option<Errno> {
        if let (Some((file, block)), Some((from, to))) = (&self.bad, at)
            && file == path
            && from < block + BLOCK
            && *block < to
        {
            return Some(Errno::IO);
        }
        if !self.kinds.contains(&kind) {
            return None;
        }
        let call = self.calls;
        self.calls += 1;
        match self.trigger {
            Trigger::Once(which, errno) if which == call => Some(errno),
            Trigger::From(which, errno) if call >= which => Some(errno),
            Trigger::BadBlock(which) if which == call => {
                self.bad = Some((path.to_path_buf(), at.map_or(0, |(from, _)| from / BLOCK * BLOCK)));
                Some(Errno::IO)
            }
            _ => None,
        }
    }

    /// A name stands for another file from now on, and with it for other blocks.
    fn named(&mut self, name: &Path, before: Option<Vec<u8>>) {
        self.bad.take_if(|(file, _)| file == name);
        self.names.push((name.to_path_buf(), before));
    }

    /// The tree replaces that file by a call that goes to the kernel directly. It shows in the call after it.
    fn look_at_current(&mut self) {
        let path = self.tree.join("current");
        let number = rustix::fs::stat(&path).ok().map(|stat| stat.st_ino);
        if number != self.current.as_ref().map(|(number, _)| *number) {
            let now = number.and_then(|number| Some((number, content(&path)?)));
            let before = std::mem::replace(&mut self.current, now);
            self.named(&path, before.map(|(_, bytes)| bytes));
        }
    }

    fn synced(&mut self, path: &Path) {
        if path.is_absolute() && is_dir(path) {
            self.names.retain(|(name, _)| name.parent() != Some(path));
        } else {
            self.unsynced.retain(|file| file != path);
        }
    }
}

/// Asks the plan about a call, if the path is one of its tree.
fn with_plan<T>(path: &Path, ask: impl FnOnce(&mut Plan) -> T) -> Option<T> {
    let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = plan.as_mut().filter(|plan| path.starts_with(&plan.tree))?;
    plan.look_at_current();
    Some(ask(plan))
}

/// The path of an open file; none while nothing is armed.
fn path_of(fd: c_int) -> Option<PathBuf> {
    if !ARMED.load(SeqCst) {
        return None;
    }
    let link = rustix::fs::readlink(format!("/proc/self/fd/{fd}"), Vec::new()).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(link.as_bytes())))
}

/// Notes a write, and says how it fails if it does.
fn write_fault(fd: c_int) -> Option<Errno> {
    let path = path_of(fd)?;
    with_plan(&path, |plan| {
        if !plan.unsynced.contains(&path) {
            plan.unsynced.push(path.clone());
        }
        plan.fails(Kind::Write, &path, None)
    })?
}

/// Notes a sync, and says how it fails if it does.
fn sync_fault(fd: c_int) -> Option<Errno> {
    let path = path_of(fd)?;
    with_plan(&path, |plan| {
        let fault = plan.fails(Kind::Sync, &path, None);
        if fault.is_none() {
            plan.synced(&path);
        }
        fault
    })?
}

fn is_dir(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn content(path: &Path) -> Option<Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => return Some(bytes),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(_) => return None,
        }
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

fn fail(errno: Errno) -> isize {
    // SAFETY: the C library's own place for this thread's error.
    unsafe { *__errno_location() = errno.raw_os_error() };
    -1
}

fn done(result: Result<usize, Errno>) -> isize {
    result.map_or_else(fail, |done| isize::try_from(done).expect("a call does not do more than it was asked"))
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    // SAFETY: the caller gives a string that ends with a zero.
    let name = unsafe { CStr::from_ptr(path) };
    let flags = OFlags::from_bits_retain(flags as u32);
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let creates = flags.contains(OFlags::CREATE);
    if ARMED.load(SeqCst) {
        let kind = if creates { Kind::Create } else { Kind::Open };
        let answer = with_plan(path, |plan| {
            let fault = plan.fails(kind, path, None);
            if fault.is_none() && creates {
                let before = content(path);
                plan.named(path, before);
                plan.unsynced.push(path.to_path_buf());
            }
            fault
        });
        if let Some(Some(errno)) = answer {
            return fail(errno) as c_int;
        }
    }
    let opened = rustix::fs::open(name, flags, Mode::from_raw_mode(mode));
    opened.map_or_else(|errno| fail(errno) as c_int, IntoRawFd::into_raw_fd)
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize {
    if let Some(errno) = write_fault(fd) {
        return fail(errno);
    }
    // SAFETY: as the caller promises.
    let (file, bytes) = unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts(bytes.cast::<u8>(), length)) };
    done(rustix::io::write(file, bytes))
}

/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn read(fd: c_int, bytes: *mut c_void, length: usize) -> isize {
    // SAFETY: as the caller promises.
    let (file, buffer) =
        unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length)) };
    if let Some(path) = path_of(fd) {
        let at = rustix::fs::tell(file).unwrap_or_default();
        if let Some(Some(errno)) =
            with_plan(&path, |plan| plan.fails(Kind::Read, &path, Some((at, at + length as u64))))
        {
            return fail(errno);
        }
    }
    done(rustix::io::read(file, buffer))
}

/// # Safety
/// As pread(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread64(fd: c_int, bytes: *mut c_void, length: usize, at: i64) -> isize {
    // SAFETY: as the caller promises.
    let (file, buffer) =
        unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length)) };
    let at = at as u64;
    if let Some(path) = path_of(fd)
        && let Some(Some(errno)) =
            with_plan(&path, |plan| plan.fails(Kind::Read, &path, Some((at, at + length as u64))))
    {
        return fail(errno);
    }
    done(rustix::io::pread(file, buffer, at))
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: usize, at: i64) -> isize {
    if let Some(errno) = write_fault(fd) {
        return fail(errno);
    }
    // SAFETY: as the caller promises.
    let (file, bytes) = unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts(bytes.cast::<u8>(), length)) };
    done(rustix::io::pwrite(file, bytes, at as u64))
}

/// # Safety
/// As fdatasync(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    if let Some(errno) = sync_fault(fd) {
        return fail(errno) as c_int;
    }
    // SAFETY: as the caller promises.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fdatasync(file).map_or_else(|errno| fail(errno) as c_int, |()| 0)
}

/// # Safety
/// As fsync(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if let Some(errno) = sync_fault(fd) {
        return fail(errno) as c_int;
    }
    // SAFETY: as the caller promises.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fsync(file).map_or_else(|errno| fail(errno) as c_int, |()| 0)
}

/// # Safety
/// As rename(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller gives strings that end with a zero.
    let (from, to) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
    let (old, new) = (Path::new(OsStr::from_bytes(from.to_bytes())), Path::new(OsStr::from_bytes(to.to_bytes())));
    if ARMED.load(SeqCst)
        && let Some(Some(errno)) = with_plan(new, |plan| {
            let fault = plan.fails(Kind::Rename, new, None);
            if fault.is_none() {
                plan.named(new, content(new));
                // What is under the new name is as synced as it was under the old one.
                let renamed: BTreeMap<_, _> = [(old.to_path_buf(), new.to_path_buf())].into();
                plan.unsynced.iter_mut().for_each(|file| *file = renamed.get(file).unwrap_or(file).clone());
            }
            fault
        })
    {
        return fail(errno) as c_int;
    }
    rustix::fs::rename(from, to).map_or_else(|errno| fail(errno) as c_int, |()| 0)
}

/// # Safety
/// As unlink(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller gives a string that ends with a zero.
    let name = unsafe { CStr::from_ptr(path) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    if ARMED.load(SeqCst)
        && let Some(Some(errno)) = with_plan(path, |plan| {
            let fault = plan.fails(Kind::Remove, path, None);
            if fault.is_none() {
                plan.named(path, content(path));
            }
            fault
        })
    {
        return fail(errno) as c_int;
    }
    rustix::fs::unlink(name).map_or_else(|errno| fail(errno) as c_int, |()| 0)
}
