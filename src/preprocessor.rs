//! `preprocessor_config.json`: what images go through before the model sees them. A folder without one gets what the
//! family was trained with.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::Folder;
use crate::config::{Family, ModelConfig};
use crate::error::{Error, Result};
use crate::image::{Crop, Preprocessor};

/// Reads a folder's preprocessing. The size is the vision tower's; mean and deviation may be the file's own.
///
/// # Errors
/// A mean or deviation that is not three numbers.
pub(crate) fn open(folder: Folder, config: &ModelConfig) -> Result<Preprocessor> {
    let crop = match config.family {
        Family::Idefics => Crop::Stretch,
        Family::OpenFlamingo => Crop::ShortestEdgeCentreCrop,
    };
    let mut preprocessor = Preprocessor::clip(crop, config.vision.image_size);
    let name = "preprocessor_config.json";
    let file = folder.object_if_there(name, 1 << 20)?;
    for (key, target) in [("image_mean", &mut preprocessor.mean), ("image_std", &mut preprocessor.std)] {
        if let Some(found) = file.get(key).filter(|found| !found.is_null()) {
            *target = three_numbers(&folder.path(name), key, found)?;
        }
    }
    Ok(preprocessor)
}

fn three_numbers(file: &Path, key: &str, value: &Value) -> Result<[f32; 3]> {
    let numbers = value.as_array().filter(|list| list.len() == 3).and_then(|list| {
        let mut numbers = [0.0; 3];
        for (number, value) in numbers.iter_mut().zip(list) {
            *number = value.as_f64()? as f32;
        }
        Some(numbers)
    });
    let usable =
        |numbers: &[f32; 3]| numbers.iter().all(|n| n.is_finite()) && (key != "image_std" || !numbers.contains(&0.0));
    numbers.filter(usable).ok_or_else(|| Error::invalid(file, key, "three numbers, no deviation of 0", value))
}
