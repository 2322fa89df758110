//! The weights on a device: in which format each is kept, where it lies, and how it gets there.

use super::arguments::{self as args, Kernel};
use super::driver::{Address, Driver, Launch, launch};
use super::quantised::Packed;
use super::storage::{padded, store_rows};
use crate::checkpoint::Dtype;
use crate::checkpoint::quantised::Quantised;
use crate::error::{Error, Result};
use crate::graph::{Op, Plans, Weight};
use crate::weights::{Format, Kind, Layout, PartValues, Stored, Weights};

/// Allocations start at multiples of it.
pub const ALIGNMENT: u64 = 256;
/// Norms' weights and gates that are made up: neither large nor nothing.
const MADE_UP: f32 = 0.25;

/// How a weight is kept on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A matrix of the numbers of activations: rows of [`padded`] columns.
    Numbers(Dtype),
    /// A vector of f32.
    Vector,
    /// A matrix in codes.
    Codes(Packed),
}

/// A weight on the device.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    /// How it is kept.
    pub kept: Kept,
    /// Its numbers, or its codes.
    pub address: Address,
    /// Where there are codes, their scales and zero points.
    pub beside: [Address; 2],
}

/// Memory of these sizes: one allocation, or one each where the device guards them.
pub fn allocate(driver: &mut dyn Driver, sizes: &[u64]) -> Result<(Vec<Address>, Vec<Address>)> {
    if driver.properties().guarded {
        let mut places = Vec::with_capacity(sizes.len());
        for &size in sizes {
            match driver.allocate(size.max(1)) {
                Ok(place) => places.push(place),
                Err(error) => {
                    places.into_iter().for_each(|place| driver.free(place));
                    return Err(error);
                }
            }
        }
        return Ok((places.clone(), places));
    }
    let mut end = 0;
    let starts: Vec<u64> = sizes
        .iter()
        .map(|size| {
            let start = end;
            end += size.next_multiple_of(ALIGNMENT);
            start
        })
        .collect();
    let whole = driver.allocate(end.max(1))?;
    Ok((vec![whole], starts.into_iter().map(|start| whole.plus(start)).collect()))
}

/// f16 where all numbers of the checkpoint are in f16, else bf16: its range is that of f32.
pub fn suggested(weights: &Weights) -> Dtype {
    let mut plain = weights.list().iter().filter(|stored| !stored.format.is_quantised());
    let all_f16 = plain.all(|stored| stored.format == Format::F16);
    if all_f16 { Dtype::F16 } else { Dtype::Bf16 }
}

/// How each weight is kept beside activations of a dtype. Matrices that linear layers alone read stay in codes where
/// there are kernels for these.
pub fn kept(weights: &Weights, plans: &Plans, dtype: Dtype) -> Result<Vec<Kept>> {
    let mut multiplied = vec![true; weights.list().len()];
    for op in plans.all().flat_map(|(_, plan)| &plan.ops) {
        let read = match op {
            Op::ClassAndPosition { position: read, .. }
            | Op::TilePositions { table: read, .. }
            | Op::TileEmbedding { table: read, .. }
            | Op::FrameEmbedding { table: read, .. }
            | Op::Broadcast { rows: read, .. }
            | Op::Gather { table: read, .. } => read,
            _ => continue,
        };
        multiplied[read.id] = false;
    }
    let of = |stored: &Stored| match stored.kind {
        Kind::Vector => Ok(Kept::Vector),
        Kind::Matrix if multiplied[stored.weight.id] => {
            Ok(packed(weights, stored)?.map_or(Kept::Numbers(dtype), Kept::Codes))
        }
        Kind::Matrix => Ok(Kept::Numbers(dtype)),
    };
    weights.list().iter().map(of).collect()
}

/// The matrix in codes that a weight can be kept as.
fn packed(weights: &Weights, stored: &Stored) -> Result<Option<Packed>> {
    if !stored.format.is_quantised() || stored.layout != Layout::Rows {
        return Ok(None);
    }
    Ok(codes(&weights.parts(stored.weight)?).and_then(|parts| Packed::of(&parts)))
}

/// Parts that are all in codes.
fn codes<'a>(parts: &[PartValues<'a>]) -> Option<Vec<Quantised<'a>>> {
    let codes = parts.iter().map(|part| match part {
        PartValues::Quantised(matrix) => Some(*matrix),
        PartValues::Plain(_) => None,
    });
    codes.collect()
}

/// Bytes of the parts of a weight, each in memory of its own.
fn sizes(Weight { rows, columns, .. }: Weight, kept: Kept) -> Vec<u64> {
    match kept {
        Kept::Numbers(dtype) => vec![Format::from(dtype).bytes(rows, padded(columns))],
        Kept::Vector => vec![Format::F32.bytes(rows, columns)],
        Kept::Codes(packed) => packed.sizes().to_vec(),
    }
}

/// What all weights take.
pub fn bytes(weights: &Weights, kept: &[Kept]) -> u64 {
    let sizes = weights.list().iter().zip(kept).flat_map(|(stored, kept)| sizes(stored.weight, *kept));
    sizes.map(|size| size.next_multiple_of(ALIGNMENT)).sum()
}

/// Allocates and sends all weights; each is at the place that its handle names.
pub fn upload(driver: &mut dyn Driver, weights: &Weights, kept: &[Kept]) -> Result<Vec<Resident>> {
    let all = || weights.list().iter().zip(kept);
    let sizes: Vec<Vec<u64>> = all().map(|(stored, kept)| sizes(stored.weight, *kept)).collect();
    let (_, places) = allocate(driver, &sizes.concat())?;
    let mut places = places.into_iter();
    let mut list = Vec::with_capacity(sizes.len());
    for ((stored, &kept), sizes) in all().zip(&sizes) {
        let mut next = |index: usize| if index < sizes.len() { places.next() } else { None }.unwrap_or(Address::NULL);
        let resident = Resident { kept, address: next(0), beside: [next(1), next(2)] };
        match kept {
            Kept::Numbers(dtype) if weights.are_random() => {
                let launch = random(dtype, resident.address, stored.weight);
                launch.iter().try_for_each(|launch| driver.launch(launch))?;
            }
            Kept::Numbers(dtype) => send_matrix(driver, weights, stored, resident.address, dtype)?,
            Kept::Vector => {
                let made_up = || Ok(vec![MADE_UP; stored.weight.columns]);
                let values = if weights.are_random() { made_up() } else { weights.values(stored.weight) }?;
                driver.copy_in(resident.address, bytemuck::cast_slice(&values))?;
            }
            Kept::Codes(packed) => send_codes(driver, weights, stored.weight, &resident, &packed)?,
        }
        list.push(resident);
    }
    Ok(list)
}

/// Sends a matrix in codes, packed on the way.
fn send_codes(
    driver: &mut dyn Driver,
    weights: &Weights,
    weight: Weight,
    Resident { address, beside, .. }: &Resident,
    packed: &Packed,
) -> Result<()> {
    let parts = codes(&weights.parts(weight)?).expect("what is kept in codes is there in codes");
    let mut to = *address;
    for part in &parts {
        let rows_at_once = (driver.staging_bytes() / packed.pitch()).max(1);
        for rows in part.bytes.chunks(rows_at_once * part.row_bytes()) {
            let bytes = rows.len() / part.row_bytes() * packed.pitch();
            driver.upload(to, &mut |staging| {
                packed.pack(rows, part.row_bytes(), &mut staging[..bytes]);
                Ok(bytes)
            })?;
            to = to.plus(bytes as u64);
        }
    }
    driver.copy_in(beside[0], bytemuck::cast_slice(&packed.scales(&parts)))?;
    if packed.zeros { driver.copy_in(beside[1], &packed.zeros(&parts)) } else { Ok(()) }
}

/// Sends a matrix row by row, converted on the way into staging memory while the buffer before it is being copied.
fn send_matrix(
    driver: &mut dyn Driver,
    weights: &Weights,
    stored: &Stored,
    place: Address,
    dtype: Dtype,
) -> Result<()> {
    let columns = stored.weight.columns;
    let format = Format::from(dtype);
    let pitch = format.bytes(1, padded(columns)) as usize;
    let mut row = 0;
    let mut send = |dtype: Dtype, source: &[u8], part: &str| -> Result<()> {
        let row_bytes = columns * dtype.size();
        let rows_at_once = (driver.staging_bytes() / pitch).max(1);
        for rows in source.chunks(rows_at_once * row_bytes) {
            let count = rows.len() / row_bytes;
            let mut fits = true;
            driver.upload(place.plus((row * pitch) as u64), &mut |staging| {
                let out = &mut staging[..count * pitch];
                fits = store_rows(format, dtype, rows, columns, pitch, out);
                Ok(out.len())
            })?;
            if !fits {
                return Err(Error::invalid(weights.file_of(part), part, "numbers up to 65504 for f16", "a larger one"));
            }
            row += count;
        }
        Ok(())
    };
    if stored.layout != Layout::Rows {
        let values = weights.values(stored.weight)?;
        return send(Dtype::F32, bytemuck::cast_slice(&values), &stored.parts[0]);
    }
    for (values, part) in weights.parts(stored.weight)?.iter().zip(&stored.parts) {
        match values {
            PartValues::Plain(tensor) => send(tensor.dtype, &tensor.bytes, part)?,
            PartValues::Quantised(matrix) => send(Dtype::F32, bytemuck::cast_slice(&matrix.values()), part)?,
        }
    }
    Ok(())
}

/// Fills a matrix with random numbers, about as large as those of a trained one.
fn random(dtype: Dtype, data: Address, Weight { id, rows, columns }: Weight) -> Option<Launch> {
    const BLOCKS: u32 = 1024;
    const THREADS: u32 = 256;
    let bound = (3.0 / columns as f32).sqrt();
    let arguments = args::Random { data, count: (rows * padded(columns)) as u64, seed: id as u32, bound };
    launch(Kernel::random(dtype), [BLOCKS, 1, 1], THREADS, 0, &arguments)
}

/// One block that does nothing: it fills a matrix without numbers.
pub fn empty(dtype: Dtype) -> Launch {
    let nothing = Weight { id: 0, rows: 0, columns: 1 };
    let launch = random(dtype, Address::NULL, nothing).expect("its grid does not depend on the matrix");
    Launch { grid: [1, 1, 1], ..launch }
}
