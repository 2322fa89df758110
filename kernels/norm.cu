// LayerNorm and RMSNorm of matrices of T, out of place or in place: y = (x - mean) / sqrt(variance + epsilon) * weight
// + bias, over whole rows or over each group of columns (queries and keys that are normalised head by head). f32 in
// between, two passes over registers, rounded to T once. Bound by memory: x is read once and y written once, 16 bytes
// a thread; weight and bias come from L1 after a multiprocessor's first row.
//
// norm_<bf16|f16>_<V>, V = 1, 2, 4, 8: one block a group, V vectors of 8 a thread: group <= 2048 V.
//   grid (count, width / group); threads min(256, round_up(group / 8, 32)); shared bytes 32.
// norm_heads_<bf16|f16>: groups of at most 256 columns, each by the fewest lanes, a power of two, that hold it 8 each.
//   grid divide_up(count * width / group, 256 / lanes), lanes = next_power_of_two(group / 8); threads 256;
//   shared bytes 0.
//
// `group` is a multiple of 8 and divides `width`; weight and bias are 16-byte aligned. Same values, same bits,
// whichever kernel serves them.
#include "norm.cuh"

DEVICE NormParameters parameters_of(const NormArguments& arguments) {
    return {arguments.weight, arguments.bias, arguments.epsilon, arguments.layer != 0};
}

template <typename T, uint32_t VECTORS>
DEVICE void norm(const NormArguments& arguments) {
    const uint32_t group = arguments.group;
    const T* x_row = row_of<T>(arguments.x, blockIdx.x) + blockIdx.y * group;
    T* out_row = row_of<T>(arguments.out, blockIdx.x) + blockIdx.y * group;

    Word4 x[VECTORS];
    load_row(x, x_row, group, threadIdx.x);
    normalise_by_block<T>(x, group, parameters_of(arguments), reinterpret_cast<float*>(shared_memory()));
#pragma unroll
    for (uint32_t v = 0; v < VECTORS; ++v) {
        const uint32_t column = norm_column(threadIdx.x, v);
        if (column < group) store_vector(out_row + column, x[v]);
    }
}

template <typename T>
DEVICE void norm_heads(const NormArguments& arguments) {
    const uint32_t group = arguments.group;
    const uint32_t groups = arguments.width / group;  // of a row
    uint32_t lanes = 1;
    while (lanes * VECTOR < group) lanes *= 2;

    const uint32_t index = (blockIdx.x * NORM_THREADS + threadIdx.x) / lanes;
    const uint32_t row = index / groups;
    const uint32_t column = threadIdx.x % lanes * VECTOR;
    const bool present = row < arguments.count && column < group;
    const uint32_t offset = index % groups * group + column;

    Word4 x = {0, 0, 0, 0};
    if (present) x = load_vector(row_of<T>(arguments.x, row) + offset);
    normalise_by_lanes<T>(x, group, lanes, parameters_of(arguments));
    if (present) store_vector(row_of<T>(arguments.out, row) + offset, x);
}

KERNEL(norm_bf16_1, NormArguments, 256) { norm<bf16, 1>(arguments); }
KERNEL(norm_bf16_2, NormArguments, 256) { norm<bf16, 2>(arguments); }
KERNEL(norm_bf16_4, NormArguments, 256) { norm<bf16, 4>(arguments); }
KERNEL(norm_bf16_8, NormArguments, 256) { norm<bf16, 8>(arguments); }
KERNEL(norm_heads_bf16, NormArguments, 256) { norm_heads<bf16>(arguments); }

KERNEL(norm_f16_1, NormArguments, 256) { norm<f16, 1>(arguments); }
KERNEL(norm_f16_2, NormArguments, 256) { norm<f16, 2>(arguments); }
KERNEL(norm_f16_4, NormArguments, 256) { norm<f16, 4>(arguments); }
KERNEL(norm_f16_8, NormArguments, 256) { norm<f16, 8>(arguments); }
KERNEL(norm_heads_f16, NormArguments, 256) { norm_heads<f16>(arguments); }
