//! Measures the memory that the current thread allocates.
//!
//! `unsafe`: counting allocations takes a global allocator, whose trait is unsafe. It forwards to the system's and adds
//! numbers.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread holds, and the most it has held since it was last asked. Freed elsewhere they count as
    /// held: never too few.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system allocator unchanged; the counters do not touch what it returns, and are no
// allocation themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = HELD.try_with(|held| {
            let (now, peak) = held.get();
            let now = now.wrapping_add(layout.size());
            held.set((now, peak.max(now)));
        });
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| {
            let (now, peak) = held.get();
            held.set((now.saturating_sub(layout.size()), peak));
        });
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs something on this thread and says how many bytes it held at most beyond what was held before.
pub(crate) fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = run();
    let peak = HELD.with(|held| held.get().1);
    (result, peak.saturating_sub(before))
}

#[test]
fn the_most_that_was_held_is_what_counts() {
    let (kept, peak_of_two) = peak(|| {
        drop(vec![0u8; 100_000]);
        vec![0u8; 10_000]
    });
    assert!((100_000..101_000).contains(&peak_of_two), "{peak_of_two}");
    let (_, nothing) = peak(|| drop(kept));
    assert_eq!(nothing, 0);
}
