//! What operations and plans cost at least, whoever runs them: floating-point operations of matrix products, and bytes
//! that must come from memory or go there if each is moved once.

use super::{Axis, Counts, KvLayer, KvSource, KvSpace, Mask, Op, Plan, Tensor};

/// Bytes of a stored number.
const STORED: usize = 2;
/// Bytes of an f32, as vectors of weights and logits are, and of a number in a list of the batch.
const WORD: usize = 4;

/// What a batch has of all that costs depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workload {
    /// Units of the axes.
    pub counts: Counts,
    /// Frames of the longest video, 1 for images: so many rows of a table of places are read.
    pub frames_longest: usize,
    /// What causal attention sees.
    pub text: Seen,
    /// What attention to images sees.
    pub media: Seen,
    /// Rows of keys that the encoded images keep, and the pages that these fill.
    pub appended: Appended,
    /// Tiles that the encoded images have.
    pub tiled: Tiled,
}

/// Tiles that images have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tiled {
    /// Of all images together.
    pub tiles: usize,
    /// The sum of the squares of how many each image has.
    pub squares: usize,
}

impl Tiled {
    /// Of images that have so many each.
    pub fn of(each: impl IntoIterator<Item = usize>) -> Tiled {
        each.into_iter().fold(Tiled::default(), |sum, tiles| Tiled {
            tiles: sum.tiles + tiles,
            squares: sum.squares + tiles * tiles,
        })
    }
}

/// What attention sees of the keys in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Keys, those that several queries see counted once.
    pub keys: usize,
    /// Pairs of a query and a key that it sees.
    pub pairs: usize,
}

/// What goes to media pages, for each layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Appended {
    /// Rows of keys.
    pub rows: usize,
    /// Pages.
    pub pages: usize,
}

/// What something costs at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes from memory and to it.
    pub bytes: u64,
    /// Multiply-adds of matrix products, each counted as two; the rest of a plan is small beside them.
    pub flops: u64,
}

impl Op {
    /// Its matrix products, and its bytes besides activations: weights, pixels, keys and values in pages, and lists.
    /// What of activations must be moved depends on the operations around it ([`Plan::bytes`]). A gate counts as one
    /// number.
    pub fn cost(&self, workload: &Workload) -> Cost {
        let size = |tensor: &Tensor| tensor.row_count(&workload.counts) * tensor.width;
        let rows = |tensor: &Tensor| tensor.row_count(&workload.counts);
        let (bytes, flops) = match self {
            Op::Patches { levels, side, .. } => (3 * side * side * workload.counts.frames + WORD * levels.len(), 0),
            Op::Rope { frequencies, .. } => (WORD * frequencies.len(), 0),
            Op::FillRows { .. } | Op::Concatenate { .. } => (0, 0),
            // Of each image its tiles' rows of the table, and which ones these are.
            Op::TilePositions { out, .. } => ((STORED * out.rows * out.width + 2 * WORD) * workload.counts.images, 0),
            Op::TileEmbedding { x, tiles, .. } => ((STORED * tiles * x.width + 2 * WORD) * workload.counts.images, 0),
            Op::ClassAndPosition { out, .. } => (STORED * out.rows * out.width + WORD * out.width, 0),
            Op::Broadcast { out, .. } => (STORED * out.rows * out.width, 0),
            Op::FrameEmbedding { x, .. } => (STORED * workload.frames_longest * x.width, 0),
            Op::Gather { out, .. } => (STORED * size(out) + WORD * rows(out), 0),
            Op::Select { out, .. } => (WORD * rows(out), 0),
            Op::Norm { bias, group, .. } => (WORD * group * (1 + usize::from(bias.is_some())), 0),
            Op::Linear { x, bias, epilogue, out, .. } => {
                let weight_rows = epilogue.weight_rows(out.width);
                let vectors = bias.map_or(0, |_| weight_rows) + usize::from(epilogue.gate.is_some());
                (STORED * x.width * weight_rows + WORD * vectors, 2 * x.width * weight_rows * rows(out))
            }
            // Of a token its position and page, of an image its pages.
            Op::Append { key, layer, .. } => match layer.space {
                KvSpace::Text => (2 * STORED * size(key) + 2 * WORD * rows(key), 0),
                KvSpace::Media => (2 * STORED * workload.appended.rows * key.width + WORD * workload.appended.pages, 0),
            },
            Op::Attention { query, source, .. } => match source {
                // Each row of a unit sees each row of the same; of frames, those of its own image's.
                KvSource::Dense(sources) => {
                    let keys: usize = sources.iter().map(|(key, _)| rows(key)).sum();
                    (0, 4 * query.width * query.rows * keys)
                }
                // Rows of an image's tiles see all, the others see these.
                KvSource::Tiles { tile_rows, .. } => {
                    let Tiled { tiles, squares } = workload.tiled;
                    (0, 4 * query.width * (2 * query.rows * tile_rows * tiles - tile_rows * tile_rows * squares))
                }
                KvSource::Pages(layer, Mask::Causal { .. }) => seen(query, layer, &workload.text),
                KvSource::Pages(layer, Mask::Media) => seen(query, layer, &workload.media),
            },
        };
        Cost { bytes: bytes as u64, flops: flops as u64 }
    }
}

/// Bytes of keys and values, each read once for all heads that share it, and operations, of attention to pages.
fn seen(query: &Tensor, layer: &KvLayer, Seen { keys, pairs }: &Seen) -> (usize, usize) {
    (2 * STORED * layer.width() * keys, 4 * query.width * pairs)
}

/// What has become of a number of a slot.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nothing has written it: it comes from outside.
    Outside,
    /// It came from outside or from an operation, and has been read.
    Read,
    /// An operation has written it, and none has read it: so many bytes.
    Left(usize),
}

impl Plan {
    /// Floating-point operations ([`Cost::flops`]).
    pub fn flops(&self, workload: &Workload) -> u64 {
        self.ops.iter().map(|op| op.cost(workload).flops).sum()
    }

    /// Bytes that a run must move: those of [`Op::cost`], what operations read of the inputs, and what they write that
    /// none of them reads. What goes from one to the next costs nothing: they might be fused.
    pub fn bytes(&self, workload: &Workload) -> u64 {
        let mut bytes = 0;
        let mut states: Vec<Vec<State>> = self.slots.iter().map(|slot| vec![State::Outside; slot.size]).collect();
        for op in &self.ops {
            for read in op.reads() {
                // Of tokens whose logits are wanted.
                let axis = if matches!(op, Op::Select { .. }) { Axis::Outputs } else { read.axis };
                for at in numbers(&read) {
                    let state = std::mem::replace(&mut states[read.buffer][at], State::Read);
                    bytes += if state == State::Outside { STORED * workload.counts.units(axis) } else { 0 };
                }
            }
            let Some(out) = op.writes() else { continue };
            // The rows that a model ends with are f32.
            let is_logits = matches!(op, Op::Linear { .. }) && self.output == Some(out);
            let number = if is_logits { WORD } else { STORED };
            for at in numbers(&out) {
                let left = State::Left(number * workload.counts.units(out.axis));
                if let State::Left(before) = std::mem::replace(&mut states[out.buffer][at], left) {
                    bytes += before;
                }
            }
        }
        let left = states.iter().flatten().map(|state| if let State::Left(left) = state { *left } else { 0 });
        let operands: u64 = self.ops.iter().map(|op| op.cost(workload).bytes).sum();
        operands + (bytes + left.sum::<usize>()) as u64
    }
}

/// Where the numbers of a tensor's first unit are in its slot.
fn numbers(tensor: &Tensor) -> impl Iterator<Item = usize> {
    (0..tensor.rows).flat_map(move |row| tensor.start(row)..tensor.start(row) + tensor.width)
}

#[cfg(test)]
mod tests {
    use super::super::{Epilogue, Graph, Weight};
    use super::*;

    const TOKENS: usize = 3;

    fn workload() -> Workload {
        let counts = Counts { tokens: TOKENS, outputs: 1, ..Counts::default() };
        Workload { counts, text: Seen { keys: 10, pairs: 27 }, ..Workload::default() }
    }

    #[test]
    fn tiles_that_are_absent_are_not_multiplied_with_each_other() {
        let mut graph = Graph::new();
        let qkv = graph.input(Axis::Images, 4 * (5 + 3), 3 * 16);
        let [query, key, value] = qkv.split();
        let attended = graph.attention(query, KvSource::Tiles { key, value, tile_rows: 5 }, 1, 1.0);
        let plan = graph.plan(&[qkv], Some(attended));
        let counts = Counts { frames: 8, images: 2, ..Counts::default() };
        let workload = Workload { counts, tiled: Tiled::of([1, 4]), ..Workload::default() };
        let pairs = (5 * 32 + 27 * 5) + (20 * 32 + 12 * 20);
        assert_eq!(plan.flops(&workload), 4 * 16 * pairs);
    }

    #[test]
    fn what_goes_from_one_operation_to_the_next_is_not_moved() {
        let mut graph = Graph::new();
        let shapes = [(32, 8), (8, 32), (100, 8), (1, 100)];
        let weight = |id: usize| Weight { id, rows: shapes[id].0, columns: shapes[id].1 };
        let x = graph.input(Axis::Tokens, 1, 8);
        let hidden = graph.linear(x, weight(0), None, Epilogue::default());
        let sum = graph.linear(hidden, weight(1), None, Epilogue { residual: Some(x), ..Epilogue::default() });
        let last = graph.select(sum);
        let logits = graph.linear(last, weight(2), Some(weight(3)), Epilogue::default());
        let plan = graph.plan(&[x], Some(logits));
        // x once, the matrices, the bias, which row is wanted, the logits.
        let bytes = 2 * (TOKENS * 8 + 8 * 32 + 32 * 8 + 8 * 100) + 4 * (100 + 1 + 100);
        assert_eq!(plan.bytes(&workload()), bytes as u64);
        assert_eq!(plan.flops(&workload()), (2 * (TOKENS * 2 * 8 * 32 + 8 * 100)) as u64);
    }

    #[test]
    fn of_queries_keys_and_values_each_is_moved_as_often_as_it_must() {
        let mut graph = Graph::new();
        let all = graph.input(Axis::Tokens, 1, 3 * 16);
        let [_, key, value] = all.split();
        graph.rope(key, 16, vec![1.0; 8]);
        let layer = KvLayer { space: KvSpace::Text, layer: 0, kv_heads: 1, head_width: 16 };
        graph.append(key, value, layer);
        let stored = graph.plan(&[all], None);
        // Keys and values from rows and to pages, which turned keys go to from there; of each token position and page;
        // the frequencies.
        assert_eq!(stored.bytes(&workload()), (TOKENS * (2 * 4 * 16 + 2 * 4) + 4 * 8) as u64);

        let mut graph = Graph::new();
        let query = graph.input(Axis::Tokens, 1, 3 * 16);
        graph.attention(query, KvSource::Pages(layer, Mask::Causal { slopes: None }), 3, 1.0);
        let attended = graph.plan(&[query], None);
        // Queries and results of three heads, keys and values of one.
        assert_eq!(attended.bytes(&workload()), (2 * 16 * (2 * 3 * TOKENS + 2 * 10)) as u64);
        assert_eq!(attended.flops(&workload()), 4 * 3 * 16 * 27);
    }
}
