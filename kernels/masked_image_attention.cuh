// The body of masked_image_attention.cu, also a part of gated_cross_attention.cu: one media tile, one group of heads.
#pragma once
#include "attention.cuh"

/// Lets the tokens of `tile` attend to the images that they see, with one group of their heads; without any image, what
/// is stored are zeros. All threads of the block call, at least 128; they share the copying, and the first four warps
/// attend. Shared memory: two KeyTile<T, WIDTH>, which nobody reads any more.
template <typename T, uint32_t WIDTH>
DEVICE void masked_image_attention_tile(const MaskedImageAttentionArguments& arguments, const MediaTile& tile,
                                        uint32_t group) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, head_width = arguments.head_width;
    const HeadGroup heads = head_group(group, arguments.group, arguments.sharing);
    const uint32_t rows = remaining(tile.count * heads.count, warp * STRIPE, STRIPE);  // this warp's; 0: it only copies
    // Asked for twice, so that it takes no registers in between.
    const auto query_row = [&]() -> QueryRow {
        const uint32_t index = warp * STRIPE + lane % STRIPE, token = index / heads.count;
        const uint32_t number = token < tile.count ? load_global(arguments.order + tile.first + token) : 0;
        return {number, heads.first + index % heads.count};
    };
    const KeySource<T> source =
        page_keys<T>(arguments.pages, arguments.tables + tile.table, tile.pages * KEYS, heads.kv, head_width);
    const Scoring<> scoring = {arguments.scale * LOG2_E, {0.0f, 0.0f}};
    Accumulator<WIDTH> attended;
    walk<T>(attended, arguments.query, arguments.query_norm, query_row(), rows, source, head_width,
            sees_all(source.count), scoring);
    if (rows > 0) store_rows<T, WIDTH>(attended, arguments.out, query_row(), rows, head_width);
}
