//! Mistakes in the assembly of `ptx.cuh` and its constraints, which a C++ compiler never sees: only the compiled side
//! can show them.

use super::list::{Mutant, mutant};

const IN_LINEAR: [&str; 2] = ["ptx.cuh", "linear"];
const IN_NORM: [&str; 2] = ["ptx.cuh", "norm"];
const IN_MASKED: [&str; 2] = ["ptx.cuh", "masked_image_attention"];
const IN_FLASH: [&str; 2] = ["ptx.cuh", "flash_attention"];
const IN_GATED: [&str; 2] = ["ptx.cuh", "gated_cross_attention"];
const IN_PERCEIVER: [&str; 2] = ["ptx.cuh", "perceiver_attention"];

/// The list.
pub const ASSEMBLY: &[Mutant] = &[
    // ---- conversions ------------------------------------------------------------------------------------------------
    mutant(
        "the halves of a bf16 pair exchanged",
        IN_NORM,
        &["norm/"],
        "\"cvt.rn.bf16x2.f32 %0, %1, %2;\"",
        "\"cvt.rn.bf16x2.f32 %0, %2, %1;\"",
    ),
    mutant(
        "the halves of an f16 pair exchanged",
        IN_NORM,
        &["norm/"],
        "asm(\"cvt.rn.f16x2.f32 %0, %1, %2;\" : \"=r\"(word) : \"f\"(second), \"f\"(first));",
        "asm(\"cvt.rn.f16x2.f32 %0, %1, %2;\" : \"=r\"(word) : \"f\"(first), \"f\"(second));",
    ),
    mutant(
        "a pair of one value twice",
        IN_NORM,
        &["norm/"],
        "\"cvt.rn.bf16x2.f32 %0, %1, %2;\"",
        "\"cvt.rn.bf16x2.f32 %0, %1, %1;\"",
    ),
    mutant(
        "the lower half is left in the upper one",
        IN_NORM,
        &["norm/"],
        "__uint_as_float(word & 0xffff0000u)",
        "__uint_as_float(word)",
    ),
    // ---- memory -----------------------------------------------------------------------------------------------------
    mutant(
        "words of a weight exchanged",
        IN_LINEAR,
        &["linear/"],
        "L2::128B.v4.u32 {%0, %1, %2, %3}",
        "L2::128B.v4.u32 {%1, %0, %2, %3}",
    ),
    mutant(
        "a weight read 16 bytes further on",
        IN_LINEAR,
        &["linear/"],
        "L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];",
        "L2::128B.v4.u32 {%0, %1, %2, %3}, [%4 + 16];",
    ),
    mutant(
        "copies that read where they should write zeros",
        IN_LINEAR,
        &["linear/"],
        "\"r\"(valid ? 16 : 0)",
        "\"r\"(16)",
    ),
    mutant("copies of half their bytes", IN_MASKED, &["masked/"], "\"r\"(valid ? 16 : 0)", "\"r\"(valid ? 8 : 0)"),
    mutant(
        "a generic address for one of shared memory",
        IN_LINEAR,
        &["linear/"],
        "static_cast<uint32_t>(__cvta_generic_to_shared(pointer))",
        "static_cast<uint32_t>(reinterpret_cast<uint64_t>(pointer))",
    ),
    mutant(
        "a wait for one group of copies less, in linear layers",
        IN_LINEAR,
        &["linear/"],
        "\"cp.async.wait_group %0;\" ::\"n\"(PENDING)",
        "\"cp.async.wait_group %0;\" ::\"n\"(PENDING + 1)",
    ),
    mutant(
        "a wait for one group of copies less, in attention",
        IN_FLASH,
        &["causal/"],
        "\"cp.async.wait_group %0;\" ::\"n\"(PENDING)",
        "\"cp.async.wait_group %0;\" ::\"n\"(PENDING + 1)",
    ),
    mutant(
        "groups of copies that are never closed",
        IN_MASKED,
        &["masked/"],
        "asm volatile(\"cp.async.commit_group;\" ::: \"memory\");",
        "",
    ),
    // ---- matrices from shared memory --------------------------------------------------------------------------------
    mutant(
        "values not transposed",
        IN_MASKED,
        &["masked/"],
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
    ),
    mutant(
        "keys transposed",
        IN_MASKED,
        &["masked/"],
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
    ),
    mutant(
        "matrices in another order",
        IN_PERCEIVER,
        &["perceiver/"],
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %2, %1, %3}",
    ),
    // ---- matrix products --------------------------------------------------------------------------------------------
    mutant("words 1 and 2 of the first operand exchanged", IN_LINEAR, &["linear/"], "{%4,%5,%6,%7}", "{%4,%6,%5,%7}"),
    mutant("words of the second operand exchanged", IN_LINEAR, &["linear/"], "{%8,%9}", "{%9,%8}"),
    mutant(
        "sums added to others' sums",
        IN_MASKED,
        &["masked/"],
        "{%8,%9}, {%0,%1,%2,%3};\"",
        "{%8,%9}, {%1,%0,%2,%3};\"",
    ),
    mutant(
        "f16 multiplied as bf16",
        IN_LINEAR,
        &["linear/"],
        "else MULTIPLY_ACCUMULATE(\"f16\");",
        "else MULTIPLY_ACCUMULATE(\"bf16\");",
    ),
    mutant(
        "a constraint that forgets the sum so far",
        IN_LINEAR,
        &["linear/"],
        ": \"+f\"(d[0]), \"+f\"(d[1])",
        ": \"=f\"(d[0]), \"+f\"(d[1])",
    ),
    // ---- meeting ----------------------------------------------------------------------------------------------------
    mutant(
        "no barrier of the block",
        IN_LINEAR,
        &["linear/"],
        "EITHER(__syncthreads(), emulator::block_barrier(site))",
        "EITHER((void)0, emulator::block_barrier(site))",
    ),
    mutant(
        "no barrier of the warp",
        IN_MASKED,
        &["masked/"],
        "EITHER(__syncwarp(), emulator::warp_barrier(site))",
        "EITHER((void)0, emulator::warp_barrier(site))",
    ),
    mutant(
        "a shuffle of half the warp",
        IN_NORM,
        &["norm/"],
        "__shfl_xor_sync(0xffffffffu, value, mask)",
        "__shfl_xor_sync(0x0000ffffu, value, mask)",
    ),
    mutant(
        "a shuffle within half the warp",
        IN_NORM,
        &["norm/"],
        "__shfl_xor_sync(0xffffffffu, value, mask)",
        "__shfl_xor_sync(0xffffffffu, value, mask, 16)",
    ),
    mutant(
        "a grid barrier that looks at the wrong word",
        IN_GATED,
        &["gated/"],
        "\"ld.acquire.gpu.global.u32 %0, [%1];\"",
        "\"ld.acquire.gpu.global.u32 %0, [%1 + 4];\"",
    ),
    mutant(
        "a clobber lost: a word that others change is read once",
        IN_GATED,
        &["gated/"],
        "asm volatile(\"ld.acquire.gpu.global.u32 %0, [%1];\" : \"=r\"(value) : \"l\"(address) : \"memory\");",
        "asm(\"ld.acquire.gpu.global.u32 %0, [%1];\" : \"=r\"(value) : \"l\"(address));",
    ),
    // ---- arithmetic -------------------------------------------------------------------------------------------------
    mutant("an exponential that is a reciprocal", IN_MASKED, &["masked/"], "ex2.approx.ftz.f32", "rcp.approx.ftz.f32"),
];
