//! A case many times over in one plan, for benches: what one operation reads, no cache still holds from the last.

use flamant::probe::{Epilogue, KvLayer, KvSource, KvSpace, Op, Tensor, Weight};

use super::Case;

impl Case {
    /// The operations of the text plan so many times in a row, each time with weights, rows and pages of their own.
    /// The output is that of the first time.
    pub fn copies(&self, times: usize) -> Case {
        let mut case = self.clone();
        for copy in 1..times {
            case.weights.extend_from_slice(&self.weights);
            case.text.slots.extend_from_slice(&self.text.slots);
            let moved = Moved {
                weights: copy * self.weights.len(),
                slots: copy * self.text.slots.len(),
                text: copy * self.kv_config.text.layers,
                media: copy * self.kv_config.media.layers,
            };
            case.text.inputs.extend(self.text.inputs.iter().map(|input| moved.tensor(*input)));
            case.text.ops.extend(self.text.ops.iter().map(|op| moved.op(op)));
            // The pages of all copies are filled from the same rows.
            let filled = Moved { weights: 0, slots: 0, ..moved };
            case.media.ops.extend(self.media.ops.iter().map(|op| filled.op(op)));
        }
        case.kv_config.text.layers *= times;
        case.kv_config.media.layers *= times;
        case
    }
}

/// How far on everything is that a copy uses.
struct Moved {
    weights: usize,
    slots: usize,
    text: usize,
    media: usize,
}

impl Moved {
    fn tensor(&self, tensor: Tensor) -> Tensor {
        Tensor { buffer: tensor.buffer + self.slots, ..tensor }
    }

    fn weight(&self, weight: Weight) -> Weight {
        Weight { id: weight.id + self.weights, ..weight }
    }

    fn layer(&self, layer: &mut KvLayer) {
        layer.layer += match layer.space {
            KvSpace::Text => self.text,
            KvSpace::Media => self.media,
        };
    }

    fn op(&self, op: &Op) -> Op {
        let tensor = |tensor: &mut Tensor| *tensor = self.tensor(*tensor);
        let weight = |weight: &mut Weight| *weight = self.weight(*weight);
        let mut op = op.clone();
        match &mut op {
            Op::Patches { out, .. } => tensor(out),
            Op::Select { x, out } | Op::FillRows { x, out } => [x, out].into_iter().for_each(tensor),
            Op::Concatenate { parts, out } => parts.iter_mut().chain([out]).for_each(tensor),
            Op::TilePositions { patches: x, table, out, .. } | Op::TileEmbedding { x, table, out, .. } => {
                [x, out].into_iter().for_each(tensor);
                weight(table);
            }
            Op::ClassAndPosition { patches, class, position, out } => {
                [patches, out].into_iter().for_each(tensor);
                [class, position].into_iter().for_each(weight);
            }
            Op::Broadcast { rows, out } => {
                tensor(out);
                weight(rows);
            }
            Op::FrameEmbedding { x, table, out } => {
                [x, out].into_iter().for_each(tensor);
                weight(table);
            }
            Op::Gather { table, add, out, .. } => {
                add.iter_mut().chain([out]).for_each(tensor);
                weight(table);
            }
            Op::Norm { x, weight: factors, bias, out, .. } => {
                [x, out].into_iter().for_each(tensor);
                bias.iter_mut().chain([factors]).for_each(weight);
            }
            Op::Linear { x, weight: matrix, bias, epilogue: Epilogue { gate, residual, .. }, out } => {
                residual.iter_mut().chain([x, out]).for_each(tensor);
                bias.iter_mut().chain(gate).chain([matrix]).for_each(weight);
            }
            Op::Rope { x, .. } => tensor(x),
            Op::Append { key, value, layer } => {
                [key, value].into_iter().for_each(tensor);
                self.layer(layer);
            }
            Op::Attention { query, source, out, .. } => {
                [query, out].into_iter().for_each(tensor);
                match source {
                    KvSource::Dense(sources) => {
                        sources.iter_mut().flat_map(|(key, value)| [key, value]).for_each(tensor);
                    }
                    KvSource::Tiles { key, value, .. } => [key, value].into_iter().for_each(tensor),
                    KvSource::Pages(layer, _) => self.layer(layer),
                }
            }
        }
        op
    }
}
