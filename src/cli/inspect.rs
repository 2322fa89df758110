//! `flamant inspect`: what a model folder holds.

use std::io::Write;

use crate::config::ModelConfig;
use crate::{Device, GenerationConfig, Inspection, KvDtype, Limits, MediaMask, Memory};
use clap::Args;
use serde_json::json;

use super::input::FolderOrPreset;
use super::{Outcome, Run, output, print_json};

/// Show family, dimensions, parameters, number formats and gates of a model folder
#[derive(Args)]
#[command(after_help = "\
Examples:\n  flamant inspect MODEL --json\n  flamant inspect --preset flamingo-80b")]
pub struct Inspect {
    #[command(flatten)]
    model: FolderOrPreset,
    /// Print one line of JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Run for Inspect {
    fn run(self) -> Outcome {
        let inspection = self.model.inspection()?;
        if self.json { print_json(&report(&inspection)) } else { show(&inspection) }
    }
}

fn show(inspection: &Inspection) -> Outcome {
    let mut out = output()?;
    writeln!(out, "family      {}, language model {}", inspection.family.name, inspection.language_model)?;
    show_images(&mut out, &inspection.config, inspection.media_pages())?;
    let ModelConfig { gated, decoder, .. } = &inspection.config;
    let grouped = |heads: usize, kv_heads: usize, width: usize| match heads == kv_heads {
        true => format!("{heads} x {width}"),
        false => format!("{heads} x {width} on {kv_heads}"),
    };
    let seen = match inspection.template.media_mask {
        MediaMask::Following => "the image after it, none behind the last",
        MediaMask::PrecedingInDocument => "the last image before it in its document",
        MediaMask::PrecedingGroup => "the last group of neighbouring images before it",
        _ => "the last image before it",
    };
    let answer =
        if inspection.template.answer_sees_media { "an answer what the prompt's end sees" } else { "an answer none" };
    writeln!(out, "text        sees {seen}; {answer}")?;
    let heads = grouped(gated.heads, gated.kv_heads, gated.head_width);
    writeln!(out, "gated       {} blocks of {heads}", inspection.config.gated_blocks())?;
    let heads = grouped(decoder.heads, decoder.kv_heads, decoder.head_width());
    let (tokens, most) = (decoder.vocabulary, decoder.positions_max);
    writeln!(out, "decoder     {} layers of {heads}, {tokens} tokens, {most} positions", decoder.layers)?;
    let steps = steps().map(|(device, tokens, images)| format!("{tokens} tokens and {images} images on {device}"));
    show_generation(&mut out, &inspection.generation)?;
    writeln!(out, "steps       {}, less where memory is short", steps.join(", "))?;
    writeln!(out, "\n{:12} {:>15} {:>15}  tensors", "part", "parameters", "bytes")?;
    for (name, part) in &inspection.parts {
        let dtypes: Vec<String> = part.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
        writeln!(out, "{name:12} {:>15} {:>15}  {}", part.parameters, part.bytes, dtypes.join(", "))?;
    }
    let total: u64 = inspection.parts.values().map(|part| part.parameters).sum();
    writeln!(out, "{:12} {total:>15} {:>15}  {} unused", "all", inspection.bytes, inspection.unused)?;
    show_memory(&mut out, inspection)?;
    if !inspection.gates.is_empty() {
        writeln!(out, "\nlayer  tanh(attention gate)  tanh(dense gate)")?;
    }
    for gate in &inspection.gates {
        writeln!(out, "{:5}  {:20.4}  {:16.4}", gate.layer, gate.attention, gate.dense)?;
    }
    Ok(())
}

/// What images go through until gated blocks see them.
fn show_images(out: &mut impl Write, config: &ModelConfig, pages: usize) -> Outcome {
    let ModelConfig { vision, resampler, projector, .. } = config;
    let (side, patch) = (vision.image_size, vision.patch_size);
    let heads = format!("{} x {}", vision.heads, vision.width / vision.heads);
    let layers = match &vision.tiles {
        None => format!("{} layers", vision.layers),
        Some(tiles) => format!("{} + {} layers", vision.layers, tiles.global_layers),
    };
    writeln!(out, "vision      {layers} of {heads}, {side} px in patches of {patch}, {} tokens", vision.tokens_out())?;
    if let Some(tiles) = &vision.tiles {
        let taken: Vec<String> = tiles.intermediate_layers.iter().map(usize::to_string).collect();
        writeln!(
            out,
            "tiles       up to {} an image; the inputs of layers {} go on too",
            tiles.most,
            taken.join(", ")
        )?;
    }
    match (resampler, projector) {
        (Some(r), _) => {
            writeln!(out, "resampler   {} layers of {} x {}, {} latents", r.depth, r.heads, r.head_width, r.latents)?
        }
        (None, Some(width)) => writeln!(out, "projector   {} columns to {width}", vision.width_out())?,
        (None, None) => writeln!(out, "resampler   none")?,
    }
    let video = match resampler.as_ref().map(|resampler| resampler.frame_embeddings) {
        None => "not read: its frames can be given as images".to_owned(),
        Some(None) => "frames as a set, without embeddings of their place".to_owned(),
        Some(Some(count)) => format!("frames with {count} embeddings of their place"),
    };
    writeln!(out, "video       {video}")?;
    let (rows, most) = (config.media_tokens(), config.media_tokens_max());
    let rows = if rows == most { rows.to_string() } else { format!("{rows} to {most}") };
    writeln!(out, "images      {rows} rows of keys and values, {pages} media pages at most")?;
    Ok(())
}

/// Cards whose memory is said to hold so many tokens: gigabytes of a consumer's card, an A100 or H100, an H200.
const CARDS: [u64; 3] = [24, 80, 141];

/// Memory on devices of 2 and of 4 bytes a number, and what cards hold beside it.
fn show_memory(out: &mut impl Write, inspection: &Inspection) -> Outcome {
    writeln!(out, "\n{:12} {:>15} {:>15} {:>15} {:>15}", "memory", "weights", "activations", "token", "image")?;
    for (name, memory) in ["bf16 or f16", "f32"].iter().zip(&inspection.memory) {
        let Memory { weights, activations, token, image, .. } = memory;
        writeln!(out, "{name:12} {weights:>15} {activations:>15} {token:>15} {image:>15}")?;
    }
    let Memory { token_int8, image_int8, .. } = inspection.memory[0];
    writeln!(out, "{:12} {:>15} {:>15} {token_int8:>15} {image_int8:>15}", "int8 cache", "", "")?;
    for card in CARDS {
        let fits = |kv_dtype| inspection.memory[0].fits(card * 1_000_000_000, kv_dtype);
        match (fits(KvDtype::Auto), fits(KvDtype::Int8)) {
            (Some([tokens, images]), Some([more_tokens, more_images])) => {
                writeln!(out, "{card:>3} GB       in bf16 beside it {tokens} tokens, or {images} images")?;
                writeln!(out, "             with an int8 cache {more_tokens} tokens, or {more_images} images")?;
            }
            _ => writeln!(out, "{card:>3} GB       too small in bf16")?,
        }
    }
    Ok(())
}

/// What the folder says of generation: what is heeded, and what is not.
fn show_generation(out: &mut impl Write, generation: &GenerationConfig) -> Outcome {
    let tokens = |tokens: &[u32]| tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let end = match generation.end_tokens.as_slice() {
        [] => "the tokenizer's end token".to_owned(),
        named => format!("tokens {}", tokens(named)),
    };
    writeln!(out, "answers     end with {end}")?;
    if !generation.suppressed_tokens.is_empty() {
        writeln!(out, "            never hold tokens {}", tokens(&generation.suppressed_tokens))?;
    }
    let settings = |settings: &serde_json::Map<String, serde_json::Value>| {
        settings.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
    };
    if !generation.defaults.is_empty() {
        writeln!(
            out,
            "            applied where a request asks, and sampling and penalties by serve: {}",
            settings(&generation.defaults)
        )?;
    }
    if !generation.unsupported.is_empty() {
        writeln!(out, "            not supported: {}", settings(&generation.unsupported))?;
    }
    Ok(())
}

/// What a step holds at most on each kind of device, if nothing is said: tokens and images.
fn steps() -> [(&'static str, usize, usize); 2] {
    [("cpu", Device::Cpu), ("cuda", Device::Cuda(0))].map(|(name, device)| {
        let limits = Limits::default().on(device);
        (name, limits.max_batched_tokens.unwrap_or(0), limits.max_batched_images.unwrap_or(0))
    })
}

/// Bytes by format; what cards hold.
fn memory(inspection: &Inspection) -> serde_json::Value {
    let bytes = |memory: &Memory| {
        let Memory { weights, activations, token, image, token_int8, image_int8, .. } = memory;
        json!({
            "weights": weights, "activations": activations, "token": token, "image": image,
            "token_int8": token_int8, "image_int8": image_int8,
        })
    };
    let [half, single] = &inspection.memory;
    let fits = |kv_dtype| {
        let fits = CARDS.map(|card| {
            let fits = half.fits(card * 1_000_000_000, kv_dtype);
            (format!("{card} GB"), json!(fits.map(|[tokens, images]| json!({"tokens": tokens, "images": images}))))
        });
        fits.into_iter().collect::<serde_json::Map<_, _>>()
    };
    json!({
        "bf16": bytes(half), "f16": bytes(half), "f32": bytes(single),
        "bf16_fits": fits(KvDtype::Auto), "bf16_int8_cache_fits": fits(KvDtype::Int8),
    })
}

fn report(inspection: &Inspection) -> serde_json::Value {
    let parts: serde_json::Map<_, _> = inspection
        .parts
        .iter()
        .map(|(name, part)| {
            let value = json!({"parameters": part.parameters, "bytes": part.bytes, "tensors": part.dtypes});
            (name.replace(' ', "_"), value)
        })
        .collect();
    let (gates, generation) = (inspection.gates.iter(), &inspection.generation);
    let steps = steps().into_iter().map(|(device, tokens, images)| {
        (device.to_owned(), json!({"max_batched_tokens": tokens, "max_batched_images": images}))
    });
    let mut report = crate::json::config(&inspection.config);
    let more = json!({
        "family": inspection.family.name,
        "language_model": inspection.language_model,
        "media_mask": inspection.template.media_mask.name(),
        "answer_sees_media": inspection.template.answer_sees_media,
        "generation": {
            "end_tokens": generation.end_tokens, "suppressed_tokens": generation.suppressed_tokens,
            "not_applied": generation.defaults, "not_supported": generation.unsupported,
        },
        "steps": steps.collect::<serde_json::Map<_, _>>(),
        "parts": parts,
        "memory": memory(inspection),
        "gates": gates.map(|gate| json!({"layer": gate.layer, "attention": gate.attention, "dense": gate.dense})).collect::<Vec<_>>(),
        "bytes": inspection.bytes,
        "unused_tensors": inspection.unused,
    });
    if let (serde_json::Value::Object(report), serde_json::Value::Object(more)) = (&mut report, more) {
        report.extend(more);
    }
    report
}
