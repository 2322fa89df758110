//! Random requests, cancels and failures under random limits, on a device of integers: what a token's keys would be is
//! a hash of all before it, read from the pages that the scheduler hashes. Whatever is shared, copied, given up or
//! found again must come out as if each request had been alone. Images have 1 to 7 pages, and a token sees up to 4. One
//! token has keys that are no numbers: those after it have none either, and it spoils some before it, but no request
//! without it.

use std::collections::HashMap;

use blake3::Hash;

use super::*;
use crate::kv::{ImagePages, MEDIA_PAGE_ROWS};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A token whose keys are no numbers.
const SICK: u32 = 50;
/// What stands for such keys.
const NAN: u64 = u64::MAX;

/// What a token's keys are: all before it, itself, and the images it sees, in their order.
fn key(before: u64, id: u32, images: impl Iterator<Item = Hash>) -> u64 {
    if before == NAN || id == SICK {
        return NAN;
    }
    let number = |hash: Hash| u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
    let images = images.fold(0, |before, hash| Random(before ^ number(hash)).next());
    Random(before ^ (u64::from(id) << 1) ^ images.rotate_left(17)).next()
}

/// The image of a content: of 1 to 7 pages, the last of them full or not.
fn image(content: u8) -> PromptImage {
    let content = blake3::hash(&[content]);
    let [frames, pages, rows] = [0, 1, 2].map(|byte| usize::from(content.as_bytes()[byte]));
    PromptImage { content, frames: 1 + frames % 4, rows: pages % 7 * MEDIA_PAGE_ROWS + 1 + rows % MEDIA_PAGE_ROWS }
}

/// What a sequence's last known token must come to.
fn truth(prompt: &Tokens, suffix: &[u32], position: usize) -> u64 {
    (0..=position).fold(0, |before, position| {
        let id = prompt.ids.get(position).copied().unwrap_or_else(|| suffix[position - prompt.ids.len()]);
        key(before, id, prompt.images[prompt.seen_at(position).range()].iter().map(|image| image.content))
    })
}

struct Device {
    text: Vec<[u64; PAGE_TOKENS]>,
    /// The image of each page, which of its pages that is, and the rows in it.
    media: Vec<Option<(Hash, usize, u32)>>,
}

/// The pages of an image with the rows in each.
fn filled(pages: &[u32], rows: u32) -> impl Iterator<Item = (usize, u32, u32)> {
    assert_eq!(pages.len(), (rows as usize).div_ceil(MEDIA_PAGE_ROWS));
    let rows = move |place: usize| (rows - (place * MEDIA_PAGE_ROWS) as u32).min(MEDIA_PAGE_ROWS as u32);
    pages.iter().enumerate().map(move |(place, &page)| (place, page, rows(place)))
}

impl Device {
    /// Runs a step; what each row comes to.
    fn run(&mut self, step: &Step, scheduler: &Scheduler<Work>) -> Vec<u64> {
        for copy in &step.copies {
            self.text[copy.to as usize] = self.text[copy.from as usize];
        }
        assert_eq!(step.encode.len(), step.encoded.iter().count());
        for (encode, ImagePages { pages, rows }) in step.encode.iter().zip(step.encoded.iter()) {
            let request = scheduler.running.iter().find(|request| request.number == encode.request).unwrap();
            let image = request.prompt.images[encode.image as usize];
            assert_eq!((pages[0], rows as usize), (encode.entry, image.rows));
            for (place, page, rows) in filled(pages, rows) {
                self.media[page as usize] = Some((image.content, place, rows));
            }
        }
        let images: Vec<Hash> = step.images.iter().map(|image| self.image(image.pages, image.rows)).collect();
        // Layer by layer all keys are written before any is read: here that is position by position.
        let mut order: Vec<usize> = (0..step.ids.len()).collect();
        order.sort_by_key(|&row| step.positions[row]);
        let mut out = vec![0; step.ids.len()];
        for row in order {
            let before = match step.positions[row] {
                0 => 0,
                position => *self.slot(step, scheduler, row, position - 1),
            };
            let seen = images[step.media[row].range()].iter().copied();
            // A product of matrices has rows in common: what comes next in the same step may count 0 times NaN.
            let rows = step.rows[step.sequences[row] as usize];
            let next = row + 1..(row + PAGE_TOKENS).min(rows.first + rows.count);
            let spoilt = step.ids[next].contains(&SICK);
            out[row] = if spoilt { NAN } else { key(before, step.ids[row], seen) };
            *self.slot(step, scheduler, row, step.positions[row]) = out[row];
        }
        out
    }

    /// The image that lies in these pages, whole.
    fn image(&self, pages: &[u32], rows: u32) -> Hash {
        let content = self.media[pages[0] as usize].expect("an encoded image").0;
        for (place, page, rows) in filled(pages, rows) {
            assert_eq!(self.media[page as usize], Some((content, place, rows)), "a page of the image");
        }
        content
    }

    /// Where the sequence of a row has a position.
    fn slot(&mut self, step: &Step, scheduler: &Scheduler<Work>, row: usize, position: u32) -> &mut u64 {
        let rows = step.rows[step.sequences[row] as usize];
        let pages = scheduler.running[rows.request].sequences[rows.sequence].pages();
        &mut self.text[pages[position as usize / PAGE_TOKENS] as usize][position as usize % PAGE_TOKENS]
    }

    /// Leaves what no step should ever read.
    fn spoil(&mut self, step: &Step, scheduler: &Scheduler<Work>) {
        for row in 0..step.ids.len() {
            *self.slot(step, scheduler, row, step.positions[row]) = 0xbad;
        }
        let pages = step.encoded.iter().flat_map(|image| image.pages);
        pages.for_each(|&page| self.media[page as usize] = None);
    }
}

/// What a request still does: steps of a sequence that writes, rounds of a search, or depth of a tree.
#[derive(Debug, Clone)]
struct Work {
    left: usize,
    /// For each sequence the positions whose rows have come.
    came: Vec<Vec<usize>>,
}

/// An example of a prompt.
struct Shot {
    text: Vec<u32>,
    /// Up to 3 of few images.
    images: Vec<PromptImage>,
    /// Whether its tokens see the image before these too.
    looks_back: bool,
    /// Whether tokens after it see nothing.
    ends: bool,
}

impl Shot {
    fn new(random: &mut Random, has_sick: bool) -> Shot {
        let mut text: Vec<u32> = (0..3 + random.below(30)).map(|_| random.below(50) as u32).collect();
        if has_sick && random.below(4) == 0 {
            let place = random.below(text.len());
            text[place] = SICK;
        }
        let images = (0..random.below(4)).map(|_| image(random.below(6) as u8)).collect();
        Shot { text, images, looks_back: random.below(3) == 0, ends: random.below(4) == 0 }
    }

    /// Adds it to a prompt: its first tokens see one image more each, the others all.
    fn extend(&self, ids: &mut Vec<u32>, sees: &mut Vec<MediaSeen>, images: &mut Vec<PromptImage>) {
        let back = usize::from(self.looks_back).min(images.len());
        let first = images.len() - back;
        for place in 0..self.text.len() {
            let count = back + self.images.len().min(place + 1);
            sees.push(match self.images.len() {
                0 => sees.last().copied().unwrap_or_default(),
                _ => MediaSeen { first: first as u32, images: count as u32 },
            });
        }
        ids.extend(&self.text);
        images.extend(&self.images);
        if self.ends {
            ids.push(7);
            sees.push(MediaSeen::NOTHING);
        }
    }
}

fn tokens(random: &mut Random, shots: &[Shot], length_max: usize, prefix_caching: bool) -> Tokens {
    let (mut ids, mut sees, mut images) = (Vec::new(), Vec::new(), Vec::new());
    // Few examples to choose from, in few orders, so that prompts begin alike.
    let first = random.below(2);
    for shot in 0..random.below(shots.len() + 1) {
        let shot = &shots[(first + shot) % shots.len()];
        if ids.len() + shot.text.len() + 5 > length_max {
            break;
        }
        shot.extend(&mut ids, &mut sees, &mut images);
    }
    for _ in 0..1 + random.below(3) {
        ids.push(random.below(5) as u32);
        sees.push(sees.last().copied().unwrap_or_default());
    }
    match prefix_caching {
        true => Tokens::new(ids, sees, images),
        false => Tokens { ids, sees, images, ..Tokens::default() },
    }
}

/// Lets a request go on after its rows; whether it has ended.
fn settle(
    request: &mut RequestState<Work>,
    pool: &mut PagePool,
    results: &HashMap<usize, u64>,
    random: &mut Random,
) -> bool {
    let RequestState { prompt, sequences, work, kind, .. } = request;
    match kind {
        SequenceKind::Decode => {
            if work.left == 0 {
                return true;
            }
            work.left -= 1;
            sequences[0].push(prompt, (results[&0] % 7) as u32);
        }
        SequenceKind::BeamSearch => {
            if !sequences.iter().all(|sequence| sequence.is_read(prompt)) {
                return false;
            }
            if work.left == 0 {
                return true;
            }
            work.left -= 1;
            let beams = 3;
            let grown: Vec<Sequence> = (0..beams)
                .map(|beam| sequences[random.below(sequences.len())].fork(prompt, &[beam as u32], pool))
                .collect();
            std::mem::replace(sequences, grown).iter_mut().for_each(|sequence| sequence.clear(pool));
            work.came = vec![Vec::new(); beams];
        }
        SequenceKind::Prefill => {
            let mut place = 0;
            while place < sequences.len() {
                if !sequences[place].is_read(prompt) {
                    place += 1;
                    continue;
                }
                let mut sequence = sequences.remove(place);
                work.came.remove(place);
                for branch in 0..if work.left > 0 { 1 + random.below(4) } else { 0 } {
                    let stretch: Vec<u32> = (0..1 + random.below(20)).map(|i| (i + branch) as u32).collect();
                    work.left = work.left.saturating_sub(1);
                    sequences.push(sequence.fork(prompt, &stretch, pool));
                    work.came.push(Vec::new());
                }
                sequence.clear(pool);
            }
            return sequences.is_empty();
        }
    }
    false
}

/// Hands rows to their requests; which requests have ended, by their place, and whether all their rows were numbers.
fn commit(
    scheduler: &mut Scheduler<Work>,
    step: &Step,
    values: &[u64],
    random: &mut Random,
    seed: u64,
) -> Vec<(usize, bool)> {
    let mut ended = Vec::new();
    for rows_of_job in step.rows.chunk_by(|a, b| a.request == b.request) {
        let place = rows_of_job[0].request;
        let wanted = |rows: &Rows| values[rows.first + rows.count - rows.wanted..][..rows.wanted].contains(&NAN);
        if rows_of_job.iter().any(wanted) {
            ended.push((place, false));
            continue;
        }
        scheduler.confirm(rows_of_job);
        let Scheduler { running, text, .. } = scheduler;
        let request = &mut running[place];
        let mut results = HashMap::new();
        for rows in rows_of_job {
            let end = rows.first + rows.count;
            let positions = step.positions[end - rows.wanted..end].iter().map(|&position| position as usize);
            for (position, &value) in positions.zip(&values[end - rows.wanted..end]) {
                let want = truth(&request.prompt, &request.sequences[rows.sequence].suffix, position);
                assert_eq!(value, want, "seed {seed}, job {}, position {position}", request.number);
                let came = &mut request.work.came[rows.sequence];
                assert!(came.last().is_none_or(|last| last + 1 == position), "rows come once and in order");
                came.push(position);
                results.insert(rows.sequence, value);
            }
        }
        if !results.is_empty() {
            match settle(request, text, &results, random) {
                true => ended.push((place, true)),
                false => scheduler.hash_decoded(place),
            }
        }
    }
    ended
}

/// Whether a step is within what its scheduler may do, and requests are in order.
fn assert_bounds(scheduler: &Scheduler<Work>, step: &Step) {
    let Scheduler { bounds, running, waiting, .. } = scheduler;
    // More frames than a step has are those of images that one token sees.
    let one_token = step.encode.len() <= 4 && step.encode.iter().all(|encode| encode.request == step.encode[0].request);
    assert!(step.ids.len() <= bounds.tokens && (step.frames <= bounds.frames || one_token));
    assert!(step.encode.is_empty() || !step.ids.is_empty(), "what is encoded is seen");
    assert!(running.len() <= bounds.requests && running.is_sorted_by_key(|request| request.number));
    assert!(waiting.iter().is_sorted_by_key(|request| request.number));
}

/// Whether all pages that are held are held by somebody.
fn assert_nothing_is_lost(scheduler: &Scheduler<Work>, seed: u64) {
    scheduler.text.check();
    scheduler.media.check();
    let sequences = scheduler.running.iter().chain(&scheduler.waiting).flat_map(|request| &request.sequences);
    let held: std::collections::BTreeSet<u32> =
        sequences.flat_map(|sequence| sequence.pages().iter().copied()).collect();
    assert_eq!(held.len(), scheduler.text.total() - scheduler.text.available(), "seed {seed}: pages are lost");
    let held = scheduler.running.iter().chain(&scheduler.waiting).flat_map(|request| &request.held);
    let held: std::collections::BTreeSet<u32> = held.map(|held| held.entry).collect();
    assert_eq!(held.len(), scheduler.media.held().entries, "seed {seed}: images are lost");
}

/// Steps until all is done, with all that may happen on the way. Counts steps, preemptions, tokens found, and requests
/// that failed or began again for rows that are no numbers, or were refused for too many media pages.
fn play(seed: u64) -> [usize; 6] {
    let mut random = Random(seed);
    let shots: Vec<Shot> = (0..6).map(|_| Shot::new(&mut random, seed % 2 == 1)).collect();
    let context = 40 + random.below(120);
    let prefix_caching = random.below(4) > 0;
    let bounds = Bounds {
        requests: 1 + random.below(8),
        tokens: 1 + random.below(64),
        frames: 1 + random.below(5),
        prefix_caching,
    };
    let text_pages = context.div_ceil(PAGE_TOKENS) + 1 + random.below(30);
    // What the largest prompt needs for one token, or a little more or less.
    let media_pages = 1 + random.below(30);
    let mut scheduler: Scheduler<Work> = Scheduler::new(bounds, text_pages, media_pages);
    let mut device = Device { text: vec![[0; PAGE_TOKENS]; text_pages], media: vec![None; media_pages] };
    let mut step = Step::default();
    let (mut open, mut number, mut operations, mut idle, mut found) = (30 + random.below(40), 0, 0, 0, 0);
    let (mut failed, mut again, mut refused) = (0, 0, 0);
    while open > 0 || !scheduler.running.is_empty() || !scheduler.waiting.is_empty() {
        operations += 1;
        for _ in 0..random.below(3) {
            if open > 0 {
                let prompt = tokens(&mut random, &shots, context / 2, prefix_caching);
                let room = context;
                let kind =
                    [SequenceKind::Decode, SequenceKind::Decode, SequenceKind::BeamSearch, SequenceKind::Prefill]
                        [random.below(4)];
                let left =
                    random.below(if kind == SequenceKind::Prefill { 3 } else { (context - prompt.ids.len()).min(20) });
                let wanted =
                    if kind == SequenceKind::Prefill { random.below(prompt.ids.len()) } else { prompt.ids.len() - 1 };
                open -= 1;
                if prompt.media_pages() > media_pages {
                    refused += 1;
                    continue;
                }
                number += 1;
                let work = Work { left, came: vec![Vec::new()] };
                // Trees are at most three stretches deep, so they fit the context.
                let fits = kind != SequenceKind::Prefill || prompt.ids.len() + 3 * 21 <= context;
                let work = Work { left: if fits { work.left } else { 0 }, ..work };
                scheduler.add(RequestState::new(number, prompt, kind, wanted, room, work));
            }
        }
        if random.below(12) == 0 {
            scheduler.remove(1 + random.next() % (number + 1));
        }
        scheduler.schedule(&mut step);
        assert_bounds(&scheduler, &step);
        let busy = !scheduler.running.is_empty();
        idle = if busy && step.ids.is_empty() { idle + 1 } else { 0 };
        assert!(idle < 2, "seed {seed}: nothing runs");
        let values = device.run(&step, &scheduler);
        if random.below(25) == 0 && !step.ids.is_empty() {
            // The device has failed: nobody knows what it wrote.
            device.spoil(&step, &scheduler);
            scheduler.fail(&step);
        } else {
            let ended = commit(&mut scheduler, &step, &values, &mut random, seed);
            for (place, right) in ended.into_iter().rev() {
                if !right && scheduler.doubt(place, &step) {
                    again += 1;
                    continue;
                }
                let request = scheduler.remove_running(place);
                found += request.tokens_reused;
                assert!(
                    right || request.prompt.ids.contains(&SICK),
                    "seed {seed}, job {}: others' fault",
                    request.number
                );
                failed += usize::from(!right);
            }
        }
        assert_nothing_is_lost(&scheduler, seed);
        assert!(operations < 20_000, "seed {seed}: it does not end");
    }
    assert_eq!(scheduler.text.available(), text_pages);
    assert_eq!(scheduler.media.available(), media_pages);
    [operations, scheduler.preemptions as usize, found, failed, again, refused]
}

#[test]
fn requests_come_out_as_if_alone_whatever_happens_around_them() {
    let mut counts = [0; 6];
    let mut seed = 0;
    while counts[0] < 300_000 {
        counts.iter_mut().zip(play(seed)).for_each(|(total, count)| *total += count);
        seed += 1;
    }
    assert!(counts[1] > 1000 && counts[2] > 10_000, "pages ran out and were found again: {counts:?}");
    assert!(counts[3] > 100 && counts[4] > 100, "jobs failed and began again: {counts:?}");
    assert!(counts[5] > 1000, "and were refused: {counts:?}");
}

fn prompt(length: usize) -> Tokens {
    Tokens::new((0..length as u32).collect(), vec![MediaSeen::NOTHING; length], Vec::new())
}

fn scheduler(requests: usize, tokens: usize, pages: usize) -> Scheduler<()> {
    Scheduler::new(Bounds { requests, tokens, frames: 1, prefix_caching: true }, pages, 1)
}

#[test]
fn the_second_prompt_adopts_what_the_first_computes_in_the_same_step() {
    let (mut scheduler, mut step) = (scheduler(4, 256, 32), Step::default());
    for number in 1..=2 {
        let mut tokens = prompt(40);
        tokens.ids.push(number as u32);
        tokens.sees.push(MediaSeen::NOTHING);
        scheduler.add(RequestState::new(number, tokens, SequenceKind::Decode, 40, 64, ()));
    }
    scheduler.schedule(&mut step);
    assert_eq!(step.rows.iter().map(|rows| rows.count).collect::<Vec<_>>(), [41, 41 - 32]);
    let pages = |request: usize| scheduler.running[request].sequences[0].pages();
    assert_eq!(pages(0)[..2], pages(1)[..2]);
    assert_ne!(pages(0)[2], pages(1)[2]);
}

/// With the limits of a GPU a prompt of 2048 tokens and 32 images is one step where it is alone; two of them take
/// two full steps, and neither waits for the other.
#[test]
fn a_long_prompt_alone_is_one_step() {
    const TOKENS: usize = 2048;
    let bounds = Bounds { requests: 4, tokens: TOKENS, frames: 32, prefix_caching: true };
    let request = |number: u64, images: u8| {
        let ids: Vec<u32> = (0..TOKENS as u32).map(|id| id + number as u32).collect();
        let seen = |place| if images > 0 { MediaSeen::one(place / (TOKENS as u32 / 32)) } else { MediaSeen::NOTHING };
        let sees = (0..TOKENS as u32).map(seen).collect();
        let content = |image| blake3::hash(&[image]);
        let images = (0..images).map(|image| PromptImage { content: content(image), frames: 1, rows: 64 }).collect();
        RequestState::new(number, Tokens::new(ids, sees, images), SequenceKind::Decode, TOKENS - 1, TOKENS + 16, ())
    };
    let mut step = Step::default();
    let mut counts = |scheduler: &mut Scheduler<()>| {
        scheduler.schedule(&mut step);
        (step.rows.iter().map(|rows| (rows.count, rows.wanted)).collect::<Vec<_>>(), step.encode.len())
    };
    let mut alone = Scheduler::new(bounds, 400, 64);
    alone.add(request(1, 32));
    assert_eq!(counts(&mut alone), (vec![(TOKENS, 1)], 32));
    let mut both = Scheduler::new(bounds, 400, 64);
    (1..=2).for_each(|number| both.add(request(number, 0)));
    assert_eq!(counts(&mut both).0, [(1536, 0), (512, 0)]);
    assert_eq!(counts(&mut both).0, [(512, 1), (1536, 1)]);
}

#[test]
fn a_long_prompt_leaves_room_for_those_behind_it_and_for_those_that_write() {
    let (mut scheduler, mut step) = (scheduler(4, 64, 64), Step::default());
    let add = |scheduler: &mut Scheduler<()>, number: u64, length: usize| {
        let ids = vec![number as u32; length];
        let tokens = Tokens::new(ids, vec![MediaSeen::NOTHING; length], Vec::new());
        scheduler.add(RequestState::new(number, tokens, SequenceKind::Decode, length - 1, length + 16, ()));
    };
    add(&mut scheduler, 1, 8);
    scheduler.schedule(&mut step);
    let RequestState { prompt, sequences, .. } = &mut scheduler.running[0];
    sequences[0].push(prompt, 5);
    add(&mut scheduler, 2, 500);
    add(&mut scheduler, 3, 20);
    scheduler.schedule(&mut step);
    let counts: Vec<(usize, usize)> = step.rows.iter().map(|rows| (rows.request, rows.count)).collect();
    // One token is written; the long prompt gets half of what is left, the short one a page, the long one the rest.
    assert_eq!(counts, [(0, 1), (1, 32 + 15), (2, 16)]);
}

#[test]
fn the_last_to_come_gives_way_and_is_resumed() {
    let (mut scheduler, mut step) = (scheduler(4, 64, 4), Step::default());
    for number in 1..=2 {
        let tokens = Tokens::new(vec![number as u32; 31], vec![MediaSeen::NOTHING; 31], Vec::new());
        scheduler.add(RequestState::new(number, tokens, SequenceKind::Decode, 30, 48, ()));
    }
    let mut write = |scheduler: &mut Scheduler<()>| {
        scheduler.schedule(&mut step);
        for rows in &step.rows {
            let RequestState { prompt, sequences, .. } = &mut scheduler.running[rows.request];
            if rows.wanted > 0 {
                sequences[rows.sequence].push(prompt, 9);
            }
        }
        step.rows.len()
    };
    assert_eq!([write(&mut scheduler), write(&mut scheduler)], [2, 2]);
    // Both are at the end of their second page, and no third is left.
    assert_eq!(write(&mut scheduler), 1);
    assert_eq!((scheduler.preemptions, scheduler.waiting[0].number), (1, 2));
    scheduler.remove(1);
    assert_eq!(write(&mut scheduler), 1);
    assert_eq!((scheduler.running[0].number, scheduler.running[0].sequences[0].suffix.len()), (2, 3));
}

fn seeing(number: u64, rows: &[usize], sees: Vec<MediaSeen>) -> RequestState<()> {
    let image =
        |(place, &rows): (u8, &usize)| PromptImage { content: blake3::hash(&[number as u8, place]), frames: 1, rows };
    let images = (0..).zip(rows).map(image).collect();
    let ids = vec![number as u32; sees.len()];
    let (wanted, room) = (ids.len() - 1, ids.len() + 16);
    RequestState::new(number, Tokens::new(ids, sees, images), SequenceKind::Decode, wanted, room, ())
}

#[test]
fn all_images_of_a_token_are_there_or_none_is_taken() {
    let bounds = Bounds { requests: 4, tokens: 64, frames: 1, prefix_caching: true };
    let mut scheduler: Scheduler<()> = Scheduler::new(bounds, 64, 10);
    let both = MediaSeen { first: 0, images: 2 };
    // Of 3 and 2 pages; then an image of 6.
    scheduler.add(seeing(1, &[190, 65], vec![MediaSeen::NOTHING, both, both]));
    scheduler.add(seeing(2, &[384], vec![MediaSeen::one(0); 3]));
    let mut step = Step::default();
    scheduler.schedule(&mut step);
    // More frames than a step has, for one token. The other request finds no pages for its image, and stays out.
    assert_eq!((step.encode.len(), step.frames, step.ids.len()), (2, 2, 3));
    assert_eq!(
        step.images.iter().map(|image| (image.pages.len(), image.rows)).collect::<Vec<_>>(),
        [(3, 190), (2, 65)]
    );
    assert_eq!(step.media, [MediaSeen::NOTHING, both, both]);
    assert_eq!((scheduler.running.len(), scheduler.waiting.len()), (1, 1));
    scheduler.schedule(&mut step);
    assert_eq!((step.ids.len(), step.encode[0].request, step.encode.len()), (3, 2, 1));
    // The image of 3 pages went for it, the one of 2 did not have to.
    assert_eq!((scheduler.media.held().pages, scheduler.media.cached().pages), (6, 2));
}

/// Images that many see stand once in a step's list, however many requests and ranges there are.
#[test]
fn images_are_listed_once() {
    let bounds = Bounds { requests: 4, tokens: 64, frames: 8, prefix_caching: true };
    let mut scheduler: Scheduler<()> = Scheduler::new(bounds, 64, 10);
    let seen = |first, images| MediaSeen { first, images };
    for number in 1..=2 {
        let mut request = seeing(7, &[64, 64, 64], vec![seen(0, 1), seen(0, 2), seen(0, 3), seen(1, 2), seen(2, 1)]);
        request.number = number;
        scheduler.add(request);
    }
    let mut step = Step::default();
    scheduler.schedule(&mut step);
    let one = [seen(0, 1), seen(0, 2), seen(0, 3), seen(1, 2), seen(2, 1)];
    assert_eq!((step.images.iter().count(), step.encode.len(), &step.media[..]), (3, 3, &[one, one].concat()[..]));
}

#[test]
fn a_page_is_named_by_all_images_that_its_tokens_see() {
    let hash = |images: &[u8], seen: MediaSeen| {
        let images = images.iter().map(|&content| image(content)).collect();
        Tokens::new(vec![1; PAGE_TOKENS], vec![seen; PAGE_TOKENS], images).pages[0]
    };
    let seen = |first, images| MediaSeen { first, images };
    assert_eq!(hash(&[1, 2, 3], seen(1, 2)), hash(&[2, 3], seen(0, 2)), "images are known by their content");
    let all = [
        hash(&[1, 2], MediaSeen::NOTHING),
        hash(&[1, 2], seen(0, 1)),
        hash(&[1, 2], seen(1, 1)),
        hash(&[1, 2], seen(0, 2)),
        hash(&[2, 1], seen(0, 2)),
        hash(&[1, 2, 2], seen(0, 3)),
    ];
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
}
