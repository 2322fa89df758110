// The arithmetic of matrix units: d = a b + c for one instruction mma.m16n8k16 with f32 sums.
#pragma once
#include <stdint.h>

namespace interpreter {

/// How products are added.
enum class MatrixUnits : uint32_t {
    /// In f32, from k = 0 on, then c: as the emulator does it.
    Plain,
    /// As the units of compute capability 9.0 are modelled.
    Hopper,
    /// As those of 8.x are modelled.
    Ampere,
};

/// 16-bit operands as they are stored: a by rows, b by columns.
struct Tiles {
    bool is_bf16;
    uint16_t a[16][16];
    uint16_t b[8][16];
    float c[16][8];
};

void multiply(MatrixUnits units, const Tiles& tiles, float (&d)[16][8]);

}  // namespace interpreter
