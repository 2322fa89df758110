//! The model in the program. Its task, which the demo plays, stands in `demo.rs`.

use crate::checkpoint::Folder;

/// Files of `models/demo`, with their names.
macro_rules! demo_files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/", $name)))),+]
    };
}

pub(crate) use demo_files;

/// Its folder.
pub const MODEL: Folder<'static> = Folder::Embedded(demo_files![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]);
