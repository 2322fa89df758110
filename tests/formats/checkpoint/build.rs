//! Files made byte by byte, so that each can be wrong in one place.

use std::fs;
use std::path::{Path, PathBuf};

/// Writes a file into a folder.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A safetensors file of this header and as many bytes of numbers.
pub fn safetensors(header: &str, data_length: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_length, 0);
    file
}

/// An entry of a zip file, with the fields that a test may want to be wrong.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub content: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub sum: u32,
}

impl Entry {
    /// With the CRC-32 of its content.
    pub fn with_sum(mut self) -> Entry {
        let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        let add = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), step);
        self.sum = !self.content.iter().fold(u32::MAX, add);
        self
    }
}

/// A stored entry.
pub fn entry(name: &str, content: &[u8]) -> Entry {
    Entry { name: name.into(), content: content.into(), method: 0, flags: 0, sum: 0 }
}

/// Offsets in the directory entry and in the end record.
pub mod field {
    pub const STORED_LENGTH: usize = 20;
    pub const LENGTH: usize = 24;
    pub const OFFSET: usize = 42;
    pub const END_COUNT: usize = 10;
    pub const END_LENGTH: usize = 12;
    pub const END_START: usize = 16;
}

/// A zip file, and where the entries of its directory and its end record begin.
pub struct Zip {
    pub bytes: Vec<u8>,
    pub directory: Vec<usize>,
    pub end: usize,
}

/// A zip file of these entries.
pub fn zip(entries: &[Entry]) -> Zip {
    let mut bytes = Vec::new();
    let mut offsets = Vec::new();
    for entry in entries {
        offsets.push(bytes.len() as u32);
        bytes.extend(b"PK\x03\x04");
        fields(&mut bytes, entry);
        bytes.extend(0_u16.to_le_bytes());
        bytes.extend(&entry.name);
        bytes.extend(&entry.content);
    }
    let start = bytes.len();
    let mut directory = Vec::new();
    for (entry, offset) in entries.iter().zip(offsets) {
        directory.push(bytes.len());
        bytes.extend(b"PK\x01\x02\0\0");
        fields(&mut bytes, entry);
        bytes.extend([0; 12]);
        bytes.extend(offset.to_le_bytes());
        bytes.extend(&entry.name);
    }
    let end = bytes.len();
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend((entries.len() as u16).to_le_bytes().repeat(2));
    bytes.extend(((end - start) as u32).to_le_bytes());
    bytes.extend((start as u32).to_le_bytes());
    bytes.extend([0; 2]);
    Zip { bytes, directory, end }
}

/// What local headers and directory entries share: version, flags, method, time, date, sum, lengths, length of the
/// name.
fn fields(bytes: &mut Vec<u8>, entry: &Entry) {
    bytes.extend([20, 0]);
    bytes.extend(entry.flags.to_le_bytes());
    bytes.extend(entry.method.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(entry.sum.to_le_bytes());
    bytes.extend((entry.content.len() as u32).to_le_bytes().repeat(2));
    bytes.extend((entry.name.len() as u16).to_le_bytes());
}

impl Zip {
    /// Overwrites four bytes.
    pub fn patch(mut self, at: usize, value: u32) -> Vec<u8> {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self.bytes
    }
}

/// The end of a zip64 file: the end record of 64 bits, its locator, and the usual one with saturated fields.
pub fn zip64(mut zip: Zip, count: u64) -> Vec<u8> {
    let start = zip.directory[0];
    zip.bytes.truncate(zip.end);
    zip.bytes.extend(b"PK\x06\x06");
    zip.bytes.extend(44_u64.to_le_bytes());
    zip.bytes.extend([0; 12]);
    for value in [count, count, (zip.end - start) as u64, start as u64] {
        zip.bytes.extend(u64::to_le_bytes(value));
    }
    zip.bytes.extend(b"PK\x06\x07\0\0\0\0");
    zip.bytes.extend((zip.end as u64).to_le_bytes());
    zip.bytes.extend([1, 0, 0, 0]);
    zip.bytes.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    zip.bytes
}

/// A PyTorch archive of a pickle and of records of these lengths.
pub fn archive(pickle: &[u8], records: &[(&str, usize)]) -> Vec<u8> {
    let mut entries = vec![entry("archive/data.pkl", pickle), entry("archive/byteorder", b"little")];
    entries.extend(records.iter().map(|(key, length)| entry(&format!("archive/data/{key}"), &vec![0; *length])));
    zip(&entries).bytes
}

// Pieces of pickles, each of which leaves one value on the stack.

pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into()
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", items.concat().as_slice(), b"t"].concat()
}

pub fn ints(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|&value| int(value)).collect::<Vec<_>>())
}

pub fn call(function: &[u8], arguments: &[Vec<u8>]) -> Vec<u8> {
    [function, tuple(arguments).as_slice(), b"R"].concat()
}

pub fn storage(class: &str, key: &str, elements: i64) -> Vec<u8> {
    let parts = [text("storage"), global("torch", class), text(key), text("cpu"), int(elements)];
    [tuple(&parts), b"Q".to_vec()].concat()
}

pub fn tensor(class: &str, key: &str, elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    tensor_of(storage(class, key, elements), int(offset), ints(shape), ints(strides))
}

pub fn tensor_of(storage: Vec<u8>, offset: Vec<u8>, shape: Vec<u8>, strides: Vec<u8>) -> Vec<u8> {
    let hooks = call(&global("collections", "OrderedDict"), &[]);
    call(&global("torch._utils", "_rebuild_tensor_v2"), &[storage, offset, shape, strides, b"\x89".to_vec(), hooks])
}

pub fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", entries.as_slice(), b"u"].concat()
}

pub fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

/// The pickle of a state dictionary.
pub fn state_dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    pickle(&dictionary(entries))
}
