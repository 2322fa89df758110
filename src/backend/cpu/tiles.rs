//! Which rows of a batch attend together. A tile is a few rows and the number of keys that all of them begin with:
//! tokens of one sequence, tokens of sequences that begin with the same pages, tokens that see the same images, rows of
//! one image. Tiles decide what is read once for several rows, and for the heads of queries that share a head of keys;
//! a row's result is the same in any of them.

use std::ops::Range;

use rayon::prelude::*;

use super::attention::{Attend, QUERIES_MAX, Scratch, Strip};
use crate::backend::Batch;
use crate::backend::shared::shared_prefixes;
use crate::kv::{ImagePages, PAGE_TOKENS};

/// Attention with fewer multiply-adds of scores stays on one thread.
const PARALLEL_MIN: usize = 1 << 16;

/// A row of queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row<'a> {
    /// Which one of the batch.
    pub index: usize,
    /// The text pages that its keys are in, if they are in any.
    pub table: &'a [u32],
    /// The images that its keys are those of, if they are in media pages.
    pub images: &'a [ImagePages<'a>],
    /// How many keys it has.
    pub keys: usize,
}

/// The rows of a batch, cut into tiles.
#[derive(Debug, Default)]
pub(super) struct Tiles<'a> {
    rows: Vec<Row<'a>>,
    tiles: Vec<Tile>,
}

/// Some rows, in the order of [`Tiles::rows`], and how many keys they begin with in common.
#[derive(Debug, Clone, PartialEq)]
struct Tile {
    rows: Range<usize>,
    shared: usize,
}

/// The heads of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads<'a> {
    /// Heads of queries that share a head of keys.
    pub group: usize,
    pub width: usize,
    pub scale: f32,
    /// [`Attend::slopes`] of each head of queries, if there are any.
    pub slopes: Option<&'a [f32]>,
}

impl<'a> Tiles<'a> {
    /// Each token with the tokens before it and itself, in text pages.
    pub fn causal(batch: &Batch<'a>) -> Self {
        let mut rows = vec![Vec::new(); batch.tables.len()];
        for (index, (&sequence, &position)) in batch.sequences.iter().zip(batch.positions).enumerate() {
            let table = batch.tables[sequence as usize];
            rows[sequence as usize].push(Row { index, table, images: &[], keys: position as usize + 1 });
        }
        let mut tiles = Tiles::default();
        for group in shared_prefixes(batch.tables) {
            // With the last tile of the group before, nothing.
            let mut in_common = 0;
            let segments = group.sequences.iter().flat_map(|&sequence| rows[sequence as usize].chunks(QUERIES_MAX));
            for segment in segments {
                tiles.push(segment, in_common);
                in_common = group.pages * PAGE_TOKENS;
            }
        }
        tiles
    }

    /// Each token with the images that it sees, in media pages.
    pub fn media(batch: &Batch<'a>) -> Self {
        let seen = batch.media.iter().map(|seen| batch.seen(seen)).enumerate();
        let keys = |images: &[ImagePages]| images.iter().map(|image| image.rows as usize).sum();
        let mut rows: Vec<Row> =
            seen.map(|(index, images)| Row { index, table: &[], images, keys: keys(images) }).collect();
        rows.sort_by_key(|row| row.images);
        let mut tiles = Tiles::default();
        for seen in rows.chunk_by(|a, b| a.images == b.images) {
            seen.chunks(QUERIES_MAX).for_each(|segment| tiles.push(segment, 0));
        }
        tiles
    }

    /// Rows that follow each other in blocks: of each block so many rows, which have so many keys of their image.
    pub fn images(blocks: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut tiles = Tiles::default();
        for (rows, keys) in blocks {
            let first = tiles.rows.len();
            let row = |index| Row { index, table: &[], images: &[], keys };
            let rows: Vec<Row> = (first..first + rows).map(row).collect();
            rows.chunks(QUERIES_MAX).for_each(|segment| tiles.push(segment, 0));
        }
        tiles
    }

    /// Adds rows of one sequence, or of one image. They join the last tile, with whose rows they begin with
    /// `in_common` keys in common, if that saves reading more keys than it costs: `n` rows that share `s` keys save
    /// `(n - 1) s`.
    fn push(&mut self, segment: &[Row<'a>], in_common: usize) {
        let shortest = segment.iter().map(|row| row.keys).min().unwrap_or(0);
        let end = self.rows.len() + segment.len();
        self.rows.extend(segment);
        if let Some(Tile { rows, shared }) = self.tiles.last_mut() {
            let in_common = in_common.min(*shared).min(shortest);
            let apart = (rows.len() - 1) * *shared + (segment.len() - 1) * shortest;
            let together = end - rows.start;
            if together <= QUERIES_MAX && in_common > 0 && (together - 1) * in_common >= apart {
                (rows.end, *shared) = (end, in_common);
                return;
            }
        }
        self.tiles.push(Tile { rows: end - segment.len()..end, shared: shortest });
    }

    /// For each head of keys the queries of each tile that share it, row by row.
    fn queries(&self, kv_heads: usize, group: usize) -> Vec<Query<'a>> {
        let of_row = |row: Row<'a>, kv_head| {
            let heads = kv_head * group..(kv_head + 1) * group;
            heads.map(move |head| Query { row, head })
        };
        (0..kv_heads).flat_map(|kv_head| self.rows.iter().flat_map(move |&row| of_row(row, kv_head))).collect()
    }

    /// Attention of all heads. `query(index)` is a row of the heads' queries; `strips(row, head, keys, to)` adds keys
    /// of a row, and of a head of keys, to a list. The rows of `out` are whole, in the order of their indices.
    pub fn attend<'k>(
        &self,
        heads: Heads,
        query: impl Fn(usize) -> &'k [f32] + Sync,
        strips: impl Fn(&Row, usize, Range<usize>, &mut Vec<Strip<'k>>) + Sync,
        out: &mut [f32],
    ) {
        if self.rows.is_empty() {
            return;
        }
        let width = out.len() / self.rows.len();
        let head_count = width / heads.width;
        let parallel = self.rows.iter().map(|row| row.keys * width).sum::<usize>() >= PARALLEL_MIN;
        // Tiles are cut where there are fewer than threads.
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        let passes =
            |most: usize| self.tiles.iter().map(|tile| (tile.rows.len() * heads.group).div_ceil(most)).sum::<usize>();
        let kv_heads = head_count / heads.group;
        let mut most = QUERIES_MAX;
        while most > 1 && passes(most) * kv_heads < threads {
            most /= 2;
        }
        let mut columns: Vec<&mut [f32]> = out.chunks_exact_mut(heads.width).collect();
        let mut tasks = Vec::with_capacity(passes(most) * kv_heads);
        let queries = self.queries(kv_heads, heads.group);
        let mut rest = &queries[..];
        // Head by head: tiles that share keys find them in the cache.
        for kv_head in 0..kv_heads {
            for tile in &self.tiles {
                let (of_tile, after) = rest.split_at(tile.rows.len() * heads.group);
                rest = after;
                for queries in of_tile.chunks(most) {
                    let mut out = <[&mut [f32]; QUERIES_MAX]>::default();
                    for (out, query) in out.iter_mut().zip(queries) {
                        *out = std::mem::take(&mut columns[query.row.index * head_count + query.head]);
                    }
                    tasks.push(Pass { kv_head, queries, shared: tile.shared, out });
                }
            }
        }
        let run = |(found, scratch): &mut (Vec<Strip<'k>>, Scratch), pass: Pass| {
            let Pass { kv_head, queries, shared, .. } = pass;
            found.clear();
            strips(&queries[0].row, kv_head, 0..shared, found);
            let mut ends = [found.len(); QUERIES_MAX + 1];
            for (place, Query { row, .. }) in queries.iter().enumerate() {
                strips(row, kv_head, shared..row.keys, found);
                ends[place + 1] = found.len();
            }
            let found = Found { strips: found, ends, scratch };
            let query = |of: &Query| &query(of.row.index)[of.head * heads.width..(of.head + 1) * heads.width];
            match queries.len() {
                1 => pass.attend::<1>(heads, query, found),
                2 => pass.attend::<2>(heads, query, found),
                3 => pass.attend::<3>(heads, query, found),
                4 => pass.attend::<4>(heads, query, found),
                5 => pass.attend::<5>(heads, query, found),
                6 => pass.attend::<6>(heads, query, found),
                7 => pass.attend::<7>(heads, query, found),
                8 => pass.attend::<8>(heads, query, found),
                count => unreachable!("a tile of {count} rows"),
            }
        };
        if parallel {
            tasks.into_par_iter().for_each_init(Default::default, run);
        } else {
            let mut scratch = Default::default();
            tasks.into_iter().for_each(|pass| run(&mut scratch, pass));
        }
    }
}

/// One head of a row's queries.
#[derive(Debug, Clone, Copy)]
struct Query<'a> {
    row: Row<'a>,
    head: usize,
}

/// Some queries of a tile that share a head of keys.
struct Pass<'t, 'a, 'o> {
    kv_head: usize,
    queries: &'t [Query<'a>],
    shared: usize,
    /// Where each query's result goes.
    out: [&'o mut [f32]; QUERIES_MAX],
}

/// The keys of a pass, and memory for what is made of them.
struct Found<'k, 'f> {
    /// The shared ones, then each query's own.
    strips: &'f [Strip<'k>],
    /// Where the shared ones end, and each query's.
    ends: [usize; QUERIES_MAX + 1],
    scratch: &'f mut Scratch,
}

impl<'a> Pass<'_, 'a, '_> {
    /// Attends with `R` queries, which is how many there are.
    fn attend<'k, const R: usize>(
        mut self,
        heads: Heads,
        query: impl Fn(&Query<'a>) -> &'k [f32],
        Found { strips, ends, scratch }: Found<'k, '_>,
    ) {
        Attend::<R> {
            queries: std::array::from_fn(|r| query(&self.queries[r])),
            lengths: std::array::from_fn(|r| self.queries[r].row.keys),
            shared: &strips[..ends[0]],
            own: std::array::from_fn(|r| &strips[ends[r]..ends[r + 1]]),
            scale: heads.scale,
            slopes: std::array::from_fn(|r| heads.slopes.map_or(0.0, |slopes| slopes[self.queries[r].head])),
            scratch,
            out: std::array::from_fn(|r| std::mem::take(&mut self.out[r])),
        }
        .run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::MediaSeen;

    /// Rows by index and keys in common of each tile.
    fn cut(tiles: &Tiles) -> Vec<(Vec<usize>, usize)> {
        let indices = |tile: &Tile| tiles.rows[tile.rows.clone()].iter().map(|row| row.index).collect();
        tiles.tiles.iter().map(|tile| (indices(tile), tile.shared)).collect()
    }

    #[test]
    fn tokens_share_what_saves_reading() {
        // A chunk of 10 tokens and one token behind the same two pages, one behind the first only, one with its own:
        // three rows that share 32 keys save more than two that share 57.
        let tables: [&[u32]; 4] = [&[1, 2, 3, 4], &[1, 2, 5], &[1, 6, 7, 8], &[9]];
        let sequences = [[0; 10].as_slice(), &[1, 2, 3]].concat();
        let positions: Vec<u32> = (48..58).chain([40, 60, 3]).collect();
        let batch = Batch { tables: &tables, sequences: &sequences, positions: &positions, ..Batch::default() };
        let found = cut(&Tiles::causal(&batch));
        assert_eq!(found, [((0..8).collect(), 49), (vec![8, 9, 10], 32), (vec![11], 61), (vec![12], 4)]);
        // Two sequences with two tokens each behind three pages: four rows share 48 keys instead of twice two 50.
        let tables: [&[u32]; 2] = [&[1, 2, 3, 4], &[1, 2, 3, 5]];
        let (sequences, positions) = ([0, 0, 1, 1], [49, 50, 49, 50]);
        let batch = Batch { tables: &tables, sequences: &sequences, positions: &positions, ..Batch::default() };
        assert_eq!(cut(&Tiles::causal(&batch)), [(vec![0, 1, 2, 3], 48)]);
    }

    #[test]
    fn tokens_of_an_image_stand_together() {
        let image = |pages, rows| ImagePages { pages, rows };
        let seen_images = [image(&[7], 64), image(&[1, 4], 70), image(&[2], 9)];
        let one = MediaSeen::one;
        let both = MediaSeen { first: 1, images: 2 };
        let media = [one(0), MediaSeen::NOTHING, one(1), one(0), MediaSeen::NOTHING, one(0), both];
        let found = cut(&Tiles::media(&Batch { seen_images: &seen_images, media: &media, ..Batch::default() }));
        assert_eq!(found, [(vec![1, 4], 0), (vec![2], 70), (vec![6], 79), (vec![0, 3, 5], 64)]);
        let found = cut(&Tiles::images([(9, 70), (9, 130)]));
        assert_eq!(found, [((0..8).collect(), 70), (vec![8], 70), ((9..17).collect(), 130), (vec![17], 130)]);
    }
}
