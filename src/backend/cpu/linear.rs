//! Linear layers: a product, and what follows it on each row of a panel's columns.

use std::ops::Range;

use super::machine::Kind;
use super::pointwise::{self, add};
use super::product::Product;
use super::{Memory, Scratch, row};
use crate::backend::Batch;
use crate::error::Result;
use crate::graph::{Epilogue, Tensor, Weight};

impl Memory {
    #[expect(clippy::too_many_arguments, reason = "an operation's operands, taken apart once")]
    pub(super) fn linear(
        &self,
        x: &[&[f32]],
        weight: Weight,
        bias: Option<Weight>,
        epilogue: &Epilogue,
        batch: &Batch,
        written: &Tensor,
        out: &mut [f32],
        slots: &[Vec<f32>],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let width = written.width;
        let bias = bias.map(|bias| self.vector(bias));
        let gate = epilogue.gate.map(|gate| self.vector(gate));
        let finish_row =
            |index: usize, columns: Range<usize>, values: &mut [f32], factors: &mut [f32], out: &mut [f32]| {
                if let Some(bias) = bias {
                    add(values, &bias[columns.clone()]);
                }
                if let (Some(bias), true) = (bias, epilogue.paired) {
                    add(factors, &bias[width + columns.start..width + columns.end]);
                }
                pointwise::finish(values, epilogue.paired.then_some(&*factors), gate, &columns, epilogue);
                if epilogue.seeing_only && batch.media[index].images == 0 {
                    // The residual as it is: -0 plus 0 would be another number.
                    values.fill(-0.0);
                }
                match &epilogue.residual {
                    Some(residual) if residual.buffer != written.buffer => {
                        out.copy_from_slice(&row(slots, residual, index)[columns]);
                        add(out, values);
                    }
                    Some(_) => add(out, values),
                    None => out.copy_from_slice(values),
                }
            };
        let matrix = self.matrix(weight)?;
        let (paired, finish, strips) = (epilogue.paired, &finish_row, &mut scratch.strips);
        let pairs = if self.rounded.contains(&weight.id) { matrix.pairs() } else { None };
        match pairs {
            Some(weight) => Product { weight: &weight, width, paired, finish }.run_pairs(Kind::best(), x, strips, out),
            None => Product { weight: &matrix, width, paired, finish }.run(Kind::best(), x, strips, out),
        }
        Ok(())
    }
}
