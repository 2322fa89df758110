// Linear layers for up to 64 tokens, as a block computes them, and what all forms of linear.cu share: the order of
// summation and what follows the sum. gated_cross_attention.cu multiplies with the same functions, so its bits are
// linear.cu's.
//
// The order of summation, which depends on the number of columns alone. Columns fall into chunks of 32 and the chunks
// into 8 segments of nearly equal length. Within a segment each chunk is two steps of mma.m16n8k16: lane (g, t) = (lane
// / 4, lane % 4) holds the columns 8t .. 8t + 7 of row g in one 16-byte word; the first step takes its first two
// registers, the second the other two. Both operands are permuted alike, so that the sum is right, and one 16-byte load
// feeds two steps, be it from global or from shared memory. The sums of the segments are added in order.
#pragma once
#include "common.cuh"

namespace linear {

constexpr uint32_t CHUNK = 32;
constexpr uint32_t SEGMENTS = 8;

/// The first chunk of a segment.
DEVICE uint32_t segment_start(uint32_t segment, uint32_t chunks) { return segment * chunks / SEGMENTS; }

/// Where the segment that holds `chunk` ends.
DEVICE uint32_t segment_end(uint32_t chunk, uint32_t chunks) {
    return segment_start(divide_up((chunk + 1) * SEGMENTS, chunks), chunks);
}

// ---- After the sum --------------------------------------------------------------------------------------------------

/// N values of T, or N floats, in one access.
template <uint32_t N>
struct alignas(2 * N) Packed {
    uint32_t pair[N / 2];
};
template <uint32_t N>
struct alignas(4 * N) Floats {
    float value[N];
};

/// What follows the sums of one thread. It holds N sums of a row: of N consecutive columns of out, or, paired, of N / 2
/// columns of the first half of the weight and then of the same columns of the second half.
template <typename T, uint32_t N>
struct Epilogue {
    const LinearArguments& arguments;
    uint32_t column;  // of out, the first of this thread
    float bias[N];
    float scale[N];  // tanh(gate)

    DEVICE Epilogue(const LinearArguments& arguments, uint32_t column) : arguments(arguments), column(column) {
        const uint32_t columns = arguments.paired ? N / 2 : N;
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) {
            const uint32_t own = column + i % columns;
            const bool valid = own < arguments.width;
            const uint32_t weight_row = i < columns ? own : own + arguments.width;
            bias[i] = arguments.bias && valid ? load_global(arguments.bias + weight_row) : 0.0f;
            scale[i] = i > 0 ? scale[0] : 1.0f;
            if (arguments.gate && valid && (i == 0 || arguments.gate_stride))
                scale[i] = tanhf(load_global(arguments.gate + own * arguments.gate_stride));
        }
    }

    DEVICE void operator()(uint32_t row, const float (&sum)[N]) const {
        float value[N];
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) {
            value[i] = sum[i] + bias[i];
            if (i < N / 2 || !arguments.paired) value[i] = activate(value[i], arguments.activation);
        }
        if (arguments.paired) {
#pragma unroll
            for (uint32_t i = 0; i < N / 2; ++i) value[i] *= value[i + N / 2];
            write<N / 2>(row, value);
        } else {
            write<N>(row, value);
        }
    }

  private:
    template <uint32_t COLUMNS>
    DEVICE void write(uint32_t row, float* value) const {
        const bool whole = column + COLUMNS <= arguments.width;
        float residual[COLUMNS] = {};
        if (arguments.residual.data) {
            const T* from = row_of<const T>(arguments.residual, row) + column;
            if (whole && arguments.residual.stride % COLUMNS == 0) {
                const auto packed = load_global(reinterpret_cast<const Packed<COLUMNS>*>(from));
#pragma unroll
                for (uint32_t i = 0; i < COLUMNS; i += 2) {
                    residual[i] = low<T>(packed.pair[i / 2]);
                    residual[i + 1] = high<T>(packed.pair[i / 2]);
                }
            } else {
#pragma unroll
                for (uint32_t i = 0; i < COLUMNS; ++i)
                    if (column + i < arguments.width) residual[i] = to_float(load_global(from + i));
            }
        }
        // A NaN passes the bounds as it is. The residual alone is not one with zero added: -0 stays.
        const bool added = arguments.seeing == nullptr || load_global(arguments.seeing + row) != 0;
#pragma unroll
        for (uint32_t i = 0; i < COLUMNS; ++i) {
            const float product = larger(-arguments.clip, smaller(arguments.clip, value[i]));
            value[i] = added ? fmaf(scale[i], product, residual[i]) : residual[i];
        }

        const bool vectors = whole && arguments.out.stride % COLUMNS == 0;
        if (arguments.out_f32) {
            float* to = row_of<float>(arguments.out, row) + column;
            if (vectors) {
                constexpr uint32_t WIDE = COLUMNS < 4 ? COLUMNS : 4;
#pragma unroll
                for (uint32_t i = 0; i < COLUMNS; i += WIDE) {
                    Floats<WIDE> floats;
#pragma unroll
                    for (uint32_t j = 0; j < WIDE; ++j) floats.value[j] = value[i + j];
                    store_global(reinterpret_cast<Floats<WIDE>*>(to + i), floats);
                }
            } else {
#pragma unroll
                for (uint32_t i = 0; i < COLUMNS; ++i)
                    if (column + i < arguments.width) store_global(to + i, value[i]);
            }
        } else {
            T* to = row_of<T>(arguments.out, row) + column;
            if (vectors) {
                Packed<COLUMNS> packed;
#pragma unroll
                for (uint32_t i = 0; i < COLUMNS; i += 2) packed.pair[i / 2] = pack<T>(value[i], value[i + 1]);
                store_global(reinterpret_cast<Packed<COLUMNS>*>(to), packed);
            } else {
#pragma unroll
                for (uint32_t i = 0; i < COLUMNS; ++i)
                    if (column + i < arguments.width) store_global(to + i, from_float<T>(value[i]));
            }
        }
    }
};

// ---- A block of the rows form ---------------------------------------------------------------------------------------

/// Where lane (g, t) finds tokens g and g + 8: rows of global memory. Tokens beyond `count` are zeros.
template <typename T, uint32_t TOKENS>
struct GlobalTokens {
    const T* row[TOKENS / 8];

    DEVICE GlobalTokens(const Rows& x, uint32_t count) {
#pragma unroll
        for (uint32_t i = 0; i < TOKENS / 8; ++i) {
            const uint32_t token = 8 * i + threadIdx.x % LANES / 4;
            row[i] = token < count ? row_of<const T>(x, token) : nullptr;
        }
    }
    DEVICE Word4 load(uint32_t i, uint32_t column) const {
        return row[i] ? load_global(reinterpret_cast<const Word4*>(row[i] + column)) : Word4{};
    }
};

/// The same from a copy in shared memory. Rows `stride` = 32 modulo 64 columns apart are read without bank conflicts.
template <typename T, uint32_t TOKENS>
struct SharedTokens {
    const T* row[TOKENS / 8];

    DEVICE SharedTokens(const T* x, uint32_t stride, uint32_t count) {
#pragma unroll
        for (uint32_t i = 0; i < TOKENS / 8; ++i) {
            const uint32_t token = 8 * i + threadIdx.x % LANES / 4;
            row[i] = token < count ? x + token * stride : nullptr;
        }
    }
    DEVICE Word4 load(uint32_t i, uint32_t column) const {
        return row[i] ? load_shared(reinterpret_cast<const Word4*>(row[i] + column)) : Word4{};
    }
};

/// Floats between the partial sums of two tokens: 4 modulo 16, so that a warp's stores meet all banks.
template <uint32_t FEATURES>
constexpr uint32_t PARTIAL_STRIDE = FEATURES + 4;

/// Floats of shared memory that rows_block() needs.
template <uint32_t FEATURES, uint32_t TOKENS>
constexpr uint32_t PARTIAL_SIZE = SEGMENTS * TOKENS * PARTIAL_STRIDE<FEATURES>;

/// Sums over one segment, by one warp, of FEATURES rows of the weight, from `first` on, times TOKENS tokens. The weight
/// is the left operand, which is the taller one, and goes from global memory to registers with nothing between.
template <typename T, uint32_t FEATURES, uint32_t TOKENS, typename Tokens>
DEVICE void segment_sums(const LinearArguments& arguments, const Tokens& tokens, uint32_t first, uint32_t segment,
                         float (&sum)[FEATURES / 16][TOKENS / 8][4]) {
    constexpr uint32_t FEATURE_TILES = FEATURES / 16;
    constexpr uint32_t TOKEN_TILES = TOKENS / 8;
    // Chunks asked for before the first is used: 256 bytes of the weight a lane where registers allow two blocks a
    // multiprocessor, 512 where they allow one, less where many tokens need the registers.
    constexpr uint32_t LANE_BYTES = TOKENS == 64 ? 128 : TOKENS == 16 && FEATURES > 16 ? 512 : 256;
    constexpr uint32_t AHEAD = LANE_BYTES / (32 * FEATURE_TILES);

    const uint32_t lane = threadIdx.x % LANES;
    const uint32_t columns = arguments.columns;
    const uint32_t chunks = divide_up(columns, CHUNK);
    const uint32_t end = segment_start(segment + 1, chunks);
    const T* weight = static_cast<const T*>(arguments.weight) + uint64_t(first + lane / 4) * columns;
    const int32_t rows_left = int32_t(arguments.width) - int32_t(first + lane / 4);
    // Paired: the second half of the tiles are the same features' rows in the second half of the weight.
    const int32_t skipped_rows = arguments.paired ? int32_t(arguments.width) - int32_t(FEATURES / 2) : 0;
    const int64_t skipped = int64_t(skipped_rows) * columns;
    const int32_t second_rows_left = arguments.paired ? rows_left + int32_t(FEATURES / 2) : rows_left;

    for (uint32_t chunk = segment_start(segment, chunks); chunk < end; chunk += AHEAD) {
        Word4 w[AHEAD][FEATURE_TILES][2];
        Word4 x[AHEAD][TOKEN_TILES];
#pragma unroll
        for (uint32_t ahead = 0; ahead < AHEAD; ++ahead) {
            const uint32_t column = (chunk + ahead) * CHUNK + lane % 4 * 8;
            const bool valid = chunk + ahead < end && column < columns;
#pragma unroll
            for (uint32_t i = 0; i < FEATURE_TILES; ++i) {
                const bool second = i >= (FEATURE_TILES + 1) / 2;
                const T* from = weight + column + i * 16 * columns + (second ? skipped : 0);
                const int32_t left = (second ? second_rows_left : rows_left) - int32_t(16 * i);
                w[ahead][i][0] = valid && left > 0 ? load_streaming(from) : Word4{};
                w[ahead][i][1] = valid && left > 8 ? load_streaming(from + 8 * columns) : Word4{};
            }
#pragma unroll
            for (uint32_t j = 0; j < TOKEN_TILES; ++j) x[ahead][j] = valid ? tokens.load(j, column) : Word4{};
        }
#pragma unroll
        for (uint32_t ahead = 0; ahead < AHEAD; ++ahead) {
            if (chunk + ahead >= end) break;
#pragma unroll
            for (uint32_t i = 0; i < FEATURE_TILES; ++i) {
                const Word4& upper = w[ahead][i][0];
                const Word4& lower = w[ahead][i][1];
#pragma unroll
                for (uint32_t j = 0; j < TOKEN_TILES; ++j) {
                    const Word4& token = x[ahead][j];
                    multiply_accumulate<T>(sum[i][j], {upper.x, lower.x, upper.y, lower.y}, {token.x, token.y});
                    multiply_accumulate<T>(sum[i][j], {upper.z, lower.z, upper.w, lower.w}, {token.z, token.w});
                }
            }
        }
    }
}

/// Rows block * FEATURES .. of the weight (paired: FEATURES / 2 of each half) for up to TOKENS tokens, by a block of 8
/// warps. `partial` is shared memory, free again after the next barrier.
template <typename T, uint32_t FEATURES, uint32_t TOKENS, typename Tokens>
DEVICE void rows_block(const LinearArguments& arguments, const Tokens& tokens, uint32_t block, float* partial) {
    constexpr uint32_t STRIDE = PARTIAL_STRIDE<FEATURES>;
    const uint32_t lane = threadIdx.x % LANES;
    const uint32_t segment = threadIdx.x / LANES;
    const uint32_t first = block * (arguments.paired ? FEATURES / 2 : FEATURES);

    float sum[FEATURES / 16][TOKENS / 8][4] = {};
    segment_sums<T, FEATURES, TOKENS>(arguments, tokens, first, segment, sum);
#pragma unroll
    for (uint32_t i = 0; i < FEATURES / 16; ++i) {
#pragma unroll
        for (uint32_t j = 0; j < TOKENS / 8; ++j) {
#pragma unroll
            for (uint32_t k = 0; k < 4; ++k) {
                const uint32_t token = 8 * j + lane % 4 * 2 + k % 2;
                const uint32_t feature = 16 * i + lane / 4 + k / 2 * 8;
                store_shared(partial + (segment * TOKENS + token) * STRIDE + feature, sum[i][j][k]);
            }
        }
    }
    block_barrier();

    // Neighbouring threads finish neighbouring columns: four, or, paired, two with their partners.
    constexpr uint32_t THREADS_A_TOKEN = FEATURES / 4;
    const uint32_t feature = threadIdx.x % THREADS_A_TOKEN * (arguments.paired ? 2 : 4);
    uint32_t token = threadIdx.x / THREADS_A_TOKEN;
    if (token >= arguments.count) return;
    const Epilogue<T, 4> epilogue(arguments, first + feature);
    for (; token < arguments.count; token += 256 / THREADS_A_TOKEN) {
        float total[4] = {};
#pragma unroll
        for (uint32_t s = 0; s < SEGMENTS; ++s) {
            const float* from = partial + (s * TOKENS + token) * STRIDE + feature;
            Floats<4> sums;
            if (arguments.paired) {
                const auto left = load_shared(reinterpret_cast<const Floats<2>*>(from));
                const auto right = load_shared(reinterpret_cast<const Floats<2>*>(from + FEATURES / 2));
                sums = {{left.value[0], left.value[1], right.value[0], right.value[1]}};
            } else {
                sums = load_shared(reinterpret_cast<const Floats<4>*>(from));
            }
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) total[i] += sums.value[i];
        }
        epilogue(token, total);
    }
}

}  // namespace linear
