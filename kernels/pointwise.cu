// What moves rows about between matrix products: pixels to patches, class row and embeddings of places, gathers,
// columns side by side, rotary embedding with the append to pages, copies of pages. All are bound by memory: every
// value is read once and written once, 16 bytes a thread, neighbouring threads at neighbouring addresses (but for
// pixels, which come singly and through L1). Widths are multiples of 8.
//
// One block for each line of patches:
//   patches_<bf16|f16>             grid frames * (side / patch), threads 256, shared bytes 4 * 3 * 256
// One thread for each vector of 8 columns, threads 256, shared bytes 0:
//   class_and_position_<bf16|f16>  grid divide_up((patches_count + 1) * width / 8, 256), all frames by one thread
//   frame_embedding_<bf16|f16>     grid divide_up(count * width / 8, 256)
//   tile_embedding_<bf16|f16>      grid divide_up(count * width / 8, 256)
//   concatenate_<bf16|f16>         grid divide_up(count * width / 8, 256)
//   gather_<bf16|f16>              grid divide_up(count * width / 8, 256)
//   repeat_<bf16|f16>              grid divide_up(table_rows * width / 8, 256), all copies of a row by one thread
// One block for each row:
//   append_<bf16|f16>              grid count, threads min(256, round_up(query_width / 8, 32)), shared 4 * rotary_width
// One thread for each vector of a page, of either type:
//   copy_page                      grid (divide_up(page_size / 8, 256), layers), threads 256, shared bytes 0
// One thread for each number in turn, as many blocks as one likes:
//   random_<bf16|f16>              grid any, threads 256, shared bytes 0
#include "vector.cuh"

/// The vector of this thread in a matrix of `width` columns: its row, and the column where it begins.
struct Place {
    uint32_t row, column;
};
DEVICE Place place_of_thread(uint32_t width) {
    const uint32_t vector = blockIdx.x * blockDim.x + threadIdx.x;
    return {vector / (width / VECTOR), vector % (width / VECTOR) * VECTOR};
}

/// The values at one place of a matrix, to and from f32.
template <typename T>
DEVICE void read(float (&value)[VECTOR], const T* address) {
    unpack_vector<T>(value, load_vector(address));
}
template <typename T>
DEVICE void read(float (&value)[1], const T* address) {
    value[0] = to_float(load_global(address));
}
template <typename T>
DEVICE void write(T* address, const float (&value)[VECTOR]) {
    store_vector(address, pack_vector<T>(value));
}
template <typename T>
DEVICE void write(T* address, const float (&value)[1]) {
    store_global(address, from_float<T>(value[0]));
}
template <typename T>
DEVICE void add(float (&value)[VECTOR], const T* address) {
    float other[VECTOR];
    read(other, address);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; ++i) value[i] += other[i];
}

/// out (frames * patches, width): row (channel, y, x) of each patch, the grid of patches line by line. A line of
/// patches is a whole number of lines of pixels, which lie together. A frame without pixels is zeros.
template <typename T>
DEVICE void patches(const PatchesArguments& arguments) {
    const uint32_t side = arguments.side;
    const uint32_t patch = arguments.patch;
    const uint32_t grid = side / patch;
    const uint32_t vectors = arguments.width / VECTOR;
    const uint32_t pixel_place = load_for_warp(arguments.pixel_places + blockIdx.x / grid);
    if (pixel_place == NO_PIXELS) {  // the whole block
        for (uint32_t vector = threadIdx.x; vector < grid * vectors; vector += blockDim.x) {
            T* row = row_of<T>(arguments.out, blockIdx.x * grid + vector / vectors);
            store_vector(row + vector % vectors * VECTOR, Word4{0, 0, 0, 0});
        }
        return;
    }
    const uint64_t first_line = uint64_t(pixel_place) * side + blockIdx.x % grid * patch;
    const uint8_t* line = arguments.pixels + first_line * side * 3;
    float* levels = reinterpret_cast<float*>(shared_memory());
    for (uint32_t level = threadIdx.x; level < 3 * 256; level += blockDim.x) {
        store_shared(levels + level, load_global(arguments.levels + level));
    }
    block_barrier();

    for (uint32_t vector = threadIdx.x; vector < grid * vectors; vector += blockDim.x) {
        const uint32_t grid_x = vector / vectors;
        const uint32_t column = vector % vectors * VECTOR;
        const uint8_t* pixels = line + grid_x * patch * 3;
        uint32_t x = column % patch;
        uint32_t y = column / patch % patch;
        uint32_t channel = column / (patch * patch);
        const float* levels_of_channel = levels + channel * 256;
        float value[VECTOR];
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) {
            value[i] = 0.0f;
            if (channel < 3) {
                const uint32_t level = load_global(pixels + (y * side + x) * 3 + channel);
                value[i] = load_shared(levels_of_channel + level);
            }
            x += 1;
            if (x == patch) x = 0, y += 1;
            if (y == patch) y = 0, channel += 1, levels_of_channel += 256;
        }
        write(row_of<T>(arguments.out, blockIdx.x * grid + grid_x) + column, value);
    }
}

/// out (frames * (patches + 1), width): the class row, then the rows of the patches; the position's row added to each,
/// which of a tile is that of the image's shape and the tile's place in it.
template <typename T>
DEVICE void class_and_position(const ClassAndPositionArguments& arguments) {
    const uint32_t rows = arguments.patches_count + 1;
    const Place place = place_of_thread(arguments.width);
    if (place.row >= rows) return;

    const T* table = static_cast<const T*>(arguments.position) + uint64_t(place.row) * arguments.width + place.column;
    float position[VECTOR] = {}, class_row[VECTOR] = {};
    if (arguments.tilings == nullptr) read(position, table);
    if (place.row == 0 && arguments.class_row != nullptr) load_floats(class_row, arguments.class_row + place.column);
    for (uint32_t frame = 0; frame < arguments.frames; ++frame) {
        if (arguments.tilings != nullptr) {
            const uint32_t ratio = load_global(&arguments.tilings[frame / arguments.tiles].ratio);
            const uint32_t tile = ratio * arguments.tiles + frame % arguments.tiles;
            read(position, table + uint64_t(tile) * rows * arguments.width);
        }
        float value[VECTOR];
        const uint32_t patch = frame * arguments.patches_count + place.row - 1;
        if (place.row > 0) read(value, row_of<T>(arguments.patches, patch) + place.column);
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) value[i] = (place.row > 0 ? value[i] : class_row[i]) + position[i];
        write(row_of<T>(arguments.out, frame * rows + place.row) + place.column, value);
    }
}

/// out (count, width): x, and to each row of an image the row of the table for its shape and tile.
template <typename T>
DEVICE void tile_embedding(const TileEmbeddingArguments& arguments) {
    const Place place = place_of_thread(arguments.width);
    if (place.row >= arguments.count) return;

    const uint32_t rows = arguments.x.rows, row = place.row % rows;
    const uint32_t own = arguments.tiles * arguments.tile_rows;
    const uint32_t tile = row < own ? row / arguments.tile_rows : (row - own) / ((rows - own) / arguments.tiles);
    const uint32_t ratio = load_global(&arguments.tilings[place.row / rows].ratio);
    float value[VECTOR];
    read(value, row_of<T>(arguments.x, place.row) + place.column);
    add(value, row_of<T>(arguments.table, ratio * arguments.tiles + tile) + place.column);
    write(row_of<T>(arguments.out, place.row) + place.column, value);
}

/// out (count, width): columns of several matrices side by side; of each the rows that a unit has, and zeros behind
/// them.
template <typename T>
DEVICE void concatenate(const ConcatenateArguments& arguments) {
    const Place place = place_of_thread(arguments.width);
    if (place.row >= arguments.count) return;

    const uint32_t unit = place.row / arguments.out.rows, row = place.row % arguments.out.rows;
    uint32_t part = 0, column = place.column;
    for (; column >= arguments.widths[part]; ++part) column -= arguments.widths[part];
    const Rows& from = arguments.parts[part];
    Word4 vector = {0, 0, 0, 0};
    if (row < from.rows) vector = load_vector(row_of<T>(from, unit * from.rows + row) + column);
    store_vector(row_of<T>(arguments.out, place.row) + place.column, vector);
}

/// out (count, width): x, and to each row the embedding of its frame's place: a row of the table, or, in a video with
/// more frames than the table has rows, what lies between two.
template <typename T>
DEVICE void frame_embedding(const FrameEmbeddingArguments& arguments) {
    const Place place = place_of_thread(arguments.width);
    if (place.row >= arguments.count) return;

    const uint32_t* frame = reinterpret_cast<const uint32_t*>(arguments.places + place.row / arguments.x.rows);
    const uint32_t number = load_global(frame), frames = load_global(frame + 1), last = arguments.table_rows - 1;
    uint32_t row = number;
    float share = 0.0f;
    if (frames > arguments.table_rows) {
        const float stretched = static_cast<float>(number) * static_cast<float>(last) / static_cast<float>(frames - 1);
        row = static_cast<uint32_t>(stretched);
        share = stretched - static_cast<float>(row);
    }
    float value[VECTOR], before[VECTOR], after[VECTOR];
    read(value, row_of<T>(arguments.x, place.row) + place.column);
    read(before, row_of<T>(arguments.table, row) + place.column);
    read(after, row_of<T>(arguments.table, row < last ? row + 1 : last) + place.column);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; ++i) value[i] += fmaf(after[i] - before[i], share, before[i]);
    write(row_of<T>(arguments.out, place.row) + place.column, value);
}

/// out (count, width): row index(i) + offset of a table, and row i of `add`.
template <typename T>
DEVICE void gather(const GatherArguments& arguments) {
    const Place place = place_of_thread(arguments.width);
    if (place.row >= arguments.count) return;

    float value[VECTOR];
    const uint32_t index = load_global(arguments.index + place.row) + arguments.offset;
    read(value, row_of<T>(arguments.table, index) + place.column);
    if (arguments.add.data != nullptr) add(value, row_of<T>(arguments.add, place.row) + place.column);
    write(row_of<T>(arguments.out, place.row) + place.column, value);
}

/// out (count, width): the rows of a table again and again; each is read once.
template <typename T>
DEVICE void repeat(const GatherArguments& arguments) {
    const Place place = place_of_thread(arguments.width);
    if (place.row >= arguments.table_rows) return;
    const Word4 vector = load_vector(row_of<T>(arguments.table, place.row) + place.column);
    for (uint32_t row = place.row; row < arguments.count; row += arguments.table_rows) {
        store_vector(row_of<T>(arguments.out, row) + place.column, vector);
    }
}

struct Turn {
    float cosine, sine;
};

/// Cosine and sine of an angle from 0 to 2^18, absolute error below 2^-22. Quarter turns are taken off with pi / 2
/// in three parts (Cody and Waite 1980); the first difference is exact, since the multiple cancels the leading bits.
/// What is left lies within pi / 4, where few terms of the series do. CUDA's own functions need a stack frame, for
/// angles far larger than those of positions.
DEVICE Turn turn_by(float angle) {
    const float quarters = rintf(angle * 0.636619772f);
    float x = fmaf(quarters, -1.57079637f, angle);
    x = fmaf(quarters, 4.37113883e-8f, x);
    x = fmaf(quarters, 1.71512449e-15f, x);
    const float square = x * x;
    float sine = fmaf(square, 1.0f / 362880.0f, -1.0f / 5040.0f);
    sine = fmaf(square, sine, 1.0f / 120.0f);
    sine = fmaf(square, sine, -1.0f / 6.0f);
    sine = fmaf(square * x, sine, x);
    float cosine = fmaf(square, -1.0f / 3628800.0f, 1.0f / 40320.0f);
    cosine = fmaf(square, cosine, -1.0f / 720.0f);
    cosine = fmaf(square, cosine, 1.0f / 24.0f);
    cosine = fmaf(square, cosine, -0.5f);
    cosine = fmaf(square, cosine, 1.0f);
    switch (static_cast<uint32_t>(quarters) % 4) {
        case 0: return {cosine, sine};
        case 1: return {-sine, cosine};
        case 2: return {-cosine, -sine};
        default: return {sine, -cosine};
    }
}

/// `WIDTH` pairs (first[i], second[i]) from `from` to `to`, turned: angle i is that of cosines[i] and sines[i].
template <uint32_t WIDTH, typename T>
DEVICE void rotate(T* to, const T* from, uint32_t half, const float (&cosine)[WIDTH], const float (&sine)[WIDTH]) {
    float first[WIDTH], second[WIDTH];
    read(first, from);
    read(second, from + half);
#pragma unroll
    for (uint32_t i = 0; i < WIDTH; ++i) {
        const float x = first[i];
        const float y = second[i];
        first[i] = x * cosine[i] - y * sine[i];
        second[i] = y * cosine[i] + x * sine[i];
    }
    write(to, first);
    write(to + half, second);
}

/// Turns the first `rotary_width` entries of each head of a query, in place, and of a key on its way to its page, where
/// the key's other entries follow; `WIDTH` entries at a time.
template <uint32_t WIDTH, typename T>
DEVICE void rotate_row(const AppendArguments& arguments, T* query, const T* key, T* page, const float* cosines) {
    const uint32_t head_width = arguments.head_width;
    const uint32_t heads = arguments.width / head_width;
    const uint32_t query_heads = query != nullptr ? arguments.query_width / head_width : 0;
    const uint32_t half = arguments.rotary_width / 2;
    const float* sines = cosines + half;
    const uint32_t turned = larger(heads, query_heads) * (half / WIDTH);
    for (uint32_t unit = threadIdx.x; unit < turned; unit += blockDim.x) {
        const uint32_t entry = unit % (half / WIDTH) * WIDTH;
        const uint32_t column = unit / (half / WIDTH) * head_width + entry;
        float cosine[WIDTH], sine[WIDTH];
#pragma unroll
        for (uint32_t i = 0; i < WIDTH; ++i) {
            cosine[i] = load_shared(cosines + entry + i);
            sine[i] = load_shared(sines + entry + i);
        }
        if (column < query_heads * head_width) rotate<WIDTH>(query + column, query + column, half, cosine, sine);
        if (column < arguments.width) rotate<WIDTH>(page + column, key + column, half, cosine, sine);
    }
    const uint32_t rest = page == key ? 0 : head_width - 2 * half;
    for (uint32_t unit = threadIdx.x; unit < heads * (rest / WIDTH); unit += blockDim.x) {
        const uint32_t column = unit / (rest / WIDTH) * head_width + 2 * half + unit % (rest / WIDTH) * WIDTH;
        float value[WIDTH];
        read(value, key + column);
        write(page + column, value);
    }
}

/// A row of keys or values in 8 bits to its place among all rows of `pages`: half a warp takes a head, a lane 8 of it.
template <typename T>
DEVICE void append_codes(const AppendArguments& arguments, void* pages, uint64_t place, const T* from) {
    constexpr uint32_t SHARE = LANES / 2, STRIPE = 16;
    const uint32_t head_width = arguments.head_width, heads = arguments.width / head_width;
    const uint32_t row = place % STRIPE, in_head = threadIdx.x % SHARE * VECTOR;
    char* const stripe = static_cast<char*>(pages) + (place - row) * arguments.pages.row_bytes;
    for (uint32_t first = 0; first < heads; first += blockDim.x / SHARE) {
        const uint32_t head = first + threadIdx.x / SHARE;
        const bool inside = head < heads && in_head < head_width;
        float value[VECTOR] = {};
        if (inside) read(value, from + head * head_width + in_head);
        // The order of bits is that of absolute values, and NaN is above all.
        uint32_t largest = 0;
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) largest = larger(largest, bits_of_float(value[i]) & 0x7fffffffu);
#pragma unroll
        for (uint32_t distance = SHARE / 2; distance > 0; distance /= 2) {
            largest = larger(largest, shuffle_xor(largest, distance));
        }
        const bf16 scale = from_float<bf16>(float_of_bits(largest) / 127.0f);
        const float divisor = to_float(scale);
        const bool normal = divisor >= 0x1p-126f && divisor < INFINITY;
        uint32_t codes[2] = {};
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; ++i) {
            const int32_t code = normal ? static_cast<int32_t>(rintf(value[i] / divisor)) : 0;
            codes[i / 4] |= (static_cast<uint32_t>(code) & 0xffu) << 8 * (i % 4);
        }
        char* const own = stripe + head * STRIPE * (head_width + sizeof(bf16));
        if (inside) store_global(reinterpret_cast<Word2*>(own + row * head_width + in_head), Word2{codes[0], codes[1]});
        if (inside && in_head == 0) store_global(reinterpret_cast<bf16*>(own + STRIPE * head_width) + row, scale);
    }
}

/// Row i of keys and values to its page; before that, rotary embedding of query and key, half split: entries j and
/// j + rotary_width / 2 are turned by position * frequencies[j].
template <typename T>
DEVICE void append(const AppendArguments& arguments) {
    const uint32_t row = blockIdx.x;
    uint32_t position = 0, page = 0, page_row = 0;
    if (arguments.table_of != nullptr) {
        position = load_for_warp(arguments.positions + row);
        const uint32_t table = load_for_warp(arguments.table_of + row);
        page = load_for_warp(arguments.tables + table + position / arguments.pages.page_rows);
        page_row = position % arguments.pages.page_rows;
    } else {
        uint32_t image = row / arguments.unit_rows, image_row = row % arguments.unit_rows;
        if (arguments.places != nullptr) {
            const uint32_t* frame = reinterpret_cast<const uint32_t*>(arguments.places + image);
            image_row += load_for_warp(frame) * arguments.unit_rows;
            image = load_for_warp(frame + 2);
        }
        const uint32_t place =
            load_for_warp(arguments.image_pages + image) + image_row / arguments.pages.page_rows * 2;
        if (place >= load_for_warp(arguments.image_pages + image + 1)) return;
        page = load_for_warp(arguments.tables + place);
        page_row = image_row % arguments.pages.page_rows;
        if (page_row >= load_for_warp(arguments.tables + place + 1)) return;
    }
    const uint64_t place = uint64_t(page) * arguments.pages.page_rows + page_row;

    // One token's queries and keys turn by the same angles in all heads.
    const uint32_t half = arguments.rotary_width / 2;
    float* cosines = reinterpret_cast<float*>(shared_memory());
    for (uint32_t j = threadIdx.x; j < half; j += blockDim.x) {
        const Turn turn = turn_by(static_cast<float>(position) * load_global(arguments.frequencies + j));
        store_shared(cosines + j, turn.cosine);
        store_shared(cosines + half + j, turn.sine);
    }
    block_barrier();

    T* query = arguments.query.data != nullptr ? row_of<T>(arguments.query, row) : nullptr;
    // In 8 bits a head is turned as a whole before it is stored: in place.
    const bool int8 = arguments.pages.row_bytes != 0;
    T* key = row_of<T>(arguments.key, row);
    T* key_page = int8 ? key : static_cast<T*>(arguments.pages.keys) + place * arguments.pages.width;
    if (half % VECTOR == 0) {
        rotate_row<VECTOR>(arguments, query, key, key_page, cosines);
    } else {
        rotate_row<1>(arguments, query, key, key_page, cosines);
    }
    const T* value = row_of<T>(arguments.value, row);
    if (int8) {
        block_barrier();
        append_codes(arguments, arguments.pages.keys, place, key);
        append_codes(arguments, arguments.pages.values, place, value);
        return;
    }
    T* value_page = static_cast<T*>(arguments.pages.values) + place * arguments.pages.width;
    for (uint32_t column = threadIdx.x * VECTOR; column < arguments.width; column += blockDim.x * VECTOR) {
        store_vector(value_page + column, load_vector(value + column));
    }
}

/// Page `to` of each layer becomes what page `from` is.
DEVICE void copy_vectors(const CopyPageArguments& arguments) {
    const uint64_t column = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * VECTOR;
    if (column >= arguments.page_size) return;
    const uint64_t layer = blockIdx.y * arguments.layer_pitch + column;
    const uint64_t from = layer + arguments.from * arguments.page_size;
    const uint64_t to = layer + arguments.to * arguments.page_size;
    uint16_t* keys = static_cast<uint16_t*>(arguments.keys);
    uint16_t* values = static_cast<uint16_t*>(arguments.values);
    store_vector(keys + to, load_vector(keys + from));
    store_vector(values + to, load_vector(values + from));
}

/// Numbers that depend on seed and place alone.
template <typename T>
DEVICE void random(const RandomArguments& arguments) {
    const uint64_t threads = uint64_t(gridDim.x) * blockDim.x;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < arguments.count; i += threads) {
        uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u + arguments.seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        const float unit = static_cast<float>(static_cast<uint32_t>(z >> 40)) * 0x1p-23f - 1.0f;
        store_global(static_cast<T*>(arguments.data) + i, from_float<T>(unit * arguments.bound));
    }
}

KERNEL(patches_bf16, PatchesArguments, 256) { patches<bf16>(arguments); }
KERNEL(class_and_position_bf16, ClassAndPositionArguments, 256) { class_and_position<bf16>(arguments); }
KERNEL(frame_embedding_bf16, FrameEmbeddingArguments, 256) { frame_embedding<bf16>(arguments); }
KERNEL(tile_embedding_bf16, TileEmbeddingArguments, 256) { tile_embedding<bf16>(arguments); }
KERNEL(concatenate_bf16, ConcatenateArguments, 256) { concatenate<bf16>(arguments); }
KERNEL(gather_bf16, GatherArguments, 256) { gather<bf16>(arguments); }
KERNEL(repeat_bf16, GatherArguments, 256) { repeat<bf16>(arguments); }
KERNEL(append_bf16, AppendArguments, 256) { append<bf16>(arguments); }
KERNEL(random_bf16, RandomArguments, 256) { random<bf16>(arguments); }

KERNEL(patches_f16, PatchesArguments, 256) { patches<f16>(arguments); }
KERNEL(class_and_position_f16, ClassAndPositionArguments, 256) { class_and_position<f16>(arguments); }
KERNEL(frame_embedding_f16, FrameEmbeddingArguments, 256) { frame_embedding<f16>(arguments); }
KERNEL(tile_embedding_f16, TileEmbeddingArguments, 256) { tile_embedding<f16>(arguments); }
KERNEL(concatenate_f16, ConcatenateArguments, 256) { concatenate<f16>(arguments); }
KERNEL(gather_f16, GatherArguments, 256) { gather<f16>(arguments); }
KERNEL(repeat_f16, GatherArguments, 256) { repeat<f16>(arguments); }
KERNEL(append_f16, AppendArguments, 256) { append<f16>(arguments); }
KERNEL(random_f16, RandomArguments, 256) { random<f16>(arguments); }

KERNEL(copy_page, CopyPageArguments, 256) { copy_vectors(arguments); }
