//! What each kernel is told: the structs of `kernels/arguments.h`, field by field. Their sizes are checked against the
//! kernels' own when a device is opened.

use bytemuck::{NoUninit, Pod, Zeroable};

use super::driver::Address;

/// A matrix in storage type; see the header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rows {
    pub data: Address,
    pub rows: u32,
    pub row_pitch: u32,
    pub stride: u32,
    pub unused: u32,
}

/// Pages of keys and values of one layer or block.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Pages {
    pub keys: Address,
    pub values: Address,
    pub page_rows: u32,
    pub width: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Linear {
    pub x: Rows,
    pub out: Rows,
    pub residual: Rows,
    pub weight: Address,
    pub bias: Address,
    pub gate: Address,
    pub count: u32,
    pub columns: u32,
    pub width: u32,
    pub gate_stride: u32,
    pub activation: u32,
    pub paired: u32,
    pub out_f32: u32,
    pub clip: f32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Norm {
    pub x: Rows,
    pub out: Rows,
    pub weight: Address,
    pub bias: Address,
    pub count: u32,
    pub width: u32,
    pub group: u32,
    pub layer: u32,
    pub epsilon: f32,
    pub rows_a_block: u32,
}

/// The norm of queries or keys inside an attention kernel; without a weight there is none.
#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct HeadNorm {
    pub weight: Address,
    pub bias: Address,
    pub epsilon: f32,
    pub layer: u32,
}

/// Consecutive tokens of one sequence, as they stand in the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct QueryTile {
    pub first: u32,
    pub count: u32,
    pub position: u32,
    pub table: u32,
}

/// Tokens that see one picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MediaTile {
    pub first: u32,
    pub count: u32,
    pub page: u32,
    pub unused: u32,
}

/// The page of tokens that see no picture.
pub const NO_PICTURE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct CausalAttention {
    pub query: Rows,
    pub out: Rows,
    pub pages: Pages,
    pub tables: Address,
    pub tiles: Address,
    pub slopes: Address,
    pub tile_count: u32,
    pub heads: u32,
    pub head_width: u32,
    pub scale: f32,
}

/// A token whose keys are split over blocks, and where its partial results stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SplitRow {
    pub token: u32,
    pub position: u32,
    pub partial: u32,
    pub slots: u32,
}

/// Some of these tokens and the keys that one block lets them meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SplitItem {
    pub first: u32,
    pub count: u32,
    pub table: u32,
    pub tile: u32,
    pub slot: u32,
    pub keys: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct SplitAttention {
    pub query: Rows,
    pub out: Rows,
    pub pages: Pages,
    pub tables: Address,
    pub rows: Address,
    pub items: Address,
    pub slopes: Address,
    pub partials: Address,
    pub row_count: u32,
    pub heads: u32,
    pub head_width: u32,
    pub scale: f32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct PictureAttention {
    pub query: Rows,
    pub out: Rows,
    pub key: [Rows; 2],
    pub value: [Rows; 2],
    pub query_norm: HeadNorm,
    pub key_norm: HeadNorm,
    pub frame_starts: Address,
    pub query_rows: u32,
    pub key_rows: [u32; 2],
    pub images: u32,
    pub heads: u32,
    pub head_width: u32,
    pub scale: f32,
    pub unused: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct MaskedImageAttention {
    pub query: Rows,
    pub out: Rows,
    pub pages: Pages,
    pub order: Address,
    pub tiles: Address,
    pub query_norm: HeadNorm,
    pub tile_count: u32,
    pub heads: u32,
    pub head_width: u32,
    pub scale: f32,
}

/// Tokens that the kernel of a gated block's attention half takes; more take its parts.
pub const GATED_TOKENS_MAX: u32 = 8;

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct GatedCrossAttention {
    pub x: Rows,
    pub out: Rows,
    pub norm: Norm,
    pub query_norm: HeadNorm,
    pub pages: Pages,
    pub order: Address,
    pub tiles: Address,
    pub query_weight: Address,
    pub out_weight: Address,
    pub gate: Address,
    pub query: Address,
    pub attended: Address,
    pub barrier: Address,
    pub tile_count: u32,
    pub count: u32,
    pub width: u32,
    pub inner: u32,
    pub heads: u32,
    pub head_width: u32,
    pub gate_stride: u32,
    pub scale: f32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Patches {
    pub pixels: Address,
    pub out: Rows,
    pub images: u32,
    pub side: u32,
    pub patch: u32,
    pub width: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct ClassAndPosition {
    pub patches: Rows,
    pub out: Rows,
    pub class_row: Address,
    pub position: Address,
    pub images: u32,
    pub patches_count: u32,
    pub width: u32,
    pub unused: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct FrameEmbedding {
    pub x: Rows,
    pub table: Rows,
    pub out: Rows,
    pub places: Address,
    pub count: u32,
    pub width: u32,
    pub table_rows: u32,
    pub unused: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Gather {
    pub table: Rows,
    pub out: Rows,
    pub add: Rows,
    pub index: Address,
    pub count: u32,
    pub width: u32,
    pub offset: u32,
    pub table_rows: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Append {
    pub query: Rows,
    pub key: Rows,
    pub value: Rows,
    pub pages: Pages,
    pub positions: Address,
    pub table_of: Address,
    pub tables: Address,
    pub count: u32,
    pub width: u32,
    pub unit_rows: u32,
    pub head_width: u32,
    pub rotary_width: u32,
    pub theta: f32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct CopyPage {
    pub keys: Address,
    pub values: Address,
    pub layer_pitch: u64,
    pub page_size: u64,
    pub from: u32,
    pub to: u32,
    pub layers: u32,
    pub unused: u32,
}

/// What is chosen from one row of logits.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct SampleRequest {
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub uniform: f32,
    pub target: u32,
    pub unused: u32,
}

/// A target that is none.
pub const NO_TOKEN: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct SampleResult {
    pub token: u32,
    pub logit: f32,
    pub log_sum_exp: f32,
    pub target_logit: f32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Sample {
    pub logits: Address,
    pub requests: Address,
    pub forbidden: Address,
    pub results: Address,
    pub scratch: Address,
    pub count: u32,
    pub width: u32,
    pub stride: u32,
    pub forbidden_count: u32,
}

#[derive(Debug, Clone, Copy, Default, NoUninit)]
#[repr(C)]
pub struct Random {
    pub data: Address,
    pub count: u64,
    pub seed: u32,
    pub bound: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernels' constant of this name.
    fn constant(name: &str) -> u32 {
        let header = include_str!("../../../kernels/arguments.h");
        let line = header.split(&format!("constexpr uint32_t {name} = ")).nth(1).expect("the header has it");
        let value = line.split(';').next().expect("a statement ends");
        let hexadecimal = value.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16));
        hexadecimal.unwrap_or_else(|| value.parse()).expect("a number")
    }

    #[test]
    fn constants_are_the_kernels() {
        for (name, value) in
            [("GATED_TOKENS_MAX", GATED_TOKENS_MAX), ("NO_TOKEN", NO_TOKEN), ("NO_PICTURE", NO_PICTURE)]
        {
            assert_eq!(constant(name), value, "{name}");
        }
    }
}
