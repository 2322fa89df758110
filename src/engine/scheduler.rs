//! What runs in the next step. Integers only: tokens, pages, pictures by number; no device, no text.
//!
//! A job has lines: sequences that share its prompt. Lines that write get their next token first, in every step. What
//! is left of a step goes to prompts in order of arrival, each at most half of what is left so that a long one does not
//! keep others waiting, and what nobody else wants in a second round. A token that sees a picture waits for its page;
//! pages of text that are in the pool already, whoever computed them, even in this same step, are adopted instead of
//! computed: all keys and values of a step are written before any is read. When pages run out, the job that came last
//! gives up its own and waits again; when it is resumed, it computes again what it cannot find.
//!
//! What a model makes of a prompt may not be finite, and keys that are not may spoil those of tokens before them in the
//! same step. A row of logits that is finite confirms all pages it was made from. After one that is not, names of its
//! prompt's pages are taken away unless they are confirmed; and a job that had adopted such pages from others begins
//! again without, so that what spoilt it can only be its own.

use std::collections::VecDeque;

use blake3::Hash;

use crate::kv::{PAGE_TOKENS, PageCopy, PagePool, PageTable};

/// What a step may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Jobs that run.
    pub jobs: usize,
    /// Tokens of a step.
    pub tokens: usize,
    /// Frames encoded in a step; a picture is one, a video that has more is encoded without another.
    pub frames: usize,
    /// Whether pages are found again by their content.
    pub sharing: bool,
}

/// A prompt in numbers.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Its tokens, at least one.
    pub ids: Vec<u32>,
    /// For each token the picture of the prompt, from 0, that it sees. Tokens after the prompt see what the last sees.
    pub sees: Vec<Option<u32>>,
    /// For each picture its content.
    pub pictures: Vec<Hash>,
    /// And of how many frames it is.
    pub frames: Vec<usize>,
    /// Names of the full pages.
    pub pages: Vec<Hash>,
}

impl Tokens {
    /// Names a prompt's pages: each by all tokens up to its end and the pictures they see.
    pub fn new(ids: Vec<u32>, sees: Vec<Option<u32>>, pictures: Vec<Hash>, frames: Vec<usize>) -> Tokens {
        let mut tokens = Tokens { ids, sees, pictures, frames, pages: Vec::new() };
        while tokens.pages.len() < tokens.ids.len() / PAGE_TOKENS {
            tokens.name_next(&[]);
        }
        tokens
    }

    /// Names the next page, which ends among the tokens of `suffix` after the prompt.
    fn name_next(&mut self, suffix: &[u32]) {
        let mut hasher = blake3::Hasher::new();
        if let Some(before) = self.pages.last() {
            hasher.update(before.as_bytes());
        }
        let first = self.pages.len() * PAGE_TOKENS;
        let positions = first..first + PAGE_TOKENS;
        for position in positions.clone() {
            hasher.update(&self.id_at(position, suffix).to_le_bytes());
        }
        // A picture is seen from some token on.
        let mut seen = None;
        for (place, picture) in positions.map(|position| self.seen_at(position)).enumerate() {
            if place == 0 || picture != seen {
                let content = picture.map_or([0; blake3::OUT_LEN], |number| *self.pictures[number as usize].as_bytes());
                hasher.update(&[place as u8]).update(&content);
                seen = picture;
            }
        }
        self.pages.push(hasher.finalize());
    }

    /// The token at a position, of the prompt or of `suffix` after it.
    fn id_at(&self, position: usize, suffix: &[u32]) -> u32 {
        self.ids.get(position).copied().unwrap_or_else(|| suffix[position - self.ids.len()])
    }

    /// The picture that the token at a position sees.
    pub fn seen_at(&self, position: usize) -> Option<u32> {
        self.sees[position.min(self.sees.len() - 1)]
    }
}

/// One sequence of a job: the prompt, and what follows it.
#[derive(Debug, Default)]
pub struct Line {
    /// Tokens after the prompt.
    pub suffix: Vec<u32>,
    /// The first position whose logits are still wanted.
    wanted: usize,
    /// Pages of what is computed.
    table: PageTable,
    /// Tokens of the step that is being put together.
    scheduled: usize,
}

impl Line {
    /// Its pages, those of the coming step included.
    pub fn pages(&self) -> &[u32] {
        self.table.pages()
    }

    /// Another line with the same past, which goes on with `tokens`; logits are wanted after each of them.
    pub fn fork(&self, prompt: &Tokens, tokens: &[u32], pool: &mut PagePool) -> Line {
        let wanted = prompt.ids.len() + self.suffix.len();
        let suffix = [&self.suffix, tokens].concat();
        Line { suffix, wanted, table: self.table.fork(pool), scheduled: 0 }
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

/// How a job uses its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// One line that grows by what is written: its pages get names beyond the prompt.
    Writes,
    /// Lines that grow together, token by token.
    Searches,
    /// Lines of known tokens, to be read when there is room.
    Reads,
}

/// A request in numbers, with whatever its owner keeps beside it.
#[derive(Debug)]
pub struct Job<T> {
    /// Its number: later ones came later.
    pub number: u64,
    /// The prompt.
    pub prompt: Tokens,
    /// Its sequences; later ones are read first.
    pub lines: Vec<Line>,
    /// Tokens that were found instead of computed.
    pub tokens_found: usize,
    /// Pictures that were encoded.
    pub pictures_encoded: usize,
    /// Its owner's.
    pub work: T,
    pace: Pace,
    /// Pictures whose pages it holds, and the pages.
    held: Vec<(u32, u32)>,
    /// Whether it has adopted a page that was not confirmed then.
    leans: bool,
    /// Whether it adopts only confirmed pages.
    careful: bool,
}

impl<T> Job<T> {
    /// A job of one line, the prompt; logits are wanted from position `wanted` on.
    /// There will be at most `room` tokens in it.
    pub fn new(number: u64, mut prompt: Tokens, pace: Pace, wanted: usize, room: usize, work: T) -> Self {
        prompt.pages.reserve(room / PAGE_TOKENS - prompt.pages.len());
        let table = PageTable::with_room(room);
        let line = Line { suffix: Vec::with_capacity(room - prompt.ids.len()), wanted, table, scheduled: 0 };
        let (lines, held, leans, careful) = (vec![line], Vec::new(), false, false);
        Job { number, prompt, lines, tokens_found: 0, pictures_encoded: 0, work, pace, held, leans, careful }
    }

    fn is_scheduled(&self) -> bool {
        self.lines.iter().any(|line| line.scheduled > 0)
    }

    /// Gives up pictures that no line's next token sees, of lines that have one to run.
    fn release_seen(&mut self, media: &mut PagePool) {
        let Job { prompt, lines, held, .. } = self;
        held.retain(|&(picture, page)| {
            // A line that has all its rows waits for others: it may have given up its pages, and wants none now.
            let mut open = lines.iter().filter(|line| line.left(prompt) > 0);
            let needed = open.any(|line| prompt.seen_at(line.table.length()) == Some(picture));
            if !needed {
                media.release(page);
            }
            needed
        });
    }

    fn page_of(&self, picture: u32) -> Option<u32> {
        self.held.iter().find(|(held, _)| *held == picture).map(|(_, page)| *page)
    }

    fn release_all(&mut self, text: &mut PagePool, media: &mut PagePool) {
        self.lines.iter_mut().for_each(|line| line.clear(text));
        self.held.drain(..).for_each(|(_, page)| media.release(page));
    }
}

/// Some tokens of one line, as rows of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The job, by its place among those that run.
    pub job: usize,
    /// The line, by its place in the job.
    pub line: usize,
    /// The first row.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Of how many rows at the end logits are wanted.
    pub wanted: usize,
}

/// A picture to be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encode {
    /// The number of the job whose picture it is.
    pub job: u64,
    /// Which of its pictures.
    pub picture: u32,
    /// The page to fill.
    pub page: u32,
}

/// A step: first pages are copied, then pictures encoded, then tokens run.
#[derive(Debug, Default)]
pub struct Step {
    /// Pages to copy, in order.
    pub copies: Vec<PageCopy>,
    /// Pictures to encode.
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
    /// Text pages that got a name for what this step will put there.
    named: Vec<u32>,
}

impl Step {
    fn clear(&mut self) {
        let Step { copies, encode, frames, ids, positions, sequences, media, rows, named } = self;
        *frames = 0;
        [ids, positions, sequences, named].into_iter().for_each(Vec::clear);
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
    /// Whether a picture or video of so many frames can be encoded in the step: what is too much for any is encoded
    /// where nothing else is.
    fn has_room(&self, step: &Step, frames: usize) -> bool {
        step.encode.is_empty() || step.frames + frames <= self.frames_end
    }
}

/// Jobs that wait and run, and the pages.
#[derive(Debug)]
pub struct Scheduler<T> {
    bounds: Bounds,
    /// Pages of tokens.
    pub text: PagePool,
    /// Pages of pictures.
    pub media: PagePool,
    /// Jobs in order of arrival.
    pub waiting: VecDeque<Job<T>>,
    /// Jobs in order of arrival, all of which came before those that wait.
    pub running: Vec<Job<T>>,
    /// How often a job gave up its pages.
    pub preemptions: u64,
    /// The running job that gets its tokens first, because the last step had no room for it.
    turn: usize,
}

impl<T> Scheduler<T> {
    /// No jobs.
    pub fn new(bounds: Bounds, text_pages: usize, media_pages: usize) -> Self {
        Scheduler {
            bounds,
            text: PagePool::new(text_pages),
            media: PagePool::new(media_pages),
            waiting: VecDeque::new(),
            running: Vec::with_capacity(bounds.jobs),
            preemptions: 0,
            turn: 0,
        }
    }

    /// Adds a job behind all others.
    pub fn add(&mut self, job: Job<T>) {
        self.waiting.push_back(job);
    }

    /// Takes a job out, wherever it is, and frees what it holds.
    pub fn remove(&mut self, number: u64) -> Option<Job<T>> {
        if let Ok(place) = self.running.binary_search_by_key(&number, |job| job.number) {
            return Some(self.remove_running(place));
        }
        let place = self.waiting.binary_search_by_key(&number, |job| job.number).ok()?;
        self.waiting.remove(place)
    }

    /// Takes a running job out by its place, and frees what it holds.
    pub fn remove_running(&mut self, place: usize) -> Job<T> {
        let mut job = self.running.remove(place);
        job.release_all(&mut self.text, &mut self.media);
        job
    }

    /// Puts the next step together.
    pub fn schedule(&mut self, step: &mut Step) {
        step.clear();
        self.running.iter_mut().for_each(|job| job.release_seen(&mut self.media));
        let mut left = Left { tokens: self.bounds.tokens, frames_end: self.bounds.frames };
        self.write(&mut left, step);
        self.read(&mut left, step, true);
        self.read(&mut left, step, false);
        self.emit(step);
    }

    /// A step has failed: its jobs are out, and what it was to put into pages is not there.
    pub fn fail(&mut self, step: &Step) -> Vec<Job<T>> {
        step.named.iter().for_each(|&page| self.text.forget(page));
        step.encode.iter().for_each(|encode| self.media.forget(encode.page));
        // Others may have such pages too, without being in the step themselves.
        for job in &mut self.running {
            let lines = &mut job.lines;
            let spoilt = |line: &Line| line.pages().iter().any(|page| step.named.contains(page));
            lines.iter_mut().filter(|line| spoilt(line)).for_each(|line| line.clear(&mut self.text));
            let spoilt = |page| step.encode.iter().any(|encode| encode.page == page);
            let (lost, held) = job.held.drain(..).partition(|&(_, page)| spoilt(page));
            job.held = held;
            lost.into_iter().for_each(|(_, page): (u32, u32)| self.media.release(page));
        }
        let mut places: Vec<usize> = step.rows.iter().map(|rows| rows.job).collect();
        places.dedup();
        places.into_iter().rev().map(|place| self.remove_running(place)).collect()
    }

    /// All rows that the step wanted of a running job were finite; `rows` are the job's.
    pub fn confirm(&mut self, rows: &[Rows]) {
        let Scheduler { running, text, media, bounds, .. } = self;
        if !bounds.sharing {
            return;
        }
        for rows in rows.iter().filter(|rows| rows.wanted > 0) {
            let Job { lines, held, .. } = &running[rows.job];
            let table = &lines[rows.line].table;
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

    /// A row that the step wanted of a running job was not finite: what is not confirmed is not to be found any more.
    /// A job that has adopted such pages begins again, and will have the rows of the step again; whether it does.
    pub fn doubt(&mut self, place: usize, step: &Step) -> bool {
        let Scheduler { running, text, media, .. } = self;
        let job = &mut running[place];
        job.prompt.pages.iter().for_each(|name| text.withdraw(name));
        job.prompt.pictures.iter().for_each(|name| media.withdraw(name));
        let again = job.leans && !job.careful;
        if again {
            job.careful = true;
            job.release_all(text, media);
            for rows in step.rows.iter().filter(|rows| rows.job == place) {
                job.lines[rows.line].wanted -= rows.wanted;
            }
        }
        again
    }

    /// One token for each line that writes, beginning with the job that had none in the last step.
    fn write(&mut self, left: &mut Left, step: &mut Step) {
        let turn = std::mem::take(&mut self.turn);
        let mut stalled = None;
        for (from, to) in [(turn, usize::MAX), (0, turn)] {
            let mut job = from;
            while job < self.running.len().min(to) {
                let mut line = 0;
                while self.running[job].pace != Pace::Reads && line < self.running[job].lines.len() {
                    let Job { prompt, lines, .. } = &self.running[job];
                    if lines[line].left(prompt) == 1 && self.allot(job, line, left, step) == 0 {
                        self.turn = *stalled.get_or_insert(job);
                    }
                    line += 1;
                }
                job += 1;
            }
        }
    }

    /// Tokens of prompts, and of other lines that are read, in order of arrival; in the first round a job gets at most
    /// half of what is left, and jobs that wait come in.
    fn read(&mut self, left: &mut Left, step: &mut Step, first_round: bool) {
        let mut job = 0;
        while left.tokens > 0 {
            if job == self.running.len() && !(first_round && self.admit()) {
                return;
            }
            let mut share = *left;
            if first_round {
                share.tokens = left.tokens.div_ceil(2).max(PAGE_TOKENS).min(left.tokens);
                share.frames_end -= left.frames_end.saturating_sub(step.frames) / 2;
            }
            let before = share.tokens;
            for line in (0..self.running[job].lines.len()).rev() {
                if share.tokens == 0 {
                    break;
                }
                self.allot(job, line, &mut share, step);
            }
            left.tokens -= before - share.tokens;
            job += 1;
        }
    }

    /// Lets the first job that waits run, if there is room for it; nobody overtakes it.
    fn admit(&mut self) -> bool {
        let Some(job) = self.waiting.front() else { return false };
        if self.running.len() == self.bounds.jobs {
            return false;
        }
        let tokens = job.prompt.ids.len() + job.lines[0].suffix.len() + 1;
        let found = job.prompt.pages.iter().take_while(|name| self.bounds.sharing && self.text.is_held(name)).count();
        let wanted = tokens.div_ceil(PAGE_TOKENS).saturating_sub(found);
        // One that came in only to find no page for its picture would go out again at once.
        let no_picture = !job.prompt.pictures.is_empty() && self.media.available() == 0;
        if !self.running.is_empty() && (self.text.available() < wanted || no_picture) {
            return false;
        }
        let job = self.waiting.pop_front().expect("it is there");
        let place = self.running.partition_point(|running| running.number < job.number);
        self.running.insert(place, job);
        true
    }

    /// Gives a line as many of its tokens as `left` has, and as there are pages for; how many.
    fn allot(&mut self, job: usize, line: usize, left: &mut Left, step: &mut Step) -> usize {
        self.adopt(job, line);
        let Job { prompt, lines, .. } = &self.running[job];
        let mut count = lines[line].left(prompt).min(left.tokens);
        count = self.before_others(job, line, count);
        while self.running[job].lines[line].table.room(&self.text) < count {
            if !self.give_way(job, line) {
                count = count.min(self.running[job].lines[line].table.room(&self.text));
            }
        }
        count = self.show(job, line, count, left, step);
        if count == 0 {
            return 0;
        }
        let Job { prompt, lines, .. } = &mut self.running[job];
        let Line { table, scheduled, .. } = &mut lines[line];
        let full_before = table.length() / PAGE_TOKENS;
        step.copies.extend(table.extend(&mut self.text, count));
        *scheduled += count;
        left.tokens -= count;
        if self.bounds.sharing {
            let full = full_before..(table.length() / PAGE_TOKENS).min(prompt.pages.len());
            for place in full {
                let page = table.pages()[place];
                self.text.name(page, prompt.pages[place]);
                step.named.push(page);
            }
        }
        count
    }

    /// Goes on with pages whose content is there already, as far as no logits in them are wanted.
    fn adopt(&mut self, job: usize, line: usize) {
        let Job { prompt, lines, tokens_found, leans, careful, .. } = &mut self.running[job];
        let Line { table, wanted, scheduled, .. } = &mut lines[line];
        // Tokens of one step stand side by side.
        if *scheduled > 0 {
            return;
        }
        while self.bounds.sharing && table.is_aligned() && table.length() + PAGE_TOKENS <= *wanted {
            let Some(name) = prompt.pages.get(table.length() / PAGE_TOKENS) else { return };
            let confirmed = self.text.is_confirmed(name);
            if *careful && !confirmed {
                return;
            }
            let Some(page) = self.text.find(name) else { return };
            *leans |= !confirmed;
            table.adopt(page);
            *tokens_found += PAGE_TOKENS;
        }
    }

    /// How many of a line's next `count` tokens stand before a page that it can adopt in the next step, or that an
    /// earlier job is about to compute.
    fn before_others(&self, job: usize, line: usize, count: usize) -> usize {
        let (earlier, Job { prompt, lines, careful, .. }) = (&self.running[..job], &self.running[job]);
        if *careful {
            return count;
        }
        let Line { table, wanted, scheduled, .. } = &lines[line];
        let begin = table.length();
        let computes = |earlier: &Job<T>, page: usize| {
            let line = &earlier.lines[0];
            earlier.prompt.pages.get(page) == prompt.pages.get(page)
                && line.table.length() < (page + 1) * PAGE_TOKENS
                && !line.is_read(&earlier.prompt)
        };
        let is_others = |page: usize| {
            let came_up = *scheduled > 0 || page * PAGE_TOKENS > begin;
            (came_up && self.text.has(&prompt.pages[page])) || earlier.iter().any(|earlier| computes(earlier, page))
        };
        let adoptable = if self.bounds.sharing { prompt.pages.len().min(wanted / PAGE_TOKENS) } else { 0 };
        let pages = begin.div_ceil(PAGE_TOKENS)..adoptable.min((begin + count).div_ceil(PAGE_TOKENS));
        pages.into_iter().find(|&page| is_others(page)).map_or(count, |page| page * PAGE_TOKENS - begin)
    }

    /// Sees that the pictures of a line's next `count` tokens have pages; for how many of the tokens they do.
    fn show(&mut self, job: usize, line: usize, count: usize, left: &Left, step: &mut Step) -> usize {
        let first = self.running[job].lines[line].table.length();
        let mut last = None;
        for position in first..first + count {
            let Some(picture) = self.running[job].prompt.seen_at(position) else { continue };
            if last == Some(picture) || self.running[job].page_of(picture).is_some() {
                last = Some(picture);
                continue;
            }
            let name = self.running[job].prompt.pictures[picture as usize];
            let frames = self.running[job].prompt.frames[picture as usize];
            let confirmed = self.media.is_confirmed(&name);
            let adopts = self.bounds.sharing && (confirmed || !self.running[job].careful);
            let found = if adopts { self.media.find(&name) } else { None };
            let page = match found {
                Some(page) => {
                    self.running[job].leans |= !confirmed;
                    page
                }
                None => {
                    let has_room = left.has_room(step, frames);
                    while has_room && self.media.available() == 0 && self.give_way(job, line) {}
                    if !has_room || self.media.available() == 0 {
                        return position - first;
                    }
                    let page = self.media.take().expect("one is available");
                    if self.bounds.sharing {
                        self.media.name(page, name);
                    }
                    step.frames += frames;
                    self.running[job].pictures_encoded += 1;
                    step.encode.push(Encode { job: self.running[job].number, picture, page });
                    page
                }
            };
            self.running[job].held.push((picture, page));
            last = Some(picture);
        }
        count
    }

    /// Frees pages for a line: those of the job that came last, if it came after this one and is not in the step yet;
    /// for the oldest job in the end those of its own other lines.
    fn give_way(&mut self, job: usize, line: usize) -> bool {
        let later = self.running.iter().skip(job + 1).rposition(|later| !later.is_scheduled());
        if let Some(place) = later {
            let victim = self.remove_running(job + 1 + place);
            let place = self.waiting.partition_point(|waiting| waiting.number < victim.number);
            self.waiting.insert(place, victim);
            self.preemptions += 1;
            return true;
        }
        if job > 0 {
            return false;
        }
        let others = self.running[job].lines.iter_mut().enumerate();
        let mut holders =
            others.filter(|(place, other)| *place != line && other.scheduled == 0 && !other.table.pages().is_empty());
        let Some((_, other)) = holders.next() else { return false };
        other.clear(&mut self.text);
        true
    }

    /// Writes the rows of all scheduled lines.
    fn emit(&mut self, step: &mut Step) {
        for (place, job) in self.running.iter_mut().enumerate() {
            for index in 0..job.lines.len() {
                let line = &mut job.lines[index];
                let count = std::mem::take(&mut line.scheduled);
                if count == 0 {
                    continue;
                }
                let (end, first) = (line.table.length(), step.ids.len());
                let (line, begin, sequence) = (&job.lines[index], end - count, step.rows.len() as u32);
                for position in begin..end {
                    let prompt = &job.prompt;
                    step.ids.push(prompt.id_at(position, &line.suffix));
                    step.positions.push(position as u32);
                    step.sequences.push(sequence);
                    let page = |picture| job.page_of(picture).expect("pictures of scheduled tokens have pages");
                    step.media.push(prompt.seen_at(position).map(page));
                }
                let wanted = end.saturating_sub(line.wanted.max(begin));
                job.lines[index].wanted += wanted;
                step.rows.push(Rows { job: place, line: index, first, count, wanted });
            }
        }
    }

    /// A job that writes has a new token: a page that is known whole by it gets a name.
    pub fn name_written(&mut self, job: usize) {
        let Job { prompt, lines, pace, .. } = &mut self.running[job];
        let known = prompt.ids.len() + lines[0].suffix.len();
        if *pace == Pace::Writes && self.bounds.sharing && prompt.pages.len() < known / PAGE_TOKENS {
            prompt.name_next(&lines[0].suffix);
        }
    }
}

#[cfg(test)]
mod tests;
