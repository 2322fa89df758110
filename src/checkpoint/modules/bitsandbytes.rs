//! bitsandbytes: 4 bits through a table (nf4, fp4), with scales that may be quantised themselves, and LLM.int8().

use serde_json::Value;

use super::super::quantised::{Owned, OwnedCodes};
use super::super::{Format, ModelFile, Stored};
use super::keys::Keys;
use super::{Module, Raw, Role, Tensors, group_of, repack};
use crate::checkpoint::elements;
use crate::error::Result;
use crate::parse;

/// Bytes of the JSON that says how a tensor was quantised.
const STATE_BYTES_MAX: usize = 1 << 16;
/// Numbers that share a scale.
const BLOCKS: std::ops::RangeInclusive<u64> = 32..=4096;
const NESTED_TABLE: usize = 256;

pub(super) fn find(_: &Keys, tensors: &mut Tensors) -> Result<()> {
    for kind in ["nf4", "fp4"] {
        let ending = format!(".weight.quant_state.bitsandbytes__{kind}");
        for stem in tensors.stems(&ending) {
            table(&stem, &ending, tensors)?;
        }
    }
    for stem in tensors.stems(".SCB") {
        int8(&stem, tensors)?;
    }
    Ok(())
}

/// What is said of a tensor.
struct State {
    shape: [usize; 2],
    block: usize,
    /// Scales that share a scale, and what is added to all of them.
    nested: Option<(usize, f32)>,
}

impl State {
    fn read(raw: &Raw) -> Result<State> {
        raw.check(Stored::U8, &[raw.bytes.len()])?;
        if raw.bytes.len() > STATE_BYTES_MAX {
            return Err(raw.invalid(format!("at most {STATE_BYTES_MAX} bytes"), raw.bytes.len()));
        }
        let text = parse::text(raw.file, raw.name, raw.bytes)?;
        let state = parse::tree(raw.file, raw.name, text, parse::TREE_BYTES_MAX)?;
        let wrong = |key: &str, expected: &str| {
            let found = state.get(key).map_or("none".to_owned(), ToString::to_string);
            raw.invalid(format!("{key}: {expected}"), found)
        };
        let block = |key: &str| match state.get(key).and_then(Value::as_u64) {
            Some(block) if block.is_power_of_two() && BLOCKS.contains(&block) => Ok(block as usize),
            _ => Err(wrong(key, "a power of two from 32 to 4096")),
        };
        let shape: Option<Vec<usize>> = state
            .get("shape")
            .and_then(Value::as_array)
            .and_then(|shape| shape.iter().map(|length| usize::try_from(length.as_u64()?).ok()).collect());
        let shape = match shape.as_deref() {
            Some(&[rows, columns]) if rows > 0 && columns > 0 && elements(&[rows, columns]).is_some() => {
                [rows, columns]
            }
            _ => return Err(wrong("shape", "rows and columns")),
        };
        let nested = match state.get("nested_blocksize") {
            None => None,
            Some(_) => match state.get("nested_offset").and_then(Value::as_f64).map(|offset| offset as f32) {
                Some(offset) if offset.is_finite() => Some((block("nested_blocksize")?, offset)),
                _ => return Err(wrong("nested_offset", "a number")),
            },
        };
        Ok(State { shape, block: block("blocksize")?, nested })
    }
}

/// Half bytes through a table.
fn table(stem: &str, ending: &str, tensors: &mut Tensors) -> Result<()> {
    let name = |part: &str| format!("{stem}.weight{part}");
    let (codes, state) = (name(""), format!("{stem}{ending}"));
    let raw = tensors.expect(&codes, &state)?;
    let State { shape: [rows, columns], block, nested } = State::read(&tensors.expect(&state, &codes)?)?;
    if !columns.is_multiple_of(2) {
        return Err(raw.invalid("an even number of columns", columns));
    }
    raw.check(Stored::U8, &[rows * columns / 2, 1])?;
    let scales = (rows * columns).div_ceil(block);
    tensors.expect(&name(".quant_map"), &codes)?.check_floats(&[&[16]])?;
    let absmax = name(".absmax");
    let absmax = tensors.expect(&absmax, &codes)?;
    match nested {
        None => absmax.check_floats(&[&[scales]])?,
        Some((nested, _)) => {
            absmax.check(Stored::U8, &[scales])?;
            tensors.expect(&name(".nested_absmax"), &codes)?.check_floats(&[&[scales.div_ceil(nested)]])?;
            tensors.expect(&name(".nested_quant_map"), &codes)?.check_floats(&[&[NESTED_TABLE]])?;
        }
    }
    let format = Format::Int4 { group: group_of(repack::shared(columns, block), columns), zeros: false };
    let own = [
        (Role::Codes, ".weight"),
        (Role::Scales, ".weight.absmax"),
        (Role::Table, ".weight.quant_map"),
        (Role::NestedScales, ".weight.nested_absmax"),
        (Role::NestedTable, ".weight.nested_quant_map"),
        (Role::State, ending),
    ];
    tensors.join(stem, ([rows, columns], format, [1, block]), &own, make_table);
    Ok(())
}

fn make_table(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    let ([rows, columns], group) = (module.shape, module.group());
    let State { block, nested, .. } = State::read(&module.raw(Role::State, files))?;
    let absmax = module.raw(Role::Scales, files);
    let found = match nested {
        None => absmax.numbers()?,
        Some((nested, offset)) => {
            let table = module.raw(Role::NestedTable, files).numbers()?;
            let scales = module.raw(Role::NestedScales, files).numbers()?;
            let scale = |(at, &code): (usize, &u8)| table[usize::from(code)] * scales[at / nested] + offset;
            absmax.bytes.iter().enumerate().map(scale).collect()
        }
    };
    absmax.check_scales(&found)?;
    // Blocks follow each other through all rows.
    let scales = (0..rows * columns / group).map(|at| found[at * group / block]).collect();
    let table = module.raw(Role::Table, files).numbers()?;
    let table = OwnedCodes::Table(std::array::from_fn(|code| table[code]));
    // The first of two columns stands in the upper half.
    let bytes = Some(module.raw(Role::Codes, files).bytes.iter().map(|codes| codes.rotate_left(4)).collect());
    Ok(Owned { rows, columns, codes: table, bytes, group, scales, zeros: None, order: None })
}

/// Bytes with the largest magnitude of each row.
fn int8(stem: &str, tensors: &mut Tensors) -> Result<()> {
    let (codes, scales, format) = (format!("{stem}.weight"), format!("{stem}.SCB"), format!("{stem}.weight_format"));
    let raw = tensors.expect(&codes, &scales)?;
    let &[rows, columns] = raw.shape else { return Err(raw.invalid("two dimensions", format!("{:?}", raw.shape))) };
    raw.check(Stored::I8, &[rows, columns])?;
    if rows == 0 || columns == 0 {
        return Err(raw.invalid("rows and columns", format!("shape {:?}", raw.shape)));
    }
    tensors.expect(&scales, &codes)?.check_floats(&[&[rows]])?;
    if let Some(format) = tensors.find(&format).filter(|format| format.bytes.iter().any(|&byte| byte != 0)) {
        return Err(format.invalid("rows as they are (0)", format!("{:?}", format.bytes)));
    }
    let own = [(Role::Codes, ".weight"), (Role::Scales, ".SCB"), (Role::Beside, ".weight_format")];
    tensors.join(stem, ([rows, columns], Format::Int8 { group: None }, [1, columns]), &own, make_int8);
    Ok(())
}

fn make_int8(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    let [rows, columns] = module.shape;
    let raw = module.raw(Role::Scales, files);
    let scales: Vec<f32> = raw.numbers()?.iter().map(|largest| largest / 127.0).collect();
    raw.check_scales(&scales)?;
    let scales = repack::spread(&scales, module);
    Ok(Owned { rows, columns, codes: OwnedCodes::Int8, bytes: None, group: columns, scales, zeros: None, order: None })
}
