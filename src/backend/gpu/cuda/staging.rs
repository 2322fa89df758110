//! Pinned memory of the host through which everything goes to and from the device: a few buffers in turn, so that the
//! next is filled while the device copies from the last.

use std::sync::Arc;

use super::context::{Context, Event, Pinned, Stream};
use crate::error::Result;

/// Buffers: one being filled, one being copied, one to spare.
const BUFFERS: usize = 3;

/// Where a piece of a buffer begins.
const ALIGNMENT: usize = 64;

struct Buffer {
    memory: Pinned,
    /// Passes when the copies of its last turn are done.
    done: Event,
}

/// The buffers.
pub struct Staging {
    buffers: Vec<Buffer>,
    /// Whose turn it is.
    current: usize,
    /// Bytes of the current buffer that copies may be using.
    used: usize,
    bytes: usize,
}

impl Staging {
    pub fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Staging> {
        let buffer = |_| Ok(Buffer { memory: Pinned::allocate(context, bytes)?, done: Event::create(context, false)? });
        let buffers = (0..BUFFERS).map(buffer).collect::<Result<_>>()?;
        Ok(Staging { buffers, current: 0, used: 0, bytes })
    }

    /// Bytes of one buffer.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that no copy uses, until [`Staging::keep`] says that copies on `stream` do.
    pub fn free(&mut self, stream: &Stream, bytes: usize) -> Result<&mut [u8]> {
        assert!(bytes <= self.bytes, "more than a buffer");
        if self.used + bytes > self.bytes {
            self.buffers[self.current].done.record(stream)?;
            let next = (self.current + 1) % BUFFERS;
            self.buffers[next].done.wait()?;
            (self.current, self.used) = (next, 0);
        }
        let used = self.used;
        Ok(&mut self.buffers[self.current].memory.bytes()[used..used + bytes])
    }

    /// The first bytes of the memory last given are used by copies from now on.
    pub fn keep(&mut self, bytes: usize) {
        self.used = (self.used + bytes).next_multiple_of(ALIGNMENT).min(self.bytes);
    }

    /// The stream has been waited for: no copy uses anything.
    pub fn all_done(&mut self) {
        self.used = 0;
    }
}
