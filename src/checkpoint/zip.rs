//! The directory of a zip file whose entries are stored as they are, which is how PyTorch writes its archives.
//!
//! Only what those need: no encryption, no volumes; zip64 for files over 4 GiB. Entries are ranges of the mapped
//! file. TorchScript archives compress their code; such an entry is listed but refused when its content is asked for.
//! Sums are checked only where that is asked for: it reads every weight.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// Entries of one archive.
pub const ENTRIES_MAX: usize = 200_000;

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const LOCAL_HEADER_BYTES: usize = 30;
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const DIRECTORY_ENTRY_BYTES: usize = 46;
const DIRECTORY_END: &[u8] = b"PK\x05\x06";
const DIRECTORY_END_BYTES: usize = 22;
const DIRECTORY_END_64: &[u8] = b"PK\x06\x06";
const DIRECTORY_END_64_BYTES: usize = 56;
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LOCATOR_64_BYTES: usize = 20;
const COMMENT_BYTES_MAX: usize = 0xFFFF;

const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
/// Bytes that are summed between two reports of progress.
const SUM_CHUNK_BYTES: usize = 8 << 20;
/// Stands in a 32-bit field whose value is in the zip64 extension.
const SATURATED: u64 = 0xFFFF_FFFF;
const EXTENSION_64: u16 = 1;

/// The entries of an archive by name.
#[derive(Debug)]
pub struct Directory<'a> {
    bytes: &'a [u8],
    entries: HashMap<&'a str, Content>,
}

/// Where the content of an entry lies, all of it inside the file.
#[derive(Debug)]
struct Content {
    range: Range<usize>,
    compressed: bool,
    /// CRC-32 of the content; 0 where the writer left it out, which torch can be told to.
    sum: u32,
}

impl<'a> Directory<'a> {
    /// The names of all entries, in no order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// Where the content of an entry lies in the file; `None` if there is no such entry. `source` is named in errors.
    pub fn range(&self, name: &str, source: &Path) -> Result<Option<Range<usize>>> {
        match self.entries.get(name) {
            Some(content) if content.compressed => {
                Err(Error::invalid(source, name, "a stored entry", "a compressed one"))
            }
            content => Ok(content.map(|content| content.range.clone())),
        }
    }

    /// The content of an entry; `None` if there is no such entry. `source` is named in errors.
    pub fn content(&self, name: &str, source: &Path) -> Result<Option<&'a [u8]>> {
        Ok(self.range(name, source)?.map(|range| &self.bytes[range]))
    }

    /// Bytes of all entries whose sums can be checked.
    pub fn sum_bytes(&self) -> u64 {
        self.summed().map(|(_, content)| content.range.len() as u64).sum()
    }

    fn summed(&self) -> impl Iterator<Item = (&&'a str, &Content)> {
        self.entries.iter().filter(|(_, content)| !content.compressed && content.sum != 0)
    }

    /// That the sum of each stored entry is that of its content. `read` hears of bytes that were read. `source` is
    /// named in errors.
    ///
    /// # Errors
    /// The first entry, in the order of the file, whose content has another sum.
    pub fn check_sums(&self, source: &Path, read: &mut dyn FnMut(u64)) -> Result<()> {
        let mut entries: Vec<_> = self.summed().collect();
        entries.sort_unstable_by_key(|(_, content)| content.range.start);
        for (name, Content { range, sum, .. }) in entries {
            let mut hasher = crc32fast::Hasher::new();
            for chunk in self.bytes[range.clone()].chunks(SUM_CHUNK_BYTES) {
                hasher.update(chunk);
                read(chunk.len() as u64);
            }
            let found = hasher.finalize();
            if found != *sum {
                let (expected, found) = (format!("content of the sum {sum:08x}"), format!("{found:08x}: damaged"));
                return Err(Error::invalid(source, name, expected, found));
            }
        }
        Ok(())
    }
}

/// Whether a file begins like a zip file.
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL_HEADER)
}

/// Reads the directory. Afterwards every range lies inside `bytes`, and no two overlap. `source` is named in errors.
pub fn directory<'a>(bytes: &'a [u8], source: &Path) -> Result<Directory<'a>> {
    let reader = Reader { bytes, source };
    let (place, count) = reader.find_directory()?;
    let mut entries = HashMap::new();
    let mut occupied = Vec::new();
    let mut at = place.start;
    for _ in 0..count {
        let entry = reader.directory_entry(at, place.end)?;
        let range = reader.content(&entry, place.start)?;
        occupied.push((entry.offset, range.end, entry.name));
        at = entry.next;
        if entries.insert(entry.name, Content { range, compressed: entry.compressed, sum: entry.sum }).is_some() {
            return Err(Error::invalid(source, entry.name, "one entry of this name", "two"));
        }
    }
    if at != place.end {
        return Err(Error::invalid(source, "zip directory", format!("{} bytes", place.len()), at - place.start));
    }
    occupied.sort_unstable();
    for pair in occupied.windows(2) {
        if pair[1].0 < pair[0].1 {
            let (expected, found) = (format!("an entry behind {}, at {} or later", pair[0].2, pair[0].1), pair[1].0);
            return Err(Error::invalid(source, pair[1].2, expected, found));
        }
    }
    Ok(Directory { bytes, entries })
}

struct Reader<'a, 's> {
    bytes: &'a [u8],
    source: &'s Path,
}

/// An entry as the directory states it.
struct Entry<'a> {
    name: &'a str,
    /// Where its local header begins.
    offset: usize,
    /// Bytes of its content as they stand in the file.
    length: usize,
    compressed: bool,
    sum: u32,
    /// Where the next entry of the directory begins.
    next: usize,
}

impl<'a> Reader<'a, '_> {
    /// Where the directory lies, and how many entries it has.
    fn find_directory(&self) -> Result<(Range<usize>, usize)> {
        let end = self.find_end()?;
        let (mut count, mut length, mut start) =
            (u64::from(self.u16(end + 10)?), self.size(end + 12)?, self.size(end + 16)?);
        let mut stop_max = end;
        if let Some(locator) = end.checked_sub(LOCATOR_64_BYTES).filter(|&at| self.starts(at, LOCATOR_64)) {
            let end_64 = self.offset(self.u64(locator + 8)?, locator)?;
            if !self.starts(end_64, DIRECTORY_END_64) || locator - end_64 < DIRECTORY_END_64_BYTES {
                return Err(self.damaged("zip64 end of directory", "its record", format!("none at {end_64}")));
            }
            (count, length, start) = (self.u64(end_64 + 32)?, self.u64(end_64 + 40)?, self.u64(end_64 + 48)?);
            stop_max = end_64;
        }
        let start = self.offset(start, stop_max)?;
        let stop = self.offset((start as u64).saturating_add(length), stop_max)?;
        if count > ENTRIES_MAX as u64 {
            return Err(Error::limit(format!("{}: zip entries", self.source.display()), ENTRIES_MAX as u64, count));
        }
        Ok((start..stop, count as usize))
    }

    /// Where the end record begins: the last place whose comment reaches exactly to the end of the file.
    fn find_end(&self) -> Result<usize> {
        let last = self.bytes.len().saturating_sub(DIRECTORY_END_BYTES);
        (last.saturating_sub(COMMENT_BYTES_MAX)..=last)
            .rev()
            .find(|&at| {
                let comment = self.bytes.len().checked_sub(at + DIRECTORY_END_BYTES);
                self.starts(at, DIRECTORY_END) && self.u16(at + 20).ok().map(usize::from) == comment
            })
            .ok_or_else(|| {
                self.damaged("zip directory", "an end record at the end of the file", "none: is the file whole?")
            })
    }

    /// The directory entry at `at`, which must end before `stop`.
    fn directory_entry(&self, at: usize, stop: usize) -> Result<Entry<'a>> {
        if !self.starts(at, DIRECTORY_ENTRY) || stop.saturating_sub(at) < DIRECTORY_ENTRY_BYTES {
            return Err(self.damaged("zip directory", format!("an entry at {at}"), "none"));
        }
        let name_at = at + DIRECTORY_ENTRY_BYTES;
        let extension_at = name_at + usize::from(self.u16(at + 28)?);
        let comment_at = extension_at + usize::from(self.u16(at + 30)?);
        let next = comment_at + usize::from(self.u16(at + 32)?);
        if next > stop {
            return Err(self.damaged("zip directory", format!("an entry that ends by {stop}"), next));
        }
        let name = str::from_utf8(&self.bytes[name_at..extension_at])
            .map_err(|reason| self.damaged("zip directory", "names in UTF-8", reason))?;
        if self.u16(at + 8)? & ENCRYPTED != 0 {
            return Err(self.damaged(name, "an entry in clear", "an encrypted one"));
        }
        let compressed = self.u16(at + 10)? != STORED;
        let sum = self.field(at + 16).map(u32::from_le_bytes)?;
        let fields = [self.size(at + 24)?, self.size(at + 20)?, self.size(at + 42)?];
        let [full_length, length, offset] = self.widen(fields, extension_at..comment_at, name)?;
        if !compressed && length != full_length {
            return Err(self.damaged(name, format!("{full_length} bytes stored"), length));
        }
        let [offset, length] = [offset, length].map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        Ok(Entry { name, offset, length, compressed, sum, next })
    }

    /// Replaces those of the fields (length, stored length, offset) that are saturated by their zip64 values, which
    /// stand in this order in the extension.
    fn widen(&self, mut fields: [u64; 3], mut extensions: Range<usize>, name: &str) -> Result<[u64; 3]> {
        if !fields.contains(&SATURATED) {
            return Ok(fields);
        }
        while extensions.len() >= 4 {
            let kind = self.u16(extensions.start)?;
            let mut at = extensions.start + 4;
            let stop = at + usize::from(self.u16(extensions.start + 2)?);
            if kind == EXTENSION_64 && stop <= extensions.end {
                for field in fields.iter_mut().filter(|field| **field == SATURATED) {
                    if stop - at < 8 {
                        return Err(self.damaged(name, "a zip64 value for each long field", "too few"));
                    }
                    *field = self.u64(at)?;
                    at += 8;
                }
                return Ok(fields);
            }
            extensions.start = stop;
        }
        Err(self.damaged(name, "a zip64 extension", "none"))
    }

    /// The range of an entry's content, which must end before `limit`.
    fn content(&self, entry: &Entry<'a>, limit: usize) -> Result<Range<usize>> {
        let outside = || {
            self.damaged(
                entry.name,
                format!("content before byte {limit}"),
                format!("{} bytes at {}", entry.length, entry.offset),
            )
        };
        if entry.offset > limit.saturating_sub(LOCAL_HEADER_BYTES) {
            return Err(outside());
        }
        let name_at = entry.offset + LOCAL_HEADER_BYTES;
        let name_stop = name_at + usize::from(self.u16(entry.offset + 26)?);
        if !self.starts(entry.offset, LOCAL_HEADER) || self.bytes.get(name_at..name_stop) != Some(entry.name.as_bytes())
        {
            return Err(self.damaged(entry.name, format!("its local header at {}", entry.offset), "something else"));
        }
        let start = name_stop + usize::from(self.u16(entry.offset + 28)?);
        let stop = start.checked_add(entry.length).filter(|&stop| stop <= limit).ok_or_else(outside)?;
        Ok(start..stop)
    }

    fn starts(&self, at: usize, signature: &[u8]) -> bool {
        self.bytes.get(at..).is_some_and(|rest| rest.starts_with(signature))
    }

    /// A position that must not be behind `limit`.
    fn offset(&self, value: u64, limit: usize) -> Result<usize> {
        match usize::try_from(value) {
            Ok(offset) if offset <= limit => Ok(offset),
            _ => Err(self.damaged("zip directory", format!("a place before byte {limit}"), value)),
        }
    }

    fn field<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(field) => Ok(*field),
            None => Err(self.damaged("zip directory", format!("{N} bytes at {at}"), "the end of the file")),
        }
    }

    fn u16(&self, at: usize) -> Result<u16> {
        self.field(at).map(u16::from_le_bytes)
    }

    fn size(&self, at: usize) -> Result<u64> {
        self.field(at).map(u32::from_le_bytes).map(u64::from)
    }

    fn u64(&self, at: usize) -> Result<u64> {
        self.field(at).map(u64::from_le_bytes)
    }

    fn damaged(&self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.source, key, expected, found)
    }
}
