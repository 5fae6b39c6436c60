//! A log of records that are bound to each other by hashes, so that one that is altered or removed is found. What an
//! entry says is the node's part.
//!
//! ```text
//! audit/00000000000000000001.log …   files of records, named by their first
//! audit/HEAD-0, HEAD-1               the first and the last record and their hashes, overwritten in turn
//! ```
//!
//! A record is synced, and then noted in one of the heads, before [`AuditLog::append`] returns. When the log is at its
//! limit its oldest file goes; the head says where the log begins, so that a file that is missing otherwise is found.
//! What follows the last record that was noted may be half a record of a crash and is cut. Everything else that is
//! wrong stays on the disk as it is: the node goes on in a new file behind the last record that was noted.

mod file;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use file::{FRAME, HEADER, Header, Records, encode};

use rejoin_proto::audit::{AuditHead, AuditRecord, ChainFault, ChainWalk, MAX_ENTRY_BYTES, link};

use crate::blob;
use crate::disk::{Disk, DiskFile, if_found, read_readable, replace, sync_parent};
use crate::error::{Context, FileError};

/// Into how many files a full log is divided.
const FILES: u64 = 8;
/// The room that is kept for the record of a command's end, from the record of its beginning on.
const END_BYTES: u64 = 2048;
/// The most faults that a start reports.
const MAX_FAULTS: usize = 16;
/// The files that say where the log begins and ends. The one that is being overwritten may be damaged by a crash; then
/// the other one is a single record behind.
const HEADS: [&str; 2] = ["HEAD-0", "HEAD-1"];
/// The extension of files of records.
const SUFFIX: &str = "log";
/// The bytes of an encoded head.
const HEAD_BYTES: usize = 8 + 32 + 8 + 32;

/// What a record needs room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// For itself.
    Own,
    /// For itself and for another one that will follow, [`Room::Kept`].
    AndEnd,
    /// None: an earlier record has kept room for it.
    Kept,
}

/// What was found when a log was opened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AuditFindings {
    /// The bytes of half a record that a crash had left, and that were cut.
    pub cut_bytes: u64,
    /// What is altered or missing, the first 16.
    pub faults: Vec<String>,
}

/// A part of a log, as it is on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditPart {
    /// Its records, not checked.
    pub records: Vec<AuditRecord>,
    /// Why what follows them in their file cannot be read.
    pub broken: Option<String>,
    /// The number of the first record that was not looked at; `None` at the end of the log.
    pub next: Option<u64>,
}

/// A file of the log.
#[derive(Clone, Copy, Debug)]
struct Listed {
    header: Header,
    bytes: u64,
}

/// An open audit log.
pub struct AuditLog {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    limit_bytes: u64,
    files: VecDeque<Listed>,
    current: Arc<dyn DiskFile>,
    /// Where the next record goes in `current`.
    end: u64,
    head: AuditHead,
    /// Which of the [`HEADS`] has `head`.
    noted_in: usize,
    /// Records that have kept room for another one.
    open: u64,
}

impl AuditLog {
    /// Opens the log in a directory, or makes one. It takes `limit_bytes`, and what is kept for commands under way.
    ///
    /// # Errors
    /// [`FileError`] if the disk refuses. Damage is no error: see [`AuditFindings`].
    pub fn open(dir: PathBuf, disk: Arc<dyn Disk>, limit_bytes: u64) -> Result<(Self, AuditFindings), FileError> {
        disk.create_dir(&dir).context("create", &dir)?;
        sync_parent(disk.as_ref(), &dir)?;
        let heads = [read_head(disk.as_ref(), &dir.join(HEADS[0]))?, read_head(disk.as_ref(), &dir.join(HEADS[1]))?];
        let kept = heads.into_iter().flatten().max_by_key(|head| (head.last, head.first));
        let mut found = Found::read(&dir, disk.as_ref(), kept)?;
        if kept.is_none() && !found.files.is_empty() {
            found.fault("what was noted of the last record cannot be read, so the end of the log may be cut off");
        }
        let walked = found.walk.unwrap_or(ChainWalk::new(1, [0; 32]));
        let of_files = || {
            let first = found.files.front().map_or(AuditHead::EMPTY.first, |file| file.header.first);
            let before = found.files.front().map_or(AuditHead::EMPTY.before, |file| file.header.before);
            AuditHead { first, before, last: walked.next().saturating_sub(1), hash: walked.hash() }
        };
        let mut head = kept.unwrap_or_else(of_files);
        if kept.is_some() && walked.next() <= head.last {
            found.fault(ChainFault::Removed { first: walked.next(), last: head.last });
        }
        let goes_on = !found.is_rewritten && walked.next() > head.last;
        if goes_on {
            (head.last, head.hash) = (walked.next() - 1, walked.hash());
        }
        // Before the first file: one without a head is a fault. What is not damaged is overwritten by the next record.
        for (name, _) in HEADS.into_iter().zip(heads).filter(|(_, there)| there.is_none()) {
            blob::write(disk.as_ref(), &dir.join(name), &encode_head(&head))?;
        }
        let noted_in = usize::from(heads[0].is_some() && heads[0] != kept);
        let Found { mut files, last, findings, .. } = found;
        let (current, end) = match last.filter(|_| goes_on) {
            Some(last) => last,
            None => {
                let header = Header { first: head.last + 1, before: head.hash };
                files.push_back(Listed { header, bytes: HEADER as u64 });
                (new_file(disk.as_ref(), &dir, header)?, HEADER as u64)
            }
        };
        Ok((Self { dir, disk, limit_bytes, files, current, end, head, noted_in, open: 0 }, findings))
    }

    /// Between which records the log lies.
    #[must_use]
    pub fn head(&self) -> AuditHead {
        self.head
    }

    /// Durably appends a record, and returns its number. Of two with [`Room::AndEnd`] and [`Room::Kept`] the second one
    /// finds room also on a disk that is full by then.
    ///
    /// # Errors
    /// [`FileError`]; the record does not count then. With one [for want of room](FileError::is_for_want_of_room) the
    /// log is as it was and may be used again, after every other one it must not.
    pub fn append(&mut self, entry: Bytes, room: Room) -> Result<u64, FileError> {
        let path = || file_path(&self.dir, self.files.back().map_or(0, |file| file.header.first));
        if entry.is_empty() || entry.len() > MAX_ENTRY_BYTES {
            return Err(FileError::io("append to", &path(), io::ErrorKind::InvalidInput.into()));
        }
        let bytes = (FRAME + entry.len()) as u64;
        if room != Room::Kept && self.end > HEADER as u64 && self.end + bytes > self.limit_bytes / FILES {
            self.begin_file()?;
        }
        let path = file_path(&self.dir, self.files.back().map_or(0, |file| file.header.first));
        let open = match room {
            Room::Own => self.open,
            Room::AndEnd => self.open + 1,
            Room::Kept => self.open.saturating_sub(1),
        };
        self.current.preallocate(self.end + bytes + open * END_BYTES).context("reserve room in", &path)?;
        let number = self.head.last + 1;
        let record = AuditRecord { number, hash: link(&self.head.hash, number, &entry), entry };
        self.current.write_at(&encode(&record), self.end).context("append to", &path)?;
        self.current.sync_data().context("sync", &path)?;
        let head = AuditHead { last: number, hash: record.hash, ..self.head };
        self.note(head)?;
        (self.end, self.open) = (self.end + bytes, open);
        if let Some(file) = self.files.back_mut() {
            file.bytes = self.end;
        }
        Ok(number)
    }

    /// A part of the log from the record of that number on, read from the disk: up to `most_bytes` of one file, and one
    /// record more.
    ///
    /// # Errors
    /// [`FileError`] if the disk refuses. What it cannot read for damage is told in the part.
    pub fn part(&self, from: u64, most_bytes: usize) -> Result<AuditPart, FileError> {
        let at = self.files.iter().rposition(|file| file.header.first <= from).unwrap_or(0);
        let following = self.files.get(at + 1).map(|file| file.header.first);
        let mut part = AuditPart { records: Vec::new(), broken: None, next: following };
        let path = file_path(&self.dir, self.files.get(at).map_or(0, |file| file.header.first));
        let Some(file) = if_found(self.disk.open(&path)).context("open", &path)? else {
            part.broken = Some(format!("{} is gone", path.display()));
            return Ok(part);
        };
        let (bytes, _) = read_readable(file.as_ref()).context("read", &path)?;
        if Header::decode(&bytes).is_none() {
            part.broken = Some(format!("{} does not begin as a file of the audit log", path.display()));
            return Ok(part);
        }
        let (mut records, mut taken) = (Records::new(&bytes), 0);
        for record in records.by_ref().skip_while(|record| record.number < from) {
            if taken > most_bytes {
                part.next = Some(record.number.max(from + 1));
                return Ok(part);
            }
            taken += FRAME + record.entry.len();
            part.records.push(record);
        }
        part.broken = records.broken().map(|why| format!("{}: {why}", path.display()));
        Ok(part)
    }

    /// Notes where the log begins and ends. It takes no room.
    fn note(&mut self, head: AuditHead) -> Result<(), FileError> {
        let at = (self.noted_in + 1) % HEADS.len();
        blob::overwrite(self.disk.as_ref(), &self.dir.join(HEADS[at]), &encode_head(&head))?;
        (self.head, self.noted_in) = (head, at);
        Ok(())
    }

    /// Begins another file, and removes the oldest ones if the log is at its limit.
    fn begin_file(&mut self) -> Result<(), FileError> {
        let header = Header { first: self.head.last + 1, before: self.head.hash };
        let file = new_file(self.disk.as_ref(), &self.dir, header)?;
        // Room that was kept and not used. A failure only leaves it there.
        let _ = self.current.set_length(self.end);
        (self.current, self.end) = (file, HEADER as u64);
        self.files.push_back(Listed { header, bytes: self.end });
        let bytes = |files: &VecDeque<Listed>| files.iter().map(|file| file.bytes).sum::<u64>();
        while self.files.len() > 2 && bytes(&self.files) > self.limit_bytes - self.limit_bytes / FILES {
            let (Some(oldest), Some(next)) = (self.files.front().copied(), self.files.get(1).copied()) else { break };
            // First noted, then removed: a file that is missing although it was not noted is a fault.
            self.note(AuditHead { first: next.header.first, before: next.header.before, ..self.head })?;
            let path = file_path(&self.dir, oldest.header.first);
            if_found(self.disk.remove(&path)).context("remove", &path)?;
            self.files.pop_front();
        }
        self.disk.sync_dir(&self.dir).context("sync", &self.dir)
    }
}

/// What a start has read of a log.
struct Found {
    files: VecDeque<Listed>,
    /// Behind the last record; `None` without a file.
    walk: Option<ChainWalk>,
    /// The last record that was noted has another hash.
    is_rewritten: bool,
    /// The last file, if more may be appended to it, and where.
    last: Option<(Arc<dyn DiskFile>, u64)>,
    findings: AuditFindings,
}

impl Found {
    fn read(dir: &Path, disk: &dyn Disk, kept: Option<AuditHead>) -> Result<Self, FileError> {
        let names = disk.list(dir).context("list", dir)?;
        for name in names.iter().filter(|name| name.ends_with(".new")) {
            // Of a crash; it takes room only.
            let _ = disk.remove(&dir.join(name));
        }
        let mut firsts: Vec<u64> =
            names.iter().filter_map(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok()).collect();
        firsts.retain(|first| *first > 0);
        firsts.sort_unstable();
        let walk = kept.map(|head| ChainWalk::new(head.first, head.before));
        let findings = AuditFindings::default();
        let mut found = Self { files: VecDeque::new(), walk, is_rewritten: false, last: None, findings };
        for (at, first) in firsts.iter().enumerate() {
            let following = firsts.get(at + 1);
            if kept.is_some_and(|head| following.is_some_and(|following| *following <= head.first)) {
                // It had made room already when a crash came.
                disk.remove(&file_path(dir, *first)).context("remove", dir)?;
                continue;
            }
            found.read_file((disk, file_path(dir, *first)), *first, kept, following.is_none())?;
        }
        Ok(found)
    }

    fn read_file(
        &mut self,
        (disk, path): (&dyn Disk, PathBuf),
        first: u64,
        kept: Option<AuditHead>,
        is_last: bool,
    ) -> Result<(), FileError> {
        let file = disk.open(&path).context("open", &path)?;
        let (bytes, _) = read_readable(file.as_ref()).context("read", &path)?;
        let Some(header) = Header::decode(&bytes).filter(|header| header.first == first) else {
            self.fault(format!("{} does not begin as a file of the audit log", path.display()));
            return Ok(());
        };
        let mut walk = self.walk.unwrap_or(ChainWalk::new(header.first, header.before));
        // Only what follows the last record that was noted may be half a record. Without a note nothing is cut.
        let may_be_torn = |walk: &ChainWalk| is_last && kept.is_some_and(|head| walk.next() > head.last);
        let (mut records, mut end, mut is_torn) = (Records::new(&bytes), HEADER, false);
        while let Some(record) = records.next() {
            let before = walk;
            if let Err(fault) = walk.step(&record) {
                if may_be_torn(&before) {
                    (walk, is_torn) = (before, true);
                    break;
                }
                self.fault(fault);
            }
            if kept.is_some_and(|head| record.number == head.last && record.hash != head.hash) {
                self.is_rewritten = true;
                self.fault(ChainFault::Rewritten { number: record.number });
            }
            end = records.at();
        }
        let broken = records.broken();
        is_torn |= broken.is_some() && may_be_torn(&walk);
        if let Some(why) = broken.filter(|_| !is_torn) {
            self.fault(format!("record {}: {why}", walk.next()));
        }
        if is_torn {
            self.findings.cut_bytes = used(&bytes[end..]);
            file.set_length(end as u64).context("cut", &path)?;
            file.sync_data().context("sync", &path)?;
        }
        self.walk = Some(walk);
        self.files.push_back(Listed { header, bytes: end as u64 });
        if is_last && (broken.is_none() || is_torn) {
            self.last = Some((file, end as u64));
        }
        Ok(())
    }

    fn fault(&mut self, fault: impl ToString) {
        if self.findings.faults.len() < MAX_FAULTS {
            self.findings.faults.push(fault.to_string());
        }
    }
}

/// The bytes up to the last one that is not zero.
fn used(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn file_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.{SUFFIX}"))
}

fn new_file(disk: &dyn Disk, dir: &Path, header: Header) -> Result<Arc<dyn DiskFile>, FileError> {
    let path = file_path(dir, header.first);
    replace(disk, &path, &path.with_extension("new"), |file| file.write_at(&header.encode(), 0))
}

/// Always of the same length, so that it can be overwritten.
fn encode_head(head: &AuditHead) -> Vec<u8> {
    [&head.first.to_le_bytes()[..], &head.before, &head.last.to_le_bytes(), &head.hash].concat()
}

/// `None` if there is none, or if it is damaged.
fn read_head(disk: &dyn Disk, path: &Path) -> Result<Option<AuditHead>, FileError> {
    match blob::read(disk, path) {
        Ok(content) => Ok(content.and_then(|content| decode_head(&content))),
        Err(error) if error.cause().is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode_head(bytes: &[u8]) -> Option<AuditHead> {
    let bytes: &[u8; HEAD_BYTES] = bytes.try_into().ok()?;
    let (first, rest) = bytes.split_at(8);
    let (before, rest) = rest.split_at(32);
    let (last, hash) = rest.split_at(8);
    Some(AuditHead {
        first: u64::from_le_bytes(first.try_into().ok()?),
        before: before.try_into().ok()?,
        last: u64::from_le_bytes(last.try_into().ok()?),
        hash: hash.try_into().ok()?,
    })
}
