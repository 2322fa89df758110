//! What goes before and between the layers of vision towers: patches, positions, and rows of frames and tiles.

use super::pointwise::{add, patch_row};
use super::{Memory, for_rows, row};
use crate::backend::{Batch, Tiling};
use crate::error::Result;
use crate::graph::{Op, Tensor, Weight};

impl Memory {
    /// Runs one of these operations.
    pub(super) fn run_on_frames(
        &self,
        op: &Op,
        batch: &Batch,
        written: &Tensor,
        slots: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        match op {
            Op::Patches { levels, side, patch, .. } => {
                for_rows(out, written.width, |index, out| {
                    let (frame, place) = (index / written.rows, index % written.rows);
                    patch_row(batch.pixels[frame], levels, *side, *patch, place, out);
                });
                Ok(())
            }
            Op::ClassAndPosition { patches, class, position, .. } => {
                self.class_and_position(patches, *class, *position, slots, out)
            }
            Op::FrameEmbedding { x, table, .. } => self.frame_embedding(x, *table, batch, slots, out),
            Op::TilePositions { patches, table, .. } => {
                self.tile_positions(patches, *table, written, batch.tilings, slots, out)
            }
            Op::TileEmbedding { x, table, tiles, tile_rows, .. } => {
                self.tile_embedding(x, *table, [*tiles, *tile_rows], batch.tilings, slots, out)
            }
            Op::FillRows { x, .. } => {
                for_rows(out, written.width, |index, out| match index % written.rows {
                    place if place < x.rows => {
                        out.copy_from_slice(row(slots, x, index / written.rows * x.rows + place));
                    }
                    _ => out.fill(0.0),
                });
                Ok(())
            }
            Op::Concatenate { parts, .. } => {
                for_rows(out, written.width, |index, mut out| {
                    for part in parts {
                        let (columns, rest) = out.split_at_mut(part.width);
                        columns.copy_from_slice(row(slots, part, index));
                        out = rest;
                    }
                });
                Ok(())
            }
            _ => unreachable!("{op:?}: none of frames"),
        }
    }

    fn class_and_position(
        &self,
        patches: &Tensor,
        class: Weight,
        position: Weight,
        slots: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let (class, position) = (self.vector(class), self.matrix(position)?);
        let tokens = patches.rows + 1;
        let mut scratch = Vec::new();
        for (index, out) in out.chunks_exact_mut(patches.width).enumerate() {
            let (frame, token) = (index / tokens, index % tokens);
            match token.checked_sub(1) {
                None => out.copy_from_slice(class),
                Some(patch) => out.copy_from_slice(row(slots, patches, frame * patches.rows + patch)),
            }
            add(out, position.row(token, &mut scratch));
        }
        Ok(())
    }

    fn frame_embedding(
        &self,
        x: &Tensor,
        table: Weight,
        batch: &Batch,
        slots: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let (rows, table) = (table.rows, self.matrix(table)?);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let frames = out.chunks_exact_mut(x.rows * x.width).zip(batch.frame_places());
        for (index, (out, place)) in frames.enumerate() {
            let (first, share) = place.stretched(rows);
            let before = table.row(first, &mut before);
            let after = table.row((first + 1).min(rows - 1), &mut after);
            let embedding: Vec<f32> =
                before.iter().zip(after).map(|(before, after)| (after - before).mul_add(share, *before)).collect();
            for (token, out) in out.chunks_exact_mut(x.width).enumerate() {
                out.copy_from_slice(row(slots, x, index * x.rows + token));
                add(out, &embedding);
            }
        }
        Ok(())
    }

    fn tile_positions(
        &self,
        patches: &Tensor,
        table: Weight,
        written: &Tensor,
        tilings: &[Tiling],
        slots: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let table = self.matrix(table)?;
        let tokens = patches.rows + 1;
        let mut scratch = Vec::new();
        for (index, out) in out.chunks_exact_mut(patches.width).enumerate() {
            let (image, place) = (index / written.rows, index % written.rows);
            let position = table.row(tilings[image].ratio as usize * written.rows + place, &mut scratch);
            match (place % tokens).checked_sub(1) {
                None => out.copy_from_slice(position),
                Some(patch) => {
                    out.copy_from_slice(row(slots, patches, index / tokens * patches.rows + patch));
                    add(out, position);
                }
            }
        }
        Ok(())
    }

    fn tile_embedding(
        &self,
        x: &Tensor,
        table: Weight,
        [tiles, tile_rows]: [usize; 2],
        tilings: &[Tiling],
        slots: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let table = self.matrix(table)?;
        let (tokens, fillers) = (tiles * tile_rows, x.rows / tiles - tile_rows);
        let mut scratch = Vec::new();
        for (index, out) in out.chunks_exact_mut(x.width).enumerate() {
            let (image, place) = (index / x.rows, index % x.rows);
            let tile = if place < tokens { place / tile_rows } else { (place - tokens) / fillers };
            out.copy_from_slice(row(slots, x, index));
            add(out, table.row(tilings[image].ratio as usize * tiles + tile, &mut scratch));
        }
        Ok(())
    }
}
