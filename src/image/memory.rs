//! What threads that prepare requests hold together of decoded images, and memory for images that may not be there.
//!
//! A request has [`FREE`] bytes of its own. One that needs more waits until it is the only such one, so that any
//! number of threads holds that many times [`FREE`] and what the limits allow one request. There is one lock, held to
//! the end of a request, so nobody waits for a thread that waits.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::NoMemory;

/// Bytes that each thread may hold beside others: two photographs of 20 million pixels.
const FREE: usize = 128 << 20;

/// From so many bytes on an allocation leaves [`SPARE`] more for all that cannot be refused: a model that is opened
/// after its prompt was read, buffers of decoders, the line that says what is wrong.
const LARGE_BYTES: usize = 1 << 20;
const SPARE: usize = 64 << 20;

static LARGE: Mutex<()> = Mutex::new(());

/// The request at hand of a thread.
#[derive(Default)]
struct Request {
    asked: usize,
    turn: Option<MutexGuard<'static, ()>>,
}

thread_local! {
    static REQUEST: RefCell<Option<Request>> = const { RefCell::new(None) };
}

/// Ends the request, also in a panic.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        REQUEST.set(None);
    }
}

/// Prepares one request on this thread, which keeps none of its images afterwards.
pub(crate) fn of_one_request<T>(work: impl FnOnce() -> T) -> T {
    REQUEST.set(Some(Request::default()));
    let _end = End;
    work()
}

/// Before so many bytes of images are allocated. Elsewhere than in [`of_one_request`] memory is the caller's matter.
pub(crate) fn ask(bytes: usize) {
    REQUEST.with_borrow_mut(|request| {
        if let Some(request) = request {
            request.asked = request.asked.saturating_add(bytes);
            if request.asked > FREE && request.turn.is_none() {
                request.turn = Some(LARGE.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    });
}

/// An empty vector with room for so many values of an image. Where the system has no memory for them it unwinds, up to
/// the next [`Error::catch`](crate::Error::catch), which makes it an error: whoever decodes or prepares stands behind
/// one.
pub(crate) fn room<T>(count: usize) -> Vec<T> {
    let bytes = count.saturating_mul(size_of::<T>());
    let mut values = Vec::new();
    let spare = if bytes < LARGE_BYTES { 0 } else { SPARE };
    match values.try_reserve_exact(count).and_then(|()| Vec::<u8>::new().try_reserve_exact(spare)) {
        Ok(()) => values,
        Err(_) => resume_unwind(Box::new(NoMemory(bytes))),
    }
}

/// As [`room`], of equal values.
pub(crate) fn filled<T: Clone>(count: usize, value: T) -> Vec<T> {
    let mut values = room(count);
    values.resize(count, value);
    values
}

/// Before code that is not ours allocates so many bytes, and cannot do without.
pub(crate) fn expect(bytes: usize) {
    ask(bytes);
    drop(room::<u8>(bytes));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::error::Error;

    #[test]
    fn one_large_request_at_a_time() {
        let (large, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let prepare = || {
            for _ in 0..20 {
                let _ = std::panic::catch_unwind(|| {
                    of_one_request(|| {
                        ask(FREE);
                        ask(1);
                        most.fetch_max(1 + large.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                        thread::yield_now();
                        large.fetch_sub(1, Ordering::SeqCst);
                        std::panic::resume_unwind(Box::new(()));
                    })
                });
                ask(usize::MAX);
            }
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(prepare);
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(filled(3, 7_u16), [7; 3]);
        let error = Error::catch("decoding a.png", || Ok(room::<u16>(usize::MAX / 4).len())).unwrap_err().to_string();
        let bytes = usize::MAX / 4 * 2;
        assert_eq!(error, format!("memory: expected {bytes} bytes more for decoding a.png, found none left"));
    }
}
