// Opcodes whose result in a lane follows from that lane's operands: tables of operands and results.
#include <math.h>

#include "test.h"

namespace test {
namespace {

/// Operands in PTX's order, then the result.
using Row = std::vector<uint64_t>;
struct Opcode {
    const char* name;
    const char* widths;  // of the result and the operands: p(redicate), h (16 bits), w (32), d (64)
    std::vector<Row> rows;
};

constexpr uint32_t NOT_A_NUMBER = 0x7fffffff, QUIET = 0x7fc00000, SIGNALLING = 0x7f800001, NEGATIVE_NAN = 0xffc12345;
constexpr uint32_t INF = 0x7f800000, MINUS = 0x80000000, MINUS_INF = INF | MINUS;
constexpr uint32_t ONE = 0x3f800000, TWO = 0x40000000, THREE = 0x40400000, HALF = 0x3f000000;
constexpr uint32_t MINUS_ONE = ONE | MINUS, MINUS_TWO = TWO | MINUS;
constexpr uint32_t LARGEST = 0x7f7fffff, LEAST_NORMAL = 0x00800000, LARGEST_SUBNORMAL = 0x007fffff, LEAST = 1;
constexpr uint64_t ALL = ~uint64_t(0), TOP = uint64_t(1) << 63;

std::vector<Opcode> float_opcodes() {
    return {
        {"add.rn.f32",
         "www",
         {{ONE, TWO, THREE},
          {ONE, 0x33800000, ONE},  // 2^-24 is half of the last bit: to even
          {0x3f800001, 0x33800000, 0x3f800002},
          {ONE, 0x33800001, 0x3f800001},
          {LARGEST, LARGEST, INF},
          {LEAST, LEAST, 2},  // no .ftz: subnormals count
          {LARGEST_SUBNORMAL, LEAST, LEAST_NORMAL},
          {MINUS, MINUS, MINUS},
          {0, MINUS, 0},
          {ONE, MINUS_ONE, 0},
          {INF, MINUS_INF, NOT_A_NUMBER},
          {QUIET, ONE, NOT_A_NUMBER},
          {ONE, SIGNALLING, NOT_A_NUMBER},
          {NEGATIVE_NAN, ONE, NOT_A_NUMBER}}},
        {"sub.rn.f32",
         "www",
         {{THREE, TWO, ONE},
          {0, 0, 0},
          {MINUS, 0, MINUS},
          {LEAST_NORMAL, LEAST, LARGEST_SUBNORMAL},
          {INF, INF, NOT_A_NUMBER},
          {0xff7fffff, LARGEST, MINUS_INF},
          {QUIET, QUIET, NOT_A_NUMBER}}},
        {"mul.rn.f32",
         "www",
         {{TWO, HALF, ONE},
          {0x3f800001, 0x3f800001, 0x3f800002},
          {LEAST_NORMAL, HALF, 0x00400000},
          {LEAST, HALF, 0},  // a tie between 0 and 2^-149
          {3, HALF, 2},
          {LEAST | MINUS, HALF, MINUS},
          {LARGEST, TWO, INF},
          {0, MINUS_ONE, MINUS},
          {0, INF, NOT_A_NUMBER},
          {MINUS_INF, MINUS_TWO, INF},
          {SIGNALLING, 0, NOT_A_NUMBER}}},
        {"div.rn.f32",
         "www",
         {{ONE, THREE, 0x3eaaaaab},
          {TWO, THREE, 0x3f2aaaab},
          {ONE, 0, INF},
          {ONE, MINUS, MINUS_INF},
          {0, 0, NOT_A_NUMBER},
          {INF, INF, NOT_A_NUMBER},
          {LEAST_NORMAL, TWO, 0x00400000},
          {LEAST, TWO, 0},
          {MINUS_ONE, INF, MINUS},
          {LARGEST, HALF, INF},
          {ONE, NEGATIVE_NAN, NOT_A_NUMBER}}},
        {"fma.rn.f32",
         "wwww",
         {{TWO, THREE, ONE, 0x40e00000},
          {0x3f800001, 0x3f800001, 0xbf800002, 0x28800000},  // (1 + u)^2 - (1 + 2 u) = u^2: rounded once
          {LARGEST, TWO, 0xff7fffff, LARGEST},
          {LEAST, HALF, LEAST, 2},
          {0, INF, QUIET, NOT_A_NUMBER},
          {0, INF, ONE, NOT_A_NUMBER},
          {INF, ONE, MINUS_INF, NOT_A_NUMBER},
          {MINUS_ONE, 0, MINUS, MINUS},
          {MINUS_ONE, 0, 0, 0},
          {ONE, ONE, MINUS_ONE, 0},
          {SIGNALLING, ONE, ONE, NOT_A_NUMBER}}},
        {"max.f32",
         "www",
         {{ONE, TWO, TWO},
          {MINUS_ONE, MINUS_TWO, MINUS_ONE},
          {QUIET, ONE, ONE},
          {MINUS_INF, SIGNALLING, MINUS_INF},
          {QUIET, SIGNALLING, NOT_A_NUMBER},
          {NEGATIVE_NAN, NEGATIVE_NAN, NOT_A_NUMBER},
          {0, MINUS, 0},  // +0.0 > -0.0
          {MINUS, 0, 0},
          {MINUS, MINUS, MINUS},
          {LEAST, 0, LEAST},
          {LEAST | MINUS, MINUS, MINUS},
          {INF, LARGEST, INF}}},
        {"abs.f32", "ww", {{MINUS_ONE, ONE}, {ONE, ONE}, {MINUS, 0}, {MINUS_INF, INF}, {LEAST | MINUS, LEAST}}},
        {"neg.f32",
         "ww",
         {{ONE, MINUS_ONE}, {MINUS_ONE, ONE}, {0, MINUS}, {MINUS, 0}, {INF, MINUS_INF}, {LEAST, LEAST | MINUS}}},
        // The sign of a, the rest of b.
        {"copysign.f32",
         "www",
         {{MINUS_ONE, TWO, MINUS_TWO},
          {ONE, MINUS_TWO, TWO},
          {MINUS, 0, MINUS},
          {0, MINUS_INF, INF},
          {MINUS, LEAST, LEAST | MINUS},
          {0xffc00000, ONE, MINUS_ONE}}},
        {"rcp.rn.f32",
         "ww",
         {{TWO, HALF},
          {THREE, 0x3eaaaaab},
          {0, INF},
          {MINUS, MINUS_INF},
          {MINUS_INF, MINUS},
          {INF, 0},
          {LARGEST, 0x00200000},
          {0x7e800000, LEAST_NORMAL},
          {LEAST, INF},
          {0x00200001, 0x7f7ffff8},
          {SIGNALLING, NOT_A_NUMBER}}},
        // Exact at powers of two, and where the ISA has tables.
        {"rcp.approx.ftz.f32",
         "ww",
         {{TWO, HALF},
          {MINUS_TWO, HALF | MINUS},
          {0, INF},
          {MINUS, MINUS_INF},
          {INF, 0},
          {MINUS_INF, MINUS},
          {LARGEST_SUBNORMAL, INF},
          {LEAST | MINUS, MINUS_INF},
          {LARGEST, 0},
          {LARGEST | MINUS, MINUS},
          {LEAST_NORMAL, 0x7e800000},
          {0x7e800000, LEAST_NORMAL},
          {QUIET, NOT_A_NUMBER}}},
        {"rsqrt.approx.f32",
         "ww",
         {{0x40800000, HALF},
          {ONE, ONE},
          {0, INF},
          {MINUS, MINUS_INF},
          {INF, 0},
          {MINUS_INF, NOT_A_NUMBER},
          {MINUS_ONE, NOT_A_NUMBER},
          {LEAST | MINUS, NOT_A_NUMBER},
          {QUIET, NOT_A_NUMBER},
          {0x00080000, 0x60000000}}},  // 2^-130: subnormals are supported
        {"ex2.approx.ftz.f32",
         "ww",
         {{0, ONE},
          {MINUS, ONE},
          {ONE, TWO},
          {MINUS_ONE, HALF},
          {LEAST, ONE},
          {LARGEST_SUBNORMAL | MINUS, ONE},
          {INF, INF},
          {MINUS_INF, 0},
          {0x43000000, INF},
          {bits(127), 0x7f000000},
          {bits(-126), LEAST_NORMAL},
          {bits(-127), 0},
          {bits(-140), 0},
          {bits(-200), 0},
          {QUIET, NOT_A_NUMBER}}},
    };
}

std::vector<Opcode> integer_opcodes() {
    constexpr uint32_t LEAST_INT = 0x80000000, MOST_INT = 0x7fffffff;
    return {
        {"add.s32", "www", {{1, 2, 3}, {MOST_INT, 1, LEAST_INT}, {0xffffffff, 1, 0}, {LEAST_INT, LEAST_INT, 0}}},
        {"sub.s32", "www", {{1, 2, 0xffffffff}, {LEAST_INT, 1, MOST_INT}, {5, 5, 0}}},
        {"mul.lo.s32",
         "www",
         {{7, 0xfffffffd, 0xffffffeb},
          {0x10000, 0x10000, 0},
          {0xffffffff, 0xffffffff, 1},
          {0x12345, 0x6789a, 0x5cd58f82},
          {LEAST_INT, 0xffffffff, LEAST_INT}}},
        {"mad.lo.s32",
         "wwww",
         {{3, 4, 5, 17}, {0x10000, 0x10000, 7, 7}, {0xffffffff, 2, 1, 0xffffffff}, {MOST_INT, 2, 2, 0}}},
        {"neg.s32", "ww", {{1, 0xffffffff}, {0, 0}, {LEAST_INT, LEAST_INT}, {0xfffffff6, 10}}},
        {"add.s64", "ddd", {{1, 2, 3}, {0xffffffff, 1, 0x100000000}, {ALL, 1, 0}, {TOP - 1, 1, TOP}}},
        {"sub.s64", "ddd", {{0x100000000, 1, 0xffffffff}, {0, 1, ALL}, {TOP, 1, TOP - 1}}},
        {"mul.lo.s64",
         "ddd",
         {{0x100000001, 0x100000001, 0x200000001}, {ALL, ALL, 1}, {0x100000000, 0x100000000, 0}, {3, ALL, ALL - 2}}},
        {"sub.s16", "hhh", {{5, 3, 2}, {3, 5, 0xfffe}, {0x8000, 1, 0x7fff}}},
        {"mul.lo.s16", "hhh", {{300, 300, 0x5f90}, {0xffff, 0xffff, 1}, {0xffff, 7, 0xfff9}, {0x8000, 2, 0}}},
        {"mul.wide.u32",
         "dww",
         {{0xffffffff, 0xffffffff, 0xfffffffe00000001}, {LEAST_INT, 2, 0x100000000}, {0, 5, 0}, {7, 4, 28}}},
        {"mul.wide.u16", "whh", {{0xffff, 0xffff, 0xfffe0001}, {0x8000, 2, 0x10000}, {0, 9, 0}, {300, 300, 90000}}},
        {"div.u32", "www", {{7, 2, 3}, {0xffffffff, 2, MOST_INT}, {LEAST_INT, 0xffffffff, 0}, {9, 1, 9}, {0, 5, 0}}},
        {"rem.u32", "www", {{7, 2, 1}, {0xffffffff, 10, 5}, {LEAST_INT, 0xffffffff, LEAST_INT}, {9, 1, 0}}},
        {"min.u32", "www", {{1, 2, 1}, {0xffffffff, 0, 0}, {LEAST_INT, MOST_INT, MOST_INT}, {5, 5, 5}}},
        {"max.u32", "www", {{1, 2, 2}, {0xffffffff, 0, 0xffffffff}, {LEAST_INT, MOST_INT, LEAST_INT}, {5, 5, 5}}},
        {"max.u64", "ddd", {{1, 2, 2}, {ALL, 0, ALL}, {TOP, TOP - 1, TOP}, {0x100000000, 0xffffffff, 0x100000000}}},
    };
}

std::vector<Opcode> bit_opcodes() {
    return {
        // A nibble from 8 on is the sign of a byte, eight times; nibbles beyond the fourth are nothing.
        {"prmt.b32",
         "wwww",
         {{0x33221180, 0x77665544, 0x3210, 0x33221180},
          {0x33221180, 0x77665544, 0x0347, 0x80334477},
          {0x33221180, 0x77665544, 0x9810, 0x00ff1180},
          {0x33221180, 0x77e65544, 0xffffe654, 0xffe65544}}},
        {"and.b16", "hhh", {{0xff0f, 0x1234, 0x1204}, {0xffff, 0x8000, 0x8000}}},
        {"or.b16", "hhh", {{0xff00, 0x1234, 0xff34}, {0, 0, 0}}},
        {"and.b32", "www", {{0xff00ff00, 0x12345678, 0x12005600}, {0xffffffff, 0x80000001, 0x80000001}}},
        {"or.b32", "www", {{0xff00ff00, 0x12345678, 0xff34ff78}}},
        {"xor.b32", "www", {{0xff00ff00, 0x12345678, 0xed34a978}, {5, 5, 0}}},
        {"not.b32", "ww", {{0, 0xffffffff}, {0x12345678, 0xedcba987}}},
        {"and.b64", "ddd", {{0xff00ff00ff00ff00, 0x123456789abcdef0, 0x120056009a00de00}}},
        {"or.b64", "ddd", {{0xff00ff00ff00ff00, 0x123456789abcdef0, 0xff34ff78ffbcfff0}}},
        {"xor.b64", "ddd", {{0xff00ff00ff00ff00, 0x123456789abcdef0, 0xed34a97865bc21f0}}},
        {"not.b64", "dd", {{0, ALL}, {0x123456789abcdef0, 0xedcba9876543210f}}},
        {"and.pred", "ppp", {{0, 0, 0}, {0, 1, 0}, {1, 0, 0}, {1, 1, 1}}},
        {"or.pred", "ppp", {{0, 0, 0}, {0, 1, 1}, {1, 0, 1}, {1, 1, 1}}},
        {"xor.pred", "ppp", {{0, 0, 0}, {0, 1, 1}, {1, 0, 1}, {1, 1, 0}}},
        {"not.pred", "pp", {{0, 1}, {1, 0}}},
        // Amounts beyond the width are clamped to it.
        {"shl.b16",
         "hhw",
         {{0x1234, 4, 0x2340}, {1, 15, 0x8000}, {0xffff, 16, 0}, {1, 32, 0}, {1, 0xffffffff, 0}, {9, 0, 9}}},
        {"shl.b32",
         "www",
         {{1, 31, 0x80000000}, {1, 32, 0}, {3, 33, 0}, {1, 0xffffffff, 0}, {0x12345678, 4, 0x23456780}, {9, 0, 9}}},
        {"shl.b64", "ddw", {{1, 63, TOP}, {1, 64, 0}, {1, 65, 0}, {1, 32, 0x100000000}, {1, 0xffffffff, 0}, {9, 0, 9}}},
        {"shr.u16", "hhw", {{0x8000, 15, 1}, {0xffff, 16, 0}, {0xffff, 0x80000000, 0}, {0xf234, 4, 0x0f23}, {9, 0, 9}}},
        {"shr.u32",
         "www",
         {{0x80000000, 31, 1}, {ALL >> 32, 32, 0}, {ALL >> 32, 64, 0}, {0xf2345678, 4, 0x0f234567}, {9, 0, 9}}},
        {"shr.u64", "ddw", {{TOP, 63, 1}, {ALL, 64, 0}, {ALL, 0xffffffff, 0}, {ALL, 32, 0xffffffff}, {9, 0, 9}}},
        // a is put into b at bit c, d bits of it; c and d are bytes. Bits beyond the end are dropped.
        {"bfi.b32",
         "wwwww",
         {{0x5, 0xffffffff, 8, 4, 0xfffff5ff},
          {0xabcd, 0, 16, 16, 0xabcd0000},
          {0xff, 0, 28, 8, 0xf0000000},
          {0xffffffff, 0, 0, 32, 0xffffffff},
          {0xffffffff, 0, 0, 31, 0x7fffffff},
          {0x12345678, 0, 0, 255, 0x12345678},
          {0x12345678, 0xffffffff, 4, 255, 0x2345678f},
          {0xffffffff, 0x1234, 32, 4, 0x1234},
          {0xffffffff, 0x1234, 255, 255, 0x1234},
          {0xffffffff, 0x1234, 4, 0, 0x1234},
          {0xffffffff, 0, 0x104, 0x204, 0xf0},
          {0x1, 0, 31, 1, 0x80000000},
          {0xfffffffe, 0xffffffff, 31, 1, 0x7fffffff}}},
    };
}

std::vector<Opcode> move_opcodes() {
    return {
        {"mov.u16", "hh", {{0xfedc, 0xfedc}}},
        {"mov.u32", "ww", {{0xfedcba98, 0xfedcba98}}},
        {"mov.b32", "ww", {{0xfedcba98, 0xfedcba98}}},
        {"mov.f32", "ww", {{SIGNALLING, SIGNALLING}, {NEGATIVE_NAN, NEGATIVE_NAN}, {LEAST, LEAST}, {MINUS, MINUS}}},
        {"mov.u64", "dd", {{0xfedcba9876543210, 0xfedcba9876543210}}},
        {"mov.b64", "dd", {{0xfedcba9876543210, 0xfedcba9876543210}}},
        {"mov.pred", "pp", {{0, 0}, {1, 1}}},
        {"selp.u16", "hhhp", {{1, 2, 1, 1}, {1, 2, 0, 2}, {0xffff, 0x8000, 0, 0x8000}}},
        {"selp.u32", "wwwp", {{1, 2, 1, 1}, {1, 2, 0, 2}}},
        {"selp.b32", "wwwp", {{1, 2, 1, 1}, {1, 2, 0, 2}}},
        {"selp.f32", "wwwp", {{SIGNALLING, 2, 1, SIGNALLING}, {1, NEGATIVE_NAN, 0, NEGATIVE_NAN}}},
        {"selp.b64", "dddp", {{ALL, TOP, 1, ALL}, {ALL, TOP, 0, TOP}}},
        {"cvta.to.global.u64", "dd", {{0x123456789abcdef0, 0x123456789abcdef0}}},
    };
}

std::vector<Opcode> conversion_opcodes() {
    return {
        {"cvt.f32.bf16", "wh", {{0x3f80, ONE}, {0x8000, MINUS}, {1, 0x10000}, {0x7f80, INF}, {0xff80, MINUS_INF}}},
        {"cvt.f32.f16",
         "wh",
         {{0x3c00, ONE},
          {0x8000, MINUS},
          {0, 0},
          {1, 0x33800000},
          {0x8001, 0xb3800000},
          {0x03ff, 0x387fc000},
          {0x0400, 0x38800000},
          {0x7bff, 0x477fe000},
          {0x7c00, INF},
          {0xfc00, MINUS_INF},
          {0x7fff, NOT_A_NUMBER},
          {0x0200, 0x38000000},
          {0xc248, 0xc0490000}}},
        {"cvt.rn.bf16.f32",
         "hw",
         {{ONE, 0x3f80},
          {0x3f808000, 0x3f80},
          {0x3f818000, 0x3f82},
          {0x3f808001, 0x3f81},
          {0x3f807fff, 0x3f80},
          {LARGEST, 0x7f80},
          {0x7f7f7fff, 0x7f7f},
          {0x7f7f8000, 0x7f80},
          {LARGEST | MINUS, 0xff80},
          {INF, 0x7f80},
          {MINUS, 0x8000},
          {LEAST, 0},
          {0x00008000, 0},
          {0x00008001, 1},
          {0x00018000, 2},
          {0x007fffff, 0x0080},
          {QUIET, 0x7fff},
          {SIGNALLING, 0x7fff},
          {NEGATIVE_NAN, 0x7fff}}},
        {"cvt.rn.f16.f32",
         "hw",
         {{ONE, 0x3c00},        {0x3f801000, 0x3c00}, {0x3f803000, 0x3c02}, {0x3f801001, 0x3c01},
          {0x477fe000, 0x7bff}, {0x477fefff, 0x7bff}, {0x477ff000, 0x7c00}, {0xc77ff000, 0xfc00},
          {LARGEST, 0x7c00},    {MINUS_INF, 0xfc00},  {0x38800000, 0x0400}, {0x387fc000, 0x03ff},
          {0x387fe000, 0x0400}, {0x33800000, 1},      {0x33000000, 0},      {0x33000001, 1},
          {0x33c00000, 2},      {0x34200000, 2},      {0xb3800000, 0x8001}, {LEAST | MINUS, 0x8000},
          {MINUS, 0x8000},      {0x3fffffff, 0x4000}, {QUIET, 0x7fff},      {NEGATIVE_NAN, 0x7fff}}},
        // a becomes the upper half, b the lower.
        {"cvt.rn.bf16x2.f32",
         "www",
         {{ONE, TWO, 0x3f804000},
          {0x3f818000, 0x3f808000, 0x3f823f80},
          {NEGATIVE_NAN, MINUS, 0x7fff8000},
          {LARGEST, LEAST, 0x7f800000}}},
        {"cvt.rn.f16x2.f32",
         "www",
         {{ONE, TWO, 0x3c004000},
          {0x3f803000, 0x3f801000, 0x3c023c00},
          {MINUS, QUIET, 0x80007fff},
          {0x33800000, LARGEST, 0x00017c00}}},
        {"cvt.rn.f32.s32",
         "ww",
         {{1, ONE},
          {0xffffffff, MINUS_ONE},
          {0x80000000, 0xcf000000},
          {0x7fffffff, 0x4f000000},
          {0, 0},
          {0x01000001, 0x4b800000},
          {0x01000003, 0x4b800002},
          {0xfeffffff, 0xcb800000}}},
        {"cvt.rn.f32.u32",
         "ww",
         {{1, ONE},
          {0xffffffff, 0x4f800000},
          {0x80000000, 0x4f000000},
          {0x01000001, 0x4b800000},
          {0x01000003, 0x4b800002},
          {0xffffff7f, 0x4f7fffff},
          {0xffffff80, 0x4f800000},
          {0, 0}}},
        {"cvt.rni.f32.f32",
         "ww",
         {{HALF, 0},
          {bits(1.5f), TWO},
          {bits(2.5f), TWO},
          {bits(-0.5f), MINUS},
          {bits(-1.5f), MINUS_TWO},
          {0x3effffff, 0},
          {0x3f000001, ONE},
          {LEAST, 0},
          {0x4b000001, 0x4b000001},
          {0x4affffff, 0x4b000000},
          {MINUS_INF, MINUS_INF},
          {SIGNALLING, NOT_A_NUMBER}}},
        {"cvt.rmi.f32.f32",
         "ww",
         {{bits(1.9f), ONE},
          {bits(-1.1f), MINUS_TWO},
          {LEAST, 0},
          {LEAST | MINUS, MINUS_ONE},
          {MINUS, MINUS},
          {bits(-2.0f), MINUS_TWO},
          {INF, INF},
          {QUIET, NOT_A_NUMBER}}},
        {"cvt.rzi.f32.f32",
         "ww",
         {{bits(1.9f), ONE},
          {bits(-1.9f), MINUS_ONE},
          {bits(-0.9f), MINUS},
          {LEAST, 0},
          {0x4b000001, 0x4b000001},
          {MINUS_INF, MINUS_INF},
          {QUIET, NOT_A_NUMBER}}},
        // Clamped to the range of the result; NaN becomes 0.
        {"cvt.rzi.u32.f32",
         "ww",
         {{bits(1.9f), 1},
          {bits(-0.9f), 0},
          {MINUS_ONE, 0},
          {MINUS, 0},
          {0x4f7fffff, 0xffffff00},
          {0x4f800000, 0xffffffff},
          {INF, 0xffffffff},
          {MINUS_INF, 0},
          {LARGEST, 0xffffffff},
          {QUIET, 0},
          {NEGATIVE_NAN, 0},
          {LEAST, 0}}},
        {"cvt.rzi.s32.f32",
         "ww",
         {{bits(1.9f), 1},
          {bits(-1.9f), 0xffffffff},
          {0x4effffff, 0x7fffff80},
          {0x4f000000, 0x7fffffff},
          {INF, 0x7fffffff},
          {0xcf000000, 0x80000000},
          {0xcf000001, 0x80000000},
          {MINUS_INF, 0x80000000},
          {SIGNALLING, 0},
          {NEGATIVE_NAN, 0}}},
        {"cvt.s64.s32", "dw", {{1, 1}, {0xffffffff, ALL}, {0x80000000, 0xffffffff80000000}, {0x7fffffff, 0x7fffffff}}},
        {"cvt.u64.u32", "dw", {{0xffffffff, 0xffffffff}, {0x80000000, 0x80000000}}},
        {"cvt.u64.u16", "dh", {{0xffff, 0xffff}, {0x8000, 0x8000}}},
        {"cvt.u32.u64", "wd", {{0x123456789abcdef0, 0x9abcdef0}, {0x100000000, 0}, {ALL, 0xffffffff}}},
        {"cvt.u32.u16", "wh", {{0xffff, 0xffff}, {0x8000, 0x8000}}},
        {"cvt.u16.u32", "hw", {{0x12345678, 0x5678}, {0x10000, 0}, {0xffffffff, 0xffff}}},
    };
}

/// A comparison of f32 with its results for less, equal, greater and unordered.
Opcode float_comparison(const char* name, bool less, bool equal, bool greater, bool unordered) {
    return {name,
            "pww",
            {{ONE, TWO, less},
             {MINUS_ONE, ONE, less},
             {MINUS_INF, INF, less},
             {0, LEAST, less},
             {LEAST | MINUS, MINUS, less},
             {ONE, ONE, equal},
             {0, MINUS, equal},
             {MINUS, 0, equal},
             {INF, INF, equal},
             {MINUS_ONE, MINUS_TWO, greater},
             {LARGEST_SUBNORMAL, LEAST, greater},
             {INF, LARGEST, greater},
             {QUIET, ONE, unordered},
             {ONE, SIGNALLING, unordered},
             {QUIET, QUIET, unordered},
             {NEGATIVE_NAN, MINUS_INF, unordered}}};
}
/// One of numbers of 16, 32 or 64 bits, signed or not.
Opcode comparison(const char* name, char width, bool is_signed, bool less, bool equal, bool greater) {
    const uint64_t all = width == 'h' ? 0xffff : width == 'w' ? 0xffffffff : ALL, top = all ^ all >> 1;
    const bool top_less = is_signed ? less : greater, top_greater = is_signed ? greater : less;
    static const char* const WIDTHS[] = {"phh", "pww", "pdd"};
    return {name,
            WIDTHS[width == 'h'   ? 0
                   : width == 'w' ? 1
                                  : 2],
            {{1, 2, less},
             {2, 1, greater},
             {7, 7, equal},
             {all, all, equal},
             {top, top, equal},
             {top, top - 1, top_less},
             {top - 1, top, top_greater},
             {all, 0, top_less},
             {0, all, top_greater},
             {top, all, less},
             {all - 1, all, less}}};
}
std::vector<Opcode> comparison_opcodes() {
    std::vector<Opcode> all = {
        comparison("setp.eq.s16", 'h', true, false, true, false),
        comparison("setp.ne.s16", 'h', true, true, false, true),
        comparison("setp.eq.b32", 'w', false, false, true, false),
        comparison("setp.eq.s32", 'w', true, false, true, false),
        comparison("setp.ne.s32", 'w', true, true, false, true),
        comparison("setp.lt.s32", 'w', true, true, false, false),
        comparison("setp.gt.s32", 'w', true, false, false, true),
        comparison("setp.lt.u32", 'w', false, true, false, false),
        comparison("setp.le.u32", 'w', false, true, true, false),
        comparison("setp.gt.u32", 'w', false, false, false, true),
        comparison("setp.ge.u32", 'w', false, false, true, true),
        comparison("setp.eq.s64", 'd', true, false, true, false),
        comparison("setp.ne.s64", 'd', true, true, false, true),
        comparison("setp.lt.u64", 'd', false, true, false, false),
        comparison("setp.le.u64", 'd', false, true, true, false),
        comparison("setp.gt.u64", 'd', false, false, false, true),
        comparison("setp.ge.u64", 'd', false, false, true, true),
        // less, equal, greater, unordered
        float_comparison("setp.eq.f32", false, true, false, false),
        float_comparison("setp.lt.f32", true, false, false, false),
        float_comparison("setp.le.f32", true, true, false, false),
        float_comparison("setp.gt.f32", false, false, true, false),
        float_comparison("setp.ge.f32", false, true, true, false),
        float_comparison("setp.neu.f32", true, false, true, true),
        float_comparison("setp.ltu.f32", true, false, false, true),
        float_comparison("setp.leu.f32", true, true, false, true),
        float_comparison("setp.gtu.f32", false, false, true, true),
        float_comparison("setp.geu.f32", false, true, true, true),
    };
    for (Opcode& opcode : all) {
        if (std::string(opcode.name) != "setp.eq.s64") continue;
        opcode.rows.push_back({0x100000000, 0, 0});  // the upper halves count
        opcode.rows.push_back({0x100000000, 0x100000000, 1});
    }
    return all;
}

const std::vector<Opcode>& opcodes() {
    static const std::vector<Opcode> all = [] {
        std::vector<Opcode> joined;
        for (auto* table :
             {float_opcodes, integer_opcodes, bit_opcodes, move_opcodes, conversion_opcodes, comparison_opcodes}) {
            for (Opcode& opcode : table()) joined.push_back(opcode);
        }
        return joined;
    }();
    return all;
}

// ---- One kernel for each opcode ------------------------------------------------------------------------------------

/// Each lane reads its row of eight pairs of words, and writes a pair.
constexpr uint32_t PAIRS = 8;

std::string kernel_name(const Opcode& opcode) {
    std::string name = std::string("value_") + opcode.name + "_" + opcode.widths;
    for (char& c : name) c = c == '.' ? '_' : c;
    return name;
}
std::string kernel_of(const Opcode& opcode) {
    const std::string widths = opcode.widths;
    std::string body =
        "\tmul.wide.u32 \t%d3, %r0, 64;\n\tadd.s64 \t%d3, %d0, %d3;\n"
        "\tmul.wide.u32 \t%d2, %r0, 8;\n\tadd.s64 \t%d2, %d1, %d2;\n";
    std::string operands;
    for (size_t i = 1; i < widths.size(); ++i) {
        const std::string n = std::to_string(i), low = "[%d3+" + std::to_string(8 * (i - 1)) + "];\n";
        const std::string high = "[%d3+" + std::to_string(8 * (i - 1) + 4) + "];\n";
        switch (widths[i]) {
            case 'p':
                body += "\tld.global.u32 \t%r1" + n + ", " + low + "\tsetp.ne.s32 \t%p" + n + ", %r1" + n + ", 0;\n";
                operands += ", %p" + n;
                break;
            case 'h':
                body += "\tld.global.u16 \t%h" + n + ", " + low;
                operands += ", %h" + n;
                break;
            case 'w':
                body += "\tld.global.u32 \t%r1" + n + ", " + low;
                operands += ", %r1" + n;
                break;
            default:
                body += "\tld.global.u32 \t%d1" + n + ", " + high + "\tshl.b64 \t%d1" + n + ", %d1" + n + ", 32;\n" +
                        "\tld.global.u32 \t%d10, " + low + "\tor.b64 \t%d1" + n + ", %d1" + n + ", %d10;\n";
                operands += ", %d1" + n;
        }
    }
    const std::string name = std::string("\t") + opcode.name + " \t";
    switch (widths[0]) {
        case 'p':
            return entry(kernel_name(opcode), body + name + "%p0" + operands +
                                                  ";\n\tselp.u32 \t%r20, 1, 0, %p0;\n\tst.global.u32 \t[%d2], %r20;");
        case 'h':
            return entry(kernel_name(opcode), body + name + "%h0" + operands + ";\n\tst.global.u16 \t[%d2], %h0;");
        case 'w':
            return entry(kernel_name(opcode), body + name + "%r20" + operands + ";\n\tst.global.u32 \t[%d2], %r20;");
        default:
            return entry(
                kernel_name(opcode),
                body + name + "%d10" + operands +
                    ";\n\tcvt.u32.u64 \t%r20, %d10;\n\tshr.u64 \t%d10, %d10, 32;\n\tcvt.u32.u64 \t%r21, %d10;\n"
                    "\tst.global.v2.u32 \t[%d2], {%r20, %r21};");
    }
}

/// Rows as they are, and repeated until they fill whole warps.
void check(const Opcode& opcode) {
    const size_t rows = opcode.rows.size(), operands = strlen(opcode.widths) - 1;
    const char to = opcode.widths[0];
    for (size_t threads : {rows, (rows + 31) / 32 * 32}) {
        std::vector<uint32_t> in(threads * PAIRS * 2), expected(threads * 2, 0xffffffff);
        for (size_t i = 0; i < threads; ++i) {
            const Row& row = opcode.rows[i % rows];
            if (row.size() != operands + 1) return report(opcode.name, false, "a row of another length");
            for (size_t j = 0; j < operands; ++j) {
                in[(i * PAIRS + j) * 2] = uint32_t(row[j]);
                in[(i * PAIRS + j) * 2 + 1] = uint32_t(row[j] >> 32);
            }
            expected[i * 2] = uint32_t(row.back()) | (to == 'h' ? 0xffff0000 : 0);
            if (to == 'd') expected[i * 2 + 1] = uint32_t(row.back() >> 32);
        }
        Shape shape;
        shape.threads = uint32_t(threads);
        std::string message;
        const std::vector<uint32_t> found =
            run(kernel_name(opcode), shape, in, expected.size(), 0, EmulatorOptions(), &message);
        std::string wrong = message;
        for (size_t i = 0; wrong.empty() && i < expected.size(); ++i) {
            if (found[i] == expected[i]) continue;
            wrong = "of";
            for (size_t j = 0; j < operands; ++j) wrong += " " + hex(opcode.rows[i / 2 % rows][j]);
            wrong += (i % 2 ? " upper half " : " found ") + hex(found[i]) + " and not " + hex(expected[i]);
        }
        if (!wrong.empty()) return report(opcode.name, false, wrong);
    }
    report(opcode.name, true, std::to_string(rows) + " rows");
}

// ---- The rest: pairs, constants, special registers, scopes, approximations -----------------------------------------

struct Literals {
    const char* name;
    const char* body;
    std::vector<uint32_t> words;  // at %d1
};
const std::vector<Literals>& literals() {
    static const std::vector<Literals> all = {
        {"pair_of_halves",
         R"(
	mov.u16 	%h1, 0x1234;
	mov.u16 	%h2, -2;
	mov.b32 	%r3, {%h1, %h2};
	mov.b32 	%r4, {%h2, 7};
	st.global.v2.u32 	[%d1], {%r3, %r4};)",
         {0xfffe1234, 0x0007fffe}},
        {"pair_of_words",
         R"(
	mov.u32 	%r3, 0x12345678;
	mov.b64 	%d4, {%r3, -2};
	mov.b64 	{%r4, %r5}, %d4;
	st.global.v2.u32 	[%d1], {%r5, %r4};)",
         {0xfffffffe, 0x12345678}},
        {"integer_constants",
         R"(
	mov.u32 	%r3, -1;
	mov.u32 	%r4, 4294967295;
	mov.u32 	%r5, 0xdeadbeef;
	mov.u32 	%r6, -2147483648;
	st.global.v4.u32 	[%d1], {%r3, %r4, %r5, %r6};)",
         {0xffffffff, 0xffffffff, 0xdeadbeef, 0x80000000}},
        {"float_constants",
         R"(
	mov.f32 	%r3, 0f3F800000;
	mov.b32 	%r4, 0fFF800000;
	add.rn.f32 	%r5, %r3, 0fc0000000;
	fma.rn.f32 	%r6, 0F40000000, 0f40400000, %r3;
	st.global.v4.f32 	[%d1], {%r3, %r4, %r5, %r6};)",
         {0x3f800000, 0xff800000, 0xbf800000, 0x40e00000}},
        {"wide_constants",
         R"(
	mov.u64 	%d4, -2;
	add.s64 	%d4, %d4, 0x100000000;
	mov.b64 	%d5, 18446744073709551615;
	and.b64 	%d4, %d4, %d5;
	cvt.u32.u64 	%r3, %d4;
	shr.u64 	%d4, %d4, 32;
	cvt.u32.u64 	%r4, %d4;
	st.global.v2.u32 	[%d1], {%r3, %r4};)",
         {0xfffffffe, 0}},
        {"predicate_constants",
         R"(
	mov.pred 	%p1, -1;
	mov.pred 	%p2, 0;
	selp.u32 	%r3, 5, 6, %p1;
	selp.u32 	%r4, 5, 6, %p2;
	st.global.v2.u32 	[%d1], {%r3, %r4};)",
         {5, 6}},
        // An inner register hides the outer one of the same name, which has its value afterwards.
        {"scopes",
         R"(
	mov.u32 	%r3, 1;
	{
	.reg .b32 %r3;
	.reg .b32 inner;
	mov.u32 	%r3, 2;
	mov.u32 	inner, %r3;
	mov.u32 	%r4, inner;
	}
	{
	.reg .b16 inner;
	mov.u16 	inner, 9;
	cvt.u32.u16 	%r5, inner;
	}
	st.global.v2.u32 	[%d1], {%r3, %r4};
	st.global.u32 	[%d1+8], %r5;)",
         {1, 2, 9}},
        // The operand that is also the result is read first.
        {"result_is_operand",
         R"(
	mov.u32 	%r3, 7;
	mad.lo.s32 	%r3, %r3, %r3, %r3;
	mov.pred 	%p1, 1;
	not.pred 	%p1, %p1;
	selp.u32 	%r4, 1, 2, %p1;
	st.global.v2.u32 	[%d1], {%r3, %r4};)",
         {56, 2}},
        {"pragmas_and_comments",
         R"(
	.pragma "nounroll";
	mov.u32 	%r3, 3; // mov.u32 %r3, 4;
	// begin inline asm
	st.global.u32 	[%d1], %r3;)",
         {3}},
    };
    return all;
}

void special_registers() {
    Shape shape;
    shape.x = 3;
    shape.y = 2;
    shape.z = 2;
    shape.threads = 40;
    std::vector<uint32_t> expected;
    for (uint32_t block = 0; block < 12; ++block) {
        for (uint32_t thread = 0; thread < 40; ++thread) {
            for (uint32_t word : {thread, block % 3, block / 3 % 2, block / 6, 40u, 3u, 0u, 0u})
                expected.push_back(word);
        }
    }
    expect_words("special registers", "special_registers", shape, {0}, expected);
}

/// The largest errors that the ISA allows, over many operands.
void approximations() {
    const struct {
        const char* kernel;
        double (*exact)(double);
        float least, most;
        double bound;  // relative
    } cases[] = {
        {"value_rcp_approx_ftz_f32_ww", [](double x) { return 1 / x; }, 1.2e-38f, 8e37f, std::ldexp(1, -23)},
        {"value_rsqrt_approx_f32_ww", [](double x) { return 1 / std::sqrt(x); }, 1e-40f, 3e38f, std::exp2(-22.9)},
        {"value_ex2_approx_ftz_f32_ww", [](double x) { return std::exp2(x); }, -125.9f, 127.9f, std::ldexp(1, -22)},
    };
    for (const auto& c : cases) {
        const uint32_t count = 1024;
        std::vector<uint32_t> in(count * PAIRS * 2);
        for (uint32_t i = 0; i < count; ++i) {
            const double part = (i + 0.5) / count;
            const double x = c.least < 0 ? c.least + part * (c.most - double(c.least))
                                         : c.least * std::pow(double(c.most) / c.least, part);
            in[i * PAIRS * 2] = bits(float(x));
        }
        Shape shape;
        shape.threads = count;
        std::string message;
        const std::vector<uint32_t> found = run(c.kernel, shape, in, count * 2, 0, EmulatorOptions(), &message);
        double most = message.empty() ? 0 : INFINITY;
        for (uint32_t i = 0; message.empty() && i < count; ++i) {
            float x, y;
            memcpy(&x, &in[i * PAIRS * 2], 4);
            memcpy(&y, &found[i * 2], 4);
            most = std::fmax(most, std::fabs(y - c.exact(x)) / c.exact(x));
        }
        report(std::string("error of ") + c.kernel, most <= c.bound,
               message + std::to_string(std::log2(most)) + " bits");
    }
}

}  // namespace

const std::string& values_module() {
    static const std::string text = [] {
        std::string entries;
        for (const Opcode& opcode : opcodes()) entries += kernel_of(opcode);
        for (const Literals& c : literals()) entries += entry(c.name, c.body);
        entries += entry("special_registers", R"(
	mov.u32 	%r3, %ctaid.x;
	mov.u32 	%r4, %ctaid.y;
	mov.u32 	%r5, %ctaid.z;
	mov.u32 	%r6, %ntid.x;
	mov.u32 	%r7, %nctaid.x;
	mad.lo.s32 	%r8, %r5, 2, %r4;
	mad.lo.s32 	%r8, %r8, %r7, %r3;
	mad.lo.s32 	%r8, %r8, %r6, %r0;
	mul.wide.u32 	%d4, %r8, 32;
	add.s64 	%d4, %d1, %d4;
	st.global.v4.u32 	[%d4], {%r0, %r3, %r4, %r5};
	st.global.v4.u32 	[%d4+16], {%r6, %r7, 0, 0};)");
        entries += entry("of_64_threads", "", 64);
        return module_of(entries);
    }();
    return text;
}

void values() {
    for (const Opcode& opcode : opcodes()) check(opcode);
    for (const Literals& c : literals()) expect_words(c.name, c.name, Shape(), {0}, c.words);
    special_registers();
    approximations();
}

}  // namespace test
