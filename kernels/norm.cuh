// Normalisation of rows that are held in registers: LayerNorm and RMSNorm, for norm.cu and for kernels that normalise
// what they are about to multiply. A row stays in registers between the passes over it, so that memory is read once.
//
// One canonical order of summation: thread i of a row's threads holds the 8-element vectors i, i + 256, i + 512 .. and
// adds their entries in order; lanes meet in a butterfly, warps in order (block_sum). It does not depend on how many
// threads there are: fewer only leave out lanes and warps that would bring zeros.
#pragma once
#include "vector.cuh"

/// Distance of a thread's vectors, and the most threads of a row.
constexpr uint32_t NORM_THREADS = 256;

/// out = (x - mean) / deviation * weight + bias.
struct NormParameters {
    const float* weight;  // one for each column, 16-byte aligned
    const float* bias;    // the same, or null
    float epsilon;
    bool layer;  // LayerNorm; otherwise RMSNorm, whose mean is 0
};

/// Column of the row at which the vector `v` of thread `thread` begins.
DEVICE uint32_t norm_column(uint32_t thread, uint32_t v) { return (v * NORM_THREADS + thread) * VECTOR; }

/// Reads the vectors of `thread` from a row of global memory.
template <typename T, uint32_t VECTORS>
DEVICE void load_row(Word4 (&x)[VECTORS], const T* row, uint32_t width, uint32_t thread) {
#pragma unroll
    for (uint32_t v = 0; v < VECTORS; ++v) {
        const uint32_t column = norm_column(thread, v);
        x[v] = column < width ? load_vector(row + column) : Word4{0, 0, 0, 0};
    }
}

/// Normalises a row that its threads hold together, in place and rounded to T. `sum` adds a value over those threads
/// and gives the total to each; all of them must call.
template <typename T, uint32_t VECTORS, typename Sum>
DEVICE void normalise(Word4 (&x)[VECTORS], uint32_t width, uint32_t thread, const NormParameters& norm, Sum sum) {
    float value[VECTOR];
    float mean = 0.0f;
    if (norm.layer) {
        float total = 0.0f;
#pragma unroll
        for (uint32_t v = 0; v < VECTORS; ++v) {
            unpack_vector<T>(value, x[v]);  // zeros beyond the row
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) total += value[i];
        }
        mean = sum(total) / static_cast<float>(width);
    }

    float squares = 0.0f;
#pragma unroll
    for (uint32_t v = 0; v < VECTORS; ++v) {
        if (norm_column(thread, v) < width) {
            unpack_vector<T>(value, x[v]);
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) squares = fmaf(value[i] - mean, value[i] - mean, squares);
        }
    }
    const float factor = reciprocal_square_root(sum(squares) / static_cast<float>(width) + norm.epsilon);

#pragma unroll
    for (uint32_t v = 0; v < VECTORS; ++v) {
        const uint32_t column = norm_column(thread, v);
        if (column < width) {
            float weight[VECTOR];
            float bias[VECTOR] = {};
            unpack_vector<T>(value, x[v]);
            load_floats(weight, norm.weight + column);
            if (norm.bias != nullptr) load_floats(bias, norm.bias + column);
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) {
                value[i] = fmaf((value[i] - mean) * factor, weight[i], bias[i]);
            }
            x[v] = pack_vector<T>(value);
        }
    }
}

/// The same for the threads of a block; `scratch` is shared memory of one float a warp. All threads must call.
template <typename T, uint32_t VECTORS>
DEVICE void normalise_by_block(Word4 (&x)[VECTORS], uint32_t width, const NormParameters& norm, float* scratch) {
    normalise<T>(x, width, threadIdx.x, norm, [scratch](float value) { return block_sum(value, scratch); });
}

/// The same for groups of `lanes` lanes (a power of two), each with a row of at most 8 * lanes columns, one vector a
/// lane. All lanes of the warp must call.
template <typename T>
DEVICE void normalise_by_lanes(Word4& x, uint32_t width, uint32_t lanes, const NormParameters& norm) {
    Word4 vector[1] = {x};
    normalise<T>(vector, width, threadIdx.x % lanes, norm, [lanes](float value) {
        for (uint32_t distance = lanes / 2; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
        return value;
    });
    x = vector[0];
}
