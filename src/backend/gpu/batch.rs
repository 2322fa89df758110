//! A batch as kernels want it: tokens cut into tiles of queries that share a sequence, or, where a sequence has few,
//! into rows whose keys are split; and into tiles that see the same images. Decoded batches are filled up, so that few
//! shapes recur. Integers only.

use super::arguments::{MediaTile, NO_PIXELS, QueryTile, SplitItem, SplitRow};
use super::split::{ITEM_TILES, SPLIT_ROWS, Sequence, Splits, Splitting, Viewers, items_most, split, split_media};
use crate::backend::{Batch, FramePlace, Tiling};
use crate::graph::Counts;
use crate::kv::{ImagePages, MediaSeen, PAGE_TOKENS};

/// Rows of one tile of causal or image attention (`kernels/attention.cuh`): a token has one for each head of a group.
pub const TILE_ROWS: usize = 64;
/// Most tokens of a batch whose launches are captured and replayed. Larger ones keep the device busy for longer than it
/// takes to launch them.
pub const CAPTURED_TOKENS_MAX: usize = 256;

/// All that decides the launches of a run. Two batches of one shape differ only in what device memory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Frames of images and videos.
    pub frames: usize,
    /// Images and videos.
    pub images: usize,
    /// Tokens, those of padding included.
    pub tokens: usize,
    /// Tokens whose logits are computed.
    pub outputs: usize,
    /// Tiles of queries, which walk their keys, empty ones included.
    pub query_tiles: usize,
    /// Tokens whose keys are split over blocks: all that are not in a tile of queries.
    pub split_rows: usize,
    /// Items of work on these, empty ones included.
    pub split_items: usize,
    /// Tiles of tokens that see the same images, which walk their pages, empty ones included.
    pub media_tiles: usize,
    /// Tokens whose images' pages are split over blocks: all that are not in such a tile.
    pub media_split_rows: usize,
    /// Items of work on these, empty ones included.
    pub media_split_items: usize,
    /// Whether some token sees an image, or it makes no difference to the launches.
    pub seeing: bool,
    /// Whether all sequences are decoded: launches of such a shape come again and again, and are worth keeping.
    pub capturable: bool,
}

/// Rows that so many decoded tokens, at least one, are filled up to: 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80 and on by
/// 16. The padding is a sequence of its own whose keys go to one page, so it is less than a page. Up to 64 rows it
/// costs no more reading of weights, which is what such a step consists of.
pub fn filled_up(tokens: usize) -> usize {
    match tokens {
        ..=4 => tokens.next_power_of_two(),
        _ => tokens.next_multiple_of((tokens.next_power_of_two() / 4).clamp(4, PAGE_TOKENS)),
    }
}

/// Items of work, rounded up so that shapes recur. An empty item costs the start of a block for each head; blocks of up
/// to 8 items would leave multiprocessors idle.
fn rounded_items(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 4).max(8))
}

/// Where each list of a batch stands in device memory, in words from the start: lists are as long as the shape says,
/// one behind the other, so that all batches of a shape have theirs in the same places. Those of 16-byte structs come
/// first, for their alignment, and tables, of any length, last.
#[derive(Debug, Clone, Copy)]
pub struct Layout(pub Shape);

impl Layout {
    pub fn query_tiles(&self) -> usize {
        0
    }

    pub fn media_tiles(&self) -> usize {
        self.query_tiles() + words_of::<QueryTile>(self.0.query_tiles)
    }

    pub fn split_rows(&self) -> usize {
        self.media_tiles() + words_of::<MediaTile>(self.0.media_tiles)
    }

    pub fn media_split_rows(&self) -> usize {
        self.split_rows() + words_of::<SplitRow>(self.0.split_rows)
    }

    pub fn split_items(&self) -> usize {
        self.media_split_rows() + words_of::<SplitRow>(self.0.media_split_rows)
    }

    pub fn media_split_items(&self) -> usize {
        self.split_items() + words_of::<SplitItem>(self.0.split_items)
    }

    /// Places of frames.
    pub fn frame_places(&self) -> usize {
        self.media_split_items() + words_of::<SplitItem>(self.0.media_split_items)
    }

    /// How images are cut into tiles.
    pub fn tilings(&self) -> usize {
        self.frame_places() + words_of::<FramePlace>(self.0.frames)
    }

    /// For each frame, where it stands among those with pixels.
    pub fn pixel_places(&self) -> usize {
        self.tilings() + words_of::<Tiling>(self.0.images)
    }

    pub fn ids(&self) -> usize {
        self.pixel_places() + self.0.frames
    }

    pub fn positions(&self) -> usize {
        self.ids() + self.0.tokens
    }

    /// For each token, where its sequence's page numbers begin in [`Layout::tables`].
    pub fn table_of(&self) -> usize {
        self.positions() + self.0.tokens
    }

    /// Tokens, sorted by the images they see.
    pub fn order(&self) -> usize {
        self.table_of() + self.0.tokens
    }

    /// For each token, whether it sees an image.
    pub fn seeing(&self) -> usize {
        self.order() + self.0.tokens
    }

    pub fn outputs(&self) -> usize {
        self.seeing() + self.0.tokens
    }

    /// Where the media pages of each image to encode begin in [`Layout::tables`], and the end of the last.
    pub fn image_pages(&self) -> usize {
        self.outputs() + self.0.outputs
    }

    /// The first frame of each image, and the end of the last.
    pub fn frame_starts(&self) -> usize {
        self.image_pages() + self.0.images + 1
    }

    /// Numbers of text pages; then of media pages, each with how many rows it holds.
    pub fn tables(&self) -> usize {
        self.frame_starts() + self.0.images + 1
    }
}

fn words_of<T>(count: usize) -> usize {
    size_of::<T>() / 4 * count
}

/// Words at most of batches of so many tokens, frames, images, and of all lists of pages, for groups of so many heads;
/// without items of images of several pages.
pub fn words_most(tokens: usize, [frames, images]: [usize; 2], table_words: usize, group: usize) -> usize {
    let most = Shape {
        frames,
        images,
        tokens,
        outputs: tokens,
        query_tiles: tokens,
        split_rows: tokens,
        split_items: rounded_items(items_most(tokens, table_words, group)),
        media_tiles: tokens,
        media_split_rows: tokens,
        media_split_items: 0,
        seeing: true,
        capturable: true,
    };
    Layout(most).tables() + table_words
}

/// Writes a batch into `words`, which becomes as long as needed; its shape. Padding writes its keys to the page
/// `nobody`, which no sequence has; it sees no image, and its tokens stand behind all others.
pub fn write(batch: &Batch, nobody: u32, splitting: &Splitting, words: &mut Vec<u32>) -> Shape {
    let Counts { frames, images, tokens, outputs } = batch.counts();
    let (mut tables, starts) = text_tables(batch);
    let mut positions = batch.positions.to_vec();
    let mut table_of: Vec<u32> = batch.sequences.iter().map(|&sequence| starts[sequence as usize]).collect();
    let mut media = batch.media.to_vec();

    let mut sequences = sequences(batch, &starts);
    let decoded =
        (1..=CAPTURED_TOKENS_MAX).contains(&tokens) && sequences.iter().all(|sequence| sequence.count <= SPLIT_ROWS);
    let nobody = [nobody];
    let padding = if decoded { filled_up(tokens) - tokens } else { 0 };
    if padding > 0 {
        let start = tables.len() as u32;
        sequences.push(Sequence { first: tokens, count: padding, position: 0, table: &nobody, start });
        tables.extend(nobody);
        positions.extend(0..padding as u32);
        table_of.resize(tokens + padding, start);
        media.resize(tokens + padding, MediaSeen::NOTHING);
    }
    let image_pages = append_images(&mut tables, batch.images);
    let seen_pages = append_images(&mut tables, batch.seen_images);
    let (few, walking) = divided(sequences, &splitting.text);
    let query_tiles = query_tiles(&walking, splitting.text.group);
    let (rows, items) = split(&few, splitting.sharers_least, splitting.text.group);
    let seen = Seen::new(&media, &seen_pages, decoded, &splitting.media);
    let capturable =
        decoded && (few.is_empty() || walking.is_empty()) && (seen.tiles.is_empty() || seen.rows.is_empty());

    // Tiles and items beyond those that are written are zeros: empty. There are no more tiles than tokens. An output of
    // padding is that of the first token again; where half of the tokens have an output, all have, lest these counts
    // make shapes of their own.
    let tokens = tokens + padding;
    let filled = |count: usize, most: usize| if capturable && count > 0 { most.max(count) } else { count };
    let shape = Shape {
        frames,
        images,
        tokens,
        outputs: filled(outputs, if 2 * outputs < tokens { filled_up(outputs) } else { tokens }),
        query_tiles: filled(query_tiles.len(), tokens),
        split_rows: rows.len(),
        split_items: filled(items.len(), rounded_items(items.len())),
        media_tiles: filled(seen.tiles.len(), tokens),
        media_split_rows: seen.rows.len(),
        media_split_items: filled(seen.items.len(), rounded_items(seen.items.len())),
        seeing: true,
        capturable,
    };
    let layout = Layout(shape);
    words.clear();
    words.resize(layout.tables() + tables.len(), 0);
    let mut put = |at: usize, values: &[u32]| words[at..at + values.len()].copy_from_slice(values);
    put(layout.query_tiles(), bytemuck::cast_slice(&query_tiles));
    put(layout.media_tiles(), bytemuck::cast_slice(&seen.tiles));
    put(layout.split_rows(), bytemuck::cast_slice(&rows));
    put(layout.media_split_rows(), bytemuck::cast_slice(&seen.rows));
    put(layout.split_items(), bytemuck::cast_slice(&items));
    put(layout.media_split_items(), bytemuck::cast_slice(&seen.items));
    of_images(batch, &layout).iter().for_each(|(at, list)| put(*at, list));
    put(layout.ids(), batch.ids);
    put(layout.positions(), &positions);
    put(layout.table_of(), &table_of);
    put(layout.order(), &seen.order);
    put(layout.seeing(), &seen.seeing);
    put(layout.outputs(), batch.outputs);
    put(layout.image_pages(), &image_pages);
    put(layout.tables(), &tables);
    shape
}

/// Lists of images and frames, each with its place.
fn of_images(batch: &Batch, layout: &Layout) -> [(usize, Vec<u32>); 4] {
    let places: Vec<FramePlace> = batch.frame_places().collect();
    [
        (layout.frame_places(), bytemuck::cast_slice(&places).to_vec()),
        (layout.tilings(), bytemuck::cast_slice(batch.tilings).to_vec()),
        (layout.pixel_places(), pixel_places(batch.pixels)),
        (layout.frame_starts(), batch.frame_starts()),
    ]
}

/// Where each frame stands among those with pixels.
fn pixel_places(frames: &[&[u8]]) -> Vec<u32> {
    let mut count = 0;
    let place = |pixels: &&[u8]| {
        count += u32::from(!pixels.is_empty());
        if pixels.is_empty() { NO_PIXELS } else { count - 1 }
    };
    frames.iter().map(place).collect()
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
fn divided<'a>(sequences: Vec<Sequence<'a>>, splits: &Splits) -> (Vec<Sequence<'a>>, Vec<Sequence<'a>>) {
    let is_few = |sequence: &Sequence| sequence.count <= SPLIT_ROWS;
    if !sequences.iter().any(|sequence| is_few(sequence) && sequence.tiles() > 1) {
        return (Vec::new(), sequences);
    }
    let mut slots = 0;
    sequences.into_iter().partition(|sequence| {
        let fits = is_few(sequence) && slots + sequence.slots() <= splits.slots_max;
        slots += if fits { sequence.slots() } else { 0 };
        fits
    })
}

/// Tiles of as many tokens as there is room for with so many heads.
fn query_tiles(sequences: &[Sequence], group: usize) -> Vec<QueryTile> {
    let most = TILE_ROWS / group;
    let tiles = sequences.iter().flat_map(|sequence| {
        (0..sequence.count).step_by(most).map(move |token| QueryTile {
            first: (sequence.first + token) as u32,
            count: (sequence.count - token).min(most) as u32,
            position: (sequence.position + token) as u32,
            table: sequence.start,
        })
    });
    tiles.collect()
}

/// The pages of all sequences, with room for one more, and where those of each begin.
fn text_tables(batch: &Batch) -> (Vec<u32>, Vec<u32>) {
    let mut tables = Vec::with_capacity(batch.tables.iter().map(|table| table.len()).sum::<usize>() + 1);
    let mut starts = Vec::with_capacity(batch.tables.len());
    for table in batch.tables {
        starts.push(tables.len() as u32);
        tables.extend_from_slice(table);
    }
    (tables, starts)
}

/// Tokens and the images that they see: which see any, and these in order, as tiles or as rows whose pages are split.
struct Seen {
    seeing: Vec<u32>,
    order: Vec<u32>,
    tiles: Vec<MediaTile>,
    rows: Vec<SplitRow>,
    items: Vec<SplitItem>,
}

impl Seen {
    /// `pages`: where the pages of each image begin.
    fn new(media: &[MediaSeen], pages: &[u32], decoded: bool, splits: &Splits) -> Seen {
        let seeing = media.iter().map(|seen| u32::from(seen.images > 0)).collect();
        let order = by_images(media);
        let (split, walked) = viewers(media, &order, pages, decoded, splits);
        let tiles = media_tiles(&walked, splits.group);
        let (rows, items) = split_media(&split, splits.group);
        Seen { seeing, order, tiles, rows, items }
    }
}

/// Adds the pages of images to a list, each with the rows that it holds; where those of each begin, and the end.
fn append_images(tables: &mut Vec<u32>, images: &[ImagePages]) -> Vec<u32> {
    let mut starts = vec![tables.len() as u32];
    for image in images {
        assert!(image.is_whole(), "an image has as many pages as its rows fill");
        tables.extend(image.filled().flat_map(|(page, rows)| [page, rows as u32]));
        starts.push(tables.len() as u32);
    }
    starts
}

/// Tokens sorted by the images they see, those that see nothing last.
fn by_images(media: &[MediaSeen]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..media.len() as u32).collect();
    order.sort_by_key(|&token| (media[token as usize].images == 0, media[token as usize]));
    order
}

/// Tokens in this order, those together that see the same images: whose pages are split over blocks, as far as there is
/// room for partial results, and the others. `pages`: where the pages of each image begin. Where none sees more pages
/// than an item walks, there is nothing to split; where all are decoded, however many see the same are.
fn viewers<'a>(
    media: &[MediaSeen],
    order: &'a [u32],
    pages: &[u32],
    decoded: bool,
    splits: &Splits,
) -> (Vec<Viewers<'a>>, Vec<Viewers<'a>>) {
    let seen = |token: u32| media[token as usize];
    let mut end_of_last = 0;
    let together = order.chunk_by(|&a, &b| seen(a) == seen(b)).map(|tokens| {
        let first = end_of_last;
        end_of_last += tokens.len();
        let range = seen(tokens[0]).range();
        let [table, end] = [range.start, range.end].map(|image| pages[image]);
        Viewers { first, tokens, table, pages: (end - table) as usize / 2 }
    });
    let together: Vec<Viewers> = together.collect();
    let is_few = |viewers: &Viewers| decoded || viewers.tokens.len() <= SPLIT_ROWS;
    if !together.iter().any(|viewers| is_few(viewers) && viewers.pages > ITEM_TILES) {
        return (Vec::new(), together);
    }
    let mut slots = 0;
    together.into_iter().partition(|viewers| {
        let fits = is_few(viewers) && slots + viewers.slots() <= splits.slots_max;
        slots += if fits { viewers.slots() } else { 0 };
        fits
    })
}

/// Tiles of these tokens, as many as there is room for with so many heads.
fn media_tiles(viewers: &[Viewers], group: usize) -> Vec<MediaTile> {
    let most = TILE_ROWS / group;
    let tiles = viewers.iter().flat_map(|viewers| {
        (0..viewers.tokens.len()).step_by(most).map(move |token| MediaTile {
            first: (viewers.first + token) as u32,
            count: (viewers.tokens.len() - token).min(most) as u32,
            table: viewers.table,
            pages: viewers.pages as u32,
        })
    });
    tiles.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPLITS: Splits = Splits { slots_max: 1000, group: 1 };
    const PLENTY: Splitting = Splitting { text: SPLITS, media: SPLITS, sharers_least: 2 };
    const NOBODY: u32 = 999;

    #[test]
    fn tokens_are_cut_by_sequence_and_sorted_by_what_they_see() {
        let tokens = 70 + 3;
        let sequences: Vec<u32> = (0..tokens).map(|token| u32::from(token >= 70)).collect();
        let positions: Vec<u32> = (0..70).chain(30..33).collect();
        let seen = [MediaSeen::NOTHING, MediaSeen { first: 1, images: 2 }, MediaSeen::one(0)];
        let media: Vec<MediaSeen> = (0..tokens).map(|token| seen[token as usize % 3]).collect();
        let image = |pages, rows| ImagePages { pages, rows };
        let batch = Batch {
            ids: &vec![1; tokens as usize],
            positions: &positions,
            sequences: &sequences,
            tables: &[&[7, 8, 9, 10, 11], &[3, 4, 6]],
            seen_images: &[image(&[5], 9), image(&[6, 2], 65), image(&[8], 64)],
            media: &media,
            outputs: &[69, 72],
            ..Batch::default()
        };
        let mut words = Vec::new();
        let shape = write(&batch, NOBODY, &PLENTY, &mut words);
        let layout = Layout(shape);
        assert_eq!((shape.query_tiles, shape.split_rows, shape.media_tiles, shape.capturable), (3, 0, 3, false));
        let tiles: &[QueryTile] = bytemuck::cast_slice(&words[layout.query_tiles()..][..12]);
        let last = QueryTile { first: 70, count: 3, position: 30, table: 5 };
        assert_eq!((tiles[1].first, tiles[1].count, tiles[1].position, tiles[2]), (64, 6, 64, last));
        let tiles: &[MediaTile] = bytemuck::cast_slice(&words[layout.media_tiles()..][..12]);
        assert_eq!([0, 1, 2].map(|tile| (tiles[tile].table, tiles[tile].pages)), [(8, 1), (10, 3), (8, 0)]);
        assert_eq!(words[layout.order()..][..3], [2, 5, 8]);
        assert_eq!(words[layout.tables()..][5..], [3, 4, 6, 5, 9, 6, 64, 2, 1, 8, 64]);
    }

    #[test]
    fn a_decode_step_has_the_shape_of_the_last_one() {
        let shape = |position: u32, media: MediaSeen| {
            let batch = Batch {
                ids: &[1, 2],
                positions: &[position, 3],
                sequences: &[0, 1],
                tables: &[&[0; 300], &[1]],
                seen_images: &[ImagePages { pages: &[3], rows: 64 }],
                media: &[media, MediaSeen::NOTHING],
                outputs: &[0, 1],
                ..Batch::default()
            };
            write(&batch, NOBODY, &PLENTY, &mut Vec::new())
        };
        let (nothing, one) = (MediaSeen::NOTHING, MediaSeen::one(0));
        assert!(shape(300, nothing).capturable);
        assert_eq!(shape(300, nothing), shape(639, one));
        assert_ne!(shape(300, nothing), shape(4000, nothing));
    }

    #[test]
    fn decoded_tokens_are_filled_up_by_less_than_a_page() {
        let found: Vec<usize> = (1..=CAPTURED_TOKENS_MAX).map(filled_up).collect();
        let mut kept = found.clone();
        kept.dedup();
        assert_eq!(kept[..11], [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80]);
        assert_eq!(kept.last(), Some(&CAPTURED_TOKENS_MAX));
        assert!((1..).zip(&found).all(|(tokens, &rows)| (tokens..tokens + PAGE_TOKENS).contains(&rows)));
    }

    /// Padding is one more sequence, of a page that no other has; it is in each list as a token is.
    #[test]
    fn padding_is_a_sequence_of_nobody() {
        let one = MediaSeen::one;
        for length in [20, 200] {
            let table: Vec<u32> = (0..13).collect();
            let batch = Batch {
                ids: &[7; 5],
                positions: &[length; 5],
                sequences: &[0, 1, 2, 3, 4],
                tables: &[&table[..]; 5],
                seen_images: &[ImagePages { pages: &[1], rows: 64 }, ImagePages { pages: &[3], rows: 64 }],
                media: &[one(1), MediaSeen::NOTHING, one(1), one(0), MediaSeen::NOTHING],
                outputs: &[4, 0, 1, 2, 3],
                ..Batch::default()
            };
            let mut words = Vec::new();
            let shape = write(&batch, NOBODY, &PLENTY, &mut words);
            let layout = Layout(shape);
            assert_eq!((shape.tokens, shape.outputs, shape.media_tiles, shape.capturable), (8, 8, 8, true));
            let list = |at: usize, count: usize| &words[at..at + count];
            assert_eq!(list(layout.ids(), 8), [7, 7, 7, 7, 7, 0, 0, 0]);
            assert_eq!(list(layout.positions(), 8), [length, length, length, length, length, 0, 1, 2]);
            assert_eq!(list(layout.outputs(), 8), [4, 0, 1, 2, 3, 0, 0, 0]);
            assert_eq!(list(layout.order(), 8), [3, 0, 2, 1, 4, 5, 6, 7]);
            assert_eq!(list(layout.seeing(), 8), [1, 0, 1, 1, 0, 0, 0, 0]);
            assert_eq!(list(layout.table_of(), 8), [0, 13, 26, 39, 52, 65, 65, 65]);
            assert_eq!(words[layout.tables() + 65..], [NOBODY, 1, 64, 3, 64]);
            let tiles: &[MediaTile] = bytemuck::cast_slice(list(layout.media_tiles(), 32));
            let cut = |tile: &MediaTile| (tile.first, tile.count, tile.table, tile.pages);
            assert_eq!(tiles[..3].iter().map(cut).collect::<Vec<_>>(), [(0, 1, 66, 1), (1, 2, 68, 1), (3, 5, 66, 0)]);
            assert!(tiles[3..].iter().all(|tile| tile.count == 0));
            if length < 64 {
                assert_eq!((shape.query_tiles, shape.split_rows, shape.split_items), (8, 0, 0));
                let tiles: &[QueryTile] = bytemuck::cast_slice(list(layout.query_tiles(), 32));
                assert_eq!(tiles[5], QueryTile { first: 5, count: 3, position: 0, table: 65 });
                assert!(tiles[6..].iter().all(|tile| tile.count == 0));
            } else {
                assert_eq!((shape.query_tiles, shape.split_rows, shape.split_items), (0, 8, 8));
                let rows: &[SplitRow] = bytemuck::cast_slice(list(layout.split_rows(), 32));
                let items: &[SplitItem] = bytemuck::cast_slice(list(layout.split_items(), 48));
                let mut tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
                tokens.sort_unstable();
                assert_eq!(tokens, [0, 1, 2, 3, 4, 5, 6, 7]);
                let of_nobody = |item: &&SplitItem| item.count > 0 && item.table == 65;
                let found: Vec<_> = items.iter().filter(of_nobody).map(|item| (item.count, item.keys)).collect();
                assert_eq!(found, [(3, 3)]);
            }
        }
    }

    #[test]
    fn absent_tiles_have_no_pixels() {
        let pixels: [&[u8]; 6] = [&[1], &[2], &[], &[3], &[], &[]];
        let tilings = [Tiling { ratio: 5, tiles: 2 }, Tiling { ratio: 1, tiles: 1 }];
        let images = [ImagePages { pages: &[], rows: 0 }; 2];
        let batch = Batch { pixels: &pixels, images: &images, frames: &[3, 3], tilings: &tilings, ..Batch::default() };
        let mut words = Vec::new();
        let layout = Layout(write(&batch, NOBODY, &PLENTY, &mut words));
        assert_eq!(words[layout.tilings()..][..4], [5, 2, 1, 1]);
        assert_eq!(words[layout.pixel_places()..][..6], [0, 1, NO_PIXELS, 2, NO_PIXELS, NO_PIXELS]);
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
            media: &[MediaSeen::NOTHING; 73],
            ..Batch::default()
        };
        let written = |slots_max| {
            let mut words = Vec::new();
            let shape =
                write(&batch, NOBODY, &Splitting { text: Splits { slots_max, ..SPLITS }, ..PLENTY }, &mut words);
            let layout = Layout(shape);
            let rows: &[SplitRow] = bytemuck::cast_slice(&words[layout.split_rows()..][..4 * shape.split_rows]);
            let tiles: &[QueryTile] = bytemuck::cast_slice(&words[layout.query_tiles()..][..4 * shape.query_tiles]);
            assert!(!shape.capturable);
            let split: Vec<u32> = rows.iter().map(|row| row.token).collect();
            (split, tiles.iter().map(|tile| (tile.first, tile.count)).collect::<Vec<_>>(), shape.split_items)
        };
        assert_eq!(written(6), (vec![71, 72, 0], vec![(1, 64), (65, 6)], 3));
        assert_eq!(written(5), (vec![0], vec![(1, 64), (65, 6), (71, 2)], 2));
        assert_eq!(written(3), (vec![71, 72], vec![(0, 1), (1, 64), (65, 6)], 1));
    }
}
