//! Decoding as work for blocks: tokens of sequences with few new ones, whose keys are split over blocks. Where
//! sequences begin with the same pages, their tokens walk these keys together. Integers only; what blocks do with it is
//! said in `kernels/flash_attention.cu`.

use std::cmp::Reverse;

use super::arguments::{SplitItem, SplitRow};
use super::batch::TILE_KEYS;
use crate::backend::shared::shared_prefixes;
use crate::graph::{KvSource, Mask, Op, Plan};
use crate::kv::PAGE_TOKENS;

/// Tiles of keys that a block takes, one a warp, where its rows do not walk.
const ITEM_TILES: usize = 2;
/// Rows that walk together: what a block holds.
const WALK_ROWS: usize = 32;

/// What a device can split, and where sharing pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splitting {
    /// Partial results there is room for.
    pub slots_max: usize,
    /// Sequences that walk together at least.
    pub sharers_least: usize,
}

/// Heads and width of a head of each causal attention.
fn causal_heads(plan: &Plan) -> impl Iterator<Item = (usize, usize)> {
    plan.ops.iter().filter_map(|op| match op {
        Op::Attention { source: KvSource::Pages(layer, Mask::Causal { .. }), heads, .. } => {
            Some((*heads, layer.head_width))
        }
        _ => None,
    })
}

/// Bytes of one partial result of all heads: output, maximum and sum.
pub fn slot_bytes(plan: &Plan) -> usize {
    causal_heads(plan).map(|(heads, head_width)| heads * (head_width + 2) * 4).max().unwrap_or(0)
}

impl Splitting {
    /// Two sequences are enough to save bytes. But a walk has one block a head, while keys that sequences read for
    /// themselves are spread over all multiprocessors. A block that walks has one tile under way, some twice what keeps
    /// a multiprocessor's share of memory busy (reckoned from latency and bandwidth, not measured): with so many
    /// sequences a walk takes no longer than the reads that it saves.
    pub fn new(plan: &Plan, partials_bytes: u64, multiprocessors: u32) -> Splitting {
        let heads = causal_heads(plan).map(|(heads, _)| heads).min().unwrap_or(1);
        Splitting {
            slots_max: (partials_bytes / slot_bytes(plan).max(1) as u64) as usize,
            sharers_least: (multiprocessors as usize).div_ceil(2 * heads).max(2),
        }
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

/// Items at most of sequences that have so many new tokens and pages together.
pub fn items_most(tokens: usize, pages: usize) -> usize {
    2 * tokens + pages.div_ceil(ITEM_TILES * TILE_KEYS / PAGE_TOKENS)
}

/// The tokens of these sequences as rows, and the items in which they meet their keys: walks, the longest first, then
/// the rest.
pub fn split(sequences: &[Sequence], sharers_least: usize) -> (Vec<SplitRow>, Vec<SplitItem>) {
    // Pages that are full before a sequence's new tokens: it sees all of their keys, and does not write to them.
    let old = |sequence: &Sequence| sequence.table.len().min(sequence.position / PAGE_TOKENS);
    let tables: Vec<&[u32]> = sequences.iter().map(|sequence| &sequence.table[..old(sequence)]).collect();
    let (mut rows, mut walks, mut others) = (Vec::<SplitRow>::new(), Vec::new(), Vec::new());
    let mut partial = 0;
    for group in shared_prefixes(&tables) {
        let tiles = group.pages / (TILE_KEYS / PAGE_TOKENS);
        let together = tiles > 0 && group.sequences.len() >= sharers_least;
        let members = group.sequences.iter().map(|&place| &sequences[place as usize]);
        let walk = |first: usize, count: usize, keys: usize, table: u32| SplitItem {
            first: first as u32,
            count: count as u32,
            table,
            tile: 0,
            slot: 0,
            keys: keys as u32,
        };
        let first_of_all = rows.len();
        for sequence in members.clone() {
            let &Sequence { first: token, count, position, start: table, .. } = sequence;
            let first = rows.len();
            let keys = position + count;
            let walked = if together { tiles } else { sequence.tiles().min(ITEM_TILES) };
            for place in 0..count {
                let seen = (position + place + 1).div_ceil(TILE_KEYS);
                let slots = 1 + seen.saturating_sub(walked);
                let (token, position) = (token + place, position + place);
                let [token, position, slots] = [token, position, slots].map(|number| number as u32);
                rows.push(SplitRow { token, position, partial, slots });
                partial += slots;
            }
            if !together {
                walks.push(walk(first, count, keys.min(walked * TILE_KEYS), table));
            }
            others.extend((walked..sequence.tiles()).step_by(ITEM_TILES).map(|tile| SplitItem {
                tile: tile as u32,
                slot: (tile - walked + 1) as u32,
                ..walk(first, count, keys, table)
            }));
        }
        if together {
            let table = members.clone().next().expect("a group has a sequence").start;
            for first in (first_of_all..rows.len()).step_by(WALK_ROWS) {
                walks.push(walk(first, WALK_ROWS.min(rows.len() - first), tiles * TILE_KEYS, table));
            }
        }
    }
    walks.sort_by_key(|item| Reverse(item.keys));
    walks.append(&mut others);
    (rows, walks)
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
        for sharers_least in [2, 3, 9] {
            let (rows, items) = split(&sequences, sharers_least);
            assert_eq!(rows.len(), first);
            assert!(items.len() <= items_most(rows.len(), tables.iter().map(Vec::len).sum()));
            let sequence_of = |row: &SplitRow| {
                let token = row.token as usize;
                sequences.iter().find(|sequence| (sequence.first..sequence.first + sequence.count).contains(&token))
            };
            let mut met = vec![Vec::new(); rows.len()];
            for item in &items {
                let rows_of_item = item.first as usize..(item.first + item.count) as usize;
                let tiles =
                    if item.slot == 0 { item.keys.div_ceil(64) } else { 2.min(item.keys.div_ceil(64) - item.tile) };
                assert!(rows_of_item.len() <= if item.slot == 0 { 32 } else { 16 });
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
}
