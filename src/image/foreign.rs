//! Formats of images that are known by name and not read, so that a refusal says what is there and what to do.

/// How files of a format begin: at a place, some bytes. The first that fits counts.
const STARTS: &[(usize, &[u8], &str)] = &[
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypheim", "HEIC"),
    (4, b"ftypheis", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftyphevx", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypcrx ", "a raw photograph (CR3)"),
    (0, b"II*\0\x10\0\0\0CR", "a raw photograph (CR2)"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"\0\0\x02\0", "CUR"),
    (0, b"icns", "ICNS"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"gimp xcf", "XCF"),
    (0, b"FLIF", "FLIF"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"\x8bJNG\r\n\x1a\n", "JNG"),
    (0, b"\x01\xda\0\x01", "SGI"),
    (0, b"\x01\xda\x01\x01", "SGI"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"/* XPM */", "XPM"),
    (128, b"DICM", "DICOM"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"PK\x03\x04", "a zip file"),
];

/// The name of the format that a file begins as.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    let begins = |at: usize, start: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(start));
    if let Some((.., name)) = STARTS.iter().find(|(at, start, _)| begins(*at, start)) {
        return Some(name);
    }
    // PBM, PGM, PPM, PAM, PFM: a letter, a digit or letter, white space or a comment.
    if let [b'P', b'1'..=b'7' | b'F' | b'f', b' ' | b'\t' | b'\r' | b'\n' | b'#', ..] = bytes {
        return Some("PNM (PBM, PGM, PPM, PAM or PFM)");
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]);
    let text = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let is_markup = text.starts_with('<');
    let names = [("<svg", "SVG"), ("<!doctype html", "an HTML page"), ("<html", "an HTML page")];
    if is_markup && let Some((_, name)) = names.iter().find(|(tag, _)| text.contains(tag)) {
        return Some(name);
    }
    // The pointer of Git LFS, in place of a file that was not fetched.
    text.starts_with("version https://git-lfs").then_some("a Git LFS pointer")
}

/// What is there and what to do.
pub(super) fn advice(name: &str) -> String {
    match name {
        "a Git LFS pointer" => format!("{name}: fetch the file itself (git lfs pull)"),
        "an HTML page" => format!("{name}, as servers send it in place of an image"),
        "a gzip file" | "a zip file" => format!("{name}: unpack it"),
        _ => format!("{name}, which is not read: convert it, for example to PNG"),
    }
}
