//! Attention on the processor in any batch: sequences that fork and share their first pages, chunks beside single
//! tokens, images that several sequences see, heads that share keys. Every row has the bits that it has alone.

use flamant::probe::{
    Axis, Batch, Capacity, Device, Graph, ImagePages, KvConfig, KvDtype, KvLayer, KvSource, KvSpace, MEDIA_PAGE_ROWS,
    Mask, MediaSeen, Numbers, PAGE_TOKENS, PageCount, Place, PlanKind, Plans, PoolShape, Probe,
};

/// Text pages and media pages, all filled beforehand.
const PAGES: usize = 40;
const IMAGES: usize = 5;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn rows(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(1 << 12) as f32 / 2048.0 - 1.0).collect()
    }
}

/// One operation of attention over pages.
#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    latents: usize,
    alibi: bool,
}

impl Shape {
    fn layer(self, space: KvSpace) -> KvLayer {
        KvLayer { space, layer: 0, kv_heads: self.kv_heads, head_width: self.head_width }
    }

    fn image_pages(self) -> usize {
        self.latents.div_ceil(MEDIA_PAGE_ROWS)
    }
}

/// The images, of which some keep fewer rows than they have.
fn images(shape: Shape, pages: &[u32]) -> Vec<ImagePages<'_>> {
    let rows = |image: usize| shape.latents - image % 2 * (shape.latents - 1) % MEDIA_PAGE_ROWS / 2;
    let of_image = |(image, pages)| ImagePages { pages, rows: rows(image) as u32 };
    pages.chunks(shape.image_pages()).enumerate().map(of_image).collect()
}

/// Opens attention under a mask over pages with numbers of their own.
fn open(shape: Shape, mask: Mask, kv_dtype: KvDtype, threads: usize) -> Probe {
    let Shape { heads, kv_heads, head_width, latents, .. } = shape;
    let width = kv_heads * head_width;
    let mut filler = Graph::new();
    let text = filler.input(Axis::Tokens, 1, 2 * width);
    let media = filler.input(Axis::Images, latents, 2 * width);
    let ([text_key, text_value], [media_key, media_value]) = (text.split(), media.split());
    filler.append(text_key, text_value, shape.layer(KvSpace::Text));
    filler.append(media_key, media_value, shape.layer(KvSpace::Media));
    let mut graph = Graph::new();
    let query = graph.input(Axis::Tokens, 1, heads * head_width);
    let space = if mask == Mask::Media { KvSpace::Media } else { KvSpace::Text };
    let out = graph.attention(query, KvSource::Pages(shape.layer(space), mask), heads, 0.4);
    let out = graph.select(out);
    let (media_plan, text_plan) = (filler.plan(&[text, media], None), graph.plan(&[query], Some(out)));
    let plans = Plans { media: media_plan, text: text_plan, features: None, tiles: None };
    let pool = |pages| PoolShape { layers: 1, kv_heads, head_width, pages: PageCount { least: pages, most: pages } };
    let kv_config = KvConfig { text: pool(PAGES), media: pool(IMAGES * shape.image_pages()) };
    let place = Place { threads, kv_dtype, ..Place::new(Device::Cpu, None) };
    let mut probe =
        Probe::open(&place, Numbers::default(), plans, kv_config, Capacity { images: 1, tokens: 64 }).unwrap();

    let (tokens, pages) = (PAGES * PAGE_TOKENS, media_pages(shape));
    let mut random = Random(3);
    let inputs = [random.rows(tokens * 2 * width), random.rows(IMAGES * latents * 2 * width)];
    let filled = Batch {
        inputs: &[&inputs[0], &inputs[1]],
        images: &images(shape, &pages),
        ids: &vec![0; tokens],
        positions: &(0..tokens as u32).collect::<Vec<_>>(),
        sequences: &vec![0; tokens],
        tables: &[&(0..PAGES as u32).collect::<Vec<_>>()],
        media: &vec![MediaSeen::NOTHING; tokens],
        ..Batch::default()
    };
    probe.run(PlanKind::Media, &filled).unwrap();
    probe
}

/// The pages of all images, one after the other; each has its own in no order.
fn media_pages(shape: Shape) -> Vec<u32> {
    (0..(IMAGES * shape.image_pages()) as u32).rev().collect()
}

/// A token with all that its row may depend on.
struct Token {
    sequence: u32,
    position: u32,
    media: MediaSeen,
    query: Vec<f32>,
}

fn run(probe: &mut Probe, shape: Shape, tables: &[Vec<u32>], tokens: &[&Token]) -> Vec<f32> {
    let pages = media_pages(shape);
    let list = |of: fn(&Token) -> u32| tokens.iter().map(|token| of(token)).collect::<Vec<u32>>();
    let queries: Vec<f32> = tokens.iter().flat_map(|token| token.query.iter().copied()).collect();
    let batch = Batch {
        inputs: &[&queries],
        ids: &vec![0; tokens.len()],
        positions: &list(|token| token.position),
        sequences: &list(|token| token.sequence),
        tables: &tables.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        seen_images: &images(shape, &pages),
        media: &tokens.iter().map(|token| token.media).collect::<Vec<_>>(),
        outputs: &(0..tokens.len() as u32).collect::<Vec<_>>(),
        ..Batch::default()
    };
    probe.run(PlanKind::Text, &batch).unwrap()
}

/// Sequences that begin as an earlier one does, up to anywhere, and go on in any pages.
fn forks(random: &mut Random, count: usize) -> Vec<Vec<u32>> {
    let mut tables: Vec<Vec<u32>> = Vec::new();
    for _ in 0..count {
        let mut table = match tables.len() {
            0 => Vec::new(),
            past => tables[random.below(past)].clone(),
        };
        table.truncate(random.below(table.len() + 2));
        table.extend((0..1 + random.below(5)).map(|_| random.below(PAGES) as u32));
        tables.push(table);
    }
    tables
}

/// Some consecutive tokens of each sequence, often one.
fn tokens(random: &mut Random, tables: &[Vec<u32>], width: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (sequence, table) in (0..).zip(tables) {
        let room = table.len() * PAGE_TOKENS;
        let count = [0, 1, 1, 1, 2, 3, 9, 30][random.below(8)].min(room);
        let first = random.below(room - count + 1);
        for position in first..first + count {
            let (first, images) = (random.below(IMAGES), random.below(4));
            let media = MediaSeen { first: first as u32, images: images.min(IMAGES - first) as u32 };
            tokens.push(Token { sequence, position: position as u32, media, query: random.rows(width) });
        }
    }
    tokens
}

fn assert_rows_are_as_alone(shape: Shape, mask: &Mask, kv_dtype: KvDtype) {
    let width = shape.heads * shape.head_width;
    let mut random = Random(shape.head_width as u64);
    let mut alone = open(shape, mask.clone(), kv_dtype, 1);
    for threads in [1, 3] {
        let mut together = open(shape, mask.clone(), kv_dtype, threads);
        for count in [2, 3, 5, 9, 20, 20, 40] {
            let tables = forks(&mut random, count);
            let tokens = tokens(&mut random, &tables, width);
            let all: Vec<&Token> = tokens.iter().collect();
            let found = run(&mut together, shape, &tables, &all);
            for (token, found) in tokens.iter().zip(found.chunks_exact(width)) {
                let want = run(&mut alone, shape, &tables, &[token]);
                let same = found.iter().zip(&want).all(|(found, want)| found.to_bits() == want.to_bits());
                assert!(same, "position {} of {:?}", token.position, tables[token.sequence as usize]);
            }
        }
    }
}

const SHAPES: [Shape; 4] = [
    Shape { heads: 3, kv_heads: 3, head_width: 20, latents: 9, alibi: true },
    Shape { heads: 6, kv_heads: 2, head_width: 64, latents: 64, alibi: false },
    Shape { heads: 1, kv_heads: 1, head_width: 80, latents: 66, alibi: true },
    Shape { heads: 10, kv_heads: 1, head_width: 48, latents: 1, alibi: true },
];

#[test]
fn tokens_attend_to_pages_as_they_do_alone() {
    for shape in SHAPES {
        let slopes = shape.alibi.then(|| (1..=shape.heads).map(|head| 0.5 / head as f32).collect());
        for kv_dtype in [KvDtype::Auto, KvDtype::Int8] {
            assert_rows_are_as_alone(shape, &Mask::Causal { slopes: slopes.clone() }, kv_dtype);
        }
    }
}

#[test]
fn tokens_attend_to_images_as_they_do_alone() {
    for shape in SHAPES {
        for kv_dtype in [KvDtype::Auto, KvDtype::Int8] {
            assert_rows_are_as_alone(shape, &Mask::Media, kv_dtype);
        }
    }
}
