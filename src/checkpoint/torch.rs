//! PyTorch archives: what `torch.save` (1.6 or newer) and `torch.jit.save` write.
//!
//! An archive is a zip file with one top folder: `data.pkl` holds the structure, `data/KEY` the numbers of each
//! storage. The structure may be a state dictionary, a training file with one inside, or a tree of TorchScript
//! modules, of which only the parameters are read. Code in the archive is ignored.

use super::pickle::{self, Id, Pickle, StorageType, TensorView, Value};
use super::zip::{self, Directory};
use super::{Dtype, Element, Layout, TENSORS_MAX, Table, elements};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Modules that may be nested in a TorchScript archive.
pub const MODULE_DEPTH_MAX: usize = 64;

/// Where training files keep the state dictionary.
const NESTED_KEYS: [&str; 3] = ["model_state_dict", "state_dict", "model"];

/// The format of a view with more numbers than its storage, which like a foreign format is refused when asked for.
const REPEATED: &str = "a view that repeats its numbers";

/// Reads the structure of a whole archive. `source` is named in errors.
pub fn parse_archive(bytes: &[u8], source: &Path) -> Result<Table> {
    let directory = zip::directory(bytes, source)?;
    let folder = top_folder(&directory, source)?;
    check_byte_order(&directory, folder, source)?;
    let structure = directory.content(&format!("{folder}/data.pkl"), source)?.unwrap_or_default();
    let pickle = pickle::parse(structure, source)?;
    let mut collector =
        Collector { pickle: &pickle, directory: &directory, folder, source, table: Table::new(), visits: 0 };
    collector.root()?;
    Ok(collector.table)
}

/// The numbers of a dictionary that stands beside the tensors of an archive; none if there is no such dictionary.
pub fn numbers(bytes: &[u8], source: &Path, key: &str) -> Result<BTreeMap<String, f64>> {
    let directory = zip::directory(bytes, source)?;
    let folder = top_folder(&directory, source)?;
    let structure = directory.content(&format!("{folder}/data.pkl"), source)?.unwrap_or_default();
    let pickle = pickle::parse(structure, source)?;
    let found = entries(&pickle, pickle.root()).find(|(name, _)| *name == key);
    let all = found.into_iter().flat_map(|(_, dictionary)| entries(&pickle, dictionary));
    let number = |(name, id): (&str, Id)| match *pickle.value(id) {
        Value::Int(number) => Some((name.to_owned(), number as f64)),
        Value::Float(number) => Some((name.to_owned(), number)),
        _ => None,
    };
    Ok(all.filter_map(number).collect())
}

/// The entries of a dictionary whose keys are text.
fn entries<'p, 'a>(pickle: &'p Pickle<'a>, dictionary: Id) -> impl Iterator<Item = (&'a str, Id)> + use<'p, 'a> {
    let pairs = match pickle.value(dictionary) {
        Value::Dictionary(pairs) => pairs.as_slice(),
        _ => &[],
    };
    pairs.iter().filter_map(|&(key, value)| match *pickle.value(key) {
        Value::Text(key) => Some((key, value)),
        _ => None,
    })
}

/// The one folder that has a `data.pkl`.
fn top_folder<'a>(directory: &Directory<'a>, source: &Path) -> Result<&'a str> {
    let mut folders =
        directory.names().filter_map(|name| name.strip_suffix("/data.pkl")).filter(|name| !name.contains('/'));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder),
        (None, _) => {
            Err(Error::invalid(source, "data.pkl", "one in the archive's top folder", "none: not made by torch.save"))
        }
        (Some(_), Some(_)) => Err(Error::invalid(source, "data.pkl", "one in the archive's top folder", "several")),
    }
}

fn check_byte_order(directory: &Directory, folder: &str, source: &Path) -> Result<()> {
    match directory.content(&format!("{folder}/byteorder"), source)? {
        None | Some(b"little") => Ok(()),
        Some(other) => {
            Err(Error::invalid(source, "byteorder", "little", String::from_utf8_lossy(&other[..other.len().min(16)])))
        }
    }
}

/// Gathers the named tensors of a pickle.
struct Collector<'p, 'a> {
    pickle: &'p Pickle<'a>,
    directory: &'p Directory<'a>,
    folder: &'a str,
    source: &'p Path,
    table: Table,
    /// Attributes seen, which bounds the walk through modules that share parts many times over.
    visits: usize,
}

impl<'a> Collector<'_, 'a> {
    fn root(&mut self) -> Result<()> {
        let root = self.pickle.root();
        match self.pickle.value(root) {
            Value::Dictionary(_) => self.state_dictionary(self.nested(root).unwrap_or(root))?,
            Value::Object(..) => self.module(root, "", 0)?,
            _ => return Err(self.wrong("root", "a state dictionary or TorchScript module", "something else")),
        }
        if self.table.is_empty() {
            return Err(self.wrong("root", "tensors by name", "none"));
        }
        Ok(())
    }

    /// The state dictionary of a training file.
    fn nested(&self, root: Id) -> Option<Id> {
        NESTED_KEYS.iter().find_map(|wanted| {
            let (_, value) = entries(self.pickle, root).find(|(key, _)| key == wanted)?;
            matches!(self.pickle.value(value), Value::Dictionary(_)).then_some(value)
        })
    }

    fn state_dictionary(&mut self, dictionary: Id) -> Result<()> {
        let pickle = self.pickle;
        for (name, value) in entries(pickle, dictionary) {
            if let Value::Tensor(view) = pickle.value(value) {
                self.add(name.to_owned(), view)?;
            }
        }
        Ok(())
    }

    /// The parameters and buffers of a TorchScript module and of those below it.
    fn module(&mut self, module: Id, prefix: &str, depth: usize) -> Result<()> {
        if depth > MODULE_DEPTH_MAX {
            return Err(Error::limit(
                format!("{}: nested modules", self.source.display()),
                MODULE_DEPTH_MAX as u64,
                depth as u64,
            ));
        }
        let pickle = self.pickle;
        let &Value::Object(_, Some(attributes)) = pickle.value(module) else { return Ok(()) };
        self.count_visits(attributes)?;
        for (name, value) in entries(pickle, attributes) {
            match pickle.value(value) {
                Value::Tensor(view) => self.add(format!("{prefix}{name}"), view)?,
                Value::Object(..) => self.module(value, &format!("{prefix}{name}."), depth + 1)?,
                _ => (),
            }
        }
        Ok(())
    }

    fn count_visits(&mut self, attributes: Id) -> Result<()> {
        if let Value::Dictionary(pairs) = self.pickle.value(attributes) {
            self.visits += pairs.len();
        }
        if self.visits > pickle::OPCODES_MAX {
            let what = format!("{}: attributes of modules", self.source.display());
            return Err(Error::limit(what, pickle::OPCODES_MAX as u64, self.visits as u64));
        }
        Ok(())
    }

    fn add(&mut self, name: String, view: &TensorView) -> Result<()> {
        if self.table.len() == TENSORS_MAX {
            return Err(Error::limit(
                format!("{}: tensors", self.source.display()),
                TENSORS_MAX as u64,
                TENSORS_MAX as u64 + 1,
            ));
        }
        let layout = self.layout(&name, view)?;
        if self.table.contains_key(&name) {
            return Err(self.wrong(&name, "one tensor of this name", "two"));
        }
        self.table.insert(name, layout);
        Ok(())
    }

    /// Where a tensor lies in the file, once its storage is there and all of it is inside.
    fn layout(&self, name: &str, view: &TensorView) -> Result<Layout> {
        let TensorView { storage, offset, shape, strides } = view;
        let record = format!("{}/data/{}", self.folder, storage.key);
        let Some(content) = self.directory.range(&record, self.source)? else {
            return Err(self.wrong(name, format!("the record {record}"), "none"));
        };
        let size = storage.kind.size();
        if storage.elements.checked_mul(size) != Some(content.len()) {
            let expected = format!("{} numbers of {size} bytes in {record}", storage.elements);
            return Err(self.wrong(name, expected, format!("{} bytes", content.len())));
        }
        let inside = elements(shape).zip(reach(*offset, shape, strides)).filter(|&(_, stop)| stop <= storage.elements);
        let Some((elements, _)) = inside else {
            let found = format!("offset {offset}, shape {shape:?}, strides {strides:?}");
            return Err(self.wrong(name, format!("a view of {} numbers", storage.elements), found));
        };
        let (shape, start) = (shape.clone(), content.start + offset * size);
        if elements > storage.elements {
            // Gathering it could take any amount of memory, and no weight looks like that.
            return Ok(Layout { element: Element::Other(REPEATED.to_owned()), shape, strides: None, start, length: 0 });
        }
        let strides = (elements > 0 && !is_contiguous(&shape, strides)).then(|| strides.clone());
        Ok(Layout { element: element(storage.kind), shape, strides, start, length: elements * size })
    }

    fn wrong(&self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.source, key, expected, found)
    }
}

fn element(kind: StorageType) -> Element {
    match kind {
        StorageType::Float => Element::Float(Dtype::F32),
        StorageType::Half => Element::Float(Dtype::F16),
        StorageType::BFloat16 => Element::Float(Dtype::Bf16),
        other => Element::Other(format!("{other:?}Storage")),
    }
}

/// One past the last number that a view touches, unless that overflows; its offset if it is empty.
fn reach(offset: usize, shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(offset);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(offset, |at, (length, stride)| at.checked_add((length - 1).checked_mul(*stride)?));
    last?.checked_add(1)
}

/// Whether the strides are those of row-major order. Dimensions of one step nowhere, so their strides mean nothing.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().filter(|(length, _)| **length != 1).all(|(length, &stride)| {
        let contiguous = stride == expected;
        expected *= length;
        contiguous
    })
}
