// Attention of text tokens to images, masked per image (Flamingo, section 2.3): a token sees the one image before it,
// or a few neighbours, so the tokens are ordered by what they see and each tile meets the pages of its images; no mask
// is ever formed. Tokens that see nothing get exact zeros. IDEFICS' RMS norm of the query heads is fused.
//
// Shapes: query and out (tokens, heads * head_width), rows order[first..first + count] of a tile (up to 64 with all
// heads of a group); keys and values (pages, 64, heads * head_width), an image's last page partly full.
// Names: masked_image_attention_<bf16|f16>_<64|80|96|128>, by the padded head width.
// Grid (tile_count, heads / group), 128 threads; shared bytes 512 * (WIDTH + 8): two tiles of 64 keys and values.
// Bound: memory, by queries and outputs for long prompts, by the pages of a tile and head in decoding.
#include "masked_image_attention.cuh"

template <typename T, uint32_t WIDTH>
DEVICE void masked_image_attention(const MaskedImageAttentionArguments& arguments) {
    const MediaTile* tiles = arguments.tiles;
    const Word4 tile = load_global(reinterpret_cast<const Word4*>(tiles + blockIdx.x));
    if (tile.y == 0) return;
    masked_image_attention_tile<T, WIDTH>(arguments, {tile.x, tile.y, tile.z, tile.w}, blockIdx.y);
}

#define MASKED_IMAGE_ATTENTION(T, WIDTH)                                                                           \
    LARGE_KERNEL(masked_image_attention_##T##_##WIDTH, MaskedImageAttentionArguments, ATTENTION_THREADS) {         \
        masked_image_attention<T, WIDTH>(arguments);                                                               \
    }
MASKED_IMAGE_ATTENTION(bf16, 64)
MASKED_IMAGE_ATTENTION(bf16, 80)
MASKED_IMAGE_ATTENTION(bf16, 96)
MASKED_IMAGE_ATTENTION(bf16, 128)
MASKED_IMAGE_ATTENTION(f16, 64)
MASKED_IMAGE_ATTENTION(f16, 80)
MASKED_IMAGE_ATTENTION(f16, 96)
MASKED_IMAGE_ATTENTION(f16, 128)
