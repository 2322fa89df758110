//! Conversions that were killed, of parts that are damaged or of another kind than they seem.

use super::super::build::{Entry, entry, state_dictionary, tensor, write, zip};
use super::super::refused;
use super::{Change, MEDIA, WIDTH, mpt, with};
use flamant::checkpoint::Checkpoint;
use serde_json::json;
use std::fs;

/// What a killed conversion leaves is not in the way of the next one; what another program or a person put there is.
#[test]
fn what_a_killed_conversion_left_is_begun_anew() {
    let files = mpt().write();
    let output = &files.options.output;
    let left: [&[&str]; 4] = [
        &[],
        &["tokenizer.json", "tokenizer_config.json.partial"],
        &["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "model.safetensors.partial"],
        &["tokenizer.json", "preprocessor_config.json", "model.safetensors", "generation_config.json", "config.json"],
    ];
    for left in left {
        fs::create_dir(output).unwrap();
        write(output, "convert.partial", b"");
        left.iter().for_each(|name| drop(write(output, name, b"half")));
        files.run().unwrap();
        assert!(!output.join("convert.partial").exists() && !output.join("generation_config.json").exists());
        assert!(Checkpoint::open(output).unwrap().contains("perceiver.latents"));
        fs::remove_dir_all(output).unwrap();
    }
    fs::create_dir(output).unwrap();
    for name in ["model.safetensors", "notes.txt", "model.safetensors.partial"] {
        let kept = write(output, name, b"mine");
        refused(name, &format!("output: expected a new or empty folder, found {name}"), || files.run());
        assert_eq!(fs::read(&kept).unwrap(), b"mine");
        if name == "notes.txt" {
            write(output, "convert.partial", b"");
            refused(name, "output: expected a new or empty folder, found notes.txt", || files.run());
            fs::remove_file(output.join("convert.partial")).unwrap();
        }
        fs::remove_file(kept).unwrap();
    }
    let marker = fs::File::create(output.join("convert.partial")).unwrap();
    marker.lock().unwrap();
    refused("two at once", "output: another conversion is writing it", || files.run());
    drop(marker);
    files.run().unwrap();
}

/// The sums in an archive are looked at before anything is written; sums of zero were left out.
#[test]
fn a_damaged_archive_is_not_converted() {
    let entries = mpt().checkpoint.into_iter().map(|(name, shape)| {
        let elements: usize = shape.iter().product();
        let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
        let strides: Vec<i64> = (0..shape.len()).map(|dimension| shape[dimension + 1..].iter().product()).collect();
        let name: &str = name.leak();
        (name, tensor("FloatStorage", name, elements as i64, 0, &shape, &strides), vec![0x3f; 4 * elements])
    });
    let entries: Vec<_> = entries.collect();
    let state: Vec<_> = entries.iter().map(|(name, tensor, _)| (*name, tensor.clone())).collect();
    let mut records = vec![entry("archive/data.pkl", &state_dictionary(&state)).with_sum()];
    records.extend(entries.iter().map(|(name, _, bytes)| entry(&format!("archive/data/{name}"), bytes).with_sum()));
    let convert_of = |records: &[Entry]| {
        let mut sources = mpt();
        sources.files.push(("checkpoint.pt", zip(records).bytes));
        let files = sources.write();
        let result = files.run();
        assert_eq!(files.options.output.exists(), result.is_ok());
        result
    };
    convert_of(&records).unwrap();
    let last = records.len() - 1;
    records[last].content[5] ^= 1;
    let name = String::from_utf8(records[last].name.clone()).unwrap();
    refused("a bit", &format!("checkpoint.pt: {name}: expected content of the sum"), || convert_of(&records));
    records[last].sum = 0;
    convert_of(&records).unwrap();
}

#[test]
fn parts_of_another_kind() {
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "a configuration that is a list",
            |s| s.config = json!([]),
            "config.json: the whole file: expected a JSON object, found an array",
        ),
        (
            "a quantised language model",
            |s| s.config["quantization_config"] = json!({"quant_method": "gptq", "bits": 4}),
            r#"config.json: quantization_config: expected none: weights quantised so are not read; take the model before"#,
        ),
        (
            "an adapter",
            |s| s.files.push(("language/adapter_config.json", b"{}".to_vec())),
            "language/adapter_config.json: weights: expected those of a whole model, found an adapter of PEFT: merge it",
        ),
        (
            "an expression that does not compile",
            |s| {
                s.tokenizer["pre_tokenizer"] =
                    json!({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated", "invert": false})
            },
            "output/tokenizer.json: ",
        ),
        (
            "a token under another number than it gets",
            |s| s.tokenizer["added_tokens"][0]["id"] = 6.into(),
            "output/tokenizer.json: added_tokens.0: expected the id 6 of \"</s>\", by the vocabulary and the order, found 5",
        ),
        (
            "a tensor and the wrapped one",
            |s| {
                with(&mut s.checkpoint, "lang_encoder.transformer.blocks.0.norm_1.weight", &[WIDTH]);
                with(&mut s.checkpoint, "lang_encoder.transformer.blocks.0.decoder_layer.norm_1.weight", &[WIDTH]);
            },
            "expected one tensor for transformer.blocks.0.norm_1.weight of the language model, found also lang_encoder",
        ),
        (
            "a tensor with and without a wrapper",
            |s| with(&mut s.checkpoint, "perceiver.module.latents", &[3, MEDIA]),
            "perceiver.latents: expected one tensor of this name without wrappers of training, found another one",
        ),
        (
            "a name with half a wrapper",
            |s| with(&mut s.checkpoint, "perceiver.submodule.latents", &[3, MEDIA]),
            "perceiver.submodule.latents: expected only tensors of the architecture",
        ),
        (
            "a name with half of the language model's wrapper",
            |s| with(&mut s.checkpoint, "lang_encoder.transformer.blocks.0.my_decoder_layer.norm_1.weight", &[WIDTH]),
            "blocks.0.my_decoder_layer.norm_1.weight: expected a tensor that",
        ),
    ];
    for (case, change, mention) in cases {
        let mut sources = mpt();
        change(&mut sources);
        let files = sources.write();
        refused(case, mention, || files.run());
        assert!(!files.options.output.exists(), "{case}: something was left behind");
    }
}
