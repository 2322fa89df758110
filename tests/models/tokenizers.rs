//! Tokenizers of published models against the crate they are written for, text that comes piece by piece against the
//! whole, and files that mean harm.

mod damaged;

use std::time::{Duration, Instant};

use flamant::checkpoint::Folder;
use flamant::{Family, Result, TextStream, Tokenizer};
use serde_json::{Value, json};

/// What nothing takes here, be the machine ever so busy.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Rows of the embedding.
const ROWS: usize = 4096;

/// Opens a tokenizer that stands in a folder of its own.
fn open(json: &Value) -> Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::open(Folder::Disk(folder.path()), Family::find("idefics").unwrap(), ROWS)
}

/// What the crate makes of the same file.
fn twin(json: &Value) -> tokenizers::Tokenizer {
    serde_json::from_value(json.clone()).unwrap()
}

fn added(id: usize, content: &str, normalized: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": normalized, "special": true})
}

/// The tokens that the family asks for.
const SPECIAL: [&str; 5] = ["<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>"];

/// A file of these components whose vocabulary has `words`, merges that make each of them from the left, and the
/// family's tokens.
fn file(words: &[String], components: Value) -> Value {
    let mut vocabulary = serde_json::Map::new();
    let mut merges = Vec::new();
    let mut add = |token: &str| {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(json!(id));
    };
    SPECIAL.iter().for_each(|token| add(token));
    for word in words {
        word.chars().for_each(|character| add(&character.to_string()));
        if word.starts_with("<0x") {
            add(word);
            continue;
        }
        for (at, character) in word.char_indices().skip(1) {
            add(&word[..at + character.len_utf8()]);
            merges.push(json!([&word[..at], character.to_string()]));
        }
    }
    merges.dedup();
    let special: Vec<Value> = SPECIAL.iter().enumerate().map(|(id, token)| added(id, token, false)).collect();
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocabulary, "merges": merges},
    });
    merge(&mut file, components);
    file
}

/// Sets what the second has.
fn merge(value: &mut Value, with: Value) {
    match with {
        Value::Object(with) => with.into_iter().for_each(|(key, with)| match (value.get_mut(&key), &with) {
            (Some(inner @ Value::Object(_)), Value::Object(fields)) if !fields.contains_key("type") => {
                merge(inner, with)
            }
            _ => value[key] = with,
        }),
        other => *value = other,
    }
}

/// GPT-2's characters for bytes, and some words of them.
fn byte_words() -> Vec<String> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let rest = (0..256_u32).filter(|byte| !printable(byte)).zip(0x100..).map(|(_, code)| code);
    let characters = (0..256).filter(printable).chain(rest).map(|code| char::from_u32(code).unwrap());
    let words = ["\u{120}a", "\u{120}the", "cat", "\u{c3}\u{a9}", "ing", "123", "\u{10a}\u{10a}", "\u{120}\u{120}"];
    characters.map(String::from).chain(words.map(String::from)).collect()
}

/// SentencePiece's tokens for bytes, and some words.
fn piece_words() -> Vec<String> {
    let words = ["\u{2581}a", "\u{2581}the", "cat", "\u{e9}", "ing", "1", "2", "\u{2581}\u{2581}", "!", "s", "\n"];
    (0..256).map(|byte| format!("<0x{byte:02X}>")).chain(words.map(String::from)).collect()
}

fn byte_level(space: bool, offsets: bool, regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": offsets, "use_regex": regex})
}

fn llama_decoder() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})
}

/// The expression of Llama 3.
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// All but the vocabulary of what the language models of the families publish, and whether their characters stand for
/// bytes.
const PUBLISHED: &[(&str, bool, &str)] = &[
    (
        "LLaMA, Vicuna, IDEFICS",
        false,
        r#"{
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                         {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true}
        }"#,
    ),
    (
        "LLaMA as transformers 5 writes it",
        false,
        r#"{
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true}
        }"#,
    ),
    (
        "Llama 3",
        true,
        r#"{
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "LLAMA_3"}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
            "post_processor": {"type": "Sequence", "processors": [
                {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
                {"type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                             {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}]},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"ignore_merges": true}
        }"#,
    ),
    (
        "GPT-NeoX, RedPajama, MPT",
        true,
        r#"{
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}
        }"#,
    ),
    (
        "GPT-2",
        true,
        r#"{
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
            "model": {"unk_token": "<unk>", "continuing_subword_prefix": "", "end_of_word_suffix": ""}
        }"#,
    ),
    (
        "OPT",
        true,
        r#"{
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}
        }"#,
    ),
    (
        "cut and padded, which is passed over",
        true,
        r#"{
            "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "<unk>"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                {"type": "Split", "pattern": {"String": "at"}, "behavior": "MergedWithNext", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}]},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}
        }"#,
    ),
    (
        "T5 without its map of characters",
        false,
        r#"{
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Nmt"}, {"type": "NFKC"},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}]},
            "decoder": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true},
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [
                ["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["<fake_token_around_image>", 0.0], ["<image>", 0.0],
                ["▁", -2.0], ["a", -3.0], ["▁the", -4.5], ["cat", -5.0], ["s", -3.5], ["▁cat", -6.0], ["1", -7.0]]}
        }"#,
    ),
];

/// Each with a small vocabulary.
fn published() -> impl Iterator<Item = (&'static str, Value)> {
    PUBLISHED.iter().map(|&(name, bytes, components)| {
        let words = if bytes { byte_words() } else { piece_words() };
        let expression = Value::from(LLAMA_3).to_string();
        let components = components.replace("\"LLAMA_3\"", &expression);
        (name, file(&words, serde_json::from_str(&components).unwrap()))
    })
}

/// Texts of all kinds of characters that expressions tell apart.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "a cat",
        "the  cat's 12345 cats'll   ",
        "\n\n a\r\n\tcat  \n",
        "caf\u{e9} cafe\u{301} \u{6f22}\u{5b57}",
        "it's IT'S he'Ll \u{1f9a9}\u{200d}\u{1f525}!?...",
        "<s>the<image></s> cat",
        "\u{2581}a \u{2581}",
        "<0x41>\u{0}\u{7f}",
        "\u{a0}\u{2003}a\u{3000}1\u{b2}\u{bd}",
        "\u{130}\u{df}\u{fb01}\u{fdfa}",
    ]
    .map(String::from)
    .into();
    let pool: Vec<char> = "a\u{e9}\u{6f22}1\u{bd} \n\t\r'stl!\u{301}\u{1f9a9}\u{2581}\u{a0}".chars().collect();
    let mut random = Random(7);
    texts.extend((0..300).map(|_| (0..random.below(24)).map(|_| pool[random.below(pool.len())]).collect::<String>()));
    texts
}

struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }
}

#[test]
fn published_tokenizers_are_read_as_their_crate_reads_them() {
    for (name, json) in published() {
        let (ours, twin) = (open(&json).unwrap_or_else(|error| panic!("{name}: {error}")), twin(&json));
        let mut twin = twin;
        twin.with_truncation(None).unwrap();
        twin.with_padding(None);
        for text in texts() {
            let want = twin.encode(text.as_str(), false).unwrap();
            assert_eq!(ours.encode_continuation(&text).unwrap(), want.get_ids(), "{name}: {text:?}");
            assert_eq!(ours.decode(want.get_ids()), twin.decode(want.get_ids(), true).unwrap(), "{name}: {text:?}");
        }
    }
}

/// What stands around a text: a begin, or nothing.
#[test]
fn templates_put_around_what_they_say() {
    for (name, json) in published() {
        let mut twin = twin(&json);
        twin.with_truncation(None).unwrap();
        twin.with_padding(None);
        let folder = tempfile::tempdir().unwrap();
        let mut flamingo = json.clone();
        let vocabulary = &flamingo["model"]["vocab"];
        let count = vocabulary.as_object().map_or_else(|| vocabulary.as_array().unwrap().len(), |ids| ids.len());
        flamingo["added_tokens"].as_array_mut().unwrap().push(added(count, "<|endofchunk|>", false));
        std::fs::write(folder.path().join("tokenizer.json"), flamingo.to_string()).unwrap();
        let family = Family::find("open_flamingo").unwrap();
        let ours = Tokenizer::open(Folder::Disk(folder.path()), family, ROWS).unwrap();
        assert_eq!(ours.encode("a cat").unwrap(), twin.encode("a cat", true).unwrap().get_ids(), "{name}");
    }
}

/// Decoders of every kind on the list.
fn decoders() -> Vec<Value> {
    let chain = |steps: &[&str]| {
        let step = |step: &&str| match *step {
            "Replace" => json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
            "Strip" => json!({"type": "Strip", "content": " ", "start": 2, "stop": 0}),
            other => json!({"type": other}),
        };
        json!({"type": "Sequence", "decoders": steps.iter().map(step).collect::<Vec<_>>()})
    };
    vec![
        Value::Null,
        byte_level(true, true, true),
        json!({"type": "Metaspace", "replacement": "\u{2581}", "add_prefix_space": true}),
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never"}),
        json!({"type": "Fuse"}),
        json!({"type": "ByteFallback"}),
        chain(&[]),
        chain(&["Replace"]),
        chain(&["ByteFallback", "Strip"]),
        chain(&["Replace", "ByteFallback", "Strip"]),
        chain(&["Replace", "ByteFallback", "Fuse"]),
        chain(&["Replace", "ByteFallback", "Fuse", "Strip"]),
        chain(&["Fuse", "Strip"]),
        json!({"type": "Sequence", "decoders": [byte_level(true, true, true)]}),
    ]
}

/// The pieces of a text are together what its tokens decode to together, whatever tokens these are: bytes that are no
/// character, special ones, spaces.
#[test]
fn pieces_of_a_text_are_the_whole_text() {
    let mut random = Random(11);
    let pool: Vec<char> = "a\u{e9} \u{2581}\u{120}\u{c3}\u{a9}\u{e2}\u{129}<>".chars().collect();
    for decoder in decoders() {
        for _ in 0..6 {
            let mut words: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
            words.extend(byte_words());
            let more = |_| (0..1 + random.below(4)).map(|_| pool[random.below(pool.len())]).collect();
            words.extend((0..40).map(more).collect::<Vec<String>>());
            let json = file(&words, json!({"decoder": decoder}));
            let (ours, twin) = (open(&json).unwrap(), twin(&json));
            let count = json["model"]["vocab"].as_object().unwrap().len();
            for _ in 0..60 {
                // Runs of bytes, and what breaks them.
                let id = |random: &mut Random| match random.below(3) {
                    0 => random.below(count),
                    1 => 5 + 12 + random.below(250),
                    _ => count - 1 - random.below(60),
                };
                let ids: Vec<u32> = (0..random.below(24)).map(|_| id(&mut random) as u32).collect();
                let mut stream = TextStream::default();
                let mut pieces: String = ids.iter().map(|&id| stream.push(&ours, id)).collect();
                pieces += &stream.finish(&ours);
                assert_eq!(pieces, twin.decode(&ids, true).unwrap(), "{decoder}: {ids:?}");
                assert_eq!(pieces, ours.decode(&ids), "{decoder}: {ids:?}");
            }
        }
    }
}

#[test]
fn a_run_of_bytes_is_held_back_until_it_ends() {
    let json = file(&piece_words(), json!({"decoder": llama_decoder()}));
    let ours = open(&json).unwrap();
    let id = |token: &str| json["model"]["vocab"][token].as_u64().unwrap() as u32;
    let mut stream = TextStream::default();
    let tokens = ["\u{2581}a", "<0xC3>", "<0xA9>", "cat", "<0xC3>", "ing", "<0xE2>", "<0x82>"];
    let pieces = tokens.map(|token| stream.push(&ours, id(token)));
    assert_eq!(pieces, ["a", "", "", "\u{e9}cat", "", "\u{fffd}ing", "", ""]);
    assert_eq!(stream.finish(&ours), "\u{fffd}\u{fffd}");
    assert_eq!(stream.push(&ours, id("\u{2581}a")), "a", "another text begins");
}

/// What stands beside the vocabulary, told of a case: the keys to set, what the error names.
fn refused(case: &str, json: &Value, mentions: &[&str]) {
    let start = Instant::now();
    let error = open(json).err().unwrap_or_else(|| panic!("{case}: is opened")).to_string();
    assert!(start.elapsed() < TIME_MAX, "{case}: {:?}", start.elapsed());
    assert!(!error.contains("a fault of the library") && error.len() < 900, "{case}: {error}");
    for mention in mentions {
        assert!(error.contains(mention), "{case}: {mention:?} is not in {error:?}");
    }
}

/// Components with a setting that means harm, or is not known, and what is said of them.
const REFUSED: &[(&str, &str, &str)] = &[
    ("normalizer", r#"{"type": "BertNormalizer"}"#, "normalizer.type: expected Lowercase, NFC,"),
    ("normalizer", r#"{"type": "ByteLevel"}"#, "found \"ByteLevel\""),
    ("normalizer", r#"{"strip_left": true}"#, "normalizer.type: expected a string, found nothing"),
    ("normalizer", r#""NFC""#, "normalizer: expected an object or null, found a string"),
    ("normalizer", r#"{"type": "NFC", "form": 2}"#, "normalizer.form: expected no settings"),
    (
        "normalizer",
        r#"{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": ""}]}"#,
        "prepend: expected a text, found an empty one",
    ),
    (
        "normalizer",
        r#"{"type": "Replace", "pattern": {"String": ""}, "content": "x"}"#,
        "pattern: expected a text, found an empty",
    ),
    (
        "normalizer",
        r#"{"type": "Replace", "pattern": {"Regex": "a|b"}, "content": "x"}"#,
        "a String or the Regex \" {2,}\", found a|b",
    ),
    (
        "normalizer",
        r#"{"type": "Replace", "pattern": "a", "content": "x"}"#,
        "normalizer.pattern: expected a String or a Regex",
    ),
    (
        "normalizer",
        r#"{"type": "Replace", "pattern": {"String": "a"}}"#,
        "normalizer.content: expected a string, found nothing",
    ),
    (
        "normalizer",
        r#"{"type": "Sequence", "normalizers": [{"type": "Sequence"}]}"#,
        "expected a step that is no Sequence itself",
    ),
    (
        "normalizer",
        r#"{"type": "Sequence", "normalizers": [null]}"#,
        "normalizer.normalizers.0: expected an object, found null",
    ),
    ("normalizer", r#"{"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "NFKD"}]}"#, "found 121 times"),
    (
        "normalizer",
        r#"{"type": "Sequence", "normalizers": {}}"#,
        "normalizer.normalizers: expected an array, found an object",
    ),
    ("normalizer", r#"{"type": "Precompiled", "precompiled_charsmap": ""}"#, "a map of characters, found no length"),
    ("normalizer", r#"{"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}"#, "a trie without whole blocks"),
    ("normalizer", r#"{"type": "Precompiled", "precompiled_charsmap": "////fw=="}"#, "a trie that is cut off"),
    (
        "normalizer",
        r#"{"type": "Precompiled", "precompiled_charsmap": "/w/="}"#,
        "precompiled_charsmap: expected base64",
    ),
    ("pre_tokenizer", r#"{"type": "FixedLength", "length": 0}"#, "pre_tokenizer.type: expected ByteLevel, Digits,"),
    ("pre_tokenizer", r#"{"type": "Whitespace"}"#, "found \"Whitespace\""),
    (
        "pre_tokenizer",
        r#"{"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}"#,
        "GPT-2 or Llama 3, found \"(a+)+$\"",
    ),
    (
        "pre_tokenizer",
        r#"{"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}"#,
        "GPT-2 or Llama 3, found \"(a\"",
    ),
    (
        "pre_tokenizer",
        r#"{"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"}"#,
        "pattern: expected a text, found an empty",
    ),
    (
        "pre_tokenizer",
        r#"{"type": "Split", "pattern": {"String": "a"}, "behavior": "Lost"}"#,
        "behavior: expected Removed, Isolated,",
    ),
    ("pre_tokenizer", r#"{"type": "ByteLevel", "use_regex": 1}"#, "use_regex: expected true or false, found a number"),
    (
        "pre_tokenizer",
        r#"{"type": "Metaspace", "replacement": "ab"}"#,
        "pre_tokenizer.replacement: expected one character, found \"ab\"",
    ),
    (
        "pre_tokenizer",
        r#"{"type": "Metaspace", "replacement": "a", "prepend_scheme": "last"}"#,
        "prepend_scheme: expected always, first or never",
    ),
    ("pre_tokenizer", r#"{"type": "Digits", "individual_digits": "yes"}"#, "individual_digits: expected true or false"),
    (
        "post_processor",
        r#"{"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}"#,
        "post_processor.type: expected ByteLevel,",
    ),
    (
        "post_processor",
        r#"{"type": "TemplateProcessing", "single": []}"#,
        "single: expected the Sequence A once, found 0",
    ),
    (
        "post_processor",
        r#"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]}"#,
        "special_tokens: expected at most 64 ids",
    ),
    (
        "post_processor",
        r#"{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}]}"#,
        "single.0: expected the Sequence A",
    ),
    (
        "post_processor",
        r#"{"type": "Sequence", "processors": [{"type": "Sequence"}]}"#,
        "expected a step that is no Sequence itself",
    ),
    (
        "decoder",
        r#"{"type": "WordPiece", "prefix": "x", "cleanup": true}"#,
        "decoder.type: expected ByteFallback, ByteLevel,",
    ),
    ("decoder", r#"{"type": "CTC"}"#, "found \"CTC\""),
    (
        "decoder",
        r#"{"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}"#,
        "pattern: expected a String, found the Regex \".\"",
    ),
    (
        "decoder",
        r#"{"type": "Replace", "pattern": {"String": ""}, "content": "aa"}"#,
        "pattern: expected a text, found an empty",
    ),
    (
        "decoder",
        r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "12345678901234567"}"#,
        "content: expected at most 16 bytes",
    ),
    ("decoder", r#"{"type": "Strip", "content": " ", "start": 0, "stop": 1}"#, "decoder.stop: expected 0, found 1"),
    (
        "decoder",
        r#"{"type": "Strip", "content": "", "start": 1, "stop": 0}"#,
        "decoder.content: expected one character, found \"\"",
    ),
    (
        "decoder",
        r#"{"type": "Strip", "content": " ", "start": -1, "stop": 0}"#,
        "decoder.start: expected a whole number, found a number",
    ),
    (
        "decoder",
        r#"{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}"#,
        "Fuse, Strip in this order",
    ),
    (
        "decoder",
        r#"{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]}"#,
        "decoders.1.type: expected Replace,",
    ),
];

#[test]
fn components_that_are_not_on_the_list_are_refused_by_name() {
    for (key, component, mention) in REFUSED {
        let component: Value = serde_json::from_str(component).unwrap();
        refused(&format!("{key}: {component}"), &file(&byte_words(), json!({*key: component})), &[mention]);
    }
}

#[test]
fn components_that_are_too_large_are_refused() {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let normalizers = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
    let split =
        json!({"type": "Split", "pattern": {"String": "x".repeat(100)}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
    let token = json!({"SpecialToken": {"id": "X", "type_id": 0}});
    let many = json!({"type": "TemplateProcessing", "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
                      "special_tokens": {"X": {"id": "X", "ids": vec![1; 100], "tokens": []}}});
    let cases = [
        ("normalizer", replace("a", &"b".repeat(4_000_000)), "normalizer.content: expected at most 64 bytes"),
        ("normalizer", replace("a", &"b".repeat(65)), "content: expected at most 64 bytes, found 65"),
        (
            "normalizer",
            json!({"type": "Prepend", "prepend": "b".repeat(100)}),
            "normalizer.prepend: expected at most 64",
        ),
        ("normalizer", normalizers(vec![replace("a", "aa"); 20]), "at most 64 times as long, found 1048576"),
        ("normalizer", normalizers(vec![json!({"type": "NFC"}); 33]), "expected at most 32 components"),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "A".repeat(3 << 20)}), "at most 1048576"),
        ("pre_tokenizer", split, "pattern: expected at most 64 bytes, found 100"),
        ("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": vec![bytes; 4]}), "found 256 times"),
        ("post_processor", many, "special_tokens: expected at most 64 ids"),
        ("decoder", json!({"type": "Sequence", "decoders": vec![replace(".", "aa"); 24]}), "at most 2 of Replace"),
        ("decoder", replace(".", &"a".repeat(50_000_000)), "values of more than 8388608 bytes"),
    ];
    for (key, value, mention) in cases {
        let json = file(&byte_words(), json!({key: value}));
        refused(&format!("{key}: {:.200}", value.to_string()), &json, &[mention]);
    }
}

#[test]
fn models_that_contradict_themselves_are_refused() {
    let words = byte_words();
    let cases = [
        (json!({"dropout": 0.5}), "model.dropout: expected none: a text has the same tokens each time, found 0.5"),
        (json!({"continuing_subword_prefix": "#".repeat(50)}), "model.continuing_subword_prefix: expected none"),
        (json!({"end_of_word_suffix": "</w>"}), "model.end_of_word_suffix: expected none, found \"</w>\""),
        (json!({"vocab": 7}), "model.vocab: expected a tokenizers file, found invalid type: integer `7`"),
        (json!({"vocab": [["a", 0.5]]}), "model.vocab: expected an object of ids in a BPE, found an array"),
        (json!({"merges": ["a"]}), "model.merges[0]: expected a tokenizers file, found a text without one space"),
        (json!({"merges": ["a b c"]}), "model.merges[0]"),
        (json!({"merges": [["a", "b", "c"]]}), "model.merges[0]"),
        (json!({"merges": [["a", "\u{2603}"]]}), "merges.0: expected tokens of the vocabulary, found \"\u{2603}\""),
        (json!({"merges": [["cat", "cat"]]}), "merges.0: expected tokens of the vocabulary, found \"catcat\""),
        (json!({"vocab": {"x": u32::MAX}}), "the id 4294967295, ids are below 16777216"),
        (json!({"vocab": {"x": 1 << 24}}), "the id 16777216, ids are below 16777216"),
        (json!({"vocab": {"x": -1}}), "model.vocab"),
        (json!({"vocab": {"cat": 7}}), "model.vocab: expected each id once, found 7 twice"),
        (json!({"vocab": {"x".repeat(5000): 3000}}), "a token of more than 4096 bytes"),
        (json!({"type": "WordPiece"}), "model.type: expected a tokenizers file, found unknown variant `WordPiece`"),
        (json!({"type": "Unigram"}), "model.vocab: expected an array of scores in a Unigram, found an object"),
        (json!({"unk_id": 0}), "model.unk_id: expected none in a BPE"),
        (json!({"nbest": 3}), "model.nbest"),
        (json!({"unk_token": "<none>"}), "unk_token: expected a token of the vocabulary, found \"<none>\""),
    ];
    for (value, mention) in cases {
        let mut json = file(&words, json!({}));
        for (key, value) in value.as_object().unwrap() {
            match (key.as_str(), value) {
                ("vocab", Value::Object(more)) => more.iter().for_each(|(token, id)| {
                    json["model"]["vocab"][token] = id.clone();
                }),
                _ => json["model"][key] = value.clone(),
            }
        }
        refused(&format!("{:.200}", value.to_string()), &json, &[mention]);
    }
    let unigram = |pieces: Value, unknown: Value| {
        file(&words, json!({"model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": false}}))
    };
    refused(
        "a piece twice",
        &unigram(json!([["a", 0.0], ["a", 1.0]]), json!(0)),
        &["each piece once, found \"a\" twice"],
    );
    refused(
        "a long piece",
        &unigram(json!([["a".repeat(65), 0.0]]), json!(0)),
        &["pieces of at most 64 bytes, found one of 65"],
    );
    refused("no unknown", &unigram(json!([["a", 0.0]]), json!(1)), &["model: expected a Unigram"]);
    refused("nothing", &unigram(json!([]), json!(0)), &["model: expected a Unigram"]);
}

#[test]
fn added_tokens_and_the_rest_of_the_file_are_bounded() {
    let words = byte_words();
    let with = |token: Value| {
        let mut json = file(&words, json!({}));
        json["added_tokens"].as_array_mut().unwrap().push(token);
        json
    };
    let count = file(&words, json!({}))["model"]["vocab"].as_object().unwrap().len();
    assert!(open(&with(added(count, "<more>", false))).is_ok());
    refused("an empty one", &with(added(count, "", false)), &["added_tokens.5: expected a text, found an empty one"]);
    refused("another id", &with(added(count + 1, "<more>", false)), &["expected the id", "of \"<more>\"", "found "]);
    refused("one twice", &with(added(1, "<s>", false)), &["added_tokens.5: expected each text once"]);
    let mut shared = with(added(count, "<more>", false));
    shared["model"]["vocab"]["cat"] = json!(count);
    refused("a word's id", &shared, &["added_tokens.5: expected the id", "alone, found it for \"cat\" of the voc"]);
    refused(
        "a large one",
        &with(added(count, &"x".repeat(5 << 20), true)),
        &["bytes of all", "over the limit of 4194304"],
    );
    refused(
        "no id",
        &with(json!({"content": "x"})),
        &["added_tokens[5]: expected a tokenizers file, found missing field `id`"],
    );
    refused("more of it", &with(json!({"id": 1, "content": "x", "color": 2})), &["unknown field `color`"]);
    let mut many = file(&words, json!({}));
    many["added_tokens"] = (0..20_000).map(|id| added(count + id, &format!("<{id}>"), false)).collect();
    refused("too many", &many, &["more than 16384 of them"]);
    refused(
        "another key",
        &file(&words, json!({"unknown": [{"a": 0}]})),
        &["unknown field `unknown`, expected one of"],
    );
    refused("another version", &file(&words, json!({"version": "2.0"})), &["version: expected \"1.0\", found \"2.0\""]);
    refused(
        "deep",
        &file(&words, json!({"decoder": {"type": "Sequence", "decoders": [[[[[]]]]]}})),
        &["decoders.0: expected"],
    );
}

/// Pipelines that have a meaning, at the edge of what is allowed, on texts that are long or strange.
#[test]
fn texts_take_bounded_time() {
    let normal = json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]});
    let scores: Vec<Value> =
        SPECIAL.iter().map(|token| json!([token, 0.0])).chain((1..=64).map(|n| json!(["a".repeat(n), -1.0]))).collect();
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": scores, "byte_fallback": false});
    let pipelines = [
        file(&byte_words(), json!({"pre_tokenizer": byte_level(true, true, true)})),
        published().find(|(name, _)| *name == "Llama 3").unwrap().1,
        file(&piece_words(), json!({"normalizer": normal})),
        file(&[], json!({"model": unigram})),
    ];
    for json in pipelines {
        let ours = open(&json).unwrap();
        for piece in ["a", " ", "\n", " \n", "'", "1", "\u{301}", "\u{fdfa}", "a ", "\u{2581}", "<s>", "\u{0}"] {
            let text = piece.repeat(100_000 / piece.len());
            let start = Instant::now();
            let found = ours.encode_continuation(&text).map(|ids| ours.decode(&ids).len());
            assert!(start.elapsed() < TIME_MAX, "{piece:?}: {:?}, {found:?}", start.elapsed());
        }
        let error = ours.encode_continuation(&" ".repeat(17 << 20)).unwrap_err().to_string();
        assert!(error.contains("bytes of a text for the tokenizer"), "{error}");
    }
}
