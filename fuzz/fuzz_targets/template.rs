//! Files of templates; what is accepted has a choice for each name.

#![no_main]

use std::sync::LazyLock;

use flamant::eval::template::Template;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("template.json");
    std::fs::write(&path, bytes).expect("a writable folder");
    match Template::read(&path) {
        Ok(template) => assert!(template.choice("a name").contains("a name") && template.stop().len() <= 64),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "more than a line: {error}"),
    }
});
