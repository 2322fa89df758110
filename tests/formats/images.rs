//! Images against Pillow 12.0: the same 8-bit squares to the last bit, the same floats, lossy files within a few
//! levels; and files that must be refused in one line. The data is made by tools/golden_images.py, which documents it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flamant::image::{Crop, Image, Limits, Mode, Preprocessor, decode};

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(folder)
}

/// Name and content of every file of a folder, in the order of the names.
fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(data(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn image(name: &str, bytes: &[u8]) -> Image {
    decode(bytes, name, &Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn every_square_is_pillows_to_the_last_bit() {
    let mut images = files("sources");
    images.extend(files("lossy").into_iter().filter(|(name, _)| name.ends_with(".png")));
    let expected = fs::read_to_string(data("expected.txt")).unwrap();
    let mut wrong = Vec::new();
    for line in expected.lines() {
        let [name, rule, size, hash] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let crop = if rule == "crop" { Crop::ShortestEdgeCentreCrop } else { Crop::Stretch };
        let rgb = Preprocessor::clip(crop, size.parse().unwrap()).rgb(&image(name, &images[name]));
        if format!("{:016x}", fnv1a(&rgb)) != hash {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), expected.lines().count(), wrong.join("\n"));
    assert!(expected.lines().count() >= 200);
}

#[test]
fn every_level_becomes_the_same_float() {
    let levels = Preprocessor::clip(Crop::Stretch, 16).levels();
    let expected = fs::read_to_string(data("levels.txt")).unwrap();
    for (level, line) in expected.lines().enumerate() {
        for (channel, bits) in line.split(' ').enumerate() {
            let float = f32::from_bits(u32::from_str_radix(bits, 16).unwrap());
            assert_eq!(levels[channel * 256 + level], float, "level {level}, channel {channel}");
        }
    }
}

#[test]
fn lossy_files_are_within_a_few_levels_of_pillow() {
    let images = files("lossy");
    let mut wrong = Vec::new();
    for (name, bytes) in images.iter().filter(|(name, _)| !name.ends_with(".png")) {
        let (ours, pillows) = (image(name, bytes), image(name, &images[&format!("{name}.png")]));
        assert_eq!((ours.width(), ours.height()), (pillows.width(), pillows.height()));
        let (ours, pillows) = match ours.mode() {
            Mode::Cmyk => (ours.to_rgb(), pillows.to_rgb()),
            mode => {
                assert_eq!(mode, pillows.mode());
                (ours.pixels().into(), pillows.pixels().into())
            }
        };
        let pairs = ours.iter().zip(pillows.iter());
        let differences: Vec<f64> = pairs.map(|(&a, &b)| f64::from(a.abs_diff(b))).collect();
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        let most = differences.iter().copied().fold(0.0, f64::max);
        println!("{name}: mean {mean:.3}, most {most}");
        let (most_max, mean_max) = if name.ends_with(".webp") { (8.0, 0.05) } else { (0.0, 0.0) };
        if most > most_max || mean > mean_max {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Asserts that a file is refused in one line that names it, and soon.
fn refused(source: &str, bytes: &[u8]) -> String {
    let start = Instant::now();
    let text = decode(bytes, source, &Limits::default()).expect_err(source).to_string();
    assert!(text.contains(source) && !text.contains('\n') && text.len() < 500, "{text}");
    assert!(start.elapsed() < Duration::from_secs(1), "{source} took {:?}", start.elapsed());
    text
}

/// A PNG that ends after its header, whose checksum is given.
fn png_header(width: u32, height: u32, crc: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    bytes.extend([8, 2, 0, 0, 0]);
    bytes.extend(crc.to_be_bytes());
    bytes
}

#[test]
fn what_is_no_image_is_refused() {
    assert!(refused("image 3 of the prompt", b"").contains("found 0 bytes"));
    assert!(refused("notes.txt", b"no image at all").contains("expected PNG, JPEG, WebP, GIF or BMP data"));
    refused("half a magic number", b"\x89PNG");
    refused("only a magic number", b"\x89PNG\r\n\x1a\n");
    refused("drawing.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>");
}

#[test]
fn formats_that_are_not_read_are_named() {
    let dicom = [&[0; 128][..], b"DICM"].concat();
    let table: [(&[u8], &str); 24] = [
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF, which is not read: convert it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, which is not read"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIF, which is not read"),
        (b"II*\0\x08\0\0\0", "TIFF, which is not read"),
        (b"MM\0*\0\0\0\x08", "TIFF, which is not read"),
        (b"MM\0+\0\x08\0\0", "TIFF, which is not read"),
        (b"II*\0\x10\0\0\0CR\x02\0", "a raw photograph (CR2), which is not read"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000, which is not read"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000, which is not read"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL, which is not read"),
        (b"II\xbc\x01\x08\0\0\0", "JPEG XR, which is not read"),
        (b"P6\n1 1\n255\n...", "PNM (PBM, PGM, PPM, PAM or PFM), which is not read"),
        (b"P1 1 1 0", "PNM"),
        (b"\0\0\x01\0\x01\0", "ICO, which is not read"),
        (b"8BPS\0\x01", "PSD, which is not read"),
        (b"%PDF-1.7", "PDF, which is not read"),
        (b"qoif\0\0\0\x01", "QOI, which is not read"),
        (b"DDS |\0\0\0", "DDS, which is not read"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG, which is not read"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML page, as servers send it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer: fetch the file itself"),
        (b"\x1f\x8b\x08\0", "a gzip file: unpack it"),
        (b"PK\x03\x04", "a zip file: unpack it"),
        (&dicom, "DICOM, which is not read"),
    ];
    for (bytes, found) in table {
        let text = refused("picture", bytes);
        assert!(text.contains(&format!("expected PNG, JPEG, WebP, GIF or BMP data, found {found}")), "{text}");
    }
}

/// A segment of a JPEG.
fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    [&[0xff, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
}

/// A grey JPEG of these sides: tables, then `body`. Its codes are 00 for DC and 00 for the end of a block.
fn gray_jpeg(frame: u8, [width, height]: [u16; 2], body: &[u8]) -> Vec<u8> {
    let head = [&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[1, 1, 0x11, 0]].concat();
    let table = |place: u8| segment(0xc4, &[&[place, 0, 1][..], &[0; 14], &[0]].concat());
    let quantisation = segment(0xdb, &[&[0][..], &[1; 64]].concat());
    [&b"\xff\xd8"[..], &quantisation, &table(0), &table(0x10), &segment(frame, &head), body].concat()
}

#[test]
fn jpegs_that_lie_are_refused_and_odd_ones_are_read() {
    let scan = |progressive: &[u8; 3]| segment(0xda, &[&[1, 1, 0][..], progressive].concat());
    let whole = scan(&[0, 63, 0]);
    let with = |data: &[u8]| [&whole[..], data].concat();
    let empty = [scan(&[0, 0, 0]), b"\x3f".to_vec()].concat();
    let restarts = |data: &[u8]| [&segment(0xdd, &[0, 1])[..], &whole, data].concat();
    let coded = [&[0x0f; 40][..], b"\xff\xd0\x0f\xff\xd9"].concat();
    let first_bands = [scan(&[0, 0, 0]), b"\x3f".to_vec()].concat();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a code that no table has",
            gray_jpeg(0xc0, [8, 8], &with(b"\xef\xff\0\xff\0\x0f\xff\xd9")),
            "bad Huffman code",
        ),
        ("half of the blocks", gray_jpeg(0xc0, [64, 8], &with(b"\0\xff\xd9")), "premature end"),
        ("an image within the scan", gray_jpeg(0xc0, [64, 8], &with(b"\0\xff\xd8\0\0\xff\xd9")), "premature end"),
        ("the end of the file", gray_jpeg(0xc0, [64, 8], &with(b"\0")), "premature end"),
        ("another restart", gray_jpeg(0xc0, [16, 8], &restarts(b"\x0f\xff\xd5\x0f\xff\xd9")), "restart"),
        ("no restart", gray_jpeg(0xc0, [16, 8], &restarts(b"\x0f\xff\xd9")), " d9"),
        ("more than a restart's", gray_jpeg(0xc0, [16, 8], &restarts(&coded)), "extraneous"),
        ("100 scans and more", gray_jpeg(0xc2, [8, 8], &empty.repeat(500)), "more scans than the limit"),
        ("progressive, cut between scans", gray_jpeg(0xc2, [8, 8], &first_bands), "Premature end of JPEG file"),
        ("no scan", gray_jpeg(0xc0, [8, 8], b"\xff\xd9"), "JPEG"),
        ("no height", gray_jpeg(0xc0, [8, 0], &with(b"\x0f\xff\xd9")), "JPEG"),
        ("a lossless frame", gray_jpeg(0xc3, [8, 8], &with(b"\x0f\xff\xd9")), " c3"),
        ("a hierarchical frame", gray_jpeg(0xc5, [8, 8], &with(b"\x0f\xff\xd9")), " c5"),
        ("half a segment", gray_jpeg(0xc0, [8, 8], b"\xff\xe1\xff\xff"), "JPEG"),
    ];
    for (case, bytes, reason) in table {
        let text = refused(case, &bytes);
        assert!(text.contains("a complete and undamaged file") && text.contains(reason), "{text}");
    }
    for (case, bytes) in [
        ("whole", gray_jpeg(0xc0, [8, 8], &with(b"\x0f\xff\xd9"))),
        ("no end", gray_jpeg(0xc0, [8, 8], &with(b"\x0f"))),
        ("zeros for an end", gray_jpeg(0xc0, [8, 8], &with(b"\x0f\0\0"))),
        ("another image behind", gray_jpeg(0xc0, [8, 8], &with(b"\x0f\xff\xd9\xff\xd8\xff"))),
        ("fill bytes", gray_jpeg(0xc0, [8, 8], &[&b"\xff\xff"[..], &with(b"\x0f\xff\xff\xd9")].concat())),
    ] {
        assert_eq!(image(case, &bytes).pixels(), [128; 64], "{case}");
    }
}

#[test]
fn what_16_bit_gray_loses_is_told() {
    let sources = files("sources");
    let note = |name: &str| image(name, &sources[name]).note();
    assert!(note("grey16-noise-61x38.png").unwrap().contains("levels above 255 are white"));
    assert_eq!(note("rgb16-64x64.png"), None);
}

#[test]
fn sizes_over_the_limits_are_refused_from_the_header() {
    assert!(refused("huge.png", &png_header(50_000, 50_000, 0xc4cd_aa9d)).contains("50000 is over the limit of 16384"));
    assert!(refused("many.png", &png_header(16_384, 16_384, 0x26aa_87d3)).contains("number of pixels"));
    assert!(refused("huge.gif", b"GIF89a\xff\xff\xff\xff\0\0\0").contains("65535 is over the limit"));
    let beyond = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\xff\xff\xff\xff\xff\xff\xff\xff\0\x02\x02L\x01\0;";
    assert!(refused("frame beyond its screen.gif", beyond).contains("131070 is over the limit"));
    let mut bmp = files("sources")["rgb.bmp"].clone();
    bmp[18..26].copy_from_slice(&[0x20, 0x4e, 0, 0, 0x20, 0x4e, 0, 0]);
    assert!(refused("huge.bmp", &bmp).contains("20000 is over the limit"));

    let tight = Limits::default().bytes_max(10);
    let text = decode(&bmp, "long.bmp", &tight).unwrap_err().to_string();
    assert!(text.starts_with("long.bmp: bytes of the file") && text.ends_with("over the limit of 10"), "{text}");
}

#[test]
fn a_chunk_may_not_claim_more_than_the_file_holds() {
    let mut webp = files("sources")["lossless-turned.webp"].clone();
    let exif = webp.windows(4).position(|name| name == b"EXIF").unwrap();
    webp[exif + 4..exif + 8].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    assert!(refused("claims.webp", &webp).ends_with("found fewer bytes than its chunks claim"));
}

/// As Pillow 12.0 has it: what follows a file in it is no part of the image, and says nothing of it.
#[test]
fn what_follows_an_image_is_passed_over() {
    let sources = files("sources");
    let turn = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let in_webp = [b"EXIF\x1a\0\0\0", &turn[..]].concat();
    for name in ["lossless.webp", "lossless-turned.webp", "lossless-alpha.webp"] {
        for tail in [&b"x"[..], b"EXIF\xff\xff\xff\xff", &in_webp, &[0; 1000]] {
            let bytes = [&sources[name][..], tail].concat();
            assert!(image(name, &bytes) == image(name, &sources[name]), "{name} and {} bytes", tail.len());
        }
    }
    let (name, sum) = ("rgb8-noise-61x38.png", crc(b"eXIf", turn));
    let chunk = [&26_u32.to_be_bytes()[..], b"eXIf", turn, &sum].concat();
    let (before, end) = sources[name].split_at(sources[name].len() - 12);
    assert_eq!(image(name, &[before, &chunk, end].concat()).width(), image(name, &sources[name]).height());
    assert!(image(name, &[before, end, &chunk].concat()) == image(name, &sources[name]));
}

/// The checksum of a PNG's chunk.
fn crc(name: &[u8], content: &[u8]) -> [u8; 4] {
    let rest = |rest: u32| if rest & 1 == 1 { rest >> 1 ^ 0xedb8_8320 } else { rest >> 1 };
    let bytes = name.iter().chain(content);
    (!bytes.fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| rest(sum)))).to_be_bytes()
}

/// Texts that may hold EXIF are unpacked to 64 MiB, as in Pillow, which refuses more.
#[test]
fn texts_of_a_png_are_bounded_together() {
    let sources = files("sources");
    let name = "rgb8-noise-61x38.png";
    let (before, pixels) = sources[name].split_at(33);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b'a'; 1 << 20]).unwrap();
    let text = [b"Raw profile type exif\0\0", &packed.finish().unwrap()[..]].concat();
    let chunk = [&(text.len() as u32).to_be_bytes()[..], b"zTXt", &text, &crc(b"zTXt", &text)].concat();
    let bytes = [before, &chunk.repeat(20_000), pixels].concat();
    let start = Instant::now();
    assert!(image(name, &bytes) == image(name, &sources[name]));
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
}

#[test]
fn compressed_bombs_cost_nothing() {
    for (name, bytes) in files("bombs") {
        let start = Instant::now();
        if let Ok(image) = decode(&bytes, &name, &Limits::default()) {
            assert_eq!(image.pixels(), [0; 3]);
        }
        assert!(start.elapsed() < Duration::from_millis(500), "{name} took {:?}", start.elapsed());
    }
}

#[test]
fn truncated_files_are_refused() {
    for (name, bytes) in files("sources").into_iter().chain(files("lossy")) {
        // All that is left of the animation is its first frame, which is all that is read.
        if name == "animated.gif" {
            continue;
        }
        for kept in [bytes.len() / 4, bytes.len() / 2, bytes.len() * 3 / 4] {
            refused(&name, &bytes[..kept]);
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for (name, bytes) in files("sources").into_iter().chain(files("lossy")) {
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            for _ in 0..random.below(6) + 1 {
                let place = random.below(damaged.len());
                // Headers are short and decide the most.
                let place = if random.below(2) == 0 { place } else { place % 64.min(damaged.len()) };
                damaged[place] = random.below(256) as u8;
            }
            if random.below(4) == 0 {
                damaged.truncate(random.below(bytes.len()));
            }
            match decode(&damaged, &name, &Limits::default().pixels_max(1 << 20)) {
                Ok(image) => {
                    for crop in [Crop::Stretch, Crop::ShortestEdgeCentreCrop, Crop::Tiles { tiles_max: 4 }] {
                        let frames = Preprocessor::clip(crop, 28).frames(&image);
                        assert_eq!(frames.rgb.len(), frames.tiles * 28 * 28 * 3);
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    let reason = text.strip_prefix(&name).expect(&text);
                    assert!(!reason.contains(" { "), "a dump of a type: {text}");
                }
            }
        }
    }
}

/// Xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

#[test]
fn raw_pixels_must_fill_the_image() {
    for (width, height, length) in [(2, 2, 11), (0, 5, 0), (u32::MAX, u32::MAX, 3)] {
        let text = Image::from_rgb(width, height, vec![0; length]).unwrap_err().to_string();
        assert!(text.contains("expected") && text.contains(&format!("found {length} bytes")), "{text}");
    }
    assert_eq!(Image::from_rgb(2, 1, vec![0; 6]).unwrap().mode(), Mode::Rgb);
}

#[test]
fn a_very_long_image_costs_only_its_middle() {
    let line = Image::from_rgb(1, 16_384, vec![200; 3 * 16_384]).unwrap();
    let start = Instant::now();
    assert_eq!(Preprocessor::clip(Crop::ShortestEdgeCentreCrop, 224).rgb(&line), vec![200; 224 * 224 * 3]);
    assert!(start.elapsed() < Duration::from_secs(1));
}
