//! What nvcc made of each kernel: registers, spills, stack, shared memory, and how many of a multiprocessor's warps run
//! at once. `cargo run --release --example kernel_report`, with nvcc where build.rs finds it.

/// Kernels of one family: the first part of their names, the last parts, threads of a block, bytes of shared memory.
/// Where a launch decides how much, the usual amount.
struct Family {
    name: &'static str,
    variants: &'static [&'static str],
    threads: u32,
    shared_bytes: fn(&str) -> u32,
}

/// Widths of heads that attention is compiled for.
const WIDTHS: &[&str] = &["_64", "_80", "_96", "_128"];
const ONE: &[&str] = &[""];

/// Names: family, storage type, variant; some work on either type.
const FAMILIES: &[Family] = &[
    Family {
        name: "linear_rows",
        variants: &["_16x8", "_32x8", "_16x16", "_32x16", "_64x16", "_128x16", "_32x32", "_32x64"],
        threads: 256,
        shared_bytes: |form| 32 * numbers(form)[1] * (numbers(form)[0] + 4),
    },
    Family { name: "linear_tile", variants: &["_64x64x3", "_64x64x6", "_128x64x4"], threads: 128, shared_bytes: ring },
    Family { name: "linear_tile", variants: &["_128x128x3"], threads: 256, shared_bytes: ring },
    Family { name: "norm", variants: &["_1", "_2", "_4", "_8"], threads: 256, shared_bytes: |_| 32 },
    Family { name: "norm_heads", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "flash_attention_causal", variants: WIDTHS, threads: 128, shared_bytes: two_tiles },
    Family { name: "flash_attention_full", variants: WIDTHS, threads: 128, shared_bytes: tiles_and_queries },
    Family {
        name: "flash_attention_split",
        variants: WIDTHS,
        threads: 64,
        shared_bytes: |width| 576 * (numbers(width)[0] + 8),
    },
    Family { name: "flash_attention_combine", variants: ONE, threads: 128, shared_bytes: |_| 0 },
    Family { name: "masked_image_attention", variants: WIDTHS, threads: 128, shared_bytes: two_tiles },
    Family { name: "perceiver_attention", variants: WIDTHS, threads: 128, shared_bytes: two_tiles },
    // Of one token of 4096 columns: its normed row needs less than the tiles of attention.
    Family { name: "gated_cross_attention", variants: WIDTHS, threads: 256, shared_bytes: two_tiles },
    Family { name: "patches", variants: ONE, threads: 256, shared_bytes: |_| 4 * 3 * 256 },
    Family { name: "class_and_position", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "frame_embedding", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "tile_embedding", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "concatenate", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "gather", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "repeat", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    // Of heads of 128 columns that all rotate.
    Family { name: "append", variants: ONE, threads: 256, shared_bytes: |_| 4 * 128 },
    Family { name: "random", variants: ONE, threads: 256, shared_bytes: |_| 0 },
];
const OF_EITHER_TYPE: &[Family] = &[
    Family { name: "copy_page", variants: ONE, threads: 256, shared_bytes: |_| 0 },
    Family { name: "sample", variants: ONE, threads: 1024, shared_bytes: |_| 512 },
];

/// Two tiles of 64 keys and values (`kernels/attention.cuh`).
fn two_tiles(width: &str) -> u32 {
    512 * (numbers(width)[0] + 8)
}

/// The same, and of heads that are not wide 128 queries.
fn tiles_and_queries(width: &str) -> u32 {
    let queries = if numbers(width)[0] <= 80 { 128 } else { 0 };
    two_tiles(width) + 2 * queries * (numbers(width)[0] + 8)
}

/// All stages of a tile of a linear layer.
fn ring(form: &str) -> u32 {
    128 * (numbers(form)[0] + numbers(form)[1]) * numbers(form)[2]
}

/// The numbers in a variant's name: "_128x16" to [128, 16].
fn numbers(variant: &str) -> Vec<u32> {
    variant.trim_start_matches('_').split('x').map(|number| number.parse().expect("variants are numbers")).collect()
}

/// How a kernel is started.
pub struct Start {
    /// The kernel's name.
    pub name: String,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
}

/// All kernels there should be.
pub fn starts() -> Vec<Start> {
    let of = |family: &Family, kind: &str| -> Vec<Start> {
        let start = |variant: &&str| Start {
            name: format!("{}{kind}{variant}", family.name),
            threads: family.threads,
            shared_bytes: (family.shared_bytes)(variant),
        };
        family.variants.iter().map(start).collect()
    };
    let typed = FAMILIES.iter().flat_map(|family| ["_bf16", "_f16"].into_iter().flat_map(move |kind| of(family, kind)));
    typed.chain(OF_EITHER_TYPE.iter().flat_map(|family| of(family, ""))).collect()
}

/// One line of the compiler's report.
pub struct Compiled {
    /// The kernel's name.
    pub name: String,
    /// What it was compiled for: "sm_90a".
    pub architecture: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of registers that were spilled.
    pub spills: u32,
    /// Bytes of a thread's stack.
    pub stack: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
}

/// What the compiler said; nothing in a program that was built without nvcc.
pub fn compiled() -> Vec<Compiled> {
    let line = |line: &str| {
        let (kernel, counts) = line.split_once(": ")?;
        let (name, architecture) = kernel.split_once(' ')?;
        let mut counts = counts.split(", ").map(|count| count.split_once(' ')?.1.parse().ok());
        let mut count = || counts.next().flatten();
        Some(Compiled {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            registers: count()?,
            spills: count()?,
            stack: count()?,
            shared_bytes: count()?,
        })
    };
    flamant::probe::report().lines().map(|text| line(text).unwrap_or_else(|| panic!("what is {text:?}?"))).collect()
}

/// What one multiprocessor has.
pub struct Multiprocessor {
    warps: u32,
    blocks: u32,
    shared_bytes: u32,
}

/// Of an architecture, from the CUDA programming guide ("Technical specifications per compute capability"); none for
/// one that is not known here.
pub fn multiprocessor(architecture: &str) -> Option<Multiprocessor> {
    let kib = 1024;
    match architecture.trim_start_matches("sm_").trim_end_matches(char::is_alphabetic) {
        "80" => Some(Multiprocessor { warps: 64, blocks: 32, shared_bytes: 164 * kib }),
        "90" | "100" => Some(Multiprocessor { warps: 64, blocks: 32, shared_bytes: 228 * kib }),
        "120" => Some(Multiprocessor { warps: 48, blocks: 24, shared_bytes: 100 * kib }),
        _ => None,
    }
}

impl Multiprocessor {
    /// Blocks that run at once.
    pub fn blocks(&self, start: &Start, compiled: &Compiled) -> u32 {
        const LANES: u32 = 32;
        /// Registers of each of the four parts of a multiprocessor, and how many are given to a warp at a time.
        const PART_REGISTERS: u32 = 16_384;
        const REGISTERS_UNIT: u32 = 256;
        /// Shared memory of each block that the system keeps, and how much is given at a time.
        const RESERVED_BYTES: u32 = 1024;
        const SHARED_UNIT: u32 = 128;
        let warps = start.threads.div_ceil(LANES);
        let registers = (compiled.registers * LANES).next_multiple_of(REGISTERS_UNIT);
        let shared_bytes = (start.shared_bytes + compiled.shared_bytes + RESERVED_BYTES).next_multiple_of(SHARED_UNIT);
        let by_warps = self.warps / warps;
        let by_registers = 4 * (PART_REGISTERS / registers) / warps;
        let by_shared = self.shared_bytes / shared_bytes;
        self.blocks.min(by_warps).min(by_registers).min(by_shared)
    }

    /// Share of the warps that can be there which these blocks are.
    pub fn occupancy(&self, start: &Start, blocks: u32) -> f64 {
        f64::from(blocks * start.threads.div_ceil(32)) / f64::from(self.warps)
    }
}

/// The whole report, as text.
pub fn table() -> String {
    let mut lines = vec![format!(
        "{:<36}{:<10}{:>9}{:>7}{:>6}{:>8}{:>8}{:>7}{:>11}",
        "kernel", "for", "registers", "spills", "stack", "threads", "shared", "blocks", "occupancy"
    )];
    let starts = starts();
    for compiled in compiled() {
        let Compiled { name, architecture, registers, spills, stack, .. } = &compiled;
        let start = starts.iter().find(|start| start.name == *name);
        let held = start.zip(multiprocessor(architecture)).map(|(start, multiprocessor)| {
            let blocks = multiprocessor.blocks(start, &compiled);
            (blocks.to_string(), format!("{:.0} %", 100.0 * multiprocessor.occupancy(start, blocks)))
        });
        let (blocks, occupancy) = held.unwrap_or_default();
        let (threads, shared) = start.map_or((0, 0), |start| (start.threads, start.shared_bytes));
        lines.push(format!(
            "{name:<36}{architecture:<10}{registers:>9}{spills:>7}{stack:>6}{threads:>8}{shared:>8}{blocks:>7}\
             {occupancy:>11}"
        ));
    }
    lines.join("\n")
}

fn main() {
    if compiled().is_empty() {
        eprintln!("this program was built without nvcc: there are no kernels to report on");
        std::process::exit(1);
    }
    println!("{}", table());
}
