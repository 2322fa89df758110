//! A model whose heads of queries share heads of keys and values, with weights that are made up.

use std::path::Path;

use flamant::probe::{Batch, Capacity, Device, Dtype, ImagePages, MediaSeen, PageCount, Place, PlanKind, Probe};

const TOKENS: usize = 40;

/// The logits of all tokens of a prompt with an image, read in chunks of so many.
fn logits(probe: &mut Probe, image: ImagePages, chunk: usize) -> Vec<u32> {
    let tokens: Vec<usize> = (0..TOKENS).collect();
    let mut found = Vec::new();
    for chunk in tokens.chunks(chunk) {
        let list = |of: fn(usize) -> usize| chunk.iter().map(|&token| of(token) as u32).collect::<Vec<u32>>();
        // The first tokens see nothing.
        let media = |&token: &usize| if token < 7 { MediaSeen::NOTHING } else { MediaSeen::one(0) };
        let outputs: Vec<u32> = (0..chunk.len() as u32).collect();
        let batch = Batch {
            ids: &list(|token| token * 7 % 50),
            positions: &list(|token| token),
            sequences: &vec![0; chunk.len()],
            tables: &[&[2, 0, 1]],
            seen_images: &[image],
            media: &chunk.iter().map(media).collect::<Vec<_>>(),
            outputs: &outputs,
            ..Batch::default()
        };
        found.extend(probe.run(PlanKind::Text, &batch).unwrap().into_iter().map(f32::to_bits));
    }
    found
}

/// A prompt read whole, in chunks and token by token.
#[test]
fn a_model_with_grouped_queries_is_batch_invariant() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/idefics-80-kernels/model");
    let place = Place::new(Device::Emulated, Some(Dtype::Bf16));
    let exactly = |count| PageCount { least: count, most: count };
    let (pages, capacity) = ([exactly(3), exactly(1)], Capacity { images: 1, tokens: TOKENS });
    let (_, mut config) = Probe::folder(&place, &folder, pages, capacity).unwrap();
    assert!(config.decoder.heads > 1 && config.gated.heads > 1);
    (config.decoder.kv_heads, config.gated.kv_heads) = (1, 1);
    let mut probe = Probe::model(&place, &config, pages, capacity).unwrap();
    let side = config.vision.image_size;
    let pixels: Vec<u8> = (0..3 * side * side).map(|place| (place * 31 % 251) as u8).collect();
    let image = ImagePages { pages: &[0], rows: config.media_tokens() as u32 };
    probe.run(PlanKind::Media, &Batch { pixels: &[&pixels], images: &[image], ..Batch::default() }).unwrap();
    let whole = logits(&mut probe, image, TOKENS);
    assert!(whole.iter().all(|bits| f32::from_bits(*bits).is_finite()) && whole.iter().any(|bits| *bits != whole[0]));
    for chunk in [1, 6, 17] {
        assert_eq!(logits(&mut probe, image, chunk), whole, "in chunks of {chunk}");
    }
}
