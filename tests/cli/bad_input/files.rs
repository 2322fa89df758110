//! Tokenizer, preprocessing and weights.

use serde_json::json;

use super::{Case, Folder, all_refused, field, run, text};

/// Gives a token another number.
fn with_id(folder: &Folder, token: &str, id: u32) {
    folder.edit("tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.iter_mut().filter(|entry| entry["content"] == token).for_each(|entry| entry["id"] = json!(id));
        tokenizer["model"]["vocab"][token] = json!(id);
    });
}

/// Gives a token's place to another one, so that ids go on as they are.
fn without(folder: &Folder, token: &str) {
    folder.edit("tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        let entry = added.iter_mut().find(|entry| entry["content"] == token);
        entry.unwrap()["content"] = json!("<other>");
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        if let Some(id) = vocabulary.remove(token) {
            vocabulary.insert("<other>".to_owned(), id);
        }
    });
}

#[test]
fn tokenizers() {
    const CASES: &[Case] = &[
        (
            "no file",
            |folder| folder.delete("tokenizer.json"),
            &["tokenizer.json: tokenizer: expected a file", "found none"],
        ),
        ("an empty file", |folder| folder.write("tokenizer.json", ""), &["tokenizer.json: text: expected JSON"]),
        (
            "half a file",
            |folder| {
                let whole = std::fs::read(folder.path("tokenizer.json")).unwrap();
                folder.write("tokenizer.json", &whole[..whole.len() / 2]);
            },
            &["tokenizer.json: text: expected JSON, found EOF"],
        ),
        ("not UTF-8", |folder| folder.write("tokenizer.json", b"\"\xff\""), &["tokenizer.json: text: expected UTF-8"]),
        (
            "an object",
            |folder| folder.write("tokenizer.json", "{}"),
            &["tokenizer.json: tokenizer: expected a tokenizers file"],
        ),
        ("an array", |folder| folder.write("tokenizer.json", "[1, 2]"), &["tokenizer: expected a tokenizers file"]),
        (
            "another file",
            |folder| drop(std::fs::copy(folder.path("config.json"), folder.path("tokenizer.json"))),
            &["tokenizer.json: ", "expected a tokenizers file, found unknown field"],
        ),
        (
            "65 MB",
            |folder| folder.make_sparse("tokenizer.json", 65 << 20),
            &["tokenizer.json: bytes", "over the limit of 67108864"],
        ),
        ("a folder", |folder| folder.make_folder("tokenizer.json"), &["tokenizer.json: not a regular file"]),
        ("deep arrays", |folder| folder.write("tokenizer.json", "[".repeat(1 << 20)), &["recursion limit exceeded"]),
        (
            "an unknown model",
            |folder| folder.edit("tokenizer.json", |tokenizer| tokenizer["model"] = json!({"type": "Magic"})),
            &["tokenizer.json: model.type: expected a tokenizers file, found unknown variant `Magic`"],
        ),
        (
            "no image marker",
            |folder| without(folder, "<image>"),
            &["tokenizer.json: vocabulary: expected the token <image>, found none"],
        ),
        (
            "no fence",
            |folder| without(folder, "<fake_token_around_image>"),
            &["expected the token <fake_token_around_image>, found none"],
        ),
        ("no end", |folder| without(folder, "</s>"), &["vocabulary: expected the token </s>, found none"]),
        ("no begin", |folder| without(folder, "<s>"), &["tokenizer.json"]),
        (
            "a marker of another place than its id says",
            |folder| with_id(folder, "<image>", 40),
            &["tokenizer.json: added_tokens.", "expected the id 30 of \"<fake_token_around_image>\""],
        ),
        (
            "other names that are not JSON",
            |folder| folder.write("tokenizer_config.json", "eos"),
            &["tokenizer_config.json: text: expected JSON"],
        ),
        (
            "an end of another name",
            |folder| folder.write("tokenizer_config.json", r#"{"eos_token": "<stop>"}"#),
            &["tokenizer.json: vocabulary: expected the token <stop>, found none"],
        ),
        (
            "a begin of another name",
            |folder| folder.write("tokenizer_config.json", r#"{"bos_token": {"content": "<go>"}}"#),
            &["expected the token <go>, found none"],
        ),
    ];
    all_refused(CASES);
}

/// Words that the embedding has no row for: at opening, or when a prompt holds them.
#[test]
fn tokens_beyond_the_embedding() {
    const CASES: &[Case] = &[
        ("a letter", |folder| with_id(folder, "a", 4000), &["32", "found 4000"]),
        ("the begin", |folder| with_id(folder, "<s>", 4000), &["32", "found 4000"]),
    ];
    all_refused(CASES);
}

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const QUERY: &str = "model.layers.0.self_attn.q_proj.weight";

/// Turns the weights into one shard of an index that says this of the query matrix.
fn index(folder: &Folder, shard_of_query: &str) {
    let mut map = serde_json::Map::new();
    folder.weights(|header, _| {
        map.extend(
            header.keys().filter(|name| *name != "__metadata__").map(|name| (name.clone(), json!("a.safetensors"))),
        );
    });
    map[QUERY] = json!(shard_of_query);
    std::fs::rename(folder.path(WEIGHTS), folder.path("a.safetensors")).unwrap();
    folder.write(INDEX, json!({"weight_map": map}).to_string());
}

#[test]
fn weights() {
    const CASES: &[Case] = &[
        (
            "no file",
            |folder| folder.delete(WEIGHTS),
            &["model: weights: expected one of model.safetensors,", "found none of them, only config.json"],
        ),
        ("an empty file", |folder| folder.write(WEIGHTS, ""), &["model.safetensors: length", "found an empty file"]),
        (
            "text",
            |folder| folder.write(WEIGHTS, "weights"),
            &["model.safetensors: first bytes: expected a safetensors file or a PyTorch archive"],
        ),
        (
            "a pointer of Git LFS",
            |folder| folder.write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"),
            &["git lfs pull"],
        ),
        ("a folder", |folder| folder.make_folder(WEIGHTS), &["model.safetensors: not a regular file"]),
        ("a pipe", |folder| folder.make_pipe(WEIGHTS), &["model.safetensors: not a regular file"]),
        (
            "a pickle that runs a command",
            |folder| folder.write(WEIGHTS, b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."),
            &["model.safetensors: first bytes", "a bare pickle"],
        ),
        (
            "a header of 16 EB",
            |folder| folder.write(WEIGHTS, [&[0xff; 8][..], b"{}"].concat()),
            &["model.safetensors: header bytes: 18446744073709551615 is over the limit"],
        ),
        (
            "one byte too few",
            |folder| folder.weights(|_, numbers| numbers.truncate(numbers.len() - 1)),
            &["model.safetensors: ", "data_offsets"],
        ),
        ("one byte too many", |folder| folder.weights(|_, numbers| numbers.push(0)), &["model.safetensors: "]),
        ("no numbers", |folder| folder.weights(|_, numbers| numbers.clear()), &["model.safetensors: ", "data_offsets"]),
        (
            "no tensors",
            |folder| {
                folder.weights(|header, numbers| {
                    header.clear();
                    numbers.clear()
                })
            },
            &["model.embed_tokens.weight: expected a tensor of this name, found none"],
        ),
        (
            "a missing tensor",
            |folder| {
                folder.weights(|header, _| {
                    let entry = header.remove(QUERY).unwrap();
                    header.insert("elsewhere".into(), entry);
                })
            },
            &["model.safetensors: model.layers.0.self_attn.q_proj.weight: expected a tensor of this name, found none"],
        ),
        (
            "a wrong shape",
            |folder| folder.weights(|header, _| header[QUERY]["shape"] = json!([64, 256])),
            &["model.safetensors: model.layers.0.self_attn.q_proj.weight: expected 128 columns, found shape [64, 256]"],
        ),
        (
            "one dimension",
            |folder| folder.weights(|header, _| header[QUERY]["shape"] = json!([16384])),
            &[QUERY, "expected 128 columns, found shape [16384]"],
        ),
        (
            "a shape beyond the numbers",
            |folder| folder.weights(|header, _| header[QUERY]["shape"] = json!([128, 1_u64 << 40])),
            &[QUERY, "expected"],
        ),
        (
            "whole numbers",
            |folder| folder.weights(|header, _| header[QUERY]["dtype"] = json!("I16")),
            &[QUERY, "expected numbers in F32, F16 or BF16, found I16"],
        ),
        (
            "an unknown format",
            |folder| folder.weights(|header, _| header[QUERY]["dtype"] = json!("F1")),
            &["model.safetensors: header", QUERY, "F1"],
        ),
        (
            "an overlap",
            |folder| folder.weights(|header, _| header[QUERY]["data_offsets"] = json!([0, 32768])),
            &["model.safetensors: ", "expected data_offsets from"],
        ),
        (
            "nothing in a tensor",
            |folder| folder.weights(|header, _| *field(&mut header["lm_head.weight"], "shape") = json!([0, 128])),
            &["lm_head.weight: expected 0 bytes"],
        ),
        (
            "an embedding without columns",
            |folder| folder.weights(|header, _| header["model.embed_tokens.weight"]["shape"] = json!([3840])),
            &["model.embed_tokens.weight: expected 128 columns, found shape [3840]"],
        ),
        (
            "no row for the markers",
            |folder| {
                folder.weights(|header, _| {
                    let entry = header.remove("model.embed_tokens.additional_embedding.weight").unwrap();
                    header.insert("elsewhere".into(), entry);
                })
            },
            &["config.json: additional_vocab_size: expected 0, as model.embed_tokens.additional"],
        ),
        ("a shard that is missing", |folder| index(folder, "b.safetensors"), &["b.safetensors: No such file"]),
        (
            "a shard without the tensor",
            |folder| {
                index(folder, "b.safetensors");
                folder.write("b.safetensors", b"\x02\0\0\0\0\0\0\0{}");
            },
            &["b.safetensors: ", QUERY, "the tensor that the index names here, found none"],
        ),
        (
            "a shard up the tree",
            |folder| index(folder, "../a.safetensors"),
            &[INDEX, QUERY, "the plain name of a file beside the index, found ../a.safetensors"],
        ),
        ("a shard from the root", |folder| index(folder, "/etc/passwd"), &[INDEX, QUERY, "found /etc/passwd"]),
        ("a shard that is the folder", |folder| index(folder, ".."), &[INDEX, QUERY, "the plain name of a file"]),
        (
            "an index that is not JSON",
            |folder| {
                index(folder, "a.safetensors");
                folder.write(INDEX, "weights")
            },
            &[INDEX, "text: expected JSON"],
        ),
        (
            "an index of nothing",
            |folder| {
                index(folder, "a.safetensors");
                folder.write(INDEX, "{}")
            },
            &[INDEX, "weight_map: expected an object", "missing field"],
        ),
        (
            "an index of numbers",
            |folder| {
                index(folder, "a.safetensors");
                folder.write(INDEX, r#"{"weight_map": {"a": 1}}"#)
            },
            &[INDEX, "weight_map: expected an object"],
        ),
    ];
    all_refused(CASES);
}

/// Gives a tensor a name that no model has.
fn hide(folder: &Folder, tensor: &str) {
    rename(folder, tensor, "elsewhere");
}

fn rename(folder: &Folder, tensor: &str, name: &str) {
    folder.weights(|header, _| {
        let entry = header.remove(tensor).unwrap();
        header.insert(name.into(), entry);
    });
}

/// Tensors under the model's own names that it does not use, and an output matrix that is not of the embedding's rows.
#[test]
fn weights_at_odds_with_each_other() {
    const HEAD: &str = "lm_head.additional_fc.weight";
    const ADAPTER: &str = "model.layers.0.self_attn.q_proj.lora_A.weight";
    const CASES: &[Case] = &[
        (
            "an adapter beside a matrix",
            |folder| rename(folder, "model.vision_model.post_layernorm.weight", ADAPTER),
            &[ADAPTER, "expected only tensors that the model of config.json uses, found one that it does not"],
        ),
        (
            "a head of its own that is tied",
            |folder| folder.set("tie_word_embeddings", json!(true)),
            &[
                "model.safetensors: lm_head.weight: expected the numbers of model.embed_tokens.weight, to which the",
                "found others",
            ],
        ),
        (
            "a head without the markers",
            |folder| hide(folder, HEAD),
            &["lm_head.weight: expected 32 rows, found 30 rows"],
        ),
        (
            "a head of its own that is tied",
            |folder| {
                folder.set("tie_word_embeddings", json!(true));
                hide(folder, HEAD);
            },
            &["lm_head.weight: expected 32 rows, found 30 rows"],
        ),
    ];
    all_refused(CASES);
}

/// Weights may hold anything. What comes of infinities is no good answer, but it is one.
#[test]
fn weights_that_are_no_numbers() {
    let folder = Folder::new();
    // The largest finite number, infinity and NaN, as bfloat16.
    for bits in [0x7f7f_u16, 0x7f80, 0x7fc0] {
        folder.weights(|_, numbers| {
            numbers.chunks_exact_mut(2).for_each(|number| number.copy_from_slice(&bits.to_le_bytes()))
        });
        let model = text(&folder.model());
        let image = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/sources/rgb8-turned.png");
        let prompt = ["--text", "abc", "--image", image];
        let commands: [&[&str]; 6] = [
            &["generate", "--max-new-tokens", "4"],
            &[
                "generate",
                "--max-new-tokens",
                "4",
                "--temperature",
                "1",
                "--min-p",
                "0.1",
                "--top-k",
                "5",
                "--top-p",
                "0.5",
            ],
            &["generate", "--max-new-tokens", "4", "--num-beams", "3"],
            &["score", "--json"],
            &["classify", "--choice", "a", "--choice", "bc"],
            &["inspect"],
        ];
        for command in commands {
            let prompt: &[&str] = if command[0] == "inspect" { &[] } else { &prompt };
            let arguments = [&command[..1], &[&model], &command[1..], prompt].concat();
            let output = run(&arguments, "no numbers");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{bits:x} {command:?}: {:?} {stderr}", output.status);
            assert!(stderr.lines().count() <= 1, "{bits:x} {command:?}: {stderr}");
        }
    }
}
