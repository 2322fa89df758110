//! What runs in the next step. Integers only: tokens, pages, images by number; no device, no text.
//!
//! A request has sequences that share its prompt. Sequences that write get their next token first, in every
//! step. What is left of a step goes to prompts in order of arrival, each at most half of what is left so that a long
//! one does not keep others waiting, and what nobody else wants in a second round. A token that sees an image waits for
//! its page; pages of text that are in the pool already, whoever computed them, even in this same step, are reused
//! instead of computed: all keys and values of a step are written before any is read. When pages run out, the request
//! that came last gives up its own and waits again; when it is resumed, it computes again what it cannot find.
//!
//! What a model makes of a prompt may not be finite, and keys that are not may spoil those of tokens before them in the
//! same step. A row of logits that is finite confirms all pages it was made from. After one that is not, hashes of its
//! prompt's pages are taken away unless they are confirmed; and a request that had reused such pages from others begins
//! again without, so that what spoilt it can only be its own.

use std::collections::VecDeque;

use blake3::Hash;

use crate::kv::{PAGE_TOKENS, PageCopy, PagePool, PageTable};
use crate::trace::event;

/// What a step may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests that run.
    pub requests: usize,
    /// Tokens of a step.
    pub tokens: usize,
    /// Frames encoded in a step; an image is one, a video that has more is encoded without another.
    pub frames: usize,
    /// Whether pages are found again by their content.
    pub prefix_caching: bool,
}

/// A prompt in numbers.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Its tokens, at least one.
    pub ids: Vec<u32>,
    /// For each token the image of the prompt, from 0, that it sees. Tokens after the prompt see what the last sees.
    pub sees: Vec<Option<u32>>,
    /// For each image its content.
    pub images: Vec<Hash>,
    /// And of how many frames it is.
    pub frames: Vec<usize>,
    /// Names of the full pages.
    pub pages: Vec<Hash>,
}

impl Tokens {
    /// Names a prompt's pages: each by all tokens up to its end and the images they see.
    pub fn new(ids: Vec<u32>, sees: Vec<Option<u32>>, images: Vec<Hash>, frames: Vec<usize>) -> Tokens {
        let mut tokens = Tokens { ids, sees, images, frames, pages: Vec::new() };
        while tokens.pages.len() < tokens.ids.len() / PAGE_TOKENS {
            tokens.hash_next(&[]);
        }
        tokens
    }

    /// Names the next page, which ends among the tokens of `suffix` after the prompt.
    fn hash_next(&mut self, suffix: &[u32]) {
        let mut hasher = blake3::Hasher::new();
        if let Some(before) = self.pages.last() {
            hasher.update(before.as_bytes());
        }
        let first = self.pages.len() * PAGE_TOKENS;
        let positions = first..first + PAGE_TOKENS;
        for position in positions.clone() {
            hasher.update(&self.id_at(position, suffix).to_le_bytes());
        }
        // An image is seen from some token on.
        let mut seen = None;
        for (place, image) in positions.map(|position| self.seen_at(position)).enumerate() {
            if place == 0 || image != seen {
                let content = image.map_or([0; blake3::OUT_LEN], |number| *self.images[number as usize].as_bytes());
                hasher.update(&[place as u8]).update(&content);
                seen = image;
            }
        }
        self.pages.push(hasher.finalize());
    }

    /// The token at a position, of the prompt or of `suffix` after it.
    fn id_at(&self, position: usize, suffix: &[u32]) -> u32 {
        self.ids.get(position).copied().unwrap_or_else(|| suffix[position - self.ids.len()])
    }

    /// The image that the token at a position sees.
    pub fn seen_at(&self, position: usize) -> Option<u32> {
        self.sees[position.min(self.sees.len() - 1)]
    }
}

/// One sequence of a request: the prompt, and what follows it.
#[derive(Debug, Default)]
pub struct Sequence {
    /// Tokens after the prompt.
    pub suffix: Vec<u32>,
    /// The first position whose logits are still wanted.
    wanted: usize,
    /// Pages of what is computed.
    table: PageTable,
    /// Tokens of the step that is being put together.
    scheduled: usize,
}

impl Sequence {
    /// Its pages, those of the coming step included.
    pub fn pages(&self) -> &[u32] {
        self.table.pages()
    }

    /// Another sequence with the same past, which goes on with `tokens`; logits are wanted after each of them.
    pub fn fork(&self, prompt: &Tokens, tokens: &[u32], pool: &mut PagePool) -> Sequence {
        let wanted = prompt.ids.len() + self.suffix.len();
        let suffix = [&self.suffix, tokens].concat();
        Sequence { suffix, wanted, table: self.table.fork(pool), scheduled: 0 }
    }

    /// Goes on with a token, after which logits are wanted.
    pub fn push(&mut self, prompt: &Tokens, token: u32) {
        self.suffix.push(token);
        self.wanted = prompt.ids.len() + self.suffix.len() - 1;
    }

    /// Gives its pages back.
    pub fn clear(&mut self, pool: &mut PagePool) {
        self.table.clear(pool);
    }

    /// Whether all logits that were wanted are given out.
    pub fn is_read(&self, prompt: &Tokens) -> bool {
        self.wanted == prompt.ids.len() + self.suffix.len()
    }

    /// Tokens to run until all wanted logits are there.
    fn left(&self, prompt: &Tokens) -> usize {
        if self.is_read(prompt) { 0 } else { prompt.ids.len() + self.suffix.len() - self.table.length() }
    }
}

/// How a request uses its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceKind {
    /// One sequence that grows by what is written: its pages get hashes beyond the prompt.
    Decode,
    /// Sequences that grow together, token by token.
    BeamSearch,
    /// Sequences of known tokens, to be read when there is room.
    Prefill,
}

/// A request in numbers, with whatever its owner keeps beside it.
#[derive(Debug)]
pub struct RequestState<T> {
    /// Its number: later ones came later.
    pub number: u64,
    /// The prompt.
    pub prompt: Tokens,
    /// Its sequences; later ones are read first.
    pub sequences: Vec<Sequence>,
    /// Tokens that were found instead of computed.
    pub tokens_reused: usize,
    /// Images that were encoded.
    pub images_encoded: usize,
    /// Its owner's.
    pub work: T,
    kind: SequenceKind,
    /// Images whose pages it holds, and the pages.
    held: Vec<(u32, u32)>,
    /// Whether it has reused a page that was not confirmed then.
    leans: bool,
    /// Whether it reuses only confirmed pages.
    careful: bool,
}

impl<T> RequestState<T> {
    /// A request of one sequence, the prompt; logits are wanted from position `wanted` on.
    /// There will be at most `room` tokens in it.
    pub fn new(number: u64, mut prompt: Tokens, kind: SequenceKind, wanted: usize, room: usize, work: T) -> Self {
        prompt.pages.reserve(room / PAGE_TOKENS - prompt.pages.len());
        let table = PageTable::with_room(room);
        let sequence = Sequence { suffix: Vec::with_capacity(room - prompt.ids.len()), wanted, table, scheduled: 0 };
        let (sequences, held, leans, careful) = (vec![sequence], Vec::new(), false, false);
        RequestState {
            number,
            prompt,
            sequences,
            tokens_reused: 0,
            images_encoded: 0,
            work,
            kind,
            held,
            leans,
            careful,
        }
    }

    fn is_scheduled(&self) -> bool {
        self.sequences.iter().any(|sequence| sequence.scheduled > 0)
    }

    /// Gives up images that no sequence's next token sees, of sequences that have one to run.
    fn release_seen(&mut self, media: &mut PagePool) {
        let RequestState { prompt, sequences, held, .. } = self;
        held.retain(|&(image, page)| {
            // A sequence that has all its rows waits for others: it may have given up its pages, and wants none now.
            let mut open = sequences.iter().filter(|sequence| sequence.left(prompt) > 0);
            let needed = open.any(|sequence| prompt.seen_at(sequence.table.length()) == Some(image));
            if !needed {
                media.release(page);
            }
            needed
        });
    }

    fn page_of(&self, image: u32) -> Option<u32> {
        self.held.iter().find(|(held, _)| *held == image).map(|(_, page)| *page)
    }

    fn release_all(&mut self, text: &mut PagePool, media: &mut PagePool) {
        self.sequences.iter_mut().for_each(|sequence| sequence.clear(text));
        self.held.drain(..).for_each(|(_, page)| media.release(page));
    }
}

/// Some tokens of one line, as rows of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The request, by its place among those that run.
    pub request: usize,
    /// The sequence, by its place in the request.
    pub sequence: usize,
    /// The first row.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Of how many rows at the end logits are wanted.
    pub wanted: usize,
}

/// An image to be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encode {
    /// The number of the request whose image it is.
    pub request: u64,
    /// Which of its images.
    pub image: u32,
    /// The page to fill.
    pub page: u32,
}

/// A step: first pages are copied, then images encoded, then tokens run.
#[derive(Debug, Default)]
pub struct Step {
    /// Pages to copy, in order.
    pub copies: Vec<PageCopy>,
    /// Images to encode.
    pub encode: Vec<Encode>,
    /// Frames of all these.
    pub frames: usize,
    /// Token of each row.
    pub ids: Vec<u32>,
    /// Its position.
    pub positions: Vec<u32>,
    /// Which of `rows` it belongs to.
    pub sequences: Vec<u32>,
    /// The media page it sees.
    pub media: Vec<Option<u32>>,
    /// Which rows are whose.
    pub rows: Vec<Rows>,
    /// Text pages that got a hash for what this step will put there.
    hashed: Vec<u32>,
}

impl Step {
    fn clear(&mut self) {
        let Step { copies, encode, frames, ids, positions, sequences, media, rows, hashed } = self;
        *frames = 0;
        [ids, positions, sequences, hashed].into_iter().for_each(Vec::clear);
        copies.clear();
        encode.clear();
        media.clear();
        rows.clear();
    }
}

/// What is left of a step.
#[derive(Debug, Clone, Copy)]
struct Left {
    tokens: usize,
    /// How many frames the step may come to.
    frames_end: usize,
}

impl Left {
    /// Whether an image or video of so many frames can be encoded in the step: what is too much for any is encoded
    /// where nothing else is.
    fn has_room(&self, step: &Step, frames: usize) -> bool {
        step.encode.is_empty() || step.frames + frames <= self.frames_end
    }
}

/// Requests that wait and run, and the pages.
#[derive(Debug)]
pub struct Scheduler<T> {
    bounds: Bounds,
    /// Pages of tokens.
    pub text: PagePool,
    /// Pages of images.
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
        step.encode.iter().for_each(|encode| self.media.evict(encode.page));
        // Others may have such pages too, without being in the step themselves.
        for request in &mut self.running {
            let sequences = &mut request.sequences;
            let spoilt = |sequence: &Sequence| sequence.pages().iter().any(|page| step.hashed.contains(page));
            sequences
                .iter_mut()
                .filter(|sequence| spoilt(sequence))
                .for_each(|sequence| sequence.clear(&mut self.text));
            let spoilt = |page| step.encode.iter().any(|encode| encode.page == page);
            let (lost, held) = request.held.drain(..).partition(|&(_, page)| spoilt(page));
            request.held = held;
            lost.into_iter().for_each(|(_, page): (u32, u32)| self.media.release(page));
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
            for &(_, page) in held {
                media.confirm(page);
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
        request.prompt.images.iter().for_each(|hash| media.withdraw(hash));
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
        // One that came in only to find no page for its image would go out again at once.
        let no_image = !request.prompt.images.is_empty() && self.media.available() == 0;
        if !self.running.is_empty() && (self.text.available() < wanted || no_image) {
            return false;
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
            if !self.preempt(request, sequence) {
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
        let mut last = None;
        for position in first..first + count {
            let Some(image) = self.running[request].prompt.seen_at(position) else { continue };
            if last == Some(image) || self.running[request].page_of(image).is_some() {
                last = Some(image);
                continue;
            }
            let hash = self.running[request].prompt.images[image as usize];
            let frames = self.running[request].prompt.frames[image as usize];
            let confirmed = self.media.is_confirmed(&hash);
            let reuses = self.bounds.prefix_caching && (confirmed || !self.running[request].careful);
            let found = if reuses { self.media.lookup(&hash) } else { None };
            let page = match found {
                Some(page) => {
                    self.running[request].leans |= !confirmed;
                    page
                }
                None => {
                    let has_room = left.has_room(step, frames);
                    while has_room && self.media.available() == 0 && self.preempt(request, sequence) {}
                    if !has_room || self.media.available() == 0 {
                        return position - first;
                    }
                    let page = self.media.take().expect("one is available");
                    if self.bounds.prefix_caching {
                        self.media.set_hash(page, hash);
                    }
                    step.frames += frames;
                    self.running[request].images_encoded += 1;
                    step.encode.push(Encode { request: self.running[request].number, image, page });
                    page
                }
            };
            self.running[request].held.push((image, page));
            last = Some(image);
        }
        count
    }

    /// Frees pages for a sequence: those of the request that came last, if it came after this one and is not in the
    /// step yet; for the oldest request in the end those of its own other sequences.
    fn preempt(&mut self, request: usize, sequence: usize) -> bool {
        let later = self.running.iter().skip(request + 1).rposition(|later| !later.is_scheduled());
        if let Some(place) = later {
            let victim = self.remove_running(request + 1 + place);
            event!(DEBUG, request = victim.number, "request preempted");
            let place = self.waiting.partition_point(|waiting| waiting.number < victim.number);
            self.waiting.insert(place, victim);
            self.preemptions += 1;
            return true;
        }
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
                for position in begin..end {
                    let prompt = &request.prompt;
                    step.ids.push(prompt.id_at(position, &sequence.suffix));
                    step.positions.push(position as u32);
                    step.sequences.push(rows);
                    let page = |image| request.page_of(image).expect("images of scheduled tokens have pages");
                    step.media.push(prompt.seen_at(position).map(page));
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

#[cfg(test)]
mod tests;
