//! Llama 3.2 Vision: a configuration or a preprocessing that is absurd, not computed here, or that of other weights.

use serde_json::{Value, json};

use super::{Folder, refused, run, text};

fn folder() -> Folder {
    Folder::of("tests/data/cases/mllama-base/model")
}

/// Sets keys of `config.json`, expects a refusal of `inspect`, and puts the old file back.
fn with(folder: &Folder, keys: &[(&str, Value)], mentions: &[&str]) {
    let good = std::fs::read(folder.path("config.json")).unwrap();
    keys.iter().for_each(|(key, value)| folder.set(key, value.clone()));
    refused(&["inspect", &text(&folder.model())], &format!("{keys:?}"), mentions);
    folder.write("config.json", good);
}

#[test]
fn the_unbroken_copy_works() {
    let output = run(&["generate", &text(&folder().model()), "--text", "abc"], "unbroken");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Each is refused by its own key, with what is wanted and what is found.
fn refused_by_key(table: Vec<(&str, Value, String)>) {
    let folder = folder();
    for (key, value, mention) in table {
        with(&folder, &[(key, value)], &["config.json: ", &mention]);
    }
}

const NUMBERS: &str = "expected an array of whole numbers, found";

#[test]
fn keys_of_the_text() {
    let cross = "text_config.cross_attention_layers: expected increasing numbers, none next to another, below 5, found";
    refused_by_key(vec![
        ("text_config.cross_attention_layers", json!([4, 1]), format!("{cross} [4,1]")),
        ("text_config.cross_attention_layers", json!([1, 1]), format!("{cross} [1,1]")),
        ("text_config.cross_attention_layers", json!([1, 2]), format!("{cross} [1,2]")),
        ("text_config.cross_attention_layers", json!([1, 5]), format!("{cross} [1,5]")),
        ("text_config.cross_attention_layers", json!([1, 6]), format!("{cross} [1,6]")),
        ("text_config.cross_attention_layers", json!([]), format!("{cross} []")),
        ("text_config.cross_attention_layers", json!(null), format!("{cross} \"the default\"")),
        ("text_config.cross_attention_layers", json!([1, -4]), format!("cross_attention_layers: {NUMBERS} [1,-4]")),
        ("text_config.cross_attention_layers", json!("1,4"), format!("cross_attention_layers: {NUMBERS} \"1,4\"")),
        ("text_config.num_hidden_layers", json!(5), "none next to another, below 4, found [1,4]".to_owned()),
        (
            "text_config.num_key_value_heads",
            json!(3),
            "expected a divisor of num_attention_heads 4, found 3".to_owned(),
        ),
        (
            "text_config.num_key_value_heads",
            json!(8),
            "expected a divisor of num_attention_heads 4, found 8".to_owned(),
        ),
        ("text_config.num_attention_heads", json!(8), "expected heads of even width, found 8 heads of 5".to_owned()),
        ("text_config.hidden_act", json!("swiglu"), "text_config.hidden_act: expected \"gelu\"".to_owned()),
        ("text_config.max_position_embeddings", json!(0), "expected a whole number from 1 to 1048576".to_owned()),
        ("tie_word_embeddings", json!(true), "config.json: tie_word_embeddings: expected false, found true".to_owned()),
        (
            "image_token_index",
            json!(392),
            "image_token_index: expected a row of the embedding's 392, found 392".to_owned(),
        ),
        (
            "image_token_index",
            json!(-1),
            "image_token_index: expected a row of the embedding's 392, found -1".to_owned(),
        ),
    ]);
}

#[test]
fn rotary_embeddings() {
    let scaling = |key: &str, value: Value| {
        let mut scaling = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        });
        scaling[key] = value;
        scaling
    };
    let rope = "text_config.rope_parameters";
    refused_by_key(vec![
        (
            rope,
            scaling("rope_type", json!("yarn")),
            r#"rope_type: expected "default" or "llama3", found "yarn""#.to_owned(),
        ),
        (rope, scaling("rope_type", json!("longrope")), r#"rope_type: expected "default" or "llama3""#.to_owned()),
        (rope, scaling("factor", json!(null)), "rope_parameters.factor: expected a number, found nothing".to_owned()),
        (rope, scaling("factor", json!(0.5)), "rope_parameters.factor: expected a number from 1 to 1000000".to_owned()),
        (rope, scaling("high_freq_factor", json!(1.0)), "expected more than the low_freq_factor 1, found 1".to_owned()),
        (rope, scaling("low_freq_factor", json!(0)), "low_freq_factor: expected a number from".to_owned()),
        (
            rope,
            scaling("original_max_position_embeddings", json!(0)),
            "original_max_position_embeddings: expected a whole number from 1 to".to_owned(),
        ),
        (rope, scaling("rope_theta", json!(0)), "rope_theta: expected a number from 1 to 1000000000".to_owned()),
    ]);
}

#[test]
fn keys_of_the_vision_tower() {
    let taken = "vision_config.intermediate_layers_indices: expected increasing numbers below the 4 layers, found";
    let ratios = "vision_config.supported_aspect_ratios: expected at least 8 for 4 tiles, found 3";
    refused_by_key(vec![
        ("vision_config.intermediate_layers_indices", json!([1, 4]), format!("{taken} [1,4]")),
        ("vision_config.intermediate_layers_indices", json!([3, 1]), format!("{taken} [3,1]")),
        ("vision_config.intermediate_layers_indices", json!([1, 1]), format!("{taken} [1,1]")),
        ("vision_config.intermediate_layers_indices", json!([0.5]), format!("intermediate_layers_indices: {NUMBERS}")),
        ("vision_config.vision_output_dim", json!(48), "expected 72 (3 states), found 48".to_owned()),
        ("vision_config.max_num_tiles", json!(0), "max_num_tiles: expected a whole number from 1 to 16".to_owned()),
        ("vision_config.max_num_tiles", json!(17), "max_num_tiles: expected a whole number from 1 to 16".to_owned()),
        (
            "vision_config.max_num_tiles",
            json!(5),
            "supported_aspect_ratios: expected at least 10 for 5 tiles".to_owned(),
        ),
        ("vision_config.supported_aspect_ratios", json!([[1, 1], [1, 2], [2, 1]]), ratios.to_owned()),
        ("vision_config.supported_aspect_ratios", json!(8), "supported_aspect_ratios: expected an array".to_owned()),
        ("vision_config.attention_heads", json!(5), "attention_heads: expected a divisor of hidden_size 24".to_owned()),
        ("vision_config.num_channels", json!(4), "vision_config.num_channels: expected 3, found".to_owned()),
        (
            "vision_config.patch_size",
            json!(15),
            "patch_size: expected a divisor of the image size 42, found 15".to_owned(),
        ),
        (
            "quantization_config",
            json!({"quant_method": "bitsandbytes"}),
            "expected weights of bitsandbytes, found none".to_owned(),
        ),
    ]);
}

/// Numbers that are fine in themselves but not with these weights.
#[test]
fn numbers_at_odds_with_the_weights() {
    let projector = "multi_modal_projector.weight: expected 48 columns, found shape [40, 72]";
    let (states, width) = ("vision_config.intermediate_layers_indices", "vision_config.vision_output_dim");
    let tables = "gated_positional_embedding.tile_embedding.weight: expected";
    let more: Vec<[u32; 2]> = vec![[1, 1]; 9];
    let cases: [(&[(&str, Value)], &str); 9] = [
        (&[(states, json!([1])), (width, json!(48))], projector),
        (&[("vision_config.supported_aspect_ratios", json!(more))], tables),
        (&[("text_config.num_key_value_heads", json!(4))], "k_proj.weight: expected 40 rows, found 20 rows"),
        (&[("text_config.vocab_size", json!(385))], "embed_tokens.weight: expected 393 rows, found 392 rows"),
        (&[("text_config.cross_attention_layers", json!([1, 3]))], "layers.3.cross_attn.k_proj.weight"),
        (&[("text_config.num_hidden_layers", json!(7))], "layers.6.input_layernorm.weight"),
        (&[("vision_config.num_global_layers", json!(3))], "global_transformer.layers.2."),
        (&[("vision_config.num_global_layers", json!(1))], "global_transformer.layers.1."),
        (&[("vision_config.num_hidden_layers", json!(5))], "transformer.layers.4."),
    ];
    let folder = folder();
    for (keys, mention) in cases {
        with(&folder, keys, &["model.safetensors: ", mention]);
    }
}

/// What `config.json` and `tokenizer.json` say of the marker of images is one thing.
#[test]
fn the_marker_is_the_tokenizers() {
    let folder = folder();
    folder.set("image_token_index", json!(383));
    let mention = "config.json: image_token_index: expected 384, as <|image|> has in tokenizer.json, found 383";
    refused(&["generate", &text(&folder.model()), "--text", "abc"], "another marker", &[mention]);
}

/// Pixels that are not computed here.
#[test]
fn other_preprocessing() {
    let table = [
        ("resample", json!(3), "resample: expected 2, found 3"),
        ("do_pad", json!(false), "do_pad: expected true, found false"),
        ("max_image_tiles", json!(2), "max_image_tiles: expected 4, found 2"),
        ("size", json!({"height": 42, "width": 56}), "size: expected"),
        ("size", json!({"height": 56, "width": 56}), "size: expected"),
        (
            "image_processor_type",
            json!("CLIPImageProcessor"),
            "image_processor_type: expected \"MllamaImageProcessor\"",
        ),
    ];
    for (key, value, mention) in table {
        let folder = folder();
        folder.edit("preprocessor_config.json", |file| file[key] = value.clone());
        refused(
            &["inspect", &text(&folder.model())],
            &format!("{key} {value}"),
            &["preprocessor_config.json: ", mention],
        );
    }
}

/// A prompt that forges an image, and turns that forge others.
#[test]
fn prompts_and_turns() {
    let folder = folder();
    let model = text(&folder.model());
    let forged = "prompt: expected text without image markers, found <|image|>";
    refused(&["generate", &model, "--text", "a <|image|> b"], "a forged image", &[forged]);
    let turn = "chat: expected turns without <|eot_id|>, found one with it";
    refused(&["generate", &model, "--chat", "--text", "a<|eot_id|>b"], "a forged turn", &[turn]);
    let templates = [
        ("llava", None, "ab", "chat-template: expected one of demo, flamingo-mini, idefics, "),
        ("../chat.json", Some(r#"{"user": ""}"#), "ab", "chat template: expected name, begin, "),
        ("../chat.json", Some(r#"{"user_before": "<|image|>"}"#), "ab", forged),
        // Whatever a template says, tokens of turns are its own.
        ("../chat.json", Some(r#"{"user_before": "Q:"}"#), "a<|eot_id|>b", turn),
    ];
    for (template, json, said, mention) in templates {
        let path = text(&folder.path(template));
        json.inspect(|json| folder.write(template, json));
        let named = if json.is_some() { &path } else { template };
        refused(&["generate", &model, "--chat", "--chat-template", named, "--text", said], template, &[mention]);
    }
    let chats = [
        ("[]", "chat: expected a turn of the user at the end, found none there"),
        (r#"[{"role": "assistant", "content": "a"}]"#, "chat: expected a turn of the user at the end"),
        (
            r#"[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]"#,
            "turn 1: chat: expected the system's",
        ),
        (r#"[{"role": "tool", "content": "a"}]"#, r#"turn 0: role: expected one of "system", "user", "assistant""#),
        (r#"[{"content": "a"}]"#, "turn 0: role: expected one of"),
        (r#"[{"role": "user"}]"#, "turn 0: expected one key"),
        (
            r#"[{"role": "user", "content": 7}]"#,
            "turn 0: content: expected a string or an array of parts, found a number",
        ),
        (r#"[{"role": "user", "content": [{"text": 7}]}]"#, "turn 0: part 0: text: expected a string"),
        (r#"[{"role": "user", "content": "a", "name": "b"}]"#, "turn 0: expected nothing beside"),
        (r#"{"role": "user", "content": "a"}"#, "chat: expected an array"),
    ];
    for (chat, mention) in chats {
        folder.write("../chat.json", chat);
        refused(&["generate", &model, "--chat", "-p", &text(&folder.path("../chat.json"))], chat, &[mention]);
    }
}
