//! A model written in few bits: what is read again is what was rounded, and all else is as it was.

use flamant::checkpoint::{Checkpoint, Dtype, Folder};
use flamant::quantize::{QuantizeOptions, TEXT, WeightFormat, compare, quantize};
use half::bf16;
use std::fs;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn copy(to: &Path) {
    for entry in fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            continue;
        }
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn numbers(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    match tensor.dtype {
        Dtype::F32 => tensor.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::Bf16 => tensor.bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::F16 => panic!("{name}: in f16"),
    }
}

/// Writes the model in the program with these options, and holds it to what it was. Matrices that were rounded, and the
/// largest error of all.
fn written(options: QuantizeOptions) -> (usize, f32) {
    let report = quantize(&options, &mut |_, _| {}).unwrap();
    let source = model();
    let before = Folder::Disk(&source).checkpoint().unwrap();
    let after = Folder::Disk(&options.output).checkpoint().unwrap();
    assert!(before.names().eq(after.names()), "the names of matrices are those that they had");
    assert_eq!((report.bytes_before, report.bytes_after), (before.bytes(), after.bytes()));
    assert!(report.bytes_after < report.bytes_before);
    for name in before.names() {
        let wanted = numbers(&before, name);
        match after.quantised(name).unwrap() {
            None => assert_eq!(before.tensor(name).unwrap().bytes, after.tensor(name).unwrap().bytes, "{name}"),
            Some(matrix) => {
                matrix.check();
                let apart = matrix.values().iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert_eq!(apart, report.errors[name], "{name}");
            }
        }
    }
    assert!(fs::read_to_string(options.output.join("config.json")).unwrap().contains("\"compressed-tensors\""));
    (report.errors.len(), report.errors.values().copied().fold(0.0, f32::max))
}

#[test]
fn what_is_read_again_is_what_was_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let output = |name: &str| folder.path().join(name);
    let options = |weights, name: &str| QuantizeOptions::new(model(), weights, output(name));
    let (int8, fine) = written(options(WeightFormat::Int8, "int8"));
    let (_, fp8) = written(options(WeightFormat::Fp8, "fp8"));
    let (int4, coarse) = written(options(WeightFormat::Int4, "int4"));
    let (_, symmetric) = written(options(WeightFormat::Int4, "symmetric").symmetric(true).group(32));
    assert!(int8 > 20 && int8 == int4, "{int8} and {int4} matrices");
    assert!(fine < fp8 && fp8 < coarse && fine < symmetric, "{fine} {fp8} {coarse} {symmetric}");
    let (all, _) = written(options(WeightFormat::Int8, "all").vision(true).head(true));
    let (few, _) = written(options(WeightFormat::Int8, "few").keep(vec!["layers.0.".to_owned(), ".1.".to_owned()]));
    assert!(few < int8 && int8 < all, "{few} {int8} {all}");
}

#[test]
fn predictions_stay_near() {
    let folder = tempfile::tempdir().unwrap();
    for (weights, most) in [(WeightFormat::Int8, 1e-3), (WeightFormat::Fp8, 1e-2), (WeightFormat::Int4, 0.1)] {
        let output = folder.path().join(format!("{weights:?}"));
        quantize(&QuantizeOptions::new(model(), weights, &output), &mut |_, _| {}).unwrap();
        let found = compare(&model(), &output, TEXT).unwrap();
        assert!(found.tokens > 20 && found.agreement > 0.8, "{weights:?}: {found:?}");
        assert!(found.divergence > 0.0 && found.divergence < most, "{weights:?}: {found:?}");
    }
}

#[test]
fn what_cannot_be_rounded_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [once, twice, broken] = ["once", "twice", "broken"].map(|name| folder.path().join(name));
    let refused = |options: QuantizeOptions, mention: &str| {
        let error = quantize(&options, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains(mention), "{error:?} does not mention {mention:?}");
        assert!(!options.output.exists(), "{mention}: something was left");
    };
    quantize(&QuantizeOptions::new(model(), WeightFormat::Int4, &once), &mut |_, _| {}).unwrap();
    refused(
        QuantizeOptions::new(&once, WeightFormat::Int8, &twice),
        "expected numbers that are not quantised yet, found",
    );
    let all = QuantizeOptions::new(model(), WeightFormat::Int8, &twice).keep(vec![String::new()]);
    refused(all, "expected a matrix of at least 16384 numbers to round, found none");

    fs::create_dir(&broken).unwrap();
    copy(&broken);
    let report = quantize(&QuantizeOptions::new(model(), WeightFormat::Int8, &twice), &mut |_, _| {}).unwrap();
    fs::remove_dir_all(&twice).unwrap();
    let name = report.errors.keys().next().unwrap().clone();
    let place = {
        let checkpoint = Folder::Disk(&broken).checkpoint().unwrap();
        let file = fs::read(broken.join("model.safetensors")).unwrap();
        let tensor = checkpoint.tensor(&name).unwrap();
        let at = file.windows(tensor.bytes.len()).position(|window| window == &*tensor.bytes).unwrap();
        (at, tensor.dtype.size())
    };
    let mut file = fs::read(broken.join("model.safetensors")).unwrap();
    file[place.0..place.0 + place.1].fill(0xff);
    fs::write(broken.join("model.safetensors"), file).unwrap();
    let mention = format!("{name}: expected finite numbers, found NaN at [0, 0]");
    refused(QuantizeOptions::new(&broken, WeightFormat::Int8, &twice), &mention);
}
