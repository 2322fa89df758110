//! Images that are none, are broken, or claim to be enormous; as files, and inside prompts.

use super::{Folder, refused, text};

/// A PNG of these sides and no pixels behind them.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], &chunk, &crc32(&chunk).to_be_bytes(), b"\0\0\0\0IDAT\x35\xaf\x06\x1e"]
        .concat()
}

/// The checksum of PNG chunks, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let rest = |rest: u32| if rest & 1 == 1 { rest >> 1 ^ 0xedb8_8320 } else { rest >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| rest(sum)))
}

/// A GIF whose screen, or whose only frame, has these sides.
fn gif(screen: [u16; 2], frame: [u16; 2]) -> Vec<u8> {
    let sides = |sides: [u16; 2]| sides.map(u16::to_le_bytes).concat();
    let head = [b"GIF89a", &sides(screen)[..], b"\x80\0\0", &[0, 0, 0, 255, 255, 255]].concat();
    [&head[..], b",\0\0\0\0", &sides(frame)[..], b"\0\x02\x02\x44\x01\0;"].concat()
}

/// A BMP of 24 bits of these sides, without pixels.
fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend([width, height].map(i32::to_le_bytes).concat());
    file.extend(b"\x01\0\x18\0");
    file.resize(54, 0);
    file
}

/// A lossless WebP of these sides.
fn webp(width: u32, height: u32) -> Vec<u8> {
    let sides = (width - 1) | (height - 1) << 14;
    [&b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f"[..], &sides.to_le_bytes(), &[0; 5]].concat()
}

/// A JPEG that ends where the pixels of an image with these sides would begin.
fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let sides = [height, width].map(u16::to_be_bytes).concat();
    let scan = b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0";
    [&b"\xff\xd8\xff\xc0\0\x11\x08"[..], &sides, b"\x03\x01\x22\0\x02\x11\x01\x03\x11\x01", scan, b"\xff\xd9"].concat()
}

/// The first half of one of the repository's own images.
fn half(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/images/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = std::fs::read(path).unwrap();
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// Each is refused by what follows the name of the file.
#[test]
fn files() {
    const OVER: &str = ": width in pixels: 30000 is over the limit of 16384";
    let table: [(&str, Vec<u8>, &str); 25] = [
        ("no bytes", vec![], ": image: expected PNG, JPEG, WebP, GIF or BMP data, found 0 bytes"),
        ("text", b"an image of a cat".to_vec(), ": image: expected PNG, JPEG, WebP, GIF or BMP data, found 17 bytes"),
        ("a TIFF", b"II*\0\x08\0\0\0".to_vec(), ": image: expected PNG, JPEG"),
        ("an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), ": image: expected PNG, JPEG"),
        ("only a signature", b"\x89PNG\r\n\x1a\n".to_vec(), ": PNG: expected a complete and undamaged file"),
        ("a PNG 30,000 wide", png(30_000, 1), ": width in pixels: 30000 is over the limit of 16384"),
        ("a PNG 30,000 high", png(1, 30_000), ": height in pixels: 30000 is over the limit of 16384"),
        ("a PNG of 30,000 each way", png(30_000, 30_000), OVER),
        (
            "a PNG of 2 Gpx each way",
            png(0x7fff_ffff, 0x7fff_ffff),
            ": width in pixels: 2147483647 is over the limit of 16384",
        ),
        ("a PNG of many pixels", png(16_000, 16_000), ": number of pixels: 256000000 is over the limit of "),
        ("a PNG of no width", png(0, 8), ": PNG: expected"),
        ("a PNG without pixels", png(8, 8), ": PNG: expected a complete and undamaged file"),
        ("half a PNG", half("sources/rgb8-turned.png"), ": PNG: expected a complete and undamaged file"),
        ("a GIF 30,000 wide", gif([30_000, 1], [30_000, 1]), OVER),
        ("a GIF of 30,000 each way", gif([30_000; 2], [30_000; 2]), OVER),
        ("a GIF frame 30,000 wide", gif([1; 2], [30_000; 2]), OVER),
        ("half a GIF", half("sources/palette.gif"), ": GIF: expected a complete and undamaged file"),
        ("a BMP of 30,000 each way", bmp(30_000, 30_000), OVER),
        ("a BMP of a negative width", bmp(-5, 5), ": BMP: expected"),
        ("a BMP without pixels", bmp(5, 5), ": BMP: expected a complete and undamaged file"),
        (
            "a WebP of 16,000 each way",
            webp(16_000, 16_000),
            ": number of pixels: 256000000 is over the limit of 67108864",
        ),
        ("half a WebP", half("lossy/lossy.webp"), ": WebP: expected a complete and undamaged file"),
        ("a JPEG of 30,000 each way", jpeg(30_000, 30_000), OVER),
        ("a JPEG without pixels", jpeg(8, 8), ": JPEG: expected a complete and undamaged file"),
        ("half a JPEG", half("lossy/progressive.jpg"), ": JPEG: expected a complete and undamaged file"),
    ];
    let folder = Folder::new();
    for (case, bytes, mention) in table {
        folder.write("../image.png", bytes);
        let image = text(&folder.model().with_file_name("image.png"));
        folder.write("../prompt.json", r#"[{"text": "a"}, {"image": "image.png"}]"#);
        let prompt = text(&folder.model().with_file_name("prompt.json"));
        for from in [["--image", &image], ["--prompt", &prompt]] {
            refused(&[&["generate", &text(&folder.model())][..], &from].concat(), case, &["image.png", mention]);
        }
    }
}

#[test]
fn what_is_no_file() {
    let folder = Folder::new();
    folder.make_folder("../folder.png");
    folder.make_sparse("../large.png", 20 << 30);
    let table = [
        ("a missing image", "none.png", "none.png: No such file"),
        ("a folder", "folder.png", "folder.png: expected a file, found a folder"),
        ("a device without end", "/dev/zero", "/dev/zero: bytes: "),
        ("a device with nothing", "/dev/null", "/dev/null: image: expected PNG"),
        ("20 GB", "large.png", "large.png: bytes"),
        ("a name of two lines", "a\nb\u{1b}[31m.png", "No such file"),
        ("a file as a folder", "model/config.json/a.png", "a.png: "),
    ];
    for (case, name, mention) in table {
        let path = folder.model().with_file_name("").join(name);
        refused(&["generate", &text(&folder.model()), "--image", &text(&path)], case, &[mention]);
    }
}

/// A PNG of `side` pixels each way whose samples are all 0: deflated by hand, as matches of 258 bytes. `chunks` stand
/// before its pixels.
fn black_png(side: u32, bits: u8, colour: u8, channels: u64, chunks: &[u8]) -> Vec<u8> {
    let chunk = |name: &[u8], content: &[u8]| {
        let body = [name, content].concat();
        [&(content.len() as u32).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
    };
    let length = u64::from(side) * (1 + (u64::from(side) * channels * u64::from(bits)).div_ceil(8));
    let (literals, matches) = (1 + (length - 1) % 258, (length - 1) / 258);
    // A last block of fixed codes; literals 0; then matches at distance 1, eight of which are 13 bytes.
    let mut bits_out: Vec<u8> = vec![1, 1, 0];
    (0..literals).for_each(|_| bits_out.extend([0, 0, 1, 1, 0, 0, 0, 0]));
    let begun = bits_out.len() / 8;
    let one = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    (0..16 + matches % 8).for_each(|_| bits_out.extend(one));
    bits_out.extend([0; 7]);
    let packed = bits_out.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit));
    let packed: Vec<u8> = packed.collect();
    let (start, rest) = packed.split_at(begun + 1);
    let again = rest[..13].repeat((matches / 8 - 2) as usize);
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[bits, colour, 0, 0, 0]].concat();
    // The sum of a stream is not looked at.
    let pixels = chunk(b"IDAT", &[&[0x78, 1], start, &again, rest, &[0; 4]].concat());
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], chunks, &pixels, &chunk(b"IEND", b"")].concat()
}

/// EXIF in a PNG that says to turn it by a quarter.
fn turning() -> Vec<u8> {
    let body = [&b"eXIfII*\0\x08\0\0\0\x01\0"[..], b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", &[0; 4]].concat();
    [&(body.len() as u32 - 4).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
}

/// Whatever a system lacks for an image, the program says so in its line: it is neither ended by the system nor silent.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_not_there_is_one_line() {
    use std::process::{Command, Stdio};
    const SIDE: u32 = 4096;
    let images = [
        ("16 bits a sample", black_png(SIDE, 16, 6, 4, &[])),
        ("turned", black_png(SIDE, 8, 6, 4, &turning())),
        ("2 bits of grey", black_png(SIDE, 2, 0, 1, &turning())),
        ("grey with alpha", black_png(SIDE, 8, 4, 2, &[])),
        ("16-bit grey", black_png(SIDE, 16, 0, 1, &[])),
    ];
    let folder = Folder::new();
    let image = folder.model().with_file_name("image.png");
    let run = |kib: u32, more: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_flamant")]);
        shell.args(["score", &text(&folder.model()), "--text", "kep.", "--threads", "1"]).args(more);
        let output = shell.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let least = (1..100).map(|step| step * (10 << 10)).find(|&kib| run(kib, &[]).0 == Some(0)).unwrap();
    for (case, bytes) in images {
        folder.write("../image.png", &bytes);
        let mut answered = 0;
        for step in 0..16 {
            let (code, told) = run(least + (8 << 10) + step * (20 << 10), &["--image", &text(&image)]);
            assert!(matches!(code, Some(0 | 1)), "{case}, step {step}: {code:?} {told}");
            assert!(told.lines().count() == usize::from(code == Some(1)), "{case}, step {step}: {told}");
            assert!(code == Some(0) || told.contains("memory"), "{case}, step {step}: {told}");
            answered += usize::from(code == Some(0));
        }
        assert!((1..16).contains(&answered), "{case}: {answered} of 16 answered");
    }
}
