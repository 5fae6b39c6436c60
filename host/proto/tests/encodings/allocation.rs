//! Decoding never allocates more than a small multiple of its input: false lengths cost nothing.
//!
//! `unsafe`: counting allocations needs a global allocator, whose trait is unsafe. It forwards to the system's and
//! counts.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;

use rejoin_proto::client::{ClientHello, HelloReply, ReplyEnvelope, Request};
use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{PeerEnvelope, PeerHello, PeerReady};
use rejoin_proto::{Layout, Object, catalog::Record};

use crate::support;

thread_local! {
    // For this thread only: the test harness allocates on others. Neither has a destructor, so that the allocator may
    // use them at any time.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts an allocation or deallocation of this thread, in bytes.
fn count(bytes: isize) {
    NOW.set(NOW.get() + bytes);
    PEAK.set(PEAK.get().max(NOW.get()));
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system allocator unchanged; the counters do not touch what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        count(memory.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        count(-memory.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, memory) }
    }
}

/// Bytes of memory per byte of input: the largest element of a sequence, and room to grow it.
const FACTOR: usize = 1024;
/// Bytes of memory whatever the input.
const BASE: usize = 4096;

fn bounded<T: Versioned>(bytes: &[u8]) {
    let before = NOW.get();
    PEAK.set(before);
    drop(codec::decode::<T>(bytes));
    let taken = PEAK.get() - before;
    let most = (FACTOR * bytes.len() + BASE).cast_signed();
    assert!(taken <= most, "{}: {} bytes made decoding take {taken}, at most {most} allowed", T::WHAT, bytes.len());
    assert_eq!(NOW.get(), before, "{}: what was decoded is freed", T::WHAT);
}

fn bounded_all(bytes: &[u8]) {
    bounded::<Object>(bytes);
    bounded::<Record>(bytes);
    bounded::<Layout>(bytes);
    bounded::<ClientHello>(bytes);
    bounded::<HelloReply>(bytes);
    bounded::<Request>(bytes);
    bounded::<ReplyEnvelope>(bytes);
    bounded::<PeerHello>(bytes);
    bounded::<PeerReady>(bytes);
    bounded::<PeerEnvelope>(bytes);
}

#[test]
fn memory_is_bounded_by_what_was_sent() {
    // A claim of 2^56 elements or bytes, at every place of every message, with little and with much behind it.
    let claim = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    for sample in support::samples() {
        for at in 1..=sample.bytes.len() {
            let mut lie = sample.bytes[..at].to_vec();
            lie.extend_from_slice(&claim);
            bounded_all(&lie);
            lie.extend_from_slice(&[1; 300]);
            bounded_all(&lie);
        }
    }
    // As many elements as there are bytes left, each as small as can be.
    for filler in 0..=3 {
        for length in [10usize, 100, 1000, 20_000] {
            let count = [0x80 | (length & 0x7f) as u8, 0x80 | (length >> 7 & 0x7f) as u8, (length >> 14) as u8];
            for tags in [&[][..], &[0], &[0, 0], &[0, 0, 0, 11], &[0, 0, 0, 12, 0], &[1, 0, 0, 0, 0, 0], &[0, 0, 0, 4]]
            {
                let mut bytes = vec![1];
                bytes.extend_from_slice(tags);
                bytes.extend_from_slice(&count);
                bytes.resize(bytes.len() + length, filler);
                bounded_all(&bytes);
            }
        }
    }
}

#[test]
fn a_token_that_is_too_long_is_refused_unread() {
    let (key, id) = (ContextKey::derive(1, b"secret"), support::object_id());
    let token = vec![1; 1 << 20];
    let before = NOW.get();
    PEAK.set(before);
    assert!(key.open(&id, &token).is_err());
    assert!(PEAK.get() - before < 4096, "{} bytes", PEAK.get() - before);
}
