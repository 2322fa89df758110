//! RICES, the retrieval of similar examples (Yang et al. 2021; Flamingo, appendix B; OpenFlamingo's `eval/rices.py`):
//! of a support set, the images whose features are most like those of the image asked about.
//!
//! [`Features`] are rows of unit length, kept in a flat file; [`nearest`] compares exactly, by dot products. What
//! features are made with is the caller's: the protocol takes the frozen vision encoder's.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::backend::dot_products;
use crate::checkpoint::open_regular;
use crate::error::{Error, Result};
use crate::files;

/// Numbers that a row may have.
pub const DIMENSION_MAX: usize = 1 << 16;
/// Bytes that all rows of a file may have: ten million rows of 768 numbers fit.
pub const BYTES_MAX: u64 = 32 << 30;

/// The first line of a file of features: what it is, and the version of its form.
const MAGIC: &str = "flamant features 1";
/// Bytes of a file's first two lines.
const HEADER_BYTES_MAX: u64 = 4096;

/// One row of unit length for each image of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    dimension: usize,
    values: Vec<f32>,
}

/// What features were made with and of. Those of another model or other images are of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    model: String,
    images: String,
    count: usize,
}

impl Origin {
    /// `model` tells models apart, such as by a hash of the vision encoder; `images` are the names of all rows in
    /// their order.
    pub fn new<'a>(model: impl Into<String>, images: impl IntoIterator<Item = &'a str>) -> Self {
        let model = model.into();
        assert!(model.len() < 1024, "a name or a hash");
        let mut hasher = blake3::Hasher::new();
        let mut count = 0;
        for name in images {
            // With its length each name ends where it ends, whatever follows.
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            count += 1;
        }
        Origin { model, images: hasher.finalize().to_hex().to_string(), count }
    }
}

/// The second line of a file: what the rows are that follow it, as little-endian f32.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    dimension: usize,
    count: usize,
    model: String,
    images: String,
}

impl Features {
    /// Brings rows of `dimension` numbers to unit length. A row of zeros stays: it stands for an image that could not
    /// be read, is like no other, and is never found.
    ///
    /// # Errors
    /// With a row that is not finite.
    pub fn normalised(mut values: Vec<f32>, dimension: usize) -> Result<Self> {
        assert!((1..=DIMENSION_MAX).contains(&dimension) && values.len().is_multiple_of(dimension));
        for (row, values) in values.chunks_exact_mut(dimension).enumerate() {
            let length = length(values);
            if !length.is_finite() {
                return Err(Error::argument(format!("features of image {row}: expected finite numbers, found others")));
            }
            if length > 0.0 {
                values.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
            }
        }
        Ok(Features { dimension, values })
    }

    /// For each row, whether it is of an image that could be read.
    fn present(&self) -> Vec<bool> {
        let rows = self.values.par_chunks_exact(self.dimension);
        rows.map(|row| row.iter().any(|value| *value != 0.0)).collect()
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Numbers of a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Rows one after the other: (count, dimension).
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Writes the features to a file, or replaces it as a whole.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, path: &Path, origin: &Origin) -> Result<()> {
        assert_eq!(self.count(), origin.count);
        let Origin { model, images, count } = origin.clone();
        let header = Header { dimension: self.dimension, count, model, images };
        let header = serde_json::to_string(&header).map_err(|reason| Error::file(path, reason))?;
        files::write(path, |file| {
            write!(file, "{MAGIC}\n{header}\n")?;
            self.values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
        })
    }

    /// Reads the features of `origin` from a file.
    ///
    /// # Errors
    /// Where the file cannot be read, is not whole, or is of another origin: then it is to be made anew.
    pub fn read(path: &Path, origin: &Origin) -> Result<Self> {
        let failed = |reason| Error::file(path, reason);
        let file = open_regular(path)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::new(file);
        let mut lines = Vec::new();
        for _ in 0..2 {
            (&mut file).take(HEADER_BYTES_MAX).read_until(b'\n', &mut lines).map_err(failed)?;
        }
        let dimension = check_header(path, &lines, origin)?;
        let expected = 4 * dimension as u64 * origin.count as u64;
        let found = bytes.saturating_sub(lines.len() as u64);
        if found != expected {
            return Err(Error::invalid(path, "rows", format!("{expected} bytes"), format!("{found}")));
        }
        if expected > BYTES_MAX {
            return Err(Error::limit(format!("{}: bytes", path.display()), BYTES_MAX, expected));
        }
        let mut values = vec![0.0_f32; dimension * origin.count];
        file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(failed)?;
        values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
        let fits = |values: &[f32]| {
            let length = length(values);
            length == 0.0 || (length - 1.0).abs() < 1e-3
        };
        match values.par_chunks_exact(dimension).position_first(|values| !fits(values)) {
            None => Ok(Features { dimension, values }),
            Some(row) => Err(Error::invalid(path, format!("row {row}"), "a row of length 1, or of zeros", "another")),
        }
    }
}

/// The Euclidean length.
fn length(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// Holds a file's first two lines against what is wanted; returns the dimension.
fn check_header(path: &Path, lines: &[u8], origin: &Origin) -> Result<usize> {
    let lines = lines.strip_prefix(MAGIC.as_bytes()).and_then(|lines| lines.strip_prefix(b"\n"));
    let Some(header) = lines.and_then(|lines| lines.strip_suffix(b"\n")) else {
        return Err(Error::invalid(path, "first lines", format!("{MAGIC:?} and a header"), "neither"));
    };
    let header: Header =
        serde_json::from_slice(header).map_err(|reason| Error::malformed(path, "header", "a line of JSON", reason))?;
    if header.model != origin.model {
        return Err(Error::invalid(path, "model", &origin.model, header.model));
    }
    if (header.count, &header.images) != (origin.count, &origin.images) {
        let name = |count: usize, images: &str| format!("{count} images {images}");
        let (expected, found) = (name(origin.count, &origin.images), name(header.count, &header.images));
        return Err(Error::invalid(path, "images", expected, found));
    }
    if !(1..=DIMENSION_MAX).contains(&header.dimension) {
        return Err(Error::invalid(path, "dimension", format!("1 to {DIMENSION_MAX}"), header.dimension));
    }
    Ok(header.dimension)
}

/// An image of the support set and how like the query it is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Neighbour {
    /// Its row.
    pub row: usize,
    /// The cosine between its features and the query's.
    pub similarity: f32,
}

impl Eq for Neighbour {}

/// The most similar comes first, the lower row where two are equally so.
impl Ord for Neighbour {
    fn cmp(&self, other: &Self) -> Ordering {
        other.similarity.partial_cmp(&self.similarity).expect("a finite number").then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Neighbour {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Queries that read the rows of a support set together: reading them is what costs most.
const QUERIES: usize = 64;
/// Similarities that are computed before the best are picked from them: they fit a second-level cache.
const SIMILARITIES: usize = 1 << 18;

/// For each row of `queries`, the `k` rows of `support` most similar to it, best first; fewer if there are fewer. A
/// prompt wants them the other way round, so that the most similar is next to the question.
///
/// Only rows for which `allowed(query, row)` is true are picked: a query that is in the support set itself must not be
/// shown its own answer. What is found for a query never depends on the others, to the last bit.
pub fn nearest(
    queries: &Features,
    support: &Features,
    k: usize,
    allowed: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Vec<Neighbour>> {
    assert_eq!(queries.dimension, support.dimension, "features of two models");
    let dimension = support.dimension;
    let mut found: Vec<BinaryHeap<Neighbour>> = Vec::new();
    found.resize_with(queries.count(), || BinaryHeap::with_capacity(k.min(support.count())));
    let mut similarities = Vec::new();
    let (asks, present) = (queries.present(), support.present());
    for (batch, found) in found.chunks_mut(QUERIES).enumerate() {
        let first = batch * QUERIES;
        let queries: Vec<&[f32]> = queries.values.chunks_exact(dimension).skip(first).take(QUERIES).collect();
        let block = SIMILARITIES / queries.len();
        for (number, rows) in support.values.chunks(block * dimension).enumerate() {
            similarities.resize(rows.len() / dimension * queries.len(), 0.0);
            dot_products(&queries, rows, &mut similarities);
            let of_query = similarities.par_chunks_exact(rows.len() / dimension);
            found.par_iter_mut().zip(of_query).enumerate().for_each(|(query, (found, similarities))| {
                for (row, &similarity) in (number * block..).zip(similarities) {
                    let allowed = || asks[first + query] && present[row] && allowed(first + query, row);
                    pick(found, k, Neighbour { row, similarity }, allowed);
                }
            });
        }
    }
    found.into_iter().map(BinaryHeap::into_sorted_vec).collect()
}

/// Keeps a row if it is among the best `k` so far. Rows come in their order, so of equals the first one stays.
fn pick(found: &mut BinaryHeap<Neighbour>, k: usize, candidate: Neighbour, allowed: impl FnOnce() -> bool) {
    if found.len() < k {
        if allowed() {
            found.push(candidate);
        }
    } else if let Some(mut worst) = found.peek_mut()
        && candidate.similarity > worst.similarity
        && allowed()
    {
        *worst = candidate;
    }
}
