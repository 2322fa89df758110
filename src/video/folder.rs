//! A folder of images as a video: its files in the order of their names, numbers in them by value.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use super::{FrameSampling, Frames};
use crate::checkpoint::read_bounded;
use crate::error::{Error, Result};
use crate::image::{self, Limits};

/// Reads the frames that are kept; others are not opened.
pub(super) fn read(folder: &Path, sampling: &FrameSampling, limits: &Limits, frames: &mut Frames) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|reason| Error::file(folder, reason))? {
        let name = entry.map_err(|reason| Error::file(folder, reason))?.file_name();
        // What systems leave in folders, such as .DS_Store.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        names.push(name);
        if names.len() as u64 > frames.limits.frames_max {
            let what = format!("{}: files of a folder of frames", folder.display());
            return Err(Error::limit(what, frames.limits.frames_max, names.len() as u64));
        }
    }
    names.sort_by(|one, other| natural_order(one.as_encoded_bytes(), other.as_encoded_bytes()));
    for name in sampling.thinned(names) {
        let path = folder.join(name);
        frames.look(|_| image::decode(&read_bounded(&path, limits.bytes_max)?, &path.display().to_string(), limits))?;
    }
    Ok(())
}

/// Byte by byte, but for runs of digits, which are compared as numbers. Names that are equal so, such as `1` and `01`,
/// are in the order of their bytes.
fn natural_order(one: &[u8], other: &[u8]) -> Ordering {
    let (mut left, mut right) = (one, other);
    while let (Some(&a), Some(&b)) = (left.first(), right.first()) {
        let order = if a.is_ascii_digit() && b.is_ascii_digit() {
            let (number, other_number) = (take_number(&mut left), take_number(&mut right));
            number.len().cmp(&other_number.len()).then(number.cmp(other_number))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            a.cmp(&b)
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len()).then(one.cmp(other))
}

/// Takes the digits that `name` begins with; without the zeros before a number, longer is larger.
fn take_number<'a>(name: &mut &'a [u8]) -> &'a [u8] {
    let length = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = name.split_at(length);
    *name = rest;
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_in_the_order_of_their_values() {
        let sorted = [
            "",
            "01",
            "1",
            "2",
            "10",
            "a",
            "a0b",
            "a1",
            "a001b",
            "a1b",
            "a9b10",
            "a10b9",
            "aa",
            "frame2.png",
            "frame10.png",
            "frame99999999999999999998",
            "frame99999999999999999999",
            "é",
        ];
        for (place, one) in sorted.iter().enumerate() {
            for (other_place, other) in sorted.iter().enumerate() {
                let order = natural_order(one.as_bytes(), other.as_bytes());
                assert_eq!(order, place.cmp(&other_place), "{one:?} and {other:?}");
            }
        }
    }
}
