//! AWQ in 4 bits, as AutoAWQ writes it for its kernel GEMM: (columns, rows / 8), the eight rows of a word in an order
//! of their own.

use super::super::quantised::{Owned, OwnedCodes};
use super::super::{Format, ModelFile, Stored};
use super::keys::Keys;
use super::{Module, Role, Tensors, group_of, repack};
use crate::error::Result;

/// In which half byte of a word a row stands.
const PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

pub(super) fn find(keys: &Keys, tensors: &mut Tensors) -> Result<()> {
    keys.only("bits", 4)?;
    keys.only("w_bit", 4)?;
    keys.one_of("version", &["gemm"])?;
    keys.flag("zero_point", true)?;
    for stem in tensors.stems(".qweight") {
        let [codes, zeros, scales] = ["qweight", "qzeros", "scales"].map(|ending| format!("{stem}.{ending}"));
        let raw = tensors.expect(&codes, &codes)?;
        let &[columns, words] = raw.shape else {
            return Err(raw.invalid("two dimensions", format!("{:?}", raw.shape)));
        };
        raw.check(Stored::I32, &[columns, words])?;
        if words == 0 || columns == 0 || !columns.is_multiple_of(8) {
            return Err(raw.invalid("columns by the eight", format!("shape {:?}", raw.shape)));
        }
        let rows = 8 * words;
        let group = repack::group_down(&tensors.expect(&scales, &codes)?, [rows, columns])?;
        tensors.expect(&zeros, &codes)?.check(Stored::I32, &[columns / group, words])?;
        let format = Format::Int4 { group: group_of(group, columns), zeros: true };
        let own = [(Role::Codes, ".qweight"), (Role::Scales, ".scales"), (Role::Zeros, ".qzeros")];
        tensors.join(&stem, ([rows, columns], format, [1, group]), &own, make);
    }
    Ok(())
}

fn make(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    let ([rows, columns], groups) = (module.shape, module.groups());
    let words: &[[u8; 4]] = module.raw(Role::Codes, files).bytes.as_chunks().0;
    let code = |word: u32, row: usize| word >> (4 * PLACES[row % 8]) & 15;
    let word = |row: usize, at: usize| {
        let column = |index: usize| u32::from_le_bytes(words[(8 * at + index) * (rows / 8) + row / 8]);
        (0..8).map(|index| code(column(index), row) << (4 * index)).sum()
    };
    let bytes = Some(repack::int4(module.shape, None, word));
    let zeros = module.raw(Role::Zeros, files).words();
    let zeros: Vec<u8> = zeros.flat_map(|word| (0..8).map(move |row| code(word, row) as u8)).collect();
    let zeros = Some(repack::by_rows(&zeros, groups));
    let scales = repack::by_rows(&module.raw(Role::Scales, files).scales()?, groups);
    let group = module.group();
    Ok(Owned { rows, columns, codes: OwnedCodes::Int4, bytes, group, scales, zeros, order: None })
}
