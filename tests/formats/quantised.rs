//! Weights in few bits: those of each library are the numbers that it makes of them itself, and what does not fit is
//! refused in one line that names the file and the tensor.

use flamant::checkpoint::quantised::Codes;
use flamant::checkpoint::{Checkpoint, Folder};
use flamant::{Error, Result};
use half::{bf16, f16};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quantised")
}

/// `tools/golden_quantised.py` makes them: numbers of the library beside what it wrote.
#[test]
fn numbers_are_those_of_the_library_that_wrote_them() {
    let mut matrices = 0;
    for entry in fs::read_dir(data()).unwrap() {
        let folder = entry.unwrap().path();
        let checkpoint = Folder::Disk(&folder).checkpoint().unwrap();
        let names: Vec<&str> = checkpoint.names().filter(|name| name.ends_with(".expected")).collect();
        assert!(!names.is_empty(), "{}", folder.display());
        for name in names {
            let stem = name.strip_suffix(".expected").unwrap();
            let expected = checkpoint.tensor(name).unwrap();
            let matrix = checkpoint.quantised(&format!("{stem}.weight")).unwrap().unwrap();
            matrix.check();
            assert_eq!([matrix.rows, matrix.columns], *expected.shape, "{}: {name}", folder.display());
            let values = matrix.values();
            let expected = expected.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            for (at, (found, expected)) in values.iter().zip(expected).enumerate() {
                assert_eq!(*found, expected, "{}: {name} at {at}", folder.display());
            }
            matrices += 1;
        }
        // All that a matrix is made of is gone from the names.
        assert!(checkpoint.names().all(|name| name.ends_with(".expected") || name.ends_with(".weight")));
    }
    assert_eq!(matrices, 45);
}

#[test]
fn columns_of_an_order_say_so() {
    let ordered = |name: &str| {
        let folder = data().join(name);
        let checkpoint = Folder::Disk(&folder).checkpoint().unwrap();
        checkpoint.quantised("m0.weight").unwrap().unwrap().order.is_some()
    };
    assert_eq!(["gptq", "gptq-order"].map(ordered), [false, true]);
}

/// A folder of one module `m`, made tensor by tensor so that each can be wrong.
struct Made {
    config: Value,
    /// Format, shape, bytes.
    tensors: BTreeMap<String, (String, Vec<usize>, Vec<u8>)>,
}

impl Made {
    fn set(&mut self, name: &str, format: &str, shape: &[usize], bytes: Vec<u8>) {
        self.tensors.insert(format!("m.{name}"), (format.to_owned(), shape.to_vec(), bytes));
    }

    /// Zeros.
    fn blank(&mut self, name: &str, format: &str, shape: &[usize]) {
        let size = match format {
            "I64" => 8,
            "F32" | "I32" => 4,
            "F16" | "BF16" => 2,
            _ => 1,
        };
        self.set(name, format, shape, vec![0; size * shape.iter().product::<usize>()]);
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.tensors.get_mut(&format!("m.{name}")).unwrap().2
    }

    fn remove(&mut self, name: &str) {
        self.tensors.remove(&format!("m.{name}")).unwrap();
    }

    /// What its matrix is, once it is asked for.
    fn open(&self) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let mut header = serde_json::Map::new();
        let mut numbers = Vec::new();
        for (name, (format, shape, bytes)) in &self.tensors {
            let start = numbers.len();
            numbers.extend(bytes);
            let place = json!({"dtype": format, "shape": shape, "data_offsets": [start, numbers.len()]});
            header.insert(name.clone(), place);
        }
        let header = Value::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &numbers].concat();
        fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let config = json!({"quantization_config": self.config});
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let checkpoint: Checkpoint = Folder::Disk(folder.path()).checkpoint()?;
        checkpoint.quantised("m.weight")?.unwrap().check();
        Ok(())
    }
}

fn compressed(format: &str, weights: Value) -> Made {
    let group = json!({"targets": ["Linear"], "weights": weights, "input_activations": null});
    let config = json!({
        "quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
        "config_groups": {"group_0": group},
    });
    Made { config, tensors: BTreeMap::new() }
}

/// 16 rows of 64 columns in groups of 32.
fn int4() -> Made {
    let weights = json!({"num_bits": 4, "type": "int", "symmetric": false, "strategy": "group", "group_size": 32});
    let mut made = compressed("pack-quantized", weights);
    made.blank("weight_packed", "I32", &[16, 8]);
    made.set("weight_scale", "BF16", &[16, 2], bf16::ONE.to_le_bytes().repeat(32));
    made.blank("weight_zero_point", "I32", &[2, 2]);
    made.set("weight_shape", "I64", &[2], [16_i64, 64].map(i64::to_le_bytes).concat());
    made
}

fn int8() -> Made {
    let weights = json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"});
    let mut made = compressed("int-quantized", weights);
    made.blank("weight", "I8", &[4, 32]);
    made.set("weight_scale", "F16", &[4, 1], f16::ONE.to_le_bytes().repeat(4));
    made
}

fn fp8() -> Made {
    let weights = json!({"num_bits": 8, "type": "float", "strategy": "channel"});
    let mut made = compressed("float-quantized", weights);
    made.blank("weight", "F8_E4M3", &[4, 32]);
    made.set("weight_scale", "F32", &[4, 1], 1_f32.to_le_bytes().repeat(4));
    made
}

fn blocks() -> Made {
    let config = json!({"quant_method": "fp8", "weight_block_size": [2, 16]});
    let mut made = Made { config, tensors: BTreeMap::new() };
    made.blank("weight", "F8_E4M3", &[4, 32]);
    made.blank("weight_scale_inv", "F32", &[2, 2]);
    made
}

/// 16 rows of 64 columns in groups of 32.
fn gptq() -> Made {
    let config = json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true});
    let mut made = Made { config, tensors: BTreeMap::new() };
    made.blank("qweight", "I32", &[8, 16]);
    made.blank("qzeros", "I32", &[2, 2]);
    made.blank("scales", "F16", &[2, 16]);
    made.set("g_idx", "I32", &[64], (0..64).flat_map(|column: u32| (column % 2).to_le_bytes()).collect());
    made
}

fn awq() -> Made {
    let config = json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": true});
    let mut made = Made { config, tensors: BTreeMap::new() };
    made.blank("qweight", "I32", &[64, 2]);
    made.blank("qzeros", "I32", &[2, 2]);
    made.blank("scales", "F16", &[2, 16]);
    made
}

const STATE: &str = "weight.quant_state.bitsandbytes__nf4";

fn state(made: &mut Made, state: Value) {
    let text = state.to_string().into_bytes();
    made.set(STATE, "U8", &[text.len()], text);
}

fn nf4() -> Made {
    let mut made = Made { config: json!({"load_in_4bit": true}), tensors: BTreeMap::new() };
    made.blank("weight", "U8", &[128, 1]);
    made.blank("weight.absmax", "F32", &[4]);
    made.blank("weight.quant_map", "F32", &[16]);
    state(&mut made, json!({"blocksize": 64, "shape": [4, 64]}));
    made
}

fn nf4_double() -> Made {
    let mut made = nf4();
    made.blank("weight.absmax", "U8", &[4]);
    made.blank("weight.nested_absmax", "F32", &[1]);
    made.blank("weight.nested_quant_map", "F32", &[256]);
    state(&mut made, json!({"blocksize": 64, "shape": [4, 64], "nested_blocksize": 256, "nested_offset": 0.5}));
    made
}

fn bnb_int8() -> Made {
    let config = json!({"quant_method": "bitsandbytes", "load_in_8bit": true});
    let mut made = Made { config, tensors: BTreeMap::new() };
    made.blank("weight", "I8", &[4, 32]);
    made.blank("SCB", "F32", &[4]);
    made.blank("weight_format", "U8", &[]);
    made
}

/// What is right, what is done to it, and what the line that refuses it says.
type Case = (fn() -> Made, fn(&mut Made), &'static str);

fn all_refused(cases: &[Case]) {
    for (index, (base, change, mention)) in cases.iter().enumerate() {
        base().open().unwrap_or_else(|error: Error| panic!("case {index}: {mention}: {error}"));
        let mut made = base();
        change(&mut made);
        let Err(error) = made.open() else { panic!("case {index}: {mention}: was not refused") };
        let line = error.to_string();
        assert!(line.contains(mention), "case {index}: {line:?} does not mention {mention:?}");
        assert!(!line.contains('\n') && line.chars().count() < 600, "case {index}: {line}");
    }
}

#[test]
fn configurations_that_are_not_read() {
    const CASES: &[Case] = &[
        (int8, |m| m.config = json!([]), "quantization_config: expected an object, found an array"),
        (int8, |m| m.config = json!({}), "quantization_config.quant_method: expected one of compressed-tensors"),
        (int8, |m| m.config["quant_method"] = json!(8), "quant_method: expected a string, found a number"),
        (int8, |m| m.config["quant_method"] = json!("hqq"), r#"found "hqq""#),
        (int8, |m| m.config["quant_method"] = json!("mxfp4"), r#"found "mxfp4""#),
        (int8, |m| m.config["quant_method"] = json!("gptq"), "expected weights of gptq, found none in the files"),
        (int8, |m| m.config["format"] = json!("nvfp4-pack-quantized"), r#"found "nvfp4-pack-quantized""#),
        (int8, |m| m.config["format"] = json!("marlin-24"), r#"found "marlin-24""#),
        (
            int8,
            |m| m.config["quantization_status"] = json!("frozen"),
            "quantization_status: expected one of compressed",
        ),
        (int8, |m| m.config["transform_config"] = json!({"r1": 1}), "transform_config: expected null"),
        (int8, |m| m.config["sparsity_config"] = json!({"format": "sparse-bitmask"}), "sparsity_config.format"),
        (int8, |m| m.config["config_groups"]["group_0"]["weights"]["num_bits"] = json!(3), "num_bits: expected 4 or 8"),
        (int8, |m| m.config["config_groups"]["group_0"]["weights"]["type"] = json!("str"), "type: expected one of int"),
        (int8, |m| m.config["config_groups"]["group_0"]["weights"]["strategy"] = json!("token"), r#"found "token""#),
        (int8, |m| m.config["config_groups"]["group_0"]["weights"]["actorder"] = json!("odd"), r#"found "odd""#),
        (int8, |m| m.config["config_groups"]["group_0"] = json!("W8A8"), "group_0: expected an object"),
        (
            int8,
            |m| m.config["config_groups"]["group_0"]["input_activations"] = json!({"dynamic": false}),
            "group_0.input_activations.dynamic: expected true, found false",
        ),
        (fp8, |m| m.config["config_groups"]["group_0"]["weights"]["num_bits"] = json!(4), "num_bits: expected 8"),
        (blocks, |m| m.config["activation_scheme"] = json!("static"), r#"found "static""#),
        (blocks, |m| m.config["weight_block_size"] = json!([0, 16]), "two numbers from 1 to 65536"),
        (blocks, |m| m.config["weight_block_size"] = json!([2]), "two numbers from 1 to 65536"),
        (gptq, |m| m.config["bits"] = json!(3), "quantization_config.bits: expected 4, found 3"),
        (gptq, |m| m.config["checkpoint_format"] = json!("marlin"), r#"found "marlin""#),
        (awq, |m| m.config["version"] = json!("gemv"), r#"found "gemv""#),
        (awq, |m| m.config["zero_point"] = json!(false), "zero_point: expected true, found false"),
    ];
    all_refused(CASES);
}

#[test]
fn tensors_that_do_not_fit_each_other() {
    const CASES: &[Case] = &[
        (int4, |m| m.blank("weight_packed", "I32", &[16, 8, 1]), "m.weight_packed: expected two dimensions"),
        (
            int4,
            |m| m.blank("weight_packed", "I8", &[16, 8]),
            "m.weight_packed: expected I32 of shape [16, 8], found I8",
        ),
        (int4, |m| m.blank("weight_packed", "I32", &[16, 7]), "m.weight_shape: expected [16, 56] or [16, 28]"),
        (int4, |m| m.blank("weight_packed", "I32", &[16, 0]), "m.weight_shape: expected [16, 0]"),
        (int4, |m| m.remove("weight_shape"), "m.weight_shape: expected a tensor beside m.weight_packed, found none"),
        (int4, |m| m.blank("weight_shape", "I64", &[3]), "m.weight_shape: expected I64 of shape [2]"),
        (int4, |m| m.bytes("weight_shape")[7] = 0x80, "m.weight_shape: expected [16, 64] or [16, 32]"),
        (int4, |m| m.remove("weight_scale"), "m.weight_scale: expected a tensor beside m.weight_packed"),
        (int4, |m| m.blank("weight_scale", "BF16", &[16, 3]), "m.weight_scale: expected scales of 16 rows"),
        (int4, |m| m.blank("weight_scale", "BF16", &[1]), "m.weight_scale: expected scales of 16 rows"),
        (int4, |m| m.blank("weight_scale", "I8", &[16, 2]), "m.weight_scale: expected F32, F16 or BF16"),
        (int4, |m| m.blank("weight_zero_point", "I32", &[16, 2]), "m.weight_zero_point: expected I32 of shape [2, 2]"),
        (int4, |m| m.blank("weight_g_idx", "I32", &[63]), "m.weight_g_idx: expected I32 of shape [64]"),
        (int4, |m| m.blank("weight_g_idx", "I32", &[64]), "m.weight_g_idx: expected 32 columns of each of 2 groups"),
        (
            int4,
            |m| m.config["config_groups"]["group_0"]["weights"]["actorder"] = json!("group"),
            "m.weight_g_idx: expected a tensor beside m.weight_packed, found none",
        ),
        (int8, |m| m.blank("weight", "I8", &[128]), "m.weight: expected two dimensions, found [128]"),
        (int8, |m| m.blank("weight", "I8", &[0, 32]), "m.weight: expected rows and columns"),
        (int8, |m| m.remove("weight_scale"), "m.weight_scale: expected a tensor beside m.weight, found none"),
        (int8, |m| m.blank("weight_scale", "F16", &[4, 5]), "m.weight_scale: expected scales of 4 rows"),
        (int8, |m| m.blank("weight_scale", "F16", &[4, 0]), "m.weight_scale: expected scales of 4 rows"),
        (int8, |m| m.blank("weight_scale", "I64", &[4, 1]), "m.weight_scale: expected F32, F16 or BF16"),
        (int8, |m| m.blank("weight_g_idx", "I32", &[32]), "m.weight_g_idx: expected no order of columns"),
        (int8, |m| m.set("weight_zero_point", "I8", &[4, 1], vec![1; 4]), "m.weight_zero_point: expected no zero"),
        (blocks, |m| m.blank("weight_scale_inv", "F32", &[4, 2]), "expected F32, F16 or BF16 of shape [2, 2]"),
        (blocks, |m| m.remove("weight_scale_inv"), "m.weight_scale_inv: expected a tensor beside m.weight"),
        (gptq, |m| m.blank("qweight", "I32", &[128]), "m.qweight: expected two dimensions"),
        (gptq, |m| m.blank("qweight", "I32", &[8, 12]), "m.qweight: expected rows by the eight"),
        (gptq, |m| m.blank("qweight", "I64", &[8, 16]), "m.qweight: expected I32 of shape [8, 16], found I64"),
        (gptq, |m| m.blank("scales", "F16", &[3, 16]), "m.scales: expected scales of 16 rows for groups"),
        (gptq, |m| m.blank("scales", "F16", &[2, 8]), "m.scales: expected scales of 16 rows for groups"),
        (gptq, |m| m.blank("qzeros", "I32", &[2, 16]), "m.qzeros: expected I32 of shape [2, 2]"),
        (gptq, |m| m.remove("qzeros"), "m.qzeros: expected a tensor beside m.qweight"),
        (gptq, |m| m.remove("g_idx"), "m.g_idx: expected a tensor beside m.qweight"),
        (gptq, |m| m.blank("g_idx", "I32", &[64]), "m.g_idx: expected 32 columns of each of 2 groups, found 0 where 1"),
        (gptq, |m| m.bytes("g_idx")[3] = 0x80, "m.g_idx: expected 32 columns of each of 2 groups"),
        (awq, |m| m.blank("qweight", "I32", &[60, 2]), "m.qweight: expected columns by the eight"),
        (awq, |m| m.blank("qzeros", "I32", &[2, 16]), "m.qzeros: expected I32 of shape [2, 2]"),
        (awq, |m| m.remove("scales"), "m.scales: expected a tensor beside m.qweight"),
        (nf4, |m| m.blank("weight", "U8", &[64, 1]), "m.weight: expected U8 of shape [128, 1]"),
        (nf4, |m| m.blank("weight", "BF16", &[64, 1]), "m.weight: expected U8 of shape [128, 1], found BF16"),
        (nf4, |m| m.blank("weight.absmax", "F32", &[5]), "m.weight.absmax: expected F32, F16 or BF16 of shape [4]"),
        (nf4, |m| m.blank("weight.quant_map", "F32", &[15]), "m.weight.quant_map: expected F32"),
        (nf4, |m| m.remove("weight.quant_map"), "m.weight.quant_map: expected a tensor beside m.weight"),
        (nf4, |m| m.set(STATE, "U8", &[2], b"{]".to_vec()), "bitsandbytes__nf4: expected"),
        (nf4, |m| m.blank(STATE, "U8", &[1 << 17]), "bitsandbytes__nf4: expected at most 65536 bytes"),
        (nf4, |m| state(m, json!({"blocksize": 48, "shape": [4, 64]})), "blocksize: a power of two from 32 to 4096"),
        (nf4, |m| state(m, json!({"blocksize": 64, "shape": [256]})), "shape: rows and columns"),
        (nf4, |m| state(m, json!({"blocksize": 64, "shape": [1_u64 << 40, 1_u64 << 40]})), "shape: rows and columns"),
        (nf4, |m| state(m, json!({"blocksize": 64, "shape": [256, 1]})), "expected an even number of columns"),
        (nf4_double, |m| m.blank("weight.absmax", "F32", &[4]), "m.weight.absmax: expected U8 of shape [4]"),
        (nf4_double, |m| m.blank("weight.nested_absmax", "F32", &[2]), "m.weight.nested_absmax: expected F32"),
        (nf4_double, |m| m.remove("weight.nested_quant_map"), "m.weight.nested_quant_map: expected a tensor"),
        (bnb_int8, |m| m.blank("weight", "U8", &[4, 32]), "m.weight: expected I8 of shape [4, 32], found U8"),
        (bnb_int8, |m| m.blank("SCB", "F32", &[5]), "m.SCB: expected F32, F16 or BF16 of shape [4]"),
        (bnb_int8, |m| m.remove("weight"), "m.weight: expected a tensor beside m.SCB"),
        (bnb_int8, |m| m.set("weight_format", "U8", &[], vec![2]), "m.weight_format: expected rows as they are (0)"),
    ];
    all_refused(CASES);
}

fn nested_too_large(made: &mut Made) {
    made.bytes("weight.nested_quant_map")[..4].copy_from_slice(&1_f32.to_le_bytes());
    made.bytes("weight.nested_absmax").copy_from_slice(&1e30_f32.to_le_bytes());
}

#[test]
fn numbers_that_are_none() {
    const CASES: &[Case] = &[
        (int4, |m| m.set("weight_scale", "BF16", &[16, 2], vec![0xff; 64]), "m.weight_scale: expected finite numbers"),
        (int8, |m| m.set("weight_scale", "F16", &[4, 1], vec![0x7c; 8]), "m.weight_scale: expected finite numbers"),
        (fp8, |m| m.bytes("weight")[5] = 0xff, "m.weight: expected numbers, found NaN at 5"),
        (fp8, |m| m.bytes("weight_scale")[3] = 0x43, "m.weight_scale: expected scales below 128, found 256"),
        (gptq, |m| m.set("scales", "F16", &[2, 16], vec![0x70; 64]), "m.scales: expected scales below 128"),
        (nf4, |m| m.bytes("weight.absmax")[..4].fill(0xff), "m.weight.absmax: expected finite numbers, found NaN at 0"),
        (nf4, |m| m.bytes("weight.quant_map")[..4].fill(0xff), "m.weight.quant_map: expected finite numbers"),
        (nf4_double, nested_too_large, "m.weight.absmax: expected scales below 128"),
        (bnb_int8, |m| m.bytes("SCB")[3] = 0x7f, "m.SCB: expected scales below 128"),
    ];
    all_refused(CASES);
}

#[test]
fn tables_are_codes_of_half_a_byte() {
    let folder = data().join("bnb-nf4");
    let checkpoint = Folder::Disk(&folder).checkpoint().unwrap();
    let matrix = checkpoint.quantised("m0.weight").unwrap().unwrap();
    assert!(matches!(matrix.codes, Codes::Table(table) if table[0] == -1.0 && table[15] == 1.0));
    // A tensor of numbers is none in few bits, and one in few bits is no tensor of numbers.
    assert!(checkpoint.quantised("m0.expected").unwrap().is_none());
    let error = checkpoint.tensor("m0.weight").unwrap_err().to_string();
    assert!(error.ends_with("m0.weight: expected numbers in F32, F16 or BF16, found int4 by 64"), "{error}");
}
