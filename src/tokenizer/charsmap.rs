//! SentencePiece's map of characters: which texts are replaced by which others, as a trie in one array. What is
//! replaced is found by steps from unit to unit that nothing else holds to the array, so all are taken here first.

use std::collections::VecDeque;

use base64::Engine as _;
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::Precompiled;

use super::component::Component;
use crate::error::Result;

/// Most bytes of a map; that of T5 has 240 kB.
const BYTES_MAX: usize = 1 << 20;
/// Bytes of a unit of the trie.
const UNIT_BYTES: usize = 4;
/// Units that belong to one node: a node's are those whose index is its own but for the lowest byte.
const BLOCK: usize = 256;

/// Reads a map, and how many times as long it may make a text.
///
/// # Errors
/// A map that is cut off, or whose trie leads outside of itself or of the replacements.
pub fn read(component: &Component, key: &str) -> Result<(NormalizerWrapper, u64)> {
    let text = component.text(key)?;
    if text.len() > BYTES_MAX / 3 * 4 {
        return Err(component.invalid(key, format!("at most {BYTES_MAX} bytes"), format!("{} as base64", text.len())));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|reason| component.invalid(key, "base64", reason))?;
    let growth = growth(&bytes).map_err(|found| component.invalid(key, "a map of characters", found))?;
    let normalizer =
        Precompiled::from(&bytes).map_err(|reason| component.invalid(key, "a map of characters", reason))?;
    Ok((NormalizerWrapper::Precompiled(normalizer), growth))
}

/// How many times as long as a text its replacement is at most; or what is wrong with the map.
fn growth(map: &[u8]) -> std::result::Result<u64, &'static str> {
    let Some((length, rest)) = map.split_first_chunk::<UNIT_BYTES>() else { return Err("no length") };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((units, replacements)) = rest.split_at_checked(length) else { return Err("a trie that is cut off") };
    if length == 0 || !length.is_multiple_of(UNIT_BYTES * BLOCK) {
        return Err("a trie without whole blocks");
    }
    let units: Vec<u32> = units.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let replacements = str::from_utf8(replacements).map_err(|_| "replacements that are not UTF-8")?;
    let mut growth = 1;
    let mut seen = vec![false; units.len()];
    // The nodes in order of depth: what is replaced counts as the shortest text that leads there.
    let mut open = VecDeque::from([(offset(units[0]), 0)]);
    while let Some((node, depth)) = open.pop_front() {
        if node >= units.len() {
            return Err("a trie that leads outside of itself");
        }
        for label in 1..BLOCK {
            let index = node ^ label;
            let unit = units[index];
            if (unit & (1 << 31 | 0xff)) as usize != label || std::mem::replace(&mut seen[index], true) {
                continue;
            }
            let child = index ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let leaf = *units.get(child).ok_or("a trie that leads outside of itself")?;
                let start = (leaf & 0x7fff_ffff) as usize;
                let replacement = replacements.get(start..).ok_or("a replacement that is not there")?;
                let length = replacement.find('\0').unwrap_or(replacement.len());
                growth = growth.max(length.div_ceil(depth + 1) as u64);
            }
            open.push_back((child, depth + 1));
        }
    }
    Ok(growth)
}

/// How far from a unit its children are: what both indices differ by.
fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of one block that replaces `a`.
    fn map(edit: impl FnOnce(&mut [u32], &mut Vec<u8>)) -> Vec<u8> {
        let mut units = vec![0_u32; BLOCK];
        let mut replacements = b"abc\0".to_vec();
        // From the root to `a`, whose leaf stands at 0x61 ^ 0x62 = 3 and is the text from 0 on.
        units[0x61] = 0x61 | 1 << 8 | 0x62 << 10;
        units[3] = 1 << 31;
        edit(&mut units, &mut replacements);
        let mut map = (4 * units.len() as u32).to_le_bytes().to_vec();
        map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        map.extend(replacements);
        map
    }

    #[test]
    fn a_map_is_walked_before_it_is_used() {
        let good = map(|_, _| ());
        assert_eq!(growth(&good), Ok(3));
        assert_eq!(Precompiled::from(&good).unwrap().transform("a"), Some("abc"));
        let wrong = [
            Vec::new(),
            vec![0; 4],
            vec![0xff; 64],
            good[..900].to_vec(),
            map(|units, _| units[0] = 1 << 20),
            map(|units, _| units[0x61] = 0x61 | 1 << 8 | 1 << 20),
            map(|units, _| units[0x61] = 0x61 | 1 << 20),
            map(|units, _| units[3] = 1 << 31 | 5),
            map(|units, replacements| (units[3], *replacements) = (1 << 31 | 1, "\u{e9}\0".into())),
            map(|_, replacements| replacements[0] = 0xff),
        ];
        for map in wrong {
            assert!(growth(&map).is_err(), "{} bytes", map.len());
        }
    }
}
