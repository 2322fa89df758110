//! How cases are made: a graph of one operation, or a few, with its weights, pages and batches.

use flamant::config::{Activation, Norm};
use flamant::probe::{
    Axis, Epilogue, Graph, Index, Kind, KvConfig, KvDtype, KvLayer, KvSource, KvSpace, MEDIA_PAGE_ROWS, Mask,
    MediaSeen, Op, PAGE_TOKENS, PageCopy, PageCount, Plan, PlanKind, PoolShape, Tensor, Tiling, Weight,
};

use super::numbers::fill;
use super::{Case, Image, Piece, Recipe, Run, Size, Step, VOCABULARY};

/// A case under construction.
struct Draft {
    graph: Graph,
    weights: Vec<Recipe>,
    kv_config: KvConfig,
    media: Plan,
}

impl Draft {
    fn new() -> Draft {
        Draft {
            graph: Graph::new(),
            weights: Vec::new(),
            kv_config: KvConfig::default(),
            media: Graph::new().plan(&[], None),
        }
    }

    fn weight(&mut self, kind: Kind, [rows, columns]: [usize; 2], mean: f32, deviation: f32) -> Weight {
        let weight = Weight { id: self.weights.len(), rows, columns };
        self.weights.push(Recipe { kind, rows, columns, mean, deviation });
        weight
    }

    /// Of a linear layer: as large as keeps rows what they are.
    fn matrix(&mut self, rows: usize, columns: usize) -> Weight {
        self.weight(Kind::Matrix, [rows, columns], 0.0, 1.0 / (columns as f32).sqrt())
    }

    /// Rows that are added or gathered.
    fn table(&mut self, rows: usize, columns: usize) -> Weight {
        self.weight(Kind::Matrix, [rows, columns], 0.0, 1.0)
    }

    /// Factors of a norm.
    fn factors(&mut self, length: usize) -> Weight {
        self.weight(Kind::Vector, [1, length], 1.0, 0.25)
    }

    /// Factors of a norm of queries or keys: smaller, so that scores are.
    fn head_factors(&mut self, length: usize) -> Weight {
        self.weight(Kind::Vector, [1, length], 0.75, 0.25)
    }

    /// The bias of such a norm.
    fn head_bias(&mut self, length: usize) -> Weight {
        self.weight(Kind::Vector, [1, length], 0.0, 0.25)
    }

    /// A bias, or gates.
    fn vector(&mut self, length: usize) -> Weight {
        self.weight(Kind::Vector, [1, length], 0.25, 0.5)
    }

    fn finish(self, name: String, size: Size, inputs: &[Tensor], output: Tensor, steps: Vec<Step>) -> Case {
        let Draft { graph, weights, kv_config, media } = self;
        let text = graph.plan(inputs, Some(output));
        Case {
            name,
            size,
            weights,
            media,
            text,
            kv_config,
            steps,
            exact_without_image: false,
            repeats: None,
            kv_dtype: KvDtype::Auto,
            codes: None,
            fetches: false,
            shared_bytes: None,
        }
    }

    /// Fetches what the last operation stored for each token.
    fn stored(mut self, name: String, size: Size, inputs: &[Tensor], last: Tensor, steps: Vec<Step>) -> Case {
        let output = self.graph.select(last);
        Case { fetches: true, ..self.finish(name, size, inputs, output, steps) }
    }
}

fn run(pieces: Vec<Piece>) -> Run {
    let outputs = (0..pieces.iter().map(|piece| piece.count).sum()).collect();
    Run {
        which: PlanKind::Text,
        images: Vec::new(),
        frames: Vec::new(),
        tilings: Vec::new(),
        pieces,
        seen: Vec::new(),
        media: Vec::new(),
        outputs,
    }
}

/// Tokens that belong to no sequence with pages.
fn tokens(count: usize) -> Vec<Piece> {
    vec![Piece { sequence: 0, table: Vec::new(), from: 0, count: count as u32 }]
}

fn on_tokens(count: usize) -> Vec<Step> {
    vec![Step::Run(run(tokens(count)))]
}

/// Images of which nothing is kept.
fn on_images(count: usize) -> Vec<Step> {
    let images = (0..count as u32).map(|who| Image { who, pages: Vec::new(), rows: 0 }).collect();
    vec![Step::Run(Run { images, ..run(Vec::new()) })]
}

fn on_videos(frames: &[u32]) -> Vec<Step> {
    let mut steps = on_images(frames.len());
    let [Step::Run(run)] = &mut steps[..] else { unreachable!("one run") };
    run.frames = frames.to_vec();
    steps
}

/// Images of which each has some of the tiles that there is room for, and the ratio that these have together.
#[derive(Debug, Clone, Copy)]
pub struct Tiled<'a> {
    /// Ratio and tiles of each image.
    pub images: &'a [(u32, u32)],
    /// Tiles that there is room for.
    pub most: usize,
}

impl Tiled<'_> {
    /// Rows of a table that has some for each ratio.
    const RATIOS: usize = 9;

    fn steps(&self) -> Vec<Step> {
        let mut steps = on_videos(&vec![self.most as u32; self.images.len()]);
        let [Step::Run(run)] = &mut steps[..] else { unreachable!("one run") };
        run.tilings = self.images.iter().map(|&(ratio, tiles)| Tiling { ratio, tiles }).collect();
        steps
    }

    /// As a part of a name.
    fn name(&self) -> String {
        let each: Vec<String> = self.images.iter().map(|(ratio, tiles)| format!("{tiles}as{ratio}")).collect();
        format!("[{}]of{}", each.join(","), self.most)
    }
}

/// Patches of the tiles of images, embedded in `width` columns; zeros of those that are absent.
pub fn tile_patches(size: Size, tiled: Tiled, side: usize, patch: usize, width: usize) -> Case {
    let patches = patches(size, 0, side, patch, width);
    Case {
        name: format!("patches/tiles{}x{side}/{patch}/embedded{width}", tiled.name()),
        steps: tiled.steps(),
        ..patches
    }
}

/// Class rows and embeddings of ratio, tile and row.
pub fn tile_positions(size: Size, tiled: Tiled, patches: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let table = draft.table(Tiled::RATIOS * tiled.most * (patches + 1), width);
    let x = draft.graph.input(Axis::Frames, patches, width);
    let out = draft.graph.tile_positions(x, table, tiled.most);
    draft.finish(format!("tile_positions/{}x{patches}x{width}", tiled.name()), size, &[x], out, tiled.steps())
}

/// Embeddings of ratio and tile added to rows of tiles, and to `fillers` more of each.
pub fn tile_embedding(size: Size, tiled: Tiled, tile_rows: usize, fillers: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let table = draft.table(Tiled::RATIOS * tiled.most, width);
    let x = draft.graph.input(Axis::Images, tiled.most * (tile_rows + fillers), width);
    let out = draft.graph.tile_embedding(x, table, tiled.most, tile_rows);
    let name = format!("tile_embedding/{}x{tile_rows}+{fillers}x{width}", tiled.name());
    draft.finish(name, size, &[x], out, tiled.steps())
}

/// Zeros behind the rows of each image.
pub fn fill_rows(size: Size, images: usize, rows: usize, filled: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let x = draft.graph.input(Axis::Images, rows, width);
    let out = draft.graph.fill_rows(x, filled);
    draft.finish(format!("fill_rows/{images}x{rows}to{filled}x{width}"), size, &[x], out, on_images(images))
}

/// Columns of several matrices side by side: the first `kept` of so many rows of each.
pub fn concatenate(size: Size, images: usize, rows: usize, kept: usize, widths: &[usize]) -> Case {
    let mut draft = Draft::new();
    let inputs: Vec<Tensor> = widths.iter().map(|&width| draft.graph.input(Axis::Images, rows, width)).collect();
    let out = draft.graph.concatenate(inputs.iter().map(|input| input.first_rows(kept)).collect());
    let name = format!("concatenate/{images}x{kept}of{rows}x{widths:?}").replace(' ', "");
    draft.finish(name, size, &inputs, out, on_images(images))
}

/// Attention of the rows of tiles, and of `fillers` more of each, as a vision tower of tiles has it.
pub fn tiles(size: Size, tiled: Tiled, tile_rows: usize, fillers: usize, heads: Heads) -> Case {
    let mut draft = Draft::new();
    let qkv = draft.graph.input(Axis::Images, tiled.most * (tile_rows + fillers), 3 * heads.all());
    let [query, key, value] = qkv.split();
    let out = draft.graph.attention(query, KvSource::Tiles { key, value, tile_rows }, heads.count, heads.scale());
    let name = format!("tiles/{}x{tile_rows}+{fillers}/{}x{}", tiled.name(), heads.count, heads.width);
    draft.finish(name, size, &[qkv], out, tiled.steps())
}

/// Images cut into patches; `width` columns of an embedding, or the patches themselves for 0.
pub fn patches(size: Size, images: usize, side: usize, patch: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let mut levels = Vec::new();
    fill(&mut levels, 3 * 256, 4, 0.0, 1.0);
    let mut out = draft.graph.patches(levels, side, patch);
    let mut name = format!("patches/{images}x{side}/{patch}");
    if width > 0 {
        let weight = draft.matrix(width, out.width);
        out = draft.graph.linear(out, weight, None, Epilogue::default());
        name += &format!("/embedded{width}");
    }
    draft.finish(name, size, &[], out, on_images(images))
}

pub fn class_and_position(size: Size, images: usize, patches: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let (class, position) = (draft.weight(Kind::Vector, [1, width], 0.0, 1.0), draft.table(patches + 1, width));
    let x = draft.graph.input(Axis::Images, patches, width);
    let out = draft.graph.class_and_position(x, class, position);
    let name = format!("class_and_position/{images}x{patches}x{width}");
    draft.finish(name, size, &[x], out, on_images(images))
}

pub fn broadcast(size: Size, images: usize, rows: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let table = draft.table(rows, width);
    let out = draft.graph.broadcast(table);
    draft.finish(format!("broadcast/{images}x{rows}x{width}"), size, &[], out, on_images(images))
}

/// Embeddings of places added to the rows after the first of each frame, of videos of so many frames.
pub fn frame_embedding(size: Size, frames: &[u32], rows: usize, width: usize, table_rows: usize) -> Case {
    let mut draft = Draft::new();
    let table = draft.table(table_rows, width);
    let x = draft.graph.input(Axis::Frames, rows + 1, width);
    let out = draft.graph.frame_embedding(x.rows_from(1), table);
    let name = format!("frame_embedding/{frames:?}x{rows}x{width}/{table_rows}");
    draft.finish(name, size, &[x], out, on_videos(frames))
}

/// Embeddings of tokens, alone or with those of positions.
pub fn gather(size: Size, count: usize, width: usize, learned_positions: bool) -> Case {
    let mut draft = Draft::new();
    let table = draft.table(VOCABULARY, width);
    let mut out = draft.graph.gather(table, Index::TokenId, None);
    let mut name = format!("gather/{count}x{width}");
    if learned_positions {
        let positions = draft.table(count + 12, width);
        out = draft.graph.gather(positions, Index::Position { offset: 2 }, Some(out));
        name += "/positions";
    }
    let pieces = vec![Piece { sequence: 0, table: Vec::new(), from: 10, count: count as u32 }];
    draft.finish(name, size, &[], out, vec![Step::Run(run(pieces))])
}

pub fn select(size: Size, count: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let x = draft.graph.input(Axis::Tokens, 1, width);
    let out = draft.graph.select(x);
    let mut picked = run(tokens(count));
    picked.outputs = (0..count as u32).rev().step_by(3).collect();
    draft.finish(format!("select/{count}x{width}"), size, &[x], out, vec![Step::Run(picked)])
}

pub fn norm(size: Size, kind: Norm, bias: bool, count: usize, width: usize) -> Case {
    let mut draft = Draft::new();
    let x = draft.graph.input(Axis::Tokens, 1, width);
    let (weight, bias) = (draft.factors(width), bias.then(|| draft.vector(width)));
    let out = draft.graph.norm(x, kind, weight, bias, 1e-5);
    let name = format!("norm/{}{}/{count}x{width}", norm_name(kind), if bias.is_some() { "+bias" } else { "" });
    draft.finish(name, size, &[x], out, on_tokens(count))
}

fn norm_name(kind: Norm) -> &'static str {
    match kind {
        Norm::Layer => "layer",
        Norm::Rms => "rms",
    }
}

/// In place, the middle third of rows of three: heads, or all of it where `group` is its width.
pub fn norm_heads(size: Size, kind: Norm, bias: bool, count: usize, heads: usize, group: usize) -> Case {
    let mut draft = Draft::new();
    let x = draft.graph.input(Axis::Tokens, 1, 3 * heads * group);
    let [_, middle, _] = x.split();
    let (weight, bias) = (draft.factors(group), bias.then(|| draft.vector(group)));
    draft.graph.norm_groups(middle, kind, weight, bias, 1e-5);
    let name = format!("norm_heads/{}/{count}x{heads}x{group}", norm_name(kind));
    draft.stored(name, size, &[x], x, on_tokens(count))
}

/// The gate of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gated {
    /// None.
    No,
    /// One value.
    Scalar,
    /// One for each column.
    Vector,
}

/// What a linear layer does besides.
#[derive(Debug, Clone, Copy)]
pub struct Besides {
    /// Its product gets a bias.
    pub bias: bool,
    /// Nonlinearity.
    pub activation: Option<Activation>,
    /// See [`Epilogue::paired`].
    pub paired: bool,
    /// See [`Epilogue::clip`].
    pub clip: Option<f32>,
    /// See [`Epilogue::gate`].
    pub gate: Gated,
    /// Something is added.
    pub residual: bool,
    /// See [`Epilogue::seeing_only`]; every third token sees no image.
    pub seeing_only: bool,
    /// It ends the plan: its rows are f32.
    pub logits: bool,
}

/// A plain product.
pub const PLAIN: Besides = Besides {
    bias: false,
    activation: None,
    paired: false,
    clip: None,
    gate: Gated::No,
    residual: false,
    seeing_only: false,
    logits: false,
};

impl Besides {
    fn name(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.bias.then(|| "+bias".to_owned()));
        parts.extend(self.activation.map(|activation| format!("+{activation:?}").to_lowercase()));
        parts.extend(self.paired.then(|| "+paired".to_owned()));
        parts.extend(self.clip.map(|_| "+clip".to_owned()));
        parts.extend((self.gate != Gated::No).then(|| format!("+gate-{:?}", self.gate).to_lowercase()));
        parts.extend(self.residual.then(|| "+residual".to_owned()));
        parts.extend(self.seeing_only.then(|| "+seeing".to_owned()));
        parts.extend(self.logits.then(|| "+f32".to_owned()));
        parts.concat()
    }
}

/// A linear layer of `count` tokens.
pub fn linear(size: Size, count: usize, columns: usize, width: usize, besides: Besides) -> Case {
    let Besides { bias, activation, paired, clip, gate, residual, seeing_only, logits } = besides;
    let mut draft = Draft::new();
    let rows = if paired { 2 * width } else { width };
    let weight = draft.matrix(rows, columns);
    let bias = bias.then(|| draft.vector(rows));
    let gate = match gate {
        Gated::No => None,
        Gated::Scalar => Some(draft.vector(1)),
        Gated::Vector => Some(draft.vector(width)),
    };
    let x = draft.graph.input(Axis::Tokens, 1, columns);
    // Rows that are stored, and read again, are padded to whole vectors.
    let added = draft.graph.input(Axis::Tokens, 1, width.next_multiple_of(8)).columns(0, width);
    let epilogue = Epilogue { activation, paired, clip, gate, residual: residual.then_some(added), seeing_only };
    let out = draft.graph.linear(x, weight, bias, epilogue);
    let name = format!("linear/{count}x{columns}x{width}{}", besides.name());
    let both = [x, Tensor { width: added.stride, ..added }];
    let inputs = if residual { &both[..] } else { &both[..1] };
    let mut seen = run(tokens(count));
    if seeing_only {
        seen.seen = vec![Image { who: 0, pages: vec![0], rows: 1 }];
        let of = |token| if token % 3 == 1 { MediaSeen::NOTHING } else { MediaSeen::one(0) };
        seen.media = (0..count).map(of).collect();
    }
    let steps = vec![Step::Run(seen)];
    let case = match logits {
        true => draft.finish(name, size, inputs, out, steps),
        false => draft.stored(name, size, inputs, out, steps),
    };
    Case { exact_without_image: seeing_only, ..case }
}

/// A perceptron whose result is added to the rows it read, in place.
pub fn perceptron(size: Size, count: usize, width: usize, hidden: usize, activation: Activation) -> Case {
    let mut draft = Draft::new();
    let (up, up_bias) = (draft.matrix(hidden, width), draft.vector(hidden));
    let (down, down_bias) = (draft.matrix(width, hidden), draft.vector(width));
    let x = draft.graph.input(Axis::Tokens, 1, width);
    let activated = Epilogue { activation: Some(activation), ..Epilogue::default() };
    let y = draft.graph.linear(x, up, Some(up_bias), activated);
    let added = Epilogue { residual: Some(x), ..Epilogue::default() };
    let out = draft.graph.linear(y, down, Some(down_bias), added);
    let name = format!("perceptron/{count}x{width}x{hidden}/{activation:?}").to_lowercase();
    draft.stored(name, size, &[x], out, on_tokens(count))
}

/// How attention knows the order of tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// It does not.
    None,
    /// Rotary embedding of so many entries of a head.
    Rotary(usize),
    /// A bias by distance.
    Alibi,
}

/// Frequencies of a rotary embedding of so many entries.
pub fn frequencies(rotated: usize) -> Vec<f32> {
    (0..rotated / 2).map(|i| 1.0 / 10_000f32.powf((2 * i) as f32 / rotated as f32)).collect()
}

/// Heads of attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// How many of queries.
    pub count: usize,
    /// And of keys and values, which the former share in groups.
    pub kv: usize,
    /// Width of one.
    pub width: usize,
}

impl Heads {
    /// Columns of all heads of queries.
    pub fn all(self) -> usize {
        self.count * self.width
    }

    /// A row in which each head after the columns of `queries` stands for its group.
    pub fn repeat(self, row: &[f32], queries: usize) -> Vec<f32> {
        let heads = row[queries..].chunks_exact(self.width);
        let repeated = heads.flat_map(|head| std::iter::repeat_n(head, self.count / self.kv)).flatten();
        row[..queries].iter().chain(repeated).copied().collect()
    }

    /// Columns of all heads of keys.
    fn all_kv(self) -> usize {
        self.kv * self.width
    }

    /// As a part of a name.
    fn name(self) -> String {
        let Heads { count, kv, width } = self;
        if kv == count { format!("{count}x{width}") } else { format!("{count}of{kv}x{width}") }
    }

    /// A layer of pages for their keys.
    fn layer(self, space: KvSpace, layer: usize) -> KvLayer {
        KvLayer { space, layer, kv_heads: self.kv, head_width: self.width }
    }

    /// So many pages of such layers.
    fn pool(self, layers: usize, pages: usize) -> PoolShape {
        let pages = PageCount { least: pages, most: pages };
        PoolShape { layers, kv_heads: self.kv, head_width: self.width, pages }
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }
}

/// Pages for sequences of such lengths, dealt in turn and from the last on, so that no table is in order.
fn deal(lengths: &[u32]) -> (Vec<Vec<u32>>, u32) {
    let pages = |length: u32| length.div_ceil(PAGE_TOKENS as u32);
    let total: u32 = lengths.iter().map(|&length| pages(length)).sum();
    let mut tables = vec![Vec::new(); lengths.len()];
    let mut next = total;
    while next > 0 {
        for (table, &length) in tables.iter_mut().zip(lengths) {
            if (table.len() as u32) < pages(length) {
                next -= 1;
                table.push(next);
            }
        }
    }
    (tables, total)
}

/// What a sequence has before the runs of a case.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    /// Its first so many tokens are those of a family, whole pages of them.
    pub common: u32,
    /// Which family's.
    pub family: u32,
    /// All of its tokens.
    pub filled: u32,
}

impl Past {
    /// Nothing in common with others.
    pub fn own(filled: u32) -> Past {
        Past { common: 0, family: 0, filled }
    }

    /// Who the family's tokens belong to.
    fn ancestor(self) -> u32 {
        1000 + self.family
    }
}

/// Pages of sequences: those of their own, and those of their families where sequences have these in common.
struct Tables {
    sequences: Vec<Vec<u32>>,
    families: Vec<Vec<u32>>,
    pages: u32,
}

impl Tables {
    fn new(pasts: &[Past], lengths: &[u32], in_common: bool) -> Tables {
        assert!(pasts.iter().all(|past| past.common <= past.filled && past.common.is_multiple_of(PAGE_TOKENS as u32)));
        let families = pasts.iter().map(|past| past.family + 1).max().unwrap_or(0);
        let longest = |family| pasts.iter().filter(|past| past.family == family).map(|past| past.common).max();
        let mut dealt: Vec<u32> = pasts.iter().zip(lengths).map(|(past, &length)| length - past.common).collect();
        dealt.extend((0..families).map(|family| longest(family).filter(|_| in_common).unwrap_or(0)));
        if !in_common {
            dealt[..lengths.len()].copy_from_slice(lengths);
        }
        let (mut sequences, pages) = deal(&dealt);
        let families = sequences.split_off(lengths.len());
        if in_common {
            for (own, past) in sequences.iter_mut().zip(pasts) {
                let common = &families[past.family as usize][..past.common as usize / PAGE_TOKENS];
                *own = [common, own].concat();
            }
        }
        Tables { sequences, families, pages }
    }

    /// What fills them.
    fn fill(&self, pasts: &[Past]) -> Vec<Piece> {
        let piece =
            |sequence, table: &[u32], from, to: u32| Piece { sequence, table: table.to_vec(), from, count: to - from };
        let mut pieces = Vec::new();
        for (family, table) in (0..).zip(&self.families) {
            let past = Past { family, ..Past::own(0) };
            pieces.push(piece(past.ancestor(), table, 0, (table.len() * PAGE_TOKENS) as u32));
        }
        for ((sequence, past), table) in (0..).zip(pasts).zip(&self.sequences) {
            if self.families[past.family as usize].is_empty() {
                pieces.push(piece(past.ancestor(), table, 0, past.common));
            }
            pieces.push(piece(sequence, table, past.common, past.filled));
        }
        pieces.retain(|piece| piece.count > 0);
        pieces
    }
}

/// Rotary embedding, keys and values to pages, causal attention. Sequences first get `filled` tokens whose keys and
/// values are what they are; then each of `runs` adds tokens: (sequence, count).
pub fn causal(size: Size, what: &str, heads: Heads, order: Order, filled: &[u32], runs: &[&[(usize, u32)]]) -> Case {
    let pasts: Vec<Past> = filled.iter().map(|&filled| Past::own(filled)).collect();
    forked(size, what, heads, order, &pasts, true, runs)
}

/// The same of sequences with such pasts. What these have in common stands in the same pages, or in pages of each.
pub fn forked(
    size: Size,
    what: &str,
    heads: Heads,
    order: Order,
    pasts: &[Past],
    in_common: bool,
    runs: &[&[(usize, u32)]],
) -> Case {
    let layer = match size {
        Size::Small => 1,
        Size::Real => 0,
    };
    let width = heads.all();
    let mut lengths: Vec<u32> = pasts.iter().map(|past| past.filled).collect();
    runs.iter().flat_map(|run| run.iter()).for_each(|&(sequence, count)| lengths[sequence] += count);
    let tables = Tables::new(pasts, &lengths, in_common);
    let pages = tables.pages;

    let mut draft = Draft::new();
    draft.kv_config = KvConfig { text: heads.pool(layer + 1, pages as usize + 1), ..draft.kv_config };
    let of_layer = |layer| heads.layer(KvSpace::Text, layer);
    let qkv = draft.graph.input(Axis::Tokens, 1, width + 2 * heads.all_kv());
    let (query, [key, value]) = (qkv.columns(0, width), qkv.columns(width, 2 * heads.all_kv()).split());
    if let Order::Rotary(rotated) = order {
        draft.graph.rope(query, heads.width, frequencies(rotated));
        draft.graph.rope(key, heads.width, frequencies(rotated));
    }
    draft.graph.append(key, value, of_layer(layer));
    if layer > 0 {
        // What stands beside must not matter.
        draft.graph.append(value, key, of_layer(0));
    }
    let slopes = (order == Order::Alibi)
        .then(|| (1..=heads.count).map(|head| 2f32.powf(-8.0 * head as f32 / heads.count as f32)).collect());
    let source = KvSource::Pages(of_layer(layer), Mask::Causal { slopes });
    let out = draft.graph.attention(query, source, heads.count, heads.scale());
    let mut filler = Graph::new();
    let [key, value] = [(); 2].map(|()| filler.input(Axis::Tokens, 1, heads.all_kv()));
    (0..=layer).for_each(|layer| filler.append(key, value, of_layer(layer)));
    draft.media = filler.plan(&[key, value], None);

    let mut reached: Vec<u32> = pasts.iter().map(|past| past.filled).collect();
    let mut piece = |sequence: usize, count: u32| {
        let from = reached[sequence];
        reached[sequence] += count;
        Piece { sequence: sequence as u32, table: tables.sequences[sequence].clone(), from, count }
    };
    let mut steps = Vec::new();
    for filled in tables.fill(pasts) {
        steps.push(Step::Run(Run { which: PlanKind::Media, outputs: Vec::new(), ..run(vec![filled]) }));
    }
    for pieces in runs {
        steps.push(Step::Run(run(pieces.iter().map(|&(sequence, count)| piece(sequence, count)).collect())));
    }
    let order = match order {
        Order::None => "none".to_owned(),
        Order::Rotary(rotated) => format!("rotary{rotated}"),
        Order::Alibi => "alibi".to_owned(),
    };
    let shared = pasts.iter().any(|past| past.common > 0);
    let kind = if shared { if in_common { "forked/in common/" } else { "forked/apart/" } } else { "" };
    let name = format!("causal/{kind}{what}/{}/{order}", heads.name());
    draft.finish(name, size, &[qkv], out, steps)
}

/// With scores so far apart that one key takes nearly all: the running maximum moves much. Only for queries and keys
/// that are not rounded between; the error of a rounded score would be as large as the score.
pub fn sharp(mut case: Case) -> Case {
    for op in &mut case.text.ops {
        if let Op::Attention { scale, .. } = op {
            *scale *= 20.0;
        }
    }
    case.name += "/sharp";
    case
}

/// Two sequences with one past: the second goes on in a copy of the page that is not full.
pub fn copied_page(size: Size, heads: Heads) -> Case {
    let mut case = causal(size, "fork", heads, Order::Rotary(heads.width), &[0], &[&[(0, 21)], &[(0, 1)]]);
    let copy = PageCopy { from: 0, to: 2 };
    let mut forked = case.last().clone();
    assert_eq!(forked.pieces[0].table, [1, 0], "the page that is copied is the last one");
    // Another token on each side: the copy has the past, and neither sees the other's token.
    forked.pieces[0] = Piece { sequence: 7, table: vec![1, 2], ..forked.pieces[0].clone() };
    let original = case.steps.pop().expect("a case has a step");
    case.steps.extend([Step::Copy(copy), Step::Run(forked), original]);
    case.name = format!("copy_page/{}x{}", heads.count, heads.width);
    case
}

/// Attention over an image's own rows: (query rows, then rows of each source of keys).
pub fn image(size: Size, images: usize, heads: Heads, query_rows: usize, key_rows: &[usize], normed: bool) -> Case {
    let rows: Vec<String> = key_rows.iter().map(usize::to_string).collect();
    let kind = if key_rows.len() == 1 && !normed { "vision" } else { "perceiver" };
    let name = format!("{kind}/{images}x{query_rows}to{}", rows.join("+"));
    let sources: Vec<(Axis, usize)> = key_rows.iter().map(|&rows| (Axis::Images, rows)).collect();
    attended(name, size, heads, query_rows, &sources, normed, on_images(images))
}

/// The same of videos of so many frames: the first source is all frames of each.
pub fn video(size: Size, frames: &[u32], heads: Heads, query_rows: usize, key_rows: [usize; 2], normed: bool) -> Case {
    let [context, latents] = key_rows;
    let name = format!("perceiver/video{frames:?}x{query_rows}to{context}+{latents}");
    let sources = [(Axis::Frames, context), (Axis::Images, latents)];
    attended(name, size, heads, query_rows, &sources, normed, on_videos(frames))
}

fn attended(
    name: String,
    size: Size,
    heads: Heads,
    query_rows: usize,
    sources: &[(Axis, usize)],
    normed: bool,
    steps: Vec<Step>,
) -> Case {
    let width = heads.all();
    let mut draft = Draft::new();
    let query = draft.graph.input(Axis::Images, query_rows, width);
    let sources: Vec<Tensor> = sources.iter().map(|&(axis, rows)| draft.graph.input(axis, rows, 2 * width)).collect();
    let pairs: Vec<(Tensor, Tensor)> = sources.iter().map(|source| source.split::<2>().into()).collect();
    if normed {
        let (query_weight, query_bias) = (draft.head_factors(heads.width), draft.head_bias(heads.width));
        let (key_weight, key_bias) = (draft.head_factors(heads.width), draft.head_bias(heads.width));
        draft.graph.norm_groups(query, Norm::Layer, query_weight, Some(query_bias), 1e-5);
        for (key, _) in &pairs {
            draft.graph.norm_groups(*key, Norm::Layer, key_weight, Some(key_bias), 1e-5);
        }
    }
    let out = draft.graph.attention(query, KvSource::Dense(pairs), heads.count, heads.scale());
    let normed = if normed { "/normed" } else { "" };
    let name = format!("{name}/{}x{}{normed}", heads.count, heads.width);
    let inputs: Vec<Tensor> = [query].into_iter().chain(sources).collect();
    draft.finish(name, size, &inputs, out, steps)
}

/// Attention inside one buffer of queries, keys and values, as a vision tower has it, with the class row dropped after.
pub fn vision(size: Size, images: usize, rows: usize, heads: Heads) -> Case {
    let mut draft = Draft::new();
    let qkv = draft.graph.input(Axis::Images, rows, 3 * heads.all());
    let [query, key, value] = qkv.split();
    let out = draft.graph.attention(query, KvSource::Dense(vec![(key, value)]), heads.count, heads.scale());
    let name = format!("vision/{images}x{rows}/{}x{}", heads.count, heads.width);
    draft.finish(name, size, &[qkv], out, on_images(images))
}

/// Rows after the first of each image, as OpenFlamingo drops the class token: a view through norm and product.
pub fn rows_from(size: Size, images: usize, rows: usize, width: usize, out_width: usize) -> Case {
    let mut draft = Draft::new();
    let x = draft.graph.input(Axis::Images, rows, width);
    let (weight, bias) = (draft.factors(width), draft.vector(width));
    let matrix = draft.matrix(out_width, width);
    let normed = draft.graph.norm(x.rows_from(1), Norm::Layer, weight, Some(bias), 1e-5);
    let residual = Epilogue { residual: Some(x.rows_from(1)), ..Epilogue::default() };
    let epilogue = if out_width == width { residual } else { Epilogue::default() };
    let out = draft.graph.linear(normed, matrix, None, epilogue);
    draft.finish(format!("rows_from/{images}x{rows}x{width}x{out_width}"), size, &[x], out, on_images(images))
}

/// Images with so many rows in media pages of a block, which are dealt so that those of no image are in order.
struct Images {
    layer: KvLayer,
    list: Vec<Image>,
    fill: Step,
}

/// The images, what fills their pages, and the text plan's pools for them. Rows that an image does not keep come with
/// it.
fn images(draft: &mut Draft, size: Size, heads: Heads, rows: &[u32]) -> Images {
    let block = match size {
        Size::Small => 1,
        Size::Real => 0,
    };
    let pages = |rows: u32| (rows as usize).div_ceil(MEDIA_PAGE_ROWS);
    let mut free: Vec<u32> = (0..rows.iter().map(|&rows| pages(rows)).sum::<usize>() as u32).collect();
    draft.kv_config = KvConfig { media: heads.pool(block + 1, free.len()), ..draft.kv_config };
    let of_layer = |layer| heads.layer(KvSpace::Media, layer);
    let mut filler = Graph::new();
    let longest = rows.iter().max().map_or(0, |&rows| rows as usize);
    let key_value = filler.input(Axis::Images, longest, 2 * heads.all_kv());
    let [key, value] = key_value.split();
    filler.append(key, value, of_layer(block));
    if block > 0 {
        filler.append(value, key, of_layer(0));
    }
    draft.media = filler.plan(&[key_value], None);
    let image = |(who, &rows): (u32, &u32)| Image { who, pages: free.split_off(free.len() - pages(rows)), rows };
    let mut list: Vec<Image> = (0..).zip(rows).map(image).collect();
    list.iter_mut().for_each(|image| image.pages.reverse());
    let images = list.iter().rev().cloned().collect();
    let fill = Run { which: PlanKind::Media, images, outputs: Vec::new(), ..run(Vec::new()) };
    Images { layer: of_layer(block), list, fill: Step::Run(fill) }
}

impl Images {
    /// Tokens that see some of them, after they are in their pages.
    fn seen_by(self, media: &[MediaSeen]) -> Vec<Step> {
        let seen = Run { seen: self.list, media: media.to_vec(), ..run(tokens(media.len())) };
        vec![self.fill, Step::Run(seen)]
    }
}

/// Rows of images as a name.
fn rows_name(rows: &[u32]) -> String {
    match rows {
        [first, rest @ ..] if rest.iter().all(|rows| rows == first) => format!("{}x{first}", rows.len()),
        _ => format!("{rows:?}").replace(' ', ""),
    }
}

/// Which images each token sees.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    /// Each the one before it: none at first, then blocks of tokens, in order.
    Interleaved,
    /// In turn, and none: as when many sequences decode together.
    Mixed,
    /// All of them the last.
    Last,
    /// Each up to three that stand side by side, and none.
    Neighbours,
    /// Nothing at all.
    Nothing,
}

impl Seen {
    /// What each token sees of so many images.
    pub fn list(self, tokens: usize, images: usize) -> Vec<MediaSeen> {
        let block = tokens.div_ceil(images + 1);
        // 0: nothing.
        let numbered = |number: usize| if number > 0 { MediaSeen::one(number as u32 - 1) } else { MediaSeen::NOTHING };
        let of = |token: usize| match self {
            Seen::Interleaved => numbered(token / block),
            Seen::Mixed => numbered(token * 5 % (images + 1)),
            Seen::Last => numbered(images),
            Seen::Neighbours => {
                let (first, count) = (token * 7 % images, token % 4);
                MediaSeen { first: first as u32, images: count.min(images - first) as u32 }
            }
            Seen::Nothing => MediaSeen::NOTHING,
        };
        (0..tokens).map(of).collect()
    }
}

/// Text tokens to images of so many rows.
pub fn masked(size: Size, heads: Heads, rows: &[u32], media: &[MediaSeen], normed: bool) -> Case {
    let mut draft = Draft::new();
    let images = images(&mut draft, size, heads, rows);
    let layer = images.layer;
    let query = draft.graph.input(Axis::Tokens, 1, heads.all());
    if normed {
        let weight = draft.factors(heads.width);
        draft.graph.norm_groups(query, Norm::Rms, weight, None, 1e-6);
    }
    let out = draft.graph.attention(query, KvSource::Pages(layer, Mask::Media), heads.count, heads.scale());
    let normed = if normed { "/normed" } else { "" };
    let name = format!("masked/{}to{}/{}{normed}", media.len(), rows_name(rows), heads.name());
    Case { exact_without_image: true, ..draft.finish(name, size, &[query], out, images.seen_by(media)) }
}

/// Whose gated block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Layer norm with bias, one gate.
    OpenFlamingo,
    /// RMS norm, also of queries head by head; a gate for each column.
    Idefics,
    /// RMS norm, also of queries head by head; one gate; nothing for tokens that see no image.
    Llama,
}

/// The attention half of a gated block.
pub fn gated(size: Size, family: Family, width: usize, heads: Heads, rows: &[u32], media: &[MediaSeen]) -> Case {
    let mut draft = Draft::new();
    let images = images(&mut draft, size, heads, rows);
    let layer = images.layer;
    let inner = heads.all();
    let (kind, gates) = match family {
        Family::OpenFlamingo => (Norm::Layer, 1),
        Family::Idefics => (Norm::Rms, width),
        Family::Llama => (Norm::Rms, 1),
    };
    let x = draft.graph.input(Axis::Tokens, 1, width);
    let (weight, bias) = (draft.factors(width), (kind == Norm::Layer).then(|| draft.vector(width)));
    let (query_weight, out_weight) = (draft.matrix(inner, width), draft.matrix(width, inner));
    // Above 0: what is zero times a negative gate could be added to -0 unseen.
    let gate = if family == Family::Llama { draft.head_factors(gates) } else { draft.vector(gates) };
    let normed = draft.graph.norm(x, kind, weight, bias, 1e-5);
    let query = draft.graph.linear(normed, query_weight, None, Epilogue::default());
    if family != Family::OpenFlamingo {
        let weight = draft.factors(heads.width);
        draft.graph.norm_groups(query, Norm::Rms, weight, None, 1e-6);
    }
    let attended = draft.graph.attention(query, KvSource::Pages(layer, Mask::Media), heads.count, heads.scale());
    let seeing_only = family == Family::Llama;
    let added = Epilogue { gate: Some(gate), residual: Some(x), seeing_only, ..Epilogue::default() };
    let out = draft.graph.linear(attended, out_weight, None, added);
    let (count, of) = (media.len(), rows_name(rows));
    let name = format!("gated/{family:?}/{count}x{width}to{of}/{}", heads.name());
    Case { exact_without_image: true, ..draft.stored(name.to_lowercase(), size, &[x], out, images.seen_by(media)) }
}
