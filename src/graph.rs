//! The forward pass as data: model code records operations once at load, devices run the list many times.
//!
//! Every tensor is a matrix of f32 activations; its rows are symbolic (so many for each image, token or output) and
//! bound when a batch is run. There are no general strides and no autograd: a tensor is a buffer, or a block of the
//! buffer's columns or rows. The recorder asserts shapes, so a plan that was built is consistent.

mod cost;
mod plan;

pub use cost::{Appended, Cost, Seen, Tiled, Workload};
pub use plan::{Plan, PlanKind, Plans};

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

    /// Each unit's first rows.
    pub fn first_rows(self, rows: usize) -> Tensor {
        assert!(rows <= self.rows);
        Tensor { rows, ..self }
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
    /// Rows of the query's own image, which begin with those of its tiles, `tile_rows` each. Rows of tiles that the
    /// image has see all; those behind, of tiles that it does not have and of no tile, see these alone.
    Tiles {
        /// Keys.
        key: Tensor,
        /// Values.
        value: Tensor,
        /// Rows of a tile.
        tile_rows: usize,
    },
    /// Rows of pages.
    Pages(KvLayer, Mask),
}

/// What happens to a product before it is stored: activation, then clip, then gate, then residual; or, for a token that
/// sees no image, the residual alone.
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
    /// Whether rows of tokens that see no image are the residual as it is.
    pub seeing_only: bool,
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
    /// Tiles of an image, which are its frames, as rows of it one tile after the other: of each a class row, then its
    /// patches. To each comes its row of the table (ratio, tile, row), which has the class embedding too.
    TilePositions { patches: Tensor, table: Weight, tiles: usize, out: Tensor },
    /// Zeros behind the rows of each image.
    FillRows { x: Tensor, out: Tensor },
    /// To each row of an image the row of the table (ratio, tile) for its tile. Rows are `tile_rows` of each of the
    /// tiles, then equally many more of each.
    TileEmbedding { x: Tensor, table: Weight, tiles: usize, tile_rows: usize, out: Tensor },
    /// Columns of several tensors side by side.
    Concatenate { parts: Vec<Tensor>, out: Tensor },
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
    /// Rotary embedding in place, of the first entries of each head, half split: the pair (i, i + frequencies) turns by
    /// position * frequencies[i].
    Rope { x: Tensor, head_width: usize, frequencies: Vec<f32> },
    /// Keys and values to their pages: of tokens each to its place, of images the first rows, as many as each keeps.
    Append { key: Tensor, value: Tensor, layer: KvLayer },
    /// softmax(q kᵀ scale + bias) v, head by head.
    Attention { query: Tensor, source: KvSource, heads: usize, scale: f32, out: Tensor },
}

impl Op {
    /// The tensors the operation reads.
    pub fn reads(&self) -> Vec<Tensor> {
        match self {
            Op::ClassAndPosition { patches, .. } | Op::TilePositions { patches, .. } => vec![*patches],
            Op::Concatenate { parts, .. } => parts.clone(),
            Op::Patches { .. } | Op::Broadcast { .. } => vec![],
            Op::Gather { add, .. } => add.iter().copied().collect(),
            Op::FrameEmbedding { x, .. }
            | Op::TileEmbedding { x, .. }
            | Op::FillRows { x, .. }
            | Op::Select { x, .. }
            | Op::Norm { x, .. }
            | Op::Rope { x, .. } => vec![*x],
            Op::Linear { x, epilogue, .. } => [Some(*x), epilogue.residual].into_iter().flatten().collect(),
            Op::Append { key, value, .. } => vec![*key, *value],
            Op::Attention { query, source, .. } => match source {
                KvSource::Dense(sources) => {
                    [*query].into_iter().chain(sources.iter().flat_map(|s| [s.0, s.1])).collect()
                }
                KvSource::Tiles { key, value, .. } => vec![*query, *key, *value],
                KvSource::Pages(..) => vec![*query],
            },
        }
    }

    /// The tensor the operation writes; none for what goes to pages.
    pub fn writes(&self) -> Option<Tensor> {
        match self {
            Op::Patches { out, .. }
            | Op::ClassAndPosition { out, .. }
            | Op::TilePositions { out, .. }
            | Op::FillRows { out, .. }
            | Op::TileEmbedding { out, .. }
            | Op::Concatenate { out, .. }
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

    /// See [`Op::TilePositions`].
    pub fn tile_positions(&mut self, patches: Tensor, table: Weight, tiles: usize) -> Tensor {
        let rows = tiles * (patches.rows + 1);
        assert_eq!((patches.axis, patches.width, table.rows % rows), (Axis::Frames, table.columns, 0));
        let out = self.input(Axis::Images, rows, patches.width);
        self.ops.push(Op::TilePositions { patches, table, tiles, out });
        out
    }

    /// See [`Op::FillRows`].
    pub fn fill_rows(&mut self, x: Tensor, rows: usize) -> Tensor {
        assert!(x.axis == Axis::Images && x.rows <= rows);
        let out = self.input(x.axis, rows, x.width);
        self.ops.push(Op::FillRows { x, out });
        out
    }

    /// See [`Op::TileEmbedding`].
    pub fn tile_embedding(&mut self, x: Tensor, table: Weight, tiles: usize, tile_rows: usize) -> Tensor {
        assert_eq!((x.axis, x.width, table.rows % tiles), (Axis::Images, table.columns, 0));
        assert!(x.rows >= tiles * tile_rows && (x.rows - tiles * tile_rows).is_multiple_of(tiles));
        let out = self.like(x, x.width);
        self.ops.push(Op::TileEmbedding { x, table, tiles, tile_rows, out });
        out
    }

    /// See [`Op::Concatenate`].
    pub fn concatenate(&mut self, parts: Vec<Tensor>) -> Tensor {
        let first = parts[0];
        assert!(parts.iter().all(|part| (part.axis, part.rows) == (first.axis, first.rows)));
        let out = self.like(first, parts.iter().map(|part| part.width).sum());
        self.ops.push(Op::Concatenate { parts, out });
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
        assert!(!epilogue.seeing_only || epilogue.residual.is_some() && x.axis == Axis::Tokens);
        let out = self.like(x, width);
        self.ops.push(Op::Linear { x, weight, bias, epilogue, out });
        out
    }

    /// See [`Op::Rope`].
    pub fn rope(&mut self, x: Tensor, head_width: usize, frequencies: Vec<f32>) {
        assert!(x.width.is_multiple_of(head_width) && x.axis == Axis::Tokens);
        assert!((1..=head_width / 2).contains(&frequencies.len()));
        self.ops.push(Op::Rope { x, head_width, frequencies });
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
            KvSource::Tiles { key, value, tile_rows } => {
                let shape = |tensor: &Tensor| (tensor.axis, tensor.rows, tensor.width);
                assert!([key, value].iter().all(|tensor| shape(tensor) == shape(&query)));
                assert!(query.axis == Axis::Images && *tile_rows <= query.rows);
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
