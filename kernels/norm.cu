// LayerNorm and RMSNorm of matrices of T, out of place or in place: y = (x - mean) / sqrt(variance + epsilon) * weight
// + bias, over whole rows or over each group of columns (queries and keys that are normalised head by head). f32 in
// between, two passes over registers, rounded to T once. Bound by memory: x is read once and y written once, 16 bytes a
// thread. Weight and bias are read once a block and kept in registers for its rows, `rows_a_block` of them: more rows
// ask for less, fewer leave more blocks to hide the memory's latency.
//
// norm_<bf16|f16>_<V>, V = 1, 2, 4, 8: one block for some rows of one group of columns, V vectors of 8 a thread:
//   group <= 2048 V. grid (divide_up(count, rows_a_block), width / group); threads min(256, round_up(group / 8, 32));
//   shared bytes 32.
// norm_heads_<bf16|f16>: groups of at most 256 columns, each by the fewest lanes, a power of two, that hold it 8 each.
//   `rows_a_block` counts turns of the block here. grid divide_up(count * width / group, 256 / lanes * rows_a_block),
//   lanes = next_power_of_two(group / 8); threads 256; shared bytes 0.
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
    const uint32_t offset = blockIdx.y * group;
    const uint32_t first = blockIdx.x * arguments.rows_a_block;
    const uint32_t end = smaller(first + arguments.rows_a_block, arguments.count);
    float* const scratch = reinterpret_cast<float*>(shared_memory());
    const NormParameters parameters = parameters_of(arguments);
    const KeptScale<VECTORS> scale(parameters, group, threadIdx.x);

    Word4 x[VECTORS];
    load_row(x, row_of<T>(arguments.x, first) + offset, group, threadIdx.x);
    for (uint32_t row = first; row < end; ++row) {
        Word4 next[VECTORS];  // under way while this row is worked on
        const uint32_t after = smaller(row + 1, end - 1);
        load_row(next, row_of<T>(arguments.x, after) + offset, after > row ? group : 0, threadIdx.x);
        const auto sum = [scratch](float value) { return block_sum(value, scratch); };
        normalise<T>(x, group, threadIdx.x, parameters, scale, sum);
        T* out_row = row_of<T>(arguments.out, row) + offset;
#pragma unroll
        for (uint32_t v = 0; v < VECTORS; ++v) {
            const uint32_t column = norm_column(threadIdx.x, v);
            if (column < group) store_vector(out_row + column, x[v]);
            x[v] = next[v];
        }
    }
}

template <typename T>
DEVICE void norm_heads(const NormArguments& arguments) {
    const uint32_t group = arguments.group;
    const uint32_t groups = arguments.width / group;  // of a row
    uint32_t lanes = 1;
    while (lanes * VECTOR < group) lanes *= 2;
    const uint32_t at_once = NORM_THREADS / lanes;
    const uint32_t lane = threadIdx.x % lanes;
    const NormParameters parameters = parameters_of(arguments);
    const KeptScale<1> scale(parameters, group, lane);

    for (uint32_t turn = 0; turn < arguments.rows_a_block; ++turn) {
        const uint32_t index = (blockIdx.x * arguments.rows_a_block + turn) * at_once + threadIdx.x / lanes;
        const uint32_t row = index / groups;
        const uint32_t column = lane * VECTOR;
        const bool present = row < arguments.count && column < group;
        const uint32_t offset = index % groups * group + column;

        Word4 x[1] = {{0, 0, 0, 0}};
        if (present) x[0] = load_vector(row_of<T>(arguments.x, row) + offset);
        normalise<T>(x, group, lane, parameters, scale, [lanes](float value) {
            for (uint32_t distance = lanes / 2; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
            return value;
        });
        if (present) store_vector(row_of<T>(arguments.out, row) + offset, x[0]);
    }
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
