// The body of masked_image_attention.cu, also a part of gated_cross_attention.cu: one media tile, one head.
#pragma once
#include "attention.cuh"

/// Lets the tokens of `tile` attend to the latents of its image. All threads of the block call, at least 128; they
/// share the copying, and the first four warps attend. Shared memory: two KeyTile<T, WIDTH>.
template <typename T, uint32_t WIDTH>
DEVICE void masked_image_attention_tile(const MaskedImageAttentionArguments& arguments, const MediaTile& tile,
                                        uint32_t head) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, head_width = arguments.head_width;
    const uint32_t rows = remaining(tile.count, warp * STRIPE, STRIPE);  // this warp's; 0: it only copies
    const uint32_t index = warp * STRIPE + lane % STRIPE;
    const uint32_t number = index < tile.count ? load_global(arguments.order + tile.first + index) : 0;

    // Without an image there are no keys, and what is stored are zeros.
    const bool image = tile.page != NO_IMAGE;
    const Pages& pages = arguments.pages;
    const uint64_t start = image ? uint64_t(tile.page) * pages.page_rows * pages.width + head * head_width : 0;
    const KeySource<T> source = {static_cast<const T*>(pages.keys) + start,
                                 static_cast<const T*>(pages.values) + start,
                                 pages.width,
                                 pages.width,
                                 image ? pages.page_rows : 0,
                                 nullptr,
                                 0};
    const Visible sight = {source.count, source.count, {source.count, source.count}};
    const Scoring scoring = {arguments.scale * LOG2_E, 0.0f};

    // The queries land where the second tile of keys will, and are in registers before it comes.
    KeyTile<T, WIDTH>* tiles = reinterpret_cast<KeyTile<T, WIDTH>*>(shared_memory());
    HeadRow<T, WIDTH>* stripe = tiles[1].keys + warp % STRIPES * STRIPE;
    block_barrier();  // what an earlier call left in shared memory has been read
    if (rows > 0) load_queries<T, WIDTH>(stripe, arguments.query, number, rows, head, head_width);
    copy_async_commit();
    load_tile(tiles[0], source, 0, head_width);

    Queries<WIDTH> queries;
    Accumulator<WIDTH> attended;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    if (rows > 0) {
        if (arguments.query_norm.weight != nullptr) {
            normalise_stripe<T, WIDTH>(stripe, arguments.query_norm, head_width);
            warp_barrier();
        }
        take_queries<T, WIDTH>(queries, stripe);
    }
    attend_to_source(attended, queries, tiles, source, head_width, sight, scoring, rows > 0);
    if (rows > 0) store_rows<T, WIDTH>(attended, arguments.out, number, rows, head, head_width);
}
