//! `config.json`: absurd, missing, mistyped, or at odds with the weights.

use serde_json::{Value, json};

use super::{Case, Folder, all_refused, refused, run, text};

/// Whole numbers of an IDEFICS configuration, each with the most it may be.
const NUMBERS: [(&str, u64); 16] = [
    ("hidden_size", 65_536),
    ("num_attention_heads", 1024),
    ("intermediate_size", 1 << 20),
    ("num_hidden_layers", 1024),
    ("max_position_embeddings", 1 << 20),
    ("cross_layer_interval", 1024),
    ("vision_config.embed_dim", 65_536),
    ("vision_config.num_attention_heads", 1024),
    ("vision_config.image_size", 4096),
    ("vision_config.patch_size", 4096),
    ("vision_config.num_hidden_layers", 1024),
    ("vision_config.intermediate_size", 1 << 20),
    ("perceiver_config.resampler_depth", 1024),
    ("perceiver_config.resampler_n_latents", 65_536),
    ("perceiver_config.resampler_n_heads", 1024),
    ("perceiver_config.resampler_head_dim", 65_536),
];

#[test]
fn every_number_is_bounded() {
    let folder = Folder::new();
    for (key, most) in NUMBERS {
        let wrong = [
            json!(0),
            json!(-1),
            json!(most + 1),
            json!(u64::MAX),
            json!(1e300),
            json!(2.5),
            json!("4"),
            json!([4]),
            json!({"4": 4}),
            json!(true),
        ];
        for value in wrong {
            let expected = format!("config.json: {key}: expected a whole number from 1 to {most}, found {value}");
            with((&folder, key, value), &[&expected]);
        }
    }
}

/// Sets a key, expects a refusal, and puts the old value back.
fn with((folder, key, value): (&Folder, &str, Value), mentions: &[&str]) {
    let good = std::fs::read(folder.path("config.json")).unwrap();
    let case = format!("{key} = {value}");
    folder.set(key, value);
    refused(&["inspect", &text(&folder.model())], &case, mentions);
    folder.write("config.json", good);
}

/// Sizes that the weights have too must be theirs.
#[test]
fn sizes_that_contradict_the_weights() {
    let folder = Folder::new();
    let rows = "as model.embed_tokens.weight has rows, found";
    for value in [json!(31), json!(0), json!(30.5), json!("30"), json!([30])] {
        let expected = format!("config.json: vocab_size: expected 30, {rows} {value}");
        with((&folder, "vocab_size", value), &[&expected]);
    }
    let expected =
        "additional_vocab_size: expected 2, as model.embed_tokens.additional_embedding.weight has rows, found 3";
    with((&folder, "additional_vocab_size", json!(3)), &[expected]);
}

/// A number that is left out takes the default of its class, which does not fit this model's weights.
#[test]
fn missing_numbers_do_not_fit_the_weights() {
    let table = [
        ("hidden_size", "k_proj.weight: expected 4096 rows, found 128 rows"),
        ("num_attention_heads", "k_layer_norm.weight: expected 4 values, found 32 values"),
        ("intermediate_size", "gate_proj.weight: expected 11008 rows, found 256 rows"),
        (
            "num_hidden_layers",
            "cross_attn_layers.3.cross_attn.k_proj.weight: expected a tensor of this name, found none",
        ),
        ("vision_config.embed_dim", "patch_embedding.weight: expected 768 rows, found 128 rows"),
        ("vision_config.image_size", "position_embedding.weight: expected 785 rows, found 26 rows"),
        ("vision_config.patch_size", "patch_embedding.weight: expected 588 columns, found shape [128, 3, 8, 8]"),
        ("vision_config.num_hidden_layers", "encoder.layers.4."),
        ("vision_config.intermediate_size", "fc1.weight: expected 5120 rows, found 512 rows"),
        ("perceiver_config.resampler_depth", "blocks.1.0."),
        ("perceiver_config.resampler_n_latents", "latents: expected 64 rows, found 4 rows"),
        ("perceiver_config.resampler_n_heads", "q_proj.weight: expected 512 rows, found 128 rows"),
        ("perceiver_config.resampler_head_dim", "q_proj.weight: expected 384 rows, found 128 rows"),
    ];
    let folder = Folder::new();
    // Which is at odds with sizes too.
    folder.delete("preprocessor_config.json");
    for (key, mention) in table {
        with((&folder, key, Value::Null), &["model.safetensors: model.", mention]);
    }
}

#[test]
fn other_keys() {
    let ratio = "a number from 0.000000000001 to 0.1";
    let activations = r#"expected "gelu", "quick_gelu", "relu" or "silu", found"#;
    let table = [
        ("model_type", json!(null), "model_type: expected a string, found nothing"),
        ("model_type", json!(7), "model_type: expected a string, found 7"),
        ("model_type", json!("llava"), r#"model_type: expected "idefics", "open_flamingo", "mllama", "otter""#),
        ("model_type", json!("a\nb\u{1b}[31m"), r"a\nb\u{1b}[31m"),
        ("model_type", json!("x".repeat(1 << 20)), "xxx…"),
        ("vision_config", json!([1]), "vision_config: expected an object, found an array"),
        ("vision_config", json!("clip"), "vision_config: expected an object, found a string"),
        ("perceiver_config", json!(true), "perceiver_config: expected an object, found a boolean"),
        ("hidden_act", json!("swiglu"), &format!("config.json: hidden_act: {activations} \"swiglu\"")),
        ("hidden_act", json!(3), "hidden_act: expected a string, found 3"),
        ("vision_config.hidden_act", json!("tanh"), &format!("vision_config.hidden_act: {activations} \"tanh\"")),
        ("num_attention_heads", json!(3), "num_attention_heads: expected a divisor of hidden_size 128, found 3"),
        ("vision_config.num_attention_heads", json!(5), "expected a divisor of embed_dim 128, found 5"),
        ("vision_config.patch_size", json!(41), "patch_size: expected at most the image size 40, found 41"),
        ("vision_config.num_channels", json!(4), "vision_config.num_channels: expected 3, found"),
        ("vision_config.layer_norm_eps", json!(-1), &format!("layer_norm_eps: expected {ratio}, found -1")),
        ("rms_norm_eps", json!(0), &format!("rms_norm_eps: expected {ratio}, found 0")),
        ("rms_norm_eps", json!("1e-6"), &format!("rms_norm_eps: expected {ratio}, found \"1e-6\"")),
        ("rope_scaling", json!({"type": "linear", "factor": 2}), "rope_scaling: expected null, found {"),
        ("rope_parameters", json!([]), "rope_parameters: expected an object, found an array"),
        ("rope_parameters.rope_type", json!("yarn"), r#"rope_type: expected "default", found "yarn""#),
        ("rope_parameters.rope_theta", json!(0), "rope_theta: expected a number from 1 to 1000000000, found 0"),
        ("use_resampler", json!(1), "use_resampler: expected true or false, found 1"),
        ("qk_layer_norms", json!("yes"), "qk_layer_norms: expected true or false, found \"yes\""),
        ("tie_word_embeddings", json!([]), "tie_word_embeddings: expected true or false, found []"),
    ];
    let folder = Folder::new();
    for (key, value, mention) in table {
        with((&folder, key, value), &["config.json", mention]);
    }
}

/// Numbers that are fine in themselves but not with these weights; layers are refused before anything is made for them.
#[test]
fn numbers_at_odds_with_the_weights() {
    let table = [
        ("num_hidden_layers", json!(1024), "cross_attn_layers.3."),
        ("hidden_size", json!(65_536), "rows, found"),
        ("intermediate_size", json!(1 << 20), "expected 1048576 rows, found 256 rows"),
        ("vision_config.embed_dim", json!(65_536), "rows, found"),
        ("vision_config.image_size", json!(4096), "expected 262145 rows, found 26 rows"),
        ("vision_config.patch_size", json!(1), "expected 3 columns, found shape [128, 3, 8, 8]"),
        ("vision_config.num_hidden_layers", json!(1024), "encoder.layers.4."),
        ("perceiver_config.resampler_n_latents", json!(65_536), "latents: expected 65536 rows, found 4 rows"),
        ("perceiver_config.resampler_depth", json!(1024), "blocks.1.0."),
    ];
    let folder = Folder::new();
    // Which is at odds with sizes too.
    folder.delete("preprocessor_config.json");
    for (key, value, mention) in table {
        with((&folder, key, value), &["model.safetensors: model.", mention]);
    }
}

/// A configuration that leaves weights over is that of another model.
#[test]
fn weights_that_are_left_over() {
    let table = [
        ("num_hidden_layers", json!(1), "gated_cross_attn_layers.1.alpha_cross_attn"),
        ("cross_layer_interval", json!(2), "gated_cross_attn_layers.2.alpha_cross_attn"),
        ("vision_config.num_hidden_layers", json!(3), "vision_model.encoder.layers.3.layer_norm1.bias"),
        ("use_resampler", json!(false), "perceiver_resampler.blocks.0.0.context_layer_norm.bias"),
        ("qk_layer_norms", json!(false), "gated_cross_attn_layers.0.cross_attn.k_layer_norm.weight"),
    ];
    let found = "expected only tensors that the model of config.json uses, found one that it does not";
    let folder = Folder::new();
    for (key, value, tensor) in table {
        with((&folder, key, value), &["model.safetensors: model.", &format!("{tensor}: {found}")]);
    }
}

#[test]
fn the_whole_file() {
    const CASES: &[Case] = &[
        ("no file", |folder| folder.delete("config.json"), &["config.json: No such file"]),
        ("an empty file", |folder| folder.write("config.json", ""), &["config.json: text: expected JSON, found EOF"]),
        ("half a file", |folder| folder.write("config.json", "{\"model_type\":"), &["expected JSON, found EOF"]),
        (
            "not JSON",
            |folder| folder.write("config.json", "{model_type: idefics}"),
            &["config.json: text: expected JSON"],
        ),
        ("two objects", |folder| folder.write("config.json", "{} {}"), &["expected JSON, found trailing characters"]),
        (
            "a key twice",
            |folder| folder.write("config.json", r#"{"vision_config": {"a": 1, "b": 2, "a": 1}}"#),
            &["config.json: a: expected this key once in its object, found it twice"],
        ),
        (
            "4 MB of small values",
            |folder| folder.write("config.json", format!("[{}1]", r#"{"a":0},"#.repeat(500_000))),
            &["config.json: text: bytes of memory for its values: ", "is over the limit of 134217728"],
        ),
        ("not a number", |folder| folder.write("config.json", "{\"hidden_size\": NaN}"), &["expected JSON"]),
        ("not UTF-8", |folder| folder.write("config.json", b"{\"\xff\": 1}"), &["config.json: text: expected UTF-8"]),
        ("an array", |folder| folder.write("config.json", "[]"), &["expected a JSON object, found an array"]),
        ("null", |folder| folder.write("config.json", "null"), &["expected a JSON object, found null"]),
        (
            "no key at all",
            |folder| folder.write("config.json", "{}"),
            &["model_type: expected a string, found nothing"],
        ),
        ("5 MB", |folder| folder.make_sparse("config.json", 5 << 20), &["5242880 is over the limit of 4194304"]),
        ("20 GB", |folder| folder.make_sparse("config.json", 20 << 30), &["config.json: bytes: ", "over the limit"]),
        ("deep arrays", |folder| folder.write("config.json", "[".repeat(1 << 20)), &["recursion limit exceeded"]),
        (
            "deep objects",
            |folder| folder.write("config.json", "{\"a\":".repeat(1 << 18)),
            &["recursion limit exceeded"],
        ),
        ("a folder", |folder| folder.make_folder("config.json"), &["config.json: not a regular file"]),
        ("a pipe", |folder| folder.make_pipe("config.json"), &["config.json: not a regular file"]),
    ];
    all_refused(CASES);
}

/// What `flamant convert` would have written for this language model.
fn open_flamingo() -> Value {
    json!({
        "model_type": "open_flamingo",
        "cross_attn_every_n_layers": 1,
        "vocab_size": 32,
        "vision_config": {
            "hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 4, "intermediate_size": 512,
            "image_size": 40, "patch_size": 8,
        },
        "text_config": {"model_type": "mpt", "d_model": 128, "n_heads": 4, "n_layers": 3},
    })
}

/// OpenFlamingo's own file has numbers without defaults, and names models that the engine knows.
#[test]
fn open_flamingo_keys() {
    let known = r#"expected "mpt", "mosaic_gpt", "gpt_neox", "llama", "opt" or "gpt2", found"#;
    let table = [
        ("vision_config.hidden_size", json!(null), "expected a whole number from 1 to 65536, found nothing"),
        ("vision_config.num_attention_heads", json!(null), "expected a whole number from 1 to 1024, found nothing"),
        ("vision_config.num_hidden_layers", json!(null), "expected a whole number from 1 to 1024, found nothing"),
        ("vision_config.intermediate_size", json!(null), "expected a whole number from 1 to 1048576, found nothing"),
        ("vocab_size", json!(null), "expected a whole number from 1 to 16777216, found nothing"),
        ("cross_attn_every_n_layers", json!(null), "expected a whole number from 1 to 1024, found nothing"),
        ("cross_attn_every_n_layers", json!(4), "expected at most the 3 layers of the language model, found 4"),
        ("text_config", json!("mpt"), "expected an object, found a string"),
        ("text_config.model_type", json!(null), "expected a string, found nothing"),
        ("text_config.model_type", json!("bloom"), known),
        ("text_config.n_heads", json!(3), "3"),
        ("text_config.attn_config", json!({"alibi": false}), "alibi: expected true, found false"),
        ("text_config.attn_config", json!({"clip_qkv": -1}), "clip_qkv: expected a number from 0 to 1000000, found -1"),
        ("text_config.logit_scale", json!(0.5), "expected null, found 0.5"),
        ("text_config.expansion_ratio", json!(65), "expected a whole number from 1 to 64, found 65"),
        (
            "text_config.max_seq_len",
            json!(1_u64 << 40),
            "expected a whole number from 1 to 1048576, found 1099511627776",
        ),
    ];
    let folder = Folder::new();
    for (key, value, mention) in table {
        folder.write("config.json", open_flamingo().to_string());
        let section = key.split('.').next().unwrap();
        with((&folder, key, value), &["config.json: ", section, mention]);
    }
    folder.write("config.json", open_flamingo().to_string());
    let missing = ["model.safetensors: ", "expected a tensor of this name, found none"];
    refused(&["inspect", &text(&folder.model())], "the weights of the other family", &missing);
}

/// The most positions that a file may ask for: the pages for them must not be taken before it is known that they fit.
#[test]
fn a_context_of_a_million_tokens() {
    let folder = Folder::new();
    folder.set("max_position_embeddings", json!(1 << 20));
    let output = run(&["generate", &text(&folder.model()), "--text", "abc"], "a million tokens");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?} {:?}", output.status, String::from_utf8(output.stderr));
}
