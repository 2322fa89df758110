// Opcodes whose result in a lane follows from that lane's operands alone: one pure function each. Its parameters are
// the operands in PTX's order, and their types the widths that registers must have (bool: a predicate).
#include <math.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "machine.h"

namespace interpreter {
namespace {

// ---- f32: to nearest even, subnormals kept. A NaN that is made has no payload ---------------------------------------

float canonical(float x) { return x != x ? bits_as<float>(NAN_BITS) : x; }
/// .ftz: what is subnormal is zero of its sign.
float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
bool unordered(float a, float b) { return a != a || b != b; }

float add_rn_f32(float a, float b) { return canonical(a + b); }
float sub_rn_f32(float a, float b) { return canonical(a - b); }
float mul_rn_f32(float a, float b) { return canonical(a * b); }
float div_rn_f32(float a, float b) { return canonical(a / b); }
float fma_rn_f32(float a, float b, float c) { return canonical(fmaf(a, b, c)); }
/// The other operand if one is NaN; +0 is more than -0.
float max_f32(float a, float b) {
    if (a != a || b != b) return a == a ? a : canonical(b);
    if (a == b) return signbit(a) ? b : a;
    return a > b ? a : b;
}
float abs_f32(float a) { return fabsf(a); }
float neg_f32(float a) { return -a; }
/// The magnitude of b with the sign of a.
float copysign_f32(float a, float b) { return copysignf(b, a); }
float rcp_rn_f32(float a) { return canonical(1.0f / a); }
// The approximations: their largest errors are specified, their bits are not. Here they are rounded from f64 or by the
// processor's library, as in the emulator.
float rcp_approx_ftz_f32(float a) { return canonical(flushed(float(1.0 / double(flushed(a))))); }
float rsqrt_approx_f32(float a) { return canonical(float(1.0 / sqrt(double(a)))); }
float ex2_approx_ftz_f32(float a) { return canonical(flushed(exp2f(flushed(a)))); }

// ---- Integers -------------------------------------------------------------------------------------------------------

uint32_t add_s32(uint32_t a, uint32_t b) { return a + b; }
uint32_t sub_s32(uint32_t a, uint32_t b) { return a - b; }
uint32_t mul_lo_s32(uint32_t a, uint32_t b) { return a * b; }
uint32_t mad_lo_s32(uint32_t a, uint32_t b, uint32_t c) { return a * b + c; }
uint32_t neg_s32(uint32_t a) { return 0 - a; }
uint64_t add_s64(uint64_t a, uint64_t b) { return a + b; }
uint64_t sub_s64(uint64_t a, uint64_t b) { return a - b; }
uint64_t mul_lo_s64(uint64_t a, uint64_t b) { return a * b; }
uint16_t sub_s16(uint16_t a, uint16_t b) { return uint16_t(a - b); }
uint16_t mul_lo_s16(uint16_t a, uint16_t b) { return uint16_t(uint32_t(a) * b); }
uint64_t mul_wide_u32(uint32_t a, uint32_t b) { return uint64_t(a) * b; }
uint32_t mul_wide_u16(uint16_t a, uint16_t b) { return uint32_t(a) * b; }
/// A division by zero gives no specified value: here all bits, so that it is seen.
uint32_t div_u32(uint32_t a, uint32_t b) { return b ? a / b : ~0u; }
uint32_t rem_u32(uint32_t a, uint32_t b) { return b ? a % b : ~0u; }
uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }
uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

// ---- Bits -----------------------------------------------------------------------------------------------------------

/// Four bytes of eight, those of a and then of b: a nibble picks each, or with its highest bit eight times its sign.
uint32_t prmt_b32(uint32_t a, uint32_t b, uint32_t selection) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t picked = 0;
    for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t nibble = selection >> 4 * i & 15, byte = bytes >> 8 * (nibble & 7) & 255;
        picked |= (nibble < 8 ? byte : byte >> 7 ? 255 : 0) << 8 * i;
    }
    return picked;
}
uint16_t and_b16(uint16_t a, uint16_t b) { return a & b; }
uint16_t or_b16(uint16_t a, uint16_t b) { return a | b; }
uint32_t and_b32(uint32_t a, uint32_t b) { return a & b; }
uint32_t or_b32(uint32_t a, uint32_t b) { return a | b; }
uint32_t xor_b32(uint32_t a, uint32_t b) { return a ^ b; }
uint32_t not_b32(uint32_t a) { return ~a; }
uint64_t and_b64(uint64_t a, uint64_t b) { return a & b; }
uint64_t or_b64(uint64_t a, uint64_t b) { return a | b; }
uint64_t xor_b64(uint64_t a, uint64_t b) { return a ^ b; }
uint64_t not_b64(uint64_t a) { return ~a; }
bool and_pred(bool a, bool b) { return a & b; }
bool or_pred(bool a, bool b) { return a | b; }
bool xor_pred(bool a, bool b) { return a ^ b; }
bool not_pred(bool a) { return !a; }
// Shifts by the width or more leave nothing.
uint16_t shl_b16(uint16_t a, uint32_t b) { return b > 15 ? 0 : uint16_t(a << b); }
uint32_t shl_b32(uint32_t a, uint32_t b) { return b > 31 ? 0 : a << b; }
uint64_t shl_b64(uint64_t a, uint32_t b) { return b > 63 ? 0 : a << b; }
uint16_t shr_u16(uint16_t a, uint32_t b) { return b > 15 ? 0 : uint16_t(a >> b); }
uint32_t shr_u32(uint32_t a, uint32_t b) { return b > 31 ? 0 : a >> b; }
uint64_t shr_u64(uint64_t a, uint32_t b) { return b > 63 ? 0 : a >> b; }
/// b with its `length` bits from `start` on replaced by the lowest ones of a.
uint32_t bfi_b32(uint32_t a, uint32_t b, uint32_t start, uint32_t length) {
    start &= 255;
    length &= 255;
    if (length == 0 || start > 31) return b;
    const uint32_t field = (length > 31 ? ~0u : (1u << length) - 1) << start;
    return (b & ~field) | (a << start & field);
}

// ---- Moves ----------------------------------------------------------------------------------------------------------

template <typename T>
T move(T a) {
    return a;
}
/// The first of a pair of halves is the lower one.
uint32_t mov_pair(uint16_t low, uint16_t high) { return low | uint32_t(high) << 16; }
uint64_t mov_words(uint32_t low, uint32_t high) { return low | uint64_t(high) << 32; }
template <typename T>
T select(T a, T b, bool which) {
    return which ? a : b;
}
/// The generic address of an address of shared memory.
uint64_t cvta_shared(uint64_t a) { return SHARED_WINDOW + a; }

// ---- Conversions ----------------------------------------------------------------------------------------------------

float cvt_f32_bf16(uint16_t a) { return from_bf16(a); }
float cvt_f32_f16(uint16_t a) { return from_f16(a); }
uint16_t cvt_rn_bf16_f32(float a) {
    if (a != a) return 0x7fff;
    const uint32_t bits = bits_as<uint32_t>(a), lost = bits & 0xffff, kept = bits >> 16;
    const bool up = lost > 0x8000 || (lost == 0x8000 && (kept & 1));
    return uint16_t(kept + up);
}
uint16_t cvt_rn_f16_f32(float a) {
    if (a != a) return 0x7fff;
    const uint16_t sign = bits_as<uint32_t>(a) >> 16 & 0x8000;
    const float magnitude = fabsf(a);
    if (magnitude >= 65520.0f) return sign | 0x7c00;
    // In units of the last place: exact, then to nearest even.
    const int exponent = magnitude < 0x1p-14f ? -14 : int(bits_as<uint32_t>(magnitude) >> 23) - 127;
    const uint32_t units = uint32_t(nearbyintf(ldexpf(magnitude, 10 - exponent)));  // 2048: the next exponent
    return uint16_t(sign | (units + (uint32_t(exponent + 14) << 10)));
}
/// The first operand becomes the upper half.
uint32_t cvt_rn_bf16x2_f32(float a, float b) { return uint32_t(cvt_rn_bf16_f32(a)) << 16 | cvt_rn_bf16_f32(b); }
uint32_t cvt_rn_f16x2_f32(float a, float b) { return uint32_t(cvt_rn_f16_f32(a)) << 16 | cvt_rn_f16_f32(b); }
float cvt_rn_f32_s32(uint32_t a) { return float(int32_t(a)); }
float cvt_rn_f32_u32(uint32_t a) { return float(a); }
float cvt_rni_f32_f32(float a) { return canonical(nearbyintf(a)); }
float cvt_rmi_f32_f32(float a) { return canonical(floorf(a)); }
float cvt_rzi_f32_f32(float a) { return canonical(truncf(a)); }
// What does not fit becomes the nearest number that does; NaN becomes 0.
uint32_t cvt_rzi_u32_f32(float a) { return !(a > 0.0f) ? 0 : a >= 0x1p32f ? ~0u : uint32_t(a); }
uint32_t cvt_rzi_s32_f32(float a) {
    if (a != a) return 0;
    return a >= 0x1p31f ? 0x7fffffffu : a < -0x1p31f ? 0x80000000u : uint32_t(int32_t(a));
}
template <typename To, typename From>
To convert(From a) {
    return To(a);
}
uint64_t cvt_s64_s32(uint32_t a) { return uint64_t(int64_t(int32_t(a))); }

// ---- Comparisons: false where an operand is NaN, those that end in u true -------------------------------------------

template <typename As, typename T>
bool equal(T a, T b) {
    return As(a) == As(b);
}
template <typename As, typename T>
bool differ(T a, T b) {
    return As(a) != As(b);
}
template <typename As, typename T>
bool less(T a, T b) {
    return As(a) < As(b);
}
template <typename As, typename T>
bool less_or_equal(T a, T b) {
    return As(a) <= As(b);
}
template <typename As, typename T>
bool greater(T a, T b) {
    return As(a) > As(b);
}
template <typename As, typename T>
bool greater_or_equal(T a, T b) {
    return As(a) >= As(b);
}
bool neu_f32(float a, float b) { return unordered(a, b) || a != b; }
bool ltu_f32(float a, float b) { return unordered(a, b) || a < b; }
bool leu_f32(float a, float b) { return unordered(a, b) || a <= b; }
bool gtu_f32(float a, float b) { return unordered(a, b) || a > b; }
bool geu_f32(float a, float b) { return unordered(a, b) || a >= b; }

// ---- From a function of a lane to an opcode -------------------------------------------------------------------------

template <typename T>
std::string width_of() {
    return std::is_same_v<T, bool> ? "P" : std::to_string(8 * sizeof(T));
}

/// An operand of all lanes.
template <typename T>
struct Lanes {
    const T* value;
    Lanes(Warp& warp, Register at) : value(warp.lanes<T>(at)) {}
    T operator[](uint32_t lane) const { return value[lane]; }
};
template <>
struct Lanes<bool> {
    uint32_t bits;
    Lanes(Warp& warp, Register at) : bits(warp.predicate(at)) {}
    bool operator[](uint32_t lane) const { return bits >> lane & 1; }
};

template <auto FUNCTION>
struct Elementwise;
template <typename To, typename... From, To (*FUNCTION)(From...)>
struct Elementwise<FUNCTION> {
    static std::string form() {
        std::string form = "D" + width_of<To>();
        ((form += ", S" + width_of<From>()), ...);
        return form;
    }
    static void execute(Warp& warp, const Instruction& instruction, uint32_t active) {
        compute(warp, instruction, active, std::index_sequence_for<From...>());
    }
    template <size_t... I>
    static void compute(Warp& warp, const Instruction& instruction, uint32_t active, std::index_sequence<I...>) {
        const std::tuple<Lanes<From>...> from(Lanes<From>(warp, instruction.operand[1 + I])...);
        const auto result = [&](uint32_t lane) { return FUNCTION(std::get<I>(from)[lane]...); };
        if constexpr (std::is_same_v<To, bool>) {
            uint32_t bits = 0;
            for_each_lane(active, [&](uint32_t lane) { bits |= uint32_t(result(lane)) << lane; });
            uint32_t& to = warp.predicate(instruction.operand[0]);
            to = (to & ~active) | bits;
        } else {
            To* const to = warp.lanes<To>(instruction.operand[0]);
            for_each_lane(active, [&](uint32_t lane) { to[lane] = result(lane); });
        }
    }
};
/// The lower half of a word first.
void mov_apart(Warp& warp, const Instruction& instruction, uint32_t active) {
    const uint64_t* const whole = warp.lanes<uint64_t>(instruction.operand[2]);
    uint32_t* const low = warp.lanes<uint32_t>(instruction.operand[0]);
    uint32_t* const high = warp.lanes<uint32_t>(instruction.operand[1]);
    for_each_lane(active, [&](uint32_t lane) {
        const uint64_t value = whole[lane];
        low[lane] = uint32_t(value);
        high[lane] = uint32_t(value >> 32);
    });
}
template <auto FUNCTION>
Opcode elementwise(const char* name) {
    return Opcode{name, Elementwise<FUNCTION>::form(), Elementwise<FUNCTION>::execute, Flow::Next};
}

}  // namespace

std::vector<Opcode> arithmetic_opcodes() {
    std::vector<Opcode> opcodes = {
        elementwise<add_rn_f32>("add.rn.f32"),
        elementwise<sub_rn_f32>("sub.rn.f32"),
        elementwise<mul_rn_f32>("mul.rn.f32"),
        elementwise<div_rn_f32>("div.rn.f32"),
        elementwise<fma_rn_f32>("fma.rn.f32"),
        elementwise<max_f32>("max.f32"),
        elementwise<abs_f32>("abs.f32"),
        elementwise<neg_f32>("neg.f32"),
        elementwise<copysign_f32>("copysign.f32"),
        elementwise<rcp_rn_f32>("rcp.rn.f32"),
        elementwise<rcp_approx_ftz_f32>("rcp.approx.ftz.f32"),
        elementwise<rsqrt_approx_f32>("rsqrt.approx.f32"),
        elementwise<ex2_approx_ftz_f32>("ex2.approx.ftz.f32"),

        elementwise<add_s32>("add.s32"),
        elementwise<sub_s32>("sub.s32"),
        elementwise<mul_lo_s32>("mul.lo.s32"),
        elementwise<mad_lo_s32>("mad.lo.s32"),
        elementwise<neg_s32>("neg.s32"),
        elementwise<add_s64>("add.s64"),
        elementwise<sub_s64>("sub.s64"),
        elementwise<mul_lo_s64>("mul.lo.s64"),
        elementwise<sub_s16>("sub.s16"),
        elementwise<mul_lo_s16>("mul.lo.s16"),
        elementwise<mul_wide_u32>("mul.wide.u32"),
        elementwise<mul_wide_u16>("mul.wide.u16"),
        elementwise<div_u32>("div.u32"),
        elementwise<rem_u32>("rem.u32"),
        elementwise<min_u32>("min.u32"),
        elementwise<max_u32>("max.u32"),
        elementwise<max_u64>("max.u64"),

        elementwise<prmt_b32>("prmt.b32"),
        elementwise<and_b16>("and.b16"),
        elementwise<or_b16>("or.b16"),
        elementwise<and_b32>("and.b32"),
        elementwise<or_b32>("or.b32"),
        elementwise<xor_b32>("xor.b32"),
        elementwise<not_b32>("not.b32"),
        elementwise<and_b64>("and.b64"),
        elementwise<or_b64>("or.b64"),
        elementwise<xor_b64>("xor.b64"),
        elementwise<not_b64>("not.b64"),
        elementwise<and_pred>("and.pred"),
        elementwise<or_pred>("or.pred"),
        elementwise<xor_pred>("xor.pred"),
        elementwise<not_pred>("not.pred"),
        elementwise<shl_b16>("shl.b16"),
        elementwise<shl_b32>("shl.b32"),
        elementwise<shl_b64>("shl.b64"),
        elementwise<shr_u16>("shr.u16"),
        elementwise<shr_u32>("shr.u32"),
        elementwise<shr_u64>("shr.u64"),
        elementwise<bfi_b32>("bfi.b32"),

        elementwise<move<uint16_t>>("mov.u16"),
        elementwise<move<uint32_t>>("mov.u32"),
        elementwise<move<uint32_t>>("mov.b32"),
        elementwise<move<uint32_t>>("mov.f32"),
        elementwise<move<uint64_t>>("mov.u64"),
        elementwise<move<uint64_t>>("mov.b64"),
        elementwise<move<bool>>("mov.pred"),
        elementwise<select<uint16_t>>("selp.u16"),
        elementwise<select<uint32_t>>("selp.u32"),
        elementwise<select<uint32_t>>("selp.b32"),
        elementwise<select<uint32_t>>("selp.f32"),
        elementwise<select<uint64_t>>("selp.b64"),
        // Generic addresses of global memory are its own.
        elementwise<move<uint64_t>>("cvta.to.global.u64"),
        elementwise<cvta_shared>("cvta.shared.u64"),

        elementwise<cvt_f32_bf16>("cvt.f32.bf16"),
        elementwise<cvt_f32_f16>("cvt.f32.f16"),
        elementwise<cvt_rn_bf16_f32>("cvt.rn.bf16.f32"),
        elementwise<cvt_rn_f16_f32>("cvt.rn.f16.f32"),
        elementwise<cvt_rn_bf16x2_f32>("cvt.rn.bf16x2.f32"),
        elementwise<cvt_rn_f16x2_f32>("cvt.rn.f16x2.f32"),
        elementwise<cvt_rn_f32_s32>("cvt.rn.f32.s32"),
        elementwise<cvt_rn_f32_u32>("cvt.rn.f32.u32"),
        elementwise<cvt_rni_f32_f32>("cvt.rni.f32.f32"),
        elementwise<cvt_rmi_f32_f32>("cvt.rmi.f32.f32"),
        elementwise<cvt_rzi_f32_f32>("cvt.rzi.f32.f32"),
        elementwise<cvt_rzi_u32_f32>("cvt.rzi.u32.f32"),
        elementwise<cvt_rzi_s32_f32>("cvt.rzi.s32.f32"),
        elementwise<cvt_s64_s32>("cvt.s64.s32"),
        elementwise<convert<uint64_t, uint32_t>>("cvt.u64.u32"),
        elementwise<convert<uint64_t, uint16_t>>("cvt.u64.u16"),
        elementwise<convert<uint32_t, uint64_t>>("cvt.u32.u64"),
        elementwise<convert<uint32_t, uint16_t>>("cvt.u32.u16"),
        elementwise<convert<uint16_t, uint32_t>>("cvt.u16.u32"),

        elementwise<equal<uint16_t, uint16_t>>("setp.eq.s16"),
        elementwise<differ<uint16_t, uint16_t>>("setp.ne.s16"),
        elementwise<equal<uint32_t, uint32_t>>("setp.eq.b32"),
        elementwise<equal<int32_t, uint32_t>>("setp.eq.s32"),
        elementwise<differ<int32_t, uint32_t>>("setp.ne.s32"),
        elementwise<less<int32_t, uint32_t>>("setp.lt.s32"),
        elementwise<greater<int32_t, uint32_t>>("setp.gt.s32"),
        elementwise<less<uint32_t, uint32_t>>("setp.lt.u32"),
        elementwise<less_or_equal<uint32_t, uint32_t>>("setp.le.u32"),
        elementwise<greater<uint32_t, uint32_t>>("setp.gt.u32"),
        elementwise<greater_or_equal<uint32_t, uint32_t>>("setp.ge.u32"),
        elementwise<equal<int64_t, uint64_t>>("setp.eq.s64"),
        elementwise<differ<int64_t, uint64_t>>("setp.ne.s64"),
        elementwise<less<uint64_t, uint64_t>>("setp.lt.u64"),
        elementwise<less_or_equal<uint64_t, uint64_t>>("setp.le.u64"),
        elementwise<greater<uint64_t, uint64_t>>("setp.gt.u64"),
        elementwise<greater_or_equal<uint64_t, uint64_t>>("setp.ge.u64"),
        elementwise<equal<float, float>>("setp.eq.f32"),
        elementwise<less<float, float>>("setp.lt.f32"),
        elementwise<less_or_equal<float, float>>("setp.le.f32"),
        elementwise<greater<float, float>>("setp.gt.f32"),
        elementwise<greater_or_equal<float, float>>("setp.ge.f32"),
        elementwise<neu_f32>("setp.neu.f32"),
        elementwise<ltu_f32>("setp.ltu.f32"),
        elementwise<leu_f32>("setp.leu.f32"),
        elementwise<gtu_f32>("setp.gtu.f32"),
        elementwise<geu_f32>("setp.geu.f32"),
    };
    Opcode pair = elementwise<mov_pair>("mov.b32");
    pair.form = "D32, {S16, S16}";
    opcodes.push_back(pair);
    Opcode words = elementwise<mov_words>("mov.b64");
    words.form = "D64, {S32, S32}";
    opcodes.push_back(words);
    opcodes.push_back({"mov.b64", "{D32, D32}, S64", mov_apart});
    return opcodes;
}

}  // namespace interpreter
