//! Prompt files: JSON, data URIs, base64. Paths lead into a folder that is not there.

#![no_main]

use std::path::Path;

use flamant::image::Limits;
use flamant::{Prompt, PromptLimits};

libfuzzer_sys::fuzz_target!(|json: &str| {
    let image = Limits::default().side_max(512).pixels_max(1 << 14).bytes_max(1 << 16);
    let limits = PromptLimits::default().bytes_max(1 << 16).parts_max(8).images_max(4).image(image);
    match Prompt::from_json(json, "fuzzed", Path::new("/nowhere"), limits) {
        Ok(prompt) => assert!(prompt.parts().len() <= 8 && prompt.media().count() <= 4),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "more than a line: {error}"),
    }
});
