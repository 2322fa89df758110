//! Thousands of small damages to the fuzzer's seeds: each file is refused in a line, or makes tokens and text.

use std::path::Path;

use flamant::ErrorKind;
use serde_json::{Value, json};

use super::{Random, open};

const ROUNDS: usize = 4000;

/// The fuzzer's seeds, which have each component.
fn seeds() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tokenizer");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 6);
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// Values that mean harm in one place or another.
fn hostile(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(4_294_967_295_u64),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!(" "),
        json!("a"),
        json!("\u{2581}"),
        json!("\u{0}"),
        json!("a".repeat(100)),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"String": ""}),
        json!({"Regex": "(a+)+$"}),
        json!({"type": "Fuse"}),
        json!({"type": "NFKD"}),
        json!({"type": "Strip", "content": "a", "start": 9, "stop": 9}),
        json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}),
        json!({"type": "FixedLength", "length": 0}),
        json!(["a", "b"]),
        json!("a b"),
        json!([["a", 1.0]]),
        json!("////////"),
        json!(65),
        json!("<0xFF>"),
        json!("always"),
        json!("Sequence"),
    ];
    values[random.below(values.len())].clone()
}

/// Changes one value somewhere in the tree, takes it away, doubles it, or puts another beside it.
fn damage(value: &mut Value, random: &mut Random) {
    let deeper = random.below(8) > 0;
    match value {
        Value::Array(values) if deeper && !values.is_empty() => {
            let at = random.below(values.len());
            match random.below(6) {
                0 => drop(values.remove(at)),
                1 => values.insert(at, hostile(random)),
                2 => values.insert(at, values[at].clone()),
                _ => damage(&mut values[at], random),
            }
        }
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let key = fields.keys().nth(random.below(fields.len())).unwrap().clone();
            match random.below(8) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(["type", "content", "x", "id"][random.below(4)].to_owned(), hostile(random))),
                _ => damage(fields.get_mut(&key).unwrap(), random),
            }
        }
        Value::String(text) if random.below(2) == 0 => {
            let characters: Vec<char> = text.chars().collect();
            let at = random.below(characters.len() + 1);
            let (before, after) = characters.split_at(at);
            let middle = ['a', '\u{2581}', '\u{0}', '1', ' '][random.below(5)];
            *text = before.iter().chain([&middle]).chain(after.iter().skip(random.below(2))).collect();
        }
        other => *other = hostile(random),
    }
}

#[test]
fn damaged_files_are_refused_or_make_sense() {
    let (seeds, mut random) = (seeds(), Random(3));
    let (mut opened, mut encoded) = (0, 0);
    for round in 0..ROUNDS {
        let mut file = seeds[round % seeds.len()].clone();
        (0..=random.below(3)).for_each(|_| damage(&mut file, &mut random));
        let tokenizer = match open(&file) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                let line = error.to_string();
                assert!(error.kind() != ErrorKind::Internal && !line.contains(char::is_control), "{line}: {file}");
                continue;
            }
        };
        opened += 1;
        for text in ["<s> A\u{e9}ab 11 1\n\n  b\u{301}\u{1f9a9}<image>", "ab\u{2581}ab  ", &file.to_string()] {
            match tokenizer.encode(text) {
                Ok(ids) => {
                    tokenizer.decode(&ids);
                    encoded += 1;
                }
                Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{error}: {file}"),
            }
        }
    }
    assert!(opened > ROUNDS / 20 && encoded > opened, "{opened} of {ROUNDS} open, {encoded} texts have tokens");
}
