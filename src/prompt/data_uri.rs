//! `data:` URIs as browsers and the references take them: RFC 2397, with the forgiving base64 of the WHATWG.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::error::{Error, Result};
use crate::image::Format;

/// Bits beyond the last whole byte are dropped; padding has been taken off.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Whether it is one, of whatever kind.
pub(super) fn is_one(text: &str) -> bool {
    text.trim_ascii_start().as_bytes().first_chunk::<5>().is_some_and(|start| start.eq_ignore_ascii_case(b"data:"))
}

/// The bytes of a `data:TYPE;base64,DATA` URI under the key `name`, `bytes_max` at most. White space anywhere, `%XX`,
/// parameters of the type and missing padding are as good; where `;base64` is missing too, if the data is no image
/// without.
pub(super) fn bytes(uri: &str, source: &str, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let uri = uri.trim_ascii_start().get(5..).unwrap_or_default();
    let uri = uri.split('#').next().unwrap_or_default();
    let Some((kind, data)) = uri.split_once(',') else {
        let found = format!("{} without a comma", Quoted(uri));
        return Err(Error::invalid(source, name, "data:image/...;base64,...", found));
    };
    let limit = |found: usize| match found as u64 > bytes_max {
        true => Err(Error::limit(format!("{source}: bytes of an image"), bytes_max, found as u64)),
        false => Ok(()),
    };
    let is_base64 = kind.rsplit(';').next().is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case("base64"));
    let mut bytes = percent_decoded(data);
    if is_base64 || Format::of(&bytes).is_none() {
        bytes.retain(|byte| !byte.is_ascii_whitespace());
        for _ in 0..2 {
            bytes.pop_if(|byte| *byte == b'=');
        }
        limit(bytes.len() / 4 * 3)?;
        return BASE64.decode(&bytes).map_err(|reason| Error::malformed(source, name, "base64", reason));
    }
    limit(bytes.len())?;
    Ok(bytes)
}

/// With `%XX` as the byte of that number; what is no such code stays as it is.
fn percent_decoded(data: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = Vec::with_capacity(data.len());
    let mut rest = data.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let code = match (first, after) {
            (b'%', [high, low, after @ ..]) => digit(*high).zip(digit(*low)).map(|code| (code, after)),
            _ => None,
        };
        match code {
            Some(((high, low), after)) => {
                bytes.push(high << 4 | low);
                rest = after;
            }
            None => bytes.push(*first),
        }
    }
    bytes
}

/// Whether a text in the place of a path is the content of an image, as base64 without `data:`.
pub(super) fn is_bare(text: &str) -> bool {
    const STARTS: [&str; 6] = ["iVBORw0KGgo", "/9j/", "R0lGODdh", "R0lGODlh", "UklGR", "Qk"];
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\r' | b'\n');
    text.len() >= 64 && STARTS.iter().any(|start| text.starts_with(start)) && text.bytes().all(is_digit)
}

/// A text from outside, cut short.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.0.char_indices().nth(60) {
            Some((end, _)) => write!(formatter, "\"{}\"... of {} bytes", &self.0[..end], self.0.len()),
            None => write!(formatter, "\"{}\"", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_take_is_taken() {
        for uri in [
            "data:image/png;base64,aGVsbG8=",
            "data:image/png;base64,aGVsbG8",
            "DATA:image/PNG;BASE64,aGVsbG8=",
            " data:image/png ; charset=x ; base64 ,aGVs\r\nbG8=\n",
            "data:;base64,aGVsbG8=#part",
            "data:image/png;base64,%61GVsbG8%3D",
            "data:image/png;base64,aGVsbG9=",
            "data:image/png,aGVsbG8=",
        ] {
            assert!(is_one(uri));
            assert_eq!(bytes(uri, "x", "image", 9).unwrap(), b"hello", "{uri}");
        }
        // An image without base64.
        assert_eq!(bytes("data:image/gif,GIF89a%00%0A", "x", "image", 8).unwrap(), b"GIF89a\0\n");
    }

    #[test]
    fn what_they_refuse_is_refused_in_a_short_line() {
        let long = format!("data:{}", "x".repeat(10_000));
        for (uri, expected) in [
            ("data:image/png;base64", "without a comma"),
            (&long, "of 10000 bytes without a comma"),
            ("data:image/png;base64,aGVsb", "base64"),
            ("data:image/png;base64,aGV*bG8=", "base64"),
            ("data:image/png;base64,a===", "base64"),
            ("data:image/png;base64,aGVsbG8gaGVsbG8gaGVsbG8=", "over the limit of 9"),
        ] {
            let error = bytes(uri, "x", "image", 9).unwrap_err().to_string();
            assert!(error.contains(expected) && error.len() < 300, "{error}");
        }
        assert!(is_bare(&"iVBORw0KGgoAAA".repeat(10)) && !is_bare("iVBORw0KGgo.png"));
    }
}
