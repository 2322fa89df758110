//! Folders of the package compressed-tensors (llm-compressor, vLLM), and our own: integers in 8 bits, floats in 8 bits,
//! integers in 4 bits. Their codes lie as we have them, so that they stay where they are.

use serde_json::Value;

use super::super::quantised::{Owned, OwnedCodes};
use super::super::{Format, ModelFile, Stored};
use super::keys::Keys;
use super::{Make, Module, Role, Tensors, fp8, group_of, repack};
use crate::error::Result;

/// What is written in the key `format`, of the whole or of a group.
const FORMATS: [&str; 6] =
    ["int-quantized", "float-quantized", "pack-quantized", "naive-quantized", "mixed-precision", "dense"];
/// What may stand beside a matrix for other ways to multiply: activations are not quantised as they say.
const BESIDE: [(Role, &str); 2] = [(Role::Beside, ".input_scale"), (Role::Beside, ".input_zero_point")];

pub(super) fn find(keys: &Keys, tensors: &mut Tensors) -> Result<()> {
    keys.one_of("format", &FORMATS)?;
    keys.one_of("quantization_status", &["compressed"])?;
    keys.nothing("transform_config")?;
    if let Some(sparsity) = keys.object("sparsity_config")? {
        sparsity.one_of("format", &["dense"])?;
    }
    let (mut block, mut ordered) = (None, false);
    if let Some(groups) = keys.object("config_groups")? {
        for group in groups.objects() {
            let (found, is_ordered) = check_group(&group?)?;
            (block, ordered) = (found.or(block), ordered | is_ordered);
        }
    }
    for stem in tensors.stems(".weight_packed") {
        packed(&stem, ordered, tensors)?;
    }
    for stem in tensors.stems(".weight") {
        let name = format!("{stem}.weight");
        if tensors.is(&name, Stored::I8) || tensors.is(&name, Stored::F8E4M3) {
            whole(&stem, block, tensors)?;
        }
    }
    Ok(())
}

/// What is said of the weights and activations of a group of modules: the block that shares a scale, if it is one, and
/// whether columns are in groups by an order of their own.
fn check_group(group: &Keys) -> Result<(Option<[usize; 2]>, bool)> {
    group.one_of("format", &FORMATS)?;
    for activations in ["input_activations", "output_activations"] {
        if let Some(activations) = group.object(activations)? {
            activations.flag("dynamic", true)?;
        }
    }
    let Some(weights) = group.object("weights")? else { return Ok((None, false)) };
    let kind = weights.one_of("type", &["int", "float"])?;
    if kind == Some("float") {
        weights.only("num_bits", 8)?;
    } else if !matches!(weights.get("num_bits").and_then(Value::as_u64), Some(4 | 8)) {
        let found = weights.get("num_bits").map_or("none".to_owned(), ToString::to_string);
        return Err(weights.invalid("num_bits", "4 or 8", found));
    }
    weights.one_of("strategy", &["channel", "group", "tensor", "block"])?;
    let order = match weights.get("actorder") {
        None | Some(Value::Bool(false)) => None,
        Some(_) => weights.one_of("actorder", &["group", "dynamic", "weight", "static"])?,
    };
    Ok((weights.block("block_structure")?, order.is_some_and(|order| matches!(order, "group" | "dynamic"))))
}

/// Integers of 4 or 8 bits in words.
fn packed(stem: &str, ordered: bool, tensors: &mut Tensors) -> Result<()> {
    let [codes, scales, shape, zeros, groups] =
        ["packed", "scale", "shape", "zero_point", "g_idx"].map(|ending| format!("{stem}.weight_{ending}"));
    let raw = tensors.expect(&codes, &codes)?;
    let &[rows, words] = raw.shape else { return Err(raw.invalid("two dimensions", format!("{:?}", raw.shape))) };
    raw.check(Stored::I32, &[rows, words])?;
    let stated = tensors.expect(&shape, &codes)?;
    stated.check(Stored::I64, &[2])?;
    let said: Vec<i64> = stated.bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let said = [0, 1].map(|at| usize::try_from(said[at]).unwrap_or(usize::MAX));
    let columns = said[1];
    let bits = match columns {
        columns if words > 0 && columns == 8 * words => 4,
        columns if words > 0 && columns == 4 * words => 8,
        _ => 0,
    };
    if bits == 0 || said[0] != rows || rows == 0 {
        let expected = format!("[{rows}, {}] or [{rows}, {}], as {codes} has words", 8 * words, 4 * words);
        return Err(stated.invalid(expected, format!("{said:?}")));
    }
    let group = group(&scales, &codes, [rows, columns], tensors)?;
    if let Some(groups) = tensors.find(&groups) {
        groups.check(Stored::I32, &[columns])?;
    } else if ordered && group < columns {
        tensors.expect(&groups, &codes)?;
    }
    let has_zeros = match tensors.find(&zeros) {
        None => false,
        Some(zeros) if bits == 8 => return Err(zeros.invalid("no zero points beside 8 bits", "some")),
        Some(zeros) => {
            zeros.check(Stored::I32, &[rows.div_ceil(8), columns / group])?;
            true
        }
    };
    let scaled = group_of(group, columns);
    let (format, make): (Format, Make) = match bits {
        4 => (Format::Int4 { group: scaled, zeros: has_zeros }, make_int4),
        _ => (Format::Int8 { group: scaled }, make_packed_int8),
    };
    let own = [
        (Role::Codes, ".weight_packed"),
        (Role::Scales, ".weight_scale"),
        (Role::Zeros, ".weight_zero_point"),
        (Role::Groups, ".weight_g_idx"),
        (Role::Beside, ".weight_shape"),
    ];
    tensors.join(stem, ([rows, columns], format, [1, group]), &[&own[..], &BESIDE].concat(), make);
    Ok(())
}

/// Columns that share a scale, of which rows have some each.
fn group(scales: &str, codes: &str, [rows, columns]: [usize; 2], tensors: &Tensors) -> Result<usize> {
    let scales = tensors.expect(scales, codes)?;
    match *scales.shape {
        [found, groups] if found == rows && groups > 0 && columns.is_multiple_of(groups) => {
            scales.check_floats(&[&[rows, groups]])?;
            Ok(columns / groups)
        }
        _ => {
            let expected = format!("scales of {rows} rows, as many of each as divide {columns} columns");
            Err(scales.invalid(expected, format!("shape {:?}", scales.shape)))
        }
    }
}

/// Codes of a byte in the shape of the matrix.
fn whole(stem: &str, block: Option<[usize; 2]>, tensors: &mut Tensors) -> Result<()> {
    let [codes, scales] = ["", "_scale"].map(|ending| format!("{stem}.weight{ending}"));
    let raw = tensors.expect(&codes, &codes)?;
    let &[rows, columns] = raw.shape else { return Err(raw.invalid("two dimensions", format!("{:?}", raw.shape))) };
    if rows == 0 || columns == 0 {
        return Err(raw.invalid("rows and columns", format!("shape {:?}", raw.shape)));
    }
    let is_float = tensors.is(&codes, Stored::F8E4M3);
    let found = tensors.expect(&scales, &codes)?;
    let block = match (found.shape, block) {
        ([] | [1] | [1, 1], _) if rows > 1 => [rows, columns],
        (shape, Some(block)) if *shape == repack::blocks([rows, columns], block) => block,
        ([found], _) if *found == rows => [1, columns],
        _ => [1, group(&scales, &codes, [rows, columns], tensors)?],
    };
    found.check_floats(&[found.shape])?;
    let group = group_of(repack::shared(columns, block[1]), columns);
    let format = if is_float { Format::Fp8 { group } } else { Format::Int8 { group } };
    let groups = format!("{stem}.weight_g_idx");
    if let Some(groups) = tensors.find(&groups) {
        return Err(groups.invalid("no order of columns beside 8 bits", "one"));
    }
    let own = [(Role::Codes, ".weight"), (Role::Scales, ".weight_scale"), (Role::Zeros, ".weight_zero_point")];
    let make = if is_float { fp8::make } else { make_int8 };
    tensors.join(stem, ([rows, columns], format, block), &[&own[..], &BESIDE].concat(), make);
    Ok(())
}

fn make_int4(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    let ([rows, columns], groups) = (module.shape, module.groups());
    let codes = module.raw(Role::Codes, files);
    let order = match module.find(Role::Groups, files) {
        Some(of) => repack::order(&of, module)?,
        None => None,
    };
    let bytes = order.as_deref().map(|order| {
        let words: &[[u8; 4]] = codes.bytes.as_chunks().0;
        repack::int4(module.shape, Some(order), |row, at| u32::from_le_bytes(words[row * columns / 8 + at]))
    });
    let zeros = module.find(Role::Zeros, files).map(|zeros| {
        let words: Vec<u32> = zeros.words().collect();
        let zero = |row: usize, group: usize| (words[row / 8 * groups + group] >> (4 * (row % 8)) & 15) as u8;
        (0..rows).flat_map(|row| (0..groups).map(move |group| (row, group))).map(|(r, g)| zero(r, g)).collect()
    });
    let scales = module.raw(Role::Scales, files).scales()?;
    Ok(Owned { rows, columns, codes: OwnedCodes::Int4, bytes, group: module.group(), scales, zeros, order })
}

/// Bytes hold q + 128.
fn make_packed_int8(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    let [rows, columns] = module.shape;
    let order = match module.find(Role::Groups, files) {
        Some(of) => repack::order(&of, module)?,
        None => None,
    };
    let codes: Vec<u8> = module.raw(Role::Codes, files).bytes.iter().map(|code| code ^ 0x80).collect();
    let bytes = Some(order.as_deref().map_or_else(|| codes.clone(), |order| repack::bytes_in_order(&codes, order)));
    let scales = module.raw(Role::Scales, files).scales()?;
    Ok(Owned { rows, columns, codes: OwnedCodes::Int8, bytes, group: module.group(), scales, zeros: None, order })
}

fn make_int8(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    repack::check_no_zeros(module, files)?;
    let [rows, columns] = module.shape;
    let scales = repack::spread(&module.raw(Role::Scales, files).scales()?, module);
    let (codes, group) = (OwnedCodes::Int8, module.group());
    Ok(Owned { rows, columns, codes, bytes: None, group, scales, zeros: None, order: None })
}
