//! `preprocessor_config.json` and `generation_config.json`: what they ask for is heeded, or refused by its key.

use serde_json::{Value, json};

use super::{Case, Folder, all_refused, refused, run, text};

const PREPROCESSOR: &str = "preprocessor_config.json";
const GENERATION: &str = "generation_config.json";

/// Has each file refused, in a line that names it, the key and the value.
fn refuse_each(file: &str, table: &[(&str, Value, &str)]) {
    let folder = Folder::new();
    for (key, value, mention) in table {
        folder.write(file, json!({ *key: value }).to_string());
        let case = format!("{file}: {key} = {value}");
        refused(&["inspect", &text(&folder.model())], &case, &[&format!("{file}: {key}: expected "), mention]);
    }
}

#[test]
fn preprocessing_files() {
    const CASES: &[Case] = &[
        ("not JSON", |folder| folder.write(PREPROCESSOR, "image_mean: 0"), &[PREPROCESSOR, "text: expected JSON"]),
        ("2 MB", |folder| folder.make_sparse(PREPROCESSOR, 2 << 20), &["2097152 is over the limit of 1048576"]),
        ("a folder", |folder| folder.make_folder(PREPROCESSOR), &[PREPROCESSOR, "not a regular file"]),
        ("an array", |folder| folder.write(PREPROCESSOR, "[]"), &[PREPROCESSOR, "a JSON object, found an array"]),
        (
            "a link to nowhere",
            |folder| {
                folder.delete(PREPROCESSOR);
                std::os::unix::fs::symlink("nowhere.json", folder.path(PREPROCESSOR)).unwrap();
            },
            &[PREPROCESSOR, "a link to nowhere.json, which is not there"],
        ),
        (
            "a processor that is no object",
            |folder| folder.write("processor_config.json", r#"{"image_processor": 3}"#),
            &["processor_config.json: image_processor: expected an object, found a number"],
        ),
        (
            "a size in the file of the whole processor",
            |folder| folder.write("processor_config.json", r#"{"image_processor": {"image_size": 84}}"#),
            &["processor_config.json: image_processor.image_size: expected 40 or", "found 84"],
        ),
    ];
    all_refused(CASES);
}

/// The model in the box has images of 40 by 40, stretched.
#[test]
fn preprocessing_keys() {
    let numbers = "expected one number or three, no deviation of 0, found ";
    let side = r#"expected 40 or {"height":40,"width":40}, as the vision tower has it, found "#;
    refuse_each(
        PREPROCESSOR,
        &[
            ("image_mean", json!([0, 1]), &format!("{numbers}[0,1]")),
            ("image_mean", json!([0, "1", 2]), numbers),
            ("image_mean", json!([0, 1e300, 0]), numbers),
            ("image_mean", json!({"red": 1}), numbers),
            ("image_std", json!([1, 0, 1]), numbers),
            ("image_std", json!([]), &format!("{numbers}[]")),
            ("image_std", json!(0), &format!("{numbers}0")),
            ("image_size", json!(84), &format!("{side}84")),
            ("image_size", json!("40"), &format!("{side}\"40\"")),
            ("size", json!({"height": 40, "width": 41}), &format!("{side}{{\"height\":40,\"width\":41}}")),
            ("size", json!({"shortest_edge": 40}), side),
            ("size", json!({"height": 40}), side),
            ("crop_size", json!(39), &format!("{side}39")),
            ("image_num_channels", json!(1), "expected 3, found 1"),
            ("resample", json!(2), "expected 3, found 2"),
            ("resample", json!("bicubic"), "expected 3, found \"bicubic\""),
            ("rescale_factor", json!(0), "a number from 0.000001 to 1000000, found 0"),
            ("rescale_factor", json!("1/255"), "found \"1/255\""),
            ("do_resize", json!(false), "expected true, found false"),
            ("do_convert_rgb", json!(false), "expected true, found false"),
            ("do_rescale", json!(1), "expected true or false, found 1"),
            ("do_normalize", json!("no"), "expected true or false, found \"no\""),
            ("do_center_crop", json!(true), "expected false, found true"),
            ("do_pad", json!(true), "expected false, found true"),
            ("do_image_splitting", json!(true), "expected false, found true"),
            ("default_to_square", json!(false), "expected true, found false"),
            ("image_processor_type", json!("CLIPImageProcessor"), r#""IdeficsImageProcessor", found "CLIP"#),
            ("image_processor_type", json!("Idefics2ImageProcessor"), r#"found "Idefics2ImageProcessor""#),
            ("image_processor_type", json!([null]), "expected a string, found [null]"),
            ("feature_extractor_type", json!("CLIPFeatureExtractor"), r#"found "CLIPFeatureExtractor""#),
            ("max_image_tiles", json!(4), "expected no key but those that are known, found 4"),
            ("size_divisor", json!(32), "expected no key but those that are known, found 32"),
        ],
    );
}

#[test]
fn generation_files() {
    const CASES: &[Case] = &[
        ("not JSON", |folder| folder.write(GENERATION, "eos: 2"), &[GENERATION, "text: expected JSON"]),
        ("an array", |folder| folder.write(GENERATION, "[2]"), &[GENERATION, "a JSON object, found an array"]),
        ("5 MB", |folder| folder.make_sparse(GENERATION, 5 << 20), &["5242880 is over the limit of 4194304"]),
        ("a pipe", |folder| folder.make_pipe(GENERATION), &[GENERATION, "not a regular file"]),
        (
            "an image that ends",
            |folder| folder.write(GENERATION, r#"{"eos_token_id": [2, 31]}"#),
            &["generation_config.json: eos_token_id: expected tokens that are no markers of images, found 31"],
        ),
        (
            "an image that ends, by another file",
            |folder| folder.set("eos_token_id", json!(31)),
            &["config.json: eos_token_id: expected tokens that are no markers of images, found 31"],
        ),
        (
            "no token is left",
            |folder| {
                let all = (0..32).collect::<Vec<u32>>();
                folder.write(GENERATION, json!({ "suppress_tokens": all }).to_string());
            },
            &["suppressed tokens: expected at most 31 tokens with the markers of images, found 32"],
        ),
        ("an end in config.json", |folder| folder.set("eos_token_id", json!("</s>")), &["config.json: eos_token_id"]),
    ];
    all_refused(CASES);
}

#[test]
fn generation_keys() {
    let token = "expected tokens below the 32 of the model, found ";
    refuse_each(
        GENERATION,
        &[
            ("eos_token_id", json!(32), &format!("{token}32")),
            ("eos_token_id", json!(-1), &format!("{token}-1")),
            ("eos_token_id", json!(2.5), &format!("{token}2.5")),
            ("eos_token_id", json!("</s>"), &format!("{token}\"</s>\"")),
            ("eos_token_id", json!([]), "expected from 1 to 16 tokens, found 0"),
            ("eos_token_id", json!(vec![2; 17]), "expected from 1 to 16 tokens, found 17"),
            ("eos_token_id", json!([2, [3]]), &format!("{token}[3]")),
            ("eos_token_id", json!([2, 1_u64 << 40]), &format!("{token}1099511627776")),
            ("bos_token_id", json!(32), &format!("{token}32")),
            ("bos_token_id", json!("<s>"), &format!("{token}\"<s>\"")),
            ("pad_token_id", json!(-2), &format!("{token}-2")),
            ("pad_token_id", json!([0]), &format!("{token}[0]")),
            ("decoder_start_token_id", json!(99), &format!("{token}99")),
            ("bad_words_ids", json!(7), "expected a list of lists of a token, found 7"),
            ("bad_words_ids", json!([7]), "expected words of one token each, found 7"),
            ("bad_words_ids", json!([[7], [8, 9]]), "expected words of one token each, found [8,9]"),
            ("bad_words_ids", json!([[]]), "expected words of one token each, found []"),
            ("bad_words_ids", json!([[32_000], [32_001]]), &format!("{token}32000")),
            ("suppress_tokens", json!("a"), "expected a list of tokens, found \"a\""),
            ("suppress_tokens", json!([4, -3]), &format!("{token}-3")),
            ("suppress_tokens", json!([4, true]), &format!("{token}true")),
            ("max_new_tokens", json!("20"), "expected a whole number, found \"20\""),
            ("max_length", json!(-5), "expected a whole number, found -5"),
            ("num_beams", json!(1.5), "expected a whole number, found 1.5"),
            ("top_k", json!(0.5), "expected a whole number, found 0.5"),
            ("do_sample", json!("yes"), "expected true or false, found \"yes\""),
            ("temperature", json!([1]), "expected a number, found [1]"),
            ("top_p", json!("0.9"), "expected a number, found \"0.9\""),
            ("length_penalty", json!(true), "expected a number, found true"),
            ("repetition_penalty", json!({}), "expected a number, found {}"),
            ("no_repeat_ngram_size", json!("3"), "expected a whole number, found \"3\""),
            ("min_length", json!(-1), "expected a whole number, found -1"),
            ("typical_p", json!(false), "expected a number, found false"),
        ],
    );
}

/// What is refused nowhere: null is as if it were not there, and who wrote the file does not matter.
#[test]
fn files_that_ask_for_nothing() {
    let folder = Folder::new();
    folder.write(
        GENERATION,
        json!({
            "_from_model_config": true, "bos_token_id": 1, "pad_token_id": -1, "eos_token_id": null,
            "suppress_tokens": [], "bad_words_ids": null, "max_length": null, "transformers_version": "4.33.1",
        })
        .to_string(),
    );
    folder.write(PREPROCESSOR, json!({"image_size": null, "do_pad": false, "processor_class": "X"}).to_string());
    let output = run(&["inspect", &text(&folder.model()), "--json"], "nothing asked for");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({"end_tokens": [2], "suppressed_tokens": [], "not_applied": {}, "not_supported": {}});
    assert_eq!(report["generation"], expected);
}
