//! Which form of the kernel of linear layers serves each layer of the real models, and its time as reckoned: nothing is
//! measured here. Prints Markdown.
//!
//!     cargo bench --bench forms

#[allow(dead_code, reason = "only the models are wanted")]
mod real;

use flamant::probe::linear_layers;
use flamant::probe::tuning::{LinearShape, Machine, linear_form};

const ROWS: [u32; 14] = [1, 2, 4, 8, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096];
/// What the best library is reckoned to get of an H200's matrix units, operations a second.
const FLOP_RATE: f64 = 790e12;
/// An H200's multiprocessors and shared memory of a block.
const MULTIPROCESSORS: u32 = 132;
const SHARED_BYTES: u32 = 227 << 10;

const HEAD: &str = "\
# Forms of linear layers, reckoned for an H200

Nothing here is measured: all times are reckoned (`src/backend/gpu/tuning.rs`). Waves: blocks for each that the
device holds at once. Asked: bytes that all blocks ask L2 for, over the least that memory must give. Floor: the least
bytes at 4.3 TB/s, or the FLOPs at 790 TFLOP/s.";
const COLUMNS: &str = "\
| rows | form | blocks | waves | asked | reckoned us | floor us | share of floor |
|---|---|---|---|---|---|---|---|";

fn line(machine: &Machine, shape: &LinearShape) -> String {
    let form = linear_form(machine, shape);
    let (kernel, variant) = form.name();
    let blocks = form.blocks(shape);
    let waves = f64::from(blocks) / f64::from(machine.multiprocessors * form.resident(machine));
    let seconds = form.seconds(machine, shape);
    let floor = (shape.bytes() / machine.memory_rate).max(shape.flops() / FLOP_RATE);
    let micros = |seconds: f64| 1e6 * seconds;
    format!(
        "| {} | {} {variant} | {blocks} | {waves:.2} | {:.2} | {:.1} | {:.1} | {:.0} % |",
        shape.rows,
        kernel.trim_start_matches("linear_"),
        form.asked_bytes(shape) / shape.bytes(),
        micros(seconds),
        micros(floor),
        100.0 * floor / seconds,
    )
}

fn main() {
    let machine = Machine::new(MULTIPROCESSORS, SHARED_BYTES);
    println!("{HEAD}");
    for model in real::all_models() {
        println!("\n## {}", model.name);
        for layer in linear_layers(&model.config).expect("the models are whole") {
            let of = if layer.text { "text" } else { "images" };
            let paired = if layer.paired { ", twice (gated linear unit)" } else { "" };
            println!("\n{of}, {} to {}{paired}\n", layer.columns, layer.width);
            println!("{COLUMNS}");
            for rows in ROWS {
                let (columns, width) = (layer.columns as u32, layer.width as u32);
                println!("{}", line(&machine, &LinearShape { rows, columns, width, paired: layer.paired }));
            }
        }
    }
}
