//! How much memory the present thread holds: a promise such as "never more than the longest line"
//! is only worth something if it is measured.
// An allocator cannot be written without `unsafe`; this one hands every call on as it is.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// What this thread took, less what it gave back; and the most since it was last asked.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is ending allocates, too, and is not counted any more.
    let _ending = HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: each method is the system allocator's own, with the same arguments; counting beside it
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How many bytes this thread holds.
pub fn held() -> isize {
    HELD.get()
}

/// Runs it, and says how many bytes it held at most on this thread beyond those held before.
pub fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let (before, outer) = (held(), PEAK.get());
    PEAK.set(before);
    let done = run();
    let most = PEAK.get();
    PEAK.set(outer.max(most));
    (done, usize::try_from(most - before).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_for_a_moment_counts() {
        let ((), most) = peak(|| drop(std::hint::black_box(vec![1_u8; 1_000_000])));
        assert!((1_000_000..1_100_000).contains(&most), "{most}");
        let (kept, most) = peak(|| std::hint::black_box(vec![1_u8; 10]));
        assert!(most < 1_000, "{most}");
        assert_eq!(kept.len(), 10);
    }
}
