//! What build.rs makes of `kernels/arguments.h` and of the kernels' declarations, and what it refuses, with the line.

#[allow(dead_code, reason = "of the sources themselves only errors are looked at")]
#[path = "../../build/header.rs"]
mod header;
#[path = "../../build/kernels.rs"]
mod kernels;
#[path = "../../build/tokens.rs"]
mod tokens;

use header::Header;

const HEADER: &str = "// What it is.
#pragma once
#include <stdint.h>
enum class Colour : uint32_t { Red, Green };
constexpr uint32_t TWO = 2;  // a pair
constexpr uint32_t FLAGS = 0x10 * TWO;
struct Point {
    float x;
    float y;
};
/// Told to a kernel.
struct DrawArguments {
    const Point* points;
    void* out;
    Point corners[TWO];  // two of them
    uint64_t size;
    Colour colour;
    uint32_t sides[3];
};";

const RUST: &str = "#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::NoUninit, bytemuck::Zeroable)]
#[repr(u32)]
pub enum Colour {
    #[default]
    Red = 0,
    Green = 1,
}
pub const TWO: u32 = 2;
pub const FLAGS: u32 = 32;
#[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}
const _: () = assert!(size_of::<Point>() == 8);
#[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::NoUninit, bytemuck::Zeroable)]
#[repr(C)]
pub struct Draw {
    pub points: Address,
    pub out: Address,
    pub corners: [Point; 2],
    pub size: u64,
    pub colour: Colour,
    pub sides: [u32; 3],
}
const _: () = assert!(size_of::<Draw>() == 56);
";

const SOURCE: &str = "#include \"common.cuh\"
template <typename T> DEVICE void draw(const DrawArguments& arguments) {}
#define DRAW(T, SIDES) \\
    KERNEL(draw_##T##_##SIDES##x4, DrawArguments, (2 * LANES)) { draw<T>(arguments); }
#define BOTH(SIDES) DRAW(bf16, SIDES) DRAW(f16, SIDES)
BOTH(3)
DRAW(bf16, 5)
DRAW(f16, 5)
LARGE_KERNEL(wipe, DrawArguments, 32) {}";

fn write(source: &str) -> Result<String, String> {
    kernels::write(&[("draw.cu".to_owned(), source.to_owned())], &Header::read("arguments.h", HEADER).unwrap())
}

#[test]
fn declarations_have_the_same_layout_in_rust() {
    assert_eq!(Header::read("arguments.h", HEADER).unwrap().write(), RUST);
}

#[test]
fn kernels_are_found_through_macros() {
    let text = write(SOURCE).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once(" => \"")?.1.strip_suffix("\",")).collect();
    assert_eq!(names, ["draw_bf16_3x4", "draw_f16_3x4", "draw_bf16_5x4", "draw_f16_5x4", "wipe"]);
    for line in [
        "pub fn draw(dtype: Dtype, numbers: [u32; 2]) -> KernelOf<Draw> {",
        "(Dtype::F16, [5, 4]) => Kernel::DrawF16_5x4,",
        "Kernel::DrawBf16_3x4 => size_of::<Draw>(),",
        "pub fn wipe() -> KernelOf<Draw> {",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// What a header is told that has `instead` in the place of `text`; `message` begins with the line.
#[track_caller]
fn refused(text: &str, instead: &str, message: &str) {
    assert_eq!(HEADER.matches(text).count(), 1, "{text}");
    let told = Header::read("arguments.h", &HEADER.replace(text, instead)).unwrap_err();
    assert_eq!(told, format!("arguments.h:{message}"));
}

#[test]
fn a_header_of_another_kind_is_an_error_with_its_line() {
    refused(
        "#pragma once",
        "#define X",
        "2: expected `#pragma once` or `#include <stdint.h>`, found another directive",
    );
    refused(
        "float y;",
        "double y;",
        "9: expected a type: uint8_t, uint32_t, uint64_t, float, or one from above, found \"double\"",
    );
    refused("float y;", "float y, z;", "9: expected \";\", found \",\"");
    refused("float y;", "void y;", "9: expected \"*\", found \"y\"");
    refused("float y;", "float type;", "9: expected the name of a field, found \"type\"");
    refused("float y;", "float x;", "9: Point: x is there twice");
    refused("float y;", "float y() const;", "9: expected \";\", found \"(\"");
    refused("[3]", "[COUNT]", "18: expected a number or a constant from above, found \"COUNT\"");
    refused("0x10 * TWO", "0xffffffff * TWO", "6: a value beyond 32 bits");
    refused("0x10 * TWO", "TWO + 1", "6: expected \";\", found \"+\"");
    refused("Red, Green", "Red, Green = 4", "4: expected \",\" or \"}\", found \"=\"");
    refused("struct Point", "class Point", "7: expected `struct`, `enum class` or `constexpr`, found \"class\"");
    refused("enum class Colour", "struct DrawArguments;\nenum class Colour", "4: expected \"{\", found \";\"");
    refused(
        "struct Point",
        "struct Draw {\n    float x;\n};\nstruct Point",
        "22: DrawArguments is declared twice, in Rust as Draw",
    );
    refused(
        "[3];\n};",
        "[3];\n",
        "18: expected a type: uint8_t, uint32_t, uint64_t, float, or one from above, found the end of the file",
    );
}

#[test]
fn padding_is_an_error_with_its_line() {
    refused("void* out;", "float out;", "16: DrawArguments: there would be padding before size");
    refused("[3]", "[2]", "19: DrawArguments has 52 bytes of fields, and would have 4 of padding");
}

#[test]
fn kernels_of_another_kind_are_an_error_with_their_line() {
    let refused = |text: &str, instead: &str, message: &str| {
        assert_eq!(SOURCE.matches(text).count(), 1, "{text}");
        assert_eq!(write(&SOURCE.replace(text, instead)).unwrap_err(), format!("draw.cu:{message}"));
    };
    refused("(wipe, DrawArguments", "(wipe, Other", "9: kernel wipe: expected a struct of arguments.h, found Other");
    refused("(wipe, ", "(wipe_bf16_wide, ", "9: kernel wipe_bf16_wide: expected numbers behind the type of storage");
    refused("(wipe, DrawArguments, 32)", "(wipe, 32)", "9: LARGE_KERNEL takes a name, arguments and threads");
    refused("(wipe, DrawArguments, 32)", "(wipe, DrawArguments, 32", "9: LARGE_KERNEL: expected \")\", found none");
    refused("(wipe, ", "(draw_f16_3x4, ", "9: kernel draw_f16_3x4: expected it once, found it beside draw_f16_3x4");
    refused("DRAW(f16, 5)", "DRAW(f16)", "8: DRAW: expected 2 arguments, and no macro in itself");
    refused(
        "BOTH(3)",
        "#define DRAW(T, SIDES) DRAW(T, SIDES)\nBOTH(3)",
        "7: DRAW: expected 2 arguments, and no macro in itself",
    );
    refused("DRAW(f16, 5)", "", "6: kernels draw: each is for bf16 and f16 and has as many numbers, but draw_bf16_5x4");
}
