//! The forward pass as data: model code records operations once at load, devices run the list many times.
//!
//! Every tensor is a matrix of f32 activations; its rows are symbolic (so many for each image, token or output) and
//! bound when a batch is run. There are no general strides and no autograd: a tensor is a buffer, or a block of the
//! buffer's columns or rows. The recorder asserts shapes, so a plan that was built is consistent.

mod cost;

pub use cost::{Appended, Cost, Seen, Workload};

/// Pointwise nonlinearity of a multilayer perceptron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// x Φ(x), with the exact error function.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh,
    /// x σ(1.702 x), OpenAI CLIP's.
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)², the paper's own choice.
    SquaredRelu,
    /// x σ(x).
    Silu,
}

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// (x - mean) / sqrt(var + ε) w + b.
    Layer,
    /// x / sqrt(mean(x²) + ε) w.
    Rms,
}

/// A weight: which one, and its shape. A vector is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Its place in the list of all weights.
    pub id: usize,
    /// Output features of a matrix, entries of a table, 1 for a vector.
    pub rows: usize,
    /// Input features, or the length of a vector.
    pub columns: usize,
}

/// What the rows of a tensor are counted in; bound to numbers by each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Frames of all images and videos of the batch: an image is one frame.
    Frames,
    /// Images and videos of the batch.
    Images,
    /// Text tokens of the batch.
    Tokens,
    /// Tokens whose logits are wanted.
    Outputs,
}

/// How many units each axis has in one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of all images and videos.
    pub frames: usize,
    /// Images and videos.
    pub images: usize,
    /// Text tokens.
    pub tokens: usize,
    /// Tokens whose logits are wanted.
    pub outputs: usize,
}

impl Counts {
    /// Units along one axis.
    pub fn units(&self, axis: Axis) -> usize {
        match axis {
            Axis::Frames => self.frames,
            Axis::Images => self.images,
            Axis::Tokens => self.tokens,
            Axis::Outputs => self.outputs,
        }
    }
}

/// A matrix of activations: a buffer, or some of its columns, or some rows of each of its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Which buffer of the plan.
    pub buffer: usize,
    /// What its rows are counted in.
    pub axis: Axis,
    /// Rows of this view for each unit of the axis.
    pub rows: usize,
    /// First of those rows inside a unit.
    pub row_offset: usize,
    /// Rows of the buffer for each unit.
    pub row_pitch: usize,
    /// Columns of this view.
    pub width: usize,
    /// First of those columns.
    pub offset: usize,
    /// Columns of the buffer.
    pub stride: usize,
}

impl Tensor {
    /// Columns `from..from + width` of this tensor.
    pub fn columns(self, from: usize, width: usize) -> Tensor {
        assert!(from + width <= self.width);
        Tensor { offset: self.offset + from, width, ..self }
    }

    /// This tensor cut into `N` blocks of equal width.
    pub fn split<const N: usize>(self) -> [Tensor; N] {
        assert_eq!(self.width % N, 0);
        let width = self.width / N;
        std::array::from_fn(|i| self.columns(i * width, width))
    }

    /// Each unit's rows from `first` on.
    pub fn rows_from(self, first: usize) -> Tensor {
        assert!(first < self.rows);
        Tensor { rows: self.rows - first, row_offset: self.row_offset + first, ..self }
    }

    /// Each unit's first row.
    pub fn first_row(self) -> Tensor {
        Tensor { rows: 1, ..self }
    }

    /// Rows in a batch of so many units.
    pub fn row_count(&self, counts: &Counts) -> usize {
        counts.units(self.axis) * self.rows
    }

    /// Where row `index` of this view starts in the buffer, counted in f32.
    pub fn start(&self, index: usize) -> usize {
        let row = index / self.rows * self.row_pitch + self.row_offset + index % self.rows;
        row * self.stride + self.offset
    }

    /// Whether the view is its whole buffer.
    pub fn is_whole(&self) -> bool {
        self.width == self.stride && self.rows == self.row_pitch
    }
}

/// What a gather reads its row numbers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// The token's id.
    TokenId,
    /// The token's position in its sequence, plus an offset.
    Position {
        /// Rows of the table before position 0.
        offset: usize,
    },
}

/// Which page pool: each layer of each has keys and values of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvSpace {
    /// The sequence's own tokens; a layer is a decoder layer.
    Text,
    /// The images; a layer is a gated block.
    Media,
}

/// One layer of a page pool. A row of keys, or of values, is all heads side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayer {
    /// Which pool.
    pub space: KvSpace,
    /// Which of its layers.
    pub layer: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of one.
    pub head_width: usize,
}

impl KvLayer {
    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_width
    }
}

/// What a row of queries may see of the keys in pages.
#[derive(Debug, Clone, PartialEq)]
pub enum Mask {
    /// Its sequence up to and with itself, in text pages.
    Causal {
        /// ALiBi: bias per token of distance, for each head of queries.
        slopes: Option<Vec<f32>>,
    },
    /// The images that its token sees, in media pages; none of them gives exact zeros.
    Media,
}

/// What queries attend to. Heads of queries share a head of keys and values in equal groups of neighbours: head `h` has
/// that of number `h / (heads / kv_heads)`.
#[derive(Debug, Clone, PartialEq)]
pub enum KvSource {
    /// All rows of the query's own image, from several (key, value) sources in order. No mask. The first source may
    /// be in frames where queries are in images: then it is the rows of all frames of the image, in order.
    Dense(Vec<(Tensor, Tensor)>),
    /// Rows of pages.
    Pages(KvLayer, Mask),
}

/// What happens to a product before it is stored: activation, then clip, then gate, then residual.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Epilogue {
    /// Nonlinearity.
    pub activation: Option<Activation>,
    /// The weight has twice as many rows: what the first half gives, activated, is multiplied by what the second half
    /// gives (a gated linear unit).
    pub paired: bool,
    /// Bound on the absolute value.
    pub clip: Option<f32>,
    /// Factor tanh(gate): a scalar, or one for each column.
    pub gate: Option<Weight>,
    /// Added last.
    pub residual: Option<Tensor>,
}

impl Epilogue {
    /// Rows of a weight whose product is stored in `width` columns.
    pub fn weight_rows(&self, width: usize) -> usize {
        if self.paired { 2 * width } else { width }
    }
}

/// One step of a plan. `out` is written whole; all other tensors are read.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "an operation's line names its operands")]
pub enum Op {
    /// The batch's 8-bit pixels (side, side, 3) of each frame to rows (channel, y, x) of each patch, the grid row by
    /// row. A level of a channel becomes what the table (3, 256) of levels has for it.
    Patches { levels: Vec<f32>, out: Tensor, side: usize, patch: usize },
    /// The class row before the patches of each frame, and the position embedding added to all.
    ClassAndPosition { patches: Tensor, class: Weight, position: Weight, out: Tensor },
    /// The same learned rows for each image.
    Broadcast { rows: Weight, out: Tensor },
    /// To all rows of a frame the embedding of its place in its video (paper 2.1): row i of the table for frame i, or,
    /// of a video with more frames than the table has rows, the table stretched linearly over all of them.
    FrameEmbedding { x: Tensor, table: Weight, out: Tensor },
    /// Rows of a table, picked by token; `add` is added.
    Gather { table: Weight, index: Index, add: Option<Tensor>, out: Tensor },
    /// The rows of tokens whose logits are wanted.
    Select { x: Tensor, out: Tensor },
    /// Normalisation over each `group` of consecutive columns.
    Norm { x: Tensor, kind: Norm, weight: Weight, bias: Option<Weight>, epsilon: f32, group: usize, out: Tensor },
    /// x Wᵀ + b, then the epilogue.
    Linear { x: Tensor, weight: Weight, bias: Option<Weight>, epilogue: Epilogue, out: Tensor },
    /// Rotary embedding in place, of the first `width` entries of each head.
    Rope { x: Tensor, head_width: usize, width: usize, theta: f32 },
    /// Keys and values to their pages: of tokens each to its place, of images the first rows, as many as each keeps.
    Append { key: Tensor, value: Tensor, layer: KvLayer },
    /// softmax(q kᵀ scale + bias) v, head by head.
    Attention { query: Tensor, source: KvSource, heads: usize, scale: f32, out: Tensor },
}

impl Op {
    /// The tensors the operation reads.
    pub fn reads(&self) -> Vec<Tensor> {
        match self {
            Op::ClassAndPosition { patches, .. } => vec![*patches],
            Op::Patches { .. } | Op::Broadcast { .. } => vec![],
            Op::Gather { add, .. } => add.iter().copied().collect(),
            Op::FrameEmbedding { x, .. } | Op::Select { x, .. } | Op::Norm { x, .. } | Op::Rope { x, .. } => vec![*x],
            Op::Linear { x, epilogue, .. } => [Some(*x), epilogue.residual].into_iter().flatten().collect(),
            Op::Append { key, value, .. } => vec![*key, *value],
            Op::Attention { query, source, .. } => match source {
                KvSource::Dense(sources) => {
                    [*query].into_iter().chain(sources.iter().flat_map(|s| [s.0, s.1])).collect()
                }
                KvSource::Pages(..) => vec![*query],
            },
        }
    }

    /// The tensor the operation writes; none for what goes to pages.
    pub fn writes(&self) -> Option<Tensor> {
        match self {
            Op::Patches { out, .. }
            | Op::ClassAndPosition { out, .. }
            | Op::Broadcast { out, .. }
            | Op::FrameEmbedding { out, .. }
            | Op::Gather { out, .. }
            | Op::Select { out, .. }
            | Op::Norm { out, .. }
            | Op::Linear { out, .. }
            | Op::Attention { out, .. } => Some(*out),
            Op::Rope { x, .. } => Some(*x),
            Op::Append { .. } => None,
        }
    }
}

/// One buffer of a plan while it is recorded, and where it lives once planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// What its rows are counted in.
    pub axis: Axis,
    /// f32 values for each unit of the axis.
    pub size: usize,
}

/// Records operations; each method asserts shapes and returns the tensor it defines.
#[derive(Debug, Default)]
pub struct Graph {
    buffers: Vec<Buffer>,
    ops: Vec<Op>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    /// A tensor that the batch fills in.
    pub fn input(&mut self, axis: Axis, rows: usize, width: usize) -> Tensor {
        let buffer = self.buffers.len();
        self.buffers.push(Buffer { axis, size: rows * width });
        Tensor { buffer, axis, rows, row_offset: 0, row_pitch: rows, width, offset: 0, stride: width }
    }

    /// A new tensor with the rows of `like`.
    fn like(&mut self, like: Tensor, width: usize) -> Tensor {
        self.input(like.axis, like.rows, width)
    }

    /// See [`Op::Patches`].
    pub fn patches(&mut self, levels: Vec<f32>, side: usize, patch: usize) -> Tensor {
        assert_eq!(levels.len(), 3 * 256);
        let grid = side / patch;
        let out = self.input(Axis::Frames, grid * grid, 3 * patch * patch);
        self.ops.push(Op::Patches { levels, out, side, patch });
        out
    }

    /// See [`Op::ClassAndPosition`].
    pub fn class_and_position(&mut self, patches: Tensor, class: Weight, position: Weight) -> Tensor {
        assert_eq!((class.rows, class.columns), (1, patches.width));
        assert_eq!((position.rows, position.columns), (patches.rows + 1, patches.width));
        let out = self.input(patches.axis, patches.rows + 1, patches.width);
        self.ops.push(Op::ClassAndPosition { patches, class, position, out });
        out
    }

    /// See [`Op::Broadcast`].
    pub fn broadcast(&mut self, rows: Weight) -> Tensor {
        let out = self.input(Axis::Images, rows.rows, rows.columns);
        self.ops.push(Op::Broadcast { rows, out });
        out
    }

    /// See [`Op::FrameEmbedding`].
    pub fn frame_embedding(&mut self, x: Tensor, table: Weight) -> Tensor {
        assert_eq!((x.axis, x.width), (Axis::Frames, table.columns));
        let out = self.like(x, x.width);
        self.ops.push(Op::FrameEmbedding { x, table, out });
        out
    }

    /// See [`Op::Gather`].
    pub fn gather(&mut self, table: Weight, index: Index, add: Option<Tensor>) -> Tensor {
        assert!(add.is_none_or(|add| (add.axis, add.rows, add.width) == (Axis::Tokens, 1, table.columns)));
        let out = self.input(Axis::Tokens, 1, table.columns);
        self.ops.push(Op::Gather { table, index, add, out });
        out
    }

    /// See [`Op::Select`].
    pub fn select(&mut self, x: Tensor) -> Tensor {
        assert_eq!((x.axis, x.rows), (Axis::Tokens, 1));
        let out = self.input(Axis::Outputs, 1, x.width);
        self.ops.push(Op::Select { x, out });
        out
    }

    /// See [`Op::Norm`], over whole rows.
    pub fn norm(&mut self, x: Tensor, kind: Norm, weight: Weight, bias: Option<Weight>, epsilon: f32) -> Tensor {
        assert_vectors(x.width, [Some(weight), bias]);
        let out = self.like(x, x.width);
        self.ops.push(Op::Norm { x, kind, weight, bias, epsilon, group: x.width, out });
        out
    }

    /// See [`Op::Norm`], in place, over groups of as many columns as the weight has (the heads of queries or keys, or
    /// all of them).
    pub fn norm_groups(&mut self, x: Tensor, kind: Norm, weight: Weight, bias: Option<Weight>, epsilon: f32) {
        let group = weight.columns;
        assert_eq!(x.width % group, 0);
        assert_vectors(group, [Some(weight), bias]);
        self.ops.push(Op::Norm { x, kind, weight, bias, epsilon, group, out: x });
    }

    /// See [`Op::Linear`]. The result is as wide as the weight has rows, or half as wide where it is paired.
    pub fn linear(&mut self, x: Tensor, weight: Weight, bias: Option<Weight>, epilogue: Epilogue) -> Tensor {
        let width = if epilogue.paired { weight.rows / 2 } else { weight.rows };
        assert_eq!((weight.rows, weight.columns), (epilogue.weight_rows(width), x.width));
        assert_vectors(weight.rows, [bias]);
        let gates = epilogue.gate.filter(|gate| gate.columns > 1);
        assert_vectors(width, [gates]);
        if let Some(residual) = epilogue.residual {
            assert_eq!((residual.axis, residual.rows, residual.width), (x.axis, x.rows, width));
        }
        let out = self.like(x, width);
        self.ops.push(Op::Linear { x, weight, bias, epilogue, out });
        out
    }

    /// See [`Op::Rope`].
    pub fn rope(&mut self, x: Tensor, head_width: usize, width: usize, theta: f32) {
        assert!(x.width.is_multiple_of(head_width) && width <= head_width && x.axis == Axis::Tokens);
        self.ops.push(Op::Rope { x, head_width, width, theta });
    }

    /// See [`Op::Append`].
    pub fn append(&mut self, key: Tensor, value: Tensor, layer: KvLayer) {
        assert_eq!((key.axis, key.rows, key.width), (value.axis, value.rows, value.width));
        assert_eq!(key.width, layer.width(), "keys are as wide as the rows of their pages");
        match layer.space {
            KvSpace::Text => assert_eq!((key.axis, key.rows), (Axis::Tokens, 1)),
            KvSpace::Media => assert!(matches!(key.axis, Axis::Frames | Axis::Images)),
        }
        self.ops.push(Op::Append { key, value, layer });
    }

    /// See [`Op::Attention`].
    pub fn attention(&mut self, query: Tensor, source: KvSource, heads: usize, scale: f32) -> Tensor {
        assert!(query.width.is_multiple_of(heads), "{heads} heads of queries fill {} columns", query.width);
        match &source {
            KvSource::Dense(sources) => {
                let fits = |(place, (key, value)): (usize, &(Tensor, Tensor))| {
                    let whole = key.rows == key.row_pitch && value.rows == value.row_pitch;
                    let of_frames = place == 0 && key.axis == Axis::Frames && query.axis == Axis::Images && whole;
                    let same = key.axis == value.axis && key.width == query.width && value.width == query.width;
                    same && (key.axis == query.axis || of_frames)
                };
                assert!(sources.iter().enumerate().all(fits));
            }
            KvSource::Pages(layer, mask) => {
                assert_eq!((query.axis, query.rows), (Axis::Tokens, 1));
                assert_eq!(query.width, heads * layer.head_width, "queries are as wide as their heads");
                assert!(heads.is_multiple_of(layer.kv_heads), "{heads} heads share {} in groups", layer.kv_heads);
                match (layer.space, mask) {
                    (KvSpace::Text, Mask::Causal { slopes }) => {
                        assert!(slopes.as_ref().is_none_or(|slopes| slopes.len() == heads));
                    }
                    (KvSpace::Media, Mask::Media) => {}
                    _ => panic!("{mask:?} is no mask of {:?} pages", layer.space),
                }
            }
        }
        let out = self.like(query, query.width);
        self.ops.push(Op::Attention { query, source, heads, scale, out });
        out
    }

    /// Closes the graph: `inputs` are what the batch fills in, `output` is what it fetches.
    pub fn plan(self, inputs: &[Tensor], output: Option<Tensor>) -> Plan {
        Plan::new(self, inputs, output)
    }
}

/// Asserts that weights are vectors of this length.
fn assert_vectors(length: usize, weights: impl IntoIterator<Item = Option<Weight>>) {
    for Weight { rows, columns, .. } in weights.into_iter().flatten() {
        assert_eq!((rows, columns), (1, length), "rows and columns of a vector");
    }
}

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
}

impl Plans {
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
    fn new(graph: Graph, inputs: &[Tensor], output: Option<Tensor>) -> Plan {
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
            | Op::Select { x, out }
            | Op::FrameEmbedding { x, out, .. }
            | Op::Norm { x, out, .. } => vec![x, out],
            Op::Patches { out, .. } | Op::Broadcast { out, .. } => vec![out],
            Op::Gather { add, out, .. } => add.iter_mut().chain([out]).collect(),
            Op::Linear { x, epilogue, out, .. } => epilogue.residual.iter_mut().chain([x, out]).collect(),
            Op::Rope { x, .. } => vec![x],
            Op::Append { key, value, .. } => vec![key, value],
            Op::Attention { query, source, out, .. } => {
                let mut tensors = vec![query, out];
                if let KvSource::Dense(sources) = source {
                    tensors.extend(sources.iter_mut().flat_map(|(key, value)| [key, value]));
                }
                tensors
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_never_live_together_share_a_slot() {
        let mut graph = Graph::new();
        let [up, down] = [(0, 32, 8), (1, 8, 32)].map(|(id, rows, columns)| Weight { id, rows, columns });
        let plain = Epilogue::default();
        let x = graph.input(Axis::Tokens, 1, 8);
        let hidden = graph.linear(x, up, None, plain);
        let sum = graph.linear(hidden, down, None, Epilogue { residual: Some(x), ..plain });
        let hidden = graph.linear(sum, up, None, plain);
        let sum = graph.linear(hidden, down, None, Epilogue { residual: Some(sum), ..plain });
        let plan = graph.plan(&[x], Some(sum));
        // The stream is summed in place in the input's slot; both hidden layers share another.
        assert_eq!(plan.slots.iter().map(|slot| slot.size).collect::<Vec<_>>(), [8, 32]);
        assert_eq!(plan.output.unwrap().buffer, plan.inputs[0].buffer);
    }

    #[test]
    fn a_buffer_in_use_is_not_given_away() {
        let mut graph = Graph::new();
        let weight = Weight { id: 0, rows: 8, columns: 8 };
        let x = graph.input(Axis::Tokens, 1, 8);
        let a = graph.linear(x, weight, None, Epilogue::default());
        let b = graph.linear(x, weight, None, Epilogue { residual: Some(a), ..Epilogue::default() });
        let c = graph.linear(b, weight, None, Epilogue { residual: Some(a), ..Epilogue::default() });
        let plan = graph.plan(&[x], Some(c));
        let Op::Linear { out: b, .. } = plan.ops[1] else { unreachable!() };
        let Op::Linear { epilogue: Epilogue { residual: Some(a), .. }, .. } = plan.ops[2] else { unreachable!() };
        assert_ne!(a.buffer, b.buffer);
    }

    fn layer(space: KvSpace) -> KvLayer {
        KvLayer { space, layer: 0, kv_heads: 2, head_width: 16 }
    }

    fn attends(heads: usize, layer: KvLayer, mask: Mask) {
        let mut graph = Graph::new();
        let query = graph.input(Axis::Tokens, 1, 96);
        graph.attention(query, KvSource::Pages(layer, mask), heads, 1.0);
    }

    #[test]
    fn queries_in_groups_fit_their_pages() {
        attends(6, layer(KvSpace::Text), Mask::Causal { slopes: Some(vec![0.5; 6]) });
        attends(6, layer(KvSpace::Media), Mask::Media);
    }

    #[test]
    #[should_panic(expected = "6 heads share 4 in groups")]
    fn groups_of_queries_are_whole() {
        attends(6, KvLayer { kv_heads: 4, ..layer(KvSpace::Media) }, Mask::Media);
    }

    #[test]
    #[should_panic(expected = "queries are as wide as their heads")]
    fn queries_are_as_wide_as_keys() {
        attends(3, layer(KvSpace::Media), Mask::Media);
    }

    #[test]
    #[should_panic(expected = "keys are as wide as the rows of their pages")]
    fn what_goes_to_pages_fits_them() {
        let mut graph = Graph::new();
        let rows = graph.input(Axis::Tokens, 1, 96);
        graph.append(rows, rows, layer(KvSpace::Text));
    }

    #[test]
    fn views_find_their_rows() {
        let mut graph = Graph::new();
        let x = graph.input(Axis::Images, 5, 6);
        let view = x.rows_from(1).columns(2, 3);
        assert_eq!((view.start(0), view.start(3), view.start(4)), (8, 26, 38));
    }
}
