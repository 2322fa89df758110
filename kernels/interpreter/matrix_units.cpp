// Three arithmetics of matrix units: one after the other, and as the units of cards are modelled.
#include "matrix_units.h"

#include <algorithm>

#include "conversions.h"

// The two loops that are worth wide vectors, where the processor has them.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define WIDE_VECTORS __attribute__((target_clones("default", "avx2")))
#else
#define WIDE_VECTORS
#endif

namespace interpreter {
namespace {

/// A number as sign times significand times 2^(exponent - fraction), where `fraction` is the format's bits after the
/// point. Zero has the least exponent of f32.
struct Decomposed {
    int32_t significand;
    int32_t exponent;
};
constexpr int32_t F32_EXPONENT_MIN = -126;

Decomposed decompose(uint32_t bits, uint32_t exponent_bits, uint32_t fraction) {
    const int32_t bias = (1 << (exponent_bits - 1)) - 1;
    const uint32_t biased = bits >> fraction & ((1u << exponent_bits) - 1);
    const int32_t low = int32_t(bits & ((1u << fraction) - 1));
    const int32_t magnitude = biased ? low | 1 << fraction : low;
    const bool negative = bits >> (fraction + exponent_bits) & 1;
    const int32_t exponent = magnitude == 0 ? F32_EXPONENT_MIN : std::max<int32_t>(int32_t(biased), 1) - bias;
    return Decomposed{negative ? -magnitude : magnitude, exponent};
}
bool is_finite(uint32_t bits, uint32_t exponent_bits, uint32_t fraction) {
    const uint32_t all = (1u << exponent_bits) - 1;
    return (bits >> fraction & all) != all;
}
float to_float(uint16_t bits, bool is_bf16) { return is_bf16 ? from_bf16(bits) : from_f16(bits); }

WIDE_VECTORS
void add_in_order(const float (&a)[16][16], const float (&b)[16][8], const float (&c)[16][8], float (&d)[16][8]) {
    typedef float Row __attribute__((vector_size(32)));
    Row rows[16], c_rows[16];
    memcpy(rows, b, sizeof b);
    memcpy(c_rows, c, sizeof c);
    for (uint32_t i = 0; i < 16; ++i) {
        Row sum = {};
        for (uint32_t k = 0; k < 16; ++k) sum += a[i][k] * rows[k];
        sum = c_rows[i] + sum;
        memcpy(d[i], &sum, sizeof sum);
    }
}

void multiply_plain(const Tiles& tiles, float (&d)[16][8]) {
    float a[16][16], b[16][8];
    for (uint32_t k = 0; k < 16; ++k) {
        for (uint32_t i = 0; i < 16; ++i) a[i][k] = to_float(tiles.a[i][k], tiles.is_bf16);
        for (uint32_t j = 0; j < 8; ++j) b[k][j] = to_float(tiles.b[j][k], tiles.is_bf16);
    }
    add_in_order(a, b, tiles.c, d);
}

// ---- The units of the hardware --------------------------------------------------------------------------------------
//
// The model T-FDPA of MMA-Sim (Xie et al., arXiv 2511.10909; github.com/microsoft/MMA-Sim, mmasim/simulator), which its
// authors found equal to V100 through B200 bit by bit: products are exact; they and the accumulator are aligned to the
// largest exponent and cut off so many bits below it, towards zero; their sum is exact, and cut off to f32.

/// What differs between the units.
struct UnitModel {
    uint32_t terms;     // products that are added at a time
    int32_t alignment_bits;  // below the largest exponent
};
constexpr UnitModel HOPPER = {16, 25};
constexpr UnitModel AMPERE = {8, 24};

/// sum * 2^exponent, cut off to an f32 towards zero.
float truncate(int64_t sum, int32_t exponent) {
    if (sum == 0) return 0.0f;
    const uint64_t magnitude = uint64_t(sum < 0 ? -sum : sum);
    const int32_t length = 64 - __builtin_clzll(magnitude);
    // At most 24 bits, and none below the last one of the subnormals.
    const int32_t lost = std::max({length - 24, -149 - exponent, 0});
    const double kept = lost > 63 ? 0.0 : double(magnitude >> lost << lost);
    if (kept == 0.0) return 0.0f;  // of no sign
    const float value = float(ldexp(kept, exponent));
    return sum < 0 ? -value : value;
}

/// A row of a and a column of b, in parts.
struct Vector {
    int32_t significand[16];
    int32_t exponent[16];
    uint32_t finite;  // as bits
};

WIDE_VECTORS
float add_aligned(const Vector& a, const Vector& b, uint32_t first, float c, int32_t fraction, UnitModel kind) {
    int32_t product[16], exponent[16];
    const Decomposed parts = decompose(bits_as<uint32_t>(c), 8, 23);
    int32_t largest = parts.exponent;
    for (uint32_t k = 0; k < kind.terms; ++k) {
        product[k] = a.significand[first + k] * b.significand[first + k];
        exponent[k] = a.exponent[first + k] + b.exponent[first + k];
        largest = std::max(largest, exponent[k]);
    }
    // A term in units of 2^(largest - alignment_bits). Products are below 2^2 times their exponent: 28 bits at most.
    const auto aligned = [&](int32_t significand, int32_t exponent_of, int32_t fraction_of) {
        const int32_t sign = significand >> 31;
        const uint32_t magnitude = uint32_t((significand ^ sign) - sign) << (kind.alignment_bits - fraction_of);
        const int32_t shifted = int32_t(magnitude >> std::min(largest - exponent_of, 31));
        return (shifted ^ sign) - sign;
    };
    int64_t sum = aligned(parts.significand, parts.exponent, 23);
    for (uint32_t k = 0; k < kind.terms; ++k) sum += aligned(product[k], exponent[k], 2 * fraction);
    return truncate(sum, largest - kind.alignment_bits);
}

void multiply_aligned(const Tiles& tiles, UnitModel kind, float (&d)[16][8]) {
    const uint32_t exponent_bits = tiles.is_bf16 ? 8 : 5, fraction = tiles.is_bf16 ? 7 : 10;
    Vector a[16], b[8];
    const auto read = [&](const uint16_t (&from)[16], Vector& to) {
        to.finite = 0;
        for (uint32_t k = 0; k < 16; ++k) {
            const Decomposed parts = decompose(from[k], exponent_bits, fraction);
            to.significand[k] = parts.significand;
            to.exponent[k] = parts.exponent;
            to.finite |= uint32_t(is_finite(from[k], exponent_bits, fraction)) << k;
        }
    };
    for (uint32_t i = 0; i < 16; ++i) read(tiles.a[i], a[i]);
    for (uint32_t j = 0; j < 8; ++j) read(tiles.b[j], b[j]);
    for (uint32_t i = 0; i < 16; ++i) {
        for (uint32_t j = 0; j < 8; ++j) {
            float sum = tiles.c[i][j];
            for (uint32_t first = 0; first < 16; first += kind.terms) {
                const uint32_t terms = ((1u << kind.terms) - 1) << first;
                if ((a[i].finite & b[j].finite & terms) == terms && is_finite(bits_as<uint32_t>(sum), 8, 23)) {
                    sum = add_aligned(a[i], b[j], first, sum, int32_t(fraction), kind);
                    continue;
                }
                // Infinite or NaN, whatever the order; a NaN has no payload.
                double exact = sum;
                for (uint32_t k = first; k < first + kind.terms; ++k) {
                    exact += double(to_float(tiles.a[i][k], tiles.is_bf16)) * to_float(tiles.b[j][k], tiles.is_bf16);
                }
                sum = float(exact);
                if (sum != sum) sum = bits_as<float>(NAN_BITS);
            }
            d[i][j] = sum;
        }
    }
}

}  // namespace

void multiply(MatrixUnits units, const Tiles& tiles, float (&d)[16][8]) {
    switch (units) {
        case MatrixUnits::Plain: return multiply_plain(tiles, d);
        case MatrixUnits::Hopper: return multiply_aligned(tiles, HOPPER, d);
        case MatrixUnits::Ampere: return multiply_aligned(tiles, AMPERE, d);
    }
}

}  // namespace interpreter
