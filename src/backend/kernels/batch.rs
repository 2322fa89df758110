//! A batch as kernels want it: tokens cut into tiles of queries that share a sequence, and into tiles that share a
//! picture. Integers only.

use super::arguments::{MediaTile, NO_PICTURE, QueryTile};
use crate::backend::Batch;

/// Queries of one tile of causal or image attention (`kernels/attention.cuh`).
pub const TILE_ROWS: usize = 64;
/// Keys of one tile.
pub const TILE_KEYS: usize = 64;
/// Sequences whose new tokens are this few are decoded: keys are split over many blocks.
pub const SPLIT_ROWS: usize = 16;
/// Most tokens of a batch whose launches are kept and replayed.
const KEPT_TOKENS: usize = 64;

/// All that decides the launches of a run. Two batches of one shape differ only in what device memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Pictures.
    pub images: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens whose logits are wanted.
    pub outputs: usize,
    /// Tiles of queries.
    pub query_tiles: usize,
    /// Split form: tiles of keys that the longest sequence may have, rounded up; 0: tiles of queries walk their keys.
    pub key_tiles: usize,
    /// Most queries of a tile.
    pub tile_rows: usize,
    /// Tiles of tokens that share a picture, empty ones included.
    pub media_tiles: usize,
}

impl Shape {
    /// Whether launches of this shape come again and again, and are worth keeping.
    pub fn recurs(&self) -> bool {
        self.key_tiles > 0 && self.tokens <= KEPT_TOKENS
    }
}

/// Where each list of a batch stands in device memory, in words from the start; fixed by what there is room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    tokens_max: usize,
    images_max: usize,
    table_words_max: usize,
}

impl Layout {
    /// Room for so many tokens, pictures, and page numbers of all sequences.
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

    pub fn images(&self) -> usize {
        13 * self.tokens_max
    }

    pub fn tables(&self) -> usize {
        self.images() + self.images_max
    }

    /// All words.
    pub fn words(&self) -> usize {
        self.tables() + self.table_words_max
    }
}

/// Writes a batch into `words`, which becomes as long as needed; its shape.
pub fn write(batch: &Batch, layout: &Layout, words: &mut Vec<u32>) -> Shape {
    let tables_end = layout.tables() + batch.tables.iter().map(|table| table.len()).sum::<usize>();
    words.clear();
    words.resize(tables_end, 0);
    let mut put = |at: usize, values: &[u32]| words[at..at + values.len()].copy_from_slice(values);
    put(layout.ids(), batch.ids);
    put(layout.positions(), batch.positions);
    put(layout.outputs(), batch.outputs);
    put(layout.images(), batch.images);

    let mut starts = Vec::with_capacity(batch.tables.len());
    let mut end = 0;
    for table in batch.tables {
        put(layout.tables() + end, table);
        starts.push(end as u32);
        end += table.len();
    }
    let table_of: Vec<u32> = batch.sequences.iter().map(|&sequence| starts[sequence as usize]).collect();
    put(layout.table_of(), &table_of);

    let runs: Vec<&[u32]> = batch.sequences.chunk_by(|a, b| a == b).collect();
    let split = runs.iter().all(|run| run.len() <= SPLIT_ROWS) && !runs.is_empty();
    let mut query_tiles = Vec::new();
    let mut first = 0;
    for run in &runs {
        for start in (0..run.len()).step_by(TILE_ROWS) {
            let token = first + start;
            query_tiles.push(QueryTile {
                first: token as u32,
                count: (run.len() - start).min(TILE_ROWS) as u32,
                position: batch.positions[token],
                table: table_of[token],
            });
        }
        first += run.len();
    }
    put(layout.query_tiles(), bytemuck::cast_slice(&query_tiles));

    let page = |token: u32| batch.media[token as usize].unwrap_or(NO_PICTURE);
    let mut order: Vec<u32> = (0..batch.media.len() as u32).collect();
    order.sort_by_key(|&token| page(token));
    let mut media_tiles = Vec::new();
    let mut first = 0;
    for seen in order.chunk_by(|&a, &b| page(a) == page(b)) {
        for tokens in seen.chunks(TILE_ROWS) {
            let tile = MediaTile { first, count: tokens.len() as u32, page: page(tokens[0]), unused: 0 };
            media_tiles.push(tile);
            first += tile.count;
        }
    }
    let key_tiles = batch.positions.iter().max().map_or(0, |&last| (last as usize + 1).div_ceil(TILE_KEYS));
    let mut shape = Shape {
        images: batch.images.len(),
        tokens: batch.ids.len(),
        outputs: batch.outputs.len(),
        query_tiles: query_tiles.len(),
        key_tiles: if split { key_tiles.next_power_of_two() } else { 0 },
        tile_rows: query_tiles.iter().map(|tile| tile.count as usize).max().unwrap_or(0),
        media_tiles: media_tiles.len(),
    };
    if shape.recurs() {
        // As many tiles as there can be, so that the shape does not depend on who sees what.
        media_tiles.resize(shape.tokens, MediaTile::default());
        shape.media_tiles = shape.tokens;
    }
    put(layout.order(), &order);
    put(layout.media_tiles(), bytemuck::cast_slice(&media_tiles));
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let shape = write(&batch, &layout, &mut words);
        assert_eq!((shape.query_tiles, shape.key_tiles, shape.tile_rows, shape.media_tiles), (3, 0, 64, 3));
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
            write(&batch, &Layout::new(8, 0, 64), &mut Vec::new())
        };
        assert_eq!(shape(300, None), shape(511, Some(3)));
        assert!(shape(300, None).recurs());
        assert_ne!(shape(300, None), shape(512, None));
    }
}
