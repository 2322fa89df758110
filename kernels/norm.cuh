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

/// Weight and bias of a thread's columns, read once for all rows that it works on.
template <uint32_t VECTORS>
struct KeptScale {
    float weight[VECTORS][VECTOR];
    float bias[VECTORS][VECTOR];

    DEVICE KeptScale(const NormParameters& norm, uint32_t width, uint32_t thread) : weight{}, bias{} {
#pragma unroll
        for (uint32_t v = 0; v < VECTORS; ++v) {
            const uint32_t column = norm_column(thread, v);
            if (column < width) load_floats(weight[v], norm.weight + column);
            if (column < width && norm.bias != nullptr) load_floats(bias[v], norm.bias + column);
        }
    }

    DEVICE float operator()(float x, uint32_t v, uint32_t i) const { return fmaf(x, weight[v][i], bias[v][i]); }
};

/// Normalises a row that its threads hold together, in place and rounded to T. `sum` adds a value over those threads
/// and gives the total to each; all of them must call.
template <typename T, uint32_t VECTORS, typename Sum>
DEVICE void normalise(Word4 (&x)[VECTORS], uint32_t width, uint32_t thread, const NormParameters& norm,
                      const KeptScale<VECTORS>& scale, Sum sum) {
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
            unpack_vector<T>(value, x[v]);
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) value[i] = scale((value[i] - mean) * factor, v, i);
            x[v] = pack_vector<T>(value);
        }
    }
}
