//! Model files: safetensors and PyTorch archives, whole or sharded, read through maps and never trusted.
//!
//! A [`Checkpoint`] is one table of tensor names over one or several mapped files. Opening reads headers only; the
//! bytes of a tensor are borrowed from the map. What the names mean is no business of this module. Every number that a
//! file states is checked against the length of the map before it is used.

mod folder;
mod foreign;
mod format;
mod mapped;
mod modules;
mod names;
pub mod pickle;
pub mod quantised;
pub mod safetensors;
pub mod torch;
pub mod zip;

pub(crate) use crate::parse::kind;
pub(crate) use folder::CONFIG_BYTES_MAX;
pub use folder::Folder;
pub use format::Format;
pub use mapped::Load;

use crate::error::{Error, Result};
use crate::parse;
use mapped::ModelFile;
use modules::{Entry, Raw};
use quantised::Quantised;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Tensors that one file or index may name.
pub const TENSORS_MAX: usize = 100_000;
/// Dimensions that one tensor may have.
pub const RANK_MAX: usize = 8;
/// Numbers that one tensor may have, dimensions of length zero counted as one: what is computed from a shape that was
/// read does not overflow, not even when a tensor is empty.
pub const ELEMENTS_MAX: usize = 1 << 48;
/// Bytes of a `*.index.json`.
pub const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Files that one index may name.
pub const SHARDS_MAX: usize = 4096;

/// What a folder's weights are called, in the order of preference; the index of a sharded set follows the single file.
const FOLDER_NAMES: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
];

/// A number format: of a tensor in a file, or of what a device stores (weights, activations, keys and values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision: 11 bits, numbers up to 65504.
    F16,
    /// The upper half of a single: 8 bits, the range of f32.
    Bf16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Dtype::F32),
            "f16" => Ok(Dtype::F16),
            "bf16" => Ok(Dtype::Bf16),
            _ => Err(Error::argument(format!("dtype: expected f32, bf16 or f16, found {text}"))),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        })
    }
}

/// A tensor's numbers: row-major, little-endian, at any alignment.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// The format of each number.
    pub dtype: Dtype,
    /// Outermost dimension first; empty for a single number.
    pub shape: &'a [usize],
    /// Borrowed from the file's map where it lies contiguous there, else a gathered copy.
    pub bytes: Cow<'a, [u8]>,
}

/// What the numbers of a tensor are: a format that the engine reads, or the name of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// A format that the engine reads.
    Float(Dtype),
    /// Codes or counts: bytes that a quantised weight is made of, no numbers by themselves.
    Stored(Stored),
    /// A format that is listed but refused when its bytes are asked for.
    Other(String),
}

impl Element {
    /// Bytes of one number; none of a format that is not read.
    pub(crate) fn size(&self) -> usize {
        match self {
            Element::Float(dtype) => dtype.size(),
            Element::Stored(Stored::I8 | Stored::U8 | Stored::F8E4M3) => 1,
            Element::Stored(Stored::I32) => 4,
            Element::Stored(Stored::I64) => 8,
            Element::Other(_) => 0,
        }
    }
}

/// As safetensors has it.
impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Float(dtype) => formatter.write_str(&dtype.to_string().to_uppercase()),
            Element::Stored(stored) => stored.fmt(formatter),
            Element::Other(name) => formatter.write_str(name),
        }
    }
}

/// What the parts of a quantised weight may be stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    /// Signed bytes.
    I8,
    /// Bytes.
    U8,
    /// Signed words of 4 bytes.
    I32,
    /// Signed words of 8 bytes.
    I64,
    /// Floats of a byte: 4 bits of exponent, 3 of fraction, no infinities.
    F8E4M3,
}

impl fmt::Display for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Stored::I8 => "I8",
            Stored::U8 => "U8",
            Stored::I32 => "I32",
            Stored::I64 => "I64",
            Stored::F8E4M3 => "F8_E4M3",
        })
    }
}

/// Where a tensor lies in its file. A parser hands it out only after checking that all of it is inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The format of the numbers.
    pub element: Element,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Steps between numbers of each dimension, in numbers; `None` where the tensor is contiguous.
    pub strides: Option<Vec<usize>>,
    /// The first byte in the file.
    pub start: usize,
    /// Bytes of the numbers, which for a contiguous tensor end at `start + length`.
    pub length: usize,
}

/// The tensors of one file by name.
pub type Table = BTreeMap<String, Layout>;

/// One or several mapped files behind one table of names.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<ModelFile>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Place {
    file: usize,
    layout: Layout,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a PyTorch archive (recognised by content, whatever its suffix), or a folder that
    /// holds `model.safetensors` or `pytorch_model.bin`, whole or as shards with an `.index.json`. Files are mapped.
    ///
    /// # Errors
    /// A file that is missing, cannot be read or holds something else: file, key, expected, found.
    pub fn open(path: &Path) -> Result<Self> {
        Self::load(path, Load::Map)
    }

    /// As [`Checkpoint::open`], with files mapped or read.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`]; memory that is not there.
    pub fn load(path: &Path, load: Load) -> Result<Self> {
        if !path.is_dir() {
            return Self::of_file(ModelFile::open(path, load)?);
        }
        let Some(file) = FOLDER_NAMES.iter().map(|name| path.join(name)).find(|file| is_there(file)) else {
            let expected = format!("one of {}", FOLDER_NAMES.join(", "));
            return Err(Error::invalid(path, "weights", expected, foreign::folder(path)));
        };
        if file.extension().is_some_and(|suffix| suffix == "json") {
            Self::open_index(&file, load)
        } else {
            Self::of_file(ModelFile::open(&file, load)?)
        }
    }

    /// No tensors at all; `path` is what errors call it.
    pub(crate) fn empty(path: &Path) -> Self {
        Checkpoint { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    /// A file that is part of the program; `path` is what errors call it.
    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        Self::of_file(ModelFile::embedded(path, bytes))
    }

    fn of_file(file: ModelFile) -> Result<Self> {
        let path = file.path().to_owned();
        let tensors = parse(&file, &path)?
            .into_iter()
            .map(|(name, layout)| (name, Entry::Plain(Place { file: 0, layout })))
            .collect();
        Ok(Checkpoint { path, files: vec![file], tensors })
    }

    fn open_index(path: &Path, load: Load) -> Result<Self> {
        let shards = read_index(path)?;
        let mut checkpoint = Checkpoint { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for (shard, names) in shards {
            checkpoint.add_shard(ModelFile::open(&path.with_file_name(shard), load)?, names)?;
        }
        Ok(checkpoint)
    }

    /// Adds the `names` that the index says are in a shard; whatever else it holds stays hidden, as in other readers.
    fn add_shard(&mut self, shard: ModelFile, names: Vec<String>) -> Result<()> {
        let path = shard.path();
        let mut table = parse(&shard, path)?;
        for name in names {
            let Some(layout) = table.remove(&name) else {
                return Err(Error::invalid(path, name, "the tensor that the index names here", "none"));
            };
            self.tensors.insert(name, Entry::Plain(Place { file: self.files.len(), layout }));
        }
        self.files.push(shard);
        Ok(())
    }

    /// That no file was written to or cut since it was opened, as far as that matters: what was read into memory, or is
    /// part of the program, stays. Costs a call to the system for each mapped file.
    ///
    /// # Errors
    /// The first file that has changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(ModelFile::check_unchanged)
    }

    /// That the sums in PyTorch archives are those of their content, all of which is read; `read` hears of each piece.
    /// Other formats have no sums.
    ///
    /// # Errors
    /// The first entry whose content has another sum.
    pub fn check_sums(&self, read: &mut dyn FnMut(u64)) -> Result<()> {
        self.archives().try_for_each(|file| zip::directory(file, file.path())?.check_sums(file.path(), read))
    }

    /// How many bytes [`Checkpoint::check_sums`] reads.
    ///
    /// # Errors
    /// A file that has changed so that it is no archive any more.
    pub fn sum_bytes(&self) -> Result<u64> {
        self.archives().map(|file| Ok(zip::directory(file, file.path())?.sum_bytes())).sum()
    }

    /// The numbers of a dictionary that stands beside the tensors of PyTorch archives: settings of training.
    ///
    /// # Errors
    /// A file that has changed so that it is no archive any more.
    pub(crate) fn numbers(&self, key: &str) -> Result<BTreeMap<String, f64>> {
        let mut numbers = BTreeMap::new();
        for file in self.archives() {
            numbers.extend(torch::numbers(file, file.path(), key)?);
        }
        Ok(numbers)
    }

    fn archives(&self) -> impl Iterator<Item = &ModelFile> {
        self.files.iter().filter(|file| zip::is_zip(file))
    }

    /// The file that was opened: the weights, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Entry::shape)
    }

    /// The number format of a tensor; `None` if there is no such tensor or the engine cannot read its format.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.format(name).ok()
    }

    /// The file that holds a tensor; for a name that is nowhere the file that was opened, so that an error can name it.
    pub fn file_of(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.path, |entry| self.files[entry.file()].path())
    }

    /// Bytes that a tensor has in its file; none if there is none of this name.
    pub(crate) fn tensor_bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, Entry::bytes)
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(Entry::bytes).sum()
    }

    /// Puts matrices in few bits in the place of the tensors that make them, as `quantization_config` of a file says.
    ///
    /// # Errors
    /// A format that is not read, by its name; tensors that do not fit each other: file, tensor, expected, found.
    pub(crate) fn join(&mut self, file: &Path, config: &serde_json::Value) -> Result<()> {
        modules::join(file, config, &self.files, &mut self.tensors)
    }

    /// The matrix in few bits of a name; none if there is a tensor of this name.
    ///
    /// # Errors
    /// No such name; scales that are not finite or too large, codes that are no numbers, and whatever else is found out
    /// when it is first asked for: file, tensor, expected, found.
    pub fn quantised(&self, name: &str) -> Result<Option<Quantised<'_>>> {
        match self.entry(name)? {
            Entry::Plain(_) => Ok(None),
            Entry::Matrix(module) => module.view(&self.files).map(Some),
        }
    }

    /// All tensors that make the matrix of a name; none if it is a tensor itself.
    pub(crate) fn raw(&self, name: &str) -> impl Iterator<Item = Raw<'_>> {
        let module = match self.tensors.get(name) {
            Some(Entry::Matrix(module)) => Some(module),
            _ => None,
        };
        module.into_iter().flat_map(|module| module.all(&self.files))
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let (Place { file, layout }, dtype) = (self.place(name)?, self.format(name)?);
        let map = &self.files[*file];
        let bytes = match &layout.strides {
            None => Cow::Borrowed(&map[layout.start..layout.start + layout.length]),
            Some(strides) => Cow::Owned(gather(&map[layout.start..], dtype.size(), &layout.shape, strides)),
        };
        Ok(Tensor { dtype, shape: &layout.shape, bytes })
    }

    /// A tensor by name that must have this shape.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        self.check(name, shape)?;
        self.tensor(name)
    }

    /// That there is a tensor of this name, shape and a format that the engine reads, without touching its bytes.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let layout = &self.place(name)?.layout;
        if layout.shape != shape {
            let (expected, found) = (format!("shape {shape:?}"), format!("{:?}", layout.shape));
            return Err(Error::invalid(self.file_of(name), name, expected, found));
        }
        self.format(name).map(drop)
    }

    /// The number format of a tensor that must be there and readable.
    pub(crate) fn format(&self, name: &str) -> Result<Dtype> {
        match self.entry(name)? {
            Entry::Plain(Place { layout: Layout { element: Element::Float(dtype), .. }, .. }) => Ok(*dtype),
            Entry::Plain(place) => Err(self.not_numbers(name, &place.layout.element)),
            Entry::Matrix(module) => Err(self.not_numbers(name, module.format)),
        }
    }

    /// How the numbers of a tensor or a matrix are kept.
    pub(crate) fn kept(&self, name: &str) -> Result<Format> {
        match self.entry(name)? {
            Entry::Plain(_) => self.format(name).map(Format::from),
            Entry::Matrix(module) => Ok(module.format),
        }
    }

    fn not_numbers(&self, name: &str, found: impl fmt::Display) -> Error {
        Error::invalid(self.file_of(name), name, "numbers in F32, F16 or BF16", found)
    }

    fn place(&self, name: &str) -> Result<&Place> {
        match self.entry(name)? {
            Entry::Plain(place) => Ok(place),
            Entry::Matrix(module) => Err(self.not_numbers(name, module.format)),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| Error::invalid(&self.path, name, "a tensor of this name", "none"))
    }
}

/// Whether there is anything of this name: only what is not there counts as absent. A link that leads nowhere is there,
/// and so is what cannot be looked at; opening it says what is wrong.
pub(crate) fn is_there(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(reason) => !matches!(reason.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Opens a regular file. Devices and pipes are refused before opening, which on a pipe would wait for ever.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let failed = |reason: io::Error| match fs::read_link(path) {
        Ok(target) if reason.kind() == ErrorKind::NotFound => {
            Error::file(path, format!("a link to {}, which is not there", target.display()))
        }
        _ => Error::file(path, reason),
    };
    let check = |metadata: fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(Error::file(path, format!("not a regular file but {}", file_kind(&metadata)))),
    };
    check(fs::metadata(path).map_err(failed)?)?;
    let mut options = File::options();
    // It may have become a pipe meanwhile.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    let file = options.read(true).open(path).map_err(failed)?;
    check(file.metadata().map_err(failed)?)?;
    Ok(file)
}

/// What something that is no file is.
fn file_kind(metadata: &fs::Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    if metadata.is_dir() { "a folder" } else { "a device" }
}

/// The whole of a file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed = |reason| Error::file(path, reason);
    let file = open_regular(path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > bytes_max {
        return Err(Error::limit(format!("{}: bytes", path.display()), bytes_max, length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The file may grow while it is read; what it grew by is not ours.
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Reads a JSON file of at most `bytes_max` bytes. A file that is missing, too large as text or as a tree of values,
/// not UTF-8, not JSON, or with a key twice in an object, is an error of one line.
pub fn read_json(path: &Path, bytes_max: u64) -> Result<serde_json::Value> {
    parse_json(path, &read_bounded(path, bytes_max)?)
}

fn parse_json(path: &Path, bytes: &[u8]) -> Result<serde_json::Value> {
    parse::tree(path, "text", parse::text(path, "text", bytes)?, parse::TREE_BYTES_MAX)
}

/// The shards that an index names, each with its tensors.
fn read_index(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: safetensors::UniqueMap<String>,
    }
    let bytes = read_bounded(path, INDEX_BYTES_MAX)?;
    let index: Index = serde_json::from_str(parse::text(path, "text", &bytes)?)
        .map_err(|reason| Error::malformed(path, "weight_map", "an object of tensor names and file names", reason))?;
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, shard) in names::unwrapped(index.weight_map.0, path)? {
        if !is_plain_name(&shard) {
            return Err(Error::invalid(path, tensor, "the plain name of a file beside the index", shard));
        }
        shards.entry(shard).or_default().push(tensor);
    }
    if shards.len() > SHARDS_MAX {
        return Err(Error::limit(format!("{}: shards", path.display()), SHARDS_MAX as u64, shards.len() as u64));
    }
    Ok(shards)
}

/// Whether a name cannot lead out of its folder, on any system.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

/// Reads the header of a file whose format is told by its first bytes.
fn parse(bytes: &[u8], path: &Path) -> Result<Table> {
    let table = if safetensors::is_safetensors(bytes) {
        safetensors::parse_header(bytes, path)?
    } else if zip::is_zip(bytes) {
        torch::parse_archive(bytes, path)?
    } else {
        let expected = "a safetensors file or a PyTorch archive";
        return Err(Error::invalid(path, "first bytes", expected, foreign::file(bytes)));
    };
    names::unwrapped(table, path)
}

/// How many numbers a shape has, unless that is over [`ELEMENTS_MAX`].
fn elements(shape: &[usize]) -> Option<usize> {
    let bound = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length.max(1)))?;
    (bound <= ELEMENTS_MAX).then(|| shape.iter().product())
}

/// Copies a strided tensor into row-major order. `bytes` start at its first number and reach to its last one.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let (Some((&width, outer_shape)), Some((&step, outer_strides))) = (shape.split_last(), strides.split_last()) else {
        return bytes[..size].to_vec();
    };
    let rows = outer_shape.iter().product::<usize>();
    let mut gathered = Vec::with_capacity(rows * width * size);
    let mut index = vec![0; outer_shape.len()];
    for _ in 0..rows {
        let row: usize = index.iter().zip(outer_strides).map(|(i, stride)| i * stride).sum();
        for column in 0..width {
            let at = (row + column * step) * size;
            gathered.extend_from_slice(&bytes[at..at + size]);
        }
        advance(&mut index, outer_shape);
    }
    gathered
}

/// The next index in row-major order.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (i, length) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < *length {
            return;
        }
        *i = 0;
    }
}
