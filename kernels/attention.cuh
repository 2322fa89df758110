// The tile vocabulary of the attention kernels. A block serves 64 query rows with four warps, 16 rows a warp: of
// tokens in order, each of the heads that share a head of keys, so that keys and values are read once for such a
// group. Where there are many rows, a warp has N stripes of 16, and what it reads of keys and values from shared
// memory serves them all. Keys come in tiles of 64, cut by their number from the first key of their source. Every
// tile has a maximum, a sum and an output of its own, and these are folded into the running ones from left to right.
// All forms (prefill, split decode, image, latents) fold the same tiles in the same order, so a row's bits depend on
// nothing but the row.
//
// Scores and outputs go through mma.m16n8k16. A tile costs as many steps of 16 keys as it has keys; the steps left out
// would have added exact zeros. WIDTH is the padded head width (64, 80, 96 or 128); a head's width is a multiple of 16
// up to it, and the columns beyond are zeros in shared memory. Keys and values of pages in 8 bits arrive as codes and
// become numbers of T where they are, so that all that follows is the same.
//
// In mma fragments a lane holds two rows, lane / 4 and lane / 4 + 8, at columns 2 (lane % 4) and one after; arrays of
// two are over those rows. fmaf is written out so that the compiler cannot round one form otherwise than another.
#pragma once
#include "vector.cuh"

constexpr uint32_t KEYS = 64;                 // keys of a tile
constexpr uint32_t STRIPE = 16;               // query rows of a warp; keys of a step
constexpr uint32_t STRIPES = KEYS / STRIPE;   // of a tile of keys, and of a block's queries
constexpr uint32_t CODES = 16;                // of a vector in 8 bits
constexpr uint32_t QUERIES = 64;              // query rows of a block whose warps have one stripe each
constexpr uint32_t ATTENTION_THREADS = 128;
constexpr float LOG2_E = 1.4426950408889634f;

/// A row of a head in shared memory, an odd number of 16-byte words long: eight rows at one column touch all banks.
template <typename T, uint32_t WIDTH>
using HeadRow = T[WIDTH + 8];

/// A tile of keys and values in shared memory.
template <typename T, uint32_t WIDTH>
struct KeyTile {
    HeadRow<T, WIDTH> keys[KEYS];
    HeadRow<T, WIDTH> values[KEYS];
};

/// Where the keys and values that a head attends to stand in global memory.
template <typename T>
struct KeySource {
    const T* keys;  // this head's columns of row 0
    const T* values;
    uint32_t key_stride;
    uint32_t value_stride;
    uint32_t count;         // keys; of images those of their pages if all were full
    const uint32_t* table;  // text: page numbers; images: of each page its number and its rows; null: keys in order
    uint32_t page_rows;     // text: a multiple of 16, less than KEYS; images: KEYS
    uint32_t row_bytes;     // as in Pages; where it is not 0, keys and values are this head's codes of row 0
};

/// A tile of keys: how many it has, and in lanes 0 to 3 the row where that stripe of it starts.
struct TilePlace {
    uint32_t keys;
    uint32_t start;
};

/// The heads of queries that a block takes, and the head of keys that they share.
struct HeadGroup {
    uint32_t first;
    uint32_t count;
    uint32_t kv;
};

/// Group `index` of `count` heads each, where `sharing` heads share a head of keys: a multiple of `count`.
DEVICE HeadGroup head_group(uint32_t index, uint32_t count, uint32_t sharing) {
    return {index * count, count, index * count / sharing};
}

/// 16 columns of a stripe as a left operand.
template <typename T, uint32_t COLUMNS>
DEVICE void load_left(uint32_t (&words)[4], const T (*stripe)[COLUMNS], uint32_t chunk) {
    const uint32_t lane = threadIdx.x % LANES;
    load_matrix_x4(words, &stripe[lane % 16][chunk * 16 + lane / 16 * 8]);
}

/// A row of queries: a row of a view, and one of its heads.
struct QueryRow {
    uint32_t number;
    uint32_t head;
};

/// A warp's queries, the left operand of the scores: N stripes, which stay in shared memory where registers are short.
template <typename T, uint32_t WIDTH, uint32_t N = 1>
struct Queries {
    const HeadRow<T, WIDTH>* stripes;

    DEVICE void take(const HeadRow<T, WIDTH>* from) { stripes = from; }
    DEVICE void load(uint32_t (&words)[N][4], uint32_t chunk) const {
#pragma unroll
        for (uint32_t n = 0; n < N; ++n) load_left(words[n], stripes + n * STRIPE, chunk);
    }
};

/// One stripe, in registers.
template <typename T, uint32_t WIDTH>
struct Queries<T, WIDTH, 1> {
    uint32_t words[WIDTH / 16][4];

    DEVICE void take(const HeadRow<T, WIDTH>* stripe) {
#pragma unroll
        for (uint32_t chunk = 0; chunk < WIDTH / 16; ++chunk) load_left(words[chunk], stripe, chunk);
    }
    DEVICE void load(uint32_t (&to)[1][4], uint32_t chunk) const {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) to[0][i] = words[chunk][i];
    }
};

/// How many keys of a source a warp's rows see, counted from its first key.
template <uint32_t N = 1>
struct Visible {
    uint32_t every;       // all rows of the warp see these
    uint32_t any;         // some row sees these
    uint32_t row[2 * N];  // this lane's rows, two of each stripe
};

/// The sight of rows that see so many keys, all of them.
template <uint32_t N = 1>
DEVICE Visible<N> sees_all(uint32_t count) {
    Visible<N> sight = {count, count, {}};
#pragma unroll
    for (uint32_t half = 0; half < 2 * N; ++half) sight.row[half] = count;
    return sight;
}

/// From products to exponents of two.
template <uint32_t N = 1>
struct Scoring {
    float scale;         // times log2(e)
    float slope[2 * N];  // ALiBi of this lane's rows, in units of the scale; 0 for none
};

/// What a warp's rows make of one tile's keys: exp2(score - maximum), rounded to T as the left operand of the output.
template <uint32_t N>
struct Probabilities {
    uint32_t words[N][STRIPES][4];
    float maximum[2 * N];
    float total[2 * N];  // of the weights before they were rounded
};

/// The running state of a warp's rows.
template <uint32_t WIDTH, uint32_t N = 1>
struct Accumulator {
    float sums[N][WIDTH / 8][4];
    float maximum[2 * N];
    float total[2 * N];
};

/// How many of at most `limit` rows remain from row `first` of `count`.
DEVICE uint32_t remaining(uint32_t count, uint32_t first, uint32_t limit) {
    return count > first ? smaller(count - first, limit) : 0;
}

// ---- Loading ------------------------------------------------------------------------------------------------------

/// Starts copying a warp's queries: `query` is that of lane % 16, and the first `rows` are valid.
template <typename T, uint32_t WIDTH>
DEVICE void load_queries(HeadRow<T, WIDTH>* stripe, const Rows& view, const QueryRow& query, uint32_t rows,
                         uint32_t head_width) {
#pragma unroll
    for (uint32_t vector = threadIdx.x % LANES; vector < STRIPE * WIDTH / VECTOR; vector += LANES) {
        const uint32_t row = vector / (WIDTH / VECTOR), column = vector % (WIDTH / VECTOR) * VECTOR;
        const T* from = row_of<T>(view, shuffle(query.number, row)) + shuffle(query.head, row) * head_width + column;
        copy_async_16(&stripe[row][column], from, row < rows && column < head_width);
    }
}

/// Starts copying 16 rows of keys or values, `rows` of them valid.
template <typename T, uint32_t WIDTH>
DEVICE void copy_stripe(HeadRow<T, WIDTH>* stripe, const T* from, uint32_t stride, uint32_t rows, uint32_t head_width) {
#pragma unroll
    for (uint32_t vector = threadIdx.x % LANES; vector < STRIPE * WIDTH / VECTOR; vector += LANES) {
        const uint32_t row = vector / (WIDTH / VECTOR), column = vector % (WIDTH / VECTOR) * VECTOR;
        copy_async_16(&stripe[row][column], from + row * stride + column, row < rows && column < head_width);
    }
}

/// Starts copying such rows in 8 bits to where widen_tile wants them: codes to the second half of each row's columns,
/// the stripe's scales behind the columns of its first two rows.
template <typename T, uint32_t WIDTH>
DEVICE void copy_codes(HeadRow<T, WIDTH>* stripe, const char* from, uint32_t rows, uint32_t head_width) {
    const uint32_t lane = threadIdx.x % LANES;
#pragma unroll 1  // addresses for each turn would be kept in registers that the sums need
    for (uint32_t vector = lane; vector < STRIPE * WIDTH / CODES; vector += LANES) {
        const uint32_t row = vector / (WIDTH / CODES), column = vector % (WIDTH / CODES) * CODES;
        copy_async_16(&stripe[row][(WIDTH + column) / sizeof(T)], from + row * head_width + column,
                      column < head_width && row < rows);
    }
    if (lane < 2) copy_async_16(&stripe[lane][WIDTH], from + STRIPE * head_width + lane * sizeof(Word4), true);
}

/// Four codes times a scale. A code with its sign bit turned is code + 128, and as the last byte of 2^23 a float.
template <typename T>
DEVICE Word2 widen(uint32_t codes, float scale) {
    const uint32_t turned = codes ^ 0x80808080u;
    float value[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        value[i] = (float_of_bits(0x4b000000u | (turned >> 8 * i & 0xffu)) - (0x1p23f + 128.0f)) * scale;
    }
    return {pack<T>(value[0], value[1]), pack<T>(value[2], value[3])};
}

/// Turns a tile of `keys` keys in 8 bits, which has arrived, into numbers of T where it is; rows behind them in their
/// stripe become zeros. `threads` threads take a row each, from the left: numbers end before the codes that are left.
template <typename T, uint32_t WIDTH>
DEVICE void widen_tile(KeyTile<T, WIDTH>& tile, uint32_t keys, uint32_t thread, uint32_t threads) {
    const uint32_t filled = divide_up(keys, STRIPE) * STRIPE;
#pragma unroll 1
    for (; thread < 2 * KEYS; thread += threads) {
        HeadRow<T, WIDTH>* const rows = thread < KEYS ? tile.keys : tile.values;
        const uint32_t row = thread % KEYS, in_stripe = row % STRIPE;
        if (row >= filled) continue;
        const T* scales = rows[row - in_stripe + in_stripe / VECTOR] + WIDTH;
        const bf16* scale_at = reinterpret_cast<const bf16*>(scales) + in_stripe % VECTOR;
        const float scale = row < keys ? to_float(load_shared(scale_at)) : 0.0f;
        Word4* const words = reinterpret_cast<Word4*>(rows[row]);
#pragma unroll
        for (uint32_t vector = 0; vector < WIDTH / CODES; ++vector) {
            const Word4 codes = load_shared(words + WIDTH / CODES + vector);
            const Word2 first = widen<T>(codes.x, scale), second = widen<T>(codes.y, scale);
            const Word2 third = widen<T>(codes.z, scale), last = widen<T>(codes.w, scale);
            store_shared(words + 2 * vector, Word4{first.x, first.y, second.x, second.y});
            store_shared(words + 2 * vector + 1, Word4{third.x, third.y, last.x, last.y});
        }
    }
}

/// The tile at key `first` of a source. A page of an image is a tile, whether full or not.
template <typename T>
DEVICE TilePlace tile_place(const KeySource<T>& source, uint32_t first) {
    const uint32_t lane = threadIdx.x % LANES, key = first + lane * STRIPE;
    if (source.page_rows == KEYS) {
        const bool present = lane < 2 && first < source.count;
        const uint32_t word = present ? load_global(source.table + first / KEYS * 2 + lane) : 0;
        return {shuffle(word, 1), shuffle(word, 0) * KEYS + lane * STRIPE};
    }
    const uint32_t keys = remaining(source.count, first, KEYS);
    if (source.table == nullptr || lane >= STRIPES || key >= source.count) return {keys, key};
    return {keys, load_global(source.table + key / source.page_rows) * source.page_rows + key % source.page_rows};
}

/// Starts copying parts `part`, `part + step` .. of a tile: 0 to 3 are its stripes of keys, 4 to 7 those of values.
/// Stripes without a key are left as they are.
template <typename T, uint32_t WIDTH>
DEVICE void load_parts(KeyTile<T, WIDTH>& tile, const KeySource<T>& source, const TilePlace& place,
                       uint32_t head_width, uint32_t part, uint32_t end, uint32_t step) {
    for (; part < end; part += step) {
        const uint32_t row = part % STRIPES * STRIPE;
        const uint64_t start = shuffle(place.start, part % STRIPES);
        const uint32_t rows = remaining(place.keys, row, STRIPE);
        if (rows == 0) continue;
        const bool keys = part < STRIPES;
        const uint32_t stride = keys ? source.key_stride : source.value_stride;
        HeadRow<T, WIDTH>* const to = (keys ? tile.keys : tile.values) + row;
        const T* from = keys ? source.keys : source.values;
        if (source.row_bytes == 0) {
            copy_stripe<T, WIDTH>(to, from + start * stride, stride, rows, head_width);
        } else {
            const char* codes = reinterpret_cast<const char*>(from) + start * source.row_bytes;
            copy_codes<T, WIDTH>(to, codes, rows, head_width);
        }
    }
}

/// Starts copying the tile at key `first`, a group of copies of each thread; how many keys it has. All threads of the
/// block take part.
template <typename T, uint32_t WIDTH>
DEVICE uint32_t load_tile(KeyTile<T, WIDTH>& tile, const KeySource<T>& source, uint32_t first, uint32_t head_width) {
    const TilePlace place = tile_place(source, first);
    load_parts(tile, source, place, head_width, threadIdx.x / LANES, 2 * STRIPES, blockDim.x / LANES);
    copy_async_commit();
    return place.keys;
}

// ---- Norm of heads ------------------------------------------------------------------------------------------------

/// Sum over the 16 lanes of half a warp: a butterfly.
DEVICE float half_warp_sum(float value) {
#pragma unroll
    for (uint32_t distance = 8; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
    return value;
}

/// Normalises a stripe of 16 rows in place, rounding to T as norm.cu would. A warp takes two rows at a time; lane % 16
/// holds a vector and adds it in order, then lanes are added by a butterfly: the order of norm.cuh.
template <typename T, uint32_t WIDTH>
DEVICE void normalise_stripe(HeadRow<T, WIDTH>* stripe, const HeadNorm& norm, uint32_t head_width) {
    const uint32_t lane = threadIdx.x % LANES, column = lane % 16 * VECTOR;
    const bool inside = column < head_width;
    const float width = static_cast<float>(head_width);
    float weight[VECTOR] = {}, bias[VECTOR] = {};
    if (inside) load_floats(weight, norm.weight + column);
    if (inside && norm.bias != nullptr) load_floats(bias, norm.bias + column);
#pragma unroll 1
    for (uint32_t row = lane / 16; row < STRIPE; row += 2) {
        Word4* place = reinterpret_cast<Word4*>(&stripe[row][column]);
        float x[VECTOR], sum = 0.0f, squares = 0.0f;
        unpack_vector<T>(x, inside ? load_shared(place) : Word4{0, 0, 0, 0});
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) sum += x[i];
        const float mean = norm.layer != 0 ? half_warp_sum(sum) / width : 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) {
            x[i] = inside ? x[i] - mean : 0.0f;
            squares = fmaf(x[i], x[i], squares);
        }
        const float factor = reciprocal_square_root(half_warp_sum(squares) / width + norm.epsilon);
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) x[i] = fmaf(x[i] * factor, weight[i], bias[i]);
        if (inside) store_shared(place, pack_vector<T>(x));
    }
}

// ---- Attending ----------------------------------------------------------------------------------------------------

/// What the running state and a tile's are multiplied by when the tile joins.
struct Fold {
    float keep;
    float take;
};

/// Raises the running maximum to that of a tile. With no key seen so far both are -infinity and both factors 0.
DEVICE Fold raise_maximum(float& maximum, float tile_maximum) {
    const float before = maximum;
    maximum = larger(before, tile_maximum);
    const float base = maximum == -INFINITY ? 0.0f : maximum;
    return {exponential_2(before - base), exponential_2(tile_maximum - base)};
}

/// One over a row's sum of weights; 0 if it saw no key, so that its output is exactly 0.
DEVICE float inverse_total(float total) { return total > 0.0f ? 1.0f / total : 0.0f; }

template <uint32_t WIDTH, uint32_t N>
DEVICE void clear(Accumulator<WIDTH, N>& attended) {
#pragma unroll
    for (uint32_t block = 0; block < N * WIDTH / 8; ++block) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) attended.sums[block / (WIDTH / 8)][block % (WIDTH / 8)][i] = 0.0f;
    }
#pragma unroll
    for (uint32_t half = 0; half < 2 * N; ++half) {
        attended.maximum[half] = -INFINITY;
        attended.total[half] = 0.0f;
    }
}

/// The weights of the tile at key `first`, in `steps` steps; WHOLE: four steps, and every row sees all keys.
template <typename T, uint32_t WIDTH, bool WHOLE, uint32_t N>
DEVICE void score_tile(Probabilities<N>& weights, const Queries<T, WIDTH, N>& queries,
                       const KeyTile<T, WIDTH>& tile, uint32_t first, uint32_t steps, const Visible<N>& sight,
                        const Scoring<N>& scoring) {
    const uint32_t lane = threadIdx.x % LANES, pair = lane % 4 * 2;
    float scores[N][KEYS / 8][4] = {};
#pragma unroll
    for (uint32_t chunk = 0; chunk < WIDTH / 16; ++chunk) {
        uint32_t left[N][4];
        queries.load(left, chunk);
#pragma unroll
        for (uint32_t step = 0; step < STRIPES; ++step) {
            if (WHOLE || step < steps) {
                const uint32_t row = step * STRIPE + lane / 16 * 8 + lane % 8;
                uint32_t words[4];
                load_matrix_x4(words, &tile.keys[row][chunk * 16 + lane / 8 % 2 * 8]);
#pragma unroll
                for (uint32_t n = 0; n < N; ++n) {
                    multiply_accumulate<T>(scores[n][2 * step], left[n], {words[0], words[1]});
                    multiply_accumulate<T>(scores[n][2 * step + 1], left[n], {words[2], words[3]});
                }
            }
        }
    }
#pragma unroll
    for (uint32_t half = 0; half < 2 * N; ++half) {
        float(&stripe)[KEYS / 8][4] = scores[half / 2];
        const uint32_t at = half % 2 * 2, seen = sight.row[half];
        const float slope = scoring.slope[half];
        if (slope != 0.0f) {  // a row sees the keys up to its own position
            const float distance = static_cast<float>(static_cast<int32_t>(first + pair + 1 - seen));
#pragma unroll
            for (uint32_t i = 0; i < KEYS / 4; ++i) {
                float& score = stripe[i / 2][at + i % 2];
                score = fmaf(slope, distance + static_cast<float>(i / 2 * 8 + i % 2), score);
            }
        }
        float maximum = -INFINITY;
#pragma unroll
        for (uint32_t i = 0; i < KEYS / 4; ++i) {
            float& score = stripe[i / 2][at + i % 2];
            if (!WHOLE && first + i / 2 * 8 + pair + i % 2 >= seen) score = -INFINITY;
            maximum = larger(maximum, score);
        }
        maximum = larger(maximum, shuffle_xor(maximum, 1));
        maximum = larger(maximum, shuffle_xor(maximum, 2)) * scoring.scale;
        const float base = maximum == -INFINITY ? 0.0f : maximum;
        float total = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < KEYS / 4; ++i) {
            float& score = stripe[i / 2][at + i % 2];
            score = exponential_2(fmaf(score, scoring.scale, -base));
            total += score;
        }
        total += shuffle_xor(total, 1);
        total += shuffle_xor(total, 2);
        weights.maximum[half] = maximum;
        weights.total[half] = total;
#pragma unroll
        for (uint32_t block = 0; block < KEYS / 8; ++block) {
            weights.words[half / 2][block / 2][block % 2 * 2 + half % 2] =
                pack<T>(stripe[block][at], stripe[block][at + 1]);
        }
    }
}

/// Multiplies a tile's weights by its values, 16 columns at a time, and folds the products into the running state.
template <typename T, uint32_t WIDTH, bool WHOLE, uint32_t N>
DEVICE void accumulate_tile(Accumulator<WIDTH, N>& attended, const Probabilities<N>& weights,
                            const KeyTile<T, WIDTH>& tile, uint32_t steps) {
    const uint32_t lane = threadIdx.x % LANES;
    Fold fold[2 * N];
#pragma unroll
    for (uint32_t half = 0; half < 2 * N; ++half) {
        fold[half] = raise_maximum(attended.maximum[half], weights.maximum[half]);
        attended.total[half] = fmaf(attended.total[half], fold[half].keep, weights.total[half] * fold[half].take);
    }
#pragma unroll
    for (uint32_t chunk = 0; chunk < WIDTH / 16; ++chunk) {
        float products[N][2][4] = {};
#pragma unroll
        for (uint32_t step = 0; step < STRIPES; ++step) {
            if (WHOLE || step < steps) {
                uint32_t words[4];
                load_matrix_x4_transposed(words, &tile.values[step * STRIPE + lane % 16][chunk * 16 + lane / 16 * 8]);
#pragma unroll
                for (uint32_t n = 0; n < N; ++n) {
                    multiply_accumulate<T>(products[n][0], weights.words[n][step], {words[0], words[1]});
                    multiply_accumulate<T>(products[n][1], weights.words[n][step], {words[2], words[3]});
                }
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < N * 8; ++i) {
            const uint32_t n = i / 8, block = i / 4 % 2, at = i % 4;
            const Fold& factors = fold[2 * n + at / 2];
            float& sum = attended.sums[n][2 * chunk + block][at];
            sum = fmaf(sum, factors.keep, products[n][block][at] * factors.take);
        }
    }
}

/// Lets a warp's rows attend to the tile at key `first`. ALONE: the warp copied the tile for itself, keys and values as
/// two groups, and the values may still be under way.
template <typename T, uint32_t WIDTH, bool ALONE = false, uint32_t N>
DEVICE void attend(Accumulator<WIDTH, N>& attended, const Queries<T, WIDTH, N>& queries,
                   const KeyTile<T, WIDTH>& tile, uint32_t first, const Visible<N>& sight, const Scoring<N>& scoring) {
    const uint32_t steps = divide_up(remaining(sight.any, first, KEYS), STRIPE);
    if (steps == 0) return;
    const bool whole = sight.every >= first + KEYS;
    Probabilities<N> weights;
    if (whole) {
        score_tile<T, WIDTH, true>(weights, queries, tile, first, steps, sight, scoring);
    } else {
        score_tile<T, WIDTH, false>(weights, queries, tile, first, steps, sight, scoring);
    }
    if (ALONE) {
        copy_async_wait<0>();
        warp_barrier();
    }
    if (whole) {
        accumulate_tile<T, WIDTH, true>(attended, weights, tile, steps);
    } else {
        accumulate_tile<T, WIDTH, false>(attended, weights, tile, steps);
    }
}

/// What rows with this sight of a source see of its tile at key `first`: of an image's page all that is in it.
template <typename T, uint32_t N>
DEVICE Visible<N> sight_of_tile(const KeySource<T>& source, const Visible<N>& sight, uint32_t first, uint32_t keys) {
    return source.page_rows == KEYS ? sees_all<N>(first + keys) : sight;
}

/// Lets a warp's rows, if it has any, attend to a whole source, tile after tile, each copied while the one before it
/// is worked on. All threads of the block take part. `query` and `rows` as in load_queries, `rows` of all stripes;
/// the rows of a further stripe follow those of the one before. Shared memory: two tiles, and the queries of several
/// stripes.
template <typename T, uint32_t WIDTH, uint32_t N>
DEVICE void walk(Accumulator<WIDTH, N>& attended, const Rows& view, const HeadNorm& norm, const QueryRow& query,
                 uint32_t rows, const KeySource<T>& source, uint32_t head_width, const Visible<N>& sight,
                 const Scoring<N>& scoring) {
    // The queries of one stripe land where the second tile of keys will, and are in registers before it comes.
    KeyTile<T, WIDTH>* tiles = reinterpret_cast<KeyTile<T, WIDTH>*>(shared_memory());
    HeadRow<T, WIDTH>* stripes = reinterpret_cast<HeadRow<T, WIDTH>*>(tiles + (N == 1 ? 1 : 2)) +
                                 threadIdx.x / LANES % STRIPES * N * STRIPE;
#pragma unroll
    for (uint32_t row = 0; row < N * STRIPE; row += STRIPE) {
        const QueryRow first = {query.number + row, query.head};
        const uint32_t count = remaining(rows, row, STRIPE);
        if (rows > 0) load_queries<T, WIDTH>(stripes + row, view, first, count, head_width);
    }
    copy_async_commit();
    uint32_t keys = load_tile(tiles[0], source, 0, head_width);

    Queries<T, WIDTH, N> queries;
    clear(attended);
    copy_async_wait<1>();
    warp_barrier();
    if (rows > 0) {
        if (norm.weight != nullptr) {
#pragma unroll
            for (uint32_t n = 0; n < N; ++n) normalise_stripe<T, WIDTH>(stripes + n * STRIPE, norm, head_width);
            warp_barrier();
        }
        queries.take(stripes);
    }
    for (uint32_t first = 0; first < source.count; first += KEYS) {
        copy_async_wait<0>();
        block_barrier();
        const uint32_t next = first + KEYS, present = keys;
        if (next < source.count) keys = load_tile(tiles[next / KEYS % 2], source, next, head_width);
        if (source.row_bytes != 0) {
            widen_tile(tiles[first / KEYS % 2], present, threadIdx.x, blockDim.x);
            block_barrier();
        }
        const Visible<N> seen = sight_of_tile(source, sight, first, present);
        if (rows > 0) attend(attended, queries, tiles[first / KEYS % 2], first, seen, scoring);
    }
}

/// Writes a warp's rows, divided by their sums of weights. `query` and `rows` as in walk.
template <typename T, uint32_t WIDTH, uint32_t N>
DEVICE void store_rows(const Accumulator<WIDTH, N>& attended, const Rows& out, const QueryRow& query, uint32_t rows,
                       uint32_t head_width) {
    const uint32_t lane = threadIdx.x % LANES, pair = lane % 4 * 2;
#pragma unroll
    for (uint32_t half = 0; half < 2 * N; ++half) {
        const uint32_t first = half / 2 * STRIPE, in_stripe = lane / 4 + 8 * (half % 2), row = first + in_stripe;
        const uint32_t head = shuffle(query.head, in_stripe);
        T* to = row_of<T>(out, shuffle(query.number, in_stripe) + first) + head * head_width + pair;
        const float inverse = inverse_total(attended.total[half]);
#pragma unroll
        for (uint32_t block = 0; block < WIDTH / 8; ++block) {
            const float* sums = attended.sums[half / 2][block] + half % 2 * 2;
            const uint32_t word = pack<T>(sums[0] * inverse, sums[1] * inverse);
            if (row < rows && block * 8 < head_width) store_global(reinterpret_cast<uint32_t*>(to + block * 8), word);
        }
    }
}

/// The first `count` keys of pages, for one head of keys; `table` and `count` as in KeySource.
template <typename T>
DEVICE KeySource<T> page_keys(const Pages& pages, const uint32_t* table, uint32_t count, uint32_t head,
                              uint32_t head_width) {
    const uint32_t column_bytes = head_width * sizeof(T), stripe_bytes = STRIPE * (head_width + sizeof(bf16));
    const uint32_t skipped = head * (pages.row_bytes == 0 ? column_bytes : stripe_bytes);
    return {reinterpret_cast<const T*>(static_cast<const char*>(pages.keys) + skipped),
            reinterpret_cast<const T*>(static_cast<const char*>(pages.values) + skipped),
            pages.width,
            pages.width,
            count,
            table,
            pages.page_rows,
            pages.row_bytes};
}

/// The keys of image `image` in source `which`, for one head; in frames, those of all of its frames.
template <typename T>
DEVICE KeySource<T> image_keys(const ImageAttentionArguments& arguments, uint32_t which, uint32_t image,
                                 uint32_t head) {
    const Rows &key = arguments.key[which], &value = arguments.value[which];
    const uint32_t column = head * arguments.head_width;
    uint32_t first = image, units = 1;
    if (which == 0 && arguments.frame_starts != nullptr) {
        first = load_for_warp(arguments.frame_starts + image);
        units = load_for_warp(arguments.frame_starts + image + 1) - first;
    }
    return {row_of<T>(key, first * key.rows) + column,
            row_of<T>(value, first * value.rows) + column,
            key.stride,
            value.stride,
            units * arguments.key_rows[which],
            nullptr,
            0,
            0};
}
