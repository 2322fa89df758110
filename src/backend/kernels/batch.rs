//! A batch as kernels want it: tokens cut into tiles of queries that share a sequence, or, where a sequence has few,
//! into rows whose keys are split; and into tiles that share a picture. Integers only.

use super::arguments::{MediaTile, NO_PICTURE, QueryTile, SplitItem};
use super::split::{Sequence, Splitting, items_most, split};
use crate::backend::{Batch, FramePlace};
use crate::graph::Extent;

/// Queries of one tile of causal or image attention (`kernels/attention.cuh`).
pub const TILE_ROWS: usize = 64;
/// Keys of one tile.
pub const TILE_KEYS: usize = 64;
/// Sequences whose new tokens are this few are decoded: keys are split over many blocks.
pub const SPLIT_ROWS: usize = 16;
/// Most tokens of a batch whose launches are kept and replayed.
pub const KEPT_TOKENS: usize = 256;

/// All that decides the launches of a run. Two batches of one shape differ only in what device memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Frames of pictures and videos.
    pub frames: usize,
    /// Pictures and videos.
    pub images: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens whose logits are wanted.
    pub outputs: usize,
    /// Tiles of queries, which walk their keys.
    pub query_tiles: usize,
    /// Tokens whose keys are split over blocks: all that are not in a tile of queries.
    pub split_rows: usize,
    /// Items of work on these, empty ones included.
    pub split_items: usize,
    /// Tiles of tokens that share a picture, empty ones included.
    pub media_tiles: usize,
    /// Whether all sequences are decoded: launches of such a shape come again and again, and are worth keeping.
    pub recurs: bool,
}

/// A count that changes from step to step, rounded up so that shapes recur: by an eighth at most, or to 4.
fn rounded(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 8).max(4))
}

/// Where each list of a batch stands in device memory, in words from the start; fixed by what there is room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    tokens_max: usize,
    images_max: usize,
    table_words_max: usize,
}

impl Layout {
    /// Room for so many tokens, frames of pictures (and so for as many pictures), and page numbers of all sequences.
    pub fn new(tokens_max: usize, images_max: usize, table_words_max: usize) -> Layout {
        // Tiles are 16-byte structs: lists before them keep their alignment.
        let round = |count: usize| count.next_multiple_of(4);
        Layout { tokens_max: round(tokens_max), images_max: round(images_max), table_words_max: round(table_words_max) }
    }

    /// Whether a batch fits.
    pub fn holds(&self, tokens: usize, images: usize, table_words: usize) -> bool {
        tokens <= self.tokens_max && images <= self.images_max && table_words <= self.table_words_max
    }

    /// The smallest layout that holds both.
    pub fn grown(&self, tokens: usize, images: usize, table_words: usize) -> Layout {
        Layout::new(
            self.tokens_max.max(tokens),
            self.images_max.max(images),
            self.table_words_max.max(table_words.next_power_of_two()),
        )
    }

    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    pub fn images_max(&self) -> usize {
        self.images_max
    }

    pub fn ids(&self) -> usize {
        0
    }

    pub fn positions(&self) -> usize {
        self.tokens_max
    }

    /// For each token, where its sequence's page numbers begin in [`Layout::tables`].
    pub fn table_of(&self) -> usize {
        2 * self.tokens_max
    }

    pub fn outputs(&self) -> usize {
        3 * self.tokens_max
    }

    /// Tokens, sorted by the picture they see.
    pub fn order(&self) -> usize {
        4 * self.tokens_max
    }

    pub fn query_tiles(&self) -> usize {
        5 * self.tokens_max
    }

    pub fn media_tiles(&self) -> usize {
        9 * self.tokens_max
    }

    pub fn split_rows(&self) -> usize {
        13 * self.tokens_max
    }

    pub fn split_items(&self) -> usize {
        17 * self.tokens_max
    }

    /// Items there is room for.
    fn items_max(&self) -> usize {
        items_most(self.tokens_max, self.table_words_max)
    }

    pub fn images(&self) -> usize {
        self.split_items() + size_of::<SplitItem>() / 4 * self.items_max()
    }

    /// The first frame of each picture, and the end of the last.
    pub fn frame_starts(&self) -> usize {
        self.images() + self.images_max
    }

    /// Places of frames.
    pub fn frame_places(&self) -> usize {
        // One more than there are pictures, rounded.
        self.frame_starts() + self.images_max + 4
    }

    pub fn tables(&self) -> usize {
        self.frame_places() + size_of::<FramePlace>() / 4 * self.images_max
    }

    /// All words.
    pub fn words(&self) -> usize {
        self.tables() + self.table_words_max
    }
}

/// Writes a batch into `words`, which becomes as long as needed; its shape.
pub fn write(batch: &Batch, layout: &Layout, splitting: &Splitting, words: &mut Vec<u32>) -> Shape {
    let tables_end = layout.tables() + batch.tables.iter().map(|table| table.len()).sum::<usize>();
    words.clear();
    words.resize(tables_end, 0);
    let mut put = |at: usize, values: &[u32]| words[at..at + values.len()].copy_from_slice(values);
    put(layout.ids(), batch.ids);
    put(layout.positions(), batch.positions);
    put(layout.outputs(), batch.outputs);
    put(layout.images(), batch.images);
    put(layout.frame_starts(), &batch.frame_starts());
    put(layout.frame_places(), bytemuck::cast_slice(&batch.frame_places().collect::<Vec<_>>()));

    let mut starts = Vec::with_capacity(batch.tables.len());
    let mut end = 0;
    for table in batch.tables {
        put(layout.tables() + end, table);
        starts.push(end as u32);
        end += table.len();
    }
    let table_of: Vec<u32> = batch.sequences.iter().map(|&sequence| starts[sequence as usize]).collect();
    put(layout.table_of(), &table_of);

    let sequences = sequences(batch, &starts);
    let recurs = !sequences.is_empty()
        && batch.ids.len() <= KEPT_TOKENS
        && sequences.iter().all(|sequence| sequence.count <= SPLIT_ROWS);
    let (few, walking) = divided(sequences, splitting);
    let query_tiles = query_tiles(&walking);
    put(layout.query_tiles(), bytemuck::cast_slice(&query_tiles));
    let (rows, items) = split(&few, splitting.sharers_least);
    assert!(items.len() <= layout.items_max(), "sequences have pages for all of their tokens");
    put(layout.split_rows(), bytemuck::cast_slice(&rows));
    put(layout.split_items(), bytemuck::cast_slice(&items));
    let (order, media_tiles) = by_picture(batch.media);
    put(layout.order(), &order);
    put(layout.media_tiles(), bytemuck::cast_slice(&media_tiles));

    // Tiles and items beyond those that were written are zeros: empty.
    let with_empty = |count: usize, most: usize| if recurs { rounded(count).min(most) } else { count };
    let Extent { frames, images, tokens, outputs } = batch.extent();
    Shape {
        frames,
        images,
        tokens,
        outputs,
        query_tiles: query_tiles.len(),
        split_rows: rows.len(),
        split_items: with_empty(items.len(), layout.items_max()),
        media_tiles: with_empty(media_tiles.len(), batch.media.len()),
        recurs,
    }
}

/// The new tokens of each sequence.
fn sequences<'a>(batch: &Batch<'a>, starts: &[u32]) -> Vec<Sequence<'a>> {
    let mut first = 0;
    let runs = batch.sequences.chunk_by(|a, b| a == b).map(|run| {
        let (table, start) = (batch.tables[run[0] as usize], starts[run[0] as usize]);
        let position = batch.positions[first] as usize;
        let sequence = Sequence { first, count: run.len(), position, table, start };
        first += run.len();
        sequence
    });
    runs.collect()
}

/// Sequences whose keys are split over blocks, as far as there is room for partial results, and the others. Where none
/// of the former has more than a tile of keys, there is nothing to split.
fn divided<'a>(sequences: Vec<Sequence<'a>>, splitting: &Splitting) -> (Vec<Sequence<'a>>, Vec<Sequence<'a>>) {
    let is_few = |sequence: &Sequence| sequence.count <= SPLIT_ROWS;
    if !sequences.iter().any(|sequence| is_few(sequence) && sequence.tiles() > 1) {
        return (Vec::new(), sequences);
    }
    let mut slots = 0;
    sequences.into_iter().partition(|sequence| {
        let fits = is_few(sequence) && slots + sequence.slots() <= splitting.slots_max;
        slots += if fits { sequence.slots() } else { 0 };
        fits
    })
}

fn query_tiles(sequences: &[Sequence]) -> Vec<QueryTile> {
    let tiles = sequences.iter().flat_map(|sequence| {
        (0..sequence.count).step_by(TILE_ROWS).map(|token| QueryTile {
            first: (sequence.first + token) as u32,
            count: (sequence.count - token).min(TILE_ROWS) as u32,
            position: (sequence.position + token) as u32,
            table: sequence.start,
        })
    });
    tiles.collect()
}

/// Tokens sorted by the picture they see, and cut into tiles.
fn by_picture(media: &[Option<u32>]) -> (Vec<u32>, Vec<MediaTile>) {
    let page = |token: u32| media[token as usize].unwrap_or(NO_PICTURE);
    let mut order: Vec<u32> = (0..media.len() as u32).collect();
    order.sort_by_key(|&token| page(token));
    let mut tiles = Vec::new();
    let mut first = 0;
    for seen in order.chunk_by(|&a, &b| page(a) == page(b)) {
        for tokens in seen.chunks(TILE_ROWS) {
            let tile = MediaTile { first, count: tokens.len() as u32, page: page(tokens[0]), unused: 0 };
            tiles.push(tile);
            first += tile.count;
        }
    }
    (order, tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::backend::kernels::arguments::SplitRow;

    const PLENTY: Splitting = Splitting { slots_max: 1000, sharers_least: 2 };

    #[test]
    fn tokens_are_cut_by_sequence_and_sorted_by_picture() {
        let tokens = 70 + 3;
        let sequences: Vec<u32> = (0..tokens).map(|token| u32::from(token >= 70)).collect();
        let positions: Vec<u32> = (0..70).chain(30..33).collect();
        let media: Vec<Option<u32>> = (0..tokens).map(|token| [None, Some(5), Some(2)][token as usize % 3]).collect();
        let batch = Batch {
            ids: &vec![1; tokens as usize],
            positions: &positions,
            sequences: &sequences,
            tables: &[&[7, 8, 9, 10, 11], &[3, 4, 6]],
            media: &media,
            outputs: &[69, 72],
            ..Batch::default()
        };
        let layout = Layout::new(80, 4, 16);
        let mut words = Vec::new();
        let shape = write(&batch, &layout, &PLENTY, &mut words);
        assert_eq!((shape.query_tiles, shape.split_rows, shape.media_tiles, shape.recurs), (3, 0, 3, false));
        let tiles: &[QueryTile] = bytemuck::cast_slice(&words[layout.query_tiles()..][..12]);
        let last = QueryTile { first: 70, count: 3, position: 30, table: 5 };
        assert_eq!((tiles[1].first, tiles[1].count, tiles[1].position, tiles[2]), (64, 6, 64, last));
        let tiles: &[MediaTile] = bytemuck::cast_slice(&words[layout.media_tiles()..][..12]);
        assert_eq!([tiles[0].page, tiles[1].page, tiles[2].page], [2, 5, NO_PICTURE]);
        assert_eq!(words[layout.order()..][..3], [2, 5, 8]);
        assert_eq!(words[layout.tables()..][5..], [3, 4, 6]);
    }

    #[test]
    fn a_decode_step_has_the_shape_of_the_last_one() {
        let shape = |position: u32, media: Option<u32>| {
            let batch = Batch {
                ids: &[1, 2],
                positions: &[position, 3],
                sequences: &[0, 1],
                tables: &[&[0; 40], &[1]],
                media: &[media, None],
                outputs: &[0, 1],
                ..Batch::default()
            };
            write(&batch, &Layout::new(8, 0, 64), &PLENTY, &mut Vec::new())
        };
        assert_eq!(shape(300, None), shape(383, Some(3)));
        assert!(shape(300, None).recurs);
        assert_eq!(shape(384, Some(2)), shape(639, None));
        assert_ne!(shape(300, None), shape(384, None));
    }

    #[test]
    fn few_tokens_are_split_beside_many_as_far_as_there_is_room() {
        let positions: Vec<u32> = [200].into_iter().chain(0..70).chain([5, 6]).collect();
        let sequences: Vec<u32> = [0].into_iter().chain([1; 70]).chain([2; 2]).collect();
        let batch = Batch {
            ids: &[1; 73],
            positions: &positions,
            sequences: &sequences,
            tables: &[&[0; 13], &[1; 5], &[2]],
            media: &[None; 73],
            ..Batch::default()
        };
        let written = |slots_max| {
            let (layout, mut words) = (Layout::new(80, 0, 20), Vec::new());
            let shape = write(&batch, &layout, &Splitting { slots_max, ..PLENTY }, &mut words);
            let rows: &[SplitRow] = bytemuck::cast_slice(&words[layout.split_rows()..][..4 * shape.split_rows]);
            let tiles: &[QueryTile] = bytemuck::cast_slice(&words[layout.query_tiles()..][..4 * shape.query_tiles]);
            assert!(!shape.recurs);
            let split: Vec<u32> = rows.iter().map(|row| row.token).collect();
            (split, tiles.iter().map(|tile| (tile.first, tile.count)).collect::<Vec<_>>(), shape.split_items)
        };
        assert_eq!(written(6), (vec![71, 72, 0], vec![(1, 64), (65, 6)], 3));
        assert_eq!(written(5), (vec![0], vec![(1, 64), (65, 6), (71, 2)], 2));
        assert_eq!(written(3), (vec![71, 72], vec![(0, 1), (1, 64), (65, 6)], 1));
    }
}
