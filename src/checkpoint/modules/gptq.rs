//! GPTQ in 4 bits, as AutoGPTQ and GPTQModel write it: words hold 8 rows of (columns, rows), zero points less one in
//! the first version of the format, and columns may be in groups by an order of activations.

use serde_json::Value;

use super::super::quantised::{Owned, OwnedCodes};
use super::super::{Format, ModelFile, Stored};
use super::keys::Keys;
use super::{Module, Role, Tensors, group_of, repack};
use crate::error::Result;

pub(super) fn find(keys: &Keys, tensors: &mut Tensors) -> Result<()> {
    keys.only("bits", 4)?;
    let format = keys.one_of("checkpoint_format", &["gptq", "gptq_v2"])?;
    let make = if format == Some("gptq_v2") { make_second } else { make_first };
    for stem in tensors.stems(".qweight") {
        let [codes, zeros, scales, groups] =
            ["qweight", "qzeros", "scales", "g_idx"].map(|ending| format!("{stem}.{ending}"));
        let raw = tensors.expect(&codes, &codes)?;
        let &[words, rows] = raw.shape else { return Err(raw.invalid("two dimensions", format!("{:?}", raw.shape))) };
        raw.check(Stored::I32, &[words, rows])?;
        if words == 0 || rows == 0 || !rows.is_multiple_of(8) {
            return Err(raw.invalid("rows by the eight", format!("shape {:?}", raw.shape)));
        }
        let columns = 8 * words;
        let group = repack::group_down(&tensors.expect(&scales, &codes)?, [rows, columns])?;
        tensors.expect(&zeros, &codes)?.check(Stored::I32, &[columns / group, rows / 8])?;
        if let Some(groups) = tensors.find(&groups) {
            groups.check(Stored::I32, &[columns])?;
        } else if keys.get("desc_act").and_then(Value::as_bool) == Some(true) {
            tensors.expect(&groups, &codes)?;
        }
        let format = Format::Int4 { group: group_of(group, columns), zeros: true };
        let own =
            [(Role::Codes, ".qweight"), (Role::Scales, ".scales"), (Role::Zeros, ".qzeros"), (Role::Groups, ".g_idx")];
        tensors.join(&stem, ([rows, columns], format, [1, group]), &own, make);
    }
    Ok(())
}

fn make_first(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    make(module, files, 1)
}

fn make_second(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    make(module, files, 0)
}

/// With what is to be added to zero points.
fn make(module: &Module, files: &[ModelFile], added: u8) -> Result<Owned> {
    let ([rows, columns], groups) = (module.shape, module.groups());
    let order = match module.find(Role::Groups, files) {
        Some(of) => repack::order(&of, module)?,
        None => None,
    };
    let words: &[[u8; 4]] = module.raw(Role::Codes, files).bytes.as_chunks().0;
    let word = |row: usize, at: usize| u32::from_le_bytes(words[at * rows + row]);
    let bytes = Some(repack::int4(module.shape, order.as_deref(), word));
    let zero =
        |word: u32| (0..8).map(move |at| (word >> (4 * at)) as u8).map(move |zero| zero.wrapping_add(added) & 15);
    let zeros: Vec<u8> = module.raw(Role::Zeros, files).words().flat_map(zero).collect();
    let zeros = Some(repack::by_rows(&zeros, groups));
    let scales = repack::by_rows(&module.raw(Role::Scales, files).scales()?, groups);
    Ok(Owned { rows, columns, codes: OwnedCodes::Int4, bytes, group: module.group(), scales, zeros, order })
}
