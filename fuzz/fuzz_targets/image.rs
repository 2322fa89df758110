//! Images of all formats, and what the model makes of those that decode.

#![no_main]

use flamant::image::{Crop, Limits, Preprocessor, decode};

/// Small enough for many images a second, large enough for every path.
fn limits() -> Limits {
    Limits::default().side_max(2048).pixels_max(1 << 18).bytes_max(1 << 20)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = decode(bytes, "fuzzed", &limits()) else { return };
    let pixels = image.width() as usize * image.height() as usize;
    assert!(pixels > 0 && pixels as u64 <= limits().pixels_max);
    assert_eq!(image.pixels().len(), pixels * image.mode().bytes_per_pixel());
    for crop in [Crop::Stretch, Crop::ShortestEdgeCentreCrop, Crop::Tiles { tiles_max: 4 }] {
        let frames = Preprocessor::clip(crop, 28).frames(&image);
        assert_eq!(frames.rgb.len(), frames.tiles * 28 * 28 * 3);
    }
});
