//! `flamant inspect`: what a model folder holds.

use std::io::Write;

use clap::Args;
use flamant::config::ModelConfig;
use flamant::{Device, GenerationConfig, Inspection, Limits, MediaMask};
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
    let ModelConfig { vision, resampler, gated, decoder } = &inspection.config;
    let mut out = output()?;
    writeln!(out, "family      {}, language model {}", inspection.family.name, inspection.language_model)?;
    let (side, patch) = (vision.image_size, vision.patch_size);
    let clip = format!("{} layers of {} x {}", vision.layers, vision.heads, vision.width / vision.heads);
    writeln!(out, "vision      {clip}, {side} px in patches of {patch}, {} tokens", vision.tokens_out())?;
    match resampler {
        Some(r) => {
            writeln!(out, "resampler   {} layers of {} x {}, {} latents", r.depth, r.heads, r.head_width, r.latents)?
        }
        None => writeln!(out, "resampler   none")?,
    }
    let video = match resampler.as_ref().map(|resampler| resampler.frame_embeddings) {
        None => "not read: its frames can be given as images".to_owned(),
        Some(None) => "frames as a set, without embeddings of their place".to_owned(),
        Some(Some(count)) => format!("frames with {count} embeddings of their place"),
    };
    writeln!(out, "video       {video}")?;
    let rows = inspection.config.media_tokens();
    writeln!(out, "images      {rows} rows of keys and values, {} media pages", inspection.media_pages())?;
    let seen = match inspection.template.media_mask {
        MediaMask::Following => "the image after it, none behind the last",
        MediaMask::PrecedingInDocument => "the last image before it in its document",
        _ => "the last image before it",
    };
    let answer =
        if inspection.template.answer_sees_media { "an answer what the prompt's end sees" } else { "an answer none" };
    writeln!(out, "text        sees {seen}; {answer}")?;
    let blocks = inspection.config.gated_blocks();
    writeln!(out, "gated       {blocks} blocks of {} x {}", gated.heads, gated.head_width)?;
    let heads = format!("{} x {}", decoder.heads, decoder.head_width());
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
    if !inspection.gates.is_empty() {
        writeln!(out, "\nlayer  tanh(attention gate)  tanh(dense gate)")?;
    }
    for gate in &inspection.gates {
        writeln!(out, "{:5}  {:20.4}  {:16.4}", gate.layer, gate.attention, gate.dense)?;
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
        writeln!(out, "            not applied unless a request asks: {}", settings(&generation.defaults))?;
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
    let mut report = flamant::json::config(&inspection.config);
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
        "gates": gates.map(|gate| json!({"layer": gate.layer, "attention": gate.attention, "dense": gate.dense})).collect::<Vec<_>>(),
        "bytes": inspection.bytes,
        "unused_tensors": inspection.unused,
    });
    if let (serde_json::Value::Object(report), serde_json::Value::Object(more)) = (&mut report, more) {
        report.extend(more);
    }
    report
}
