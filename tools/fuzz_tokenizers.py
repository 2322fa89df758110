"""Seeds of the fuzz target `tokenizer`: small tokenizers that have each component which Flamant reads.

    python3 tools/fuzz_tokenizers.py

writes fuzz/corpus/tokenizer/*.json. Needs python3 alone.
"""
import base64, json, pathlib, struct

SPECIAL = ["<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>"]
LLAMA_3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TEMPLATE = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
CHAIN = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def charsmap():
    """A map that makes `a` of `A`: one block, from the root to `A`, and its leaf."""
    units = [0] * 256
    units[0x41] = 0x41 | 1 << 8 | 0x42 << 10
    units[0x41 ^ 0x42] = 1 << 31
    return base64.b64encode(struct.pack("<I256I", 1024, *units) + b"a\0").decode()


def bpe(words, **settings):
    pieces = SPECIAL + words
    merges = [[left, right] for word in words for left in words for right in words if left + right == word]
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {piece: number for number, piece in enumerate(pieces)}, "merges": merges, **settings}


def tokenizer(model, normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None):
    added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for number, token in enumerate(SPECIAL)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model}


PIECES = ["\u2581", "a", "b", "\u2581a", "ab", "\u2581ab", "<0x41>", "<0xC3>", "<0xA9>", "1"]
LETTERS = ["\u0120", "a", "b", "\u0120a", "ab", "\u00c3", "\u00a9", "\u010a", "1", "11"]
SCORES = [[piece, -float(number)] for number, piece in enumerate(SPECIAL + PIECES)]
SEEDS = {
    "llama": tokenizer(
        bpe(PIECES, unk_token="<unk>", fuse_unk=True, byte_fallback=True), post_processor=TEMPLATE, decoder=CHAIN,
        normalizer={"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}),
    "metaspace": tokenizer(
        bpe(PIECES, unk_token="<unk>"), decoder={"type": "Metaspace", "replacement": "\u2581"},
        normalizer={"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": False},
                                                        {"type": "Lowercase"}, {"type": "StripAccents"}]},
        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}),
    "llama-3": tokenizer(
        bpe(LETTERS, ignore_merges=True), decoder=BYTES,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False},
            {**BYTES, "use_regex": False}]},
        post_processor={"type": "Sequence", "processors": [BYTES, TEMPLATE]}),
    "neox": tokenizer(bpe(LETTERS), {"type": "NFC"}, BYTES, BYTES, BYTES),
    "split": tokenizer(
        bpe(LETTERS), {"type": "NFKD"}, decoder={"type": "Fuse"},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithNext", "invert": True}]}),
    "unigram": tokenizer(
        {"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": SCORES},
        {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": charsmap()}, {"type": "Nmt"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}]},
        decoder={"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}),
}

folder = pathlib.Path(__file__).parents[1] / "fuzz/corpus/tokenizer"
for name, seed in SEEDS.items():
    (folder / f"{name}.json").write_text(json.dumps(seed, ensure_ascii=False) + "\n")
