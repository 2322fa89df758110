// Attention of the perceiver resampler (Flamingo, section 2.1): the latents of an image attend to the image's rows
// and to themselves. The two sources are read where they stand, context first, then latents; nothing is concatenated,
// and no tile of keys straddles them. IDEFICS' layer norms of the query and key heads are fused: they are taken in
// shared memory and rounded to T, as if a kernel of their own had written them.
//
// Shapes: query and out (images, query_rows, heads * head_width); key and value of source s (images, key_rows[s],
// heads * head_width), of the context (frames, key_rows[0], heads * head_width): a video's frames are one context. One
// block serves the usual 64 latents of a head; other counts are ragged.
// Names: perceiver_attention_<bf16|f16>_<64|80|96|128>, by the padded head width.
// Grid (ceil(query_rows / 64), heads, images), 128 threads; shared bytes 512 * (WIDTH + 8): two tiles of 64 keys and
// values. Bound: the latency of its few tiles (five of context and one of latents for 257 + 64 keys), then memory.
#include "attention.cuh"

template <typename T, uint32_t WIDTH>
DEVICE void perceiver_attention(const ImageAttentionArguments& arguments) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t first_query = blockIdx.x * QUERIES, head = blockIdx.y, image = blockIdx.z;
    const uint32_t head_width = arguments.head_width;
    const uint32_t rows = remaining(arguments.query_rows, first_query + warp * STRIPE, STRIPE);  // this warp's
    const uint32_t index = first_query + warp * STRIPE + lane % STRIPE;
    const Scoring<> scoring = {arguments.scale * LOG2_E, {0.0f, 0.0f}};

    // The queries land where the second tile of keys will, and are in registers before it comes.
    KeyTile<T, WIDTH>* tiles = reinterpret_cast<KeyTile<T, WIDTH>*>(shared_memory());
    HeadRow<T, WIDTH>* stripe = tiles[1].keys + warp * STRIPE;
    if (rows > 0) {
        const QueryRow query = {image * arguments.query.rows + index, head};
        load_queries<T, WIDTH>(stripe, arguments.query, query, rows, head_width);
    }
    copy_async_commit();
    load_tile(tiles[0], image_keys<T>(arguments, 0, image, head), 0, head_width);

    Queries<T, WIDTH> queries;
    Accumulator<WIDTH> attended;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    if (rows > 0) {
        if (arguments.query_norm.weight != nullptr) {
            normalise_stripe<T, WIDTH>(stripe, arguments.query_norm, head_width);
            warp_barrier();
        }
        queries.take(stripe);
    }
    // The sources are cut into tiles one after the other.
    for (uint32_t tile = 0, source = 0, first = 0; source < 2; ++tile) {
        copy_async_wait<0>();
        block_barrier();
        const uint32_t count = image_keys<T>(arguments, source, image, head).count;
        const bool ends = first + KEYS >= count;
        const uint32_t next_source = ends ? source + 1 + (arguments.key_rows[1] == 0) : source;
        const uint32_t next = ends ? 0 : first + KEYS;
        if (next_source < 2) {
            load_tile(tiles[(tile + 1) % 2], image_keys<T>(arguments, next_source, image, head), next, head_width);
        }
        if (arguments.key_norm.weight != nullptr) {
            if (first + warp * STRIPE < count) {
                normalise_stripe<T, WIDTH>(tiles[tile % 2].keys + warp * STRIPE, arguments.key_norm, head_width);
            }
            block_barrier();
        }
        if (rows > 0) attend(attended, queries, tiles[tile % 2], first, sees_all(count), scoring);
        source = next_source;
        first = next;
    }
    if (rows > 0) {
        const QueryRow out = {image * arguments.out.rows + index, head};
        store_rows<T, WIDTH>(attended, arguments.out, out, rows, head_width);
    }
}

/// Blocks on a multiprocessor: as many as the registers of a block leave room for.
constexpr uint32_t resident(uint32_t width) { return width <= 64 ? 4 : width <= 80 ? 3 : 2; }

#define PERCEIVER_ATTENTION(T, WIDTH)                                                                              \
    RESIDENT_KERNEL(perceiver_attention_##T##_##WIDTH, ImageAttentionArguments, ATTENTION_THREADS, resident(WIDTH)) { \
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
