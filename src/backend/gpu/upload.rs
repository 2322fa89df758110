//! The weights on a device: in which format each is kept, where it lies, and how it gets there.

use super::arguments::{self as args, Kernel};
use super::driver::{Address, Driver, Launch, launch};
use super::storage::{padded, store_rows};
use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::graph::Weight;
use crate::weights::{Format, Kind, Layout, PartValues, Stored, Weights};

/// Allocations start at multiples of it.
pub const ALIGNMENT: u64 = 256;
/// Norms' weights and gates that are made up: neither large nor nothing.
const MADE_UP: f32 = 0.25;

/// A weight on the device.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    pub address: Address,
    pub format: Format,
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

/// The format that a weight is kept in beside activations of a dtype.
fn kept(stored: &Stored, dtype: Dtype) -> Format {
    match stored.kind {
        Kind::Matrix => dtype.into(),
        Kind::Vector => Format::F32,
    }
}

/// Columns of a row in memory.
fn pitch(stored: &Stored) -> usize {
    match stored.kind {
        Kind::Matrix => padded(stored.weight.columns),
        Kind::Vector => stored.weight.columns,
    }
}

fn sizes(weights: &Weights, dtype: Dtype) -> impl Iterator<Item = u64> {
    weights.list().iter().map(move |stored| kept(stored, dtype).bytes(stored.weight.rows, pitch(stored)))
}

/// What all weights take.
pub fn bytes(weights: &Weights, dtype: Dtype) -> u64 {
    sizes(weights, dtype).map(|size| size.next_multiple_of(ALIGNMENT)).sum()
}

/// Allocates and sends all weights; each is at the place that its handle names.
pub fn upload(driver: &mut dyn Driver, weights: &Weights, dtype: Dtype) -> Result<Vec<Resident>> {
    let sizes: Vec<u64> = sizes(weights, dtype).collect();
    let (_, places) = allocate(driver, &sizes)?;
    let mut list = Vec::with_capacity(places.len());
    for (stored, address) in weights.list().iter().zip(places) {
        let format = kept(stored, dtype);
        match stored.kind {
            Kind::Matrix if weights.are_random() => {
                let launch = random(dtype, address, stored.weight);
                launch.iter().try_for_each(|launch| driver.launch(launch))?;
            }
            Kind::Matrix => send_matrix(driver, weights, stored, address, format)?,
            Kind::Vector => {
                let made_up = || Ok(vec![MADE_UP; stored.weight.columns]);
                let values = if weights.are_random() { made_up() } else { weights.values(stored.weight) }?;
                driver.copy_in(address, bytemuck::cast_slice(&values))?;
            }
        }
        list.push(Resident { address, format });
    }
    Ok(list)
}

/// Sends a matrix row by row, converted on the way into staging memory while the buffer before it is being copied.
fn send_matrix(
    driver: &mut dyn Driver,
    weights: &Weights,
    stored: &Stored,
    place: Address,
    format: Format,
) -> Result<()> {
    let columns = stored.weight.columns;
    let pitch = format.bytes(1, pitch(stored)) as usize;
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
