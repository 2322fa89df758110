//! Lines of `flamant batch`: requests, with data URIs; paths lead into a folder that is not there.

#![no_main]

use std::path::Path;

use flamant::image::Limits;
use flamant::json::{self, Labels};
use flamant::{ErrorKind, PromptLimits};

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    let image = Limits::default().side_max(512).pixels_max(1 << 14).bytes_max(1 << 16);
    let limits = PromptLimits::default().bytes_max(1 << 16).parts_max(8).images_max(4).image(image);
    let mut labels = Labels::default();
    if let Err(error) = json::request(line, "fuzzed", Path::new("/nowhere"), limits, &mut labels) {
        assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
    }
    assert!(labels.id.is_none_or(|id| id.is_string() || id.is_number()));
});
