//! What runs in the next step. Integers only: tokens, pages, images by number; no device, no text.
//!
//! A request has sequences that share its prompt. Sequences that write get their next token first, in every
//! step. What is left of a step goes to prompts in order of arrival, each at most half of what is left so that a long
//! one does not keep others waiting, and what nobody else wants in a second round. A token waits for the pages of all
//! images that it sees, which come together or not at all; pages of text that are in the pool already, whoever computed
//! them, even in this same step, are reused instead of computed: all keys and values of a step are written before any
//! is read. When pages run out, the request that came last gives up its own and waits again; when it is resumed, it
//! computes again what it cannot find. The oldest request always goes on: a pool has room for all images that one token
//! of it sees.
//!
//! What a model makes of a prompt may not be finite, and keys that are not may spoil those of tokens before them in the
//! same step. A row of logits that is finite confirms all pages it was made from. After one that is not, hashes of its
//! prompt's pages are taken away unless they are confirmed; and a request that had reused such pages from others begins
//! again without, so that what spoilt it can only be its own.

mod request;
mod step;
#[cfg(test)]
mod tests;
mod tokens;

pub use request::{RequestState, Sequence, SequenceKind};
pub use step::{Encode, Rows, Step};
pub use tokens::{PromptImage, Salt, Tokens, hasher};

use std::collections::VecDeque;

use crate::kv::{MediaSeen, PAGE_TOKENS, PagePool};
use crate::trace::event;
use request::Held;
use step::Left;

/// What a step may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests that run.
    pub requests: usize,
    /// Tokens of a step.
    pub tokens: usize,
    /// Frames encoded in a step; an image is one. A video that has more is encoded without another; so are images that
    /// have more and are seen by one token.
    pub frames: usize,
    /// Whether pages are found again by their content.
    pub prefix_caching: bool,
}

/// Requests that wait and run, and the pages.
#[derive(Debug)]
pub struct Scheduler<T> {
    bounds: Bounds,
    /// Pages of tokens.
    pub text: PagePool,
    /// Pages of images, an entry for each image.
    pub media: PagePool,
    /// Requests in order of arrival.
    pub waiting: VecDeque<RequestState<T>>,
    /// Requests in order of arrival, all of which came before those that wait.
    pub running: Vec<RequestState<T>>,
    /// How often a request gave up its pages.
    pub preemptions: u64,
    /// The running request that gets its tokens first, because the last step had no room for it.
    turn: usize,
}

impl<T> Scheduler<T> {
    /// No requests.
    pub fn new(bounds: Bounds, text_pages: usize, media_pages: usize) -> Self {
        Scheduler {
            bounds,
            text: PagePool::new(text_pages),
            media: PagePool::new(media_pages),
            waiting: VecDeque::new(),
            running: Vec::with_capacity(bounds.requests),
            preemptions: 0,
            turn: 0,
        }
    }

    /// Adds a request behind all others.
    pub fn add(&mut self, request: RequestState<T>) {
        self.waiting.push_back(request);
    }

    /// Takes a request out, wherever it is, and frees what it holds.
    pub fn remove(&mut self, number: u64) -> Option<RequestState<T>> {
        if let Ok(place) = self.running.binary_search_by_key(&number, |request| request.number) {
            return Some(self.remove_running(place));
        }
        let place = self.waiting.binary_search_by_key(&number, |request| request.number).ok()?;
        self.waiting.remove(place)
    }

    /// Takes a running request out by its place, and frees what it holds.
    pub fn remove_running(&mut self, place: usize) -> RequestState<T> {
        let mut request = self.running.remove(place);
        request.release_all(&mut self.text, &mut self.media);
        request
    }

    /// Puts the next step together.
    pub fn schedule(&mut self, step: &mut Step) {
        step.clear();
        self.running.iter_mut().for_each(|request| request.release_seen(&mut self.media));
        let mut left = Left { tokens: self.bounds.tokens, frames_end: self.bounds.frames };
        self.decode(&mut left, step);
        self.prefill(&mut left, step, true);
        self.prefill(&mut left, step, false);
        self.build_batch(step);
    }

    /// A step has failed: its requests are out, and what it was to put into pages is not there.
    pub fn fail(&mut self, step: &Step) -> Vec<RequestState<T>> {
        step.hashed.iter().for_each(|&page| self.text.evict(page));
        step.encode.iter().for_each(|encode| self.media.evict(encode.entry));
        // Others may have such pages too, without being in the step themselves.
        for request in &mut self.running {
            let sequences = &mut request.sequences;
            let spoilt = |sequence: &Sequence| sequence.pages().iter().any(|page| step.hashed.contains(page));
            sequences
                .iter_mut()
                .filter(|sequence| spoilt(sequence))
                .for_each(|sequence| sequence.clear(&mut self.text));
            request.held.retain(|held| {
                let spoilt = step.encode.iter().any(|encode| encode.entry == held.entry);
                if spoilt {
                    self.media.release(held.entry);
                }
                !spoilt
            });
        }
        let mut places: Vec<usize> = step.rows.iter().map(|rows| rows.request).collect();
        places.dedup();
        places.into_iter().rev().map(|place| self.remove_running(place)).collect()
    }

    /// All rows that the step wanted of a running request were finite; `rows` are the request's.
    pub fn confirm(&mut self, rows: &[Rows]) {
        let Scheduler { running, text, media, bounds, .. } = self;
        if !bounds.prefix_caching {
            return;
        }
        for rows in rows.iter().filter(|rows| rows.wanted > 0) {
            let RequestState { sequences, held, .. } = &running[rows.request];
            let table = &sequences[rows.sequence].table;
            // Those before a confirmed page have been confirmed with it.
            for &page in table.pages()[..table.length() / PAGE_TOKENS].iter().rev() {
                if text.confirm(page) {
                    break;
                }
            }
            for held in held {
                media.confirm(held.entry);
            }
        }
    }

    /// A row that the step wanted of a running request was not finite: what is not confirmed is not to be found any
    /// more. A request that has reused such pages begins again, and will have the rows of the step again; whether it
    /// does.
    pub fn doubt(&mut self, place: usize, step: &Step) -> bool {
        let Scheduler { running, text, media, .. } = self;
        let request = &mut running[place];
        request.prompt.pages.iter().for_each(|hash| text.withdraw(hash));
        request.prompt.images.iter().for_each(|image| media.withdraw(&image.content));
        let again = request.leans && !request.careful;
        if again {
            request.careful = true;
            request.release_all(text, media);
            for rows in step.rows.iter().filter(|rows| rows.request == place) {
                request.sequences[rows.sequence].wanted -= rows.wanted;
            }
        }
        again
    }

    /// One token for each sequence that writes, beginning with the request that had none in the last step.
    fn decode(&mut self, left: &mut Left, step: &mut Step) {
        let turn = std::mem::take(&mut self.turn);
        let mut stalled = None;
        for (from, to) in [(turn, usize::MAX), (0, turn)] {
            let mut request = from;
            while request < self.running.len().min(to) {
                let mut sequence = 0;
                while self.running[request].kind != SequenceKind::Prefill
                    && sequence < self.running[request].sequences.len()
                {
                    let RequestState { prompt, sequences, .. } = &self.running[request];
                    if sequences[sequence].left(prompt) == 1 && self.allocate_tokens(request, sequence, left, step) == 0
                    {
                        self.turn = *stalled.get_or_insert(request);
                    }
                    sequence += 1;
                }
                request += 1;
            }
        }
    }

    /// Tokens of prompts, and of other sequences that are read, in order of arrival; in the first round a request gets
    /// at most half of what is left, and requests that wait come in.
    fn prefill(&mut self, left: &mut Left, step: &mut Step, first_round: bool) {
        let mut request = 0;
        while left.tokens > 0 {
            if request == self.running.len() && !(first_round && self.admit()) {
                return;
            }
            let mut share = *left;
            if first_round {
                share.tokens = left.tokens.div_ceil(2).max(PAGE_TOKENS).min(left.tokens);
                share.frames_end -= left.frames_end.saturating_sub(step.frames) / 2;
            }
            let before = share.tokens;
            for sequence in (0..self.running[request].sequences.len()).rev() {
                if share.tokens == 0 {
                    break;
                }
                self.allocate_tokens(request, sequence, &mut share, step);
            }
            left.tokens -= before - share.tokens;
            request += 1;
        }
    }

    /// Lets the first request that waits run, if there is room for it; nobody overtakes it.
    fn admit(&mut self) -> bool {
        let Some(request) = self.waiting.front() else { return false };
        if self.running.len() == self.bounds.requests {
            return false;
        }
        let tokens = request.prompt.ids.len() + request.sequences[0].suffix.len() + 1;
        let found = request
            .prompt
            .pages
            .iter()
            .take_while(|hash| self.bounds.prefix_caching && self.text.is_held(hash))
            .count();
        let wanted = tokens.div_ceil(PAGE_TOKENS).saturating_sub(found);
        if !self.running.is_empty() {
            // One that came in only to find no pages for its first images would go out again at once.
            let first = request.prompt.first_seen();
            let (media, _) = self.media_wanted(request, first);
            if self.text.available() < wanted || self.media.available() < media {
                return false;
            }
        }
        let request = self.waiting.pop_front().expect("it is there");
        let place = self.running.partition_point(|running| running.number < request.number);
        self.running.insert(place, request);
        true
    }

    /// Gives a sequence as many of its tokens as `left` has, and as there are pages for; how many.
    fn allocate_tokens(&mut self, request: usize, sequence: usize, left: &mut Left, step: &mut Step) -> usize {
        self.reuse(request, sequence);
        let RequestState { prompt, sequences, .. } = &self.running[request];
        let mut count = sequences[sequence].left(prompt).min(left.tokens);
        count = self.before_others(request, sequence, count);
        while self.running[request].sequences[sequence].table.room(&self.text) < count {
            if !self.preempt_after(request) && !self.clear_another(request, sequence) {
                count = count.min(self.running[request].sequences[sequence].table.room(&self.text));
            }
        }
        count = self.allocate_media(request, sequence, count, left, step);
        if count == 0 {
            return 0;
        }
        let RequestState { prompt, sequences, .. } = &mut self.running[request];
        let Sequence { table, scheduled, .. } = &mut sequences[sequence];
        let full_before = table.length() / PAGE_TOKENS;
        step.copies.extend(table.extend(&mut self.text, count));
        *scheduled += count;
        left.tokens -= count;
        if self.bounds.prefix_caching {
            let full = full_before..(table.length() / PAGE_TOKENS).min(prompt.pages.len());
            for place in full {
                let page = table.pages()[place];
                self.text.set_hash(page, prompt.pages[place]);
                step.hashed.push(page);
            }
        }
        count
    }

    /// Goes on with pages whose content is there already, as far as no logits in them are wanted.
    fn reuse(&mut self, request: usize, sequence: usize) {
        let RequestState { prompt, sequences, tokens_reused, leans, careful, .. } = &mut self.running[request];
        let Sequence { table, wanted, scheduled, .. } = &mut sequences[sequence];
        // Tokens of one step stand side by side.
        if *scheduled > 0 {
            return;
        }
        while self.bounds.prefix_caching && table.is_aligned() && table.length() + PAGE_TOKENS <= *wanted {
            let Some(hash) = prompt.pages.get(table.length() / PAGE_TOKENS) else { return };
            let confirmed = self.text.is_confirmed(hash);
            if *careful && !confirmed {
                return;
            }
            let Some(page) = self.text.lookup(hash) else { return };
            *leans |= !confirmed;
            table.reuse(page);
            *tokens_reused += PAGE_TOKENS;
        }
    }

    /// How many of a sequence's next `count` tokens stand before a page that it can reuse in the next step, or that an
    /// earlier request is about to compute.
    fn before_others(&self, request: usize, sequence: usize, count: usize) -> usize {
        let (earlier, RequestState { prompt, sequences, careful, .. }) =
            (&self.running[..request], &self.running[request]);
        if *careful {
            return count;
        }
        let Sequence { table, wanted, scheduled, .. } = &sequences[sequence];
        let begin = table.length();
        let computes = |earlier: &RequestState<T>, page: usize| {
            let sequence = &earlier.sequences[0];
            earlier.prompt.pages.get(page) == prompt.pages.get(page)
                && sequence.table.length() < (page + 1) * PAGE_TOKENS
                && !sequence.is_read(&earlier.prompt)
        };
        let is_others = |page: usize| {
            let came_up = *scheduled > 0 || page * PAGE_TOKENS > begin;
            (came_up && self.text.has(&prompt.pages[page])) || earlier.iter().any(|earlier| computes(earlier, page))
        };
        let reusable = if self.bounds.prefix_caching { prompt.pages.len().min(wanted / PAGE_TOKENS) } else { 0 };
        let pages = begin.div_ceil(PAGE_TOKENS)..reusable.min((begin + count).div_ceil(PAGE_TOKENS));
        pages.into_iter().find(|&page| is_others(page)).map_or(count, |page| page * PAGE_TOKENS - begin)
    }

    /// Sees that the images of a sequence's next `count` tokens have pages; for how many of the tokens they do.
    fn allocate_media(&mut self, request: usize, sequence: usize, count: usize, left: &Left, step: &mut Step) -> usize {
        let first = self.running[request].sequences[sequence].table.length();
        let mut last = MediaSeen::NOTHING;
        for position in first..first + count {
            let seen = self.running[request].prompt.seen_at(position);
            if seen != last && self.running[request].held_of(seen).is_none() {
                let is_first = position == first && !self.running[request].is_scheduled();
                if !self.make_media_room(request, seen, is_first, left, step) {
                    return position - first;
                }
                self.hold(request, seen, step);
            }
            last = seen;
        }
        count
    }

    /// Pages that the missing images of a token take of those that are available, and frames to encode for them.
    fn media_wanted(&self, request: &RequestState<T>, seen: MediaSeen) -> (usize, usize) {
        let (mut pages, mut frames) = (0, 0);
        for image in request.missing(seen) {
            let found = request.reuses(image, &self.media, self.bounds.prefix_caching);
            pages += if found && self.media.is_held(&image.content) { 0 } else { image.pages() };
            frames += if found { 0 } else { image.frames };
        }
        (pages, frames)
    }

    /// Frees pages for the missing images of a request's token, which may be the first of the request in the step;
    /// whether there is room for all of them.
    fn make_media_room(&mut self, request: usize, seen: MediaSeen, is_first: bool, left: &Left, step: &Step) -> bool {
        loop {
            let (pages, frames) = self.media_wanted(&self.running[request], seen);
            if frames > 0 && !left.has_room(step, frames) {
                return false;
            }
            if pages <= self.media.available() {
                return true;
            }
            if !(self.preempt_after(request) || is_first && request == 0 && self.release_others(seen)) {
                return false;
            }
        }
    }

    /// Has the oldest request give up images that this token does not see: other sequences of it do. Whether there were
    /// any.
    fn release_others(&mut self, seen: MediaSeen) -> bool {
        let held = &mut self.running[0].held;
        let before = held.len();
        held.retain(|held| {
            let stays = seen.range().contains(&(held.image as usize));
            if !stays {
                self.media.release(held.entry);
            }
            stays
        });
        held.len() < before
    }

    /// Gives a request's token all images that it sees: those that are there, then pages for the others, which will be
    /// encoded. There is room for them.
    fn hold(&mut self, request: usize, seen: MediaSeen, step: &mut Step) {
        let Scheduler { running, media, bounds, .. } = self;
        let request = &mut running[request];
        for only_found in [true, false] {
            for number in seen.range() {
                let Err(place) = request.place_of(number) else { continue };
                let image = request.prompt.images[number];
                let entry = if request.reuses(&image, media, bounds.prefix_caching) {
                    request.leans |= !media.is_confirmed(&image.content);
                    media.lookup(&image.content).expect("it is there")
                } else if only_found {
                    continue;
                } else {
                    let entry = media.take_many(image.pages()).expect("pages were counted");
                    if bounds.prefix_caching {
                        media.set_hash(entry, image.content);
                    }
                    step.frames += image.frames;
                    step.encode.push(Encode { request: request.number, image: number as u32, entry });
                    step.encoded.push(media.pages_of(entry), image.rows);
                    request.images_encoded += 1;
                    entry
                };
                request.held.insert(place, Held { image: number as u32, entry });
            }
        }
    }

    /// Has the request that came last give up its pages, if it came after this one and is not in the step yet.
    fn preempt_after(&mut self, request: usize) -> bool {
        let later = self.running.iter().skip(request + 1).rposition(|later| !later.is_scheduled());
        let Some(place) = later else { return false };
        let victim = self.remove_running(request + 1 + place);
        event!(DEBUG, request = victim.number, "request preempted");
        let place = self.waiting.partition_point(|waiting| waiting.number < victim.number);
        self.waiting.insert(place, victim);
        self.preemptions += 1;
        true
    }

    /// Has another sequence of the oldest request give up its text pages.
    fn clear_another(&mut self, request: usize, sequence: usize) -> bool {
        if request > 0 {
            return false;
        }
        let others = self.running[request].sequences.iter_mut().enumerate();
        let mut holders = others
            .filter(|(place, other)| *place != sequence && other.scheduled == 0 && !other.table.pages().is_empty());
        let Some((_, other)) = holders.next() else { return false };
        other.clear(&mut self.text);
        true
    }

    /// Writes the rows of all scheduled sequences.
    fn build_batch(&mut self, step: &mut Step) {
        for (place, request) in self.running.iter_mut().enumerate() {
            for index in 0..request.sequences.len() {
                let sequence = &mut request.sequences[index];
                let count = std::mem::take(&mut sequence.scheduled);
                if count == 0 {
                    continue;
                }
                let (end, first) = (sequence.table.length(), step.ids.len());
                let (sequence, begin, rows) = (&request.sequences[index], end - count, step.rows.len() as u32);
                let (mut last, mut listed) = (MediaSeen::NOTHING, MediaSeen::NOTHING);
                for position in begin..end {
                    let prompt = &request.prompt;
                    step.ids.push(prompt.id_at(position, &sequence.suffix));
                    step.positions.push(position as u32);
                    step.sequences.push(rows);
                    let seen = prompt.seen_at(position);
                    if seen != last {
                        let held = request.held_of(seen).expect("images of scheduled tokens have pages");
                        (last, listed) = (seen, step.list(held, prompt, &self.media));
                    }
                    step.media.push(listed);
                }
                let wanted = end.saturating_sub(sequence.wanted.max(begin));
                request.sequences[index].wanted += wanted;
                step.rows.push(Rows { request: place, sequence: index, first, count, wanted });
            }
        }
    }

    /// A request that writes has a new token: a page that is known whole by it gets a hash.
    pub fn hash_decoded(&mut self, request: usize) {
        let RequestState { prompt, sequences, kind, .. } = &mut self.running[request];
        let known = prompt.ids.len() + sequences[0].suffix.len();
        if *kind == SequenceKind::Decode && self.bounds.prefix_caching && prompt.pages.len() < known / PAGE_TOKENS {
            prompt.hash_next(&sequences[0].suffix);
        }
    }
}
