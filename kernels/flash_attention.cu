// Self-attention over tiles of 64 keys with a running softmax, in three forms.
//
// flash_attention_causal: prefill, whole or in chunks. A text token at position p attends to positions 0..=p of its
//   sequence, whose keys and values (pages, page_rows, heads * head_width) are found through a table of pages; ALiBi
//   takes slope * distance off a score. A block serves one query tile (up to 64 tokens of one sequence) and one head.
//   Grid (tile_count, heads), 128 threads, shared bytes 512 * (WIDTH + 8): two tiles of 64 keys and values. Bound: the
//   matrix units for long prompts.
// flash_attention_split, then flash_attention_combine: decoding, query tiles of up to tile_rows <= 16 tokens. One warp
//   works out one tile of keys and writes its maximum, sum and output; `combine` folds them in the order of the causal
//   form, with the same bits. partials: f32 (tile_count, heads, key_tiles, tile_rows, head_width + 2), the maximum (an
//   exponent of two) and the sum before each output row; key_tiles covers the longest sequence.
//   split: grid (ceil(key_tiles / 2), tile_count, heads), 64 threads, shared bytes 576 * (WIDTH + 8).
//   combine: grid (ceil(heads * tile_rows / 4), tile_count), 128 threads, no shared memory; a warp folds one row.
//   Bound: memory; each key and value is read once, the partials of a row are 1/64 of that.
// flash_attention_full: vision. All rows of a picture attend to all its rows: (images, query_rows, heads * head_width).
//   Grid (ceil(query_rows / 64), heads, images), 128 threads, shared bytes as the causal form. Bound: memory and the
//   latency of five tiles: 257 rows cost 16 stripes of 16 queries and 16 steps of 16 keys, and the class row one more.
//
// Names: flash_attention_<causal|split|full>_<bf16|f16>_<64|80|96|128>, by the padded head width, and
// flash_attention_combine_<bf16|f16>.
#include "attention.cuh"

constexpr uint32_t SPLIT_WARPS = 2;    // a block of the split form
constexpr uint32_t COMBINE_WARPS = 4;  // a block of its second half

/// Query tile `index`; read as one word.
DEVICE QueryTile query_tile(const CausalAttentionArguments& arguments, uint32_t index) {
    const Word4 tile = load_global(reinterpret_cast<const Word4*>(arguments.tiles + index));
    return {tile.x, tile.y, tile.z, tile.w};
}

/// The keys that the last token of a query tile sees, for one head.
template <typename T>
DEVICE KeySource<T> text_keys(const CausalAttentionArguments& arguments, const QueryTile& tile, uint32_t head) {
    const Pages& pages = arguments.pages;
    const uint32_t column = head * arguments.head_width;
    return {static_cast<const T*>(pages.keys) + column,
            static_cast<const T*>(pages.values) + column,
            pages.width,
            pages.width,
            tile.position + tile.count,
            arguments.tables + tile.table,
            pages.page_rows};
}

/// What 16 tokens see of which the first stands at `position` and `rows` are valid.
DEVICE Sight causal_sight(uint32_t position, uint32_t rows) {
    const uint32_t mine = position + threadIdx.x % LANES / 4 + 1;
    return {position + 1, position + rows, {mine, mine + 8}};
}

DEVICE Scoring causal_scoring(const CausalAttentionArguments& arguments, uint32_t head) {
    const float slope = arguments.slopes != nullptr ? load_global(arguments.slopes + head) / arguments.scale : 0.0f;
    return {arguments.scale * LOG2_E, slope};
}

template <typename T, uint32_t WIDTH>
DEVICE void flash_attention_causal(const CausalAttentionArguments& arguments) {
    const QueryTile tile = query_tile(arguments, blockIdx.x);
    if (tile.count == 0) return;
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t head = blockIdx.y, head_width = arguments.head_width;
    const uint32_t rows = remaining(tile.count, warp * STRIPE, STRIPE);  // this warp's; 0: it only copies
    const uint32_t number = tile.first + warp * STRIPE + lane % STRIPE;
    const KeySource<T> source = text_keys<T>(arguments, tile, head);
    const Sight sight = causal_sight(tile.position + warp * STRIPE, rows);
    const Scoring scoring = causal_scoring(arguments, head);

    // The queries land where the second tile of keys will, and are in registers before it comes.
    KeyTile<T, WIDTH>* tiles = reinterpret_cast<KeyTile<T, WIDTH>*>(shared_memory());
    HeadRow<T, WIDTH>* stripe = tiles[1].keys + warp * STRIPE;
    if (rows > 0) load_queries<T, WIDTH>(stripe, arguments.query, number, rows, head, head_width);
    copy_async_commit();
    load_tile(tiles[0], source, 0, head_width);

    Queries<WIDTH> queries;
    Attended<WIDTH> attended;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    if (rows > 0) take_queries<T, WIDTH>(queries, stripe);
    attend_to_source(attended, queries, tiles, source, head_width, sight, scoring, rows > 0);
    if (rows > 0) store_rows<T, WIDTH>(attended, arguments.out, number, rows, head, head_width);
}

/// Where the partial result of row 0 of a query tile stands for tile `key_tile` of keys.
DEVICE float* partial_of(const CausalAttentionArguments& arguments, uint32_t tile, uint32_t head, uint32_t key_tile) {
    const uint64_t index = (uint64_t(tile) * arguments.heads + head) * arguments.key_tiles + key_tile;
    return arguments.partials + index * arguments.tile_rows * (arguments.head_width + 2);
}

/// A warp's own shared memory in the split form.
template <typename T, uint32_t WIDTH>
struct SplitTile {
    KeyTile<T, WIDTH> tile;
    HeadRow<T, WIDTH> queries[STRIPE];
};

template <typename T, uint32_t WIDTH>
DEVICE void flash_attention_split(const CausalAttentionArguments& arguments) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t key_tile = blockIdx.x * SPLIT_WARPS + warp, first = key_tile * KEYS;
    const uint32_t head = blockIdx.z, head_width = arguments.head_width;
    const QueryTile tile = query_tile(arguments, blockIdx.y);
    const KeySource<T> source = text_keys<T>(arguments, tile, head);
    if (tile.count == 0 || first >= source.count) return;  // the whole warp; warps never meet here

    SplitTile<T, WIDTH>& mine = reinterpret_cast<SplitTile<T, WIDTH>*>(shared_memory())[warp];
    const uint32_t number = tile.first + lane % STRIPE;
    load_queries<T, WIDTH>(mine.queries, arguments.query, number, tile.count, head, head_width);
    const uint32_t starts = stripe_starts(source, first);
    load_parts(mine.tile, source, starts, first, head_width, 0, STRIPES, 1);
    copy_async_commit();
    load_parts(mine.tile, source, starts, first, head_width, STRIPES, 2 * STRIPES, 1);
    copy_async_commit();

    Queries<WIDTH> queries;
    Attended<WIDTH> attended;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    take_queries<T, WIDTH>(queries, mine.queries);
    const Sight sight = causal_sight(tile.position, tile.count);
    attend<T, WIDTH, true>(attended, queries, mine.tile, first, sight, causal_scoring(arguments, head));

#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t row = lane / 4 + 8 * half, pair = lane % 4 * 2;
        float* partial = partial_of(arguments, blockIdx.y, head, key_tile) + row * (head_width + 2);
        if (row < tile.count && pair == 0) {
            store_global(partial, attended.maximum[half]);
            store_global(partial + 1, attended.total[half]);
        }
#pragma unroll
        for (uint32_t block = 0; block < WIDTH / 8; ++block) {
            if (row < tile.count && block * 8 < head_width) {
                store_global(partial + 2 + block * 8 + pair, attended.sums[block][2 * half]);
                store_global(partial + 3 + block * 8 + pair, attended.sums[block][2 * half + 1]);
            }
        }
    }
}

/// A warp folds the partial results of one row of one head: lane l has columns l, l + 32 ...
template <typename T>
DEVICE void flash_attention_combine(const CausalAttentionArguments& arguments) {
    const uint32_t unit = blockIdx.x * COMBINE_WARPS + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t head = unit / arguments.tile_rows, row = unit % arguments.tile_rows;
    const uint32_t head_width = arguments.head_width, pitch = arguments.tile_rows * (head_width + 2);
    const QueryTile tile = query_tile(arguments, blockIdx.y);
    if (head >= arguments.heads || row >= tile.count) return;  // the whole warp; warps never meet here

    const uint32_t key_tiles = divide_up(tile.position + row + 1, KEYS);
    const float* partials = partial_of(arguments, blockIdx.y, head, 0) + row * (head_width + 2);
    float maximum = -INFINITY, total = 0.0f, sums[4] = {};
    for (uint32_t first = 0; first < key_tiles; first += LANES) {
        // Lane i holds the maximum and the sum of tile first + i.
        const bool mine = first + lane < key_tiles;
        const float* partial = partials + uint64_t(first + lane) * pitch;
        const float tile_maximum = mine ? load_global(partial) : 0.0f;
        const float tile_total = mine ? load_global(partial + 1) : 0.0f;
        const uint32_t count = remaining(key_tiles, first, LANES);
#pragma unroll 2
        for (uint32_t i = 0; i < count; ++i) {
            const float* products = partials + uint64_t(first + i) * pitch + 2 + lane;
            const Fold fold = raise_maximum(maximum, shuffle(tile_maximum, i));
            total = fmaf(total, fold.keep, shuffle(tile_total, i) * fold.take);
#pragma unroll
            for (uint32_t part = 0; part < 4; ++part) {
                if (lane + part * LANES < head_width) {
                    sums[part] = fmaf(sums[part], fold.keep, load_global(products + part * LANES) * fold.take);
                }
            }
        }
    }
    T* out = row_of<T>(arguments.out, tile.first + row) + head * head_width + lane;
    const float inverse = inverse_total(total);
#pragma unroll
    for (uint32_t part = 0; part < 4; ++part) {
        if (lane + part * LANES < head_width) store_global(out + part * LANES, from_float<T>(sums[part] * inverse));
    }
}

template <typename T, uint32_t WIDTH>
DEVICE void flash_attention_full(const PictureAttentionArguments& arguments) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t first_query = blockIdx.x * QUERIES, head = blockIdx.y, image = blockIdx.z;
    const uint32_t head_width = arguments.head_width;
    const uint32_t rows = remaining(arguments.query_rows, first_query + warp * STRIPE, STRIPE);  // this warp's
    const uint32_t index = first_query + warp * STRIPE + lane % STRIPE;
    const KeySource<T> source = picture_keys<T>(arguments, 0, image, head);
    const Sight sight = {source.count, source.count, {source.count, source.count}};
    const Scoring scoring = {arguments.scale * LOG2_E, 0.0f};

    KeyTile<T, WIDTH>* tiles = reinterpret_cast<KeyTile<T, WIDTH>*>(shared_memory());
    HeadRow<T, WIDTH>* stripe = tiles[1].keys + warp * STRIPE;
    if (rows > 0) {
        const uint32_t number = image * arguments.query.rows + index;
        load_queries<T, WIDTH>(stripe, arguments.query, number, rows, head, head_width);
    }
    copy_async_commit();
    load_tile(tiles[0], source, 0, head_width);

    Queries<WIDTH> queries;
    Attended<WIDTH> attended;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    if (rows > 0) take_queries<T, WIDTH>(queries, stripe);
    attend_to_source(attended, queries, tiles, source, head_width, sight, scoring, rows > 0);
    if (rows > 0) {
        const uint32_t number = image * arguments.out.rows + index;
        store_rows<T, WIDTH>(attended, arguments.out, number, rows, head, head_width);
    }
}

#define FLASH_ATTENTION(T, WIDTH)                                                                                  \
    KERNEL(flash_attention_causal_##T##_##WIDTH, CausalAttentionArguments, ATTENTION_THREADS) {                    \
        flash_attention_causal<T, WIDTH>(arguments);                                                               \
    }                                                                                                              \
    KERNEL(flash_attention_split_##T##_##WIDTH, CausalAttentionArguments, SPLIT_WARPS * LANES) {                   \
        flash_attention_split<T, WIDTH>(arguments);                                                                \
    }                                                                                                              \
    KERNEL(flash_attention_full_##T##_##WIDTH, PictureAttentionArguments, ATTENTION_THREADS) {                     \
        flash_attention_full<T, WIDTH>(arguments);                                                                 \
    }
FLASH_ATTENTION(bf16, 64)
FLASH_ATTENTION(bf16, 80)
FLASH_ATTENTION(bf16, 96)
FLASH_ATTENTION(bf16, 128)
FLASH_ATTENTION(f16, 64)
FLASH_ATTENTION(f16, 80)
FLASH_ATTENTION(f16, 96)
FLASH_ATTENTION(f16, 128)

KERNEL(flash_attention_combine_bf16, CausalAttentionArguments, COMBINE_WARPS * LANES) {
    flash_attention_combine<bf16>(arguments);
}
KERNEL(flash_attention_combine_f16, CausalAttentionArguments, COMBINE_WARPS * LANES) {
    flash_attention_combine<f16>(arguments);
}
