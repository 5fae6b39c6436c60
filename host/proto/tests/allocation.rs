//! Decoding never takes more memory than a small multiple of what was sent: a length that is a lie costs nothing.
//!
//! `unsafe`: counting allocations takes a global allocator, whose trait is unsafe. It forwards to the system's and adds numbers.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rejoin_proto::client::{Answer, ClientHello, HelloReply, Request};
use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{PeerEnvelope, PeerHello};
use rejoin_proto::{Layout, Object, catalog::Record};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system allocator unchanged; the counters do not touch what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        let now = NOW.fetch_add(memory.size(), SeqCst) + memory.size();
        PEAK.fetch_max(now, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        NOW.fetch_sub(memory.size(), SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, memory) }
    }
}

/// Bytes of memory per byte of input: the largest element of a sequence, and room to grow it.
const FACTOR: usize = 1024;
/// Bytes of memory whatever the input.
const BASE: usize = 4096;

fn bounded<T: Versioned>(bytes: &[u8]) {
    let before = NOW.load(SeqCst);
    PEAK.store(before, SeqCst);
    drop(codec::decode::<T>(bytes));
    let taken = PEAK.load(SeqCst).saturating_sub(before);
    let most = FACTOR * bytes.len() + BASE;
    assert!(taken <= most, "{}: {} bytes made decoding take {taken}, at most {most} allowed", T::WHAT, bytes.len());
    assert_eq!(NOW.load(SeqCst), before, "{}: what was decoded is freed", T::WHAT);
}

fn bounded_all(bytes: &[u8]) {
    bounded::<Object>(bytes);
    bounded::<Record>(bytes);
    bounded::<Layout>(bytes);
    bounded::<ClientHello>(bytes);
    bounded::<HelloReply>(bytes);
    bounded::<Request>(bytes);
    bounded::<Answer>(bytes);
    bounded::<PeerHello>(bytes);
    bounded::<PeerEnvelope>(bytes);
}

/// One test, so that no other one allocates beside it.
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
            for tags in [&[][..], &[0], &[0, 0], &[0, 0, 0, 11], &[0, 0, 0, 12, 0], &[1, 0, 0, 0, 0, 0], &[0, 0, 0, 4]] {
                let mut bytes = vec![1];
                bytes.extend_from_slice(tags);
                bytes.extend_from_slice(&count);
                bytes.resize(bytes.len() + length, filler);
                bounded_all(&bytes);
            }
        }
    }
    opened_contexts_are_bounded();
}

fn opened_contexts_are_bounded() {
    let (key, id) = (ContextKey::derive(1, b"secret"), support::object_id());
    let token = vec![1; 1 << 20];
    let before = NOW.load(SeqCst);
    PEAK.store(before, SeqCst);
    assert!(key.open(&id, &token).is_err());
    assert!(PEAK.load(SeqCst) - before < 4096, "a token that is too long is refused unread");
}
