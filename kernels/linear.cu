// Linear layers: out = residual + tanh(gate) * clip(activation(x weight^T + bias)), or, paired (SwiGLU), out =
// residual + tanh(gate) * clip(activation(x first^T + bias) * (x second^T + bias)). Where only tokens that see an image
// are to change, the others are the residual, bit for bit. Shapes in LinearArguments. Every
// matrix of Flamingo passes here; gate and residual are the tanh gates of section 2.2. All forms give the same bits,
// because all add in the order of linear_rows.cuh.
//
// Which form serves which shape is the host's choice (src/backend/gpu/tuning.rs).
//
// Rows form: linear_rows_<bf16|f16>_<FEATURES>x<TOKENS>, for up to TOKENS rows. Bound by reading the weight once; the
// 8 warps of a block take one segment each of the columns, for the same FEATURES rows of the weight.
//   Each block reads all of x: rows / FEATURES of what it reads of the weight, from L2 after the first block. Many
//   FEATURES keep that little, few make blocks enough for all multiprocessors.
//   grid (ceil(width / FEATURES)), paired (ceil(width / (FEATURES / 2))); 256 threads;
//   shared bytes 32 * TOKENS * (FEATURES + 4).
//
// Tile form: linear_tile_<bf16|f16>_<TOKENS>x<FEATURES>x<STAGES>, any number of rows. Bound by the matrix units and
// shared memory (128x128) or, with few rows, by reading the weight (64x64). Columns arrive 64 at a time through a ring
// of STAGES asynchronous copies: a long one keeps memory busy where there is a block for each multiprocessor, a short
// one lets several share it.
//   A warp holds TOKENS / 2 tokens times 32 features twice, the segment's sums and the total: of 128x128, 64x32 is what
//   255 registers hold. 128x128 has one block a multiprocessor, 128x64 two, 64x64 up to four.
//   grid (ceil(count / TOKENS) * ceil(width / FEATURES)), paired FEATURES / 2; threads 2 * FEATURES;
//   shared bytes STAGES * (TOKENS + FEATURES) * 128.
#include "linear_rows.cuh"

namespace linear {

template <typename T, uint32_t FEATURES, uint32_t TOKENS>
DEVICE void rows_form(const LinearArguments& arguments) {
    const GlobalTokens<T, TOKENS> tokens(arguments.x, arguments.count);
    rows_block<T, FEATURES, TOKENS>(arguments, tokens, blockIdx.x, reinterpret_cast<float*>(shared_memory()));
}

/// Which tile a block computes. Blocks that run at the same time should share rows of x and of the weight through L2:
/// the tiles are walked in bands of 8 tiles of tokens, and within a band feature tile by feature tile.
struct TilePlace {
    uint32_t token_tile;
    uint32_t feature_tile;

    DEVICE TilePlace(uint32_t block, uint32_t token_tiles, uint32_t feature_tiles) {
        constexpr uint32_t BAND = 8;
        const uint32_t band = block / (BAND * feature_tiles) * BAND;
        const uint32_t height = smaller(BAND, token_tiles - band);
        const uint32_t within = block % (BAND * feature_tiles);
        token_tile = band + within % height;
        feature_tile = within / height;
    }
};

/// A stage holds 64 columns: 128 bytes of each row of x and of the weight. Its eight 16-byte words change places by the
/// row, so that two neighbouring rows' halves (32 columns), which eight lanes read at once, lie in different banks.
constexpr uint32_t STAGE_COLUMNS = 64;
constexpr uint32_t ROW_BYTES = 128;
DEVICE uint32_t swizzle(uint32_t row, uint32_t word) { return row * ROW_BYTES + (word ^ row % 2 * 4) * 16; }

/// The rows that one thread copies, 16 bytes of each a stage; null: zeros.
template <typename T, uint32_t COPIES>
struct Source {
    const T* row[COPIES];

    /// Copies the columns of a stage that start at `column`; `rows_apart` rows lie between two copies of a thread.
    DEVICE void copy(char* stage, uint32_t rows_apart, uint32_t column, uint32_t columns, const void* readable) const {
        const uint32_t own = column + threadIdx.x % 8 * 8;
#pragma unroll
        for (uint32_t i = 0; i < COPIES; ++i) {
            const bool valid = row[i] && own < columns;
            const uint32_t stage_row = threadIdx.x / 8 + i * rows_apart;
            copy_async_16(stage + swizzle(stage_row, threadIdx.x % 8), valid ? row[i] + own : readable, valid);
        }
    }
};

/// Which feature of a warp's 32 stands in row `row` of its part of the stage. The n operand of the matrix units gives
/// lane (g, t) the features 2t and 2t + 1 of each tile of 8; rows are placed so that over the four tiles those are the
/// 8 consecutive features from 8t on or, paired, 4 from 4t on of the first half (here 0-15) and of the second (16-31).
DEVICE uint32_t feature_of(uint32_t row, bool paired) {
    const uint32_t tile = row / 2 % 4, t = row / 8;
    return paired ? tile / 2 * 16 + t * 4 + tile % 2 * 2 + row % 2 : row;
}

template <typename T, uint32_t TOKENS, uint32_t FEATURES, uint32_t STAGES>
DEVICE void tile_form(const LinearArguments& arguments) {
    constexpr uint32_t THREADS = FEATURES * 2;  // two rows of warps, each warp with 32 features
    constexpr uint32_t ROWS_APART = THREADS / 8;
    constexpr uint32_t TOKEN_TILES = TOKENS / 2 / 16;
    constexpr uint32_t STAGE_BYTES = (TOKENS + FEATURES) * ROW_BYTES;
    const uint32_t lane = threadIdx.x % LANES, g = lane / 4, t = lane % 4;
    const uint32_t warp_tokens = threadIdx.x / LANES % 2 * (TOKENS / 2);
    const uint32_t warp_features = threadIdx.x / LANES / 2 * 32;
    const uint32_t columns = arguments.columns, chunks = divide_up(columns, CHUNK);
    const uint32_t stages = divide_up(columns, STAGE_COLUMNS);
    const uint32_t features = arguments.paired ? FEATURES / 2 : FEATURES;
    const TilePlace place(blockIdx.x, divide_up(arguments.count, TOKENS), divide_up(arguments.width, features));
    const uint32_t first_token = place.token_tile * TOKENS;
    const uint32_t first_feature = place.feature_tile * features;

    Source<T, TOKENS / ROWS_APART> x;
#pragma unroll
    for (uint32_t i = 0; i < TOKENS / ROWS_APART; ++i) {
        const uint32_t token = first_token + threadIdx.x / 8 + i * ROWS_APART;
        x.row[i] = token < arguments.count ? row_of<const T>(arguments.x, token) : nullptr;
    }
    Source<T, FEATURES / ROWS_APART> weight;
#pragma unroll
    for (uint32_t i = 0; i < FEATURES / ROWS_APART; ++i) {
        const uint32_t stage_row = threadIdx.x / 8 + i * ROWS_APART;
        const uint32_t in_warp = feature_of(stage_row % 32, arguments.paired);
        const uint32_t half = arguments.paired ? in_warp / 16 : 0;
        const uint32_t feature =
            first_feature + (arguments.paired ? stage_row / 32 * 16 + in_warp % 16 : stage_row / 32 * 32 + in_warp);
        const T* row = static_cast<const T*>(arguments.weight) + (uint64_t(half) * arguments.width + feature) * columns;
        weight.row[i] = feature < arguments.width ? row : nullptr;
    }
    auto copy_stage = [&](uint32_t stage) {
        char* to = shared_memory() + stage % STAGES * STAGE_BYTES;
        if (stage < stages) {
            x.copy(to, ROWS_APART, stage * STAGE_COLUMNS, columns, arguments.weight);
            weight.copy(to + TOKENS * ROW_BYTES, ROWS_APART, stage * STAGE_COLUMNS, columns, arguments.weight);
        }
        copy_async_commit();
    };

    float total[TOKEN_TILES][4][4] = {};
    float sum[TOKEN_TILES][4][4] = {};
    uint32_t fold_at = segment_end(0, chunks);
#pragma unroll
    for (uint32_t stage = 0; stage < STAGES - 1; ++stage) copy_stage(stage);
    for (uint32_t stage = 0; stage < stages; ++stage) {
        copy_async_wait<STAGES - 2>();
        block_barrier();
        copy_stage(stage + STAGES - 1);
        const char* x_rows = shared_memory() + stage % STAGES * STAGE_BYTES + warp_tokens * ROW_BYTES;
        const char* weight_rows = shared_memory() + stage % STAGES * STAGE_BYTES + (TOKENS + warp_features) * ROW_BYTES;
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
            const uint32_t chunk = 2 * stage + half;
            if (chunk >= chunks) break;
            Word4 w[4];
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                const uint32_t row = g / 2 * 8 + j * 2 + g % 2;
                w[j] = load_shared(reinterpret_cast<const Word4*>(weight_rows + swizzle(row, half * 4 + t)));
            }
#pragma unroll
            for (uint32_t i = 0; i < TOKEN_TILES; ++i) {
                const Word4 upper =
                    load_shared(reinterpret_cast<const Word4*>(x_rows + swizzle(i * 16 + g, half * 4 + t)));
                const Word4 lower =
                    load_shared(reinterpret_cast<const Word4*>(x_rows + swizzle(i * 16 + g + 8, half * 4 + t)));
#pragma unroll
                for (uint32_t j = 0; j < 4; ++j) {
                    multiply_accumulate<T>(sum[i][j], {upper.x, lower.x, upper.y, lower.y}, {w[j].x, w[j].y});
                    multiply_accumulate<T>(sum[i][j], {upper.z, lower.z, upper.w, lower.w}, {w[j].z, w[j].w});
                }
            }
            if (chunk + 1 == fold_at) {
#pragma unroll
                for (uint32_t i = 0; i < TOKEN_TILES * 16; ++i) {
                    total[i / 16][i / 4 % 4][i % 4] += sum[i / 16][i / 4 % 4][i % 4];
                    sum[i / 16][i / 4 % 4][i % 4] = 0.0f;
                }
                if (fold_at < chunks) fold_at = segment_end(fold_at, chunks);
            }
        }
    }

    // One tile of 16 tokens a turn; the others move down, so that the code for a tile is there once.
    const Epilogue<T, 8> epilogue(arguments, first_feature + (warp_features + t * 8) * features / FEATURES);
#pragma unroll 1
    for (uint32_t i = 0; i < TOKEN_TILES; ++i) {
#pragma unroll
        for (uint32_t lower = 0; lower < 2; ++lower) {
            const uint32_t token = first_token + warp_tokens + 16 * i + g + 8 * lower;
            float row[8];
#pragma unroll
            for (uint32_t k = 0; k < 8; ++k) row[k] = total[0][k / 2][lower * 2 + k % 2];
            if (token < arguments.count) epilogue(token, row);
        }
#pragma unroll
        for (uint32_t k = 0; k < (TOKEN_TILES - 1) * 16; ++k)
            total[k / 16][k / 4 % 4][k % 4] = total[k / 16 + 1][k / 4 % 4][k % 4];
    }
}

}  // namespace linear

KERNEL(linear_rows_bf16_16x8, LinearArguments, 256) { linear::rows_form<bf16, 16, 8>(arguments); }
KERNEL(linear_rows_bf16_32x8, LinearArguments, 256) { linear::rows_form<bf16, 32, 8>(arguments); }
KERNEL(linear_rows_bf16_16x16, LinearArguments, 256) { linear::rows_form<bf16, 16, 16>(arguments); }
KERNEL(linear_rows_bf16_32x16, LinearArguments, 256) { linear::rows_form<bf16, 32, 16>(arguments); }
KERNEL(linear_rows_bf16_64x16, LinearArguments, 256) { linear::rows_form<bf16, 64, 16>(arguments); }
KERNEL(linear_rows_bf16_128x16, LinearArguments, 256) { linear::rows_form<bf16, 128, 16>(arguments); }
KERNEL(linear_rows_bf16_32x32, LinearArguments, 256) { linear::rows_form<bf16, 32, 32>(arguments); }
KERNEL(linear_rows_bf16_32x64, LinearArguments, 256) { linear::rows_form<bf16, 32, 64>(arguments); }
KERNEL(linear_tile_bf16_64x64x3, LinearArguments, 128) { linear::tile_form<bf16, 64, 64, 3>(arguments); }
KERNEL(linear_tile_bf16_64x64x6, LinearArguments, 128) { linear::tile_form<bf16, 64, 64, 6>(arguments); }
KERNEL(linear_tile_bf16_128x64x4, LinearArguments, 128) { linear::tile_form<bf16, 128, 64, 4>(arguments); }
KERNEL(linear_tile_bf16_128x128x3, LinearArguments, 256) { linear::tile_form<bf16, 128, 128, 3>(arguments); }

KERNEL(linear_rows_f16_16x8, LinearArguments, 256) { linear::rows_form<f16, 16, 8>(arguments); }
KERNEL(linear_rows_f16_32x8, LinearArguments, 256) { linear::rows_form<f16, 32, 8>(arguments); }
KERNEL(linear_rows_f16_16x16, LinearArguments, 256) { linear::rows_form<f16, 16, 16>(arguments); }
KERNEL(linear_rows_f16_32x16, LinearArguments, 256) { linear::rows_form<f16, 32, 16>(arguments); }
KERNEL(linear_rows_f16_64x16, LinearArguments, 256) { linear::rows_form<f16, 64, 16>(arguments); }
KERNEL(linear_rows_f16_128x16, LinearArguments, 256) { linear::rows_form<f16, 128, 16>(arguments); }
KERNEL(linear_rows_f16_32x32, LinearArguments, 256) { linear::rows_form<f16, 32, 32>(arguments); }
KERNEL(linear_rows_f16_32x64, LinearArguments, 256) { linear::rows_form<f16, 32, 64>(arguments); }
KERNEL(linear_tile_f16_64x64x3, LinearArguments, 128) { linear::tile_form<f16, 64, 64, 3>(arguments); }
KERNEL(linear_tile_f16_64x64x6, LinearArguments, 128) { linear::tile_form<f16, 64, 64, 6>(arguments); }
KERNEL(linear_tile_f16_128x64x4, LinearArguments, 128) { linear::tile_form<f16, 128, 64, 4>(arguments); }
KERNEL(linear_tile_f16_128x128x3, LinearArguments, 256) { linear::tile_form<f16, 128, 128, 3>(arguments); }
