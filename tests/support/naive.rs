//! What every operation means, as plainly as it can be written: one loop nest an operation, every number and every sum
//! in f64, pages as a map, nothing done twice as fast for being done cleverly. It shares no code with any device, so
//! that what all devices have in common is held by something that does not have it.

use std::collections::BTreeMap;

use flamant::config::{Activation, Norm};
use flamant::probe::{
    Axis, Batch, Epilogue, ImagePages, Index, KvDtype, KvLayer, KvSource, KvSpace, MEDIA_PAGE_ROWS, Mask, Op,
    PAGE_TOKENS, PageCopy, Plan, Tensor, Weight as Handle,
};

/// A weight: rows one after the other.
pub struct Weight {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

/// A key, and a value.
type Pair = (Vec<f64>, Vec<f64>);

/// Weights and pages.
pub struct Naive {
    weights: Vec<Weight>,
    stored: Stored,
}

/// What is in pages.
#[derive(Default)]
struct Stored {
    /// By layer, page and row.
    text: BTreeMap<(usize, u32, usize), Pair>,
    /// By block, page and row.
    media: BTreeMap<(usize, u32, usize), Pair>,
    /// Whether numbers are those that 8 bits hold.
    int8: bool,
}

/// A run under way.
struct Running<'a> {
    weights: &'a [Weight],
    batch: &'a Batch<'a>,
    /// The slots of the plan; what no operation has written is NaN.
    slots: Vec<Vec<f64>>,
}

impl Naive {
    pub fn new(weights: Vec<Weight>, kv_dtype: KvDtype) -> Naive {
        assert!(weights.iter().all(|weight| weight.values.len() == weight.rows * weight.columns));
        Naive { weights, stored: Stored { int8: kv_dtype == KvDtype::Int8, ..Stored::default() } }
    }

    pub fn copy_text_page(&mut self, copy: PageCopy) {
        let text = &mut self.stored.text;
        text.retain(|(_, page, _), _| *page != copy.to);
        for ((layer, page, row), pair) in text.clone() {
            if page == copy.from {
                text.insert((layer, copy.to, row), pair);
            }
        }
    }

    /// Runs a plan; the rows of its output.
    pub fn run(&mut self, plan: &Plan, batch: &Batch) -> Vec<f32> {
        let sizes = plan.slots.iter().map(|slot| slot.size * units(batch, slot.axis));
        let slots = sizes.map(|size| vec![f64::NAN; size]).collect();
        let mut running = Running { weights: &self.weights, batch, slots };
        for (input, values) in plan.inputs.iter().zip(batch.inputs) {
            let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            running.write(input, &values.chunks(input.width).map(<[f64]>::to_vec).collect::<Vec<_>>());
        }
        for op in &plan.ops {
            if let Op::Append { key, value, layer } = op {
                self.stored.append(&running, key, value, layer);
            } else {
                let written = op.writes().expect("all but an append write a tensor");
                let rows = (0..running.count(&written)).map(|index| match op {
                    Op::Attention { query, source, heads, scale, .. } => {
                        let seen = self.stored.seen(&running, query, source, index);
                        attend(&running.row(query, index), &seen, *heads, f64::from(*scale), slopes(source))
                    }
                    _ => running.computed(op, index),
                });
                let rows: Vec<Vec<f64>> = rows.collect();
                running.write(&written, &rows);
            }
        }
        let output = plan.output.into_iter().flat_map(|out| (0..running.count(&out)).map(move |index| (out, index)));
        output.flat_map(|(out, index)| running.row(&out, index)).map(|value| value as f32).collect()
    }
}

impl Stored {
    /// Keys and values to their pages.
    fn append(&mut self, running: &Running, key: &Tensor, value: &Tensor, layer: &KvLayer) {
        let batch = running.batch;
        for index in 0..running.count(key) {
            let stored = |tensor| match running.row(tensor, index) {
                row if self.int8 => row.chunks(layer.head_width).flat_map(in_8_bits).collect(),
                row => row,
            };
            let pair = (stored(key), stored(value));
            match layer.space {
                KvSpace::Text => {
                    let (page, row) = place_of(batch, index, batch.positions[index] as usize);
                    self.text.insert((layer.layer, page, row), pair);
                }
                KvSpace::Media => {
                    let (unit, row) = (index / key.rows, index % key.rows);
                    let (image, unit) = if key.axis == Axis::Frames { running.image_of(unit) } else { (unit, 0) };
                    let (image, row) = (batch.images[image], unit * key.rows + row);
                    if row < image.rows as usize {
                        let (page, row) = place_in(&image, row);
                        self.media.insert((layer.layer, page, row), pair);
                    }
                }
            }
        }
    }

    /// The keys and values that a row of queries sees, in order.
    fn seen(&self, running: &Running, query: &Tensor, source: &KvSource, index: usize) -> Vec<Pair> {
        let batch = running.batch;
        match source {
            KvSource::Dense(sources) => running.pairs_of_image(query, sources, index),
            KvSource::Tiles { key, value, tile_rows } => {
                let all = running.pairs_of_image(query, &[(*key, *value)], index);
                let present = batch.tilings[index / query.rows].tiles as usize * tile_rows;
                if index % query.rows < present { all } else { all[..present].to_vec() }
            }
            KvSource::Pages(layer, Mask::Causal { .. }) => {
                let places = (0..=batch.positions[index] as usize).map(|position| place_of(batch, index, position));
                places.map(|(page, row)| self.text[&(layer.layer, page, row)].clone()).collect()
            }
            KvSource::Pages(layer, Mask::Media) => {
                let mut seen = Vec::new();
                for image in 0..batch.media[index].images {
                    let image = batch.seen_images[(batch.media[index].first + image) as usize];
                    let places = (0..image.rows as usize).map(|row| place_in(&image, row));
                    seen.extend(places.map(|(page, row)| self.media[&(layer.layer, page, row)].clone()));
                }
                seen
            }
        }
    }
}

/// The slope of each head; none without ALiBi.
fn slopes(source: &KvSource) -> &[f32] {
    match source {
        KvSource::Pages(_, Mask::Causal { slopes: Some(slopes) }) => slopes,
        _ => &[],
    }
}

/// How many units an axis has.
fn units(batch: &Batch, axis: Axis) -> usize {
    match axis {
        Axis::Frames => (0..batch.images.len()).map(|image| frames(batch, image)).sum(),
        Axis::Images => batch.images.len(),
        Axis::Tokens => batch.ids.len(),
        Axis::Outputs => batch.outputs.len(),
    }
}

/// How many frames an image or video has.
fn frames(batch: &Batch, image: usize) -> usize {
    if batch.frames.is_empty() { 1 } else { batch.frames[image] as usize }
}

/// The page and row of a position in the sequence that a token belongs to.
fn place_of(batch: &Batch, token: usize, position: usize) -> (u32, usize) {
    (batch.tables[batch.sequences[token] as usize][position / PAGE_TOKENS], position % PAGE_TOKENS)
}

/// The page and row of a row of an image.
fn place_in(image: &ImagePages, row: usize) -> (u32, usize) {
    (image.pages[row / MEDIA_PAGE_ROWS], row % MEDIA_PAGE_ROWS)
}

impl Running<'_> {
    fn weight(&self, handle: Handle, row: usize, column: usize) -> f64 {
        let weight = &self.weights[handle.id];
        assert!(row < weight.rows && column < weight.columns);
        weight.values[row * weight.columns + column]
    }

    /// Rows of a tensor.
    fn count(&self, tensor: &Tensor) -> usize {
        units(self.batch, tensor.axis) * tensor.rows
    }

    /// Where a number of a tensor's row is in its slot.
    fn at(tensor: &Tensor, index: usize, column: usize) -> usize {
        assert!(column < tensor.width);
        let (unit, row) = (index / tensor.rows, index % tensor.rows);
        (unit * tensor.row_pitch + tensor.row_offset + row) * tensor.stride + tensor.offset + column
    }

    fn value(&self, tensor: &Tensor, index: usize, column: usize) -> f64 {
        self.slots[tensor.buffer][Self::at(tensor, index, column)]
    }

    fn row(&self, tensor: &Tensor, index: usize) -> Vec<f64> {
        (0..tensor.width).map(|column| self.value(tensor, index, column)).collect()
    }

    fn write(&mut self, tensor: &Tensor, rows: &[Vec<f64>]) {
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), tensor.width);
            for (column, &value) in row.iter().enumerate() {
                self.slots[tensor.buffer][Self::at(tensor, index, column)] = value;
            }
        }
    }

    /// The image of a frame, and which of its frames that is.
    fn image_of(&self, frame: usize) -> (usize, usize) {
        let images = 0..self.batch.images.len();
        let mut each = images.flat_map(|image| (0..frames(self.batch, image)).map(move |at| (image, at)));
        each.nth(frame).expect("a frame belongs to an image")
    }

    /// The keys and values that a row of an image, or of a frame, sees: of each source in turn the rows of the same
    /// unit, or, for an image that looks at frames, of all frames of it.
    fn pairs_of_image(&self, query: &Tensor, sources: &[(Tensor, Tensor)], index: usize) -> Vec<Pair> {
        let own = index / query.rows;
        let mut pairs = Vec::new();
        for (key, value) in sources {
            for unit in 0..units(self.batch, key.axis) {
                let of = if key.axis == query.axis { unit } else { self.image_of(unit).0 };
                if of == own {
                    let rows = (0..key.rows).map(|row| unit * key.rows + row);
                    pairs.extend(rows.map(|row| (self.row(key, row), self.row(value, row))));
                }
            }
        }
        pairs
    }

    /// One row of what an operation on rows writes.
    fn computed(&self, op: &Op, index: usize) -> Vec<f64> {
        match op {
            Op::Patches { levels, side, patch, .. } => self.patch(levels, *side, *patch, index),
            Op::ClassAndPosition { patches, class, position, out } => {
                let (frame, row) = (index / out.rows, index % out.rows);
                let each = (0..out.width).map(|column| {
                    let first = match row {
                        0 => self.weight(*class, 0, column),
                        _ => self.value(patches, frame * patches.rows + row - 1, column),
                    };
                    first + self.weight(*position, row, column)
                });
                each.collect()
            }
            Op::Broadcast { rows, out } => {
                (0..out.width).map(|column| self.weight(*rows, index % out.rows, column)).collect()
            }
            Op::FrameEmbedding { x, table, .. } => self.placed(x, *table, index),
            Op::Gather { table, index: which, add, out } => {
                let entry = match which {
                    Index::TokenId => self.batch.ids[index] as usize,
                    Index::Position { offset } => self.batch.positions[index] as usize + offset,
                };
                let each = (0..out.width).map(|column| {
                    self.weight(*table, entry, column) + add.map_or(0.0, |add| self.value(&add, index, column))
                });
                each.collect()
            }
            Op::TilePositions { patches, table, tiles, out } => (0..out.width)
                .map(|column| self.positioned(patches, *table, [*tiles, out.rows], index, column))
                .collect(),
            Op::TileEmbedding { x, table, tiles, tile_rows, .. } => {
                let entry = self.embedding_of(x, *tiles, *tile_rows, index);
                (0..x.width).map(|column| self.value(x, index, column) + self.weight(*table, entry, column)).collect()
            }
            Op::FillRows { x, out } => match index % out.rows {
                place if place < x.rows => self.row(x, index / out.rows * x.rows + place),
                _ => vec![0.0; out.width],
            },
            Op::Concatenate { parts, .. } => parts.iter().flat_map(|part| self.row(part, index)).collect(),
            Op::Select { x, .. } => self.row(x, self.batch.outputs[index] as usize),
            Op::Norm { x, kind, weight, bias, epsilon, group, .. } => {
                let row = self.row(x, index);
                let groups = row.chunks(*group);
                groups.flat_map(|group| self.normed(group, *kind, *weight, *bias, f64::from(*epsilon))).collect()
            }
            Op::Linear { x, weight, bias, epilogue, out } => {
                let product = self.product(x, *weight, *bias, index);
                let each = (0..out.width).map(|column| {
                    let factor = if epilogue.paired { product[out.width + column] } else { 1.0 };
                    self.finished(product[column], factor, epilogue, index, column)
                });
                each.collect()
            }
            Op::Rope { x, head_width, frequencies } => {
                let (row, position) = (self.row(x, index), f64::from(self.batch.positions[index]));
                row.chunks(*head_width).flat_map(|head| turned(head, frequencies, position)).collect()
            }
            Op::Append { .. } | Op::Attention { .. } => unreachable!("these see pages"),
        }
    }

    /// A row of a frame with the embedding of its place in the video.
    fn placed(&self, x: &Tensor, table: Handle, index: usize) -> Vec<f64> {
        let (image, number) = self.image_of(index / x.rows);
        let (count, rows) = (frames(self.batch, image), table.rows);
        // As the table has it, or stretched so that the first and last frame have its first and last row.
        let place = if count <= rows { number as f64 } else { (number * (rows - 1)) as f64 / (count - 1) as f64 };
        let (before, share) = (place.floor() as usize, place.fract());
        let after = (before + 1).min(rows - 1);
        let each = (0..x.width).map(|column| {
            let (before, after) = (self.weight(table, before, column), self.weight(table, after, column));
            self.value(x, index, column) + before * (1.0 - share) + after * share
        });
        each.collect()
    }

    /// One number of a class row or patch of a tile, with its embedding; `rows` of an image.
    fn positioned(
        &self,
        patches: &Tensor,
        table: Handle,
        [tiles, rows]: [usize; 2],
        index: usize,
        column: usize,
    ) -> f64 {
        let (image, place) = (index / rows, index % rows);
        let (tile, row) = (place / (patches.rows + 1), place % (patches.rows + 1));
        let embedding = self.weight(table, self.batch.tilings[image].ratio as usize * rows + place, column);
        let patch = |row| self.value(patches, (image * tiles + tile) * patches.rows + row, column);
        row.checked_sub(1).map_or(0.0, patch) + embedding
    }

    /// The row of the table (ratio, tile) for a row of an image.
    fn embedding_of(&self, x: &Tensor, tiles: usize, tile_rows: usize, index: usize) -> usize {
        let (image, place) = (index / x.rows, index % x.rows);
        // Which tile each row of an image belongs to: their own rows first, then as many of each that fill up.
        let own = (0..tiles).flat_map(|tile| std::iter::repeat_n(tile, tile_rows));
        let fillers = (0..tiles).flat_map(|tile| std::iter::repeat_n(tile, x.rows / tiles - tile_rows));
        let tile = own.chain(fillers).nth(place).expect("each row belongs to a tile");
        self.batch.tilings[image].ratio as usize * tiles + tile
    }

    /// Row (channel, y, x) of a patch; the patches of a frame are counted row by row, and its pixels, of three channels
    /// each, too.
    fn patch(&self, levels: &[f32], side: usize, patch: usize, index: usize) -> Vec<f64> {
        let grid = side / patch;
        let (frame, place) = (index / (grid * grid), index % (grid * grid));
        let mut row = Vec::new();
        if self.batch.pixels[frame].is_empty() {
            return vec![0.0; 3 * patch * patch];
        }
        for channel in 0..3 {
            for y in 0..patch {
                for x in 0..patch {
                    let (y, x) = (place / grid * patch + y, place % grid * patch + x);
                    let level = self.batch.pixels[frame][3 * (side * y + x) + channel];
                    row.push(f64::from(levels[256 * channel + usize::from(level)]));
                }
            }
        }
        row
    }

    fn normed(&self, x: &[f64], kind: Norm, weight: Handle, bias: Option<Handle>, epsilon: f64) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = match kind {
            Norm::Layer => x.iter().sum::<f64>() / count,
            Norm::Rms => 0.0,
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let each = x.iter().enumerate().map(|(column, x)| {
            let bias = bias.map_or(0.0, |bias| self.weight(bias, 0, column));
            (x - mean) / (variance + epsilon).sqrt() * self.weight(weight, 0, column) + bias
        });
        each.collect()
    }

    /// x Wᵀ + b of one row.
    fn product(&self, x: &Tensor, weight: Handle, bias: Option<Handle>, index: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for row in 0..weight.rows {
            let mut sum = bias.map_or(0.0, |bias| self.weight(bias, 0, row));
            for column in 0..x.width {
                sum += self.value(x, index, column) * self.weight(weight, row, column);
            }
            out.push(sum);
        }
        out
    }

    /// What an epilogue makes of one number of a product.
    fn finished(&self, value: f64, factor: f64, epilogue: &Epilogue, index: usize, column: usize) -> f64 {
        let residual = epilogue.residual.map_or(0.0, |residual| self.value(&residual, index, column));
        if epilogue.seeing_only && self.batch.media[index].images == 0 {
            return residual;
        }
        let mut value = epilogue.activation.map_or(value, |activation| activated(value, activation)) * factor;
        if let Some(clip) = epilogue.clip {
            value = value.clamp(-f64::from(clip), f64::from(clip));
        }
        if let Some(gate) = epilogue.gate {
            let of = if gate.columns == 1 { 0 } else { column };
            value *= self.weight(gate, 0, of).tanh();
        }
        value + residual
    }
}

/// A head of a row as codes of up to 127 times a scale of 8 significant bits.
fn in_8_bits(head: &[f64]) -> Vec<f64> {
    let largest = head.iter().fold(0f64, |most, x| most.max(x.abs()));
    let (scale, unit) = (largest / 127.0, (largest / 127.0).log2().floor() - 7.0);
    let scale = (scale / unit.exp2()).round_ties_even() * unit.exp2();
    head.iter().map(|x| if largest > 0.0 { (x / scale).round_ties_even() * scale } else { 0.0 }).collect()
}

/// Rotary embedding of a head: entry i turned with entry i + half, for each of so many frequencies.
fn turned(head: &[f64], frequencies: &[f32], position: f64) -> Vec<f64> {
    let (mut out, half) = (head.to_vec(), frequencies.len());
    for (i, &frequency) in frequencies.iter().enumerate() {
        let angle = position * f64::from(frequency);
        let (x, y) = (head[i], head[i + half]);
        out[i] = x * angle.cos() - y * angle.sin();
        out[i + half] = y * angle.cos() + x * angle.sin();
    }
    out
}

/// softmax(q kᵀ scale - slope distance) v, head by head; zeros for no keys. The last key is at distance 0. Where
/// there are fewer heads of keys than of queries, neighbours share one.
fn attend(query: &[f64], seen: &[Pair], heads: usize, scale: f64, slopes: &[f32]) -> Vec<f64> {
    let width = query.len() / heads;
    let mut out = vec![0.0; query.len()];
    for head in 0..heads {
        let kv_heads = seen.first().map_or(heads, |(key, _)| key.len() / width);
        let shared = head * kv_heads / heads;
        let slope = slopes.get(head).map_or(0.0, |&slope| f64::from(slope));
        let mut scores = Vec::new();
        for (at, (key, _)) in seen.iter().enumerate() {
            let dot: f64 = (0..width).map(|i| query[head * width + i] * key[shared * width + i]).sum();
            scores.push(dot * scale - slope * (seen.len() - 1 - at) as f64);
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        for (score, (_, value)) in scores.iter().zip(seen) {
            for i in 0..width {
                out[head * width + i] += (score - largest).exp() / total * value[shared * width + i];
            }
        }
    }
    out
}

fn activated(x: f64, activation: Activation) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::SquaredRelu => x.max(0.0).powi(2),
        Activation::Silu => x * sigmoid(x),
    }
}

/// 2/√π e^(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!, whose terms all have one sign (Abramowitz and Stegun 7.1.6).
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, 0.0);
    for n in 1..200 {
        sum += term;
        term *= 2.0 * x * x / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a table (Abramowitz and Stegun 7.1).
    #[test]
    fn the_error_function_is_the_tables() {
        for (x, want) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
            assert!((erf(x) - want).abs() < 1e-10 && (erf(-x) + want).abs() < 1e-10, "{x}");
        }
        assert!((erf(5.9) - 1.0).abs() < 1e-14 && erf(7.0) == 1.0);
    }
}
