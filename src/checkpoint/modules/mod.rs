//! Matrices in few bits as others publish them: which tensors of a checkpoint make one, and how.
//!
//! `quantization_config` of `config.json` says who wrote the folder; which tensors a module has says whether it is
//! quantised at all. Shapes are checked against each other at opening. What numbers stand in the tensors is looked at
//! when a matrix is first asked for: a folder opens without being read.

mod awq;
mod bitsandbytes;
mod compressed_tensors;
mod fp8;
mod gptq;
mod keys;
mod repack;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use super::quantised::{Owned, Quantised, SCALE_LIMIT};
use super::{Dtype, Element, Format, ModelFile, Place, Stored};
use crate::error::{Error, Result};
use keys::Keys;

/// Where a checkpoint has something under a name.
#[derive(Debug)]
pub(super) enum Entry {
    /// A tensor.
    Plain(Place),
    /// A matrix that is made of several.
    Matrix(Box<Module>),
}

impl Entry {
    pub fn shape(&self) -> &[usize] {
        match self {
            Entry::Plain(place) => &place.layout.shape,
            Entry::Matrix(module) => &module.shape,
        }
    }

    /// The file that has it; of a matrix, its codes.
    pub fn file(&self) -> usize {
        match self {
            Entry::Plain(place) => place.file,
            Entry::Matrix(module) => module.tensors[0].2.file,
        }
    }

    /// Bytes in files.
    pub fn bytes(&self) -> u64 {
        match self {
            Entry::Plain(place) => place.layout.length as u64,
            Entry::Matrix(module) => module.tensors.iter().map(|(.., place)| place.layout.length as u64).sum(),
        }
    }
}

/// Makes a matrix of the tensors of its module.
type Make = fn(&Module, &[ModelFile]) -> Result<Owned>;

/// A matrix, and the tensors that it is made of.
#[derive(Debug)]
pub(super) struct Module {
    pub shape: [usize; 2],
    pub format: Format,
    /// Numbers of the publisher's that share a scale, in the order in which they lie there.
    block: [usize; 2],
    tensors: Vec<(Role, String, Place)>,
    make: Make,
    made: OnceLock<Owned>,
}

/// What a tensor is to its matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Codes,
    Scales,
    Zeros,
    Groups,
    Table,
    State,
    NestedScales,
    NestedTable,
    /// Nothing that is not known without it.
    Beside,
}

/// A tensor, as it lies in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub file: &'a Path,
    pub name: &'a str,
    pub element: &'a Element,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

impl<'a> Raw<'a> {
    fn of(name: &'a str, place: &'a Place, files: &'a [ModelFile]) -> Raw<'a> {
        let (file, layout) = (&files[place.file], &place.layout);
        let bytes = &file[layout.start..layout.start + layout.length];
        Raw { file: file.path(), name, element: &layout.element, shape: &layout.shape, bytes }
    }

    fn invalid(&self, expected: impl ToString, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.file, self.name, expected.to_string(), found)
    }

    /// That it holds such codes in this shape.
    fn check(&self, stored: Stored, shape: &[usize]) -> Result<()> {
        if *self.element == Element::Stored(stored) && self.shape == shape {
            return Ok(());
        }
        let expected = format!("{stored} of shape {shape:?}");
        Err(self.invalid(expected, format!("{} of shape {:?}", self.element, self.shape)))
    }

    /// Its number format, which must be one of numbers; and that its shape is one of these.
    fn check_floats(&self, shapes: &[&[usize]]) -> Result<()> {
        if matches!(self.element, Element::Float(_)) && shapes.contains(&self.shape) {
            return Ok(());
        }
        let shapes: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
        let expected = format!("F32, F16 or BF16 of shape {}", shapes.join(" or "));
        Err(self.invalid(expected, format!("{} of shape {:?}", self.element, self.shape)))
    }

    /// Words of codes.
    fn words(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// Numbers, which must be finite.
    fn numbers(&self) -> Result<Vec<f32>> {
        let bytes = self.bytes;
        let numbers: Vec<f32> = match self.element {
            Element::Float(Dtype::F32) => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Element::Float(Dtype::F16) => {
                bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
            Element::Float(Dtype::Bf16) => {
                bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
            }
            other => unreachable!("{other}: formats are checked at opening"),
        };
        match numbers.iter().position(|number| !number.is_finite()) {
            None => Ok(numbers),
            Some(at) => Err(self.invalid("finite numbers", format!("{} at {at}", numbers[at]))),
        }
    }

    /// That scales are such as devices can multiply.
    fn check_scales(&self, scales: &[f32]) -> Result<()> {
        match scales.iter().find(|scale| scale.is_nan() || scale.abs() >= SCALE_LIMIT) {
            None => Ok(()),
            Some(scale) => Err(self.invalid(format!("scales below {SCALE_LIMIT}"), scale)),
        }
    }

    /// Its numbers, which are scales.
    fn scales(&self) -> Result<Vec<f32>> {
        let scales = self.numbers()?;
        self.check_scales(&scales)?;
        Ok(scales)
    }
}

impl Module {
    /// The matrix: made at the first call.
    pub fn view<'a>(&'a self, files: &'a [ModelFile]) -> Result<Quantised<'a>> {
        let made = match self.made.get() {
            Some(made) => made,
            None => {
                let made = (self.make)(self, files)?;
                self.made.get_or_init(|| made)
            }
        };
        let view = made.view(self.raw(Role::Codes, files).bytes);
        debug_assert_eq!(([view.rows, view.columns], view.format()), (self.shape, self.format));
        Ok(view)
    }

    /// All its tensors.
    pub fn all<'a>(&'a self, files: &'a [ModelFile]) -> impl Iterator<Item = Raw<'a>> {
        self.tensors.iter().map(|(_, name, place)| Raw::of(name, place, files))
    }

    fn raw<'a>(&'a self, role: Role, files: &'a [ModelFile]) -> Raw<'a> {
        self.find(role, files).expect("what a matrix cannot do without is found at opening")
    }

    fn find<'a>(&'a self, role: Role, files: &'a [ModelFile]) -> Option<Raw<'a>> {
        let (_, name, place) = self.tensors.iter().find(|(of, ..)| *of == role)?;
        Some(Raw::of(name, place, files))
    }

    /// Columns that share a scale.
    fn group(&self) -> usize {
        match self.format {
            Format::Int8 { group } | Format::Fp8 { group } | Format::Int4 { group, .. } => {
                group.unwrap_or(self.shape[1])
            }
            Format::F32 | Format::F16 | Format::Bf16 => unreachable!("a matrix in few bits"),
        }
    }

    /// Groups of a row.
    fn groups(&self) -> usize {
        self.shape[1] / self.group()
    }
}

/// None where a scale is a whole row's.
fn group_of(group: usize, columns: usize) -> Option<usize> {
    (group < columns).then_some(group)
}

/// A table of tensors from which matrices are put together.
struct Tensors<'a> {
    files: &'a [ModelFile],
    entries: &'a mut BTreeMap<String, Entry>,
}

impl Tensors<'_> {
    /// What stands before an ending of names.
    fn stems(&self, ending: &str) -> Vec<String> {
        self.entries.keys().filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect()
    }

    fn find<'a>(&'a self, name: &'a str) -> Option<Raw<'a>> {
        match self.entries.get(name)? {
            // Only tensors that lie contiguous are codes, and all others of a matrix are in the same kind of file.
            Entry::Plain(place) if place.layout.strides.is_none() => Some(Raw::of(name, place, self.files)),
            _ => None,
        }
    }

    /// A tensor that the one called `of` cannot do without.
    fn expect<'a>(&'a self, name: &'a str, of: &str) -> Result<Raw<'a>> {
        self.find(name).ok_or_else(|| {
            let file = self.find(of).map_or(Path::new(""), |of| of.file);
            Error::invalid(file, name, format!("a tensor beside {of}"), "none")
        })
    }

    /// Whether a tensor holds such codes.
    fn is(&self, name: &str, stored: Stored) -> bool {
        self.find(name).is_some_and(|raw| *raw.element == Element::Stored(stored))
    }

    /// Puts the matrix `stem.weight` in the place of its tensors, the codes first. Those that are not there are none of
    /// it.
    fn join(
        &mut self,
        stem: &str,
        (shape, format, block): ([usize; 2], Format, [usize; 2]),
        tensors: &[(Role, &str)],
        make: Make,
    ) {
        let mut taken = Vec::new();
        for (role, ending) in tensors {
            let name = format!("{stem}{ending}");
            if let Some(Entry::Plain(place)) = self.entries.remove(&name) {
                taken.push((*role, name, place));
            }
        }
        let module = Module { shape, format, block, tensors: taken, make, made: OnceLock::new() };
        self.entries.insert(format!("{stem}.weight"), Entry::Matrix(Box::new(module)));
    }
}

/// How someone's tensors become matrices.
type Find = fn(&Keys, &mut Tensors) -> Result<()>;

/// Who is read.
const METHODS: [(&str, Find); 5] = [
    ("compressed-tensors", compressed_tensors::find),
    ("bitsandbytes", bitsandbytes::find),
    ("gptq", gptq::find),
    ("awq", awq::find),
    ("fp8", fp8::find),
];

/// Puts matrices in the place of the tensors that make them, as `quantization_config` of the file says.
///
/// # Errors
/// A format that is not read, by its name; tensors that do not fit each other: file, tensor, expected, found.
pub(super) fn join(
    file: &Path,
    config: &Value,
    files: &[ModelFile],
    entries: &mut BTreeMap<String, Entry>,
) -> Result<()> {
    let keys = Keys::of(file, "quantization_config", config)?;
    let method = match (keys.text("quant_method")?, keys.get("load_in_8bit").or(keys.get("load_in_4bit"))) {
        (Some(method), _) => method,
        // What wrote it before there was such a key.
        (None, Some(_)) => "bitsandbytes",
        (None, None) => return Err(keys.invalid("quant_method", expected_methods(), "none")),
    };
    let Some((_, find)) = METHODS.iter().find(|(name, _)| *name == method) else {
        return Err(keys.invalid("quant_method", expected_methods(), format!("{method:?}")));
    };
    find(&keys, &mut Tensors { files, entries })?;
    match entries.values().any(|entry| matches!(entry, Entry::Matrix(_))) {
        true => Ok(()),
        false => Err(Error::invalid(file, "quantization_config", format!("weights of {method}"), "none in the files")),
    }
}

fn expected_methods() -> String {
    format!("one of {}", METHODS.map(|(name, _)| name).join(", "))
}
