//! Llama-3.2-Vision's way with images (`image_processing_mllama.py`): an image is laid on a canvas of whole tiles.
//!
//! Everything is computed in double precision in transformers' order of operations, as sizes are cut off to integers.

use super::resize::{Axis, BILINEAR, filtered};
use super::{Frames, Image};

/// Tiles down and across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    down: usize,
    across: usize,
}

/// All grids of at most `tiles_max` tiles, in the order that numbers them.
fn grids(tiles_max: usize) -> impl Iterator<Item = Grid> {
    (1..=tiles_max).flat_map(move |down| (1..=tiles_max / down).map(move |across| Grid { down, across }))
}

/// How many canvases there are of at most so many tiles.
pub(crate) fn ratios(tiles_max: usize) -> usize {
    grids(tiles_max).count()
}

/// The canvas of an image, and its place among [`grids`]: the one that enlarges the image least, or else the one that
/// reduces it least; of several the one with the fewest tiles, and of these the first.
fn canvas(width: usize, height: usize, side: usize, tiles_max: usize) -> (usize, Grid) {
    let scale = |grid: Grid| {
        let of = |tiles: usize, length: usize| (tiles * side) as f64 / length as f64;
        of(grid.down, height).min(of(grid.across, width))
    };
    let enlarging = grids(tiles_max).map(scale).filter(|scale| *scale >= 1.0).min_by(f64::total_cmp);
    let chosen = enlarging.or_else(|| grids(tiles_max).map(scale).max_by(f64::total_cmp));
    let equal = grids(tiles_max).enumerate().filter(|&(_, grid)| Some(scale(grid)) == chosen);
    equal.min_by_key(|(_, grid)| grid.down * grid.across).expect("one tile is always possible")
}

/// Width and height of the image on its canvas: each side between that of one tile and that of the canvas, as far as
/// the proportions allow. A small image is enlarged to one tile's side, one that fits on its canvas keeps its size.
fn fitted(width: usize, height: usize, side: usize, grid: Grid) -> (usize, usize) {
    let most = (width.clamp(side, grid.across * side), height.clamp(side, grid.down * side));
    let scales = (most.0 as f64 / width as f64, most.1 as f64 / height as f64);
    // A cast cuts off as `floor` does; a strip keeps one row.
    let scaled = |length: usize, scale: f64, most: usize| ((length as f64 * scale) as usize).max(1).min(most);
    if scales.0 < scales.1 {
        (most.0, scaled(height, scales.0, most.1))
    } else {
        (scaled(width, scales.1, most.0), most.1)
    }
}

/// The tiles of an image.
pub(super) fn cut(image: &Image, side: usize, tiles_max: usize) -> Frames {
    let (place, grid) = canvas(image.width, image.height, side, tiles_max);
    let (width, height) = fitted(image.width, image.height, side, grid);
    let axis = |source, target| Axis { source, target, window: 0..target };
    let (x, y) = (axis(image.width, width), axis(image.height, height));
    let resized = filtered::<u8, 3>(&image.over_white(), &x, &y, &BILINEAR);

    let tiles = grid.down * grid.across;
    // Black where the image does not reach.
    let mut rgb = vec![0; tiles * side * side * 3];
    for (row, pixels) in resized.chunks_exact(width * 3).enumerate() {
        for (column, part) in pixels.chunks(side * 3).enumerate() {
            let tile = row / side * grid.across + column;
            let start = (tile * side + row % side) * side * 3;
            rgb[start..start + part.len()].copy_from_slice(part);
        }
    }
    Frames { rgb, tiles, ratio: place as u32 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_numbered_as_the_published_models_number_them() {
        let found: Vec<_> = grids(4).map(|grid| (grid.down, grid.across)).collect();
        assert_eq!(found, [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]);
    }

    /// Thousands of sizes, each side of a tile and number of tiles a line of the file (`tools/golden_tiles.py`).
    #[test]
    fn canvas_and_size_are_transformers() {
        let fnv1a = |hash: u64, number: usize| {
            let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            (number as u32).to_le_bytes().into_iter().fold(hash, step)
        };
        let lines = include_str!("../../tests/data/images/canvas.txt").lines();
        assert_eq!(lines.clone().count(), 8);
        for line in lines {
            let [side, tiles_max, hash] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (side, tiles_max): (usize, usize) = (side.parse().unwrap(), tiles_max.parse().unwrap());
            let all_over = (0..6000).map(|i| (1 + i * 7919 % 2003, 1 + i * 104_729 % 1999));
            let pairs = (1..8).flat_map(|across| (1..8).map(move |down| (across, down)));
            let whole = pairs.flat_map(|(across, down)| [0, 1].map(|more| (across * side + more, down * side - more)));
            let found = all_over.chain(whole).fold(0xcbf2_9ce4_8422_2325, |found, (width, height)| {
                let (_, grid) = canvas(width, height, side, tiles_max);
                let fitted = fitted(width, height, side, grid);
                [grid.down * side, grid.across * side, fitted.1, fitted.0].into_iter().fold(found, fnv1a)
            });
            assert_eq!(format!("{found:016x}"), hash, "{side} {tiles_max}");
        }
    }

    #[test]
    fn a_tile_is_a_part_of_the_canvas() {
        // Two tiles beside each other, as large as the image: nothing is resized.
        let pixels: Vec<u8> = (0..8 * 4 * 3).map(|index| index as u8 + 1).collect();
        let frames = cut(&Image::from_rgb(8, 4, pixels.clone()).unwrap(), 4, 4);
        assert_eq!((frames.tiles, frames.ratio), (2, 2));
        let rows = |tile: usize| pixels.chunks(24).flat_map(move |row| &row[tile * 12..][..12]);
        assert!(frames.rgb.iter().eq(rows(0).chain(rows(1))));
    }
}
