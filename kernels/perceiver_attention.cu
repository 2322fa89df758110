// Attention of the perceiver resampler (Flamingo, section 2.1): the latents of a picture attend to the picture's rows
// and to themselves. The two sources are read where they stand, context first, then latents; nothing is concatenated,
// and no tile of keys straddles them. IDEFICS' layer norms of the query and key heads are fused: they are taken in
// shared memory and rounded to T, as if a kernel of their own had written them.
//
// Shapes: query and out (images, query_rows, heads * head_width); key and value of source s (images, key_rows[s],
// heads * head_width). One block serves the usual 64 latents of a head; other counts are ragged.
// Names: perceiver_attention_<bf16|f16>_<64|80|96|128>, by the padded head width.
// Grid (ceil(query_rows / 64), heads, images), 128 threads; shared bytes 512 * (WIDTH + 8): two tiles of 64 keys and
// values. Bound: the latency of its few tiles (five of context and one of latents for 257 + 64 keys), then memory.
#include "attention.cuh"

/// Where a tile of keys stands: the sources are cut one after the other.
struct TilePlace {
    uint32_t source;
    uint32_t first;  // its first key in the source
};
DEVICE TilePlace tile_place(const PictureAttentionArguments& arguments, uint32_t tile) {
    const uint32_t context_tiles = divide_up(arguments.key_rows[0], KEYS);
    if (tile < context_tiles) return {0, tile * KEYS};
    return {1, (tile - context_tiles) * KEYS};
}

template <typename T, uint32_t WIDTH>
DEVICE void perceiver_attention(const PictureAttentionArguments& arguments) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t first_query = blockIdx.x * QUERIES, head = blockIdx.y, image = blockIdx.z;
    const uint32_t head_width = arguments.head_width;
    const uint32_t rows = remaining(arguments.query_rows, first_query + warp * STRIPE, STRIPE);  // this warp's
    const uint32_t index = first_query + warp * STRIPE + lane % STRIPE;
    const Scoring scoring = {arguments.scale * LOG2_E, 0.0f};
    const uint32_t tile_count = divide_up(arguments.key_rows[0], KEYS) + divide_up(arguments.key_rows[1], KEYS);

    // The queries land where the second tile of keys will, and are in registers before it comes.
    KeyTile<T, WIDTH>* tiles = reinterpret_cast<KeyTile<T, WIDTH>*>(shared_memory());
    HeadRow<T, WIDTH>* stripe = tiles[1].keys + warp * STRIPE;
    if (rows > 0) {
        const uint32_t number = image * arguments.query.rows + index;
        load_queries<T, WIDTH>(stripe, arguments.query, number, rows, head, head_width);
    }
    copy_async_commit();
    const uint32_t first_source = tile_place(arguments, 0).source;
    load_tile(tiles[0], picture_keys<T>(arguments, first_source, image, head), 0, head_width);

    Queries<WIDTH> queries;
    Attended<WIDTH> attended;
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
    for (uint32_t tile = 0; tile < tile_count; ++tile) {
        copy_async_wait<0>();
        block_barrier();
        if (tile + 1 < tile_count) {
            const TilePlace next = tile_place(arguments, tile + 1);
            const KeySource<T> source = picture_keys<T>(arguments, next.source, image, head);
            load_tile(tiles[(tile + 1) % 2], source, next.first, head_width);
        }
        const TilePlace place = tile_place(arguments, tile);
        const uint32_t count = arguments.key_rows[place.source];
        if (arguments.key_norm.weight != nullptr) {
            if (place.first + warp * STRIPE < count) {
                normalise_stripe<T, WIDTH>(tiles[tile % 2].keys + warp * STRIPE, arguments.key_norm, head_width);
            }
            block_barrier();
        }
        const Sight sight = {count, count, {count, count}};
        if (rows > 0) attend(attended, queries, tiles[tile % 2], place.first, sight, scoring);
    }
    if (rows > 0) {
        const uint32_t number = image * arguments.out.rows + index;
        store_rows<T, WIDTH>(attended, arguments.out, number, rows, head, head_width);
    }
}

#define PERCEIVER_ATTENTION(T, WIDTH)                                                                              \
    KERNEL(perceiver_attention_##T##_##WIDTH, PictureAttentionArguments, ATTENTION_THREADS) {                      \
        perceiver_attention<T, WIDTH>(arguments);                                                                  \
    }
PERCEIVER_ATTENTION(bf16, 64)
PERCEIVER_ATTENTION(bf16, 80)
PERCEIVER_ATTENTION(bf16, 96)
PERCEIVER_ATTENTION(bf16, 128)
PERCEIVER_ATTENTION(f16, 64)
PERCEIVER_ATTENTION(f16, 80)
PERCEIVER_ATTENTION(f16, 96)
PERCEIVER_ATTENTION(f16, 128)
