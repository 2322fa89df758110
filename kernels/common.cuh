// What a kernel may assume: storage types, rows, reductions, and KERNEL(), which defines one.
//
// A kernel is a function template over its storage type that takes one struct of arguments. KERNEL(name, Arguments,
// threads) { ... } gives an instance its name and its number of threads a block; its body reads `arguments`. Under nvcc
// it becomes an extern "C" __global__ function, under a C++ compiler a body that the emulator can start. All shared
// memory is dynamic: shared_memory() is its start, 16-byte aligned; the launch says how much there is. LARGE_KERNEL is
// for kernels that need so much of it that few blocks run at once anyway: their threads may have all registers.
// RESIDENT_KERNEL says how many blocks are to run at once, so that the compiler takes the registers that this leaves.
#pragma once
#include <math.h>

#include "arguments.h"
#include "ptx.cuh"

/// Lanes of a warp.
constexpr uint32_t LANES = 32;

/// Where row `index` of a view starts.
template <typename T>
DEVICE T* row_of(const Rows& rows, uint32_t index) {
    const bool whole = rows.rows == rows.row_pitch;
    const uint64_t row = whole ? index : uint64_t(index / rows.rows) * rows.row_pitch + index % rows.rows;
    return static_cast<T*>(rows.data) + row * rows.stride;
}

template <typename T>
DEVICE T smaller(T a, T b) {
    return a < b ? a : b;
}
template <typename T>
DEVICE T larger(T a, T b) {
    return a > b ? a : b;
}
DEVICE constexpr uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

/// Sum over the lanes of a warp; every lane gets it. The order is fixed: a butterfly.
DEVICE float warp_sum(float value) {
#pragma unroll
    for (uint32_t distance = 16; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
    return value;
}

DEVICE float warp_max(float value) {
#pragma unroll
    for (uint32_t distance = 16; distance > 0; distance /= 2) value = larger(value, shuffle_xor(value, distance));
    return value;
}

/// Sum over all threads of a block; every thread gets it. `scratch` holds one float a warp and may be used again after
/// the next barrier. Warps are added in order, so that idle warps (which bring zeros) change nothing.
DEVICE float block_sum(float value, float* scratch) {
    value = warp_sum(value);
    const uint32_t warps = divide_up(blockDim.x, LANES);
    block_barrier();
    if (threadIdx.x % LANES == 0) store_shared(scratch + threadIdx.x / LANES, value);
    block_barrier();
    float sum = load_shared(scratch);
    for (uint32_t warp = 1; warp < warps; ++warp) sum += load_shared(scratch + warp);
    return sum;
}

/// A word that all lanes of a warp need, asked for once. All lanes must call.
DEVICE uint32_t load_for_warp(const uint32_t* address) {
    return shuffle(threadIdx.x % LANES == 0 ? load_global(address) : 0, 0);
}

/// Four words at once, likewise.
DEVICE Word4 load_for_warp(const Word4* address) {
    const Word4 words = threadIdx.x % LANES == 0 ? load_global(address) : Word4{0, 0, 0, 0};
    return {shuffle(words.x, 0), shuffle(words.y, 0), shuffle(words.z, 0), shuffle(words.w, 0)};
}

/// The nonlinearity, in f32.
DEVICE float activate(float x, Activation activation) {
    switch (activation) {
        case Activation::Gelu: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
        case Activation::GeluTanh: return x / (1.0f + exponential(-2.0f * 0.7978846f * (x + 0.044715f * x * x * x)));
        case Activation::QuickGelu: return x / (1.0f + exponential(-1.702f * x));
        case Activation::Relu: return larger(x, 0.0f);
        case Activation::Silu: return x / (1.0f + exponential(-x));
        case Activation::SquaredRelu: return larger(x, 0.0f) * larger(x, 0.0f);
        default: return x;
    }
}
