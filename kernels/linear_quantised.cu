// Linear layers of weights in codes of 8 or 4 bits (quantised.cuh): what linear.cu computes, of the weight that codes
// and scales stand for. Codes go through the matrix units, which hold them exactly; a scale multiplies the sum of its
// group's products in f32. No weight is rounded.
//
// The order of summation: that of linear_rows.cuh, but segments begin with units of quantised.cuh and with groups, and
// a segment's sum is the chain `total = fma(sum of a group, its scale, total)` over its groups, from zero. Where a row
// has one scale, a segment is one group. Both forms give the same bits.
//
// Rows form: linear_rows_<FORMAT>_<bf16|f16>_<FEATURES>x<TOKENS>: grid and shared memory as in linear.cu.
// Tile form: linear_tile_<FORMAT>_<bf16|f16>_<TOKENS>x<FEATURES>x<STAGES>: as there, but a stage holds a unit: 64
// columns of 8 bits or 128 of 4. Codes become numbers as a warp takes them from shared memory. What all segments before
// come to lies in shared memory, beside the ring: a thread's registers hold sums of a group and of a segment.
//   shared bytes STAGES * (TOKENS * 64 * chunks of a unit + FEATURES * 64) + 4 * TOKENS * FEATURES.
#include "linear_tile.cuh"
#include "quantised.cuh"

namespace quantised {

using linear::CHUNK;
using linear::SEGMENTS;

template <typename Format>
constexpr uint32_t UNIT_COLUMNS = Format::CHUNKS * CHUNK;

/// Chunks of a group; where it is a row, more than there are.
DEVICE uint32_t group_chunks(const LinearQuantisedArguments& arguments) {
    return arguments.group ? arguments.group / CHUNK : UINT32_MAX;
}

/// What one segment comes to, by one warp, of FEATURES rows of the weight, from `first` on, times TOKENS tokens.
template <typename T, typename Format, uint32_t FEATURES, uint32_t TOKENS, typename Tokens>
DEVICE void segment_totals(const LinearQuantisedArguments& arguments, const Tokens& tokens, uint32_t first,
                           uint32_t segment, float (&total)[FEATURES / 16][TOKENS / 8][4]) {
    constexpr uint32_t FEATURE_TILES = FEATURES / 16;
    constexpr uint32_t TOKEN_TILES = TOKENS / 8;
    constexpr uint32_t CHUNKS = Format::CHUNKS;
    // Units asked for before the first is used: 256 bytes of the weight a lane.
    constexpr uint32_t AHEAD = 256 / (32 * FEATURE_TILES);

    const LinearArguments& linear = arguments.linear;
    const uint32_t g = threadIdx.x % LANES / 4, t = threadIdx.x % 4;
    const uint32_t columns = linear.columns;
    const Segments segments(columns, arguments.group, UNIT_COLUMNS<Format>);
    const uint32_t begin = segments.start(segment), end = segments.start(segment + 1);
    if (begin == end) return;
    // Row i of the block's: paired, the second half of them are those of the same features in the weight's second half.
    auto row_of = [&](uint32_t i) {
        const bool second = linear.paired && i >= FEATURES / 2;
        const uint32_t feature = first + i - (second ? FEATURES / 2 : 0);
        return i < FEATURES && feature < linear.width ? feature + (second ? linear.width : 0) : UINT32_MAX;
    };
    const char* row[FEATURE_TILES][2];
#pragma unroll
    for (uint32_t i = 0; i < FEATURE_TILES * 2; ++i) {
        const uint32_t own = row_of(8 * i + g);
        const char* codes = static_cast<const char*>(linear.weight) + uint64_t(own) * arguments.pitch + 16 * t;
        row[i / 2][i % 2] = own != UINT32_MAX ? codes : nullptr;
    }
    GroupScales<Format, FEATURES> scales(arguments, begin * UNIT_COLUMNS<Format>, end * UNIT_COLUMNS<Format>, row_of);
    const uint32_t chunks = smaller(end * CHUNKS, divide_up(columns, CHUNK));  // up to the segment's end
    uint32_t minus[FEATURE_TILES][2] = {};
    float sum[FEATURE_TILES][TOKEN_TILES][4] = {};
    uint32_t left = 0;  // chunks of the group

    for (uint32_t unit = begin; unit < end; unit += AHEAD) {
        Word4 w[AHEAD][FEATURE_TILES][2];
#pragma unroll
        for (uint32_t ahead = 0; ahead < AHEAD; ++ahead) {
#pragma unroll
            for (uint32_t i = 0; i < FEATURE_TILES * 2; ++i) {
                const char* codes = row[i / 2][i % 2];
                const bool valid = codes && unit + ahead < end;
                w[ahead][i / 2][i % 2] = valid ? load_streaming(codes + (unit + ahead) * UNIT_BYTES) : Word4{};
            }
        }
#pragma unroll
        for (uint32_t ahead = 0; ahead < AHEAD; ++ahead) {
#pragma unroll
            for (uint32_t c = 0; c < CHUNKS; ++c) {
                const uint32_t chunk = (unit + ahead) * CHUNKS + c;
                if (chunk >= chunks) break;
                if (left == 0) {
                    left = group_chunks(arguments);
                    scales.advance();
#pragma unroll
                    for (uint32_t i = 0; i < FEATURE_TILES * 2 && Format::ZEROS; ++i)
                        minus[i / 2][i % 2] = scales.template minus_zero<T>(8 * i, g);
                }
                const uint32_t column = chunk * CHUNK + 8 * t;
                Word4 x[TOKEN_TILES];
#pragma unroll
                for (uint32_t j = 0; j < TOKEN_TILES; ++j) x[j] = column < columns ? tokens.load(j, column) : Word4{};
#pragma unroll
                for (uint32_t i = 0; i < FEATURE_TILES; ++i) {
                    uint32_t upper[4], lower[4];
                    unpack<T, Format>(upper, w[ahead][i][0], c, minus[i][0]);
                    unpack<T, Format>(lower, w[ahead][i][1], c, minus[i][1]);
#pragma unroll
                    for (uint32_t j = 0; j < TOKEN_TILES; ++j) {
                        multiply_accumulate<T>(sum[i][j], {upper[0], lower[0], upper[1], lower[1]}, {x[j].x, x[j].y});
                        multiply_accumulate<T>(sum[i][j], {upper[2], lower[2], upper[3], lower[3]}, {x[j].z, x[j].w});
                    }
                }
                left -= 1;
                if (left > 0 && chunk + 1 < chunks) continue;
#pragma unroll
                for (uint32_t i = 0; i < FEATURE_TILES * 2; ++i) {
                    const float scale = scales.scale_of(8 * i, g);
#pragma unroll
                    for (uint32_t j = 0; j < TOKEN_TILES * 2; ++j) {
                        float& part = sum[i / 2][j / 2][i % 2 * 2 + j % 2];
                        float& whole = total[i / 2][j / 2][i % 2 * 2 + j % 2];
                        whole = fmaf(part, scale, whole);
                        part = 0.0f;
                    }
                }
            }
        }
    }
}

template <typename T, typename Format, uint32_t FEATURES, uint32_t TOKENS>
DEVICE void rows_form(const LinearQuantisedArguments& arguments) {
    const LinearArguments& linear = arguments.linear;
    const linear::GlobalTokens<T, TOKENS> tokens(linear.x, linear.count);
    const uint32_t first = blockIdx.x * (linear.paired ? FEATURES / 2 : FEATURES);
    float total[FEATURES / 16][TOKENS / 8][4] = {};
    segment_totals<T, Format, FEATURES, TOKENS>(arguments, tokens, first, threadIdx.x / LANES, total);
    linear::add_segments<T, FEATURES, TOKENS>(linear, first, total, reinterpret_cast<float*>(shared_memory()));
}

/// Starts copying 16 bytes of each of so many rows of codes a thread; null: zeros.
template <uint32_t COPIES>
struct CodeSource {
    static constexpr uint32_t WORDS = UNIT_BYTES / 16;
    const char* row[COPIES];

    DEVICE void copy(char* stage, uint32_t rows_apart, uint32_t unit, const void* readable) const {
#pragma unroll
        for (uint32_t i = 0; i < COPIES; ++i) {
            const char* from = row[i] + unit * UNIT_BYTES + threadIdx.x % WORDS * 16;
            char* to = stage + (threadIdx.x + i * rows_apart * WORDS) * 16;
            copy_async_16(to, row[i] ? from : readable, row[i] != nullptr);
        }
    }
};

template <typename T, typename Format, uint32_t TOKENS, uint32_t FEATURES, uint32_t STAGES>
DEVICE void tile_form(const LinearQuantisedArguments& arguments) {
    constexpr uint32_t CHUNKS = Format::CHUNKS;
    constexpr uint32_t THREADS = FEATURES * 2;  // two rows of warps, each warp with 32 features
    constexpr uint32_t X_WORDS = CHUNKS * 4, CODE_WORDS = UNIT_BYTES / 16;
    constexpr uint32_t X_ROWS_APART = THREADS / X_WORDS, CODE_ROWS_APART = THREADS / CODE_WORDS;
    constexpr uint32_t TOKEN_TILES = TOKENS / 2 / 16;
    constexpr uint32_t X_BYTES = TOKENS * X_WORDS * 16;
    constexpr uint32_t STAGE_BYTES = X_BYTES + FEATURES * UNIT_BYTES;
    const LinearArguments& linear = arguments.linear;
    const uint32_t g = threadIdx.x % LANES / 4, t = threadIdx.x % 4;
    const uint32_t warp_tokens = threadIdx.x / LANES % 2 * (TOKENS / 2);
    const uint32_t warp_features = threadIdx.x / LANES / 2 * 32;
    const uint32_t columns = linear.columns, chunks = divide_up(columns, CHUNK);
    const Segments segments(columns, arguments.group, UNIT_COLUMNS<Format>);
    const uint32_t features = linear.paired ? FEATURES / 2 : FEATURES;
    const linear::TilePlace place(blockIdx.x, divide_up(linear.count, TOKENS), divide_up(linear.width, features));
    const uint32_t first_token = place.token_tile * TOKENS;
    const uint32_t first_feature = place.feature_tile * features;

    linear::Source<T, TOKENS / X_ROWS_APART, X_WORDS> x;
#pragma unroll
    for (uint32_t i = 0; i < TOKENS / X_ROWS_APART; ++i) {
        const uint32_t token = first_token + threadIdx.x / X_WORDS + i * X_ROWS_APART;
        x.row[i] = token < linear.count ? row_of<const T>(linear.x, token) : nullptr;
    }
    CodeSource<FEATURES / CODE_ROWS_APART> codes;
#pragma unroll
    for (uint32_t i = 0; i < FEATURES / CODE_ROWS_APART; ++i) {
        const uint32_t row =
            linear::weight_row(linear, first_feature, threadIdx.x / CODE_WORDS + i * CODE_ROWS_APART);
        const char* from = static_cast<const char*>(linear.weight) + uint64_t(row) * arguments.pitch;
        codes.row[i] = row != UINT32_MAX ? from : nullptr;
    }
    auto copy_stage = [&](uint32_t unit) {
        char* to = shared_memory() + unit % STAGES * STAGE_BYTES;
        if (unit < segments.units) {
            x.copy(to, X_ROWS_APART, unit * UNIT_COLUMNS<Format>, columns, linear.weight);
            codes.copy(to + X_BYTES, CODE_ROWS_APART, unit, linear.weight);
        }
        copy_async_commit();
    };
    auto row_of = [&](uint32_t i) { return linear::weight_row(linear, first_feature, warp_features + i); };
    GroupScales<Format, 32> scales(arguments, 0, columns, row_of);
    uint32_t minus[4] = {};

    // Of all segments before, one thread's own.
    float* total = reinterpret_cast<float*>(shared_memory() + STAGES * STAGE_BYTES) + threadIdx.x;
#pragma unroll
    for (uint32_t i = 0; i < TOKEN_TILES * 16; ++i) store_shared(total + i * THREADS, 0.0f);
    float segment[TOKEN_TILES][4][4] = {};
    float sum[TOKEN_TILES][4][4] = {};
    uint32_t left = 0;  // chunks of the group
    uint32_t add_at = segments.end(0);
#pragma unroll
    for (uint32_t unit = 0; unit < STAGES - 1; ++unit) copy_stage(unit);
    for (uint32_t unit = 0; unit < segments.units; ++unit) {
        copy_async_wait<STAGES - 2>();
        block_barrier();
        copy_stage(unit + STAGES - 1);
        const char* stage = shared_memory() + unit % STAGES * STAGE_BYTES;
        const char* x_rows = stage + warp_tokens * X_WORDS * 16;
        const char* code_rows = stage + X_BYTES + warp_features * UNIT_BYTES;
        Word4 w[4];
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
            const uint32_t row = g / 2 * 8 + j * 2 + g % 2;
            w[j] = load_shared(reinterpret_cast<const Word4*>(code_rows + row * UNIT_BYTES + t * 16));
        }
#pragma unroll
        for (uint32_t c = 0; c < CHUNKS; ++c) {
            if (unit * CHUNKS + c >= chunks) break;
            if (left == 0) {
                left = group_chunks(arguments);
                scales.advance();
#pragma unroll
                for (uint32_t j = 0; j < 4 && Format::ZEROS; ++j)
                    minus[j] = scales.template minus_zero<T>(0, g / 2 * 8 + j * 2 + g % 2);
            }
            uint32_t pair[4][4];
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) unpack<T, Format>(pair[j], w[j], c, minus[j]);
#pragma unroll
            for (uint32_t i = 0; i < TOKEN_TILES; ++i) {
                const Word4 upper = load_shared(
                    reinterpret_cast<const Word4*>(x_rows + linear::swizzle<X_WORDS>(i * 16 + g, c * 4 + t)));
                const Word4 lower = load_shared(
                    reinterpret_cast<const Word4*>(x_rows + linear::swizzle<X_WORDS>(i * 16 + g + 8, c * 4 + t)));
#pragma unroll
                for (uint32_t j = 0; j < 4; ++j) {
                    multiply_accumulate<T>(sum[i][j], {upper.x, lower.x, upper.y, lower.y}, {pair[j][0], pair[j][1]});
                    multiply_accumulate<T>(sum[i][j], {upper.z, lower.z, upper.w, lower.w}, {pair[j][2], pair[j][3]});
                }
            }
            left -= 1;
            const bool segment_ends = unit * CHUNKS + c + 1 == smaller(add_at * CHUNKS, chunks);
            if (left > 0 && !segment_ends) continue;
#pragma unroll
            for (uint32_t j = 0; j < 8; ++j) {
                const float scale = scales.scale_of(0, t * 8 + j);
#pragma unroll
                for (uint32_t i = 0; i < TOKEN_TILES * 2; ++i) {
                    float& part = sum[i / 2][j / 2][i % 2 * 2 + j % 2];
                    float& whole = segment[i / 2][j / 2][i % 2 * 2 + j % 2];
                    whole = fmaf(part, scale, whole);
                    part = 0.0f;
                }
            }
        }
        if (unit + 1 < add_at) continue;
#pragma unroll
        for (uint32_t i = 0; i < TOKEN_TILES * 16; ++i) {
            float& added = segment[i / 16][i / 4 % 4][i % 4];
            store_shared(total + i * THREADS, load_shared(total + i * THREADS) + added);
            added = 0.0f;
        }
        if (add_at < segments.units) add_at = segments.end(add_at);
    }

    const uint32_t column = first_feature + (warp_features + t * 8) * features / FEATURES;
    const linear::Epilogue<T, 8> epilogue(linear, column);
#pragma unroll 1
    for (uint32_t i = 0; i < TOKEN_TILES; ++i) {
#pragma unroll
        for (uint32_t lower = 0; lower < 2; ++lower) {
            const uint32_t token = first_token + warp_tokens + 16 * i + g + 8 * lower;
            float row[8];
#pragma unroll
            for (uint32_t k = 0; k < 8; ++k)
                row[k] = load_shared(total + (16 * i + k / 2 * 4 + lower * 2 + k % 2) * THREADS);
            if (token < linear.count) epilogue(token, row);
        }
    }
}

}  // namespace quantised

// Stages of a tile of 128x128: as many as an A100 has shared memory for.
#define QUANTISED(T, NAME, Format, STAGES)                                                  \
    KERNEL(linear_rows_##NAME##_##T##_32x8, LinearQuantisedArguments, 256) {                \
        quantised::rows_form<T, quantised::Format, 32, 8>(arguments);                       \
    }                                                                                       \
    LARGE_KERNEL(linear_rows_##NAME##_##T##_64x16, LinearQuantisedArguments, 256) {         \
        quantised::rows_form<T, quantised::Format, 64, 16>(arguments);                      \
    }                                                                                       \
    KERNEL(linear_tile_##NAME##_##T##_64x64x3, LinearQuantisedArguments, 128) {             \
        quantised::tile_form<T, quantised::Format, 64, 64, 3>(arguments);                   \
    }                                                                                       \
    LARGE_KERNEL(linear_tile_##NAME##_##T##_128x128x##STAGES, LinearQuantisedArguments, 256) { \
        quantised::tile_form<T, quantised::Format, 128, 128, STAGES>(arguments);            \
    }

QUANTISED(bf16, i8, Int8, 3)
QUANTISED(f16, i8, Int8, 3)
QUANTISED(bf16, e4m3, E4m3, 3)
QUANTISED(f16, e4m3, E4m3, 3)
QUANTISED(bf16, i4, Int4, 2)
QUANTISED(f16, i4, Int4, 2)
