//! Plans: recorded graphs whose buffers have found their places in memory.

use super::{Buffer, Epilogue, Graph, KvSource, Op, Tensor};

/// A recorded graph whose buffers have found their places: buffers that are never alive together share a slot.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The operations, in order; their tensors' `buffer` is a slot.
    pub ops: Vec<Op>,
    /// Size of each slot.
    pub slots: Vec<Buffer>,
    /// What the batch fills in, slots resolved.
    pub inputs: Vec<Tensor>,
    /// What the batch fetches.
    pub output: Option<Tensor>,
}

/// Which of a model's plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// Images to media pages.
    Media,
    /// Images to features that tell how alike they are.
    Features,
    /// Tokens to logits.
    Text,
}

/// The plans of a model.
#[derive(Debug)]
pub struct Plans {
    /// Pixels of frames to media pages.
    pub media: Plan,
    /// Pixels of frames to features (frames, width); none where the checkpoint has no norm for them.
    pub features: Option<Plan>,
    /// Tokens to logits (outputs, vocabulary).
    pub text: Plan,
    /// Rooms for tiles that the media plan has for each image, whose frames these are; none: frames are no tiles.
    pub tiles: Option<usize>,
}

impl Plans {
    /// Frames that the media plan takes of each image at least.
    pub fn frames_each(&self) -> usize {
        self.tiles.unwrap_or(1)
    }

    /// One of them.
    pub fn get(&self, kind: PlanKind) -> &Plan {
        match kind {
            PlanKind::Media => &self.media,
            PlanKind::Features => self.features.as_ref().expect("features are asked for where there are some"),
            PlanKind::Text => &self.text,
        }
    }

    /// All there are.
    pub fn all(&self) -> impl Iterator<Item = (PlanKind, &Plan)> {
        let features = self.features.iter().map(|plan| (PlanKind::Features, plan));
        [(PlanKind::Media, &self.media), (PlanKind::Text, &self.text)].into_iter().chain(features)
    }
}

impl Plan {
    pub(super) fn new(graph: Graph, inputs: &[Tensor], output: Option<Tensor>) -> Plan {
        let Graph { buffers, mut ops } = graph;
        let mut last_use = vec![0; buffers.len()];
        for (at, op) in ops.iter().enumerate() {
            for tensor in op.reads().into_iter().chain(op.writes()) {
                last_use[tensor.buffer] = at;
            }
        }
        if let Some(output) = output {
            last_use[output.buffer] = ops.len();
        }
        let mut slots: Vec<Buffer> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut slot_of: Vec<Option<usize>> = vec![None; buffers.len()];
        let mut place = |buffer: usize, slot_of: &mut Vec<Option<usize>>, free: &mut Vec<usize>| {
            let wanted = buffers[buffer];
            let fit = free.iter().copied().filter(|&slot| slots[slot].axis == wanted.axis);
            // The closest in size: a larger one wastes least, a smaller one grows least.
            let slot = fit.min_by_key(|&slot| slots[slot].size.abs_diff(wanted.size)).unwrap_or_else(|| {
                slots.push(wanted);
                slots.len() - 1
            });
            slots[slot].size = slots[slot].size.max(wanted.size);
            free.retain(|&other| other != slot);
            slot_of[buffer] = Some(slot);
        };
        for input in inputs {
            place(input.buffer, &mut slot_of, &mut free);
        }
        for (at, op) in ops.iter().enumerate() {
            if let Some(out) = op.writes().filter(|out| slot_of[out.buffer].is_none()) {
                match op {
                    // A sum that is the last reader of its residual is added in place.
                    Op::Linear { x, epilogue: Epilogue { residual: Some(residual), .. }, .. }
                        if last_use[residual.buffer] == at && residual.is_whole() && residual.buffer != x.buffer =>
                    {
                        slot_of[out.buffer] = slot_of[residual.buffer];
                        last_use[residual.buffer] = usize::MAX;
                    }
                    _ => place(out.buffer, &mut slot_of, &mut free),
                }
            }
            for (buffer, slot) in slot_of.iter().enumerate() {
                if let Some(slot) = *slot
                    && last_use[buffer] == at
                {
                    free.push(slot);
                    last_use[buffer] = usize::MAX;
                }
            }
        }
        let resolve = |tensor: &mut Tensor| {
            tensor.buffer = slot_of[tensor.buffer].expect("every tensor is written before it is read");
        };
        for op in &mut ops {
            op.tensors_mut().into_iter().for_each(resolve);
        }
        let resolved = |mut tensor: Tensor| {
            resolve(&mut tensor);
            tensor
        };
        let inputs = inputs.iter().copied().map(resolved).collect();
        Plan { ops, slots, inputs, output: output.map(resolved) }
    }
}

impl Op {
    fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Op::ClassAndPosition { patches: x, out, .. }
            | Op::TilePositions { patches: x, out, .. }
            | Op::TileEmbedding { x, out, .. }
            | Op::FillRows { x, out }
            | Op::Select { x, out }
            | Op::FrameEmbedding { x, out, .. }
            | Op::Norm { x, out, .. } => vec![x, out],
            Op::Patches { out, .. } | Op::Broadcast { out, .. } => vec![out],
            Op::Concatenate { parts, out } => parts.iter_mut().chain([out]).collect(),
            Op::Gather { add, out, .. } => add.iter_mut().chain([out]).collect(),
            Op::Linear { x, epilogue, out, .. } => epilogue.residual.iter_mut().chain([x, out]).collect(),
            Op::Rope { x, .. } => vec![x],
            Op::Append { key, value, .. } => vec![key, value],
            Op::Attention { query, source, out, .. } => {
                let mut tensors = vec![query, out];
                match source {
                    KvSource::Dense(sources) => {
                        tensors.extend(sources.iter_mut().flat_map(|(key, value)| [key, value]));
                    }
                    KvSource::Tiles { key, value, .. } => tensors.extend([key, value]),
                    KvSource::Pages(..) => {}
                }
                tensors
            }
        }
    }
}
