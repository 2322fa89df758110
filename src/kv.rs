//! Pages of keys and values: who holds which, and what is in them. Integers only, no device in sight.
//!
//! A text page holds a fixed number of consecutive tokens of a sequence, a media page one image. Sequences that fork
//! share pages; a sequence that writes into a shared page gets a copy first. A page whose content has a hash stays
//! findable after its last holder has gone, until its room is needed: the least recently used goes first.

use std::collections::HashMap;

use blake3::Hash;

/// Tokens of one text page.
pub const PAGE_TOKENS: usize = 16;

/// Rows of one media page: keys and values of an image. An image has as many pages as its rows fill.
pub const MEDIA_PAGE_ROWS: usize = 64;

/// No page.
const NONE: u32 = u32::MAX;

/// A fixed number of pages. Each is held by some, or kept for its content, or free. Nothing is allocated after `new`.
#[derive(Debug)]
pub struct PagePool {
    pages: Vec<Page>,
    free: Vec<u32>,
    hashed: HashMap<Hash, u32>,
    /// Kept pages, in a ring through their neighbours: the one after `oldest` was used after it.
    oldest: u32,
    newest: u32,
    cached: usize,
}

#[derive(Debug, Clone, Copy)]
struct Page {
    holders: u32,
    hash: Option<Hash>,
    /// Whether its content is known to be finite.
    confirmed: bool,
    /// Neighbours among the kept pages.
    older: u32,
    newer: u32,
}

impl PagePool {
    /// `count` free pages.
    pub fn new(count: usize) -> Self {
        let last = u32::try_from(count).ok().filter(|&count| count < NONE).expect("page numbers fit 32 bits");
        PagePool {
            pages: vec![Page { holders: 0, hash: None, confirmed: false, older: NONE, newer: NONE }; count],
            free: (0..last).rev().collect(),
            // Twice the room: a map that is at most half full rehashes in place.
            hashed: HashMap::with_capacity(2 * count + 2),
            oldest: NONE,
            newest: NONE,
            cached: 0,
        }
    }

    /// Takes a page that nobody holds, held once from now on; none if all are held. The content of a kept page is lost.
    pub fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None if self.oldest == NONE => return None,
            None => {
                let page = self.oldest;
                self.unlink(page);
                self.clear_hash(page);
                page
            }
        };
        let entry = &mut self.pages[page as usize];
        (entry.holders, entry.confirmed) = (1, false);
        Some(page)
    }

    /// One more holder.
    pub fn share(&mut self, page: u32) {
        assert!(self.pages[page as usize].holders > 0, "only a held page can be shared");
        self.pages[page as usize].holders += 1;
    }

    /// One holder less. The last one leaves a page kept if it has a hash, else free.
    pub fn release(&mut self, page: u32) {
        let entry = &mut self.pages[page as usize];
        assert!(entry.holders > 0, "a page is released once by each holder");
        entry.holders -= 1;
        if entry.holders == 0 {
            match entry.hash {
                Some(_) => self.link(page),
                None => self.free.push(page),
            }
        }
    }

    /// Gives a held page a hash by which its content is found. If another page has that hash already, it stays so.
    pub fn set_hash(&mut self, page: u32, hash: Hash) {
        let entry = &mut self.pages[page as usize];
        assert!(entry.holders > 0 && entry.hash.is_none(), "a held page is named once");
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.hashed.entry(hash) {
            vacant.insert(page);
            entry.hash = Some(hash);
        }
    }

    /// The page of that hash, with one more holder.
    pub fn lookup(&mut self, hash: &Hash) -> Option<u32> {
        let page = *self.hashed.get(hash)?;
        if self.pages[page as usize].holders == 0 {
            self.unlink(page);
        }
        self.pages[page as usize].holders += 1;
        Some(page)
    }

    /// Whether there is a page of that hash.
    pub fn has(&self, hash: &Hash) -> bool {
        self.hashed.contains_key(hash)
    }

    /// Whether a page of that hash is held by somebody.
    pub fn is_held(&self, hash: &Hash) -> bool {
        self.hashed.get(hash).is_some_and(|&page| self.pages[page as usize].holders > 0)
    }

    /// Takes a page's name away: its content is not what it was to be.
    pub fn evict(&mut self, page: u32) {
        if self.pages[page as usize].hash.is_none() {
            return;
        }
        self.clear_hash(page);
        if self.pages[page as usize].holders == 0 {
            self.unlink(page);
            self.free.push(page);
        }
    }

    /// A held page's content has proved to be finite; whether it had before.
    pub fn confirm(&mut self, page: u32) -> bool {
        assert!(self.pages[page as usize].holders > 0, "a held page is confirmed");
        std::mem::replace(&mut self.pages[page as usize].confirmed, true)
    }

    /// Whether there is a page of that hash whose content has proved to be finite.
    pub fn is_confirmed(&self, hash: &Hash) -> bool {
        self.hashed.get(hash).is_some_and(|&page| self.pages[page as usize].confirmed)
    }

    /// Takes a hash away from the page that has it, unless that is confirmed.
    pub fn withdraw(&mut self, hash: &Hash) {
        match self.hashed.get(hash) {
            Some(&page) if !self.pages[page as usize].confirmed => self.evict(page),
            _ => {}
        }
    }

    /// Whether more than one holds the page.
    pub fn is_shared(&self, page: u32) -> bool {
        self.pages[page as usize].holders > 1
    }

    /// Pages that can be taken: free ones and kept ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.cached
    }

    /// Pages that nobody holds and that are kept for their content.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// All pages.
    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Asserts that every page is counted once: held, kept or free.
    #[cfg(test)]
    pub fn check(&self) {
        let held = self.pages.iter().filter(|page| page.holders > 0).count();
        assert_eq!(held + self.cached + self.free.len(), self.pages.len());
        let mut seen = 0;
        let mut page = self.oldest;
        while page != NONE {
            let entry = &self.pages[page as usize];
            assert!(entry.holders == 0 && entry.hash.is_some_and(|hash| self.hashed[&hash] == page));
            assert!(if entry.newer == NONE { self.newest == page } else { true });
            (page, seen) = (entry.newer, seen + 1);
        }
        assert_eq!(seen, self.cached);
        assert!(self.free.iter().all(|&page| {
            let entry = &self.pages[page as usize];
            entry.holders == 0 && entry.hash.is_none()
        }));
        assert_eq!(self.hashed.len(), self.pages.iter().filter(|page| page.hash.is_some()).count());
    }

    fn clear_hash(&mut self, page: u32) {
        if let Some(hash) = self.pages[page as usize].hash.take() {
            self.hashed.remove(&hash);
        }
    }

    /// Adds a page to the kept ones, as the one used last.
    fn link(&mut self, page: u32) {
        let newest = std::mem::replace(&mut self.newest, page);
        let entry = &mut self.pages[page as usize];
        (entry.older, entry.newer) = (newest, NONE);
        match newest {
            NONE => self.oldest = page,
            newest => self.pages[newest as usize].newer = page,
        }
        self.cached += 1;
    }

    /// Takes a page out of the kept ones.
    fn unlink(&mut self, page: u32) {
        let Page { older, newer, .. } = self.pages[page as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.pages[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.pages[newer as usize].older = older,
        }
        self.cached -= 1;
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
    /// An empty table that takes no more memory up to so many tokens.
    pub fn with_room(tokens: usize) -> Self {
        PageTable { pages: Vec::with_capacity(tokens.div_ceil(PAGE_TOKENS)), length: 0 }
    }

    /// The pages.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Tokens in them.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether the next token begins a page.
    pub fn is_aligned(&self) -> bool {
        self.length.is_multiple_of(PAGE_TOKENS)
    }

    /// Most further tokens for which `available` pages are enough.
    pub fn room(&self, pool: &PagePool) -> usize {
        let copied = usize::from(self.writes_into_shared(pool));
        match pool.available().checked_sub(copied) {
            Some(available) => (self.pages.len() + available) * PAGE_TOKENS - self.length,
            None => 0,
        }
    }

    fn writes_into_shared(&self, pool: &PagePool) -> bool {
        !self.is_aligned() && self.pages.last().is_some_and(|&page| pool.is_shared(page))
    }

    /// Makes room for `count` more tokens, at least one; returns the page that must be copied before they are written,
    /// if any.
    ///
    /// # Panics
    /// With more tokens than [`PageTable::room`].
    pub fn extend(&mut self, pool: &mut PagePool, count: usize) -> Option<PageCopy> {
        assert!((1..=self.room(pool)).contains(&count), "a table is extended by what there is room for");
        let take = |pool: &mut PagePool| pool.take().expect("pages were counted");
        let copy = self.writes_into_shared(pool).then(|| {
            let to = take(pool);
            let last = self.pages.last_mut().expect("a page that is partly full");
            let from = std::mem::replace(last, to);
            pool.release(from);
            PageCopy { from, to }
        });
        self.length += count;
        while self.pages.len() < self.length.div_ceil(PAGE_TOKENS) {
            self.pages.push(take(pool));
        }
        copy
    }

    /// Goes on with a full page that the caller holds for this table.
    pub fn reuse(&mut self, page: u32) {
        assert!(self.is_aligned(), "a whole page follows whole pages");
        self.pages.push(page);
        self.length += PAGE_TOKENS;
    }

    /// A second sequence with the same past.
    pub fn fork(&self, pool: &mut PagePool) -> PageTable {
        self.pages.iter().for_each(|&page| pool.share(page));
        PageTable { pages: self.pages.clone(), length: self.length }
    }

    /// Gives all pages back. Later ones count as used longer ago: without those before them they are of no use.
    pub fn clear(&mut self, pool: &mut PagePool) {
        self.pages.drain(..).rev().for_each(|page| pool.release(page));
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> Hash {
        blake3::hash(&number.to_le_bytes())
    }

    #[test]
    fn a_fork_copies_the_page_it_writes_and_no_other() {
        let mut pool = PagePool::new(4);
        let mut parent = PageTable::default();
        assert_eq!(parent.extend(&mut pool, PAGE_TOKENS + 3), None);
        let mut child = parent.fork(&mut pool);
        let copy = child.extend(&mut pool, 1).unwrap();
        assert_eq!(copy.from, parent.pages()[1]);
        assert_eq!(child.pages(), [parent.pages()[0], copy.to]);
        // The parent's page is its own again.
        assert_eq!(parent.extend(&mut pool, 1), None);
        parent.clear(&mut pool);
        child.clear(&mut pool);
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn room_counts_the_page_to_be_copied() {
        let mut pool = PagePool::new(2);
        let mut table = PageTable::default();
        assert_eq!(table.room(&pool), 2 * PAGE_TOKENS);
        table.extend(&mut pool, 3);
        assert_eq!(table.room(&pool), 2 * PAGE_TOKENS - 3);
        let fork = table.fork(&mut pool);
        assert_eq!(fork.room(&pool), PAGE_TOKENS - 3);
        assert_eq!(pool.take(), Some(1));
        assert_eq!((fork.room(&pool), pool.take()), (0, None));
    }

    #[test]
    fn full_pages_are_shared_without_a_copy() {
        let mut pool = PagePool::new(3);
        let mut parent = PageTable::default();
        parent.extend(&mut pool, PAGE_TOKENS);
        let mut child = parent.fork(&mut pool);
        assert_eq!(child.extend(&mut pool, 1), None);
        assert_eq!(child.pages()[0], parent.pages()[0]);
    }

    #[test]
    fn named_pages_are_found_until_their_room_is_needed() {
        let mut pool = PagePool::new(3);
        let mut table = PageTable::default();
        table.extend(&mut pool, 2 * PAGE_TOKENS);
        let [first, second] = [table.pages()[0], table.pages()[1]];
        pool.set_hash(first, hash(1));
        pool.set_hash(second, hash(2));
        table.clear(&mut pool);
        assert_eq!((pool.available(), pool.cached(), pool.is_held(&hash(1))), (3, 2, false));
        // The free page goes first, then the later page of the two.
        assert_ne!(pool.take(), Some(second));
        assert_eq!(pool.take(), Some(second));
        assert_eq!((pool.lookup(&hash(2)), pool.lookup(&hash(1))), (None, Some(first)));
        assert_eq!(pool.take(), None);
        // A confirmed page keeps its hash; whoever takes it later has to prove it anew.
        assert_eq!((pool.confirm(first), pool.confirm(first), pool.is_confirmed(&hash(1))), (false, true, true));
        pool.withdraw(&hash(1));
        assert!(pool.has(&hash(1)));
        pool.set_hash(second, hash(3));
        pool.withdraw(&hash(3));
        assert!(!pool.has(&hash(3)));
        pool.evict(first);
        pool.release(first);
        assert_eq!((pool.cached(), pool.lookup(&hash(1)), pool.take()), (0, None, Some(first)));
        pool.check();
    }

    /// Random sequences that grow, fork, name, reuse, end and fail: after each operation all pages are accounted for.
    #[test]
    fn no_page_is_lost_in_a_hundred_thousand_random_operations() {
        let mut state = 7u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for count in [1, 5, 64] {
            let mut pool = PagePool::new(count);
            let mut tables: Vec<PageTable> = Vec::new();
            for _ in 0..100_000 / 3 {
                match draw(8) {
                    0 => tables.push(PageTable::default()),
                    1 if !tables.is_empty() => {
                        let fork = tables[draw(tables.len())].fork(&mut pool);
                        tables.push(fork);
                    }
                    2 if !tables.is_empty() => tables.swap_remove(draw(tables.len())).clear(&mut pool),
                    3 if !tables.is_empty() => {
                        let place = draw(tables.len());
                        let table = &mut tables[place];
                        let found = pool.lookup(&hash(draw(100) as u32));
                        match found {
                            Some(page) if table.is_aligned() => table.reuse(page),
                            Some(page) => pool.release(page),
                            None => {}
                        }
                    }
                    4 => pool.evict(draw(count) as u32),
                    5 if !tables.is_empty() => {
                        let table = &tables[draw(tables.len())];
                        let full = table.pages().first().filter(|_| table.length() >= PAGE_TOKENS);
                        if let Some(&page) = full.filter(|&&page| pool.pages[page as usize].hash.is_none()) {
                            pool.set_hash(page, hash(draw(100) as u32));
                        }
                    }
                    _ if !tables.is_empty() => {
                        let place = draw(tables.len());
                        let table = &mut tables[place];
                        let count = (1 + draw(40)).min(table.room(&pool));
                        if count > 0 {
                            table.extend(&mut pool, count);
                        }
                    }
                    _ => {}
                }
                pool.check();
                let held: usize = tables.iter().map(|table| table.pages().len()).sum();
                assert_eq!(held, pool.pages.iter().map(|page| page.holders as usize).sum::<usize>());
            }
            tables.iter_mut().for_each(|table| table.clear(&mut pool));
            assert_eq!(pool.available(), count);
            pool.check();
        }
    }
}
