//! What the requests of an engine may hold before they are answered. It is counted where they are submitted, on any
//! thread, under a lock of its own that is held for a few additions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::Hash;

use super::limits::Limits;
use super::preparer::Pixels;
use super::scheduler::Tokens;
use crate::error::{Error, Result};

/// The budget of an engine.
pub(super) struct Budget {
    /// See [`Limits::queue`].
    queue: usize,
    /// See [`Limits::queue_bytes`].
    queue_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Requests that were admitted and do not run.
    waiting: usize,
    /// Calls for features that are not answered.
    calls: usize,
    bytes: u64,
    /// Images, by content, and how often shares have each.
    images: HashMap<Hash, usize>,
}

/// The part of a budget that a request or a call for features has; given back when dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    calls: usize,
    bytes: u64,
    /// Its images and videos.
    pub pixels: Vec<Arc<Pixels>>,
}

impl Budget {
    pub fn new(limits: &Limits) -> Arc<Budget> {
        Arc::new(Budget { queue: limits.queue, queue_bytes: limits.queue_bytes, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that were admitted and do not run.
    pub fn waiting(&self) -> usize {
        self.held().waiting
    }

    /// Whether [`Budget::admit`] would admit a request.
    pub fn has_room(&self, prompt: &Tokens, pixels: &[Arc<Pixels>]) -> bool {
        let held = self.held();
        self.check_queue(held.waiting).and_then(|()| self.bytes_with(&held, bytes_of(prompt), pixels)).is_ok()
    }

    /// Admits a request, which waits from now on.
    ///
    /// # Errors
    /// [`Error::QueueFull`]; [`Error::Limit`] of a request that would not even fit alone.
    pub fn admit(self: &Arc<Self>, prompt: &Tokens, pixels: Vec<Arc<Pixels>>) -> Result<Share> {
        let mut held = self.held();
        self.check_queue(held.waiting)?;
        let share = self.share(&mut held, 0, bytes_of(prompt), pixels)?;
        held.waiting += 1;
        Ok(share)
    }

    /// Admits a call for features of images. As many calls may be open as requests may wait.
    ///
    /// # Errors
    /// As for [`Budget::admit`].
    pub fn admit_call(self: &Arc<Self>, pixels: Vec<Arc<Pixels>>) -> Result<Share> {
        let mut held = self.held();
        self.check_queue(held.calls)?;
        self.share(&mut held, 1, 0, pixels)
    }

    /// Of those who waited, `before` were known to the caller, and now are `after`.
    pub fn moved(&self, before: usize, after: usize) {
        let mut held = self.held();
        held.waiting = held.waiting + after - before;
    }

    fn check_queue(&self, waiting: usize) -> Result<()> {
        if waiting < self.queue {
            return Ok(());
        }
        Err(Error::queue_full("requests that wait", self.queue as u64, waiting as u64 + 1))
    }

    fn share(self: &Arc<Self>, held: &mut Held, calls: usize, bytes: u64, pixels: Vec<Arc<Pixels>>) -> Result<Share> {
        held.bytes = self.bytes_with(held, bytes, &pixels)?;
        held.calls += calls;
        pixels.iter().for_each(|pixels| *held.images.entry(pixels.content).or_default() += 1);
        Ok(Share { budget: self.clone(), calls, bytes, pixels })
    }

    /// Bytes of all requests with one more, of so many bytes besides its images: an image that others have too is there
    /// once.
    fn bytes_with(&self, held: &Held, bytes: u64, pixels: &[Arc<Pixels>]) -> Result<u64> {
        let mut images: Vec<&Arc<Pixels>> = pixels.iter().collect();
        images.sort_unstable_by_key(|pixels| *pixels.content.as_bytes());
        images.dedup_by_key(|pixels| pixels.content);
        let sum = |images: &mut dyn Iterator<Item = &&Arc<Pixels>>| images.map(|pixels| pixels.bytes()).sum::<u64>();
        let alone = bytes + sum(&mut images.iter());
        if alone > self.queue_bytes {
            return Err(Error::limit("bytes of a request", self.queue_bytes, alone));
        }
        let new = sum(&mut images.iter().filter(|pixels| !held.images.contains_key(&pixels.content)));
        let all = held.bytes + bytes + new;
        if all > self.queue_bytes {
            return Err(Error::queue_full("bytes of all requests", self.queue_bytes, all));
        }
        Ok(all)
    }
}

fn bytes_of(prompt: &Tokens) -> u64 {
    (size_of_val(&prompt.ids[..]) + size_of_val(&prompt.sees[..])) as u64
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        held.calls -= self.calls;
        held.bytes -= self.bytes;
        for pixels in &self.pixels {
            let holders = held.images.get_mut(&pixels.content).expect("its images are counted");
            *holders -= 1;
            if *holders == 0 {
                held.images.remove(&pixels.content);
                held.bytes -= pixels.bytes();
            }
        }
    }
}
