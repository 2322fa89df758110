//! Mistakes that are easily made in these kernels, each an exact change of a source. One that is not found there any
//! more fails the test: then the mistake is to be made in the new text.

/// A mistake.
pub struct Mutant {
    /// What is wrong.
    pub name: &'static str,
    /// The file that is changed.
    pub file: &'static str,
    /// The `.cu` file that is compiled with the change.
    pub source: &'static str,
    /// Checks whose names begin with one of these are run, until one fails.
    pub checks: &'static [&'static str],
    /// What is replaced; it occurs once, or as `occurrence` says.
    pub find: &'static str,
    /// By what.
    pub replace: &'static str,
    /// Which of how many occurrences is replaced, counted from 1.
    pub occurrence: (usize, usize),
}

pub const fn mutant(
    name: &'static str,
    [file, source]: [&'static str; 2],
    checks: &'static [&'static str],
    find: &'static str,
    replace: &'static str,
) -> Mutant {
    Mutant { name, file, source, checks, find, replace, occurrence: (1, 1) }
}

impl Mutant {
    const fn at(mut self, number: usize, of: usize) -> Mutant {
        self.occurrence = (number, of);
        self
    }

    /// The changed text of the file.
    ///
    /// # Errors
    /// What is to be replaced does not occur as said.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        let places: Vec<usize> = text.match_indices(self.find).map(|(at, _)| at).collect();
        let (number, of) = self.occurrence;
        if places.len() != of {
            return Err(format!("{}: {:?} occurs {} times, not {of}", self.file, self.find, places.len()));
        }
        let (before, rest) = text.split_at(places[number - 1]);
        Ok([before, self.replace, &rest[self.find.len()..]].concat())
    }
}

const ROWS: [&str; 2] = ["linear_rows.cuh", "linear"];
const TILE: [&str; 2] = ["linear.cu", "linear"];
const NORM: [&str; 2] = ["norm.cuh", "norm"];
const HEADS: [&str; 2] = ["norm.cu", "norm"];
const POINTWISE: [&str; 2] = ["pointwise.cu", "pointwise"];
const SAMPLE: [&str; 2] = ["sample.cu", "sample"];
const FLASH: [&str; 2] = ["flash_attention.cu", "flash_attention"];
const IN_MASKED: [&str; 2] = ["attention.cuh", "masked_image_attention"];
const IN_FLASH: [&str; 2] = ["attention.cuh", "flash_attention"];
const MASKED: [&str; 2] = ["masked_image_attention.cuh", "masked_image_attention"];
const PERCEIVER: [&str; 2] = ["perceiver_attention.cu", "perceiver_attention"];
const IN_PERCEIVER: [&str; 2] = ["attention.cuh", "perceiver_attention"];
const GATED: [&str; 2] = ["gated_cross_attention.cu", "gated_cross_attention"];

/// Past the emulator's functions, before the start of an allocation: for AddressSanitizer alone.
pub const UNSEEN_READ: Mutant = mutant(
    "a table is read before its start",
    POINTWISE,
    &["gather/"],
    "    const uint32_t index = load_global(",
    "    (void)*(static_cast<const volatile uint16_t*>(arguments.table.data) - 1);\n    \
     const uint32_t index = load_global(",
);

/// Past the emulator's functions, all lanes write one word: for the compiler's hooks alone.
pub const UNSEEN_RACE: Mutant = mutant(
    "all lanes of a warp store its sum",
    ["common.cuh", "norm"],
    &["norm/"],
    "if (threadIdx.x % LANES == 0) store_shared(scratch + threadIdx.x / LANES, value);",
    "scratch[threadIdx.x / LANES] = value;",
);

/// The list.
pub const MUTANTS: &[Mutant] = &[
    // ---- linear: the rows form, and what follows the sum ------------------------------------------------------------
    mutant("halves of k swapped in one operand", ROWS, &["linear/2x"], "{token.x, token.y}", "{token.y, token.x}"),
    mutant("rows beyond the weight are read", ROWS, &["linear/"], "valid && left > 8 ?", "valid ?"),
    mutant(
        "the last segment is lost",
        ROWS,
        &["linear/"],
        "for (uint32_t s = 0; s < SEGMENTS; ++s)",
        "for (uint32_t s = 0; s < SEGMENTS - 1; ++s)",
    ),
    mutant(
        "no barrier before segments are added",
        ROWS,
        &["linear/"],
        "block_barrier();\n\n    // Neighbouring",
        "// Neighbouring",
    ),
    mutant(
        "the wrong half of a pair is activated",
        ROWS,
        &["linear/3x48x37+silu+paired"],
        "if (i < N / 2 || !arguments.paired)",
        "if (i >= N / 2 || !arguments.paired)",
    ),
    mutant(
        "the second half's bias is the first's",
        ROWS,
        &["linear/3x48x21+bias+gelu+paired"],
        "i < columns ? own : own + arguments.width",
        "own",
    ),
    mutant(
        "a gate without tanh",
        ROWS,
        &["linear/3x48x21+gate", "linear/3x48x21+bias+gate"],
        "tanhf(load_global(arguments.gate + own * arguments.gate_stride))",
        "load_global(arguments.gate + own * arguments.gate_stride)",
    ),
    mutant(
        "the first gate for all columns",
        ROWS,
        &["linear/3x48x21+gate", "linear/3x48x21+bias+gate"],
        "own * arguments.gate_stride",
        "0",
    ),
    mutant(
        "no residual",
        ROWS,
        &["linear/3x48x21+bias+residual"],
        "fmaf(scale[i], product, residual[i])",
        "fmaf(scale[i], product, 0.0f)",
    ),
    mutant(
        "clipped on one side",
        ROWS,
        &["linear/3x48x21+clip"],
        "larger(-arguments.clip, smaller(arguments.clip, value[i]))",
        "smaller(arguments.clip, value[i])",
    ),
    mutant(
        "columns beyond the row are written",
        ROWS,
        &["linear/"],
        "if (column + i < arguments.width) store_global(to + i, value[i]);",
        "store_global(to + i, value[i]);",
    ),
    mutant(
        "vectors where rows are not aligned",
        ROWS,
        &["linear/"],
        "const bool vectors = whole && arguments.out.stride % COLUMNS == 0;",
        "const bool vectors = whole;",
    ),
    mutant(
        "tokens that see no image are changed",
        ROWS,
        &["linear/3x48x21+gate-scalar+residual+seeing"],
        "arguments.seeing == nullptr || load_global(arguments.seeing + row) != 0",
        "true",
    ),
    mutant(
        "the first token tells who sees an image",
        ROWS,
        &["linear/3x48x21+gate-scalar+residual+seeing"],
        "load_global(arguments.seeing + row)",
        "load_global(arguments.seeing)",
    ),
    // ---- linear: the tile form --------------------------------------------------------------------------------------
    mutant(
        "a stage is used before it has landed",
        TILE,
        &["linear/70x1040"],
        "copy_async_wait<STAGES - 2>()",
        "copy_async_wait<STAGES - 1>()",
    ),
    mutant(
        "no barrier in the ring of stages",
        TILE,
        &["linear/70x1040"],
        "copy_async_wait<STAGES - 2>();\n        block_barrier();",
        "copy_async_wait<STAGES - 2>();",
    ),
    mutant(
        "a ring of one stage less",
        TILE,
        &["linear/70x1040"],
        "shared_memory() + stage % STAGES * STAGE_BYTES;",
        "shared_memory() + stage % (STAGES - 1) * STAGE_BYTES;",
    ),
    mutant(
        "columns beyond the row are not zeros",
        TILE,
        &["linear/17x48"],
        "valid ? row[i] + own : readable, valid)",
        "valid ? row[i] + own : readable, true)",
    ),
    mutant(
        "a weight read without its swizzle",
        TILE,
        &["linear/17x48"],
        "weight_rows + swizzle(row, half * 4 + t)",
        "weight_rows + row * ROW_BYTES + (half * 4 + t) * 16",
    ),
    mutant(
        "the last segment folded too early",
        TILE,
        &["linear/70x272"],
        "if (chunk + 1 == fold_at) {",
        "if (chunk + 2 == fold_at) {",
    ),
    mutant(
        "segments folded one chunk late, every sum right",
        TILE,
        &["same/linear"],
        "if (chunk + 1 == fold_at) {",
        "if (chunk == fold_at || chunk + 1 == chunks) {",
    ),
    mutant(
        "a band of tiles of the wrong height",
        TILE,
        &["linear/130x144"],
        "const uint32_t height = smaller(BAND, token_tiles - band);",
        "const uint32_t height = BAND;",
    ),
    // ---- norm -------------------------------------------------------------------------------------------------------
    mutant("no epsilon", NORM, &["faint/"], " + norm.epsilon", ""),
    mutant(
        "variance by one less than the width",
        NORM,
        &["norm/rms/3x16", "norm/layer+bias/3x16"],
        "reciprocal_square_root(sum(squares) / static_cast<float>(width)",
        "reciprocal_square_root(sum(squares) / static_cast<float>(width - 1)",
    ),
    mutant(
        "squares about zero instead of the mean",
        NORM,
        &["norm/layer+bias/3x16"],
        "fmaf(value[i] - mean, value[i] - mean, squares)",
        "fmaf(value[i], value[i], squares)",
    ),
    mutant(
        "no barrier before warps are added",
        ["common.cuh", "norm"],
        &["norm/"],
        "value);\n    block_barrier();\n    float sum",
        "value);\n    float sum",
    ),
    mutant(
        "no barrier before scratch is used again",
        ["common.cuh", "norm"],
        &["norm/"],
        "    block_barrier();\n    if (threadIdx.x % LANES == 0) store_shared(scratch",
        "    if (threadIdx.x % LANES == 0) store_shared(scratch",
    ),
    mutant(
        "the sum of a warp that is not there",
        ["common.cuh", "norm"],
        &["norm/"],
        "for (uint32_t warp = 1; warp < warps; ++warp) sum +=",
        "for (uint32_t warp = 1; warp <= warps; ++warp) sum +=",
    ),
    mutant(
        "lanes beyond a head take the next one's columns",
        HEADS,
        &["norm_heads/"],
        "row < arguments.count && column < group;",
        "row < arguments.count;",
    ),
    // ---- pointwise --------------------------------------------------------------------------------------------------
    mutant(
        "rotated the other way",
        POINTWISE,
        &["causal/prefill/2x16"],
        "first[i] = x * cosine[i] - y * sine[i];",
        "first[i] = x * cosine[i] + y * sine[i];",
    ),
    mutant(
        "neighbours rotated instead of halves",
        POINTWISE,
        &["causal/prefill/2x16"],
        "read(second, from + half);",
        "read(second, from + WIDTH / 2);",
    ),
    mutant(
        "the first frequency for all entries",
        POINTWISE,
        &["causal/prefill/2x16"],
        "load_global(arguments.frequencies + j)",
        "load_global(arguments.frequencies)",
    ),
    mutant(
        "angles read before they are written",
        POINTWISE,
        &["causal/"],
        "    block_barrier();\n\n    T* query",
        "    T* query",
    ),
    mutant(
        "keys appended to the neighbouring slot",
        POINTWISE,
        &["causal/chunks"],
        "page_row = position % arguments.pages.page_rows;",
        "page_row = (position + 1) % arguments.pages.page_rows;",
    ),
    mutant(
        "every sequence has the first one's pages",
        POINTWISE,
        &["causal/chunks"],
        "arguments.tables + table + position",
        "arguments.tables + position",
    ),
    mutant(
        "copied keys are values",
        POINTWISE,
        &["copy_page/"],
        "store_vector(keys + to, load_vector(keys + from));",
        "store_vector(keys + to, load_vector(values + from));",
    ),
    // ---- keys and values in 8 bits ----------------------------------------------------------------------------------
    mutant(
        "codes: the largest of a lane for that of a head",
        POINTWISE,
        &["int8/"],
        "for (uint32_t distance = SHARE / 2;",
        "for (uint32_t distance = 0;",
    ),
    mutant("codes are cut, not rounded", POINTWISE, &["int8/"], "rintf(value[i] / divisor)", "(value[i] / divisor)"),
    mutant(
        "codes: keys are used before all are widened",
        IN_MASKED,
        &["int8/masked"],
        "            block_barrier();\n        }\n        const Visible<N> seen",
        "        }\n        const Visible<N> seen",
    ),
    mutant(
        "codes: what nobody has appended has a scale",
        IN_MASKED,
        &["int8/masked"],
        "row < keys ? to_float(load_shared(scale_at)) : 0.0f",
        "to_float(load_shared(scale_at))",
    ),
    mutant("positions without their offset", POINTWISE, &["gather/"], " + arguments.offset;", ";"),
    mutant("pixels beyond the channels", POINTWISE, &["patches/"], "channel < 3)", "channel < 4)"),
    mutant(
        "lines and columns of a patch swapped",
        POINTWISE,
        &["patches/"],
        "(y * side + x) * 3 + channel)",
        "(x * side + y) * 3 + channel)",
    ),
    mutant(
        "levels of the first channel for all",
        POINTWISE,
        &["patches/"],
        "levels_of_channel = levels + channel * 256;",
        "levels_of_channel = levels;",
    ),
    mutant(
        "patches one row late",
        POINTWISE,
        &["class_and_position/"],
        "arguments.patches_count + place.row - 1;",
        "arguments.patches_count + place.row;",
    ),
    mutant("absent tiles have pixels", POINTWISE, &["patches/tiles"], "pixel_place == NO_PIXELS", "false"),
    mutant(
        "pixels of absent tiles are skipped",
        POINTWISE,
        &["patches/tiles"],
        "uint64_t(pixel_place) * side",
        "uint64_t(blockIdx.x / grid) * side",
    ),
    mutant(
        "tiles' positions of the first image",
        POINTWISE,
        &["tile_positions/"],
        "load_global(&arguments.tilings[frame / arguments.tiles].ratio)",
        "load_global(&arguments.tilings[0].ratio)",
    ),
    mutant(
        "tiles' positions of the first ratio",
        POINTWISE,
        &["tile_positions/"],
        "ratio * arguments.tiles + frame % arguments.tiles",
        "frame % arguments.tiles",
    ),
    mutant(
        "positions of an image's first tile",
        POINTWISE,
        &["tile_positions/"],
        "ratio * arguments.tiles + frame % arguments.tiles",
        "ratio * arguments.tiles",
    ),
    mutant(
        "an embedding of the first image's ratio",
        POINTWISE,
        &["tile_embedding/"],
        "load_global(&arguments.tilings[place.row / rows].ratio)",
        "load_global(&arguments.tilings[0].ratio)",
    ),
    mutant(
        "an embedding of the first ratio",
        POINTWISE,
        &["tile_embedding/"],
        "ratio * arguments.tiles + tile)",
        "tile)",
    ),
    mutant(
        "rows of all tiles have the first one's embedding",
        POINTWISE,
        &["tile_embedding/"],
        "row < own ? row / arguments.tile_rows",
        "row < own ? 0",
    ),
    mutant(
        "what fills tiles up is the last one's",
        POINTWISE,
        &["tile_embedding/"],
        "(row - own) / ((rows - own) / arguments.tiles)",
        "arguments.tiles - 1",
    ),
    mutant("rows behind an image's are read", POINTWISE, &["fill_rows/"], "if (row < from.rows) vector", "vector"),
    mutant(
        "columns of the first matrix beside its own",
        POINTWISE,
        &["concatenate/"],
        "const Rows& from = arguments.parts[part];",
        "const Rows& from = arguments.parts[0];",
    ),
    mutant(
        "rows of the units of another matrix",
        POINTWISE,
        &["concatenate/", "fill_rows/"],
        "unit * from.rows + row",
        "unit * arguments.out.rows + row",
    ),
    mutant(
        "frames beyond the table share its last row",
        POINTWISE,
        &["frame_embedding/"],
        "static_cast<float>(number) * static_cast<float>(last)",
        "static_cast<float>(number < last ? number : last) * static_cast<float>(frames - 1)",
    ),
    mutant(
        "embeddings stretched without what lies between",
        POINTWISE,
        &["frame_embedding/"],
        "fmaf(after[i] - before[i], share, before[i])",
        "before[i]",
    ),
    // ---- sample -----------------------------------------------------------------------------------------------------
    mutant(
        "forbidden tokens are chosen",
        SAMPLE,
        &["choose"],
        "if (better && !is_forbidden(arguments, token)) {",
        "if (better) {",
    ),
    mutant(
        "sums of different maxima added",
        SAMPLE,
        &["choose"],
        "a.sum * exponential(a.most - most) + b.sum * exponential(b.most - most)",
        "a.sum + b.sum",
    ),
    mutant("summaries read before they are written", SAMPLE, &["choose"], "own);\n    block_barrier();", "own);"),
    mutant(
        "only what is within reach of the best",
        SAMPLE,
        &["choose"],
        "if (within_reach < needed) {",
        "if (false) {",
    ),
    mutant(
        "top-p of all tokens, not of the k likeliest",
        SAMPLE,
        &["choose"],
        "ties with the k-th stay\n        sum = measure<false>(candidates, least);",
        "ties with the k-th stay",
    ),
    mutant("targets of the row before", SAMPLE, &["choose"], "arguments.targets + place + i", "arguments.targets + i"),
    mutant(
        "forbidden tokens are likely",
        SAMPLE,
        &["choose"],
        "if (is_forbidden(arguments, token)) place",
        "if (false) place",
    ),
    mutant(
        "likely tokens without the score before",
        SAMPLE,
        &["choose"],
        "score + (logit - log_sum_exp)",
        "logit - log_sum_exp",
    ),
    mutant("one token of each thread is likely", SAMPLE, &["choose"], "listed = own == first;", "listed = false;"),
    mutant("the likeliest token of any lane", SAMPLE, &["choose"], "value = larger(value, other);", "value = other;"),
    // ---- attention to text and images -----------------------------------------------------------------------------
    mutant(
        "a causal mask off by one",
        IN_FLASH,
        &["causal/prefill/"],
        ">= seen) score = -INFINITY;",
        "> seen) score = -INFINITY;",
    ),
    mutant(
        "weights without the tile's maximum",
        IN_FLASH,
        &["causal/prefill/3x64"],
        "exponential_2(fmaf(score, scoring.scale, -base))",
        "exponential_2(score * scoring.scale)",
    ),
    mutant(
        "outputs not rescaled to a new maximum",
        IN_FLASH,
        &["causal/prefill/3x64"],
        "fmaf(sum, factors.keep,",
        "fmaf(sum, 1.0f,",
    ),
    mutant(
        "ALiBi of the wrong sign",
        IN_FLASH,
        &["causal/prefill/3x64"],
        "fmaf(slope, distance",
        "fmaf(-slope, distance",
    ),
    mutant(
        "all stripes from the first one's page",
        IN_FLASH,
        &["causal/chunks"],
        "shuffle(place.start, part % STRIPES)",
        "shuffle(place.start, 0)",
    ),
    mutant(
        "rows beyond an image are read",
        IN_FLASH,
        &["vision/"],
        "row < rows && column < head_width",
        "column < head_width",
    )
    .at(2, 2),
    mutant(
        "columns of a head's neighbour are read",
        IN_FLASH,
        &["vision/", "causal/"],
        "row < rows && column < head_width",
        "row < rows",
    )
    .at(2, 2),
    mutant(
        "values not transposed",
        IN_FLASH,
        &["vision/2x17"],
        "load_matrix_x4_transposed(words, &tile.values",
        "load_matrix_x4(words, &tile.values",
    ),
    mutant(
        "split: values used before they have landed",
        IN_FLASH,
        &["causal/decode/"],
        "        copy_async_wait<0>();\n        warp_barrier();\n",
        "        warp_barrier();\n",
    ),
    mutant(
        "split: values of other lanes without a barrier",
        IN_FLASH,
        &["causal/decode/"],
        "        copy_async_wait<0>();\n        warp_barrier();\n",
        "        copy_async_wait<0>();\n",
    ),
    mutant(
        "a tile of keys used before it has landed",
        IN_FLASH,
        &["causal/prefill/"],
        "copy_async_wait<0>();\n        block_barrier();",
        "copy_async_wait<1>();\n        block_barrier();",
    ),
    mutant(
        "no barrier between tiles of keys",
        IN_FLASH,
        &["vision/"],
        "copy_async_wait<0>();\n        block_barrier();",
        "copy_async_wait<0>();",
    ),
    mutant(
        "queries used before they have landed",
        IN_FLASH,
        &["causal/prefill/"],
        "copy_async_wait<1>();\n    warp_barrier();\n    if (rows > 0) {",
        "copy_async_wait<2>();\n    warp_barrier();\n    if (rows > 0) {",
    ),
    mutant(
        "absent tiles see each other",
        FLASH,
        &["tiles/"],
        "return row < limit ? all : limit;",
        "return row < limit ? all : all;",
    ),
    mutant(
        "a limit one row late",
        FLASH,
        &["tiles/"],
        "return row < limit ? all : limit;",
        "return row <= limit ? all : limit;",
    ),
    mutant(
        "the tiles of the first image",
        FLASH,
        &["tiles/"],
        "&arguments.tilings[image].tiles",
        "&arguments.tilings[0].tiles",
    ),
    mutant(
        "keys skipped that a block's first rows see",
        FLASH,
        &["tiles/"],
        "source.count = seen(first_query);",
        "source.count = seen(first_query + QUERIES - 1);",
    ),
    mutant(
        "no mask in a stripe that has the limit in it",
        FLASH,
        &["tiles/"],
        "sight.every = seen(first + N * STRIPE - 1);",
        "sight.every = seen(first);",
    ),
    mutant(
        "both stripes of a warp have the first one's queries",
        IN_FLASH,
        &["vision/"],
        "stripes + n * STRIPE, chunk)",
        "stripes, chunk)",
    ),
    mutant(
        "split: partial results overlap",
        FLASH,
        &["causal/decode/"],
        "* (arguments.head_width + 2);",
        "* arguments.head_width;",
    ),
    mutant("split: a row writes what it does not see", FLASH, &["causal/forked/"], " && sight.row[half] > first;", ";"),
    mutant(
        "split: all rows of a walk at one position",
        FLASH,
        &["causal/forked/"],
        "{shuffle(position, lane / 4) + 1, shuffle(position, lane / 4 + 8) + 1}",
        "{shuffle(position, 0) + 1, shuffle(position, 0) + 1}",
    ),
    mutant(
        "split: a walk's second warp has the first one's rows",
        FLASH,
        &["causal/forked/"],
        "arguments.rows + item.first + index / heads.count",
        "arguments.rows + item.first + lane / heads.count",
    ),
    mutant(
        "the first head of keys for all groups",
        IN_FLASH,
        &["causal/prefill/32of8"],
        "index * count / sharing}",
        "0}",
    ),
    mutant(
        "split: all rows of a group have its first head",
        FLASH,
        &["causal/decode/8of1"],
        "head = heads.first + index % heads.count;",
        "head = heads.first;",
    ),
    mutant(
        "split: the slope of the first row's head",
        FLASH,
        &["causal/decode/8of1"],
        "arguments.slopes, shuffle(head, lane / 4),",
        "arguments.slopes, shuffle(head, 0),",
    ),
    mutant(
        "a token's position in rows of all heads",
        FLASH,
        &["causal/prefill/32of8"],
        "{seen + upper / heads.count, seen + lower / heads.count}",
        "{seen + upper, seen + lower}",
    ),
    mutant(
        "combine: the last partial result is lost",
        FLASH,
        &["causal/decode/"],
        "remaining(row.slots, first, LANES)",
        "remaining(row.slots - 1, first, LANES)",
    ),
    mutant(
        "combine: tiles folded from the last, every sum right",
        FLASH,
        &["same/causal"],
        "for (uint32_t i = 0; i < count; ++i) {",
        "for (uint32_t i = count; i-- > 0;) {",
    ),
    mutant(
        "no barrier after queries are normalised",
        IN_MASKED,
        &["masked/"],
        "norm, head_width);\n            warp_barrier();",
        "norm, head_width);",
    ),
    mutant(
        "the pages of the next image",
        MASKED,
        &["masked/"],
        "arguments.tables + tile.table",
        "arguments.tables + tile.table + 2 * tile.pages",
    ),
    mutant(
        "the first image before any image",
        MASKED,
        &["masked/"],
        "tile.pages * KEYS",
        "(tile.pages > 0 ? tile.pages : 1) * KEYS",
    ),
    mutant(
        "an image's last page without its last page",
        MASKED,
        &["masked/"],
        "tile.pages * KEYS",
        "(tile.pages > 1 ? tile.pages - 1 : tile.pages) * KEYS",
    ),
    mutant(
        "an image's pages all full",
        IN_MASKED,
        &["masked/"],
        "return {shuffle(word, 1), shuffle(word, 0) * KEYS",
        "return {KEYS, shuffle(word, 0) * KEYS",
    ),
    mutant(
        "an image's first page again and again",
        IN_MASKED,
        &["masked/"],
        "source.table + first / KEYS * 2 + lane",
        "source.table + lane",
    ),
    mutant(
        "tokens in the order of the batch",
        MASKED,
        &["masked/"],
        "load_global(arguments.order + tile.first + token)",
        "tile.first + token",
    ),
    mutant(
        "a norm of heads over the padded width",
        IN_PERCEIVER,
        &["perceiver/2x9to64+9/1x32"],
        "static_cast<float>(head_width)",
        "static_cast<float>(WIDTH)",
    ),
    mutant(
        "latents shifted by the tiles of context",
        PERCEIVER,
        &["perceiver/"],
        "ends ? 0 : first + KEYS",
        "first + KEYS",
    ),
    mutant(
        "as many latents as rows of context",
        PERCEIVER,
        &["perceiver/"],
        "const uint32_t count = image_keys<T>(arguments, source, image, head).count;",
        "const uint32_t count = image_keys<T>(arguments, 0, image, head).count;",
    ),
    mutant(
        "a video is its first frame",
        IN_PERCEIVER,
        &["perceiver/video"],
        "units * arguments.key_rows[which]",
        "arguments.key_rows[which]",
    ),
    mutant(
        "the frames of the video before",
        IN_PERCEIVER,
        &["perceiver/video"],
        "first = load_for_warp(arguments.frame_starts + image);",
        "first = load_for_warp(arguments.frame_starts + (image > 0 ? image - 1 : 0));",
    ),
    mutant(
        "keys used while others normalise them",
        PERCEIVER,
        &["perceiver/"],
        "arguments.key_norm, head_width);\n            }\n            block_barrier();",
        "arguments.key_norm, head_width);\n            }",
    ),
    // ---- the fused gated block --------------------------------------------------------------------------------------
    mutant(
        "no grid barrier between attention and output",
        GATED,
        &["gated/"],
        "    grid_barrier(arguments.barrier);\n\n    LinearArguments to_out",
        "    LinearArguments to_out",
    ),
    mutant(
        "the count of the grid barrier is not reset",
        GATED,
        &["gated/"],
        "            add_release(barrier, 0 - gridDim.x);\n",
        "",
    ),
    mutant("a grid barrier that opens one block early", GATED, &["gated/"], "== gridDim.x - 1)", "== gridDim.x - 2)"),
    mutant("no barrier between units of a product", GATED, &["gated/"], "block_barrier();  // what was", "// what was"),
    mutant(
        "the fused block adds zero where no image is seen",
        GATED,
        &["gated/llama"],
        "    to_out.seeing = arguments.seeing;\n",
        "",
    ),
    mutant("the fused block without its residual", GATED, &["gated/"], "to_out.residual = arguments.x;", ""),
    mutant(
        "rows of shared memory that overlap",
        GATED,
        &["gated/"],
        "reinterpret_cast<float*>(normed + count * row_stride(width))",
        "reinterpret_cast<float*>(normed + count * width)",
    ),
];
