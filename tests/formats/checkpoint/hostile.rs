//! Files that lie. One table a format: what is wrong, the bytes, what the error must mention.

use super::build::*;
use super::refused;
use flamant::checkpoint::{Checkpoint, INDEX_BYTES_MAX};
use std::fs;
use std::path::Path;

type Case = (&'static str, Vec<u8>, &'static str);

/// Every file of the table must be refused at opening, by a line that begins with its name.
fn all_refused(file: &str, cases: Vec<Case>) {
    let folder = tempfile::tempdir().unwrap();
    for (case, bytes, mention) in cases {
        let path = write(folder.path(), file, &bytes);
        refused(case, mention, || Checkpoint::open(&path));
        refused(case, &path.display().to_string(), || Checkpoint::open(&path));
    }
}

/// One tensor `a` of the given fields and `data` bytes of numbers.
fn header(dtype: &str, shape: &str, offsets: &str, data: usize) -> Vec<u8> {
    safetensors(&format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#), data)
}

/// A single number of four bytes, as the header of a larger file has it.
fn number(name: &str, start: usize, stop: usize) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{stop}]}}"#)
}

fn numbers(entries: &[String], data: usize) -> Vec<u8> {
    safetensors(&format!("{{{}}}", entries.join(",")), data)
}

#[test]
fn safetensors_that_lie() {
    let good = || header(r#""F32""#, "[2]", "[0,8]", 8);
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let nested = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many: Vec<String> =
        (0..=100_000).map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let long_name = number(&"x".repeat(1 << 20), 0, 8);
    all_refused(
        "x.safetensors",
        vec![
            ("nothing", vec![], "length: expected a safetensors file or a PyTorch archive, found an empty file"),
            ("half a length", good()[..5].to_vec(), "first bytes"),
            ("only a length", good()[..8].to_vec(), "first bytes"),
            ("a header that is an array", safetensors("[]", 0), "first bytes"),
            (
                "a header longer than the file",
                patched(0, &200_u64.to_le_bytes()),
                "header: expected 200 bytes, found a file of",
            ),
            (
                "a header over the limit",
                patched(0, &100_000_001_u64.to_le_bytes()),
                "header bytes: 100000001 is over the limit",
            ),
            (
                "a header length that wraps",
                patched(0, &u64::MAX.to_le_bytes()),
                "header bytes: 18446744073709551615 is over",
            ),
            (
                "a header that ends early",
                patched(0, &20_u64.to_le_bytes()),
                "header: expected a JSON object of tensors",
            ),
            ("text that is not UTF-8", patched(10, &[0xFF]), "header: expected a JSON object of tensors"),
            ("text behind the object", safetensors("{} {}", 0), "header: expected a JSON object of tensors"),
            ("text that is not JSON", safetensors("{nonsense}", 0), "header: expected a JSON object of tensors"),
            ("deep nesting", safetensors(&nested, 0), "header: expected a JSON object of tensors"),
            ("a tensor twice", numbers(&[number("a", 0, 4), number("a", 4, 8)], 8), "`a` twice"),
            ("a tensor twice in one place", numbers(&[number("a", 0, 4), number("a", 0, 4)], 4), "`a` twice"),
            ("too many tensors", numbers(&many, 0), "at most 100000 tensors"),
            ("a tensor that is null", safetensors(r#"{"a":null}"#, 0), "`a`: invalid type: null"),
            ("no offsets", safetensors(r#"{"a":{"dtype":"F32","shape":[2]}}"#, 8), "`a`: missing field `data_offsets`"),
            ("no shape", safetensors(r#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#, 8), "`a`: missing field `shape`"),
            ("a field twice", safetensors(r#"{"a":{"dtype":"F32","dtype":"F16"}}"#, 0), "`a`: duplicate field `dtype`"),
            ("an unknown format", header(r#""F128""#, "[2]", "[0,8]", 8), "`a`: unknown variant `F128`"),
            ("a format that is a number", header("7", "[2]", "[0,8]", 8), "`a`: "),
            ("a shape that is text", header(r#""F32""#, r#""2""#, "[0,8]", 8), "`a`: invalid type: string"),
            ("a negative dimension", header(r#""F32""#, "[-2]", "[0,8]", 8), "`a`: invalid value: integer `-2`"),
            ("half a dimension", header(r#""F32""#, "[2.5]", "[0,8]", 8), "`a`: invalid type: floating point"),
            ("a dimension over 64 bits", header(r#""F32""#, "[36893488147419103232]", "[0,8]", 8), "`a`: invalid type"),
            ("nine dimensions", header(r#""F32""#, "[1,1,1,1,1,1,1,1,2]", "[0,8]", 8), "at most 8 dimensions"),
            (
                "elements that wrap",
                header(r#""F32""#, "[4294967296,4294967298]", "[0,8]", 8),
                "a: expected at most 281474976710656 numbers in whole bytes",
            ),
            (
                "an empty tensor of a huge dimension",
                header(r#""F32""#, "[0,562949953421312]", "[0,0]", 0),
                "a: expected at most 281474976710656 numbers in whole bytes",
            ),
            (
                "bytes that wrap",
                header(r#""F32""#, "[4611686018427387906]", "[0,8]", 8),
                "a: expected at most 281474976710656 numbers in whole bytes",
            ),
            (
                "a shape that is too large",
                header(r#""F32""#, "[3]", "[0,8]", 8),
                "a: expected 12 bytes for F32 of shape [3], found 8",
            ),
            (
                "a shape that is too small",
                header(r#""F16""#, "[3]", "[0,8]", 8),
                "a: expected 6 bytes for F16 of shape [3], found 8",
            ),
            (
                "half a byte",
                header(r#""F4""#, "[1]", "[0,1]", 1),
                "a: expected at most 281474976710656 numbers in whole bytes",
            ),
            ("three offsets", header(r#""F32""#, "[2]", "[0,8,8]", 8), "`a`: "),
            ("offsets that are text", header(r#""F32""#, "[2]", r#"["0","8"]"#, 8), "`a`: "),
            ("offsets in reverse", header(r#""F32""#, "[2]", "[8,0]", 8), "a: expected data_offsets from 0"),
            (
                "offsets from zero backwards",
                numbers(&[number("a", 0, 4), number("b", 4, 0)], 4),
                "b: expected data_offsets from 4",
            ),
            (
                "offsets behind the end",
                header(r#""F32""#, "[2]", "[0,8]", 7),
                "a: expected data_offsets from 0 up to at most 7, found 0 to 8",
            ),
            (
                "offsets that wrap",
                header(r#""F32""#, "[2]", "[0,18446744073709551615]", 8),
                "a: expected data_offsets from 0 up to at most 8",
            ),
            ("a gap at the start", header(r#""F32""#, "[2]", "[4,12]", 12), "a: expected data_offsets from 0"),
            ("a gap between", numbers(&[number("a", 0, 4), number("b", 8, 12)], 12), "b: expected data_offsets from 4"),
            ("an overlap", numbers(&[number("a", 0, 4), number("b", 2, 6)], 6), "b: expected data_offsets from 4"),
            (
                "one place for two",
                numbers(&[number("a", 0, 4), number("b", 0, 4)], 4),
                "b: expected data_offsets from 4",
            ),
            (
                "bytes behind the numbers",
                header(r#""F32""#, "[2]", "[0,8]", 9),
                "data: expected 8 bytes, as the header says, found 9",
            ),
            ("a name of a megabyte", safetensors(&format!("{{{long_name}}}"), 8), "xxx"),
            ("a name with line breaks", numbers(&[number(r"a\nb\u001b[31m", 0, 8)], 8), r"a\nb\u{1b}[31m"),
        ],
    );
}

#[test]
fn an_index_that_lies() {
    let outer = tempfile::tempdir().unwrap();
    write(outer.path(), "outside.safetensors", &header(r#""F32""#, "[2]", "[0,8]", 8));
    let folder = tempfile::tempdir_in(outer.path()).unwrap();
    write(folder.path(), "shard.safetensors", &header(r#""F32""#, "[2]", "[0,8]", 8));
    write(folder.path(), "broken.safetensors", &header(r#""F32""#, "[2]", "[0,8]", 7));
    fs::create_dir(folder.path().join("folder.safetensors")).unwrap();
    let shard = |name: &str| format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#).into_bytes();
    let many: Vec<String> = (0..5000).map(|i| format!(r#""t{i}":"s{i}""#)).collect();
    let cases: Vec<Case> = vec![
        ("nothing", vec![], "index.json: text: expected JSON"),
        ("text that is not JSON", b"{".to_vec(), "index.json: text: expected JSON"),
        ("text that is not UTF-8", b"{\"\xff\": 1}".to_vec(), "index.json: text: expected UTF-8"),
        ("no map", b"{}".to_vec(), "missing field `weight_map`"),
        ("a map that is a list", br#"{"weight_map": []}"#.to_vec(), "weight_map"),
        ("a file that is a number", br#"{"weight_map": {"a": 1}}"#.to_vec(), "`a`: invalid type: integer `1`"),
        (
            "a tensor twice",
            br#"{"weight_map": {"a": "shard.safetensors", "a": "shard.safetensors"}}"#.to_vec(),
            "a: expected this key once",
        ),
        (
            "a tensor with and without a wrapper of training",
            br#"{"weight_map": {"a": "shard.safetensors", "module.a": "shard.safetensors"}}"#.to_vec(),
            "a: expected one tensor of this name without wrappers of training, found another one, module.a",
        ),
        ("a path upwards", shard("../outside.safetensors"), "a: expected the plain name of a file beside the index"),
        ("an absolute path", shard("/etc/passwd"), "a: expected the plain name"),
        ("a path downwards", shard("sub/shard.safetensors"), "a: expected the plain name"),
        ("a path of another system", shard(r"..\\shard.safetensors"), "a: expected the plain name"),
        ("a drive", shard("c:shard.safetensors"), "a: expected the plain name"),
        ("no name", shard(""), "a: expected the plain name"),
        ("the folder", shard("."), "a: expected the plain name"),
        ("the folder above", shard(".."), "a: expected the plain name"),
        ("an end within the name", shard(r"shard.safetensors\u0000"), "a: expected the plain name"),
        ("a missing shard", shard("nowhere.safetensors"), "nowhere.safetensors: No such file"),
        ("a shard that is a folder", shard("folder.safetensors"), "folder.safetensors: not a regular file"),
        ("a broken shard", shard("broken.safetensors"), "broken.safetensors: a: expected data_offsets"),
        (
            "a missing tensor",
            br#"{"weight_map": {"b": "shard.safetensors"}}"#.to_vec(),
            "shard.safetensors: b: expected the tensor that the index names here",
        ),
        (
            "too many shards",
            format!(r#"{{"weight_map": {{{}}}}}"#, many.join(",")).into_bytes(),
            "shards: 5000 is over the limit of 4096",
        ),
    ];
    for (case, bytes, mention) in cases {
        write(folder.path(), "model.safetensors.index.json", &bytes);
        refused(case, mention, || Checkpoint::open(folder.path()));
    }
    let index = fs::File::create(folder.path().join("model.safetensors.index.json")).unwrap();
    index.set_len(INDEX_BYTES_MAX + 1).unwrap();
    refused("an index over the limit", "index.json: bytes: 67108865 is over the limit", || {
        Checkpoint::open(folder.path())
    });
}

/// A state dictionary of one tensor `a` of two numbers, with its record.
fn good_entries() -> Vec<Entry> {
    let pickle = state_dictionary(&[("a", tensor("FloatStorage", "0", 2, 0, &[2], &[1]))]);
    vec![entry("archive/data.pkl", &pickle), entry("archive/data/0", &[0; 8])]
}

/// The good entries with one changed.
fn changed(index: usize, change: impl FnOnce(&mut Entry)) -> Zip {
    let mut entries = good_entries();
    change(&mut entries[index]);
    zip(&entries)
}

#[test]
fn an_archive_of_either_width_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [zip(&good_entries()).bytes, zip64(zip(&good_entries()), 2)] {
        assert!(Checkpoint::open(&write(folder.path(), "x.pt", &bytes)).unwrap().contains("a"));
    }
}

#[test]
fn zip_files_that_lie() {
    let good = || zip(&good_entries());
    let more = |entries: &[Entry]| zip(&[good_entries(), entries.to_vec()].concat()).bytes;
    let patch = |entry: usize, field: usize, value: u32| {
        let at = good().directory[entry] + field;
        good().patch(at, value)
    };
    let end = |field: usize, value: u32| good().patch(good().end + field, value);
    let count = |value: u32| end(field::END_COUNT, value | (((good().end - good().directory[0]) as u32) << 16));
    let big_endian = [good_entries(), vec![entry("archive/byteorder", b"big")]].concat();
    let mut commented = good().bytes;
    let last = commented.len() - 2;
    commented[last] = 7;
    all_refused(
        "x.pt",
        vec![
            ("cut within the numbers", good().bytes[..300].to_vec(), "zip directory: expected an end record"),
            (
                "cut within the directory",
                good().bytes[..good().directory[1] + 9].to_vec(),
                "zip directory: expected an end record",
            ),
            ("cut within the end", good().bytes[..good().end + 12].to_vec(), "zip directory: expected an end record"),
            ("only the first signature", b"PK\x03\x04".to_vec(), "zip directory: expected an end record"),
            ("bytes behind the end", [good().bytes, vec![0]].concat(), "zip directory: expected an end record"),
            ("a comment that is not there", commented, "zip directory: expected an end record"),
            ("more entries than there are", count(3), "zip directory: expected an entry at"),
            ("fewer entries than there are", count(1), "zip directory: expected"),
            (
                "a directory behind the end",
                end(field::END_START, 1 << 20),
                "zip directory: expected a place before byte",
            ),
            ("a directory in the wrong place", end(field::END_START, 4), "zip directory: expected an entry at 4"),
            (
                "a directory that is too long",
                end(field::END_LENGTH, 1 << 20),
                "zip directory: expected a place before byte",
            ),
            (
                "an entry behind the end",
                patch(1, field::OFFSET, 1 << 20),
                "archive/data/0: expected content before byte",
            ),
            ("an entry within another", patch(1, field::OFFSET, 4), "archive/data/0: expected its local header at 4"),
            ("an entry of another name", patch(1, field::OFFSET, 0), "archive/data/0: expected its local header at 0"),
            (
                "an entry longer than the file",
                changed(1, |_| ()).patch(good().directory[1] + field::LENGTH, 1 << 20),
                "archive/data/0: expected 1048576 bytes stored, found 8",
            ),
            (
                "an entry stored shorter",
                patch(1, field::STORED_LENGTH, 4),
                "archive/data/0: expected 8 bytes stored, found 4",
            ),
            (
                "a long entry without zip64",
                patch(1, field::OFFSET, u32::MAX),
                "archive/data/0: expected a zip64 extension, found none",
            ),
            (
                "an entry twice",
                more(&[entry("archive/data/0", &[0; 8])]),
                "archive/data/0: expected one entry of this name, found two",
            ),
            (
                "an encrypted entry",
                changed(1, |entry| entry.flags = 1).bytes,
                "archive/data/0: expected an entry in clear",
            ),
            (
                "a compressed structure",
                changed(0, |entry| entry.method = 8).bytes,
                "archive/data.pkl: expected a stored entry",
            ),
            (
                "a compressed record",
                changed(1, |entry| entry.method = 8).bytes,
                "archive/data/0: expected a stored entry",
            ),
            (
                "a name that is not UTF-8",
                changed(1, |entry| entry.name[0] = 0xFF).bytes,
                "zip directory: expected names in UTF-8",
            ),
            (
                "no structure",
                zip(&[entry("archive/data/0", &[0; 8])]).bytes,
                "data.pkl: expected one in the archive's top folder",
            ),
            (
                "a structure too deep",
                changed(0, |entry| entry.name = b"a/b/data.pkl".into()).bytes,
                "data.pkl: expected one in",
            ),
            (
                "two structures",
                more(&[entry("other/data.pkl", b".")]),
                "data.pkl: expected one in the archive's top folder, found several",
            ),
            ("numbers the other way round", zip(&big_endian).bytes, "byteorder: expected little, found big"),
            ("entries that overlap", overlapping(), "b: expected an entry behind archive/data/0"),
            ("zip64 of too many entries", zip64(good(), 1 << 40), "zip entries: 1099511627776 is over the limit"),
            ("zip64 with a lost record", lost_zip64(), "zip64 end of directory: expected its record"),
        ],
    );
}

/// The second entry's content holds a whole third entry.
fn overlapping() -> Vec<u8> {
    let inner = zip(&[entry("b", b"inner")]);
    let mut entries = good_entries();
    entries[1].content = inner.bytes[..inner.directory[0]].to_vec();
    let shell = zip(&entries);
    let offset = shell.bytes.windows(4).enumerate().filter(|(_, bytes)| *bytes == b"PK\x03\x04").nth(2).unwrap().0;
    entries.push(entry("b", b"inner"));
    let outer = zip(&entries);
    let at = outer.directory[2] + field::OFFSET;
    outer.patch(at, offset as u32)
}

fn lost_zip64() -> Vec<u8> {
    let mut bytes = zip64(zip(&good_entries()), 2);
    let at = bytes.windows(4).position(|bytes| bytes == b"PK\x06\x06").unwrap();
    bytes[at] = 0;
    bytes
}

#[test]
fn pickles_that_lie() {
    let os_system = call(&global("os", "system"), &[text("touch /tmp/flamant-was-here")]);
    let stack_global = |module: &str, name: &str| pickle(&[text(module), text(name), b"\x93".to_vec()].concat());
    let function = || global("torch._utils", "_rebuild_tensor_v2");
    let endless = [b"\x80\x02N".to_vec(), b"20".repeat(600_000)].concat();
    let long_calls = [
        b"\x80\x02c_codecs\nencode\nq\x00(".to_vec(),
        b"K\x00".repeat(400_000),
        b"tq\x01".to_vec(),
        b"h\x00h\x01R0".repeat(140_000),
        b"N".to_vec(),
    ]
    .concat();
    let cases: Vec<Case> = vec![
        ("nothing", vec![], "pickle byte 0: expected 1 bytes"),
        ("no end", b"\x80\x02}".to_vec(), "pickle byte 3: expected 1 bytes, found 0 before the end"),
        (
            "bytes behind the end",
            [state_dictionary(&[]), b"N".to_vec()].concat(),
            "expected the end after STOP, found 1 bytes more",
        ),
        ("nothing to return", pickle(b""), "expected a value on the stack, found none"),
        ("os.system", pickle(&os_system), "found the global os.system"),
        ("os.system within a state", state_dictionary(&[("a", os_system.clone())]), "found the global os.system"),
        ("os.system only named", pickle(&global("os", "system")), "found the global os.system"),
        ("posix.system", stack_global("posix", "system"), "found the global posix.system"),
        ("eval", stack_global("builtins", "eval"), "found the global builtins.eval"),
        ("getattr", pickle(&global("__builtin__", "getattr")), "found the global __builtin__.getattr"),
        (
            "a name below an allowed one",
            stack_global("collections", "OrderedDict.__init__"),
            "the global collections.OrderedDict.__init__",
        ),
        ("torch's own loader", pickle(&global("torch.serialization", "load")), "the global torch.serialization.load"),
        (
            "another rebuilder",
            pickle(&global("torch._utils", "_rebuild_qtensor")),
            "the global torch._utils._rebuild_qtensor",
        ),
        ("a storage of no type", pickle(&global("torch", "QUInt8Storage")), "the global torch.QUInt8Storage"),
        ("a name of line breaks", stack_global("a\nb", "c\x1b"), r"the global a\nb.c\u{1b}"),
        ("a name that is no text", pickle(b"NN\x93"), "expected the text of a global's name"),
        ("a name without end", pickle(b"cos"), "expected a line of text, found no end of it"),
        ("a name that is not UTF-8", pickle(b"c\xff\nx\n"), "expected a name in UTF-8"),
        ("an old instance", pickle(b"(ios\nsystem\n"), "expected an opcode that PyTorch writes, found 0x69"),
        ("an old object", pickle(b"(o"), "found 0x6f"),
        ("an extension", pickle(b"\x82\x01"), "found 0x82"),
        ("a textual persistent id", pickle(b"P0\n"), "found 0x50"),
        ("a buffer", pickle(b"\x97"), "found 0x97"),
        ("protocol 9", b"\x80\x09N.".to_vec(), "expected a pickle protocol up to 5, found 9"),
        ("pop of nothing", pickle(b"0"), "expected a value on the stack"),
        ("pop beyond a mark", pickle(b"N(0"), "expected a value on the stack"),
        ("a tuple without mark", pickle(b"Nt"), "expected a mark on the stack"),
        ("a tuple of too few", pickle(b"N\x86"), "expected a value on the stack"),
        ("a memory of nothing", pickle(b"h\x07"), "expected a remembered value, found none at 7"),
        ("text beyond the end", b"\x80\x02X\xff\xff\xff\x7fabc".to_vec(), "expected 2147483647 bytes, found 3"),
        (
            "text of a wrapped length",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc".to_vec(),
            "expected 18446744073709551615 bytes",
        ),
        ("text that is not UTF-8", pickle(b"X\x01\0\0\0\xff"), "expected text in UTF-8"),
        ("bytes beyond the end", b"\x80\x02B\xff\xff\xff\xff".to_vec(), "expected 4294967295 bytes"),
        ("append to a dictionary", pickle(b"}Na"), "expected a list to append to"),
        ("items of a list", pickle(b"](NNu"), "expected a dictionary to set items of"),
        ("a key without value", pickle(b"}(Nu"), "expected keys with values"),
        ("state of a number", pickle(b"K\x01}b"), "expected an object to set the state of"),
        ("a call of a number", pickle(b"K\x01)R"), "expected something that a state dictionary calls"),
        ("a call without tuple", pickle(&[function(), b"NR".to_vec()].concat()), "expected a tuple of arguments"),
        ("a tensor of nothing", pickle(&call(&function(), &[])), "expected at least 4 arguments, found 0"),
        (
            "a size without argument",
            pickle(&call(&global("torch", "Size"), &[])),
            "expected at least 1 arguments, found 0",
        ),
        (
            "a dictionary of a list",
            pickle(&call(&global("collections", "OrderedDict"), &[b"]".to_vec()])),
            "expected a dictionary",
        ),
        (
            "a typed call of os",
            pickle(&call(&global("torch._tensor", "_rebuild_from_type_v2"), &[text("os"), text("x"), tuple(&[])])),
            "expected a function that makes a tensor",
        ),
        ("more opcodes than allowed", endless, "pickle opcodes: 1000001 is over the limit of 1000000"),
        ("many calls with long arguments", long_calls, "pickle byte"),
        ("a number as root", pickle(b"K\x01"), "root: expected a state dictionary or TorchScript module"),
        (
            "a dictionary without tensors",
            state_dictionary(&[("a", int(1))]),
            "root: expected tensors by name, found none",
        ),
        (
            "a dictionary that holds itself",
            pickle(b"}q\x00(X\x01\0\0\0ah\x00u"),
            "root: expected tensors by name, found none",
        ),
    ];
    all_refused(
        "x.pt",
        cases.into_iter().map(|(case, pickle, mention)| (case, archive(&pickle, &[]), mention)).collect(),
    );
    assert!(!Path::new("/tmp/flamant-was-here").exists());
}

#[test]
fn tensors_that_lie() {
    let float = |elements, offset, shape: &[i64], strides: &[i64]| {
        tensor("FloatStorage", "0", elements, offset, shape, strides)
    };
    let good = || float(2, 0, &[2], &[1]);
    let of = |storage: Vec<u8>| tensor_of(storage, int(0), ints(&[2]), ints(&[1]));
    let persistent = |parts: &[Vec<u8>]| [tuple(parts), b"Q".to_vec()].concat();
    let class = || global("torch", "FloatStorage");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "no record",
            tensor("FloatStorage", "1", 2, 0, &[2], &[1]),
            "a: expected the record archive/data/1, found none",
        ),
        (
            "a record outside",
            tensor("FloatStorage", "../data.pkl", 2, 0, &[2], &[1]),
            "a: expected the record archive/data/../data.pkl",
        ),
        (
            "a record that is too short",
            float(3, 0, &[2], &[1]),
            "a: expected 3 numbers of 4 bytes in archive/data/0, found 8",
        ),
        ("a record that is too long", float(1, 0, &[1], &[1]), "a: expected 1 numbers of 4 bytes"),
        ("a storage that wraps", float(i64::MAX, 0, &[2], &[1]), "a: expected 9223372036854775807 numbers"),
        ("a storage of negative size", float(-2, 0, &[2], &[1]), "expected a number that is not negative, found -2"),
        ("an offset behind the end", float(2, 1, &[2], &[1]), "a: expected a view of 2 numbers, found offset 1"),
        ("an empty view behind the end", float(2, 3, &[0], &[1]), "a: expected a view of 2 numbers, found offset 3"),
        ("a negative offset", float(2, -1, &[2], &[1]), "expected a number that is not negative, found -1"),
        ("an offset that wraps", float(2, i64::MAX, &[2], &[i64::MAX]), "a: expected a view of 2 numbers"),
        ("a stride behind the end", float(2, 0, &[2], &[2]), "a: expected a view of 2 numbers"),
        ("a stride that wraps", float(2, 0, &[3, 2], &[i64::MAX, 1]), "a: expected a view of 2 numbers"),
        ("a negative stride", float(2, 1, &[2], &[-1]), "expected a number that is not negative, found -1"),
        ("a shape that wraps", float(2, 0, &[1 << 32, 1 << 32], &[0, 0]), "a: expected a view of 2 numbers"),
        ("a shape that is too large", float(2, 0, &[3], &[1]), "a: expected a view of 2 numbers"),
        ("nine dimensions", float(2, 0, &[1; 9], &[1; 9]), "expected at most 8 dimensions, found 9"),
        ("fewer strides than dimensions", float(2, 0, &[1, 2], &[1]), "expected 2 strides, found 1"),
        (
            "a shape that is a number",
            tensor_of(storage("FloatStorage", "0", 2), int(0), int(2), ints(&[1])),
            "expected a tuple of sizes",
        ),
        (
            "a dimension that is text",
            tensor_of(storage("FloatStorage", "0", 2), int(0), tuple(&[text("2")]), ints(&[1])),
            "expected a number",
        ),
        ("a storage that is text", of(text("storage")), "expected a storage, found something else"),
        ("a persistent id that is text", of([text("0"), b"Q".to_vec()].concat()), "expected a storage's five parts"),
        (
            "a persistent id of three parts",
            of(persistent(&[text("storage"), class(), text("0")])),
            "expected a storage's five parts",
        ),
        (
            "a persistent id of another kind",
            of(persistent(&[text("module"), class(), text("0"), text("cpu"), int(2)])),
            "expected the parts of a storage",
        ),
        (
            "a storage of no class",
            of(persistent(&[text("storage"), text("float"), text("0"), text("cpu"), int(2)])),
            "expected the parts of a storage",
        ),
    ];
    let of_one = |tensor: Vec<u8>| archive(&state_dictionary(&[("a", tensor)]), &[("0", 8)]);
    let mut cases: Vec<Case> =
        cases.into_iter().map(|(case, tensor, mention)| (case, of_one(tensor), mention)).collect();
    let twice = state_dictionary(&[("a.module.b", good()), ("a.b", good())]);
    cases.push((
        "two names that become one",
        archive(&twice, &[("0", 8)]),
        "a.b: expected one tensor of this name without wrappers of training, found another one, a.module.b",
    ));
    all_refused("x.pt", cases);
}

#[test]
fn modules_that_lie() {
    let class = global("__torch__.model", "Module");
    let object = |attributes: Vec<u8>| [class.as_slice(), b")\x81", &attributes, b"b"].concat();
    let nested = (0..80).fold(object(dictionary(&[])), |inner, _| object(dictionary(&[("m", inner)])));
    // Each module holds the one before twice: 2^40 ways to the innermost.
    let first = [object(dictionary(&[])), b"q\x00".to_vec()].concat();
    let bomb = (0..40).fold(first, |inner, _| {
        let twice = dictionary(&[("a", b"h\x00".to_vec()), ("b", b"h\x00".to_vec())]);
        [inner, object(twice), b"q\x00".to_vec()].concat()
    });
    let ring = [class.as_slice(), b")\x81q\x00", &dictionary(&[("m", b"h\x00".to_vec())]), b"b"].concat();
    let stateless = [class.as_slice(), b")\x81"].concat();
    all_refused(
        "x.pt",
        vec![
            ("deep modules", archive(&pickle(&nested), &[]), "nested modules: 65 is over the limit of 64"),
            ("shared modules", archive(&pickle(&bomb), &[]), "attributes of modules"),
            ("a module within itself", archive(&pickle(&ring), &[]), "nested modules: 65 is over the limit of 64"),
            ("a module without state", archive(&pickle(&stateless), &[]), "root: expected tensors by name, found none"),
        ],
    );
}
