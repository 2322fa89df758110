//! Pages of keys and values: who holds which, and what is in them. Integers only, no device in sight.
//!
//! A text page holds a fixed number of consecutive tokens of a sequence; an image has as many media pages as its rows
//! take. Sequences that fork share pages; a sequence that writes into a shared page gets a copy first. What has a hash
//! stays findable after its last holder has gone, until its room is needed: the least recently used goes first, an
//! image with all of its pages.

mod dtype;

pub use dtype::KvDtype;
pub(crate) use dtype::{quantise, widen};

use std::collections::HashMap;
use std::ops::Range;

use blake3::Hash;

/// Tokens of one text page.
pub const PAGE_TOKENS: usize = 16;

/// Rows of one media page: keys and values of an image. An image has as many pages as its rows fill.
pub const MEDIA_PAGE_ROWS: usize = 64;

/// Media pages of an image of so many rows.
pub fn media_pages(rows: usize) -> usize {
    rows.div_ceil(MEDIA_PAGE_ROWS)
}

/// No page.
const NONE: u32 = u32::MAX;

/// A fixed number of pages, given out in entries: lists of pages that are taken, shared, cached, found and evicted as a
/// whole. An entry goes by the number of its first page. One of text has a single page, one of an image all pages of
/// the image. An entry is held by some, or cached for its content, or evicted: then its pages are free. Nothing is
/// allocated after `new`.
#[derive(Debug)]
pub struct PagePool {
    pages: Vec<Page>,
    free: Vec<u32>,
    hashed: HashMap<Hash, u32>,
    /// Cached entries, in a ring through their neighbours: the one after `oldest` was used after it.
    oldest: u32,
    newest: u32,
    cached: EntryCount,
    held: EntryCount,
}

/// How many entries, and how many pages in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryCount {
    /// Entries: for a pool of media, images.
    pub entries: usize,
    /// Their pages.
    pub pages: usize,
}

impl EntryCount {
    fn add(&mut self, pages: u32) {
        *self = EntryCount { entries: self.entries + 1, pages: self.pages + pages as usize };
    }

    fn remove(&mut self, pages: u32) {
        *self = EntryCount { entries: self.entries - 1, pages: self.pages - pages as usize };
    }
}

/// A page; what concerns a whole entry stands in its first one.
#[derive(Debug, Clone, Copy)]
struct Page {
    /// The page after it in its entry.
    next: u32,
    /// Pages of the entry.
    count: u32,
    holders: u32,
    hash: Option<Hash>,
    /// Whether its content is known to be finite.
    confirmed: bool,
    /// Neighbours among the cached entries.
    older: u32,
    newer: u32,
}

impl PagePool {
    /// `count` free pages.
    pub fn new(count: usize) -> Self {
        let last = u32::try_from(count).ok().filter(|&count| count < NONE).expect("page numbers fit 32 bits");
        let page = Page { next: NONE, count: 0, holders: 0, hash: None, confirmed: false, older: NONE, newer: NONE };
        PagePool {
            pages: vec![page; count],
            free: (0..last).rev().collect(),
            // Twice the room: a map that is at most half full rehashes in place.
            hashed: HashMap::with_capacity(2 * count + 2),
            oldest: NONE,
            newest: NONE,
            cached: EntryCount::default(),
            held: EntryCount::default(),
        }
    }

    /// Takes an entry of one page, as [`PagePool::take_many`] does.
    pub fn take(&mut self) -> Option<u32> {
        self.take_many(1)
    }

    /// Takes an entry of `count` pages, at least one, that nobody holds, held once from now on; none if too many are
    /// held. Cached entries are evicted for it, those used longest ago first.
    pub fn take_many(&mut self, count: usize) -> Option<u32> {
        assert!(count > 0, "an entry has pages");
        if count > self.available() {
            return None;
        }
        while self.free.len() < count {
            let entry = self.oldest;
            self.unlink(entry);
            self.clear_hash(entry);
            self.free_pages(entry);
        }
        let mut first = NONE;
        for page in self.free.drain(self.free.len() - count..) {
            self.pages[page as usize].next = first;
            first = page;
        }
        let count = count as u32;
        let head = &mut self.pages[first as usize];
        (head.count, head.holders, head.confirmed) = (count, 1, false);
        self.held.add(count);
        Some(first)
    }

    /// The pages of an entry, in order.
    pub fn pages_of(&self, entry: u32) -> impl Iterator<Item = u32> {
        let next = |page: u32| Some(self.pages[page as usize].next).filter(|&next| next != NONE);
        std::iter::successors(Some(entry), move |&page| next(page))
    }

    /// One more holder.
    pub fn share(&mut self, entry: u32) {
        assert!(self.pages[entry as usize].holders > 0, "only what is held can be shared");
        self.pages[entry as usize].holders += 1;
    }

    /// One holder less. The last one leaves an entry cached if it has a hash, else its pages free.
    pub fn release(&mut self, entry: u32) {
        let head = &mut self.pages[entry as usize];
        assert!(head.holders > 0, "an entry is released once by each holder");
        head.holders -= 1;
        if head.holders == 0 {
            self.held.remove(head.count);
            match head.hash {
                Some(_) => self.link(entry),
                None => self.free_pages(entry),
            }
        }
    }

    /// Gives a held entry, by its first page, a hash by which its content is found. If another one has that hash
    /// already, it stays so.
    pub fn set_hash(&mut self, page: u32, hash: Hash) {
        let head = &mut self.pages[page as usize];
        assert!(head.holders > 0 && head.hash.is_none(), "a held entry is named once");
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.hashed.entry(hash) {
            vacant.insert(page);
            head.hash = Some(hash);
        }
    }

    /// The entry of that hash, with one more holder.
    pub fn lookup(&mut self, hash: &Hash) -> Option<u32> {
        let entry = *self.hashed.get(hash)?;
        if self.pages[entry as usize].holders == 0 {
            self.unlink(entry);
            self.held.add(self.pages[entry as usize].count);
        }
        self.pages[entry as usize].holders += 1;
        Some(entry)
    }

    /// Whether there is an entry of that hash.
    pub fn has(&self, hash: &Hash) -> bool {
        self.hashed.contains_key(hash)
    }

    /// Whether an entry of that hash is held by somebody.
    pub fn is_held(&self, hash: &Hash) -> bool {
        self.hashed.get(hash).is_some_and(|&entry| self.pages[entry as usize].holders > 0)
    }

    /// Takes an entry's hash away: its content is not what it was to be.
    pub fn evict(&mut self, entry: u32) {
        if self.pages[entry as usize].hash.is_none() {
            return;
        }
        self.clear_hash(entry);
        if self.pages[entry as usize].holders == 0 {
            self.unlink(entry);
            self.free_pages(entry);
        }
    }

    /// A held entry's content has proved to be finite; whether it had before.
    pub fn confirm(&mut self, entry: u32) -> bool {
        assert!(self.pages[entry as usize].holders > 0, "what is held is confirmed");
        std::mem::replace(&mut self.pages[entry as usize].confirmed, true)
    }

    /// Whether there is an entry of that hash whose content has proved to be finite.
    pub fn is_confirmed(&self, hash: &Hash) -> bool {
        self.hashed.get(hash).is_some_and(|&entry| self.pages[entry as usize].confirmed)
    }

    /// Takes a hash away from the entry that has it, unless that is confirmed.
    pub fn withdraw(&mut self, hash: &Hash) {
        match self.hashed.get(hash) {
            Some(&entry) if !self.pages[entry as usize].confirmed => self.evict(entry),
            _ => {}
        }
    }

    /// Whether more than one holds the entry.
    pub fn is_shared(&self, entry: u32) -> bool {
        self.pages[entry as usize].holders > 1
    }

    /// Pages that can be taken: free ones and cached ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.cached.pages
    }

    /// What nobody holds and is cached for its content.
    pub fn cached(&self) -> EntryCount {
        self.cached
    }

    /// What somebody holds.
    pub fn held(&self) -> EntryCount {
        self.held
    }

    /// All pages.
    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Asserts that every page is counted once: held, cached or free.
    #[cfg(test)]
    pub fn check(&self) {
        let mut places = vec![0; self.pages.len()];
        let mut count = |entries: &mut dyn Iterator<Item = u32>| {
            let mut found = EntryCount::default();
            for entry in entries {
                assert_eq!(self.pages_of(entry).count(), self.pages[entry as usize].count as usize);
                self.pages_of(entry).for_each(|page| places[page as usize] += 1);
                found.add(self.pages[entry as usize].count);
            }
            found
        };
        let held = |&page: &u32| self.pages[page as usize].holders > 0;
        assert_eq!(count(&mut (0..self.pages.len() as u32).filter(held)), self.held);
        let mut cached = Vec::new();
        let mut entry = self.oldest;
        while entry != NONE {
            let head = &self.pages[entry as usize];
            assert!(head.holders == 0 && head.hash.is_some_and(|hash| self.hashed[&hash] == entry));
            assert!(if head.newer == NONE { self.newest == entry } else { true });
            cached.push(entry);
            entry = head.newer;
        }
        assert_eq!(count(&mut cached.into_iter()), self.cached);
        for &page in &self.free {
            places[page as usize] += 1;
            let page = &self.pages[page as usize];
            assert!(page.holders == 0 && page.hash.is_none());
        }
        assert!(places.iter().all(|&places| places == 1), "a page is in one place");
        assert_eq!(self.hashed.len(), self.pages.iter().filter(|page| page.hash.is_some()).count());
    }

    fn clear_hash(&mut self, entry: u32) {
        if let Some(hash) = self.pages[entry as usize].hash.take() {
            self.hashed.remove(&hash);
        }
    }

    fn free_pages(&mut self, entry: u32) {
        let mut page = entry;
        while page != NONE {
            self.free.push(page);
            page = self.pages[page as usize].next;
        }
    }

    /// Adds an entry to the cached ones, as the one used last.
    fn link(&mut self, entry: u32) {
        let newest = std::mem::replace(&mut self.newest, entry);
        let head = &mut self.pages[entry as usize];
        (head.older, head.newer) = (newest, NONE);
        self.cached.add(head.count);
        match newest {
            NONE => self.oldest = entry,
            newest => self.pages[newest as usize].newer = entry,
        }
    }

    /// Takes an entry out of the cached ones.
    fn unlink(&mut self, entry: u32) {
        let Page { older, newer, count, .. } = self.pages[entry as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.pages[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.pages[newer as usize].older = older,
        }
        self.cached.remove(count);
    }
}

/// An image in media pages: each but the last is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImagePages<'a> {
    /// The pages, in order.
    pub pages: &'a [u32],
    /// Rows of keys and values in them.
    pub rows: u32,
}

impl ImagePages<'_> {
    /// Whether it has as many pages as its rows fill.
    pub(crate) fn is_whole(&self) -> bool {
        self.pages.len() == media_pages(self.rows as usize)
    }

    /// Each page with the rows that it holds.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u32, usize)> {
        let rows = self.rows as usize;
        self.pages
            .iter()
            .enumerate()
            .map(move |(place, &page)| (page, MEDIA_PAGE_ROWS.min(rows - place * MEDIA_PAGE_ROWS)))
    }
}

/// The images that a token sees: neighbours in a list of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaSeen {
    /// The first of them.
    pub first: u32,
    /// How many; 0: nothing is seen.
    pub images: u32,
}

impl MediaSeen {
    /// Nothing.
    pub const NOTHING: MediaSeen = MediaSeen { first: 0, images: 0 };

    /// One image.
    pub fn one(image: u32) -> MediaSeen {
        MediaSeen { first: image, images: 1 }
    }

    /// Their places in the list.
    pub fn range(&self) -> Range<usize> {
        self.first as usize..(self.first + self.images) as usize
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
        assert_eq!((pool.available(), pool.cached().pages, pool.is_held(&hash(1))), (3, 2, false));
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
        assert_eq!((pool.cached().pages, pool.lookup(&hash(1)), pool.take()), (0, None, Some(first)));
        pool.check();
    }

    #[test]
    fn an_image_is_there_with_all_its_pages_or_not_at_all() {
        let mut pool = PagePool::new(7);
        let [first, second] = [3, 2].map(|count| pool.take_many(count).unwrap());
        let pages = |pool: &PagePool, entry| pool.pages_of(entry).collect::<Vec<u32>>();
        assert_eq!((pages(&pool, first), pages(&pool, second)), (vec![0, 1, 2], vec![3, 4]));
        assert_eq!((pool.take_many(3), pool.available()), (None, 2), "nothing is taken where not all is there");
        pool.set_hash(first, hash(1));
        pool.set_hash(second, hash(2));
        pool.share(first);
        pool.release(first);
        assert_eq!((pool.held(), pool.cached()), (EntryCount { entries: 2, pages: 5 }, EntryCount::default()));
        pool.release(second);
        pool.release(first);
        assert_eq!((pool.cached(), pool.available()), (EntryCount { entries: 2, pages: 5 }, 7));
        // Two pages are free; the third is one of the image that was used longest ago, which goes whole.
        let third = pool.take_many(3).unwrap();
        assert_eq!((pool.has(&hash(1)), pool.has(&hash(2)), pool.available()), (true, false, 4));
        assert_eq!((pool.lookup(&hash(1)), pool.held().pages), (Some(first), 6));
        assert_eq!((pages(&pool, first), pages(&pool, third).len()), (vec![0, 1, 2], 3));
        // What is not confirmed is withdrawn, and its pages are free once nobody holds it.
        pool.withdraw(&hash(1));
        pool.release(first);
        assert_eq!((pool.has(&hash(1)), pool.cached().pages, pool.available()), (false, 0, 4));
        pool.check();
    }

    /// What a pool of images is to do, said plainly: a list that is searched, in the order of last use.
    #[derive(Default)]
    struct Plain(Vec<Entry>);

    struct Entry {
        entry: u32,
        hash: Option<u32>,
        pages: usize,
        holders: usize,
        confirmed: bool,
    }

    impl Plain {
        fn pages(&self, held: bool) -> usize {
            self.0.iter().filter(|entry| (entry.holders > 0) == held).map(|entry| entry.pages).sum()
        }

        fn hashed(&mut self, hash: u32) -> Option<&mut Entry> {
            self.0.iter_mut().find(|entry| entry.hash == Some(hash))
        }

        /// One of those that are held.
        fn held(&self, number: usize) -> Option<usize> {
            let held: Vec<usize> = (0..self.0.len()).filter(|&at| self.0[at].holders > 0).collect();
            (!held.is_empty()).then(|| held[number % held.len()])
        }

        /// Forgets those used longest ago until there is room.
        fn make_room(&mut self, total: usize, count: usize) -> bool {
            let fits = self.pages(true) + count <= total;
            while fits && self.pages(true) + self.pages(false) + count > total {
                let oldest = self.0.iter().position(|entry| entry.holders == 0).unwrap();
                self.0.remove(oldest);
            }
            fits
        }

        fn drop_unnamed(&mut self) {
            self.0.retain(|entry| entry.holders > 0 || entry.hash.is_some());
        }

        fn check(&self, pool: &PagePool) {
            pool.check();
            assert_eq!((pool.held().pages, pool.cached().pages), (self.pages(true), self.pages(false)));
            for entry in &self.0 {
                assert_eq!(pool.pages_of(entry.entry).count(), entry.pages);
                assert_eq!(pool.is_shared(entry.entry), entry.holders > 1);
                if let Some(number) = entry.hash {
                    assert!(pool.has(&hash(number)));
                    assert_eq!(pool.is_confirmed(&hash(number)), entry.confirmed);
                }
            }
        }
    }

    /// Random images of 1 to 7 pages that are taken, named, shared, found, confirmed, withdrawn and evicted.
    #[test]
    fn images_are_cached_and_evicted_as_a_plain_list_says() {
        let mut state = 11u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for total in [1, 9, 40] {
            let (mut pool, mut plain) = (PagePool::new(total), Plain::default());
            for _ in 0..30_000 {
                let (number, place) = (draw(12) as u32, plain.held(draw(1000)));
                match (draw(8), place) {
                    (0 | 1, _) => {
                        let pages = 1 + draw(7);
                        let taken = pool.take_many(pages);
                        assert_eq!(taken.is_some(), plain.make_room(total, pages));
                        let new = |entry| Entry { entry, hash: None, pages, holders: 1, confirmed: false };
                        plain.0.extend(taken.map(new));
                    }
                    (2, Some(place)) if plain.0[place].hash.is_none() => {
                        pool.set_hash(plain.0[place].entry, hash(number));
                        plain.0[place].hash = Some(number).filter(|&number| plain.hashed(number).is_none());
                    }
                    (3 | 4, Some(place)) => {
                        let entry = plain.0.remove(place);
                        pool.release(entry.entry);
                        plain.0.push(Entry { holders: entry.holders - 1, ..entry });
                        plain.drop_unnamed();
                    }
                    (5, _) => {
                        let found = plain.hashed(number).map(|entry| {
                            entry.holders += 1;
                            entry.entry
                        });
                        assert_eq!(pool.lookup(&hash(number)), found);
                    }
                    (6, Some(place)) => {
                        let entry = &mut plain.0[place];
                        assert_eq!(pool.confirm(entry.entry), std::mem::replace(&mut entry.confirmed, true));
                    }
                    (7, Some(place)) => {
                        pool.evict(plain.0[place].entry);
                        plain.0[place].hash = None;
                    }
                    _ => {
                        pool.withdraw(&hash(number));
                        if let Some(entry) = plain.hashed(number).filter(|entry| !entry.confirmed) {
                            entry.hash = None;
                        }
                        plain.drop_unnamed();
                    }
                }
                plain.check(&pool);
            }
        }
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
