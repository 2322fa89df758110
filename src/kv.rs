//! Pages of keys and values: who holds which. Integers only, no device in sight.
//!
//! A text page holds a fixed number of consecutive tokens of a sequence, a media page one picture. Sequences that fork
//! (beam search) share pages; a sequence that writes into a shared page gets a copy first.

use crate::error::{Error, Result};

/// Tokens of one text page.
pub const PAGE_TOKENS: usize = 16;

/// A fixed number of pages, each held by nobody or by a count of holders.
#[derive(Debug)]
pub struct PagePool {
    what: &'static str,
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl PagePool {
    /// `count` free pages; `what` they hold, in the plural, is named when they run out.
    pub fn new(what: &'static str, count: usize) -> Self {
        let last = u32::try_from(count).expect("page numbers fit 32 bits");
        PagePool { what, holders: vec![0; count], free: (0..last).rev().collect() }
    }

    /// Takes a free page, held once.
    ///
    /// # Errors
    /// [`Error::Limit`] when all pages are held.
    pub fn take(&mut self) -> Result<u32> {
        let total = self.holders.len() as u64;
        let page = self.free.pop().ok_or_else(|| Error::limit(format!("pages of {}", self.what), total, total + 1))?;
        self.holders[page as usize] = 1;
        Ok(page)
    }

    /// One more holder.
    pub fn share(&mut self, page: u32) {
        assert!(self.holders[page as usize] > 0, "only a held page can be shared");
        self.holders[page as usize] += 1;
    }

    /// One holder less; the last one frees the page.
    pub fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        assert!(*holders > 0, "a page is released once by each holder");
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
    }

    /// Whether more than one holds the page.
    pub fn is_shared(&self, page: u32) -> bool {
        self.holders[page as usize] > 1
    }

    /// Pages nobody holds.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.free.len()
    }
}

/// A page to be copied before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCopy {
    /// The shared page.
    pub from: u32,
    /// The writer's own.
    pub to: u32,
}

/// The text pages of one sequence, in order.
#[derive(Debug, Default)]
pub struct PageTable {
    pages: Vec<u32>,
    length: usize,
}

impl PageTable {
    /// The pages.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Tokens in them.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Makes room for `count` more tokens; returns the page that must be copied before they are written, if any.
    ///
    /// # Errors
    /// [`Error::Limit`] when the pool runs out; the table is then as it was.
    pub fn extend(&mut self, pool: &mut PagePool, count: usize) -> Result<Option<PageCopy>> {
        let wanted = (self.length + count).div_ceil(PAGE_TOKENS);
        let last = self.pages.last().copied();
        let partly_full = !self.length.is_multiple_of(PAGE_TOKENS);
        let shared = last.filter(|&page| count > 0 && partly_full && pool.is_shared(page));
        let needed = wanted - self.pages.len() + usize::from(shared.is_some());
        let mut taken = Vec::with_capacity(needed);
        while taken.len() < needed {
            match pool.take() {
                Ok(page) => taken.push(page),
                Err(error) => {
                    taken.into_iter().for_each(|page| pool.release(page));
                    return Err(error);
                }
            }
        }
        let copy = shared.and_then(|from| {
            let to = taken.pop()?;
            pool.release(from);
            *self.pages.last_mut()? = to;
            Some(PageCopy { from, to })
        });
        self.pages.extend(taken);
        self.length += count;
        Ok(copy)
    }

    /// A second sequence with the same past.
    pub fn fork(&self, pool: &mut PagePool) -> PageTable {
        self.pages.iter().for_each(|&page| pool.share(page));
        PageTable { pages: self.pages.clone(), length: self.length }
    }

    /// Gives all pages back.
    pub fn clear(&mut self, pool: &mut PagePool) {
        self.pages.drain(..).for_each(|page| pool.release(page));
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_copies_the_page_it_writes_and_no_other() {
        let mut pool = PagePool::new("text", 4);
        let mut parent = PageTable::default();
        assert_eq!(parent.extend(&mut pool, PAGE_TOKENS + 3).unwrap(), None);
        let mut child = parent.fork(&mut pool);
        let copy = child.extend(&mut pool, 1).unwrap().unwrap();
        assert_eq!(copy.from, parent.pages()[1]);
        assert_eq!(child.pages(), [parent.pages()[0], copy.to]);
        // The parent's page is its own again.
        assert_eq!(parent.extend(&mut pool, 1).unwrap(), None);
        parent.clear(&mut pool);
        child.clear(&mut pool);
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn running_out_changes_nothing() {
        let mut pool = PagePool::new("text", 2);
        let mut table = PageTable::default();
        table.extend(&mut pool, PAGE_TOKENS).unwrap();
        let error = table.extend(&mut pool, 2 * PAGE_TOKENS).unwrap_err().to_string();
        assert_eq!(error, "pages of text: 3 is over the limit of 2");
        assert_eq!((table.length(), pool.available()), (PAGE_TOKENS, 1));
    }

    #[test]
    fn full_pages_are_shared_without_a_copy() {
        let mut pool = PagePool::new("text", 3);
        let mut parent = PageTable::default();
        parent.extend(&mut pool, PAGE_TOKENS).unwrap();
        let mut child = parent.fork(&mut pool);
        assert_eq!(child.extend(&mut pool, 1).unwrap(), None);
        assert_eq!(child.pages()[0], parent.pages()[0]);
    }
}
