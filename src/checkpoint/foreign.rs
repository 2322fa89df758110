//! Files and folders of other programs: what they are, and what to do with them.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

use super::is_there;

/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 10_000;
/// Entries that an error names.
const ENTRIES_NAMED: usize = 4;

/// How the name of an entry gives it away.
#[derive(Clone, Copy)]
enum Mark {
    Is(&'static str),
    Begins(&'static str),
    Ends(&'static str),
}

impl Mark {
    fn fits(self, name: &str) -> bool {
        match self {
            Mark::Is(whole) => name == whole,
            Mark::Begins(start) => name.starts_with(start),
            Mark::Ends(end) => name.len() > end.len() && name.ends_with(end),
        }
    }
}

const ORIGINAL: &str = "take the model as its authors saved it for transformers";

/// What other programs leave in folders, the most telling first, and what to do with it.
const MARKS: &[(Mark, &str, &str)] = &[
    (Mark::Ends(".gguf"), "weights for llama.cpp", ORIGINAL),
    (Mark::Ends(".ggml"), "weights for llama.cpp", ORIGINAL),
    (Mark::Is("adapter_model.safetensors"), ADAPTER, MERGE),
    (Mark::Is("adapter_model.bin"), ADAPTER, MERGE),
    (Mark::Is("checkpoint.pt"), "what training saved", "make a folder of it with `flamant convert`"),
    (Mark::Begins("consolidated."), "weights as Meta publishes them", "convert them with transformers first"),
    (Mark::Is("onnx"), "a model for ONNX", ORIGINAL),
    (Mark::Ends(".onnx"), "a model for ONNX", ORIGINAL),
    (Mark::Ends(".engine"), "an engine of TensorRT", ORIGINAL),
    (Mark::Ends(".plan"), "an engine of TensorRT", ORIGINAL),
    (Mark::Is("weights.npz"), "weights for MLX", ORIGINAL),
    (Mark::Begins("openvino_model"), "a model for OpenVINO", ORIGINAL),
    (Mark::Ends(".mlpackage"), "a model for Core ML", ORIGINAL),
    (Mark::Ends(".tflite"), "a model for TensorFlow Lite", ORIGINAL),
    (Mark::Is("tf_model.h5"), "weights of TensorFlow", "load them with from_tf=True and save them again"),
    (Mark::Ends(".h5"), "weights of TensorFlow", ORIGINAL),
    (Mark::Ends(".msgpack"), "weights of JAX", "load them with from_flax=True and save them again"),
    (Mark::Ends(".nemo"), "a model of NeMo", ORIGINAL),
    (Mark::Is("model_index.json"), "a pipeline of diffusers", "this program runs no such models"),
    (Mark::Is("zero_to_fp32.py"), "a checkpoint of DeepSpeed", "run that script, which writes pytorch_model.bin"),
    (Mark::Ends(".distcp"), "a sharded checkpoint of torch.distributed", "join it with dcp_to_torch_save"),
    (Mark::Is("snapshots"), "the cache of a hub", "name the folder in snapshots/"),
    (Mark::Begins("model-0"), "shards", "fetch model.safetensors.index.json too"),
    (Mark::Begins("pytorch_model-0"), "shards", "fetch pytorch_model.bin.index.json too"),
    (Mark::Ends(".incomplete"), "a download that did not end", "fetch the file again"),
    (Mark::Ends(".crdownload"), "a download that did not end", "fetch the file again"),
    (Mark::Ends(".part"), "a download that did not end", "fetch the file again"),
    (Mark::Ends(".partial"), "a file that was not written to its end", "write it again"),
    (Mark::Ends(".safetensors"), "another name", "rename it if it holds all weights"),
    (Mark::Ends(".bin"), "another name", "rename it if it holds all weights"),
    (Mark::Ends(".pt"), "another name", "rename it if it holds all weights"),
    (Mark::Ends(".pth"), "another name", "rename it if it holds all weights"),
];

const ADAPTER: &str = "an adapter of PEFT";
const MERGE: &str = "merge it into its model with `flamant convert --model MODEL --adapter FOLDER`";

/// Files beside weights that make something else of them, and whether `quantization_config` of `config.json` says all
/// that they do.
const BESIDE: [(&str, &str, &str, bool); 4] = [
    ("adapter_config.json", ADAPTER, MERGE, false),
    ("quantize_config.json", "quantised weights (GPTQ)", SAY_SO, true),
    ("quant_config.json", "quantised weights (AWQ)", SAY_SO, true),
    (
        "hf_quant_config.json",
        "quantised weights (ModelOpt)",
        "they are not read: take the model before it was quantised",
        false,
    ),
];
const SAY_SO: &str = "config.json must have what it says as quantization_config";

/// What a folder without weights that are read has instead.
pub(super) fn folder(path: &Path) -> String {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries.take(ENTRIES_MAX),
        Err(reason) => return reason.to_string(),
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort_unstable();
    for (mark, what, advice) in MARKS {
        if let Some(name) = names.iter().find(|name| mark.fits(name)) {
            return format!("{name}, {what}: {advice}");
        }
    }
    let named = names.iter().take(ENTRIES_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "an empty folder".to_owned(),
        count if count <= ENTRIES_NAMED => format!("none of them, only {named}"),
        count => format!("none of them, only {named} and {} more", count - ENTRIES_NAMED),
    }
}

/// Refuses a folder with a file in it that makes something else of the weights than is said of them.
///
/// # Errors
/// The file, with what it means and what to do.
pub(super) fn refuse_beside(folder: &Path, quantisation_is_said: bool) -> Result<()> {
    let matters = |(.., said_twice): &&(&str, &str, &str, bool)| !(quantisation_is_said && *said_twice);
    match BESIDE.iter().filter(matters).find(|(name, ..)| is_there(&folder.join(name))) {
        None => Ok(()),
        Some((name, what, advice, _)) => {
            Err(Error::invalid(folder.join(name), "weights", "those of a whole model", format!("{what}: {advice}")))
        }
    }
}

/// What a file that is not read seems to be, with the way out where there is one.
pub(super) fn file(bytes: &[u8]) -> &'static str {
    const RESAVE: &str = "the format of torch before 1.6: load and save it with a newer torch";
    const STARTS: [(&[u8], &str); 13] = [
        (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
        (b"GGUF", "weights for llama.cpp (GGUF): take the model as its authors saved it for transformers"),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", RESAVE),
        (b"\x80", "a bare pickle: load it and save its state_dict() with torch 1.6 or newer"),
        (b"\x89HDF", "HDF5: weights of TensorFlow or Keras"),
        (b"\x93NUMPY", "an array of NumPy"),
        (b"\x1f\x8b", "a gzip file: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
        (b"\xfd7zXZ", "an xz file: unpack it first"),
        (b"PK\x05\x06", "an empty zip file"),
        (b"<!DOCTYPE", "a web page: what was fetched is not the file"),
        (b"<html", "a web page: what was fetched is not the file"),
        (b"{", "JSON text: what was fetched is not the file"),
    ];
    if bytes.get(257..262) == Some(b"ustar") {
        return RESAVE;
    }
    if !bytes.is_empty() && bytes[..bytes.len().min(4096)].iter().all(|&byte| byte == 0) {
        return "zeros: was the file fetched or copied to its end?";
    }
    STARTS.iter().find(|(start, _)| bytes.starts_with(start)).map_or("neither", |(_, what)| what)
}
