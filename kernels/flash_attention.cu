// Self-attention over tiles of 64 keys with a running softmax, in three forms.
//
// flash_attention_causal: prefill, whole or in chunks. A text token at position p attends to positions 0..=p of its
//   sequence, whose keys and values (pages, page_rows, heads * head_width) are found through a table of pages; ALiBi
//   takes slope * distance off a score. A block serves one query tile (tokens of one sequence, up to 64 rows with all
//   heads of a group). Grid (tile_count, heads / group), 128 threads, shared bytes 512 * (WIDTH + 8): two tiles of 64
//   keys and values. Bound: the matrix units for long prompts.
// flash_attention_split, then flash_attention_combine: decoding, sequences of up to 16 new tokens, whose keys are split
//   over blocks; also few tokens to images of several pages. The first keys of a sequence are walked, with a running
//   softmax as in the causal form. Where sequences have these keys in the same pages, up to 32 of their rows walk
//   together, and the keys are read once for all. Each tile after them is worked out by itself, one a warp. Each walk
//   and each tile gives a row a partial result: its maximum (an exponent of two), sum and output. `combine` folds them
//   from left to right. As a walk begins with the first key, this is the order of the causal form, with the same bits.
//   split: grid (heads / group, items), 64 threads, shared bytes 576 * (WIDTH + 8). The longest walks come first.
//   combine: grid (ceil(heads / 4), row_count), 128 threads, no shared memory; a warp folds one row of one head.
//   Bound: memory; keys and values of a sequence's own are read once, shared ones once for 32 rows, and each partial
//   result costs 1/64 of what the keys and values of its tile do.
// flash_attention_full: vision. All rows of an image attend to all its rows: (images, query_rows, heads * head_width);
//   of an image in tiles, rows behind those of the tiles that it has attend to these alone. A block whose queries are
//   all such rows reads no keys behind; one that has some of both masks them, in the warp that has. Heads up to 80
//   wide: grid (ceil(query_rows / 128), heads, images), 128 threads, shared bytes 768 * (WIDTH + 8), two tiles and
//   the queries. Wider ones: ceil(query_rows / 64), shared bytes as the causal form. Bound: the matrix units for many
//   rows; for few memory and the latency of five tiles: 257 rows cost 16 stripes of 16 queries and 16 steps of 16
//   keys, and the class row one more.
//
// Names: flash_attention_<causal|split|full>_<bf16|f16>_<64|80|96|128>, by the padded head width, and
// flash_attention_combine_<bf16|f16>.
#include "attention.cuh"

constexpr uint32_t SPLIT_WARPS = 2;    // a block of the split form
constexpr uint32_t COMBINE_WARPS = 4;  // a block of its second half

/// Stripes of queries of a warp of the full form. With one, shared memory takes 2.5 times as long as the matrix units
/// at their best; with two, 1.5 times. Registers hold the sums of two up to this width.
template <uint32_t WIDTH>
constexpr uint32_t FULL_STRIPES = WIDTH <= 80 ? 2 : 1;

/// Query tile `index`; read as one word.
DEVICE QueryTile query_tile(const CausalAttentionArguments& arguments, uint32_t index) {
    const Word4 tile = load_global(reinterpret_cast<const Word4*>(arguments.tiles + index));
    return {tile.x, tile.y, tile.z, tile.w};
}

/// Scoring of a lane's two rows, whose heads these are.
DEVICE Scoring<> causal_scoring(float scale, const float* slopes, uint32_t first_head, uint32_t second_head) {
    if (slopes == nullptr) return {scale * LOG2_E, {0.0f, 0.0f}};
    return {scale * LOG2_E, {load_global(slopes + first_head) / scale, load_global(slopes + second_head) / scale}};
}

template <typename T, uint32_t WIDTH>
DEVICE void flash_attention_causal(const CausalAttentionArguments& arguments) {
    const QueryTile tile = query_tile(arguments, blockIdx.x);
    if (tile.count == 0) return;
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, head_width = arguments.head_width;
    const HeadGroup heads = head_group(blockIdx.y, arguments.group, arguments.sharing);
    const uint32_t skipped = warp * STRIPE;
    const uint32_t rows = remaining(tile.count * heads.count, skipped, STRIPE);  // this warp's; 0: it only copies
    const uint32_t index = skipped + lane % STRIPE, upper = skipped + lane / 4, lower = upper + 8;
    const QueryRow query = {tile.first + index / heads.count, heads.first + index % heads.count};
    const uint32_t* table = arguments.tables + tile.table;
    const KeySource<T> source =
        page_keys<T>(arguments.pages, table, tile.position + tile.count, heads.kv, head_width);
    const uint32_t seen = tile.position + 1;
    const Visible<> sight = {seen + skipped / heads.count,
                             seen + (skipped + larger(rows, 1u) - 1) / heads.count,
                             {seen + upper / heads.count, seen + lower / heads.count}};
    const Scoring<> scoring = causal_scoring(arguments.scale, arguments.slopes, heads.first + upper % heads.count,
                                           heads.first + lower % heads.count);
    Accumulator<WIDTH> attended;
    walk<T>(attended, arguments.query, {}, query, rows, source, head_width, sight, scoring);
    if (rows > 0) store_rows<T, WIDTH>(attended, arguments.out, query, rows, head_width);
}

/// Item `index`; each word is asked for once.
DEVICE SplitItem split_item(const SplitAttentionArguments& arguments, uint32_t index) {
    const uint32_t lane = threadIdx.x % LANES;
    const uint32_t* words = reinterpret_cast<const uint32_t*>(arguments.items + index);
    const uint32_t word = lane < sizeof(SplitItem) / sizeof(uint32_t) ? load_global(words + lane) : 0;
    return {shuffle(word, 0), shuffle(word, 1), shuffle(word, 2), shuffle(word, 3), shuffle(word, 4), shuffle(word, 5)};
}

/// Where a partial result stands.
DEVICE float* partial_at(const SplitAttentionArguments& arguments, uint32_t index, uint32_t head) {
    return arguments.partials + (uint64_t(index) * arguments.heads + head) * (arguments.head_width + 2);
}

/// A warp's own shared memory where it has a tile of keys for itself.
template <typename T, uint32_t WIDTH>
struct SplitTile {
    KeyTile<T, WIDTH> tile;
    HeadRow<T, WIDTH> queries[STRIPE];
};

/// Lets a warp's rows attend to the tile at key `first` of a source.
template <typename T, uint32_t WIDTH>
DEVICE void attend_alone(Accumulator<WIDTH>& attended, const Rows& view, const HeadNorm& norm, const QueryRow& query,
                         uint32_t rows, const KeySource<T>& source, uint32_t first, uint32_t head_width,
                         const Visible<>& sight, const Scoring<>& scoring) {
    SplitTile<T, WIDTH>& mine = reinterpret_cast<SplitTile<T, WIDTH>*>(shared_memory())[threadIdx.x / LANES];
    load_queries<T, WIDTH>(mine.queries, view, query, rows, head_width);
    const TilePlace place = tile_place(source, first);
    load_parts(mine.tile, source, place, head_width, 0, STRIPES, 1);
    copy_async_commit();
    load_parts(mine.tile, source, place, head_width, STRIPES, 2 * STRIPES, 1);
    copy_async_commit();

    Queries<T, WIDTH> queries;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    if (norm.weight != nullptr) {
        normalise_stripe<T, WIDTH>(mine.queries, norm, head_width);
        warp_barrier();
    }
    if (source.row_bytes != 0) {
        copy_async_wait<0>();
        warp_barrier();
        widen_tile(mine.tile, place.keys, threadIdx.x % LANES, LANES);
        warp_barrier();
    }
    queries.take(mine.queries);
    const Visible<> seen = sight_of_tile(source, sight, first, place.keys);
    attend<T, WIDTH, true>(attended, queries, mine.tile, first, seen, scoring);
}

template <typename T, uint32_t WIDTH>
DEVICE void flash_attention_split(const SplitAttentionArguments& arguments) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const HeadGroup heads = head_group(blockIdx.x, arguments.group, arguments.sharing);
    const uint32_t head_width = arguments.head_width;
    const SplitItem item = split_item(arguments, blockIdx.y);
    if (item.count == 0) return;
    const bool walks = item.slot == 0;
    const uint32_t first = walks ? 0 : (item.tile + warp) * KEYS;
    if (first >= item.keys) return;  // the whole warp; in blocks that do not walk, warps never meet

    const uint32_t skipped = walks ? warp * STRIPE : 0;
    const uint32_t rows = remaining(item.count * heads.count, skipped, STRIPE);  // this warp's; 0: it only copies
    const uint32_t index = skipped + lane % STRIPE, head = heads.first + index % heads.count;
    Word4 row = {0, 0, 0, 0};  // a SplitRow, in lanes 0 to 15
    if (lane < rows) {
        row = load_global(reinterpret_cast<const Word4*>(arguments.rows + item.first + index / heads.count));
    }
    const uint32_t position = row.y;
    const QueryRow query = {shuffle(row.x, lane % STRIPE), head};
    const Visible<> sight = {shuffle(position, 0) + 1,
                             shuffle(position, larger(rows, 1u) - 1) + 1,
                             {shuffle(position, lane / 4) + 1, shuffle(position, lane / 4 + 8) + 1}};
    const Scoring<> scoring = causal_scoring(arguments.scale, arguments.slopes, shuffle(head, lane / 4),
                                             shuffle(head, lane / 4 + 8));
    const KeySource<T> source =
        page_keys<T>(arguments.pages, arguments.tables + item.table, item.keys, heads.kv, head_width);
    Accumulator<WIDTH> attended;
    if (walks) {
        walk<T>(attended, arguments.query, arguments.query_norm, query, rows, source, head_width, sight, scoring);
    } else {
        attend_alone<T>(attended, arguments.query, arguments.query_norm, query, rows, source, first, head_width, sight,
                        scoring);
    }

#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t pair = lane % 4 * 2, slot = item.slot + (walks ? 0 : warp);
        const uint32_t source_lane = lane / 4 + 8 * half;
        float* partial = partial_at(arguments, shuffle(row.z, source_lane) + slot, shuffle(head, source_lane));
        // A row has no place for what it does not see.
        const bool present = lane / 4 + 8 * half < rows && sight.row[half] > first;
        if (present && pair == 0) {
            store_global(partial, attended.maximum[half]);
            store_global(partial + 1, attended.total[half]);
        }
#pragma unroll
        for (uint32_t block = 0; block < WIDTH / 8; ++block) {
            if (present && block * 8 < head_width) {
                store_global(partial + 2 + block * 8 + pair, attended.sums[0][block][2 * half]);
                store_global(partial + 3 + block * 8 + pair, attended.sums[0][block][2 * half + 1]);
            }
        }
    }
}

/// A warp folds the partial results of one row of one head: lane l has columns l, l + 32 ...
template <typename T>
DEVICE void flash_attention_combine(const SplitAttentionArguments& arguments) {
    const uint32_t head = blockIdx.x * COMBINE_WARPS + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    if (head >= arguments.heads) return;  // the whole warp; warps never meet here
    const Word4 words = load_for_warp(reinterpret_cast<const Word4*>(arguments.rows + blockIdx.y));
    const SplitRow row = {words.x, words.y, words.z, words.w};
    const uint32_t head_width = arguments.head_width;
    const uint64_t pitch = uint64_t(arguments.heads) * (head_width + 2);
    const float* partials = partial_at(arguments, row.partial, head);
    float maximum = -INFINITY, total = 0.0f, sums[4] = {};
    for (uint32_t first = 0; first < row.slots; first += LANES) {
        // Lane i holds the maximum and the sum of partial result first + i.
        const bool mine = first + lane < row.slots;
        const float* partial = partials + (first + lane) * pitch;
        const float tile_maximum = mine ? load_global(partial) : 0.0f;
        const float tile_total = mine ? load_global(partial + 1) : 0.0f;
        const uint32_t count = remaining(row.slots, first, LANES);
#pragma unroll 2
        for (uint32_t i = 0; i < count; ++i) {
            const float* products = partials + (first + i) * pitch + 2 + lane;
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
    T* out = row_of<T>(arguments.out, row.token) + head * head_width + lane;
    const float inverse = inverse_total(total);
#pragma unroll
    for (uint32_t part = 0; part < 4; ++part) {
        if (lane + part * LANES < head_width) store_global(out + part * LANES, from_float<T>(sums[part] * inverse));
    }
}

template <typename T, uint32_t WIDTH, uint32_t N>
DEVICE void flash_attention_full(const ImageAttentionArguments& arguments) {
    const uint32_t warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const uint32_t first_query = blockIdx.x * N * QUERIES, head = blockIdx.y, image = blockIdx.z;
    const uint32_t head_width = arguments.head_width, first = first_query + warp * N * STRIPE;
    const uint32_t rows = remaining(arguments.query_rows, first, N * STRIPE);  // this warp's; 0: it only copies
    const uint32_t index = first + lane % STRIPE;
    KeySource<T> source = image_keys<T>(arguments, 0, image, head);
    Visible<N> sight = sees_all<N>(source.count);
    if (arguments.tilings != nullptr) {
        const uint32_t all = source.count;
        const uint32_t limit = load_for_warp(&arguments.tilings[image].tiles) * arguments.tile_rows;
        const auto seen = [=](uint32_t row) { return row < limit ? all : limit; };
        sight.every = seen(first + N * STRIPE - 1);
        sight.any = seen(first);
#pragma unroll
        for (uint32_t half = 0; half < 2 * N; ++half) sight.row[half] = seen(first + lane / 4 + 8 * half);
        source.count = seen(first_query);
    }
    const Scoring<N> scoring = {arguments.scale * LOG2_E, {}};
    const QueryRow query = {image * arguments.query.rows + index, head};
    Accumulator<WIDTH, N> attended;
    walk<T>(attended, arguments.query, {}, query, rows, source, head_width, sight, scoring);
    const QueryRow out = {image * arguments.out.rows + index, head};
    if (rows > 0) store_rows<T, WIDTH>(attended, arguments.out, out, rows, head_width);
}

#define FLASH_ATTENTION(T, WIDTH)                                                                                  \
    KERNEL(flash_attention_causal_##T##_##WIDTH, CausalAttentionArguments, ATTENTION_THREADS) {                    \
        flash_attention_causal<T, WIDTH>(arguments);                                                               \
    }                                                                                                              \
    LARGE_KERNEL(flash_attention_split_##T##_##WIDTH, SplitAttentionArguments, SPLIT_WARPS * LANES) {              \
        flash_attention_split<T, WIDTH>(arguments);                                                                \
    }                                                                                                              \
    KERNEL(flash_attention_full_##T##_##WIDTH, ImageAttentionArguments, ATTENTION_THREADS) {                     \
        flash_attention_full<T, WIDTH, FULL_STRIPES<WIDTH>>(arguments);                                            \
    }
FLASH_ATTENTION(bf16, 64)
FLASH_ATTENTION(bf16, 80)
FLASH_ATTENTION(bf16, 96)
FLASH_ATTENTION(bf16, 128)
FLASH_ATTENTION(f16, 64)
FLASH_ATTENTION(f16, 80)
FLASH_ATTENTION(f16, 96)
FLASH_ATTENTION(f16, 128)

KERNEL(flash_attention_combine_bf16, SplitAttentionArguments, COMBINE_WARPS * LANES) {
    flash_attention_combine<bf16>(arguments);
}
KERNEL(flash_attention_combine_f16, SplitAttentionArguments, COMBINE_WARPS * LANES) {
    flash_attention_combine<f16>(arguments);
}
