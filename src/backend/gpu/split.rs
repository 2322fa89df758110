//! Decoding as work for blocks: tokens of sequences with few new ones, whose keys are split over blocks. Where
//! sequences begin with the same pages, their tokens walk these keys together. Integers only; what blocks do with it is
//! said in `kernels/flash_attention.cu`.

use std::cmp::Reverse;
use std::ops::Range;

use super::arguments::{SplitItem, SplitRow};
use super::tuning::block_heads;
use crate::backend::shared::shared_prefixes;
use crate::graph::{KvSource, KvSpace, Op, Plan};
use crate::kv::PAGE_TOKENS;

/// Keys of one tile of attention (`kernels/attention.cuh`).
pub const TILE_KEYS: usize = 64;
/// Sequences whose new tokens are this few are decoded: keys are split over many blocks.
pub const SPLIT_ROWS: usize = 16;
/// Tiles of keys that a block takes, one a warp, where its rows do not walk.
pub const ITEM_TILES: usize = 2;
/// Rows that meet one tile: a stripe.
const ITEM_ROWS: usize = 16;
/// Rows that walk together: what a block holds.
const WALK_ROWS: usize = 32;

/// What a device can split of attention to one kind of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splits {
    /// Partial results there is room for.
    pub slots_max: usize,
    /// Heads of queries that a block takes: so many rows a token.
    pub group: usize,
}

/// What a device can split, and where sharing pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splitting {
    /// Of causal attention.
    pub text: Splits,
    /// Of attention to images.
    pub media: Splits,
    /// Sequences that walk together at least.
    pub sharers_least: usize,
}

/// The heads that attend to a kind of pages, alike in all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageHeads {
    heads: usize,
    kv_heads: usize,
    head_width: usize,
}

impl PageHeads {
    fn of(plan: &Plan, space: KvSpace) -> Option<PageHeads> {
        let mut all = plan.ops.iter().filter_map(|op| match op {
            Op::Attention { source: KvSource::Pages(layer, _), heads, .. } if layer.space == space => {
                Some(PageHeads { heads: *heads, kv_heads: layer.kv_heads, head_width: layer.head_width })
            }
            _ => None,
        });
        let first = all.next()?;
        assert!(all.all(|other| other == first), "all layers have the same heads");
        Some(first)
    }

    /// Bytes of one partial result of all heads: output, maximum and sum.
    fn slot_bytes(&self) -> usize {
        self.heads * (self.head_width + 2) * 4
    }
}

/// Bytes of one partial result of attention to a kind of pages; 0 where nothing attends to them.
pub fn slot_bytes(plan: &Plan, space: KvSpace) -> usize {
    PageHeads::of(plan, space).map_or(0, |heads| heads.slot_bytes())
}

impl Splitting {
    /// Two sequences are enough to save bytes. But a walk has one block a group of heads, while keys that sequences
    /// read for themselves are spread over all multiprocessors. A block that walks has one tile under way, some twice
    /// what keeps a multiprocessor's share of memory busy (reckoned from latency and bandwidth, not measured): with so
    /// many sequences a walk takes no longer than the reads that it saves.
    pub fn new(plan: &Plan, partials_bytes: u64, multiprocessors: u32) -> Splitting {
        let splits = |space| {
            let heads = PageHeads::of(plan, space);
            let group = heads.map_or(1, |heads| block_heads(heads.heads, heads.kv_heads));
            Splits { slots_max: (partials_bytes / slot_bytes(plan, space).max(1) as u64) as usize, group }
        };
        let (text, media) = (splits(KvSpace::Text), splits(KvSpace::Media));
        let blocks = PageHeads::of(plan, KvSpace::Text).map_or(1, |heads| heads.heads / text.group);
        Splitting { text, media, sharers_least: (multiprocessors as usize).div_ceil(2 * blocks).max(2) }
    }
}

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Its first new token in the batch.
    pub first: usize,
    /// New tokens.
    pub count: usize,
    /// The position of the first.
    pub position: usize,
    /// Its pages.
    pub table: &'a [u32],
    /// Where they begin in the batch's list.
    pub start: u32,
}

impl Sequence<'_> {
    /// Tiles of keys that its last token sees.
    pub fn tiles(&self) -> usize {
        (self.position + self.count).div_ceil(TILE_KEYS)
    }

    /// Partial results at most.
    pub fn slots(&self) -> usize {
        self.count * self.tiles()
    }
}

/// Items at most of sequences that have so many new tokens, [`SPLIT_ROWS`] each at most, and pages together.
pub fn items_most(tokens: usize, pages: usize, group: usize) -> usize {
    let meetings = SPLIT_ROWS.div_ceil(ITEM_ROWS / group);
    2 * tokens + (pages * meetings).div_ceil(ITEM_TILES * TILE_KEYS / PAGE_TOKENS)
}

/// Items of work under construction.
struct Items {
    /// Heads of queries of a block.
    group: usize,
    walks: Vec<SplitItem>,
    others: Vec<SplitItem>,
}

impl Items {
    fn new(group: usize) -> Items {
        Items { group, walks: Vec::new(), others: Vec::new() }
    }

    /// These rows walk the first `keys` keys of a list of pages.
    fn walk(&mut self, rows: Range<usize>, keys: usize, table: u32) {
        let item = SplitItem { keys: keys as u32, table, ..SplitItem::default() };
        self.walks.extend(cut(rows, WALK_ROWS / self.group, item));
    }

    /// These rows meet tiles of `keys` keys by themselves, after the `walked` first.
    fn meet(&mut self, rows: Range<usize>, keys: usize, table: u32, walked: usize) {
        for tile in (walked..keys.div_ceil(TILE_KEYS)).step_by(ITEM_TILES) {
            let (keys, slot) = (keys as u32, (tile - walked + 1) as u32);
            let item = SplitItem { keys, table, tile: tile as u32, slot, ..SplitItem::default() };
            self.others.extend(cut(rows.clone(), ITEM_ROWS / self.group, item));
        }
    }

    /// All of them, the longest walks first.
    fn finish(mut self) -> Vec<SplitItem> {
        self.walks.sort_by_key(|item| Reverse(item.keys));
        self.walks.append(&mut self.others);
        self.walks
    }
}

/// An item for every `most` rows.
fn cut(rows: Range<usize>, most: usize, item: SplitItem) -> impl Iterator<Item = SplitItem> {
    rows.clone().step_by(most).map(move |first| SplitItem {
        first: first as u32,
        count: most.min(rows.end - first) as u32,
        ..item
    })
}

/// Rows under construction, each with its partial results after those of the row before.
#[derive(Default)]
struct SplitRows {
    rows: Vec<SplitRow>,
    partial: u32,
}

impl SplitRows {
    fn push(&mut self, token: usize, position: usize, slots: usize) {
        let [token, position, slots] = [token, position, slots].map(|number| number as u32);
        self.rows.push(SplitRow { token, position, partial: self.partial, slots });
        self.partial += slots;
    }
}

/// The tokens of these sequences as rows, and the items in which they meet their keys: walks, the longest first, then
/// the rest.
pub fn split(sequences: &[Sequence], sharers_least: usize, group: usize) -> (Vec<SplitRow>, Vec<SplitItem>) {
    // Pages that are full before a sequence's new tokens: it sees all of their keys, and does not write to them.
    let old = |sequence: &Sequence| sequence.table.len().min(sequence.position / PAGE_TOKENS);
    let tables: Vec<&[u32]> = sequences.iter().map(|sequence| &sequence.table[..old(sequence)]).collect();
    let (mut rows, mut items) = (SplitRows::default(), Items::new(group));
    for shared in shared_prefixes(&tables) {
        let tiles = shared.pages / (TILE_KEYS / PAGE_TOKENS);
        let together = tiles > 0 && shared.sequences.len() >= sharers_least;
        let members = shared.sequences.iter().map(|&place| &sequences[place as usize]);
        let first_of_all = rows.rows.len();
        for sequence in members.clone() {
            let &Sequence { first: token, count, position, start: table, .. } = sequence;
            let first = rows.rows.len();
            let keys = position + count;
            let walked = if together { tiles } else { sequence.tiles().min(ITEM_TILES) };
            for place in 0..count {
                let seen = (position + place + 1).div_ceil(TILE_KEYS);
                rows.push(token + place, position + place, 1 + seen.saturating_sub(walked));
            }
            if !together {
                items.walk(first..first + count, keys.min(walked * TILE_KEYS), table);
            }
            items.meet(first..first + count, keys, table, walked);
        }
        if together {
            let table = members.clone().next().expect("a group has a sequence").start;
            items.walk(first_of_all..rows.rows.len(), tiles * TILE_KEYS, table);
        }
    }
    (rows.rows, items.finish())
}

/// Tokens that see the same images.
#[derive(Debug, Clone, Copy)]
pub struct Viewers<'a> {
    /// Where they stand in the order of tokens by what they see.
    pub first: usize,
    /// Which tokens of the batch.
    pub tokens: &'a [u32],
    /// Where the images' pages begin in the batch's list.
    pub table: u32,
    /// All of these pages, each a tile of keys.
    pub pages: usize,
}

impl Viewers<'_> {
    /// Partial results of all tokens.
    pub fn slots(&self) -> usize {
        self.tokens.len() * self.slots_each()
    }

    fn slots_each(&self) -> usize {
        if self.pages == 0 { 0 } else { 1 + self.pages.saturating_sub(ITEM_TILES) }
    }
}

/// The same of tokens and the images that they see. Those that see none have a row without partial results.
pub fn split_media(viewers: &[Viewers], group: usize) -> (Vec<SplitRow>, Vec<SplitItem>) {
    let (mut rows, mut items) = (SplitRows::default(), Items::new(group));
    for viewers in viewers {
        let &Viewers { tokens, table, pages, .. } = viewers;
        let first = rows.rows.len();
        let (keys, walked) = (pages * TILE_KEYS, pages.min(ITEM_TILES));
        tokens.iter().for_each(|&token| rows.push(token as usize, keys, viewers.slots_each()));
        if pages > 0 {
            items.walk(first..rows.rows.len(), walked * TILE_KEYS, table);
            items.meet(first..rows.rows.len(), keys, table, walked);
        }
    }
    (rows.rows, items.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is shared, each row meets each tile that it sees once, in the slot where it belongs.
    #[test]
    fn each_row_meets_each_of_its_keys_once() {
        let shared: Vec<u32> = (100..117).collect();
        let own = |from: u32| -> Vec<u32> { (from..from + 12).collect() };
        let forked = |pages: usize, from| [&shared[..pages], &own(from)].concat();
        let tables = [forked(16, 0), forked(17, 20), own(40), forked(9, 60), forked(16, 80), own(140)];
        let lengths = [(290, 1), (320, 3), (5, 2), (150, 1), (256, 16), (60, 9)];
        let mut first = 0;
        let sequences: Vec<Sequence> = tables
            .iter()
            .zip(lengths)
            .map(|(table, (position, count))| {
                first += count;
                Sequence { first: first - count, count, position, table, start: table[0] * 1000 + first as u32 }
            })
            .collect();
        for (sharers_least, group) in [(2, 1), (3, 1), (9, 1), (2, 3), (3, 8), (9, 16)] {
            let (rows, items) = split(&sequences, sharers_least, group);
            assert_eq!(rows.len(), first);
            assert!(items.len() <= items_most(rows.len(), tables.iter().map(Vec::len).sum(), group));
            let sequence_of = |row: &SplitRow| {
                let token = row.token as usize;
                sequences.iter().find(|sequence| (sequence.first..sequence.first + sequence.count).contains(&token))
            };
            let mut met = vec![Vec::new(); rows.len()];
            for item in &items {
                let rows_of_item = item.first as usize..(item.first + item.count) as usize;
                let tiles =
                    if item.slot == 0 { item.keys.div_ceil(64) } else { 2.min(item.keys.div_ceil(64) - item.tile) };
                assert!(group * rows_of_item.len() <= if item.slot == 0 { 32 } else { 16 });
                for place in rows_of_item {
                    let sequence = sequence_of(&rows[place]).unwrap();
                    let leader = sequences.iter().find(|sequence| sequence.start == item.table).unwrap();
                    let pages = (item.keys as usize).div_ceil(PAGE_TOKENS);
                    assert_eq!(sequence.table[..pages], leader.table[..pages], "the keys are the row's own");
                    met[place].extend((item.tile..item.tile + tiles).map(|tile| {
                        let slot = if item.slot == 0 { 0 } else { item.slot + tile - item.tile };
                        (tile, slot)
                    }));
                }
            }
            let mut partials = 0;
            for (row, mut met) in rows.iter().zip(met) {
                assert_eq!(row.partial, partials);
                partials += row.slots;
                met.sort_unstable();
                let seen = (row.position + 1).div_ceil(64);
                met.retain(|&(tile, _)| tile < seen);
                assert!(met.iter().map(|&(tile, _)| tile).eq(0..seen), "{row:?}: {met:?}");
                let walked = met.iter().filter(|&&(_, slot)| slot == 0).count() as u32;
                assert!(met[walked as usize..].iter().map(|&(_, slot)| slot).eq(1..row.slots), "{row:?}: {met:?}");
            }
            assert!(partials as usize <= sequences.iter().map(Sequence::slots).sum());
            let together =
                items.iter().filter(|item| item.slot == 0 && item.keys == 256).map(|item| item.count).sum::<u32>();
            assert_eq!(together, if sharers_least <= 3 { 20 } else { 0 });
        }
    }

    /// A token that sees 6404 rows has a block for every two pages and head of keys.
    #[test]
    fn one_token_to_many_pages_is_work_for_the_whole_device() {
        const MULTIPROCESSORS: usize = 132;
        let (_, items) = split_media(&[Viewers { first: 0, tokens: &[0], table: 0, pages: 101 }], 4);
        assert_eq!(items.len(), 51);
        assert!(8 * items.len() > 3 * MULTIPROCESSORS);
    }

    /// Each token meets each page of its images once, in the slot where it belongs.
    #[test]
    fn each_token_meets_each_page_of_its_images_once() {
        let tokens: Vec<u32> = (0..40).rev().collect();
        let viewers = [(0..1, 101), (1..20, 5), (20..23, 0), (23..24, 1), (24..40, 2)].map(|(range, pages)| Viewers {
            first: range.start,
            tokens: &tokens[range.clone()],
            table: 1000 * range.start as u32,
            pages,
        });
        for group in [1, 3, 4, 16] {
            let (rows, items) = split_media(&viewers, group);
            assert!(rows.iter().map(|row| row.token).eq(tokens.iter().copied()));
            let of = |row: usize| viewers.iter().find(|viewers| viewers.tokens.contains(&rows[row].token)).unwrap();
            let mut met = vec![Vec::new(); rows.len()];
            for item in &items {
                assert!(group * item.count as usize <= if item.slot == 0 { 32 } else { 16 });
                let tiles = item.keys.div_ceil(64);
                let met_by_item = if item.slot == 0 { 0..tiles } else { item.tile..tiles.min(item.tile + 2) };
                for (row, met) in met.iter_mut().enumerate().skip(item.first as usize).take(item.count as usize) {
                    assert_eq!(item.table, of(row).table);
                    let slot = |tile| if item.slot == 0 { 0 } else { item.slot + tile - item.tile };
                    met.extend(met_by_item.clone().map(|tile| (tile, slot(tile))));
                }
            }
            let mut partial = 0;
            for (row, mut met) in rows.iter().zip(met) {
                met.sort_unstable();
                assert_eq!(row.partial, partial);
                partial += row.slots;
                assert_eq!(met.last().map_or(0, |&(_, slot)| slot + 1), row.slots);
                assert!(met.iter().map(|&(tile, _)| tile).eq(0..met.len() as u32), "{row:?}: {met:?}");
                assert!(met.iter().all(|&(tile, slot)| slot == tile.saturating_sub(1)), "{row:?}: {met:?}");
            }
            let pages = |row: usize| of(row).pages as u32;
            assert!((0..rows.len()).all(|row| rows[row].position == 64 * pages(row)));
            assert_eq!(partial as usize, viewers.iter().map(Viewers::slots).sum::<usize>());
        }
    }
}
