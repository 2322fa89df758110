//! Floats of 8 bits with a scale for each block of 128 x 128, as transformers' `fp8` has them.

use super::super::quantised::{Owned, OwnedCodes};
use super::super::{Format, ModelFile, Stored};
use super::keys::Keys;
use super::{Module, Role, Tensors, group_of, repack};
use crate::error::Result;

/// Rows and columns of a block, where nothing is said.
const BLOCK: [usize; 2] = [128, 128];

pub(super) fn find(keys: &Keys, tensors: &mut Tensors) -> Result<()> {
    keys.one_of("activation_scheme", &["dynamic"])?;
    keys.one_of("fmt", &["e4m3"])?;
    let block = keys.block("weight_block_size")?.unwrap_or(BLOCK);
    for stem in tensors.stems(".weight") {
        let codes = format!("{stem}.weight");
        if !tensors.is(&codes, Stored::F8E4M3) {
            continue;
        }
        let raw = tensors.expect(&codes, &codes)?;
        let &[rows, columns] = raw.shape else { return Err(raw.invalid("two dimensions", format!("{:?}", raw.shape))) };
        if rows == 0 || columns == 0 {
            return Err(raw.invalid("rows and columns", format!("shape {:?}", raw.shape)));
        }
        let scales = format!("{stem}.weight_scale_inv");
        tensors.expect(&scales, &codes)?.check_floats(&[&repack::blocks([rows, columns], block)])?;
        let format = Format::Fp8 { group: group_of(repack::shared(columns, block[1]), columns) };
        let own = [(Role::Codes, ".weight"), (Role::Scales, ".weight_scale_inv")];
        tensors.join(&stem, ([rows, columns], format, block), &own, make);
    }
    Ok(())
}

pub(super) fn make(module: &Module, files: &[ModelFile]) -> Result<Owned> {
    repack::check_no_zeros(module, files)?;
    repack::check_fp8(&module.raw(Role::Codes, files))?;
    let [rows, columns] = module.shape;
    let scales = repack::spread(&module.raw(Role::Scales, files).scales()?, module);
    let (codes, group) = (OwnedCodes::Fp8, module.group());
    Ok(Owned { rows, columns, codes, bytes: None, group, scales, zeros: None, order: None })
}
