//! The system's random numbers, under the seed.
//!
//! The standard library's hash maps, openraft's election dice and the product's ids all draw from
//! the C library's `getrandom`. This program has a function of that name, so the linker takes ours:
//! a thread that simulates gets its seed's numbers, any other thread the kernel's. To hand dice in
//! through every layer instead would mean a generic parameter in openraft's types, and would still
//! leave out the hash maps of other libraries.
#![allow(unsafe_code, reason = "to answer under a C name, and to fill a C buffer")]

use std::cell::Cell;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's random numbers follow from `seed`. Before anything on the thread has
/// made a hash map, or it keeps the keys it has.
pub fn seed_this_thread(seed: u64) {
    SEED.set(Some(seed));
}

/// Fills `len` bytes at `to`, as the C library's function of this name would.
///
/// # Safety
/// `to` must be valid for writes of `len` bytes.
// SAFETY: no other function of this name is linked statically; the C library's own is only found by
// those who look it up in the library itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(to: *mut u8, len: usize, _flags: u32) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    let out = unsafe { std::slice::from_raw_parts_mut(to, len) };
    match SEED.get() {
        Some(seed) => fill(seed, out),
        None => match rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty()) {
            Ok(filled) => filled as isize,
            Err(_) => -1,
        },
    }
}

fn fill(mut seed: u64, out: &mut [u8]) -> isize {
    for chunk in out.chunks_mut(8) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 32)).to_le_bytes()[..chunk.len()]);
    }
    SEED.set(Some(seed));
    out.len() as isize
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn on_a_thread(seed: Option<u64>) -> u64 {
        let draw = move || {
            if let Some(seed) = seed {
                seed_this_thread(seed);
            }
            RandomState::new().hash_one("a key")
        };
        std::thread::spawn(draw).join().expect("a hash")
    }

    #[test]
    fn hash_maps_follow_the_seed_and_only_on_threads_that_have_one() {
        assert_eq!(on_a_thread(Some(7)), on_a_thread(Some(7)));
        assert_ne!(on_a_thread(Some(7)), on_a_thread(Some(8)));
        assert_ne!(on_a_thread(None), on_a_thread(None));
    }
}
