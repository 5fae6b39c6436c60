//! The audit log: whatever is done to its files is found, and a crash at any call costs no record that was promised.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use rejoin_proto::audit::{AuditHead, AuditRecord, ChainFault, ChainWalk};
use rejoin_store::{AuditFindings, AuditLog, FileError, OsDisk, Room};
use rejoin_test_store::{Fault, Image, MemoryDisk, Random, SECTOR, Survival, edit};

/// Room for a file of some thirty records in each of eight files.
const LIMIT: u64 = 64 << 10;

fn open(dir: &Path) -> (AuditLog, AuditFindings) {
    AuditLog::open(dir.join("audit"), Arc::new(OsDisk), LIMIT).unwrap()
}

fn entry(number: u64) -> Bytes {
    Bytes::from(format!("{number:<200}"))
}

/// Appends records up to that number.
fn fill(log: &mut AuditLog, up_to: u64) {
    while log.head().last < up_to {
        let number = log.head().last + 1;
        assert_eq!(log.append(entry(number), Room::Own).unwrap(), number);
    }
}

/// All records as they are on the disk, and the first fault of a walk through them.
fn read(log: &AuditLog) -> (Vec<AuditRecord>, Option<String>) {
    let (head, mut from, mut records, mut fault) = (log.head(), Some(1), Vec::new(), None);
    let mut walk = ChainWalk::new(head.first, head.before);
    while let Some(first) = from {
        let part = log.part(first, 2_000).unwrap();
        for record in &part.records {
            fault = fault.or(walk.step(record).err().map(|fault| fault.to_string()));
        }
        fault = fault.or(part.broken.map(|why| format!("record {}: {why}", walk.next())));
        records.extend(part.records);
        from = part.next;
    }
    (records, fault.or(walk.end(&head).err().map(|fault| fault.to_string())))
}

fn fault(log: &AuditLog) -> Option<String> {
    read(log).1
}

/// The files of records, the oldest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    files.sort();
    files
}

/// The files that say where the log begins and ends.
fn heads(dir: &Path) -> [PathBuf; 2] {
    ["audit/HEAD-0", "audit/HEAD-1"].map(|head| dir.join(head))
}

/// Where the record of that number stands in a file that begins with the first one.
fn place(number: u64) -> usize {
    52 + (number as usize - 1) * RECORD
}

const RECORD: usize = 44 + 200;

#[test]
fn records_are_kept_over_restarts_and_numbered_from_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, findings) = open(dir.path());
    assert_eq!((log.head(), findings), (AuditHead::EMPTY, AuditFindings::default()));
    assert_eq!(read(&log), (Vec::new(), None));
    for end in [1, 2, 40, 41, 100] {
        fill(&mut log, end);
        let head = log.head();
        let (records, fault) = read(&log);
        assert_eq!(fault, None);
        assert_eq!(records.iter().map(|record| record.number).collect::<Vec<_>>(), (1..=end).collect::<Vec<_>>());
        assert!(records.iter().all(|record| record.entry == entry(record.number)));
        let (again, findings) = open(dir.path());
        assert_eq!((again.head(), findings), (head, AuditFindings::default()));
        log = again;
    }
    assert!(files(dir.path()).len() > 2, "it has gone on in other files");
}

#[test]
fn a_full_log_drops_its_oldest_records_and_stays_a_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    fill(&mut log, 1_000);
    let head = log.head();
    assert!(head.first > 1 && head.last == 1_000, "{head:?}");
    let (records, fault) = read(&log);
    assert_eq!((fault, records.first().unwrap().number), (None, head.first));
    let bytes: u64 = files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= LIMIT, "{bytes}");
    let kept = head.last - head.first + 1;
    assert!(kept * RECORD as u64 > LIMIT * 3 / 4, "{kept} records are kept");
    let (log, findings) = open(dir.path());
    assert_eq!((log.head(), findings), (head, AuditFindings::default()));
    // What has made room is told apart from what was removed.
    std::fs::remove_file(&files(dir.path())[0]).unwrap();
    let (_, findings) = open(dir.path());
    assert!(findings.faults[0].contains(&format!("records {} to ", head.first)), "{findings:?}");
}

#[test]
fn every_byte_that_is_altered_is_found_at_its_record_by_a_running_node_and_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    fill(&mut log, 6);
    let file = files(dir.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    for at in place(1)..place(7) {
        let number = ((at - place(1)) / RECORD) as u64 + 1;
        edit(&file, |bytes| bytes[at] ^= 0x10);
        let found = fault(&log).unwrap_or_else(|| panic!("byte {at} is not missed"));
        // A number that is altered looks as if records were missing before it, or as if it were out of place.
        let names = |text: &str| text.split(|c: char| !c.is_ascii_digit()).any(|word| word == number.to_string());
        assert!(names(&found), "byte {at} of record {number}: {found}");
        std::fs::write(&file, &whole).unwrap();
    }
    for number in 1..=6 {
        // In a copy: a start goes on behind what it finds.
        let other = tempfile::tempdir().unwrap();
        rejoin_test_store::copy(dir.path(), other.path());
        edit(&files(other.path())[0], |bytes| bytes[place(number) + 100] ^= 1);
        let (mut log, findings) = open(other.path());
        assert_eq!(findings.faults[0], ChainFault::Altered { number }.to_string());
        fill(&mut log, 8);
        assert_eq!(fault(&log), Some(ChainFault::Altered { number }.to_string()), "it stays as it is");
    }
}

#[test]
fn removed_swapped_and_cut_off_records_are_found_for_good() {
    let remove = |first: u64, end: u64| {
        move |bytes: &mut Vec<u8>| {
            bytes.drain(place(first)..place(end));
        }
    };
    let swap = |bytes: &mut Vec<u8>| {
        let (a, b) = (bytes[place(2)..place(3)].to_vec(), bytes[place(4)..place(5)].to_vec());
        bytes[place(2)..place(3)].copy_from_slice(&b);
        bytes[place(4)..place(5)].copy_from_slice(&a);
    };
    type Change<'a> = (&'a str, Box<dyn Fn(&mut Vec<u8>)>);
    let changes: [Change<'_>; 7] = [
        ("record 1 was removed", Box::new(remove(1, 2))),
        ("records 2 to 4 were removed", Box::new(remove(2, 5))),
        ("record 6 was removed", Box::new(remove(6, 7))),
        ("records 1 to 6 were removed", Box::new(remove(1, 7))),
        ("records 2 to 3 were removed", Box::new(swap)),
        ("records 4 to 6 were removed", Box::new(|bytes| bytes.truncate(place(4)))),
        ("records 4 to 6 were removed", Box::new(|bytes| bytes[place(4)..].fill(0))),
    ];
    for (expected, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        fill(&mut log, 6);
        edit(&files(dir.path())[0], |bytes| change(bytes));
        assert_eq!(fault(&log).as_deref(), Some(expected), "as it runs");
        drop(log);
        let (mut log, findings) = open(dir.path());
        assert_eq!(findings.faults[0], expected, "at the start");
        fill(&mut log, 9);
        assert_eq!(fault(&log).as_deref(), Some(expected), "after more was recorded");
        let (log, _) = open(dir.path());
        assert_eq!(fault(&log).as_deref(), Some(expected), "after another start");
    }
}

#[test]
fn a_log_that_is_written_anew_or_has_lost_its_note_is_found() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut log, _) = open(dir.path());
    fill(&mut log, 6);
    // A log with another second record, and all hashes as they must be then.
    let (mut forged, _) = open(other.path());
    fill(&mut forged, 1);
    forged.append(Bytes::from(vec![b'x'; 200]), Room::Own).unwrap();
    fill(&mut forged, 6);
    std::fs::copy(&files(other.path())[0], &files(dir.path())[0]).unwrap();
    let expected = ChainFault::Rewritten { number: 6 }.to_string();
    assert_eq!(fault(&log), Some(expected.clone()));
    drop(log);
    let (mut log, findings) = open(dir.path());
    assert_eq!(findings.faults, [expected]);
    fill(&mut log, 8);
    assert_eq!(fault(&log), Some(ChainFault::Altered { number: 7 }.to_string()), "the next one does not follow on it");

    for head in heads(other.path()) {
        std::fs::remove_file(head).unwrap();
    }
    let (log, findings) = open(other.path());
    assert!(findings.faults[0].contains("what was noted of the last record cannot be read"), "{findings:?}");
    assert_eq!((log.head().last, fault(&log)), (6, None));
}

#[test]
fn half_a_record_of_a_crash_is_cut_and_said() {
    for kept in 0..RECORD {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        fill(&mut log, 5);
        let notes = heads(dir.path()).map(|head| std::fs::read(head).unwrap());
        fill(&mut log, 6);
        drop(log);
        // Before the note and the end of the record were on the disk.
        for (head, note) in heads(dir.path()).into_iter().zip(notes) {
            std::fs::write(head, note).unwrap();
        }
        edit(&files(dir.path())[0], |bytes| bytes[place(6) + kept..].fill(0));
        let (mut log, findings) = open(dir.path());
        assert_eq!((log.head().last, findings.faults.len()), (5, 0), "{kept}: {findings:?}");
        assert_eq!(findings.cut_bytes > 0, kept > 0, "{kept}: {findings:?}");
        fill(&mut log, 9);
        assert_eq!(fault(&log), None);
    }
}

#[test]
fn a_full_disk_refuses_a_beginning_and_takes_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new(dir.path(), &Image::default());
    let (mut log, _) = AuditLog::open(dir.path().join("audit"), Arc::new(disk.clone()), LIMIT).unwrap();
    fill(&mut log, 3);
    log.append(entry(4), Room::AndEnd).unwrap();
    let full = Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) };
    disk.break_down(full);
    let before = log.head();
    for room in [Room::Own, Room::AndEnd] {
        let error: FileError = log.append(entry(5), room).unwrap_err();
        assert!(error.is_for_want_of_room(), "{error}");
        assert_eq!((log.head(), fault(&log)), (before, None), "it is as it was");
    }
    assert_eq!(log.append(entry(5), Room::Kept).unwrap(), 5);
    disk.heal();
    fill(&mut log, 8);
    assert_eq!(fault(&log), None);
}

/// What a script has promised when the disk has failed at one of its calls.
fn run(disk: &MemoryDisk, dir: &Path) -> (u64, Option<AuditHead>) {
    let mut promised = 0;
    let opened = AuditLog::open(dir.join("audit"), Arc::new(disk.clone()), 8 << 10);
    let Ok((mut log, _)) = opened else { return (promised, None) };
    for number in 1..=60 {
        let room = [Room::Own, Room::AndEnd, Room::Kept][number as usize % 3];
        match log.append(entry(number), room) {
            Ok(number) => promised = number,
            Err(_) => break,
        }
    }
    (promised, Some(log.head()))
}

#[test]
fn a_crash_at_any_call_costs_no_promised_record_and_shows_no_fault() {
    let total = {
        let dir = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::new(dir.path(), &Image::default());
        let (promised, head) = run(&disk, dir.path());
        assert!(promised == 60 && head.unwrap().first > 1, "the script has dropped files: {head:?}");
        disk.calls()
    };
    let survivals = [
        Survival::Nothing,
        Survival::Everything,
        Survival::UpToAMoment,
        Survival::Sectors(SECTOR),
        Survival::WholeChanges,
    ];
    for call in 0..total {
        let dir = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::new(dir.path(), &Image::default());
        disk.break_down(Fault { calls: call..u64::MAX, kind: ErrorKind::Other, room: None });
        let (promised, _) = run(&disk, dir.path());
        for (at, survival) in survivals.into_iter().enumerate() {
            let image = disk.machine().crash(survival, &mut Random::new(call, at as u64)).image;
            let after = MemoryDisk::new(dir.path(), &image);
            let what = format!("call {call} of {total}, {survival:?}");
            let (mut log, findings) =
                AuditLog::open(dir.path().join("audit"), Arc::new(after.clone()), 8 << 10).unwrap();
            assert!(findings.faults.is_empty(), "{what}: {findings:?}");
            let last = log.head().last;
            assert!((promised..=promised + 1).contains(&last), "{what}: {last} of {promised}");
            fill(&mut log, last + 5);
            assert_eq!(fault(&log), None, "{what}");
        }
    }
}
