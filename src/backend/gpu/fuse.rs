//! Which operations of a plan one kernel does together. Nothing is computed here: neighbours are recognised by the
//! tensors that join them, and what is in between never reaches memory.

use std::collections::BTreeSet;

use crate::graph::{Epilogue, KvLayer, KvSource, Mask, Norm, Op, Plan, Tensor, Weight};

/// A norm of each head's columns, inside an attention kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    pub kind: Norm,
    pub weight: Weight,
    pub bias: Option<Weight>,
    pub epsilon: f32,
}

/// The rotary embedding of a token's queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    pub query: Tensor,
    pub head_width: usize,
    pub frequencies: Vec<f32>,
}

/// Attention with the norms of its queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    pub query: Tensor,
    pub source: KvSource,
    pub heads: usize,
    pub scale: f32,
    pub query_norm: Option<HeadNorm>,
    pub key_norm: Option<HeadNorm>,
    pub out: Tensor,
}

impl Attention {
    pub fn head_width(&self) -> usize {
        self.query.width / self.heads
    }
}

/// The attention half of a gated block: out = x + tanh(gate) W_out attention(W_query norm(x)).
#[derive(Debug, Clone, PartialEq)]
pub struct Gated {
    pub x: Tensor,
    pub norm: HeadNorm,
    pub query_weight: Weight,
    pub layer: KvLayer,
    pub attention: Attention,
    pub out_weight: Weight,
    pub gate: Weight,
    pub seeing_only: bool,
    pub out: Tensor,
}

/// What one launch does, or a choice between launches.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An operation by itself.
    Single(Op),
    /// Keys and values to their pages, rotated on the way.
    Append { key: Tensor, value: Tensor, layer: KvLayer, rotary: Option<Rotary> },
    /// Attention with its norms.
    Attention(Attention),
    /// A gated block's attention half: in one launch for few tokens, else part by part.
    Gated { whole: Box<Gated>, parts: Vec<Step> },
}

/// What is left of a plan's operations where no token sees an image: without layers that leave such tokens as they are,
/// and without what only these read.
pub fn without_images(plan: &Plan) -> Vec<Op> {
    // Slots that are read later on: by what is kept, and by nothing but what is left out.
    let mut used: BTreeSet<usize> = plan.output.iter().map(|out| out.buffer).collect();
    let mut unused = BTreeSet::new();
    let mut kept = Vec::new();
    for op in plan.ops.iter().rev() {
        let mut reads = op.reads();
        let mut is_left_out = false;
        match op {
            Op::Linear { x, epilogue, out, .. } if epilogue.seeing_only && epilogue.residual == Some(*out) => {
                (reads, is_left_out) = (vec![*x], true);
            }
            _ => {
                if let Some(out) = op.writes() {
                    is_left_out = unused.contains(&out.buffer);
                    if out.is_whole() {
                        used.remove(&out.buffer);
                        unused.remove(&out.buffer);
                    }
                }
            }
        }
        for slot in reads.iter().map(|read| read.buffer) {
            if is_left_out && !used.contains(&slot) {
                unused.insert(slot);
            } else if !is_left_out {
                unused.remove(&slot);
                used.insert(slot);
            }
        }
        if !is_left_out {
            kept.push(op.clone());
        }
    }
    kept.reverse();
    kept
}

/// The steps of a plan.
pub fn steps(mut ops: &[Op]) -> Vec<Step> {
    let mut steps = Vec::new();
    while !ops.is_empty() {
        let (step, taken) = gated(ops).or_else(|| attention(ops)).or_else(|| append(ops)).unwrap_or_else(|| {
            assert!(!matches!(ops[0], Op::Rope { .. }), "keys are rotated on their way to their pages");
            (Step::Single(ops[0].clone()), 1)
        });
        steps.push(step);
        ops = &ops[taken..];
    }
    steps
}

/// [rotary embedding of queries, of keys,] keys and values to pages.
fn append(ops: &[Op]) -> Option<(Step, usize)> {
    match ops {
        [Op::Append { key, value, layer }, ..] => {
            Some((Step::Append { key: *key, value: *value, layer: *layer, rotary: None }, 1))
        }
        [
            Op::Rope { x: query, head_width, frequencies },
            Op::Rope { x: rotated, .. },
            Op::Append { key, value, layer },
            ..,
        ] if rotated == key => {
            let rotary = Rotary { query: *query, head_width: *head_width, frequencies: frequencies.clone() };
            Some((Step::Append { key: *key, value: *value, layer: *layer, rotary: Some(rotary) }, 3))
        }
        _ => None,
    }
}

/// [norms of the heads of queries, of keys,] attention.
fn attention(ops: &[Op]) -> Option<(Step, usize)> {
    let norms = ops.iter().take_while(|op| matches!(op, Op::Norm { x, out, .. } if x == out)).count();
    let Op::Attention { query, source, heads, scale, out } = ops.get(norms)? else { return None };
    let head_width = query.width / heads;
    let mut fused = Attention {
        query: *query,
        source: source.clone(),
        heads: *heads,
        scale: *scale,
        query_norm: None,
        key_norm: None,
        out: *out,
    };
    for op in &ops[..norms] {
        let Op::Norm { x, kind, weight, bias, epsilon, group, .. } = op else { return None };
        let norm = Some(HeadNorm { kind: *kind, weight: *weight, bias: *bias, epsilon: *epsilon });
        let of_keys = matches!(source, KvSource::Dense(sources) if sources.iter().any(|(key, _)| key == x));
        match (*group == head_width, x == query, of_keys, source) {
            // Queries of causal attention are rotated between norm and attention; those of tiles have no norm.
            (_, _, _, KvSource::Pages(_, Mask::Causal { .. }) | KvSource::Tiles { .. })
            | (false, ..)
            | (_, false, false, _) => return None,
            (true, true, ..) => fused.query_norm = norm,
            // The keys of all sources have one norm.
            (true, false, true, _) => fused.key_norm = fused.key_norm.or(norm),
        }
    }
    Some((Step::Attention(fused), norms + 1))
}

/// Norm, query projection, attention to images, output projection with gate and residual.
fn gated(ops: &[Op]) -> Option<(Step, usize)> {
    let [
        Op::Norm { x, kind, weight, bias, epsilon, group, out: normed },
        Op::Linear { x: read, weight: query_weight, bias: None, epilogue, out: query },
        rest @ ..,
    ] = ops
    else {
        return None;
    };
    let (Step::Attention(attention), taken) = attention(rest)? else { return None };
    let KvSource::Pages(layer, Mask::Media) = attention.source else { return None };
    let Op::Linear { x: attended, weight: out_weight, bias: None, epilogue: added, out } = rest.get(taken)? else {
        return None;
    };
    let &Epilogue { gate: Some(gate), residual: Some(residual), seeing_only, .. } = added else { return None };
    let only_these = Epilogue { gate: Some(gate), residual: Some(residual), seeing_only, ..Epilogue::default() };
    let joined = *group == x.width
        && normed == read
        && *epilogue == Epilogue::default()
        && *added == only_these
        && *query == attention.query
        && *attended == attention.out
        && residual == *x;
    if !joined {
        return None;
    }
    let parts = vec![
        Step::Single(ops[0].clone()),
        Step::Single(ops[1].clone()),
        Step::Attention(attention.clone()),
        Step::Single(rest[taken].clone()),
    ];
    let whole = Box::new(Gated {
        x: *x,
        norm: HeadNorm { kind: *kind, weight: *weight, bias: *bias, epsilon: *epsilon },
        query_weight: *query_weight,
        layer,
        attention,
        out_weight: *out_weight,
        gate,
        seeing_only,
        out: *out,
    });
    Some((Step::Gated { whole, parts }, taken + 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Axis, Graph, KvSpace};

    /// A gated block between two layers, without or with an output; how many operations there are, and how many are
    /// left where nothing is seen.
    fn left(seeing_only: bool, fetched: bool) -> (usize, usize) {
        let mut graph = Graph::new();
        let weight = |id| Weight { id, rows: 16, columns: 16 };
        let vector = Weight { rows: 1, ..weight(9) };
        let gate = Some(Weight { columns: 1, ..vector });
        let plain = Epilogue::default();
        let input = graph.input(Axis::Tokens, 1, 16);
        let x = graph.linear(input, weight(0), None, plain);
        let y = graph.norm(x, Norm::Rms, vector, None, 1e-5);
        let query = graph.linear(y, weight(1), None, plain);
        let layer = KvLayer { space: KvSpace::Media, layer: 0, kv_heads: 1, head_width: 16 };
        let y = graph.attention(query, KvSource::Pages(layer, Mask::Media), 1, 1.0);
        let added = Epilogue { gate, residual: Some(x), seeing_only, ..plain };
        let x = graph.linear(y, weight(2), None, added);
        let hidden = graph.linear(x, weight(3), None, plain);
        let x = graph.linear(hidden, weight(4), None, Epilogue { residual: Some(x), ..added });
        let last = graph.select(x);
        let logits = graph.linear(last, weight(5), None, plain);
        let plan = graph.plan(&[input], fetched.then_some(logits));
        (plan.ops.len(), without_images(&plan).len())
    }

    #[test]
    fn a_block_that_changes_nothing_is_left_out_whole() {
        let found = [(true, true), (true, false), (false, true)].map(|(seeing, fetched)| left(seeing, fetched));
        assert_eq!(found, [(9, 3), (9, 3), (9, 9)]);
    }
}
