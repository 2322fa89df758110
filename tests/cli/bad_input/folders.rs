//! Folders of models that are not what they seem: links to nowhere, pipes, what other programs and trainings leave.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::{Case, Folder, all_refused, refused, run, text};

/// Each file that a model folder may have.
const FILES: [&str; 9] = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "pytorch_model.bin",
];

/// What stands in a file's place, how to put it there, and what the line must mention.
type Spoil = (&'static str, fn(&Folder, &str), &'static str);

/// Absent is only what is not there: what is there and cannot be read is not passed over.
#[test]
fn each_file_that_is_there_but_cannot_be_read() {
    for file in FILES {
        let spoil: [Spoil; 4] = [
            (
                "a link to nowhere",
                |folder, name| symlink("../gone", folder.path(name)).unwrap(),
                ": a link to ../gone, w",
            ),
            ("a link to itself", |folder, name| symlink(name, folder.path(name)).unwrap(), ": "),
            ("a pipe", |folder, name| folder.make_pipe(name), ": not a regular file but a pipe"),
            (
                "a device",
                |folder, name| symlink("/dev/zero", folder.path(name)).unwrap(),
                "not a regular file but a dev",
            ),
        ];
        for (case, spoil, mention) in spoil {
            let folder = Folder::new();
            let weights = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
            if let Some(place) = weights.iter().position(|weights| *weights == file) {
                // A file that comes first is taken; those that come later would be.
                fs::rename(folder.path(weights[0]), folder.path("other.bin")).unwrap();
                weights[place + 1..].iter().for_each(|later| {
                    fs::copy(folder.path("other.bin"), folder.path(later)).unwrap();
                });
            }
            let _ = fs::remove_file(folder.path(file));
            spoil(&folder, file);
            refused(
                &["generate", &text(&folder.model()), "--text", "abc"],
                &format!("{file}: {case}"),
                &[file, mention],
            );
        }
    }
}

/// Takes the weights away and puts another file there.
fn instead(folder: &Folder, name: &str, bytes: &[u8]) {
    folder.delete("model.safetensors");
    folder.write(name, bytes);
}

#[test]
fn folders_of_other_programs_are_named() {
    const CASES: &[Case] = &[
        (
            "llama.cpp",
            |folder| instead(folder, "model-q4.gguf", b"GGUF\x03\0\0\0"),
            &["model-q4.gguf, weights for llama.cpp"],
        ),
        (
            "its file as ours",
            |folder| folder.write("model.safetensors", b"GGUF\x03\0\0\0 "),
            &["weights for llama.cpp (GGUF)"],
        ),
        (
            "an adapter alone",
            |folder| {
                instead(folder, "adapter_model.safetensors", b"x");
                folder.write("adapter_config.json", r#"{"peft_type": "LORA"}"#);
            },
            &[
                "adapter_config.json: weights: expected those of a whole model",
                "`flamant convert --model MODEL --adapter FOLDER`",
            ],
        ),
        (
            "an adapter beside a model",
            |folder| folder.write("adapter_config.json", r#"{"peft_type": "LORA"}"#),
            &["adapter_config.json: weights: expected those of a whole model, found an adapter of PEFT"],
        ),
        (
            "OpenFlamingo's own",
            |folder| instead(folder, "checkpoint.pt", b"x"),
            &["checkpoint.pt, ", "`flamant convert`"],
        ),
        (
            "Meta's own",
            |folder| instead(folder, "consolidated.00.pth", b"x"),
            &["consolidated.00.pth, weights as Meta"],
        ),
        ("ONNX", |folder| instead(folder, "model.onnx", b"x"), &["model.onnx, a model for ONNX"]),
        ("TensorRT", |folder| instead(folder, "rank0.engine", b"x"), &["rank0.engine, an engine of TensorRT"]),
        ("MLX", |folder| instead(folder, "weights.npz", b"x"), &["weights.npz, weights for MLX"]),
        ("TensorFlow", |folder| instead(folder, "tf_model.h5", b"x"), &["tf_model.h5, weights of TensorFlow"]),
        ("JAX", |folder| instead(folder, "flax_model.msgpack", b"x"), &["flax_model.msgpack, weights of JAX"]),
        (
            "DeepSpeed",
            |folder| instead(folder, "zero_to_fp32.py", b"x"),
            &["a checkpoint of DeepSpeed: run that script"],
        ),
        ("sharded training", |folder| instead(folder, "__0_0.distcp", b"x"), &["__0_0.distcp, a sharded checkpoint"]),
        (
            "shards without their index",
            |folder| instead(folder, "model-00001-of-00002.safetensors", b"x"),
            &["model-00001-of-00002.safetensors, shards: fetch model.safetensors.index.json too"],
        ),
        (
            "half a download",
            |folder| instead(folder, "model.safetensors.incomplete", b"x"),
            &["model.safetensors.incomplete, a download that did not end"],
        ),
        (
            "another name",
            |folder| instead(folder, "flamingo.safetensors", b"x"),
            &["flamingo.safetensors, another name"],
        ),
        ("nothing else", |folder| folder.delete("model.safetensors"), &["none of them, only config.json, "]),
    ];
    all_refused(CASES);
}

#[test]
fn files_of_other_kinds_are_named() {
    const CASES: &[Case] = &[
        ("a web page", |folder| folder.write("model.safetensors", "<!DOCTYPE html><html>"), &["found a web page"]),
        ("zeros", |folder| folder.make_sparse("model.safetensors", 1 << 20), &["found zeros"]),
        (
            "a gzip file",
            |folder| folder.write("model.safetensors", b"\x1f\x8b\x08\0\0\0\0\0\0"),
            &["gzip file: unpack it"],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn quantised_folders_are_named() {
    const CASES: &[Case] = &[
        (
            "GPTQ",
            |folder| folder.set("quantization_config", json!({"quant_method": "gptq", "bits": 4})),
            &["config.json: quantization_config: expected weights of gptq, found none in the files"],
        ),
        (
            "bitsandbytes without a method",
            |folder| folder.set("quantization_config", json!({"load_in_8bit": true})),
            &["config.json: quantization_config: expected weights of bitsandbytes, found none in the files"],
        ),
        (
            "MLX",
            |folder| folder.set("quantization", json!({"group_size": 64, "bits": 4})),
            &["config.json: quantization: expected none: weights quantised so are not read"],
        ),
        (
            "HQQ",
            |folder| folder.set("quantization_config", json!({"quant_method": "hqq"})),
            &["config.json: quantization_config.quant_method: expected one of compressed-tensors", r#"found "hqq""#],
        ),
        (
            "AutoGPTQ's own file",
            |folder| folder.write("quantize_config.json", r#"{"bits": 4}"#),
            &["quantize_config.json: weights: expected those of a whole model, found quantised weights (GPTQ)"],
        ),
    ];
    all_refused(CASES);
}

#[test]
fn what_is_no_folder_of_a_model() {
    let folder = Folder::new();
    let file = text(&folder.path("model.safetensors"));
    refused(&["generate", &file, "--text", "abc"], "a file", &["expected the folder of a model, found a file"]);
    fs::create_dir(folder.path("empty")).unwrap();
    refused(&["inspect", &text(&folder.path("empty"))], "an empty folder", &["found an empty folder"]);
    refused(&["inspect", &text(&folder.path("none"))], "nothing", &["none: No such file"]);
    symlink("gone", folder.path("link")).unwrap();
    refused(&["inspect", &text(&folder.path("link"))], "a link", &["link: a link to gone, which is not there"]);
    // A link to a folder is as good as the folder.
    symlink(folder.model(), folder.path("../good")).unwrap();
    assert!(run(&["inspect", &text(&folder.path("../good"))], "a link to a model").status.success());
}

/// Training wraps models, and its names outlive it.
#[test]
fn wrappers_of_training_are_left_out_of_names() {
    let renamed = |rename: fn(&str) -> String| {
        let folder = Folder::new();
        folder.weights(|header, _| {
            let old = std::mem::take(header).into_iter();
            let new = |name: String| if name == "__metadata__" { name } else { rename(&name) };
            header.extend(old.map(|(name, entry)| (new(name), entry)));
        });
        folder
    };
    let ask = |folder: &Folder| run(&["generate", &text(&folder.model()), "--text", "abc"], "wrapped");
    let right = ask(&Folder::new()).stdout;
    let wrapped: [fn(&str) -> String; 3] = [
        |name| format!("module._orig_mod.{name}"),
        |name| name.replace("layers.", "layers._checkpoint_wrapped_module.").replace("mlp", "_fsdp_wrapped_module.mlp"),
        |name| name.replacen("model.", "model._forward_module.", 1),
    ];
    for rename in wrapped {
        let output = ask(&renamed(rename));
        assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&right), "{output:?}");
    }
    let folder = renamed(|name| name.replacen("mlp", "my_module.mlp", 1));
    refused(&["inspect", &text(&folder.model())], "half a wrapper", &["expected a tensor of this name, found none"]);
}
