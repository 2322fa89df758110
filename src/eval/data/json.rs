//! JSON of other people: read straight into what is wanted of it, whatever else it holds; errors name the place.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Take};
use std::marker::PhantomData;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{EXAMPLES_MAX, names};
use crate::error::{Error, Result};
use crate::files::{open_input, read_input};
use crate::parse;

/// Largest file; the annotations of VQAv2 have 350 MB.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// What editors of some systems write first.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Longest line of a file of lines.
const LINE_BYTES_MAX: u64 = 1 << 20;

fn open(file: &Path) -> Result<BufReader<Take<File>>> {
    let opened = open_input(file)?;
    let bytes = opened.metadata().map_err(|reason| Error::file(file, reason))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(too_large(file, bytes));
    }
    Ok(BufReader::with_capacity(1 << 16, opened.take(FILE_BYTES_MAX + 1)))
}

fn too_large(file: &Path, bytes: u64) -> Error {
    Error::limit(format!("{}: bytes", file.display()), FILE_BYTES_MAX, bytes)
}

/// Of a pipe no length is known before it is read.
fn check_length(file: &Path, read: &BufReader<Take<File>>) -> Result<()> {
    if read.get_ref().limit() > 0 { Ok(()) } else { Err(too_large(file, FILE_BYTES_MAX + 1)) }
}

/// Reads a file of one value. The file is never in memory as a whole.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let mut reader = open(file)?;
    if reader.fill_buf().is_ok_and(|begin| begin.starts_with(BYTE_ORDER_MARK)) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    let read = value(file, serde_json::Deserializer::from_reader(&mut reader));
    check_length(file, &reader)?;
    read
}

/// Reads a file of one object of names, each key once.
pub fn read_names<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = read_input(file, names::BYTES_MAX)?;
    value(file, serde_json::Deserializer::from_str(parse::text(file, "text", &bytes)?))
}

/// Reads a file of an object a line. Empty lines are passed over. `take` gets each line's place in errors, its number
/// from 1, and the object.
pub fn read_lines<T: DeserializeOwned>(file: &Path, mut take: impl FnMut(&Path, usize, T) -> Result<()>) -> Result<()> {
    let mut reader = open(file)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        if read.map_err(|reason| Error::file(file, reason))? == 0 {
            break;
        }
        let place = format!("{}: line {number}", file.display());
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(Error::limit(format!("{place}: bytes"), LINE_BYTES_MAX, line.len() as u64));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = Path::new(&place);
        let text = parse::text(place, "text", &line)?;
        let Object(value) = value(place, serde_json::Deserializer::from_str(text))?;
        take(place, number, value)?;
    }
    check_length(file, &reader)
}

/// The one value of a file or line.
fn value<'de, T: Deserialize<'de>>(
    place: &Path,
    mut reader: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
) -> Result<T> {
    let value = serde_path_to_error::deserialize(&mut reader);
    let value = value.map_err(|error| malformed(place, &error.path().to_string(), error.into_inner()))?;
    reader.end().map_err(|error| malformed(place, ".", error))?;
    Ok(value)
}

/// An error of serde in our words: "invalid type: A, expected B at line L column C".
fn malformed(file: &Path, path: &str, error: serde_json::Error) -> Error {
    if error.is_io() {
        return Error::file(file, error);
    }
    if !error.is_data() {
        return Error::malformed(file, "text", "JSON", error);
    }
    let text = error.to_string();
    let key = if path == "." { "value" } else { path };
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    let text = text.strip_prefix("invalid type: ").or(text.strip_prefix("invalid value: ")).unwrap_or(text);
    if let Some((found, expected)) = text.split_once(", expected ") {
        return Error::invalid(file, key, expected, found).with_source(error);
    }
    let invalid = match text.strip_prefix("missing field ") {
        Some(field) => Error::invalid(file, key, format!("the field {}", field.replace('`', "\"")), "none"),
        None => Error::invalid(file, key, "a set of this format", text),
    };
    invalid.with_source(error)
}

/// An object. What serde derives for a struct would take an array of its fields as well.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, fields: M) -> std::result::Result<Object<T>, M::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// The examples of a file, which are not more than a set may have.
pub struct Examples<T>(pub Vec<Object<T>>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Examples<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(ExamplesVisitor(PhantomData))
    }
}

struct ExamplesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ExamplesVisitor<T> {
    type Value = Examples<T>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "an array of at most {EXAMPLES_MAX} examples")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> std::result::Result<Examples<T>, A::Error> {
        let mut examples = Vec::new();
        while let Some(example) = all.next_element()? {
            if examples.len() == EXAMPLES_MAX {
                return Err(de::Error::invalid_length(EXAMPLES_MAX + 1, &self));
            }
            examples.push(example);
        }
        Ok(Examples(examples))
    }
}

/// A name that some sets give as a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(pub String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Id, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a string or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Id, E> {
        Ok(Id(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<Id, E> {
        Ok(Id(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> std::result::Result<Id, E> {
        Ok(Id(number.to_string()))
    }
}
