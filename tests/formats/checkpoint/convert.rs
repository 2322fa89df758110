//! Conversions of a toy model: every family, every accepted layout of the sources, and every way in which they may
//! not fit.

mod damage;

use super::build::{archive, state_dictionary, tensor, write};
use super::{numbers, refused};
use flamant::Result;
use flamant::checkpoint::{Checkpoint, Dtype, read_json};
use flamant::convert::{ConvertOptions, convert, vision_heads};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use tempfile::TempDir;

/// Width of the language model, of the vision tower, of an attention inside.
const WIDTH: usize = 8;
const MEDIA: usize = 16;
const INNER: usize = 64;
/// Tokens: five of the vocabulary, one added, and OpenFlamingo's three.
const TOKENS: usize = 9;

/// Shapes by name. A tensor's first number tells where it is from, the others count on from there.
type Tensors = BTreeMap<String, Vec<usize>>;
const FROM_CHECKPOINT: usize = 1_000_000;
const FROM_LANGUAGE: usize = 2_000_000;
const FROM_VISION: usize = 3_000_000;

/// The sources of a model, before they become files.
struct Sources {
    checkpoint: Tensors,
    language: Tensors,
    vision: Tensors,
    config: Value,
    tokenizer: Value,
    /// More files by their path, which replace those of the same name.
    files: Vec<(&'static str, Vec<u8>)>,
    every: Option<usize>,
}

fn tensors(names: &[(&str, &[usize])]) -> Tensors {
    names.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
}

fn prefixed(prefix: &str, tensors: Tensors) -> Tensors {
    tensors.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
}

fn resampler() -> Tensors {
    let layer = tensors(&[
        ("0.norm_media.weight", &[MEDIA]),
        ("0.norm_media.bias", &[MEDIA]),
        ("0.norm_latents.weight", &[MEDIA]),
        ("0.norm_latents.bias", &[MEDIA]),
        ("0.to_q.weight", &[INNER, MEDIA]),
        ("0.to_kv.weight", &[2 * INNER, MEDIA]),
        ("0.to_out.weight", &[MEDIA, INNER]),
        ("1.0.weight", &[MEDIA]),
        ("1.0.bias", &[MEDIA]),
        ("1.1.weight", &[32, MEDIA]),
        ("1.3.weight", &[MEDIA, 32]),
    ]);
    let mut all = tensors(&[("latents", &[3, MEDIA]), ("norm.weight", &[MEDIA]), ("norm.bias", &[MEDIA])]);
    all.extend(prefixed("layers.0.", layer.clone()));
    all.extend(prefixed("layers.1.", layer));
    prefixed("perceiver.", all)
}

fn gated_block(prefix: &str) -> Tensors {
    let block = tensors(&[
        ("attn_gate", &[1]),
        ("ff_gate", &[1]),
        ("attn.norm.weight", &[WIDTH]),
        ("attn.norm.bias", &[WIDTH]),
        ("attn.to_q.weight", &[INNER, WIDTH]),
        ("attn.to_kv.weight", &[2 * INNER, MEDIA]),
        ("attn.to_out.weight", &[WIDTH, INNER]),
        ("ff.0.weight", &[WIDTH]),
        ("ff.0.bias", &[WIDTH]),
        ("ff.1.weight", &[32, WIDTH]),
        ("ff.3.weight", &[WIDTH, 32]),
    ]);
    prefixed(prefix, block)
}

fn open_clip() -> Tensors {
    let all = tensors(&[
        ("class_embedding", &[MEDIA]),
        ("positional_embedding", &[5, MEDIA]),
        ("conv1.weight", &[MEDIA, 3, 2, 2]),
        ("ln_pre.weight", &[MEDIA]),
        ("ln_pre.bias", &[MEDIA]),
        ("ln_post.weight", &[MEDIA]),
        ("ln_post.bias", &[MEDIA]),
        ("proj", &[MEDIA, 4]),
        ("transformer.resblocks.0.ln_1.weight", &[MEDIA]),
        ("transformer.resblocks.0.ln_1.bias", &[MEDIA]),
        ("transformer.resblocks.0.ln_2.weight", &[MEDIA]),
        ("transformer.resblocks.0.ln_2.bias", &[MEDIA]),
        ("transformer.resblocks.0.attn.in_proj_weight", &[3 * MEDIA, MEDIA]),
        ("transformer.resblocks.0.attn.in_proj_bias", &[3 * MEDIA]),
        ("transformer.resblocks.0.attn.out_proj.weight", &[MEDIA, MEDIA]),
        ("transformer.resblocks.0.attn.out_proj.bias", &[MEDIA]),
        ("transformer.resblocks.0.mlp.c_fc.weight", &[32, MEDIA]),
        ("transformer.resblocks.0.mlp.c_fc.bias", &[32]),
        ("transformer.resblocks.0.mlp.c_proj.weight", &[MEDIA, 32]),
        ("transformer.resblocks.0.mlp.c_proj.bias", &[MEDIA]),
    ]);
    let text = tensors(&[
        ("logit_scale", &[]),
        ("text_projection", &[4, 4]),
        ("token_embedding.weight", &[7, 4]),
        ("positional_embedding", &[3, 4]),
        ("transformer.resblocks.0.ln_1.weight", &[4]),
    ]);
    let mut all = prefixed("visual.", all);
    all.extend(text);
    all
}

fn transformers_clip() -> Tensors {
    let mut all = tensors(&[
        ("embeddings.class_embedding", &[MEDIA]),
        ("embeddings.position_embedding.weight", &[5, MEDIA]),
        ("embeddings.patch_embedding.weight", &[MEDIA, 3, 2, 2]),
        ("post_layernorm.weight", &[MEDIA]),
        ("post_layernorm.bias", &[MEDIA]),
        ("encoder.layers.0.mlp.fc1.weight", &[32, MEDIA]),
        ("encoder.layers.0.mlp.fc1.bias", &[32]),
        ("encoder.layers.0.mlp.fc2.weight", &[MEDIA, 32]),
        ("encoder.layers.0.mlp.fc2.bias", &[MEDIA]),
    ]);
    for name in ["pre_layrnorm", "encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2"] {
        all.extend(["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![MEDIA])));
    }
    for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
        all.insert(format!("encoder.layers.0.self_attn.{name}.weight"), vec![MEDIA, MEDIA]);
        all.insert(format!("encoder.layers.0.self_attn.{name}.bias"), vec![MEDIA]);
    }
    let mut all = prefixed("vision_model.", all);
    all.extend(tensors(&[
        ("visual_projection.weight", &[4, MEDIA]),
        ("logit_scale", &[]),
        ("text_model.final.weight", &[4]),
    ]));
    all
}

fn tokenizer() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [added(5, "</s>", true)],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}, "merges": []},
    })
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false,
    })
}

/// MPT of two layers with a gated block in the second, as it is found in the wild: with aliases, leftovers and spare
/// rows.
fn mpt() -> Sources {
    let layer = tensors(&[
        ("norm_1.weight", &[WIDTH]),
        ("norm_2.weight", &[WIDTH]),
        ("attn.Wqkv.weight", &[3 * WIDTH, WIDTH]),
        ("attn.out_proj.weight", &[WIDTH, WIDTH]),
        ("ffn.up_proj.weight", &[32, WIDTH]),
        ("ffn.down_proj.weight", &[WIDTH, 32]),
    ]);
    let mut language = tensors(&[("transformer.wte.weight", &[12, WIDTH]), ("transformer.norm_f.weight", &[WIDTH])]);
    language.extend(prefixed("transformer.blocks.0.", layer.clone()));
    language.extend(prefixed("transformer.blocks.1.", layer));
    let mut checkpoint = gated_block("lang_encoder.transformer.blocks.1.gated_cross_attn_layer.");
    checkpoint.extend(resampler());
    checkpoint.extend(tensors(&[
        ("lang_encoder.transformer.wte.weight", &[TOKENS, WIDTH]),
        ("lang_encoder.lm_head.weight", &[TOKENS, WIDTH]),
    ]));
    let config = json!({"model_type": "mpt", "n_layers": 2, "n_heads": 2, "d_model": WIDTH, "vocab_size": 12});
    Sources { checkpoint, language, vision: open_clip(), config, tokenizer: tokenizer(), files: vec![], every: None }
}

/// LLaMA, whose output matrix knows nothing of the added tokens.
fn llama() -> Sources {
    let mut layer = tensors(&[("input_layernorm.weight", &[WIDTH]), ("post_attention_layernorm.weight", &[WIDTH])]);
    for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        layer.insert(format!("self_attn.{name}.weight"), vec![WIDTH, WIDTH]);
    }
    layer.extend(tensors(&[
        ("mlp.gate_proj.weight", &[32, WIDTH]),
        ("mlp.up_proj.weight", &[32, WIDTH]),
        ("mlp.down_proj.weight", &[WIDTH, 32]),
        ("self_attn.rotary_emb.inv_freq", &[4]),
    ]));
    let mut language = tensors(&[
        ("model.embed_tokens.weight", &[6, WIDTH]),
        ("model.norm.weight", &[WIDTH]),
        ("lm_head.weight", &[6, WIDTH]),
    ]);
    language.extend(prefixed("model.layers.0.", layer.clone()));
    language.extend(prefixed("model.layers.1.", layer));
    let mut checkpoint = gated_block("lang_encoder.model.layers.1.gated_cross_attn_layer.");
    checkpoint.extend(resampler());
    checkpoint.extend(tensors(&[("lang_encoder.model.embed_tokens.weight", &[TOKENS, WIDTH])]));
    let config = json!({"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": WIDTH, "intermediate_size": 32});
    Sources { checkpoint, language, config, ..mpt() }
}

/// GPT-NeoX with both matrices trained, and a block in every layer.
fn neox() -> Sources {
    let mut layer = Tensors::new();
    for (name, rows, columns) in [
        ("attention.query_key_value", 3 * WIDTH, WIDTH),
        ("attention.dense", WIDTH, WIDTH),
        ("mlp.dense_h_to_4h", 32, WIDTH),
        ("mlp.dense_4h_to_h", WIDTH, 32),
    ] {
        layer.insert(format!("{name}.weight"), vec![rows, columns]);
        layer.insert(format!("{name}.bias"), vec![rows]);
    }
    for name in ["input_layernorm", "post_attention_layernorm"] {
        layer.extend(["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![WIDTH])));
    }
    layer.extend(tensors(&[("attention.bias", &[1, 1, 4, 4]), ("attention.masked_bias", &[])]));
    let mut language = tensors(&[
        ("gpt_neox.embed_in.weight", &[12, WIDTH]),
        ("gpt_neox.final_layer_norm.weight", &[WIDTH]),
        ("gpt_neox.final_layer_norm.bias", &[WIDTH]),
        ("embed_out.weight", &[12, WIDTH]),
    ]);
    language.extend(prefixed("gpt_neox.layers.0.", layer.clone()));
    language.extend(prefixed("gpt_neox.layers.1.", layer));
    let mut checkpoint = resampler();
    for layer in 0..2 {
        checkpoint.extend(gated_block(&format!("lang_encoder.gpt_neox.layers.{layer}.gated_cross_attn_layer.")));
    }
    checkpoint.extend(tensors(&[
        ("lang_encoder.gpt_neox.embed_in.weight", &[12, WIDTH]),
        ("lang_encoder.embed_out.weight", &[12, WIDTH]),
        ("lang_encoder.gpt_neox.layers.0.decoder_layer.attention.masked_bias", &[]),
    ]));
    let config = json!({"model_type": "gpt_neox", "num_hidden_layers": 2, "num_attention_heads": 1, "hidden_size": WIDTH, "intermediate_size": 32});
    Sources { checkpoint, language, config, ..mpt() }
}

/// A safetensors file whose numbers tell where they are from.
fn file(tensors: &Tensors, origin: usize) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        for number in 0..shape.iter().product() {
            data.extend(((origin + number) as f32).to_le_bytes());
        }
        entries
            .push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}}"#, data.len()));
    }
    let mut file = super::build::safetensors(&format!("{{{}}}", entries.join(",")), 0);
    file.extend(data);
    file
}

/// The sources as files, and where the model goes.
struct Files {
    folder: TempDir,
    options: ConvertOptions,
}

impl Sources {
    fn write(&self) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let (language, vision) = (folder.path().join("language"), folder.path().join("vision"));
        fs::create_dir_all(&language).unwrap();
        fs::create_dir_all(&vision).unwrap();
        let checkpoint = write(folder.path(), "checkpoint.pt", &file(&self.checkpoint, FROM_CHECKPOINT));
        write(&language, "model.safetensors", &file(&self.language, FROM_LANGUAGE));
        write(&language, "config.json", self.config.to_string().as_bytes());
        write(&language, "tokenizer.json", self.tokenizer.to_string().as_bytes());
        let vision_model = write(&vision, "vision.safetensors", &file(&self.vision, FROM_VISION));
        for (name, bytes) in &self.files {
            write(folder.path(), name, bytes);
        }
        let output = folder.path().join("output");
        let options = ConvertOptions::new(checkpoint, language, vision_model, output).cross_attn_every(self.every);
        Files { folder, options }
    }

    fn convert(&self) -> Model {
        let files = self.write();
        convert(&files.options, &mut |_, _| ()).unwrap();
        files.model()
    }
}

impl Files {
    fn run(&self) -> Result<()> {
        convert(&self.options, &mut |_, _| ())
    }

    fn model(self) -> Model {
        let output = self.options.output.clone();
        let json = |name: &str| read_json(&output.join(name), 1 << 20).unwrap();
        Model {
            weights: Checkpoint::open(&output).unwrap(),
            config: json("config.json"),
            tokenizer: json("tokenizer.json"),
            tokenizer_config: json("tokenizer_config.json"),
            output,
            _folder: self.folder,
        }
    }
}

/// A converted model.
struct Model {
    weights: Checkpoint,
    config: Value,
    tokenizer: Value,
    tokenizer_config: Value,
    output: PathBuf,
    _folder: TempDir,
}

impl Model {
    /// That a tensor has this shape and the numbers of its origin.
    fn holds(&self, name: &str, origin: usize, shape: &[usize]) {
        assert_eq!((self.weights.dtype(name), self.weights.shape(name)), (Some(Dtype::F32), Some(shape)), "{name}");
        let expected: Vec<f32> = (0..shape.iter().product()).map(|number: usize| (origin + number) as f32).collect();
        assert_eq!(numbers(&self.weights, name), expected, "{name}");
    }
}

#[test]
fn mpt_becomes_one_folder() {
    let mut sources = mpt();
    for name in ["lang_encoder.old_decoder_blocks.0.norm_1.weight", "vision_encoder.conv1.weight"] {
        sources.checkpoint.insert(name.to_owned(), vec![3]);
    }
    let generation = br#"{"eos_token_id": 5, "max_length": 20}"#;
    sources.files.push(("language/generation_config.json", generation.to_vec()));
    let model = sources.convert();
    let generation = fs::read(model.output.join("generation_config.json")).unwrap();
    // Its answers end with the end of a chunk, whatever the language model alone ended with.
    assert_eq!(serde_json::from_slice::<Value>(&generation).unwrap(), json!({"eos_token_id": 6, "max_length": 20}));
    model.holds("lang_encoder.transformer.wte.weight", FROM_CHECKPOINT, &[TOKENS, WIDTH]);
    model.holds("lang_encoder.transformer.blocks.0.attn.Wqkv.weight", FROM_LANGUAGE, &[3 * WIDTH, WIDTH]);
    model.holds("lang_encoder.transformer.blocks.1.gated_cross_attn_layer.attn_gate", FROM_CHECKPOINT, &[1]);
    model.holds("perceiver.layers.1.0.to_kv.weight", FROM_CHECKPOINT, &[2 * INNER, MEDIA]);
    model.holds("vision_encoder.positional_embedding", FROM_VISION, &[5, MEDIA]);
    model.holds("vision_encoder.proj", FROM_VISION, &[MEDIA, 4]);
    let expected = resampler().len() + 11 + sources.language.len() + 20;
    assert_eq!(model.weights.names().count(), expected, "{:?}", model.weights.names().collect::<Vec<_>>());
    assert_eq!(
        model.config,
        json!({
            "model_type": "open_flamingo",
            "cross_attn_every_n_layers": 2,
            "eoc_token_id": 6,
            "media_token_id": 7,
            "vocab_size": TOKENS,
            "vision_config": {
                "hidden_size": MEDIA, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
                "image_size": 4, "patch_size": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
            },
            "text_config": sources.config,
        })
    );
    let added: Vec<_> = model.tokenizer["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (&token["content"], &token["id"]))
        .collect();
    assert_eq!(json!(added), json!([["</s>", 5], ["<|endofchunk|>", 6], ["<image>", 7], ["<PAD>", 8]]));
    assert_eq!(
        model.tokenizer_config,
        json!({"additional_special_tokens": ["<|endofchunk|>", "<image>"], "pad_token": "<PAD>"})
    );
    let mut files: Vec<_> =
        fs::read_dir(&model.output).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files, expected);
}

#[test]
fn progress_reaches_the_total() {
    let files = mpt().write();
    let mut reports = Vec::new();
    convert(&files.options, &mut |done, total| reports.push((done, total))).unwrap();
    let bytes = files.model().weights.bytes();
    assert!(reports.is_sorted() && reports.iter().all(|&(_, total)| total == bytes), "{reports:?}");
    assert_eq!(reports.last(), Some(&(bytes, bytes)));
}

#[test]
fn llama_keeps_the_rows_that_its_head_has() {
    let model = llama().convert();
    model.holds("lang_encoder.model.embed_tokens.weight", FROM_CHECKPOINT, &[TOKENS, WIDTH]);
    model.holds("lang_encoder.lm_head.weight", FROM_LANGUAGE, &[6, WIDTH]);
    assert!(!model.weights.names().any(|name| name.contains("inv_freq")));
}

#[test]
fn spare_rows_are_dropped() {
    let model = neox().convert();
    model.holds("lang_encoder.gpt_neox.embed_in.weight", FROM_CHECKPOINT, &[TOKENS, WIDTH]);
    model.holds("lang_encoder.embed_out.weight", FROM_CHECKPOINT, &[TOKENS, WIDTH]);
    assert_eq!(model.config["cross_attn_every_n_layers"], 1);
    assert!(!model.weights.names().any(|name| name.ends_with("attention.bias") || name.ends_with("masked_bias")));
}

#[test]
fn the_other_names_of_a_checkpoint() {
    // Blocks under their alias, duplicates of them, wrapped and frozen tensors of the language model, `module.` in
    // front.
    let usual = mpt();
    let block = "lang_encoder.transformer.blocks.1.gated_cross_attn_layer.";
    let alias = "lang_encoder.gated_cross_attn_layers.1.";
    let mut aliased = mpt();
    aliased.checkpoint =
        usual.checkpoint.iter().map(|(name, shape)| (name.replace(block, alias), shape.clone())).collect();
    let mut both = mpt();
    both.checkpoint.extend(gated_block(alias));
    let mut wrapped = mpt();
    wrapped.checkpoint.insert("lang_encoder.transformer.blocks.0.decoder_layer.norm_1.weight".to_owned(), vec![WIDTH]);
    let mut parallel = mpt();
    parallel.checkpoint = prefixed("module.", usual.checkpoint.clone());
    // As sharded training with checkpoints of activations saves them, compiled.
    let mut sharded = mpt();
    let inside = |name: &str| {
        let name =
            name.replace("cross_attn_layer.", "cross_attn_layer._fsdp_wrapped_module._checkpoint_wrapped_module.");
        name.replace("perceiver.", "_orig_mod.perceiver._fsdp_wrapped_module.")
    };
    sharded.checkpoint = usual.checkpoint.iter().map(|(name, shape)| (inside(name), shape.clone())).collect();
    let expected = usual.convert();
    let cases = [(aliased, false), (both, false), (wrapped, true), (parallel, false), (sharded, false)];
    for (sources, trained_norm) in cases {
        let model = sources.convert();
        assert!(model.weights.names().eq(expected.weights.names()));
        let origin = if trained_norm { FROM_CHECKPOINT } else { FROM_LANGUAGE };
        model.holds("lang_encoder.transformer.blocks.0.norm_1.weight", origin, &[WIDTH]);
        model.holds(&format!("{block}ff.1.weight"), FROM_CHECKPOINT, &[32, WIDTH]);
    }
}

#[test]
fn a_checkpoint_of_torch() {
    let entries: Vec<(&str, Vec<u8>, usize)> = mpt()
        .checkpoint
        .keys()
        .zip(mpt().checkpoint.values())
        .map(|(name, shape)| {
            let elements: usize = shape.iter().product();
            let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
            let strides: Vec<i64> = (0..shape.len()).map(|dimension| shape[dimension + 1..].iter().product()).collect();
            let name: &str = name.clone().leak();
            (name, tensor("BFloat16Storage", name, elements as i64, 0, &shape, &strides), 2 * elements)
        })
        .collect();
    let state: Vec<_> = entries.iter().map(|(name, tensor, _)| (*name, tensor.clone())).collect();
    let records: Vec<_> = entries.iter().map(|(name, _, length)| (*name, *length)).collect();
    let mut sources = mpt();
    sources.files.push(("checkpoint.pt", archive(&state_dictionary(&state), &records)));
    let model = sources.convert();
    assert_eq!(model.weights.dtype("perceiver.latents"), Some(Dtype::Bf16));
    assert_eq!(model.weights.dtype("lang_encoder.transformer.norm_f.weight"), Some(Dtype::F32));
}

#[test]
fn a_language_model_in_shards_and_without_its_base() {
    let mut sources = mpt();
    let (first, second) = sources.language.clone().into_iter().partition(|(name, _)| name.contains("blocks.0"));
    let short = |tensors: Tensors| {
        tensors.into_iter().map(|(name, shape)| (name.replace("transformer.", ""), shape)).collect::<Tensors>()
    };
    let (first, second) = (short(first), short(second));
    let shard = |names: &Tensors, file: &str| {
        names.keys().map(|name| (name.clone(), file.into())).collect::<Vec<(String, Value)>>()
    };
    let map: serde_json::Map<_, _> = shard(&first, "1.bin").into_iter().chain(shard(&second, "2.bin")).collect();
    sources.files.push(("language/1.bin", file(&first, FROM_LANGUAGE)));
    sources.files.push(("language/2.bin", file(&second, FROM_LANGUAGE)));
    sources.files.push(("language/model.safetensors.index.json", json!({"weight_map": map}).to_string().into_bytes()));
    let files = sources.write();
    fs::remove_file(files.options.language_model.join("model.safetensors")).unwrap();
    files.run().unwrap();
    files.model().holds("lang_encoder.transformer.blocks.1.norm_2.weight", FROM_LANGUAGE, &[WIDTH]);
}

#[test]
fn vision_towers_of_either_naming() {
    let mut sources = mpt();
    sources.vision = transformers_clip();
    let tower = json!({"hidden_size": MEDIA, "num_attention_heads": 4, "hidden_act": "gelu"});
    let config = json!({"model_type": "clip", "vision_config": tower});
    sources.files.push(("vision/config.json", config.to_string().into_bytes()));
    let model = sources.convert();
    model.holds("vision_encoder.encoder.layers.0.self_attn.k_proj.weight", FROM_VISION, &[MEDIA, MEDIA]);
    model.holds("vision_encoder.visual_projection.weight", FROM_VISION, &[4, MEDIA]);
    assert!(!model.weights.names().any(|name| name.contains("text") || name.contains("logit")));
    assert_eq!(
        (&model.config["vision_config"]["num_attention_heads"], &model.config["vision_config"]["hidden_act"]),
        (&json!(4), &json!("gelu"))
    );

    let mut bare = mpt();
    bare.vision = open_clip()
        .into_iter()
        .filter_map(|(name, shape)| Some((name.strip_prefix("visual.")?.to_owned(), shape)))
        .collect();
    let config = json!({"model_cfg": {"quick_gelu": true, "vision_cfg": {"width": MEDIA, "head_width": 8}}});
    bare.files.push(("vision/open_clip_config.json", config.to_string().into_bytes()));
    let model = bare.convert();
    model.holds("vision_encoder.conv1.weight", FROM_VISION, &[MEDIA, 3, 2, 2]);
    assert_eq!(model.config["vision_config"]["num_attention_heads"], 2);

    // A configuration of something else is none of ours.
    let mut foreign = mpt();
    foreign.files.push(("vision/config.json", br#"{"model_type": "mpt", "num_attention_heads": 3}"#.to_vec()));
    assert_eq!(foreign.convert().config["vision_config"]["num_attention_heads"], 1);
}

#[test]
fn heads_by_width() {
    let widths = [(16, 1), (24, 1), (32, 2), (384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)];
    assert!(widths.into_iter().all(|(width, heads)| vision_heads(width) == heads));
}

#[test]
fn tokens_that_are_there_already() {
    // Padding that only the map of special tokens names, a token of the vocabulary, one that was added.
    let mut sources = mpt();
    sources.tokenizer["model"]["vocab"]["<image>"] = 5.into();
    sources.tokenizer["added_tokens"][0] = added(6, "<|endofchunk|>", false);
    sources
        .files
        .push(("language/special_tokens_map.json", br#"{"pad_token": "a", "eos_token": {"content": "b"}}"#.to_vec()));
    sources
        .files
        .push(("language/tokenizer_config.json", br#"{"added_tokens_decoder": {}, "eos_token": null}"#.to_vec()));
    let model = sources.convert();
    assert_eq!(
        [&model.config["eoc_token_id"], &model.config["media_token_id"], &model.config["vocab_size"]],
        [6, 5, 7]
    );
    assert_eq!(model.tokenizer["added_tokens"][0]["special"], true);
    let config = &model.tokenizer_config;
    assert_eq!((&config["pad_token"], &config["eos_token"]), (&json!("a"), &json!({"content": "b"})));
    assert_eq!(config["added_tokens_decoder"]["5"]["content"], "<image>");

    // Nothing names padding, yet training knew of one: its embedding has no row for another.
    let mut sources = mpt();
    sources.checkpoint.insert("lang_encoder.transformer.wte.weight".to_owned(), vec![TOKENS - 1, WIDTH]);
    let model = sources.convert();
    assert_eq!(model.config["vocab_size"], TOKENS - 1);
    assert!(model.tokenizer_config.get("pad_token").is_none());
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let files = mpt().write();
    let interrupted = catch_unwind(AssertUnwindSafe(|| convert(&files.options, &mut |_, _| panic!("interrupted"))));
    assert!(interrupted.is_err() && !files.options.output.exists());
    fs::create_dir(&files.options.output).unwrap();
    files.run().unwrap();
    let output = files.options.output.display().to_string();
    refused("a second conversion", &format!("{output}: output: expected a new or empty folder"), || files.run());
    assert!(files.options.output.join("config.json").exists());
}

type Change = fn(&mut Sources);

/// Takes a tensor out.
fn without(tensors: &mut Tensors, name: &str) {
    tensors.remove(name).expect(name);
}

/// Gives a tensor another shape, or adds it.
fn with(tensors: &mut Tensors, name: &str, shape: &[usize]) {
    tensors.insert(name.to_owned(), shape.to_vec());
}

const GATED: &str = "lang_encoder.transformer.blocks.1.gated_cross_attn_layer.";

#[test]
fn parts_that_do_not_fit() {
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "no latents",
            |s| without(&mut s.checkpoint, "perceiver.latents"),
            "checkpoint.pt: perceiver.latents: expected a tensor of this name",
        ),
        (
            "half a resampler layer",
            |s| without(&mut s.checkpoint, "perceiver.layers.1.0.to_out.weight"),
            "perceiver.layers.1.0.to_out.weight: expected a tensor",
        ),
        (
            "no resampler",
            |s| s.checkpoint.retain(|name, _| !name.starts_with("perceiver")),
            "perceiver.latents: expected a tensor",
        ),
        (
            "a missing resampler layer",
            |s| s.checkpoint.retain(|name, _| !name.starts_with("perceiver.layers.0")),
            "perceiver.layers.0.0.to_q.weight: expected a tensor",
        ),
        (
            "a resampler layer at the end of the world",
            |s| with(&mut s.checkpoint, "perceiver.layers.9999.0.to_q.weight", &[INNER, MEDIA]),
            "perceiver.layers.2.0.to_q.weight: expected a tensor",
        ),
        (
            "a layer number that wraps",
            |s| with(&mut s.checkpoint, "perceiver.layers.18446744073709551615.0.to_q.weight", &[1]),
            "expected only tensors of the architecture",
        ),
        (
            "a resampler of another width",
            |s| with(&mut s.checkpoint, "perceiver.latents", &[3, 24]),
            "perceiver.latents: expected shape [3, 16], found [3, 24]",
        ),
        (
            "latents that are a number",
            |s| with(&mut s.checkpoint, "perceiver.latents", &[]),
            "perceiver.latents: expected a matrix, found shape []",
        ),
        (
            "keys without values",
            |s| with(&mut s.checkpoint, "perceiver.layers.0.0.to_kv.weight", &[INNER, MEDIA]),
            "to_kv.weight: expected shape [128, 16], found [64, 16]",
        ),
        (
            "half a head",
            |s| with(&mut s.checkpoint, "perceiver.layers.0.0.to_q.weight", &[96, MEDIA]),
            "to_q.weight: expected rows for heads of width 64, found 96",
        ),
        (
            "an empty matrix of a huge width",
            |s| with(&mut s.checkpoint, "perceiver.layers.0.0.to_q.weight", &[1 << 40, 0]),
            "to_q.weight: expected a matrix",
        ),
        (
            "a resampler part we do not know",
            |s| with(&mut s.checkpoint, "perceiver.layers.0.2.weight", &[1]),
            "perceiver.layers.0.2.weight: expected only tensors of the architecture",
        ),
        (
            "no gated blocks",
            |s| s.checkpoint.retain(|name, _| !name.contains("gated")),
            "gated_cross_attn_layer: expected gated blocks, found none",
        ),
        (
            "half a gated block",
            |s| without(&mut s.checkpoint, &format!("{GATED}ff_gate")),
            "blocks.1.gated_cross_attn_layer.ff_gate: expected a tensor",
        ),
        (
            "a gated block of another width",
            |s| with(&mut s.checkpoint, &format!("{GATED}ff.3.weight"), &[4, 32]),
            "ff.3.weight: expected shape [8, 32], found [4, 32]",
        ),
        (
            "a gated block part we do not know",
            |s| with(&mut s.checkpoint, &format!("{GATED}ff.4.weight"), &[1]),
            "ff.4.weight: expected only tensors of the architecture",
        ),
        (
            "a gated block in the first layer only",
            |s| {
                s.checkpoint = s
                    .checkpoint
                    .iter()
                    .map(|(name, shape)| (name.replace("blocks.1", "blocks.0"), shape.clone()))
                    .collect()
            },
            "expected blocks in layers {0, 1} of 2, found {0}",
        ),
        (
            "a gated block behind the last layer",
            |s| s.checkpoint.extend(gated_block(&GATED.replace("blocks.1", "blocks.3"))),
            "expected blocks in layers {1} of 2, found {1, 3}",
        ),
        (
            "another interval than asked for",
            |s| s.every = Some(4),
            "interval: expected every 4 layers as asked for, found blocks in layers {1}, which is every 2",
        ),
        (
            "a tensor of nothing",
            |s| with(&mut s.checkpoint, "optimizer.step", &[1]),
            "optimizer.step: expected a tensor under perceiver.",
        ),
        (
            "a tensor that the language model lacks",
            |s| with(&mut s.checkpoint, "lang_encoder.transformer.wpe.weight", &[1]),
            "lang_encoder.transformer.wpe.weight: expected a tensor that",
        ),
        (
            "a trained tensor of another shape",
            |s| with(&mut s.checkpoint, "lang_encoder.transformer.norm_f.weight", &[4]),
            "checkpoint.pt: lang_encoder.transformer.norm_f.weight: expected shape [8], found [4]",
        ),
        (
            "an embedding of too few rows",
            |s| with(&mut s.checkpoint, "lang_encoder.transformer.wte.weight", &[7, WIDTH]),
            "wte.weight: expected at least 8 rows of 8, one for each token, found shape [7, 8]",
        ),
        (
            "an embedding of another width",
            |s| with(&mut s.checkpoint, "lang_encoder.transformer.wte.weight", &[TOKENS, 4]),
            "wte.weight: expected at least 9 rows of 8",
        ),
        (
            "an embedding that is a vector",
            |s| with(&mut s.checkpoint, "lang_encoder.transformer.wte.weight", &[TOKENS]),
            "wte.weight: expected at least 9 rows of 8",
        ),
        (
            "nothing of the new tokens",
            |s| {
                without(&mut s.checkpoint, "lang_encoder.transformer.wte.weight");
                with(&mut s.language, "transformer.wte.weight", &[6, WIDTH])
            },
            "model.safetensors: transformer.wte.weight: expected at least 9 rows of 8",
        ),
        (
            "no embedding",
            |s| without(&mut s.language, "transformer.wte.weight"),
            "model.safetensors: transformer.wte.weight: expected a tensor",
        ),
        (
            "no final norm",
            |s| without(&mut s.language, "transformer.norm_f.weight"),
            "transformer.norm_f.weight: expected a tensor",
        ),
        (
            "half a layer",
            |s| without(&mut s.language, "transformer.blocks.1.ffn.up_proj.weight"),
            "transformer.blocks.1.ffn.up_proj.weight: expected a tensor",
        ),
        (
            "a layer of another shape",
            |s| with(&mut s.language, "transformer.blocks.1.ffn.up_proj.weight", &[16, WIDTH]),
            "transformer.blocks.1.ffn.up_proj.weight: expected shape [32, 8], found [16, 8]",
        ),
        (
            "a layer with more",
            |s| with(&mut s.language, "transformer.blocks.1.attn.q_ln.weight", &[WIDTH]),
            "transformer.blocks.0.attn.q_ln.weight: expected a tensor of this name, as in other layers",
        ),
        (
            "a first layer with more",
            |s| with(&mut s.language, "transformer.blocks.0.attn.q_ln.weight", &[WIDTH]),
            "transformer.blocks.1.attn.q_ln.weight: expected a tensor",
        ),
        (
            "more layers than configured",
            |s| s.config["n_layers"] = 1.into(),
            "config.json: n_layers: expected 2, as the weights have layers, found 1",
        ),
        (
            "fewer layers than configured",
            |s| s.config["n_layers"] = 3.into(),
            "transformer.blocks.2.norm_1.weight: expected a tensor",
        ),
        (
            "no layers",
            |s| s.config["n_layers"] = 0.into(),
            "config.json: n_layers: expected a whole number from 1 to 10000, found 0",
        ),
        (
            "layers without end",
            |s| s.config["n_layers"] = u64::MAX.into(),
            "config.json: n_layers: expected a whole number from 1 to 10000",
        ),
        (
            "layers that are text",
            |s| s.config["n_layers"] = "2".into(),
            r#"config.json: n_layers: expected a whole number from 1 to 10000, found "2""#,
        ),
        (
            "no width",
            |s| s.config["d_model"] = Value::Null,
            "config.json: d_model: expected a whole number from 1 to 1048576, found nothing",
        ),
        (
            "an unknown family",
            |s| s.config["model_type"] = "bloom".into(),
            r#"model_type: expected "mpt", "mosaic_gpt", "gpt_neox", "llama", "opt" or "gpt2", found "bloom""#,
        ),
        (
            "a configuration that is no JSON",
            |s| s.files.push(("language/config.json", b"{".to_vec())),
            "config.json: text: expected JSON",
        ),
        (
            "an untied model without head",
            |s| {
                *s = llama();
                without(&mut s.language, "lm_head.weight");
            },
            "lm_head.weight: expected",
        ),
        (
            "a head of another width",
            |s| {
                *s = llama();
                with(&mut s.language, "lm_head.weight", &[6, 4])
            },
            "lm_head.weight: expected",
        ),
        (
            "a vocabulary that is a number",
            |s| s.tokenizer["model"]["vocab"] = 7.into(),
            "tokenizer.json: model.vocab: expected an object or an array",
        ),
        (
            "a tokenizer that is a number",
            |s| s.tokenizer = 7.into(),
            "tokenizer.json: model.vocab: expected an object or an array",
        ),
        (
            "a token without number",
            |s| s.tokenizer["added_tokens"][0]["id"] = Value::Null,
            "tokenizer.json: added_tokens: expected ids below 16777216",
        ),
        (
            "a token of a huge number",
            |s| s.tokenizer["added_tokens"][0]["id"] = u64::MAX.into(),
            "tokenizer.json: added_tokens: expected ids below 16777216",
        ),
        (
            "tokens that are text",
            |s| s.tokenizer["added_tokens"] = "none".into(),
            "tokenizer.json: added_tokens: expected an array",
        ),
        (
            "more tokens than rows",
            |s| s.tokenizer["added_tokens"][0]["id"] = 100.into(),
            "wte.weight: expected at least 103 rows of 8",
        ),
        (
            "a tokenizer configuration that is a list",
            |s| s.files.push(("language/tokenizer_config.json", b"[]".to_vec())),
            "tokenizer_config.json: the whole file: expected a JSON object, found an array",
        ),
        (
            "a generation configuration that is no JSON",
            |s| s.files.push(("language/generation_config.json", b"{".to_vec())),
            "generation_config.json: text: expected JSON",
        ),
        (
            "no vision tower",
            |s| s.vision.retain(|name, _| !name.starts_with("visual")),
            "visual.conv1.weight: expected vision weights with the names of open_clip",
        ),
        (
            "half a vision layer",
            |s| without(&mut s.vision, "visual.transformer.resblocks.0.attn.in_proj_bias"),
            "vision.safetensors: visual.transformer.resblocks.0.attn.in_proj_bias: expected a tensor",
        ),
        (
            "no vision layers",
            |s| s.vision.retain(|name, _| !name.contains("c_fc")),
            "visual.transformer.resblocks.0.mlp.c_fc.weight: expected a tensor",
        ),
        (
            "a missing vision layer",
            |s| with(&mut s.vision, "visual.transformer.resblocks.2.ln_1.weight", &[MEDIA]),
            "visual.transformer.resblocks.1.ln_1.weight: expected a tensor",
        ),
        (
            "vision queries without keys",
            |s| with(&mut s.vision, "visual.transformer.resblocks.0.attn.in_proj_weight", &[MEDIA, MEDIA]),
            "in_proj_weight: expected shape [48, 16], found [16, 16]",
        ),
        (
            "positions of no square",
            |s| with(&mut s.vision, "visual.positional_embedding", &[6, MEDIA]),
            "visual.positional_embedding: expected shape a square grid and one more, found [6, 16]",
        ),
        (
            "patches of no square",
            |s| with(&mut s.vision, "visual.conv1.weight", &[MEDIA, 3, 2, 3]),
            "visual.conv1.weight: expected shape [width, 3, patch, patch], found [16, 3, 2, 3]",
        ),
        (
            "patches of a huge width",
            |s| with(&mut s.vision, "visual.conv1.weight", &[1 << 40, 3, 0, 0]),
            "visual.conv1.weight: expected shape [width, 3, patch, patch]",
        ),
        (
            "heads that do not divide",
            |s| {
                s.files.push((
                    "vision/config.json",
                    br#"{"model_type":"clip_vision_model","hidden_size":16,"num_attention_heads":3}"#.to_vec(),
                ))
            },
            "vision/config.json: num_attention_heads: expected heads that divide the width 16, found 3",
        ),
        (
            "no heads",
            |s| {
                s.files.push((
                    "vision/config.json",
                    br#"{"model_type":"clip_vision_model","hidden_size":16,"num_attention_heads":0}"#.to_vec(),
                ))
            },
            "num_attention_heads: expected heads that divide the width 16, found 0",
        ),
        ("an output that is a file", |s| s.files.push(("output", b"mine".to_vec())), "output: "),
    ];
    for (case, change, mention) in cases {
        let mut sources = mpt();
        change(&mut sources);
        let files = sources.write();
        refused(case, mention, || files.run());
        assert!(!files.options.output.is_dir(), "{case}: something was left behind");
    }
}

#[test]
fn sources_that_are_not_there() {
    let files = mpt().write();
    let options = |change: fn(&mut ConvertOptions)| {
        let mut options = files.options.clone();
        change(&mut options);
        options
    };
    let lost = [
        options(|options| options.checkpoint = "nowhere/checkpoint.pt".into()),
        options(|options| options.language_model = "nowhere/language".into()),
        options(|options| options.vision_model = "nowhere/vision.pt".into()),
    ];
    for options in &lost {
        refused("a lost source", "nowhere/", || convert(options, &mut |_, _| ()));
    }
    fs::remove_file(files.options.language_model.join("tokenizer.json")).unwrap();
    write(&files.options.language_model, "tokenizer.model", b"sentencepiece");
    refused("only sentencepiece", "tokenizer.json: expected a tokenizer.json, as AutoTokenizer", || files.run());
}
