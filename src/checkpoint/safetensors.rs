//! The safetensors format: eight bytes of header length, a JSON header, then the numbers.
//!
//! The header is read with bounds on everything before it becomes a table: names, dimensions, sizes. Tensors must
//! cover the rest of the file exactly, without gap or overlap, as the format demands; so a truncated or padded file
//! never opens.

use super::{Dtype, ELEMENTS_MAX, Element, Layout, RANK_MAX, Stored, TENSORS_MAX, Table, elements};
use crate::error::{Error, Result};
use ::safetensors::Dtype as Format;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::Path;

/// Bytes of the JSON header; the limit of the reference implementation.
pub const HEADER_BYTES_MAX: usize = 100_000_000;

const LENGTH_BYTES: usize = 8;

/// Whether a file looks like safetensors: after the length stands a JSON object.
pub fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(LENGTH_BYTES) == Some(&b'{')
}

/// Reads the header of a whole safetensors file. `source` is named in errors.
pub fn parse_header(bytes: &[u8], source: &Path) -> Result<Table> {
    let (header, data_start) = header(bytes, source)?;
    let UniqueMap(entries) = serde_json::from_slice::<UniqueMap<Entry>>(header)
        .map_err(|reason| Error::malformed(source, "header", "a JSON object of tensors", reason))?;
    check_coverage(&entries, bytes.len() - data_start, source)?;
    entries
        .into_iter()
        .map(|(name, entry)| entry.into_layout(data_start, &name, source).map(|layout| (name, layout)))
        .collect()
}

/// The header's text, and where the numbers begin.
fn header<'a>(bytes: &'a [u8], source: &Path) -> Result<(&'a [u8], usize)> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(Error::invalid(source, "header", "8 bytes of header length", format!("{} bytes", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX as u64 {
        return Err(Error::limit(format!("{}: header bytes", source.display()), HEADER_BYTES_MAX as u64, length));
    }
    let length = length as usize;
    match rest.get(..length) {
        Some(header) => Ok((header, LENGTH_BYTES + length)),
        None => Err(Error::invalid(source, "header", format!("{length} bytes"), format!("a file of {}", bytes.len()))),
    }
}

/// One tensor as the header states it.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: Format,
    shape: Shape,
    data_offsets: (usize, usize),
}

impl Entry {
    /// Bytes of the numbers, unless there are too many or the numbers end inside a byte.
    fn length(&self) -> Option<usize> {
        let bits = elements(&self.shape.0)? * self.dtype.bitsize();
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn into_layout(self, data_start: usize, name: &str, source: &Path) -> Result<Layout> {
        let (start, stop) = self.data_offsets;
        let length = self.length();
        if length != Some(stop - start) {
            let expected = match length {
                Some(bytes) => format!("{bytes} bytes for {} of shape {:?}", self.dtype, self.shape.0),
                None => format!("at most {ELEMENTS_MAX} numbers in whole bytes"),
            };
            return Err(Error::invalid(
                source,
                name,
                expected,
                format!("{} bytes, shape {:?}", stop - start, self.shape.0),
            ));
        }
        let element = match self.dtype {
            Format::F32 => Element::Float(Dtype::F32),
            Format::F16 => Element::Float(Dtype::F16),
            Format::BF16 => Element::Float(Dtype::Bf16),
            Format::I8 => Element::Stored(Stored::I8),
            Format::U8 => Element::Stored(Stored::U8),
            Format::I32 => Element::Stored(Stored::I32),
            Format::I64 => Element::Stored(Stored::I64),
            Format::F8_E4M3 => Element::Stored(Stored::F8E4M3),
            other => Element::Other(other.to_string()),
        };
        Ok(Layout { element, shape: self.shape.0, strides: None, start: data_start + start, length: stop - start })
    }
}

/// The tensors, sorted by offset, must follow each other without gap or overlap up to the end of the file.
fn check_coverage(entries: &BTreeMap<String, Entry>, data_length: usize, source: &Path) -> Result<()> {
    let mut by_offset: Vec<_> = entries.iter().map(|(name, entry)| (entry.data_offsets, name)).collect();
    by_offset.sort_unstable();
    let mut end = 0;
    for ((start, stop), name) in by_offset {
        if start != end || stop < start || stop > data_length {
            let expected = format!("data_offsets from {end} up to at most {data_length}");
            return Err(Error::invalid(source, name, expected, format!("{start} to {stop}")));
        }
        end = stop;
    }
    if end != data_length {
        return Err(Error::invalid(source, "data", format!("{end} bytes, as the header says"), data_length));
    }
    Ok(())
}

/// Dimensions of a tensor, of which a header may state no more than [`RANK_MAX`].
struct Shape(Vec<usize>);

impl<'de> serde::Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "an array of at most {RANK_MAX} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut lengths: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(length) = lengths.next_element()? {
                    if shape.len() == RANK_MAX {
                        return Err(A::Error::invalid_length(RANK_MAX + 1, &self));
                    }
                    shape.push(length);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

/// A JSON object of at most [`TENSORS_MAX`] tensors, none named twice. Its `__metadata__` is skipped.
pub(super) struct UniqueMap<V>(pub BTreeMap<String, V>);

impl<'de, V: DeserializeOwned> serde::Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: DeserializeOwned> Visitor<'de> for Entries<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "an object of at most {TENSORS_MAX} tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<UniqueMap<V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(name) = entries.next_key::<String>()? {
                    if name == "__metadata__" {
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if map.len() == TENSORS_MAX {
                        return Err(A::Error::invalid_length(TENSORS_MAX + 1, &self));
                    }
                    match map.entry(name) {
                        Slot::Occupied(slot) => return Err(A::Error::custom(format_args!("`{}` twice", slot.key()))),
                        Slot::Vacant(slot) => match entries.next_value() {
                            Ok(value) => slot.insert(value),
                            Err(reason) => return Err(A::Error::custom(format_args!("`{}`: {reason}", slot.key()))),
                        },
                    };
                }
                Ok(UniqueMap(map))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Writes the start of a file whose tensors (name, format, shape) will follow in this order, numbers packed. Tensors
/// should come with the widest format first, which keeps all of them aligned.
pub fn write_header<'a>(
    file: &mut dyn Write,
    tensors: impl IntoIterator<Item = (&'a str, Element, &'a [usize])>,
) -> io::Result<()> {
    let mut header = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut start = 0;
    for (name, element, shape) in tensors {
        let stop = start + shape.iter().product::<usize>() * element.size();
        let name = serde_json::Value::from(name);
        header += &format!(r#",{name}:{{"dtype":"{element}","shape":{shape:?},"data_offsets":[{start},{stop}]}}"#);
        start = stop;
    }
    header.push('}');
    let padding = header.len().next_multiple_of(LENGTH_BYTES) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())
}
