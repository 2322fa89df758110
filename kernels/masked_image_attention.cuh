// The body of masked_image_attention.cu, also a part of gated_cross_attention.cu: one media tile, one head.
#pragma once
#include "attention.cuh"

/// Lets the tokens of `tile` attend to the images that they see; without any, what is stored are zeros. All threads of
/// the block call, at least 128; they share the copying, and the first four warps attend. Shared memory: two
/// KeyTile<T, WIDTH>, which nobody reads any more.
template <typename T, uint32_t WIDTH>
DEVICE void masked_image_attention_tile(const MaskedImageAttentionArguments& arguments, const MediaTile& tile,
                                        uint32_t head) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, head_width = arguments.head_width;
    const uint32_t rows = remaining(tile.count, warp * STRIPE, STRIPE);  // this warp's; 0: it only copies
    const uint32_t index = warp * STRIPE + lane % STRIPE;
    const uint32_t number = index < tile.count ? load_global(arguments.order + tile.first + index) : 0;
    const Pages& pages = arguments.pages;
    const uint32_t column = head * head_width;
    const KeySource<T> source = {static_cast<const T*>(pages.keys) + column,
                                 static_cast<const T*>(pages.values) + column,
                                 pages.width,
                                 pages.width,
                                 tile.pages * KEYS,
                                 arguments.tables + tile.table,
                                 KEYS};
    const Scoring scoring = {arguments.scale * LOG2_E, 0.0f};
    Accumulator<WIDTH> attended;
    walk<T>(attended, arguments.query, arguments.query_norm, number, rows, head, source, head_width,
            sees_all(source.count), scoring);
    if (rows > 0) store_rows<T, WIDTH>(attended, arguments.out, number, rows, head, head_width);
}
