//! Hundreds of small files against Pillow 12.0: not one byte of a pixel differs. The scripts in tools/ that make them
//! (`golden_jpeg.py`, `golden_bmp.py`, `golden_tiles.py`) say how the suites are written.

use std::fs;
use std::path::{Path, PathBuf};

use flamant::image::{Crop, Image, Limits, Preprocessor, decode};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name)
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Name, content and expectation of each file of a suite.
fn files(suite: &str) -> Vec<(String, Vec<u8>, String)> {
    let all = fs::read(data(&format!("{suite}.bin"))).unwrap();
    let text = fs::read_to_string(data(&format!("{suite}.txt"))).unwrap();
    let mut rest = &all[..];
    let files = text.lines().map(|line| {
        let [name, length, expected] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let (file, after) = rest.split_at(length.parse().unwrap());
        rest = after;
        (name.to_owned(), file.to_vec(), expected.to_owned())
    });
    let files = files.collect();
    assert!(rest.is_empty());
    files
}

/// Sides and pixels as a line of a suite has them, or why there are none.
fn found(name: &str, bytes: &[u8]) -> String {
    match decode(bytes, name, &Limits::default()) {
        Ok(image) => format!("{} {} {:016x}", image.width(), image.height(), fnv1a(&image.to_rgb())),
        Err(error) => error.to_string(),
    }
}

fn check(suite: &str, least: usize) {
    let files = files(suite);
    let wrong: Vec<String> = files
        .iter()
        .map(|(name, bytes, expected)| (name, found(name, bytes), expected))
        .filter(|(_, found, expected)| found != *expected)
        .map(|(name, found, expected)| format!("{name}: {found}, not {expected}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    assert!(files.len() >= least);
}

#[test]
fn every_jpeg_is_pillows_to_the_byte() {
    check("jpeg", 700);
}

#[test]
fn every_bmp_is_pillows_to_the_byte() {
    check("bmp", 400);
}

#[test]
fn what_pillow_turns_is_turned() {
    check("turned", 150);
}

/// Tiles of `side` pixels, their number and that of the aspect ratio, and hashes, as a line of the suite has them.
fn tiles(image: &Image, side: usize, tiles_max: usize) -> String {
    let preprocessor = Preprocessor::clip(Crop::Tiles { tiles_max }, side);
    let (frames, levels) = (preprocessor.frames(image), preprocessor.levels());
    // The encoder's input has channels first, and zeros for tiles that are not there.
    let mut input = vec![0.0_f32; tiles_max * 3 * side * side];
    for (place, &level) in frames.rgb.iter().enumerate() {
        let (pixel, channel) = (place / 3, place % 3);
        let (tile, pixel) = (pixel / (side * side), pixel % (side * side));
        input[(tile * 3 + channel) * side * side + pixel] = levels[channel * 256 + usize::from(level)];
    }
    let input: Vec<u8> = input.into_iter().flat_map(f32::to_le_bytes).collect();
    let hashes = (fnv1a(&frames.rgb), fnv1a(&input));
    format!("{side} {tiles_max} {} {} {:016x} {:016x}", frames.tiles, frames.ratio, hashes.0, hashes.1)
}

/// 8-bit tiles and the floats that they become, against transformers' processor of Llama-3.2-Vision.
#[test]
fn every_tile_is_transformers_to_the_byte() {
    let files = files("tiles");
    let mut image = None;
    let mut wrong = Vec::new();
    for (name, bytes, expected) in &files {
        // A line without bytes is another way to cut the image of the line before.
        if !bytes.is_empty() {
            image = Some(decode(bytes, name, &Limits::default()).unwrap_or_else(|error| panic!("{error}")));
        }
        let [side, tiles_max] = [0, 1].map(|place| expected.split(' ').nth(place).unwrap().parse().unwrap());
        let found = tiles(image.as_ref().unwrap(), side, tiles_max);
        if found != *expected {
            wrong.push(format!("{name}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    assert!(files.len() >= 600);
}

/// Other people's images, which tools/corpus_images.py gathers.
#[test]
#[ignore = "needs FLAMANT_CORPUS, a folder that tools/corpus_images.py wrote"]
fn corpus() {
    let folder = std::env::var("FLAMANT_CORPUS").expect("FLAMANT_CORPUS");
    let files = files(&format!("{folder}/corpus"));
    let mut counts = [0; 4];
    for (name, bytes, expected) in &files {
        let found = found(name, bytes);
        // What is refused names itself.
        let is_refused = |line: &str| line.starts_with("refused: ") || line.starts_with(name);
        let kind = match (is_refused(&found), is_refused(expected)) {
            (false, false) if found == *expected => 0,
            (false, false) => 1,
            (true, true) => 2,
            _ => 3,
        };
        counts[kind] += 1;
        if kind == 1 || kind == 3 {
            println!("{name}: {found}, Pillow: {expected}");
        }
    }
    let [equal, differ, refused, one] = counts;
    println!("{} files: {equal} equal, {differ} differ, {refused} refused by both, {one} by one", files.len());
}
