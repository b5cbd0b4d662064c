//! One read buffer per thread.
//!
//! Ten thousand silent streams would hold ten thousand read buffers if each kept its own. A read
//! happens within one poll, so the thread's threads of work can share one: read into it, use or
//! copy what came, give it back. 64 KiB: a socket seldom holds more, and it fits the L2 cache.

use std::cell::RefCell;

const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Runs `work` with this thread's scratch buffer. Within `work` the buffer is taken: a nested call
/// gets a fresh one, which is correct but slow.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|cell| match cell.try_borrow_mut() {
        Ok(mut buffer) => work(&mut buffer),
        Err(_) => work(&mut vec![0; SCRATCH_BYTES]),
    })
}
