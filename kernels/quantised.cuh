// Weights in codes of 8 or 4 bits, as they lie on a device, and how the codes become what the matrix units take: bf16
// and f16 hold each of them exactly. Scales are applied to sums, never to a weight.
//
// A lane (g, t) of the matrix units owns the columns 8t .. 8t + 7 of each chunk of 32 (linear_rows.cuh). A row is units
// of 64 bytes, of which lane t owns the 16-byte word t:
//   8 bits: 64 columns, two chunks; a 32-bit word holds four columns: 0, 2, 1, 3, from the lowest byte up, so that one
//     mask gives a pair of neighbours, the even one in the lower half;
//   4 bits: 128 columns, four chunks; a 32-bit word holds the 8 columns of a chunk: 0, 2, 4, 6, 1, 3, 5, 7, from the
//     lowest nibble up.
// Behind the last column stand codes of any value: there x is zero.
#pragma once
#include "linear_rows.cuh"

namespace quantised {

constexpr uint32_t UNIT_BYTES = 64;

/// Twice the same 16 bits.
DEVICE constexpr uint32_t twice(uint32_t half) { return half << 16 | half; }

/// Numbers as 16-bit words of T.
template <typename T> struct Numbers;
template <> struct Numbers<bf16> {
    static constexpr uint32_t ONE = twice(0x3f80), MINUS_ONE = twice(0xbf80);
    /// A number whose last bit weighs 1, and its negative.
    static constexpr uint32_t LARGE = twice(0x4300), MINUS_LARGE = twice(0xc300);
};
template <> struct Numbers<f16> {
    static constexpr uint32_t ONE = twice(0x3c00), MINUS_ONE = twice(0xbc00);
    static constexpr uint32_t LARGE = twice(0x6400), MINUS_LARGE = twice(0xe400);
};

/// The four columns' word i of a chunk that 8-bit formats have.
DEVICE uint32_t bytes_of(const Word4& word, uint32_t chunk, uint32_t i) {
    return chunk == 0 ? (i == 0 ? word.x : word.y) : (i == 0 ? word.z : word.w);
}

/// -128 .. 127.
struct Int8 {
    static constexpr uint32_t CHUNKS = 2;
    static constexpr bool ZEROS = false;

    template <typename T>
    DEVICE static void unpack(uint32_t (&pair)[4], const Word4& word, uint32_t chunk, uint32_t) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t codes = bytes_of(word, chunk, i / 2) >> i % 2 * 8;
            if constexpr (IS_BF16<T>) {
                // 128 and the lower bits, less 128 or, with the sign's bit, 256.
                const uint32_t bits = (codes & twice(0x7f)) | Numbers<T>::LARGE;
                const uint32_t less = (codes & twice(0x80)) | Numbers<T>::LARGE;
                pair[i] = multiply_add_pairs<T>(less, Numbers<T>::MINUS_ONE, bits);
            } else {
                // 1024 and the code plus 128, less 1152.
                const uint32_t bits = (codes & twice(0xff)) ^ (Numbers<T>::LARGE | twice(0x80));
                pair[i] = multiply_add_pairs<T>(bits, Numbers<T>::ONE, Numbers<T>::MINUS_LARGE | twice(0x80));
            }
        }
    }
};

/// e4m3, never NaN: sign, exponent and fraction moved to their places in T give the number times 2^-120 in bf16, and
/// times 2^-8 in f16, numbers below the normal ones too.
struct E4m3 {
    static constexpr uint32_t CHUNKS = 2;
    static constexpr bool ZEROS = false;

    template <typename T>
    DEVICE static void unpack(uint32_t (&pair)[4], const Word4& word, uint32_t chunk, uint32_t) {
        constexpr uint32_t DOWN = IS_BF16<T> ? 4 : 1;  // from the upper half of 16 bits
        constexpr uint32_t FACTOR = IS_BF16<T> ? twice(0x7b80) : twice(0x5c00);
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t codes = bytes_of(word, chunk, i / 2) << (i % 2 == 0 ? 8 : 0);
            const uint32_t bits = (codes & twice(0x8000)) | (codes >> DOWN & twice(0x7f00 >> DOWN));
            pair[i] = multiply_add_pairs<T>(bits, FACTOR, 0);
        }
    }
};

/// 0 .. 15, less the zero point of the group.
struct Int4 {
    static constexpr uint32_t CHUNKS = 4;
    static constexpr bool ZEROS = true;

    template <typename T>
    DEVICE static void unpack(uint32_t (&pair)[4], const Word4& word, uint32_t chunk, uint32_t minus) {
        const uint32_t codes = chunk == 0 ? word.x : chunk == 1 ? word.y : chunk == 2 ? word.z : word.w;
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t bits = (codes >> 4 * i & twice(0xf)) | Numbers<T>::LARGE;
            pair[i] = multiply_add_pairs<T>(bits, Numbers<T>::ONE, minus);
        }
    }
};

/// The pairs of chunk `chunk` of a lane's word; `minus` is what minus_zero() made of the row's zero point.
template <typename T, typename Format>
DEVICE void unpack(uint32_t (&pair)[4], const Word4& word, uint32_t chunk, uint32_t minus = 0) {
    Format::template unpack<T>(pair, word, chunk, minus);
}

/// How the units of a row fall into 8 segments: as chunks do in linear_rows.cuh, but so that a segment begins with a
/// group.
struct Segments {
    uint32_t units;
    uint32_t group_units;  // of a group, or 1 where groups are smaller than units or rows
    uint32_t groups;

    DEVICE Segments(uint32_t columns, uint32_t group, uint32_t unit_columns) {
        units = divide_up(columns, unit_columns);
        group_units = larger(group / unit_columns, 1u);
        groups = divide_up(units, group_units);
    }
    DEVICE uint32_t start(uint32_t segment) const { return linear::segment_start(segment, groups) * group_units; }
    /// Where the segment that holds `unit` ends.
    DEVICE uint32_t end(uint32_t unit) const { return linear::segment_end(unit / group_units, groups) * group_units; }
};

/// Scales and zero points of ROWS rows of the weight, as the lanes of a warp hold them: lane l those of rows l and l +
/// 32. A lane asks for those of the next group while it multiplies by these. All lanes must call.
template <typename Format, uint32_t ROWS>
struct GroupScales {
    static constexpr uint32_t EACH = divide_up(ROWS, LANES);
    const LinearQuantisedArguments& arguments;
    uint32_t rows;       // of the weight
    uint32_t row[EACH];  // UINT32_MAX: none
    uint32_t next, end;  // groups
    float scale[EACH], next_scale[EACH];
    uint32_t zero[EACH], next_zero[EACH];

    /// Of the groups from the one that holds column `begin` on, up to column `end`; `row_of(i)` is the weight's row i
    /// of the ROWS.
    template <typename RowOf>
    DEVICE GroupScales(const LinearQuantisedArguments& arguments, uint32_t begin, uint32_t end, const RowOf& row_of)
        : arguments(arguments) {
        next = arguments.group ? begin / arguments.group : 0;
        this->end = arguments.group ? smaller(end, arguments.linear.columns) / arguments.group : 1;
        rows = arguments.linear.paired ? 2 * arguments.linear.width : arguments.linear.width;
#pragma unroll
        for (uint32_t i = 0; i < EACH; ++i) row[i] = row_of(threadIdx.x % LANES + i * LANES);
        ask();
    }
    /// Takes those of the next group.
    DEVICE void advance() {
#pragma unroll
        for (uint32_t i = 0; i < EACH; ++i) {
            scale[i] = next_scale[i];
            if (Format::ZEROS) zero[i] = next_zero[i];
        }
        next += 1;
        ask();
    }
    /// The scale of row `of` + `lane`; `of` is the same for all lanes.
    DEVICE float scale_of(uint32_t of, uint32_t lane) const { return shuffle(scale[of / LANES], of % LANES + lane); }
    /// What unpack() subtracts, in both halves.
    template <typename T>
    DEVICE uint32_t minus_zero(uint32_t of, uint32_t lane) const {
        return Numbers<T>::MINUS_LARGE | twice(shuffle(zero[of / LANES], of % LANES + lane));
    }

  private:
    DEVICE void ask() {
        const uint64_t first = uint64_t(next) * rows;
#pragma unroll
        for (uint32_t i = 0; i < EACH; ++i) {
            const bool there = row[i] != UINT32_MAX && next < end;
            next_scale[i] = there ? load_global(arguments.scales + first + row[i]) : 1.0f;
            if (Format::ZEROS)
                next_zero[i] = there && arguments.zeros ? load_global(arguments.zeros + first + row[i]) : 8;
        }
    }
};

}  // namespace quantised
