// The attention half of a gated cross-attention block (Flamingo, section 2.2) for 1 to GATED_TOKENS_MAX tokens in one
// launch:
//   out = x + tanh(gate) * W_out attention(W_query norm(x), the images that each token sees).
// x and out (count, width), query and attended (count, inner), W_query (inner, width), W_out (width, inner). Where
// only tokens that see an image are to change, the others are x, bit for bit. Blocks meet at two barriers over the
// grid: when all queries are written, and when all that was attended is. Every part adds in the order of norm, linear
// and masked image attention: the bits are those of four launches.
//
// Bound by reading the two weights once. Every block that makes queries normalises all tokens for itself (2 * count *
// width bytes, from L2 after the first block), so that the normed rows meet neither memory nor a barrier. A part's work
// is cut in units of 16 rows of a weight, or one group of heads of one media tile, dealt to the blocks in turn. A block
// asks L2 for its rows of W_query before it normalises, and for those of W_out before the first barrier: they arrive
// while the few blocks with a head attend and the rest of the device would wait.
//
// When it pays: it saves three launches of four (about 1.3 us each in a graph) and costs two barriers, each one atomic
// and one load of L2 there and back. The weights are 4.2 MB (inner 512, width 2048: OpenFlamingo-3B), 1 us at the rate
// of an H200, up to 67 MB (inner and width 4096: IDEFICS-9B), 16 us, of which W_out's half starts early. With more
// tokens all blocks would read all of x and attended, and the four launches, with larger units, are better.
//
// gated_cross_attention_<bf16|f16>_<64|80|96|128>, by the padded head width. Cooperative launch; grid: as many blocks
// as the device holds at once, any number from 1 on; 256 threads.
//   shared bytes max(2 * count * stride + 5120, 512 * (WIDTH + 8)), stride = (width + 31) / 64 * 64 + 32.
// Pages are in T: with those in 8 bits too, registers do not hold the sums of heads 128 wide. Four launches read them.
#include "linear_rows.cuh"
#include "masked_image_attention.cuh"
#include "norm.cuh"

namespace gated {

constexpr uint32_t TOKENS = GATED_TOKENS_MAX;
constexpr uint32_t UNIT = 16;  // rows of a weight

/// Columns between the normed rows: 32 modulo 64, as SharedTokens wants them.
DEVICE uint32_t row_stride(uint32_t width) { return (width + 31) / 64 * 64 + 32; }

/// Waits until all blocks of the grid are here; what they wrote before is seen after. `barrier` holds how many have
/// come and the number of barriers so far. The last to come sets the first back to zero, so that the next barrier, or
/// the next launch, or a replay of its graph, finds it as this one did.
DEVICE void grid_barrier(uint32_t* barrier) {
    block_barrier();
    if (threadIdx.x == 0) {
        const uint32_t passed = load_acquire(barrier + 1);
        if (add_release(barrier, 1) == gridDim.x - 1) {
            add_release(barrier, 0 - gridDim.x);
            add_release(barrier + 1, 1);
        } else {
            while (load_acquire(barrier + 1) == passed) relax();
        }
    }
    block_barrier();
}

/// Asks L2 for the rows of a weight that this block will multiply.
template <typename T>
DEVICE void prefetch_units(const void* weight, uint32_t rows, uint32_t columns) {
    constexpr uint32_t LINE = 128;  // bytes
    for (uint32_t first = blockIdx.x * UNIT; first < rows; first += gridDim.x * UNIT) {
        const char* unit = reinterpret_cast<const char*>(static_cast<const T*>(weight) + uint64_t(first) * columns);
        const uint32_t bytes = smaller(UNIT, rows - first) * columns * sizeof(T);
        for (uint32_t byte = threadIdx.x * LINE; byte < bytes; byte += blockDim.x * LINE) prefetch_l2(unit + byte);
    }
}

/// Reads all tokens and leaves them normalised in `rows`, all at once, in the order of norm.cuh: a thread adds up what
/// it holds of each row, then warps, then all warps meet. `sums`: one float a row and warp, twice. No barrier follows.
template <typename T>
DEVICE void normalise_rows(T* rows, const GatedCrossAttentionArguments& arguments, float* sums) {
    const uint32_t width = arguments.width, stride = row_stride(width), lane = threadIdx.x % LANES;
    const NormArguments& norm = arguments.norm;
    float* const square_sums = sums + TOKENS * (NORM_THREADS / LANES);
    const uint32_t warps = NORM_THREADS / LANES;
    // The sum over all threads of what each held of a row.
    const auto add_warps = [warps](const float* row_sums) {
        float sum = load_shared(row_sums);
        for (uint32_t warp = 1; warp < warps; ++warp) sum += load_shared(row_sums + warp);
        return sum;
    };

    for (uint32_t row = 0; row < arguments.count; ++row) {
        const T* x = row_of<const T>(arguments.x, row);
        float total = 0.0f;
        for (uint32_t column = norm_column(threadIdx.x, 0); column < width; column += NORM_THREADS * VECTOR) {
            const Word4 word = load_vector(x + column);
            store_shared(reinterpret_cast<Word4*>(rows + row * stride + column), word);
            float value[VECTOR];
            unpack_vector<T>(value, word);
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) total += value[i];
        }
        total = warp_sum(total);
        if (lane == 0) store_shared(sums + row * warps + threadIdx.x / LANES, total);
    }
    block_barrier();
    for (uint32_t row = 0; row < arguments.count; ++row) {
        const float mean = norm.layer ? add_warps(sums + row * warps) / static_cast<float>(width) : 0.0f;
        float squares = 0.0f;
        for (uint32_t column = norm_column(threadIdx.x, 0); column < width; column += NORM_THREADS * VECTOR) {
            float value[VECTOR];
            unpack_vector<T>(value, load_shared(reinterpret_cast<const Word4*>(rows + row * stride + column)));
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) squares = fmaf(value[i] - mean, value[i] - mean, squares);
        }
        squares = warp_sum(squares);
        if (lane == 0) store_shared(square_sums + row * warps + threadIdx.x / LANES, squares);
    }
    block_barrier();
    for (uint32_t row = 0; row < arguments.count; ++row) {
        const float mean = norm.layer ? add_warps(sums + row * warps) / static_cast<float>(width) : 0.0f;
        const float variance = add_warps(square_sums + row * warps) / static_cast<float>(width);
        const float factor = reciprocal_square_root(variance + norm.epsilon);
        for (uint32_t column = norm_column(threadIdx.x, 0); column < width; column += NORM_THREADS * VECTOR) {
            Word4* const place = reinterpret_cast<Word4*>(rows + row * stride + column);
            float value[VECTOR], weight[VECTOR], bias[VECTOR] = {};
            unpack_vector<T>(value, load_shared(place));
            load_floats(weight, norm.weight + column);
            if (norm.bias != nullptr) load_floats(bias, norm.bias + column);
#pragma unroll
            for (uint32_t i = 0; i < VECTOR; ++i) value[i] = fmaf((value[i] - mean) * factor, weight[i], bias[i]);
            store_shared(place, pack_vector<T>(value));
        }
    }
}

/// The rows form of linear.cu, its units dealt to the blocks.
template <typename T, typename Tokens>
DEVICE void multiply(const LinearArguments& linear, const Tokens& tokens, float* partial) {
    for (uint32_t unit = blockIdx.x; unit * UNIT < linear.width; unit += gridDim.x) {
        block_barrier();  // what was in `partial` has been read, and what `tokens` reads is written
        linear::rows_block<T, UNIT, TOKENS>(linear, tokens, unit, partial);
    }
}

template <typename T, uint32_t WIDTH>
DEVICE void gated_cross_attention(const GatedCrossAttentionArguments& arguments) {
    const uint32_t count = arguments.count, width = arguments.width, inner = arguments.inner;
    const Rows query = {arguments.query, count, count, inner, 0};
    const Rows attended = {arguments.attended, count, count, inner, 0};

    if (blockIdx.x * UNIT < inner) {
        prefetch_units<T>(arguments.query_weight, inner, width);
        T* const normed = reinterpret_cast<T*>(shared_memory());
        float* const partial = reinterpret_cast<float*>(normed + count * row_stride(width));
        normalise_rows(normed, arguments, partial);

        LinearArguments to_query = {};
        to_query.out = query;
        to_query.weight = arguments.query_weight;
        to_query.count = count;
        to_query.columns = width;
        to_query.width = inner;
        to_query.clip = INFINITY;
        const linear::SharedTokens<T, TOKENS> normed_tokens(normed, row_stride(width), count);
        multiply<T>(to_query, normed_tokens, partial);
    }
    prefetch_units<T>(arguments.out_weight, width, inner);
    grid_barrier(arguments.barrier);

    MaskedImageAttentionArguments attention = {};
    attention.query = query;
    attention.out = attended;
    attention.pages = arguments.pages;
    attention.pages.row_bytes = 0;
    attention.tables = arguments.tables;
    attention.order = arguments.order;
    attention.query_norm = arguments.query_norm;
    attention.group = arguments.group;
    attention.sharing = arguments.sharing;
    attention.head_width = arguments.head_width;
    attention.scale = arguments.scale;
    const uint32_t groups = arguments.heads / arguments.group;
    for (uint32_t unit = blockIdx.x; unit < arguments.tile_count * groups; unit += gridDim.x) {
        const MediaTile* from = arguments.tiles + unit / groups;
        const Word4 tile = load_global(reinterpret_cast<const Word4*>(from));
        if (tile.y == 0) continue;
        block_barrier();  // what the unit before left in shared memory has been read
        masked_image_attention_tile<T, WIDTH>(attention, {tile.x, tile.y, tile.z, tile.w}, unit % groups);
    }
    grid_barrier(arguments.barrier);

    LinearArguments to_out = {};
    to_out.out = arguments.out;
    to_out.residual = arguments.x;
    to_out.weight = arguments.out_weight;
    to_out.gate = arguments.gate;
    to_out.seeing = arguments.seeing;
    to_out.count = count;
    to_out.columns = inner;
    to_out.width = width;
    to_out.gate_stride = arguments.gate_stride;
    to_out.clip = INFINITY;
    const linear::GlobalTokens<T, TOKENS> attended_tokens(attended, count);
    multiply<T>(to_out, attended_tokens, reinterpret_cast<float*>(shared_memory()));
}

}  // namespace gated

// A grid that waits for itself has a block for each multiprocessor, so its threads may have all registers.
#define GATED_CROSS_ATTENTION(T, WIDTH)                                                    \
    LARGE_KERNEL(gated_cross_attention_##T##_##WIDTH, GatedCrossAttentionArguments, 256) { \
        gated::gated_cross_attention<T, WIDTH>(arguments);                                 \
    }
GATED_CROSS_ATTENTION(bf16, 64)
GATED_CROSS_ATTENTION(bf16, 80)
GATED_CROSS_ATTENTION(bf16, 96)
GATED_CROSS_ATTENTION(bf16, 128)
GATED_CROSS_ATTENTION(f16, 64)
GATED_CROSS_ATTENTION(f16, 80)
GATED_CROSS_ATTENTION(f16, 96)
GATED_CROSS_ATTENTION(f16, 128)
