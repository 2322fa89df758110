//! Model files, good and hostile: what is read must be right to the byte, what is refused must be refused at once, in
//! one line that names the file and the place, and without a panic.

mod adapter;
mod build;
mod convert;
mod hostile;
mod mutate;
mod rooms;

use build::{archive, state_dictionary, tensor, write};
use flamant::checkpoint::{Checkpoint, Dtype, read_json};
use flamant::{Error, Result};
use half::{bf16, f16};
use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One of the archives that `tools/golden_checkpoint.py` makes.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoint").join(name)
}

/// Runs something that must be refused within a second, in one line that has `mention` in it.
fn refused<T>(case: &str, mention: &str, run: impl FnOnce() -> Result<T>) {
    let start = Instant::now();
    let Err(error) = run() else { panic!("{case}: was not refused") };
    let (line, time) = (error.to_string(), start.elapsed());
    assert!(line.contains(mention), "{case}: {line:?} does not mention {mention:?}");
    assert!(!line.contains(char::is_control), "{case}: more than a line: {line:?}");
    assert!(line.chars().count() < 1200, "{case}: too long: {line}");
    assert!(time < Duration::from_secs(1), "{case}: took {time:?}");
}

/// The numbers of a tensor, whatever their format.
fn numbers(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    match tensor.dtype {
        Dtype::F32 => tensor.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => tensor.bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::Bf16 => tensor.bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
    }
}

/// That a tensor has this format and shape and counts from 0.
fn counts(checkpoint: &Checkpoint, name: &str, dtype: Dtype, shape: &[usize]) {
    assert_eq!((checkpoint.dtype(name), checkpoint.shape(name)), (Some(dtype), Some(shape)), "{name}");
    let expected: Vec<f32> = (0..shape.iter().product()).map(|number: usize| (number % 128) as f32).collect();
    assert_eq!(numbers(checkpoint, name), expected, "{name}");
    assert!(matches!(checkpoint.tensor(name).unwrap().bytes, Cow::Borrowed(_)), "{name} was copied");
}

fn same<T: PartialEq + Debug>(found: impl IntoIterator<Item = T>, expected: impl IntoIterator<Item = T>) {
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_flat_archive_of_either_protocol() {
    for file in ["flat.pt", "protocol4.pt"] {
        let checkpoint = Checkpoint::open(&golden(file)).unwrap();
        same(checkpoint.names(), ["bfloat", "empty", "half", "latents", "parameter", "scalar", "steps"]);
        counts(&checkpoint, "latents", Dtype::F32, &[2, 3]);
        counts(&checkpoint, "scalar", Dtype::F32, &[]);
        counts(&checkpoint, "empty", Dtype::F32, &[0, 4]);
        counts(&checkpoint, "half", Dtype::F16, &[3]);
        counts(&checkpoint, "bfloat", Dtype::Bf16, &[3]);
        counts(&checkpoint, "parameter", Dtype::F32, &[2, 2]);
        assert_eq!((checkpoint.shape("steps"), checkpoint.dtype("steps")), (Some(&[][..]), None));
        assert_eq!(checkpoint.bytes(), 24 + 4 + 6 + 6 + 16 + 8);
        refused("a foreign format", "steps: expected numbers in F32, F16 or BF16, found LongStorage", || {
            checkpoint.tensor("steps")
        });
        refused("a missing tensor", "flat.pt: nowhere: expected a tensor of this name, found none", || {
            Checkpoint::open(&golden("flat.pt"))?.tensor("nowhere").map(drop)
        });
        refused("a wrong shape", "latents: expected shape [3, 2], found [2, 3]", || {
            checkpoint.expect("latents", &[3, 2])
        });
        assert_eq!(checkpoint.expect("latents", &[2, 3]).unwrap().bytes.len(), 24);
        assert_eq!((checkpoint.file_of("latents"), checkpoint.path()), (&*golden(file), &*golden(file)));
        assert!(checkpoint.contains("latents") && !checkpoint.contains("latent"));
    }
}

#[test]
fn views_of_shared_storages_are_gathered() {
    let checkpoint = Checkpoint::open(&golden("views.pt")).unwrap();
    counts(&checkpoint, "base", Dtype::F32, &[4, 6]);
    let at = |row: usize, column: usize| (row * 6 + column) as f32;
    let transposed: Vec<f32> = (0..6).flat_map(|column| (0..4).map(move |row| at(row, column))).collect();
    assert_eq!(numbers(&checkpoint, "transposed"), transposed);
    assert_eq!(checkpoint.shape("transposed"), Some(&[6, 4][..]));
    assert_eq!(numbers(&checkpoint, "row"), [12., 13., 14., 15., 16., 17.]);
    assert_eq!(numbers(&checkpoint, "column"), [1., 7., 13., 19.]);
    assert_eq!(numbers(&checkpoint, "corner"), [8., 9., 14., 15.]);
    assert_eq!(numbers(&checkpoint, "one_row"), [18., 19., 20., 21., 22., 23.]);
    assert_eq!(numbers(&checkpoint, "strided_half"), [0., 3., 1., 4., 2., 5.]);
    let permuted: Vec<f32> =
        (0..4).flat_map(|k| (0..2).flat_map(move |i| (0..3).map(move |j| (i * 12 + j * 4 + k) as f32))).collect();
    assert_eq!(numbers(&checkpoint, "permuted"), permuted);
    refused("an expanded view", "expanded: expected numbers in F32, F16 or BF16, found a view that repeats", || {
        checkpoint.tensor("expanded")
    });
}

#[test]
fn a_training_file_has_its_state_inside_and_optimisers_around() {
    let checkpoint = Checkpoint::open(&golden("training.pt")).unwrap();
    same(checkpoint.names(), ["head.bias", "head.weight", "perceiver.bias", "perceiver.weight"]);
    counts(&checkpoint, "perceiver.weight", Dtype::F32, &[2, 3]);
    counts(&checkpoint, "head.bias", Dtype::F32, &[1]);
}

#[test]
fn a_torchscript_archive_is_walked_by_its_modules() {
    let checkpoint = Checkpoint::open(&golden("torchscript.pt")).unwrap();
    counts(&checkpoint, "visual.class_embedding", Dtype::F16, &[4]);
    counts(&checkpoint, "visual.conv1.weight", Dtype::F16, &[4, 3, 2, 2]);
    counts(&checkpoint, "blocks.1.bias", Dtype::F32, &[2]);
    counts(&checkpoint, "logit_scale", Dtype::F32, &[]);
    assert_eq!(checkpoint.dtype("context_length"), None);
    assert_eq!(checkpoint.names().count(), 8);
}

#[test]
fn what_is_no_state_dictionary_says_what_to_do() {
    refused("a legacy file", "legacy.pt: first bytes: expected", || Checkpoint::open(&golden("legacy.pt")));
    refused("a legacy file", "load and save it with a newer torch", || Checkpoint::open(&golden("legacy.pt")));
    refused("a whole module", "the global torch.nn.modules.linear.Linear", || Checkpoint::open(&golden("module.pt")));
    let folder = tempfile::tempdir().unwrap();
    let pointer =
        write(folder.path(), "lfs.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
    refused("a pointer", "git lfs pull", || Checkpoint::open(&pointer));
    let tar = write(folder.path(), "tar.pt", &[&[b'x'; 257][..], b"ustar"].concat());
    refused("a tar file", "a newer torch", || Checkpoint::open(&tar));
    let pickle = write(folder.path(), "bare.pkl", b"\x80\x04}.");
    refused("a bare pickle", "a bare pickle", || Checkpoint::open(&pickle));
}

#[test]
fn safetensors_of_the_reference_library() {
    use ::safetensors::tensor::{Dtype as Format, TensorView};
    let floats: Vec<u8> = (0..6).flat_map(|number| (number as f32).to_le_bytes()).collect();
    let halves: Vec<u8> = (0..3).flat_map(|number| f16::from_f32(number as f32).to_le_bytes()).collect();
    let views = [
        ("half", TensorView::new(Format::F16, vec![3], &halves).unwrap()),
        ("float", TensorView::new(Format::F32, vec![2, 3], &floats).unwrap()),
        ("long", TensorView::new(Format::I64, vec![1], &[0; 8]).unwrap()),
        ("nothing", TensorView::new(Format::F32, vec![0, 7], &[]).unwrap()),
    ];
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.bin", &::safetensors::serialize(views, metadata).unwrap());
    let checkpoint = Checkpoint::open(&path).unwrap();
    same(checkpoint.names(), ["float", "half", "long", "nothing"]);
    counts(&checkpoint, "float", Dtype::F32, &[2, 3]);
    counts(&checkpoint, "half", Dtype::F16, &[3]);
    counts(&checkpoint, "nothing", Dtype::F32, &[0, 7]);
    refused("a foreign format", "long: expected numbers in F32, F16 or BF16, found I64", || checkpoint.tensor("long"));
}

#[test]
fn a_folder_is_found_by_its_usual_names() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, tensor_name: &str| {
        let archive =
            archive(&state_dictionary(&[(tensor_name, tensor("FloatStorage", "0", 2, 0, &[2], &[1]))]), &[("0", 8)]);
        write(folder.path(), name, &archive)
    };
    refused("an empty folder", "weights: expected one of model.safetensors", || Checkpoint::open(folder.path()));
    let found = || Checkpoint::open(folder.path()).unwrap().names().map(str::to_owned).collect::<Vec<_>>();
    place("open_clip_pytorch_model.bin", "clip");
    assert_eq!(found(), ["clip"]);
    place("shard-1.bin", "one");
    place("shard-2.bin", "two");
    let index = br#"{"metadata": {"total_size": 16}, "weight_map": {"two": "shard-2.bin", "one": "shard-1.bin"}}"#;
    write(folder.path(), "pytorch_model.bin.index.json", index);
    assert_eq!(found(), ["one", "two"]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.file_of("two").ends_with("shard-2.bin"));
    assert!(checkpoint.file_of("three").ends_with("pytorch_model.bin.index.json"));
    place("pytorch_model.bin", "whole");
    assert_eq!(found(), ["whole"]);
    place("model.safetensors", "told by content");
    assert_eq!(found(), ["told by content"]);
}

#[cfg(unix)]
#[test]
fn a_shard_may_be_a_link_out_of_the_folder() {
    let (folder, blobs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let blob = write(
        blobs.path(),
        "0123",
        &build::safetensors(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4),
    );
    std::os::unix::fs::symlink(blob, folder.path().join("shard.safetensors")).unwrap();
    write(folder.path(), "model.safetensors.index.json", br#"{"weight_map": {"a": "shard.safetensors"}}"#);
    assert!(Checkpoint::open(folder.path()).unwrap().contains("a"));
}

#[test]
fn a_large_file_opens_by_its_header() {
    const BYTES: u64 = 20 << 30;
    let folder = tempfile::tempdir().unwrap();
    let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{BYTES}]}}}}"#, BYTES / 4);
    let path = write(folder.path(), "model.safetensors", &build::safetensors(&header, 0));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 + header.len() as u64 + BYTES).unwrap();
    let start = Instant::now();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.bytes(), BYTES);
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[test]
fn json_files_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.json", br#"{"a": [1]}"#);
    assert_eq!(read_json(&path, 10).unwrap()["a"][0], 1);
    refused("too large", "a.json: bytes: 10 is over the limit of 9", || read_json(&path, 9));
    refused("missing", "b.json", || read_json(&folder.path().join("b.json"), 9));
    refused("a folder", "not a regular file", || read_json(folder.path(), 9));
    refused("not UTF-8", "a.json: text: expected UTF-8", || read_json(&write(folder.path(), "a.json", b"\"\xff\""), 9));
    refused("not JSON", "a.json: text: expected JSON", || read_json(&write(folder.path(), "a.json", b"{"), 9));
    assert!(matches!(read_json(&path, 0), Err(Error::Limit { .. })));
}
