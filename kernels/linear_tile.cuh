// What the tile forms of linear layers share (linear.cu, linear_quantised.cu): which tile a block computes, how a stage
// of columns lies in shared memory, and in which order a warp's features stand there.
#pragma once
#include "common.cuh"

namespace linear {

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

/// A row of a stage is WORDS words of 16 bytes, 8 columns of T each. They change places by the row, so that two
/// neighbouring rows' 32 columns, which eight lanes read at once, lie in different banks.
template <uint32_t WORDS>
DEVICE uint32_t swizzle(uint32_t row, uint32_t word) {
    return (row * WORDS + (word ^ row % 2 * 4)) * 16;
}

/// The rows that one thread copies, 16 bytes of each a stage; null: zeros.
template <typename T, uint32_t COPIES, uint32_t WORDS>
struct Source {
    const T* row[COPIES];

    /// Copies the columns of a stage that start at `column`; `rows_apart` rows lie between two copies of a thread.
    DEVICE void copy(char* stage, uint32_t rows_apart, uint32_t column, uint32_t columns, const void* readable) const {
        const uint32_t own = column + threadIdx.x % WORDS * 8;
#pragma unroll
        for (uint32_t i = 0; i < COPIES; ++i) {
            const bool valid = row[i] && own < columns;
            const uint32_t stage_row = threadIdx.x / WORDS + i * rows_apart;
            char* to = stage + swizzle<WORDS>(stage_row, threadIdx.x % WORDS);
            copy_async_16(to, valid ? row[i] + own : readable, valid);
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

/// The row of the weight that stands in row `row` of a tile's stage whose first column of out is `first`; beyond all
/// rows where there is none.
DEVICE uint32_t weight_row(const LinearArguments& arguments, uint32_t first, uint32_t row) {
    const uint32_t in_warp = feature_of(row % 32, arguments.paired);
    const uint32_t half = arguments.paired ? in_warp / 16 : 0;
    const uint32_t feature = first + (arguments.paired ? row / 32 * 16 + in_warp % 16 : row / 32 * 32 + in_warp);
    return feature < arguments.width ? half * arguments.width + feature : UINT32_MAX;
}

}  // namespace linear
