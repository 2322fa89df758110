//! A model folder of random weights: IDEFICS with hidden 1024, 12 layers, a gated block before every 4th, ViT-B/16 at
//! 224 pixels and a resampler of 6 x 16 x 96. Speed does not depend on the values of weights.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flamant::image::Image;
use flamant::{Options, Prompt};
use serde_json::{Map, Value, json};

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dtype {
    F32,
    Bf16,
}

const HIDDEN: usize = 1024;
const MLP: usize = 2816;
const LAYERS: usize = 12;
const INTERVAL: usize = 4;
const VOCABULARY: usize = 32_000;
const VISION: usize = 768;
const VISION_LAYERS: usize = 12;
const RESAMPLER: usize = 16 * 96;

/// The folder under `target/`, written if it is not there yet.
pub fn folder(dtype: Dtype) -> PathBuf {
    let name = match dtype {
        Dtype::F32 => "bench-model",
        Dtype::Bf16 => "bench-model-bf16",
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
    if !folder.join("model.safetensors").exists() {
        std::fs::create_dir_all(&folder).expect("target can be written");
        write_files(&folder);
        write_weights(&folder, dtype);
        write_prompt(&folder);
    }
    folder
}

/// `images` images and about `tokens` tokens, spread evenly.
pub fn prompt(images: usize, tokens: usize) -> Prompt {
    let mut prompt = Prompt::new();
    // An image with its fences is three tokens, the sequence begins with one.
    let letters = (tokens - 1 - 3 * images) / images;
    for index in 0..images {
        let pixels = (0..224 * 224 * 3).map(|i| ((i * 7 + index * 31) % 251) as u8).collect();
        prompt.image(Image::from_rgb(224, 224, pixels).expect("the size is right")).expect("few images");
        let text: String = (0..letters).map(|i| char::from(b'a' + ((i * 5 + index) % 26) as u8)).collect();
        prompt.text(text).expect("few parts");
    }
    prompt
}

/// Bytes that a token must read at least: all weights of the decoder, its gated blocks and the output matrix.
pub fn decoder_bytes(dtype: Dtype) -> u64 {
    let used = |name: &str| {
        let side = ["vision_model", "perceiver", "embed_tokens", "cross_attn.k_proj", "cross_attn.v_proj"];
        !side.iter().any(|part| name.contains(part))
    };
    let size = if dtype == Dtype::F32 { 4 } else { 2 };
    tensors()
        .iter()
        .filter(|(name, _)| used(name))
        .map(|(_, shape)| shape.iter().product::<usize>() as u64 * size)
        .sum()
}

fn write_files(folder: &Path) {
    let config = json!({
        "model_type": "idefics", "architectures": ["IdeficsForVisionText2Text"], "vocab_size": VOCABULARY,
        "additional_vocab_size": 2, "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS,
        "num_attention_heads": 16, "cross_layer_interval": INTERVAL, "qk_layer_norms": true, "use_resampler": true,
        "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "tie_word_embeddings": false,
        "vision_config": {
            "embed_dim": VISION, "image_size": 224, "patch_size": 16, "intermediate_size": 4 * VISION,
            "num_hidden_layers": VISION_LAYERS, "num_attention_heads": 12, "num_channels": 3, "hidden_act": "gelu",
            "model_type": "idefics_vision",
        },
        "perceiver_config": {
            "use_resampler": true, "resampler_depth": 6, "resampler_n_heads": 16, "resampler_head_dim": 96,
            "resampler_n_latents": 64, "qk_layer_norms_perceiver": true, "model_type": "idefics_perciever",
        },
    });
    let letters = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
    let words = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(letters);
    // Added tokens have the ids after those of the vocabulary.
    let words = words.chain((29..VOCABULARY).map(|id| format!("<unused {id}>")));
    let vocabulary: Map<String, Value> = words.zip(0..).map(|(word, id)| (word, Value::from(id))).collect();
    let special = |(id, text): (usize, &str)| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let added =
        [(0, "<unk>"), (1, "<s>"), (2, "</s>"), (VOCABULARY, "<fake_token_around_image>"), (VOCABULARY + 1, "<image>")];
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.map(special), "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocabulary, "merges": []},
    });
    for (name, value) in [("config.json", config), ("tokenizer.json", tokenizer)] {
        std::fs::write(folder.join(name), value.to_string()).expect("target can be written");
    }
}

/// Name and shape of every tensor.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut list: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| list.push((name, shape.to_vec()));
    let norm = |name: &str| [format!("{name}.weight"), format!("{name}.bias")];
    let vision = "model.vision_model";
    add(format!("{vision}.embeddings.class_embedding"), &[VISION]);
    add(format!("{vision}.embeddings.patch_embedding.weight"), &[VISION, 3, 16, 16]);
    add(format!("{vision}.embeddings.position_embedding.weight"), &[197, VISION]);
    for name in ["pre_layrnorm", "post_layernorm"] {
        for name in norm(&format!("{vision}.{name}")) {
            add(name, &[VISION]);
        }
    }
    for layer in 0..VISION_LAYERS {
        let layer = format!("{vision}.encoder.layers.{layer}");
        for name in ["layer_norm1", "layer_norm2"] {
            for name in norm(&format!("{layer}.{name}")) {
                add(name, &[VISION]);
            }
        }
        for (name, out, input) in [
            ("self_attn.q_proj", VISION, VISION),
            ("self_attn.k_proj", VISION, VISION),
            ("self_attn.v_proj", VISION, VISION),
            ("self_attn.out_proj", VISION, VISION),
            ("mlp.fc1", 4 * VISION, VISION),
            ("mlp.fc2", VISION, 4 * VISION),
        ] {
            add(format!("{layer}.{name}.weight"), &[out, input]);
            add(format!("{layer}.{name}.bias"), &[out]);
        }
    }
    let resampler = "model.perceiver_resampler";
    add(format!("{resampler}.latents"), &[64, VISION]);
    for name in norm(&format!("{resampler}.layer_norm")) {
        add(name, &[VISION]);
    }
    for layer in 0..6 {
        let (attention, mlp) = (format!("{resampler}.blocks.{layer}.0"), format!("{resampler}.blocks.{layer}.1"));
        for name in ["context_layer_norm", "latents_layer_norm"] {
            for name in norm(&format!("{attention}.{name}")) {
                add(name, &[VISION]);
            }
        }
        for name in ["q_layer_norm", "k_layer_norm"] {
            for name in norm(&format!("{attention}.{name}")) {
                add(name, &[96]);
            }
        }
        for name in ["q_proj", "k_proj", "v_proj"] {
            add(format!("{attention}.{name}.weight"), &[RESAMPLER, VISION]);
        }
        add(format!("{attention}.output_proj.weight"), &[VISION, RESAMPLER]);
        for name in norm(&format!("{mlp}.ln")) {
            add(name, &[VISION]);
        }
        add(format!("{mlp}.fc.weight"), &[4 * VISION, VISION]);
        add(format!("{mlp}.c_proj.weight"), &[VISION, 4 * VISION]);
    }
    let block = |prefix: String, attention: &str, media: usize, add: &mut dyn FnMut(String, &[usize])| {
        for name in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("{prefix}.{name}.weight"), &[HIDDEN]);
        }
        for (name, input) in [("q_proj", HIDDEN), ("k_proj", media), ("v_proj", media), ("o_proj", HIDDEN)] {
            add(format!("{prefix}.{attention}.{name}.weight"), &[HIDDEN, input]);
        }
        for name in ["gate_proj", "up_proj"] {
            add(format!("{prefix}.mlp.{name}.weight"), &[MLP, HIDDEN]);
        }
        add(format!("{prefix}.mlp.down_proj.weight"), &[HIDDEN, MLP]);
    };
    for index in 0..LAYERS / INTERVAL {
        let prefix = format!("model.gated_cross_attn_layers.{index}");
        for gate in ["alpha_cross_attn", "alpha_dense"] {
            add(format!("{prefix}.{gate}"), &[1]);
        }
        for name in ["q_layer_norm", "k_layer_norm"] {
            add(format!("{prefix}.cross_attn.{name}.weight"), &[HIDDEN / 16]);
        }
        block(prefix, "cross_attn", VISION, &mut add);
    }
    for layer in 0..LAYERS {
        block(format!("model.layers.{layer}"), "self_attn", HIDDEN, &mut add);
    }
    add("model.norm.weight".into(), &[HIDDEN]);
    add("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN]);
    add("model.embed_tokens.additional_embedding.weight".into(), &[2, HIDDEN]);
    add("lm_head.weight".into(), &[VOCABULARY, HIDDEN]);
    add("lm_head.additional_fc.weight".into(), &[2, HIDDEN]);
    list
}

fn write_weights(folder: &Path, dtype: Dtype) {
    let (name, size) = match dtype {
        Dtype::F32 => ("F32", 4),
        Dtype::Bf16 => ("BF16", 2),
    };
    let tensors = tensors();
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for (tensor, shape) in &tensors {
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        header.insert(tensor.clone(), json!({"dtype": name, "shape": shape, "data_offsets": [begin, end]}));
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let partial = folder.join("partial");
    let mut file = BufWriter::new(File::create(&partial).expect("target can be written"));
    let mut write = |bytes: &[u8]| file.write_all(bytes).expect("target has room for the model");
    write(&(header.len() as u64).to_le_bytes());
    write(header.as_bytes());
    let mut state = 1u32;
    for (tensor, shape) in &tensors {
        let scale = match shape[..] {
            [_] if tensor.ends_with("bias") => 0.0,
            [_] => 1.0,
            _ => 2.0 / (shape[1..].iter().product::<usize>() as f32).sqrt(),
        };
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            let value = if shape.len() == 1 { scale } else { uniform * scale };
            match dtype {
                Dtype::F32 => write(&value.to_le_bytes()),
                Dtype::Bf16 => write(&half::bf16::from_f32(value).to_le_bytes()),
            }
        }
    }
    drop(file);
    std::fs::rename(partial, folder.join("model.safetensors")).expect("target can be written");
}

/// What the peer reads: the very tokens of [`prompt`].
fn write_prompt(folder: &Path) {
    let flamingo = flamant::Flamingo::open(folder, &Options::default()).expect("the synthetic model opens");
    let rendered = prompt(4, 128).render(flamingo.tokenizer()).expect("the synthetic prompt is right");
    let media: Vec<_> = rendered.media.iter().map(|seen| seen.range().next()).collect();
    let value = json!({"ids": rendered.ids, "media": media, "images": 4});
    std::fs::write(folder.join("prompt_ids.json"), value.to_string()).expect("target can be written");
}
