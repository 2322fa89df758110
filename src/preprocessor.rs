//! `preprocessor_config.json`: what images go through before the model sees them, read key by key. A value that is
//! computed here is heeded, any other is refused. A folder without the file gets what the family was trained with.

use serde_json::Value;

use crate::checkpoint::Folder;
use crate::config::VisionConfig;
use crate::error::Result;
use crate::family::{Fields, Preprocessing, quoted};
use crate::image::{Crop, Preprocessor};

/// The file.
const FILE: &str = "preprocessor_config.json";
/// The file that may hold it instead, under `image_processor`.
const WHOLE_FILE: &str = "processor_config.json";
/// Largest of them that is read.
const BYTES_MAX: u64 = 1 << 20;
/// `resample` of Pillow's filters.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;
/// Keys that say nothing of pixels: who wrote the file, how tensors are handed on, where the computation runs.
const IGNORED: [&str; 12] = [
    "_processor_class",
    "_valid_processor_keys",
    "auto_map",
    "data_format",
    "device",
    "disable_grouping",
    "input_data_format",
    "model_input_names",
    "processor_class",
    "return_tensors",
    "transformers_version",
    "use_fast",
];

/// Reads a folder's preprocessing, of a family, for such a vision tower.
///
/// # Errors
/// A key whose value asks for pixels that are not computed here, or that is not known.
pub(crate) fn open(folder: Folder, family: Preprocessing, vision: &VisionConfig) -> Result<Preprocessor> {
    let Preprocessing { mut crop, class } = family;
    if let Crop::Tiles { tiles_max: most } = &mut crop {
        *most = vision.frames();
    }
    let (family, side) = (Preprocessing { crop, class }, vision.image_size);
    // transformers 5 writes all parts of a processor to one file, and looks there first.
    let (whole_file, file) = (folder.path(WHOLE_FILE), folder.path(FILE));
    let whole = Value::Object(folder.object_if_there(WHOLE_FILE, BYTES_MAX)?);
    let section = Fields::new(&whole_file, &whole)?.section("image_processor")?;
    if section.iter().next().is_some() {
        return read(&section, family, side);
    }
    let root = Value::Object(folder.object_if_there(FILE, BYTES_MAX)?);
    read(&Fields::new(&file, &root)?, family, side)
}

/// The family's usual, changed as the file says.
fn read(fields: &Fields, family: Preprocessing, side: usize) -> Result<Preprocessor> {
    let mut preprocessor = Preprocessor::clip(family.crop, side);
    let is_there = fields.iter().next().is_some();
    for (key, value) in defaults(family.crop).iter().filter(|_| is_there) {
        if fields.get(key).is_none() {
            heed(&mut preprocessor, fields, key, value, family.class)?;
        }
    }
    for (key, value) in fields.iter() {
        heed(&mut preprocessor, fields, key, value, family.class)?;
    }
    if !fields.flag("do_rescale", true)? {
        preprocessor.rescale = 1.0;
    }
    if !fields.flag("do_normalize", true)? {
        (preprocessor.mean, preprocessor.std) = ([0.0; 3], [1.0; 3]);
    }
    Ok(preprocessor)
}

/// What a class of transformers takes for keys that its file leaves out, where models were trained with something else.
fn defaults(crop: Crop) -> Vec<(&'static str, Value)> {
    match crop {
        Crop::Tiles { .. } => vec![
            ("image_mean", 0.5.into()),
            ("image_std", 0.5.into()),
            ("size", 224.into()),
            ("max_image_tiles", 4.into()),
        ],
        _ => Vec::new(),
    }
}

/// Does as one key says, or refuses to.
fn heed(preprocessor: &mut Preprocessor, fields: &Fields, key: &str, value: &Value, class: &str) -> Result<()> {
    let (crop, side) = (preprocessor.crop, preprocessor.size);
    let resample = if matches!(crop, Crop::Tiles { .. }) { BILINEAR } else { BICUBIC };
    match (key, crop) {
        ("image_mean", _) => preprocessor.mean = three_numbers(fields, key, value)?,
        ("image_std", _) => preprocessor.std = three_numbers(fields, key, value)?,
        ("rescale_factor", _) => preprocessor.rescale = factor(fields, key, value)?,
        ("size" | "image_size" | "crop_size", _) => check_size(fields, key, value, side, crop)?,
        ("image_processor_type" | "feature_extractor_type", _) => check_class(fields, key, class)?,
        ("image_num_channels", _) => wanted(fields, key, value, 3)?,
        ("resample", _) => wanted(fields, key, value, resample)?,
        ("do_resize" | "do_convert_rgb", _) => wanted(fields, key, value, true)?,
        ("max_image_tiles", Crop::Tiles { tiles_max }) => wanted(fields, key, value, tiles_max)?,
        ("do_pad", Crop::Tiles { .. }) => wanted(fields, key, value, true)?,
        ("do_center_crop", _) => wanted(fields, key, value, crop.cuts())?,
        // What a `size` of one number means.
        ("default_to_square", _) => wanted(fields, key, value, !crop.cuts())?,
        // Heeded when all keys are read, whatever their order.
        ("do_rescale" | "do_normalize", _) => {}
        (key, _) if key.starts_with("do_") => wanted(fields, key, value, false)?,
        (key, _) if IGNORED.contains(&key) => {}
        (key, _) => return Err(fields.invalid(key, "no key but those that are known", value)),
    }
    Ok(())
}

fn wanted(fields: &Fields, key: &str, value: &Value, wanted: impl Into<Value>) -> Result<()> {
    let wanted = wanted.into();
    if *value == wanted { Ok(()) } else { Err(fields.invalid(key, wanted, value)) }
}

/// One number for each channel; a single one is for all.
fn three_numbers(fields: &Fields, key: &str, value: &Value) -> Result<[f32; 3]> {
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    let numbers = match value {
        Value::Array(list) => {
            list.iter().map(number).collect::<Option<Vec<f32>>>().and_then(|list| list.try_into().ok())
        }
        single => number(single).map(|number| [number; 3]),
    };
    let usable =
        |numbers: &[f32; 3]| numbers.iter().all(|n| n.is_finite()) && (key != "image_std" || !numbers.contains(&0.0));
    numbers.filter(usable).ok_or_else(|| fields.invalid(key, "one number or three, no deviation of 0", value))
}

fn factor(fields: &Fields, key: &str, value: &Value) -> Result<f64> {
    let factor = value.as_f64().filter(|factor| (1e-6..=1e6).contains(factor));
    factor.ok_or_else(|| fields.invalid(key, "a number from 0.000001 to 1000000", value))
}

/// Whether a size is that of the vision tower: a side, `{"height", "width"}`, or, where the middle is cut out,
/// `{"shortest_edge"}`.
fn check_size(fields: &Fields, key: &str, value: &Value, side: usize, crop: Crop) -> Result<()> {
    let (edge, square) =
        (serde_json::json!({"shortest_edge": side}), serde_json::json!({"height": side, "width": side}));
    // Both sides of a `size` would be reached by stretching, the shortest edge by scaling.
    let spelled = if key == "size" && crop.cuts() { edge } else { square };
    if *value == side || *value == spelled {
        return Ok(());
    }
    Err(fields.invalid(key, format!("{side} or {spelled}, as the vision tower has it"), value))
}

/// Whether the class that reads the file is the one whose steps are computed here, in any of its forms.
fn check_class(fields: &Fields, key: &str, stem: &str) -> Result<()> {
    let found = fields.text(key, None)?;
    let form = found.strip_prefix(stem).unwrap_or_default();
    if ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"].contains(&form) {
        return Ok(());
    }
    Err(fields.invalid(key, format!("\"{stem}ImageProcessor\""), quoted(&found)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::family::Family;

    fn read_of(model_type: &str, file: Value) -> Result<Preprocessor> {
        let family = Family::find(model_type).unwrap().preprocessing;
        read(&Fields::new("preprocessor_config.json".as_ref(), &file).unwrap(), family, 224)
    }

    fn read_of_tiles(file: Value) -> Result<Preprocessor> {
        let family = Preprocessing { crop: Crop::Tiles { tiles_max: 4 }, class: "Mllama" };
        read(&Fields::new("preprocessor_config.json".as_ref(), &file).unwrap(), family, 560)
    }

    const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
    const STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

    /// The files that hub folders hold, by their authors and as versions 4 and 5 of transformers save them again.
    #[test]
    fn published_files_change_nothing() {
        let idefics = [
            json!({
                "image_mean": MEAN, "image_num_channels": 3, "image_processor_type": "IdeficsImageProcessor",
                "image_size": 224, "image_std": STD, "processor_class": "IdeficsProcessor",
            }),
            json!({
                "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
                "data_format": "channels_first", "image_mean": MEAN, "image_num_channels": 3, "image_size": 224,
                "image_processor_type": "IdeficsImageProcessorPil", "image_std": STD, "resample": 3,
                "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}, "do_center_crop": null,
                "do_pad": null, "crop_size": null, "pad_size": null,
            }),
            json!({}),
        ];
        for file in idefics {
            assert_eq!(read_of("idefics", file).unwrap(), Preprocessor::clip(Crop::Stretch, 224));
        }
        let clip = [
            json!({
                "crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": MEAN, "image_std": STD, "resample": 3,
                "size": 224,
            }),
            json!({
                "crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
                "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": MEAN,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": "CLIPImageProcessor",
                "image_std": STD, "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224},
                "use_square_size": null, "default_to_square": false,
            }),
        ];
        for file in clip {
            let expected = Preprocessor::clip(Crop::ShortestEdgeCentreCrop, 224);
            assert_eq!(read_of("open_flamingo", file).unwrap(), expected);
        }
    }

    /// What versions 4.45 and 5.17 of transformers save, and what those between add.
    fn file_of_tiles() -> Value {
        json!({
            "do_convert_rgb": true, "do_normalize": true, "do_pad": true, "do_rescale": true, "do_resize": true,
            "image_mean": MEAN, "image_processor_type": "MllamaImageProcessor", "image_std": STD,
            "max_image_tiles": 4, "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"height": 560, "width": 560}, "crop_size": null, "data_format": "channels_first",
            "default_to_square": true, "device": null, "do_center_crop": null, "input_data_format": null,
            "pad_size": null, "return_tensors": null, "processor_class": "MllamaProcessor",
        })
    }

    #[test]
    fn files_of_tiles_are_read_with_their_classes_own_defaults() {
        let usual = Preprocessor::clip(Crop::Tiles { tiles_max: 4 }, 560);
        for class in ["MllamaImageProcessor", "MllamaImageProcessorFast", "MllamaImageProcessorPil"] {
            let mut file = file_of_tiles();
            file["image_processor_type"] = class.into();
            assert_eq!(read_of_tiles(file).unwrap(), usual);
        }
        assert_eq!(read_of_tiles(json!({})).unwrap(), usual);
        let mut file = file_of_tiles();
        for key in ["image_mean", "image_std", "max_image_tiles"] {
            file[key] = Value::Null;
        }
        assert_eq!(read_of_tiles(file).unwrap(), Preprocessor { mean: [0.5; 3], std: [0.5; 3], ..usual });
    }

    #[test]
    fn files_of_tiles_that_ask_for_other_pixels_are_refused_by_key() {
        let table = [
            ("size", json!({"height": 560, "width": 448}), "560"),
            ("size", json!({"shortest_edge": 560}), "560"),
            ("size", Value::Null, "560"),
            ("max_image_tiles", json!(6), "4"),
            ("resample", json!(3), "2"),
            ("do_pad", json!(false), "true"),
            ("do_resize", json!(false), "true"),
            ("do_convert_rgb", json!(false), "true"),
            ("do_center_crop", json!(true), "false"),
            ("default_to_square", json!(false), "true"),
            ("image_processor_type", json!("CLIPImageProcessor"), "MllamaImageProcessor"),
            ("image_std", json!([1, 0, 1]), "no deviation of 0"),
            ("pad_size", json!({"height": 600, "width": 600}), "known"),
        ];
        for (key, value, expected) in table {
            let mut file = file_of_tiles();
            file[key] = value;
            let line = read_of_tiles(file).unwrap_err().to_string();
            assert!(line.contains(key) && line.contains(expected) && !line.contains('\n'), "{line}");
        }
        let square = read_of("idefics", json!({"max_image_tiles": 4})).unwrap_err().to_string();
        assert!(square.contains("max_image_tiles"), "{square}");
    }

    #[test]
    fn what_can_be_computed_is_heeded() {
        let read = |file| read_of("idefics", file).unwrap();
        let usual = || Preprocessor::clip(Crop::Stretch, 224);
        assert_eq!(
            read(json!({"image_mean": [0.5, 0.25, 0.125]})),
            Preprocessor { mean: [0.5, 0.25, 0.125], ..usual() }
        );
        assert_eq!(read(json!({"image_std": 0.5})), Preprocessor { std: [0.5; 3], ..usual() });
        assert_eq!(read(json!({"rescale_factor": 0.5})), Preprocessor { rescale: 0.5, ..usual() });
        let levels = Preprocessor { rescale: 1.0, ..usual() };
        assert_eq!(read(json!({"do_rescale": false, "rescale_factor": 0.5})), levels);
        let plain = Preprocessor { mean: [0.0; 3], std: [1.0; 3], ..usual() };
        assert_eq!(read(json!({"do_normalize": false, "image_mean": 0.5, "image_std": 0.5})), plain);
    }
}
