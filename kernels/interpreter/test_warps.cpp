// Opcodes at which the lanes of a warp meet: shuffles, matrices from shared memory, matrix products, warp barriers.
#include "test.h"

namespace test {
namespace {

// ---- shfl.sync: as the ISA's pseudocode says it, with the predicate ------------------------------------------------

struct Shuffled {
    uint32_t value;
    bool in_range;
};
/// What `lane` gets, where lane i's operand is 100 + i.
Shuffled shuffled(bool butterfly, uint32_t lane, uint32_t b, uint32_t c) {
    const uint32_t source = b & 0x1f, clamp = c & 0x1f, segment = c >> 8 & 0x1f;
    const uint32_t last = (lane & segment) | (clamp & ~segment & 0x1f), first = lane & segment;
    const uint32_t j = butterfly ? lane ^ source : first | (source & ~segment & 0x1f);
    const bool in_range = j <= last;
    return Shuffled{100 + (in_range ? j : lane), in_range};
}
void shuffles() {
    const uint32_t controls[] = {0x1f,   0x0f,   0x00,   0x07,   0x1c1f, 0x181f,
                                 0x101f, 0x1e1f, 0x1803, 0x1002, 0x1f1f, 0xe0e0e01f};
    for (bool butterfly : {true, false}) {
        size_t cases = 0;
        std::string wrong;
        for (uint32_t c : controls) {
            // b is the same in all lanes, or another in each.
            for (uint32_t b : {0u, 1u, 2u, 3u, 4u, 8u, 15u, 16u, 31u, 33u, 0xffffffe1u, 1000u}) {
                std::vector<uint32_t> in(64), expected(64);
                for (uint32_t lane = 0; lane < 32; ++lane) {
                    const uint32_t of_lane = b == 1000 ? lane * 7 + 3 : b;
                    in[lane] = of_lane;
                    in[32 + lane] = c;
                    const Shuffled result = shuffled(butterfly, lane, of_lane, c);
                    expected[2 * lane] = result.value;
                    expected[2 * lane + 1] = result.in_range;
                }
                std::string message;
                const char* const kernel = butterfly ? "shuffle_bfly" : "shuffle_idx";
                const std::vector<uint32_t> found = run(kernel, Shape(), in, 64, 0, scheduled(2, b), &message);
                wrong += message.empty() ? difference(found, expected) : message;
                cases += 1;
            }
        }
        report(butterfly ? "shfl.sync.bfly.b32" : "shfl.sync.idx.b32", wrong.empty(),
               wrong.empty() ? std::to_string(cases) + " cases" : wrong);
    }
    std::vector<uint32_t> sums(32, 31 * 32 / 2);
    expect_words("sum of a warp by shuffles", "warp_sum", Shape(), {0}, sums, 0, 4);
}

// ---- ldmatrix ------------------------------------------------------------------------------------------------------

/// Rows of 16 bytes lie 48 bytes apart, in an order of their own. The figure of the ISA: thread 4 r + c holds columns
/// 2 c and 2 c + 1 of row r; with .trans, rows 2 c and 2 c + 1 of column r.
void matrices() {
    const auto element = [](uint32_t matrix, uint32_t row, uint32_t column) {
        return 0x1000 * (matrix + 1) + 0x10 * row + column;
    };
    const auto slot = [](uint32_t matrix, uint32_t row) { return (matrix * 8 + row) * 5 % 32; };
    std::vector<uint32_t> in(32 * 12, 0), address(32);
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
        for (uint32_t row = 0; row < 8; ++row) {
            address[matrix * 8 + row] = slot(matrix, row) * 48;
            for (uint32_t column = 0; column < 8; ++column) {
                uint32_t& word = in[slot(matrix, row) * 12 + column / 2];
                word |= element(matrix, row, column) << 16 * (column % 2);
            }
        }
    }
    in.insert(in.end(), address.begin(), address.end());
    for (bool transposed : {false, true}) {
        std::vector<uint32_t> expected;
        for (uint32_t lane = 0; lane < 32; ++lane) {
            for (uint32_t matrix = 0; matrix < 4; ++matrix) {
                const uint32_t r = lane / 4, c = 2 * (lane % 4);
                const uint32_t low = transposed ? element(matrix, c, r) : element(matrix, r, c);
                const uint32_t high = transposed ? element(matrix, c + 1, r) : element(matrix, r, c + 1);
                expected.push_back(low | high << 16);
            }
        }
        Shape shape;
        shape.shared = 32 * 48 + 16;
        expect_words(transposed ? "ldmatrix, transposed" : "ldmatrix", transposed ? "ldmatrix_trans" : "ldmatrix_plain",
                     shape, in, expected);
    }
}

// ---- mma: exact on small integers ----------------------------------------------------------------------------------

/// A whole number, in the type's bits.
uint32_t small(bool is_bf16, int value) {
    if (is_bf16) return bits(float(value)) >> 16;
    const uint32_t word = bits(float(value));
    return value == 0 ? 0 : (word >> 16 & 0x8000) | (((word >> 23 & 0xff) - 112) << 10) | (word >> 13 & 0x3ff);
}
void products() {
    for (bool is_bf16 : {false, true}) {
        for (uint32_t units : {0u, 1u, 2u}) {
            std::string wrong;
            for (int seed = 0; seed < 4; ++seed) {
                int a[16][16], b[16][8], c[16][8];
                std::vector<uint32_t> in, expected;
                auto next = [&, state = uint32_t(seed * 977 + 5)]() mutable {
                    state = state * 1664525 + 1013904223;
                    return int(state >> 16) % 25 - 12;
                };
                for (auto& row : a)
                    for (int& x : row) in.push_back(small(is_bf16, x = next()));
                for (auto& row : b)
                    for (int& x : row) in.push_back(small(is_bf16, x = next()));
                for (auto& row : c)
                    for (int& x : row) in.push_back(bits(float(x = 40 * next())));
                for (uint32_t i = 0; i < 16; ++i) {
                    for (uint32_t j = 0; j < 8; ++j) {
                        int sum = c[i][j];
                        for (uint32_t k = 0; k < 16; ++k) sum += a[i][k] * b[k][j];
                        expected.push_back(bits(float(sum)));
                    }
                }
                EmulatorOptions options = scheduled(uint32_t(seed) % 3, uint64_t(seed));
                options.matrix_units = units;
                std::string message;
                const std::vector<uint32_t> found =
                    run(is_bf16 ? "mma_bf16" : "mma_f16", Shape(), in, 16 * 8, 0, options, &message);
                wrong += message.empty() ? difference(found, expected) : message;
            }
            report(std::string("mma of integers, ") + (is_bf16 ? "bf16" : "f16") + ", units " + std::to_string(units),
                   wrong.empty(), wrong);
        }
    }
}

/// The kernel reads and writes matrices by rows, a word an element, and makes the fragments that the ISA has in its
/// figures. With g = lane / 4 and t = lane % 4:
///     a, register i: row g + 8 (i % 2), columns 2 t + 8 (i / 2) and the next;
///     b, register i: rows 2 t + 8 i and the next, column g;
///     c and d, register i: row g + 8 (i / 2), column 2 t + i % 2.
std::string product_kernel(bool is_bf16) {
    std::string body = "\tshr.u32 \t%r10, %r0, 2;\n\tand.b32 \t%r11, %r0, 3;\n\tshl.b32 \t%r12, %r11, 1;\n";
    // A word of the input at (row, column) of a matrix that begins at word `first`.
    const auto address = [&](const std::string& base, uint32_t first, uint32_t width, const std::string& row,
                             uint32_t down, const std::string& column, uint32_t right) {
        body += "\tmad.lo.s32 \t%r13, " + row + ", " + std::to_string(width) + ", " + column + ";\n";
        body += "\tmul.wide.u32 \t%d4, %r13, 4;\n\tadd.s64 \t%d4, %d4, " + base + ";\n";
        return "[%d4+" + std::to_string(4 * (first + down * width + right)) + "]";
    };
    for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t down = 8 * (i % 2), right = 8 * (i / 2);
        const std::string low = address("%d0", 0, 16, "%r10", down, "%r12", right);
        body += "\tld.global.u16 \t%h1, " + low + ";\n";
        const std::string high = address("%d0", 0, 16, "%r10", down, "%r12", right + 1);
        body += "\tld.global.u16 \t%h2, " + high + ";\n\tmov.b32 \t%r2" + std::to_string(i) + ", {%h1, %h2};\n";
    }
    for (uint32_t i = 0; i < 2; ++i) {
        const std::string low = address("%d0", 256, 8, "%r12", 8 * i, "%r10", 0);
        body += "\tld.global.u16 \t%h1, " + low + ";\n";
        const std::string high = address("%d0", 256, 8, "%r12", 8 * i + 1, "%r10", 0);
        body += "\tld.global.u16 \t%h2, " + high + ";\n\tmov.b32 \t%r3" + std::to_string(i) + ", {%h1, %h2};\n";
    }
    for (uint32_t i = 0; i < 4; ++i) {
        const std::string at = address("%d0", 384, 8, "%r10", 8 * (i / 2), "%r12", i % 2);
        body += "\tld.global.f32 \t%r4" + std::to_string(i) + ", " + at + ";\n";
    }
    const std::string type = is_bf16 ? "bf16.bf16" : "f16.f16";
    body += "\tmma.sync.aligned.m16n8k16.row.col.f32." + type +
            ".f32 \t{%r40, %r41, %r42, %r43}, {%r20, %r21, %r22, %r23}, {%r30, %r31}, {%r40, %r41, %r42, %r43};\n";
    for (uint32_t i = 0; i < 4; ++i) {
        const std::string at = address("%d1", 0, 8, "%r10", 8 * (i / 2), "%r12", i % 2);
        body += "\tst.global.f32 \t" + at + ", %r4" + std::to_string(i) + ";\n";
    }
    return entry(is_bf16 ? "mma_bf16" : "mma_f16", body);
}

// ---- Barriers of warps and blocks: without them the schedules find another order -----------------------------------

/// Each lane writes its word, then reads the word of lane `other`; b is between.
std::string exchange(const std::string& name, const std::string& other, const std::string& between) {
    return entry(name, R"(
	mov.u32 	%r3, shared;
	mad.lo.s32 	%r4, %r0, 4, %r3;
	st.shared.f32 	[%r4], %r0;
	)" + between + R"(
	xor.b32 	%r5, %r0, )" +
                           other + R"(;
	mad.lo.s32 	%r4, %r5, 4, %r3;
	ld.shared.f32 	%r6, [%r4];
	st.global.u32 	[%d2], %r6;)");
}
/// Right in order; with schedule `finds`, wrong for some seed below 20 if the barrier is missing, and never with it.
void barrier(const std::string& name, uint32_t threads, uint32_t other, uint32_t finds) {
    Shape shape;
    shape.threads = threads;
    shape.shared = 4 * threads;
    std::vector<uint32_t> expected;
    for (uint32_t i = 0; i < threads; ++i) expected.push_back(i ^ other);
    expect_words(name + ", with the barrier", name + "_right", shape, {0}, expected, 0, 20);
    std::string message;
    const std::vector<uint32_t> in_order = run(name + "_wrong", shape, {0}, threads, 0, scheduled(0, 0), &message);
    // In order, lanes of a warp move together; warps don't.
    if (threads == 32) report(name + ", without it, in order", in_order == expected, message);
    uint32_t found = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        found += run(name + "_wrong", shape, {0}, threads, 0, scheduled(finds, seed), &message) != expected;
    }
    report(name + ", without it, schedule " + std::to_string(finds), found > 0 && message.empty(),
           std::to_string(found) + " of 20 seeds " + message);
}

}  // namespace

const std::string& warps_module() {
    static const std::string text = [] {
        std::string entries;
        for (const char* mode : {"bfly", "idx"}) {
            entries += entry(std::string("shuffle_") + mode, R"(
	ld.global.u32 	%r3, [%d3];
	ld.global.u32 	%r4, [%d3+128];
	add.s32 	%r5, %r0, 100;
	shfl.sync.)" + std::string(mode) + R"(.b32 	%r5|%p1, %r5, %r3, %r4, -1;
	selp.u32 	%r6, 1, 0, %p1;
	mul.wide.u32 	%d4, %r0, 8;
	add.s64 	%d4, %d1, %d4;
	st.global.v2.u32 	[%d4], {%r5, %r6};)");
        }
        std::string sum = "\tmov.u32 \t%r3, %r0;\n";
        for (uint32_t mask = 16; mask > 0; mask /= 2) {
            sum += "\tshfl.sync.bfly.b32 \t%r4|%p1, %r3, " + std::to_string(mask) +
                   ", 31, -1;\n\tadd.s32 \t%r3, %r3, %r4;\n";
        }
        entries += entry("warp_sum", sum + "\tst.global.u32 \t[%d2], %r3;");
        for (const char* form : {"plain", "trans"}) {
            const std::string modifier = form == std::string("plain") ? "" : ".trans";
            // The input goes to shared memory 16 bytes a lane at a time: 3 of them a row.
            entries += entry(std::string("ldmatrix_") + form, R"(
	mov.u32 	%r3, shared;
	mad.lo.s32 	%r4, %r0, 48, %r3;
	mul.wide.u32 	%d4, %r0, 48;
	add.s64 	%d4, %d0, %d4;
	ld.global.v4.u32 	{%r10, %r11, %r12, %r13}, [%d4];
	st.shared.v4.u32 	[%r4+16], {%r10, %r11, %r12, %r13};
	bar.warp.sync 	-1;
	ld.global.u32 	%r5, [%d3+1536];
	add.s32 	%r5, %r5, %r3;
	ldmatrix.sync.aligned.m8n8.x4)" + modifier + R"(.shared.b16 	{%r5, %r6, %r7, %r8}, [%r5+16];
	mul.wide.u32 	%d4, %r0, 16;
	add.s64 	%d4, %d1, %d4;
	st.global.v4.u32 	[%d4], {%r5, %r6, %r7, %r8};)");
        }
        entries += product_kernel(false) + product_kernel(true);
        for (bool right : {true, false}) {
            const std::string suffix = right ? "_right" : "_wrong";
            entries += exchange("lanes_exchange" + suffix, "1", right ? "bar.warp.sync 	-1;" : "");
            entries += exchange("warps_exchange" + suffix, "32", right ? "bar.sync 	0;" : "");
        }
        return module_of(entries);
    }();
    return text;
}

void warps() {
    shuffles();
    matrices();
    products();
    barrier("lanes_exchange", 32, 1, 2);
    barrier("warps_exchange", 128, 32, 1);
}

}  // namespace test
