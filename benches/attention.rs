//! A step of causal attention on the processor: one more token of each of 64 sequences, with a prompt in common and
//! with prompts of their own; and a chunk of one prompt. GB/s count queries, results and every key and value once.

#[expect(dead_code, reason = "the processor is measured, whether there is a GPU or not")]
mod figures;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use figures::{Least, figure};
use flamant::probe::{
    Axis, Batch, Capacity, Device, Graph, KvConfig, KvLayer, KvSource, KvSpace, Mask, MediaSeen, Numbers, PAGE_TOKENS,
    PageCopy, PageCount, Place, PlanKind, Plans, PoolShape, Probe,
};

/// 16 heads of 64 columns.
const WIDTH: usize = 1024;
const HEAD: usize = 64;
const SEQUENCES: usize = 64;
/// Tokens before the new ones.
const PROMPT: usize = 320;
const PAGES: usize = PROMPT / PAGE_TOKENS;

/// Sequences of which each has a new token, or one with a chunk of them.
struct Step {
    tables: Vec<Vec<u32>>,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    /// Keys that are read at least.
    keys: usize,
}

impl Step {
    fn batch<R>(&self, rows: &[f32], with: impl FnOnce(&Batch) -> R) -> R {
        let tokens = self.positions.len();
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        let (ids, media) = (vec![0; tokens], vec![MediaSeen::NOTHING; tokens]);
        with(&Batch {
            inputs: &[&rows[..tokens * 3 * WIDTH]],
            ids: &ids,
            positions: &self.positions,
            sequences: &self.sequences,
            tables: &tables,
            media: &media,
            ..Batch::default()
        })
    }

    fn least(&self) -> Least {
        let tokens = self.positions.len();

        Least { bytes: 4 * (2 * WIDTH * (tokens + self.keys)) as u64, flops: 0 }
    }
}

/// Sequences with their prompt in pages of their own, or all in those of the first.
fn decode(shared: bool) -> Step {
    let pages = |sequence: usize, range: std::ops::Range<usize>| {
        range.map(move |page| (sequence * (PAGES + 1) + page) as u32).collect::<Vec<_>>()
    };
    let prompt = |sequence| pages(if shared { 0 } else { sequence }, 0..PAGES);
    Step {
        tables: (0..SEQUENCES).map(|sequence| [prompt(sequence), pages(sequence, PAGES..PAGES + 1)].concat()).collect(),
        positions: vec![PROMPT as u32; SEQUENCES],
        sequences: (0..SEQUENCES as u32).collect(),
        keys: SEQUENCES + if shared { PROMPT } else { SEQUENCES * PROMPT },
    }
}

/// A prompt of one sequence.
fn prefill() -> Step {
    Step {
        tables: vec![(0..PAGES as u32).collect()],
        positions: (0..PROMPT as u32).collect(),
        sequences: vec![0; PROMPT],
        keys: PROMPT,
    }
}

fn attention(criterion: &mut Criterion) {
    let mut graph = Graph::new();
    let qkv = graph.input(Axis::Tokens, 1, 3 * WIDTH);
    let [query, key, value] = qkv.split();
    let layer = KvLayer { space: KvSpace::Text, layer: 0, kv_heads: WIDTH / HEAD, head_width: HEAD };
    graph.append(key, value, layer);
    let source = KvSource::Pages(layer, Mask::Causal { slopes: None });
    graph.attention(query, source, layer.kv_heads, 1.0 / (HEAD as f32).sqrt());
    let plans =
        Plans { media: Graph::new().plan(&[], None), text: graph.plan(&[qkv], None), features: None, tiles: None };
    let count = SEQUENCES * (PAGES + 1);
    let pages = PageCount { least: count, most: count };
    let text = PoolShape { layers: 1, kv_heads: layer.kv_heads, head_width: HEAD, pages };
    let kv_config = KvConfig { text, ..KvConfig::default() };
    let capacity = Capacity { images: 0, tokens: PROMPT };
    let mut probe =
        Probe::open(&Place::new(Device::Cpu, None), Numbers::default(), plans, kv_config, capacity).expect("pages fit");

    let rows: Vec<f32> = (0..PROMPT * 3 * WIDTH).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let (chunk, shared, apart) = (prefill(), decode(true), decode(false));
    chunk.batch(&rows, |batch| probe.run(PlanKind::Text, batch)).expect("a prompt");
    for (from, to) in apart.tables[1..].iter().flat_map(|table| chunk.tables[0].iter().zip(table)) {
        probe.copy_text_page(PageCopy { from: *from, to: *to }).expect("a page");
    }
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let steps = [("64 behind one prompt", shared), ("64 apart", apart), ("prefill", chunk)];
    for (name, step) in steps {
        figure(&mut group, name, (step.positions.len() as u64, "tokens"), step.least(), |runs| {
            step.batch(&rows, |batch| probe.measure(PlanKind::Text, batch, runs)).expect("it runs")
        });
    }
    group.finish();
}

criterion_group!(benches, attention);
criterion_main!(benches);
