// The 16-bit formats as f32.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace interpreter {

template <typename To, typename From>
inline To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

/// What a NaN that is made becomes: it has no payload.
constexpr uint32_t NAN_BITS = 0x7fffffff;

inline float from_bf16(uint16_t bits) { return bits_as<float>(uint32_t(bits) << 16); }
inline float from_f16(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return bits_as<float>(fraction ? NAN_BITS : sign | 0x7f800000u);
    const float significand = exponent ? float(1024 + fraction) : float(fraction);
    const float magnitude = ldexpf(significand, exponent ? int(exponent) - 25 : -24);
    return sign ? -magnitude : magnitude;
}

}  // namespace interpreter
