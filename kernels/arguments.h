// What each kernel is told: one plain struct a kernel, mirrored field by field in src/backend/gpu/arguments.rs.
// Counts and widths are in elements; `T` is the storage type of the kernel's name (bf16 or f16). Pointers lead to
// device memory; a null pointer means that the operand is absent. Vectors (bias, norm weights, gates) are f32.
#pragma once
#include <stdint.h>

/// A matrix of T: row i starts at data + (i / rows * row_pitch + i % rows) * stride, 16-byte aligned.
struct Rows {
    void* data;
    uint32_t rows;       // rows of the view in each unit (an image or a token)
    uint32_t row_pitch;  // rows of the buffer in each unit
    uint32_t stride;     // columns of the buffer
    uint32_t unused;
};

/// Pages of keys and values. In T: row r of page p starts at keys + (p * page_rows + r) * width. In 8 bits rows come in
/// stripes of 16, a stripe head by head: codes (16, head_width), then the scales of the 16 rows in bf16. So the stripe
/// of row r, a multiple of 16, starts at byte (p * page_rows + r) * row_bytes. A code stands for its product with the
/// scale of its row and head (src/kv/dtype.rs).
struct Pages {
    void* keys;
    void* values;
    uint32_t page_rows;  // a multiple of 16
    uint32_t width;      // all heads
    uint32_t row_bytes;  // in 8 bits: of a row with its scales; 0: pages are in T
    uint32_t unused;
};

enum class Activation : uint32_t { None, Gelu, GeluTanh, QuickGelu, Relu, Silu, SquaredRelu };

/// linear.cu: out = residual + tanh(gate) * clip(activation(x weight^T + bias)); of a token that sees no image, where
/// that is asked, the residual as it is.
struct LinearArguments {
    Rows x;              // (count, columns)
    Rows out;            // (count, width): T, or f32 with out_f32
    Rows residual;       // (count, width) T, or null; may be the same memory as out
    const void* weight;  // T (width, columns); paired: (2 * width, columns)
    const float* bias;   // (weight rows), or null
    const float* gate;   // one value, or one for each column of out; or null
    const uint32_t* seeing;  // for each row whether it sees an image; or null: nobody asks
    uint32_t count;
    uint32_t columns;      // a multiple of 8
    uint32_t width;        // any number
    uint32_t gate_stride;  // 0: one gate for all columns, 1: one for each
    Activation activation;
    uint32_t paired;   // out = activation(x first_half^T + bias) * (x second_half^T + bias): SwiGLU
    uint32_t out_f32;  // out holds f32 (logits); its stride counts f32
    float clip;        // bound on the absolute value; infinity for none
};

/// norm.cu: each `group` consecutive columns of a row normalised by themselves; out may be x.
struct NormArguments {
    Rows x;
    Rows out;
    const float* weight;  // (group)
    const float* bias;    // (group), or null
    uint32_t count;       // rows
    uint32_t width;       // columns of a row
    uint32_t group;       // width, or the width of a head
    uint32_t layer;       // 1: LayerNorm, 0: RMSNorm
    float epsilon;
    uint32_t rows_a_block;
};

/// Normalisation of queries or keys, head by head, inside an attention kernel; no norm if weight is null.
struct HeadNorm {
    const float* weight;  // (head_width)
    const float* bias;    // (head_width), or null
    float epsilon;
    uint32_t layer;  // 1: LayerNorm, 0: RMSNorm
};

/// Up to 64 consecutive tokens of one sequence: rows first..first + count of the batch, at positions position.. .
struct QueryTile {
    uint32_t first;
    uint32_t count;  // 0: an empty tile, nothing to do
    uint32_t position;
    uint32_t table;  // where the sequence's page numbers begin in `tables`
};

/// flash_attention.cu, causal over text pages: a token at position p attends to positions 0..=p of its sequence.
struct CausalAttentionArguments {
    Rows query;
    Rows out;
    Pages pages;
    const uint32_t* tables;
    const QueryTile* tiles;
    const float* slopes;  // ALiBi: score -= slope[head] * distance; or null
    uint32_t tile_count;
    uint32_t group;    // heads of queries that a block takes: a divisor of `sharing`, up to 16
    uint32_t sharing;  // heads of queries that share a head of keys
    uint32_t head_width;
    float scale;  // above 0
    uint32_t unused;
};

/// A token whose keys are split over blocks: row `token` of the batch. Its partial results stand one after the other.
struct SplitRow {
    uint32_t token;
    uint32_t position;  // where it sees images: any from the last key of their pages on
    uint32_t partial;   // its first partial result: of the tiles of keys that are walked, from the first key on
    uint32_t slots;     // its partial results: the walk's, then one for each further tile; 0: it sees nothing
};

/// What one block does for one group of heads: tokens first..first + count of the split rows, each with all heads of
/// the group, meet some tiles of keys. Either slot is 0, and up to 32 rows walk all keys of the item; they are in order
/// of position, or each sees all of these keys. Or up to 16 rows of one sequence, or of tokens that see the same
/// images, meet one tile a warp, `tile` and the next.
struct SplitItem {
    uint32_t first;
    uint32_t count;  // 0: nothing to do
    uint32_t table;  // where the pages begin in `tables`
    uint32_t tile;   // first tile of keys
    uint32_t slot;   // which of a row's partial results that tile gives
    uint32_t keys;   // keys there are
};

/// flash_attention.cu, for tokens whose keys are split over blocks: causal as above, or, in pages of KEYS rows, as
/// masked image attention.
struct SplitAttentionArguments {
    Rows query;
    Rows out;
    Pages pages;
    const uint32_t* tables;
    const SplitRow* rows;
    const SplitItem* items;
    HeadNorm query_norm;
    const float* slopes;  // as above
    float* partials;      // f32 (partial results, heads, head_width + 2)
    uint32_t row_count;
    uint32_t heads;
    uint32_t group;    // as above
    uint32_t sharing;  // as above
    uint32_t head_width;
    float scale;  // above 0
};

/// How an image is cut into tiles, which are its frames.
struct Tiling {
    uint32_t ratio;  // which shape they have together
    uint32_t tiles;  // how many there are
};

/// flash_attention.cu (one source: vision) and perceiver_attention.cu (two: context, then latents). All query_rows of a
/// image attend to all keys of that image, source after source.
struct ImageAttentionArguments {
    Rows query;
    Rows out;
    Rows key[2];
    Rows value[2];
    HeadNorm query_norm;
    HeadNorm key_norm;
    // Or null. Else the first source is in frames: image i has frames frame_starts[i] .. frame_starts[i + 1].
    const uint32_t* frame_starts;
    // Or null. Else rows behind those of the tiles that an image has, tile_rows each, see the rows of these alone.
    const Tiling* tilings;
    uint32_t query_rows;   // queries of an image
    uint32_t key_rows[2];  // keys of an image (of a frame) in each source; the second may be 0
    uint32_t images;
    uint32_t heads;
    uint32_t head_width;
    float scale;
    uint32_t tile_rows;
};

/// Up to 64 tokens that see the same images: rows order[first..first + count] of the batch.
struct MediaTile {
    uint32_t first;
    uint32_t count;  // 0: an empty tile, nothing to do
    uint32_t table;  // where the images' pages begin in `tables`: for each its number and how many rows it holds
    uint32_t pages;  // of all these images; 0: the tokens' outputs are exact zeros
};

/// masked_image_attention.cu: each token attends to the images that it sees, page after page.
struct MaskedImageAttentionArguments {
    Rows query;
    Rows out;
    Pages pages;
    const uint32_t* tables;
    const uint32_t* order;
    const MediaTile* tiles;
    HeadNorm query_norm;
    uint32_t tile_count;
    uint32_t group;    // as in causal attention
    uint32_t sharing;
    uint32_t head_width;
    float scale;
    uint32_t unused;
};

/// Tokens that gated_cross_attention.cu takes: one tile of the matrix units. Each of its blocks reads all of them, by
/// count 1.2 times the least bytes for one token and 2.5 times for 8 on 132 multiprocessors, where four launches ask
/// for 1.1 and 1.2 times; with more tokens these are the better way.
constexpr uint32_t GATED_TOKENS_MAX = 8;

/// gated_cross_attention.cu: out = x + tanh(gate) * W_out attention(W_query norm(x), images).
struct GatedCrossAttentionArguments {
    Rows x;
    Rows out;  // may be x
    NormArguments norm;  // only weight, bias, layer, epsilon are read
    HeadNorm query_norm;
    Pages pages;  // in T
    const uint32_t* tables;
    const uint32_t* order;
    const MediaTile* tiles;
    const void* query_weight;  // T (inner, width)
    const void* out_weight;    // T (width, inner)
    const float* gate;
    const uint32_t* seeing;  // as in linear.cu
    void* query;             // scratch: T (count, inner)
    void* attended;          // scratch: T (count, inner)
    uint32_t* barrier;       // two words, zero at first; left as the next launch needs them
    uint32_t tile_count;
    uint32_t count;  // tokens, 1 to GATED_TOKENS_MAX
    uint32_t width;
    uint32_t inner;  // heads * head_width
    uint32_t heads;
    uint32_t group;    // as in causal attention
    uint32_t sharing;
    uint32_t head_width;
    uint32_t gate_stride;
    float scale;
};

/// Of a frame without pixels.
constexpr uint32_t NO_PIXELS = 0xffffffff;

/// pointwise.cu: 8-bit pixels (frames, side, side, 3) to rows (channel, y, x) of each patch, each level looked up; of a
/// frame without pixels to zeros.
struct PatchesArguments {
    const uint8_t* pixels;
    const uint32_t* pixel_places;  // for each frame, where it stands among those with pixels
    const float* levels;  // (3, 256): what each level of a channel becomes
    Rows out;             // columns 3 * patch * patch .. width are set to zero
    uint32_t side;
    uint32_t patch;
    uint32_t width;  // columns written: 3 * patch * patch, filled up to a multiple of 8
    uint32_t unused;
};

/// pointwise.cu: the class row before the patches of each frame, and the position embedding added to all. Where frames
/// are tiles, each image's shape and each of its tiles have an embedding of their own.
struct ClassAndPositionArguments {
    Rows patches;
    Rows out;
    const float* class_row;  // (width), or null: it is in the position embedding
    const void* position;    // T (patches + 1, width); of tiles (shape, tile, patches + 1, width)
    const Tiling* tilings;   // of each image; null: frames are no tiles
    uint32_t frames;
    uint32_t tiles;  // frames of an image
    uint32_t patches_count;
    uint32_t width;
};

/// pointwise.cu: to each row of an image the row of a table for its tile. Rows are tile_rows of each tile, then equally
/// many more of each.
struct TileEmbeddingArguments {
    Rows x;
    Rows table;  // T (shape, tile; width)
    Rows out;
    const Tiling* tilings;  // of each image
    uint32_t count;         // rows of out
    uint32_t width;
    uint32_t tiles;
    uint32_t tile_rows;
};

/// Matrices that are put side by side at once.
constexpr uint32_t PARTS_MAX = 16;

/// pointwise.cu: columns of several matrices side by side; behind the rows that a unit has of them, zeros.
struct ConcatenateArguments {
    Rows parts[PARTS_MAX];
    uint32_t widths[PARTS_MAX];  // 0: no such part
    Rows out;
    uint32_t count;  // rows of out
    uint32_t width;  // columns of all parts
};

/// Where a frame stands in its video.
struct FramePlace {
    uint32_t number;
    uint32_t count;  // frames of the video
    uint32_t image;  // which of the batch's images and videos that is
};

/// pointwise.cu: the embedding of a frame's place added to all rows of the frame.
struct FrameEmbeddingArguments {
    Rows x;
    Rows table;  // T (table_rows, width)
    Rows out;
    const FramePlace* places;  // of each frame
    uint32_t count;            // rows of out
    uint32_t width;
    uint32_t table_rows;
    uint32_t unused;
};

/// pointwise.cu: gather: out row i = table row index(i) + offset (+ add row i); repeat: row i % table_rows.
struct GatherArguments {
    Rows table;  // T
    Rows out;
    Rows add;               // T, or null
    const uint32_t* index;
    uint32_t count;
    uint32_t width;
    uint32_t offset;      // added to the index
    uint32_t table_rows;
};

/// pointwise.cu: rotary embedding of queries in place and of keys, then keys and values to their pages. The rows of an
/// image that its pages have no room for go nowhere.
struct AppendArguments {
    Rows query;  // null data: no rotary embedding of queries
    Rows key;
    Rows value;
    Pages pages;
    const uint32_t* positions;  // text: of each token
    const uint32_t* table_of;   // text: where each token's page numbers begin in `tables`; null: images
    const uint32_t* tables;     // text: page numbers; images: for each page its number and how many rows it holds
    const uint32_t* image_pages;  // images: where the pages of each begin in `tables`, and the end of the last
    const FramePlace* places;     // images: units are frames; null: units are images
    const float* frequencies;     // (rotary_width / 2): what a position is multiplied by, in radians
    uint32_t count;               // rows
    uint32_t query_width;         // all heads of queries
    uint32_t width;               // all heads of keys
    uint32_t unit_rows;           // images: rows of a unit
    uint32_t head_width;
    uint32_t rotary_width;  // entries of each head that rotate; 0: none
};

/// pointwise.cu: whole pages of all layers copied: `from` and `to` are page numbers.
struct CopyPageArguments {
    void* keys;    // (layers, pages), in any format
    void* values;
    uint64_t layer_pitch;  // 16-bit words of one layer
    uint64_t page_size;    // 16-bit words of one page
    uint32_t from;
    uint32_t to;
    uint32_t layers;
    uint32_t unused;
};

/// pointwise.cu: numbers spread evenly over -bound..bound, the same for the same seed. For measurements.
struct RandomArguments {
    void* data;  // T
    uint64_t count;
    uint32_t seed;
    float bound;
};

enum class SampleTask : uint32_t { Sample, Targets, TopK };

/// sample.cu: what is wanted of one row of logits: one token, those of a list, or the most likely ones.
struct SampleRequest {
    SampleTask task;
    uint32_t first;     // where its list begins in `found` and `targets`
    uint32_t count;     // tokens wanted, 1 for Sample
    float temperature;  // Sample: 0: the most likely token
    uint32_t top_k;     // Sample; 0: all
    float top_p;        // Sample; 1: all
    float uniform;      // Sample; a number in [0, 1)
    float score;        // TopK: of the tokens before; the order is that of f32 sums with it
};
constexpr uint32_t NO_TOKEN = 0xffffffff;

/// A token and its logit as it came. The first of a row's list is NO_TOKEN with the log-sum-exp of the whole row as it
/// came, suppressed tokens included; then `count` tokens, NO_TOKEN where there are fewer.
struct SampleToken {
    uint32_t token;
    float logit;
};

struct SampleArguments {
    const float* logits;  // (count, width), row i at logits + i * stride
    const SampleRequest* requests;
    const uint32_t* suppressed;  // tokens that are never chosen, ascending
    const uint32_t* targets;    // for each place of the lists, the token wanted there by Targets
    SampleToken* found;         // the lists
    void* scratch;  // (count, width) of 8 bytes
    uint32_t count;
    uint32_t width;
    uint32_t stride;
    uint32_t suppressed_count;
};
