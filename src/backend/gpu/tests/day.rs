//! A random day of decoding: how many shapes are captured, and how many steps are replayed from them.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::{Setting, open};
use crate::backend::gpu::PlanKind;
use crate::backend::gpu::batch::{self, Layout, Shape};
use crate::backend::{Backend, Batch, Capacity, PageCount};
use crate::kv::PAGE_TOKENS;
use crate::kv::{ImagePages, MediaSeen};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// Whether something happens that does `times` in `of`.
    fn happens(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }
}

/// Images that sequences see, of a page each.
const IMAGES: usize = 100;

/// A sequence of a random day.
struct Talk {
    /// Tokens so far.
    length: usize,
    /// Tokens that are not in its pages yet: its prompt, or the last that was written.
    new: usize,
    /// Tokens that it will still write.
    left: usize,
    table: Vec<u32>,
    media: MediaSeen,
}

/// Sequences that come and go, and what became of them.
struct Day {
    random: Random,
    talks: Vec<Talk>,
    /// Pages that prompts begin with now and then.
    prefixes: Vec<Vec<u32>>,
    page: u32,
    /// How many sequences come together at this time of the day.
    busy: usize,
}

impl Day {
    const CONTEXT: usize = 2048;
    const SEQUENCES: usize = 64;
    const ANSWER: usize = 400;

    fn new(seed: u64) -> Day {
        let mut day = Day { random: Random(seed), talks: Vec::new(), prefixes: Vec::new(), page: 0, busy: 1 };
        for _ in 0..4 {
            let count = 1 + day.random.below(80);
            let prefix = day.pages(count);
            day.prefixes.push(prefix);
        }
        day
    }

    fn pages(&mut self, count: usize) -> Vec<u32> {
        let first = self.page;
        self.page += count as u32;
        (first..self.page).collect()
    }

    fn come(&mut self) {
        let left = 1 + self.random.below(Self::ANSWER);
        let prompt = 1 + self.random.below(Self::CONTEXT - left);
        let mut table = Vec::new();
        if self.random.happens(1, 3) {
            let prefix = &self.prefixes[self.random.below(self.prefixes.len())];
            table.extend(&prefix[..prefix.len().min((prompt - 1) / PAGE_TOKENS)]);
        }
        let new = prompt - table.len() * PAGE_TOKENS;
        let media = if self.random.happens(2, 3) {
            MediaSeen::one(self.random.below(IMAGES) as u32)
        } else {
            MediaSeen::NOTHING
        };
        self.talks.push(Talk { length: prompt, new, left, table, media });
    }

    /// Puts together the next step, of up to `tokens` tokens, and hands it on; whether each sequence has one.
    fn step(&mut self, tokens: usize, mut run: impl FnMut(&Batch)) -> bool {
        if self.random.happens(1, 250) {
            self.busy = 1 + self.random.below(Self::SEQUENCES);
        }
        // As many come as will be needed to stay so many, and more while there are few.
        let hurry = if self.talks.len() < self.busy { 6 } else { 1 };
        let comes = self.random.happens(hurry * self.busy, 2 * Self::ANSWER);
        if self.talks.is_empty() || comes && self.talks.len() < Self::SEQUENCES {
            self.come();
        }
        let mut left = tokens;
        let (mut ids, mut positions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        let (mut media, mut outputs) = (Vec::new(), Vec::new());
        let mut counts = Vec::new();
        for place in 0..self.talks.len() {
            let Talk { length, new, table, .. } = &self.talks[place];
            let count = left.min(*new);
            let (first, end) = (length - new, length - new + count);
            let more = end.div_ceil(PAGE_TOKENS).saturating_sub(table.len());
            let more = self.pages(more);
            let talk = &mut self.talks[place];
            talk.table.extend(more);
            ids.resize(ids.len() + count, 1);
            positions.extend(first as u32..end as u32);
            sequences.resize(ids.len(), place as u32);
            media.resize(ids.len(), talk.media);
            talk.new -= count;
            left -= count;
            if talk.new == 0 {
                outputs.push(ids.len() as u32 - 1);
            }
            counts.push(count);
        }
        let tables: Vec<&[u32]> = self.talks.iter().map(|talk| &talk.table[..]).collect();
        let pages: Vec<u32> = (0..IMAGES as u32).collect();
        let seen_images: Vec<ImagePages> = pages.chunks(1).map(|pages| ImagePages { pages, rows: 64 }).collect();
        run(&Batch {
            ids: &ids,
            positions: &positions,
            sequences: &sequences,
            tables: &tables,
            seen_images: &seen_images,
            media: &media,
            outputs: &outputs,
            ..Batch::default()
        });
        for talk in self.talks.iter_mut().filter(|talk| talk.new == 0) {
            (talk.length, talk.new, talk.left) = (talk.length + 1, 1, talk.left - 1);
        }
        self.talks.retain(|talk| talk.left > 0);
        counts.iter().all(|&count| count == 1)
    }
}

/// Sequences come and go for 10,000 steps, and contexts grow: few shapes are captured, and replayed again and again.
#[test]
fn a_day_of_decoding_is_replayed_from_few_captures() {
    const STEPS: usize = 10_000;
    for seed in 0..3 {
        let capacity = Capacity { images: 32, tokens: 2048 };
        let least = Day::CONTEXT / PAGE_TOKENS + 1;
        // With two heads on so many multiprocessors, three sequences walk together, as with 32 heads on 132.
        let (calls, kernels) = open(Setting {
            idle: true,
            multiprocessors: 12,
            capacity,
            capacity_least: capacity,
            text_pages: PageCount { least, most: least },
            ..Setting::default()
        });
        let (mut kernels, mut day) = (kernels.unwrap(), Day::new(seed));
        let held = calls.held.load(Ordering::Relaxed);
        let (mut decoded, mut replayed) = (0, 0);
        let (mut rows, mut items) = ([0; 2], [0; 2]);
        let mut shapes = HashSet::new();
        for _ in 0..STEPS {
            let before = calls.replays.load(Ordering::Relaxed);
            let mut shape = Shape::default();
            let mut worked = 0;
            let tokens = capacity.tokens;
            let decodes = day.step(tokens, |batch| {
                kernels.run(PlanKind::Text, batch).unwrap();
                let mut words = Vec::new();
                shape = batch::write(batch, 0, &kernels.splitting, &mut words);
                let list = &words[Layout(shape).split_items()..][..6 * shape.split_items];
                worked = list.chunks_exact(6).filter(|item| item[1] > 0).count();
                rows[0] += if shape.capturable { batch.ids.len() } else { 0 };
            });
            if shape.capturable {
                shapes.insert(shape);
                rows[1] += shape.tokens;
                items[0] += worked;
                items[1] += shape.split_items;
            }
            decoded += usize::from(decodes);
            replayed += if decodes { calls.replays.load(Ordering::Relaxed) - before } else { 0 };
        }
        let captures = calls.captures.load(Ordering::Relaxed);
        println!(
            "seed {seed}: {captures} captures of {} shapes, {replayed} of {decoded} decoded steps replayed, \
             {:.1} % more rows, {:.1} % more items",
            shapes.len(),
            100.0 * (rows[1] as f64 / rows[0] as f64 - 1.0),
            100.0 * (items[1] as f64 / items[0] as f64 - 1.0),
        );
        assert!(captures <= 40, "seed {seed}: {captures} captures");
        assert!(decoded > STEPS * 3 / 4 && replayed * 100 > decoded * 95, "seed {seed}: {replayed} of {decoded}");
        assert_eq!(calls.held.load(Ordering::Relaxed), held, "memory was planned for all of it");
    }
}
