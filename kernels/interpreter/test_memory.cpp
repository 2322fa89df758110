// State spaces: loads and stores of each width, asynchronous copies, atomics, and what is counted of them.
#include <algorithm>

#include "test.h"

namespace test {
namespace {

// ---- Loads and stores ----------------------------------------------------------------------------------------------

/// A kernel of one lane, what it reads, and what it leaves at %d1.
struct Access {
    const char* name;
    const char* body;
    std::vector<uint32_t> words;
};
const std::vector<uint32_t>& accessed() {
    static const std::vector<uint32_t> words = {0x80018002, 0xdeadbeef, 0x7f800001, 3, 4, 5, 6, 7};
    return words;
}
const std::vector<Access>& accesses() {
    constexpr uint32_t NONE = 0xffffffff;
    static const std::vector<Access> all = {
        {"global_u8",
         R"(
	ld.global.u8 	%r3, [%d0+1];
	ld.global.u8 	%r4, [%d0+4];
	st.global.v2.u32 	[%d1], {%r3, %r4};)",
         {0x80, 0xef}},
        {"global_u16",
         R"(
	ld.global.u16 	%h1, [%d0];
	ld.global.u16 	%h2, [%d0+2];
	mov.b32 	%r3, {%h2, %h1};
	st.global.u32 	[%d1], %r3;
	st.global.u16 	[%d1+6], %h1;)",
         {0x80028001, 0x8002ffff}},
        {"global_u32",
         R"(
	ld.global.u32 	%r3, [%d0+4];
	ld.global.u32 	%d4, [%d0+4];
	shr.u64 	%d5, %d4, 32;
	cvt.u32.u64 	%r4, %d4;
	cvt.u32.u64 	%r5, %d5;
	st.global.u32 	[%d1], %r3;
	st.global.v2.u32 	[%d1+8], {%r4, %r5};)",
         {0xdeadbeef, NONE, 0xdeadbeef, 0}},
        {"global_f32",
         R"(
	ld.global.f32 	%r3, [%d0+8];
	st.global.f32 	[%d1], %r3;)",
         {0x7f800001}},
        {"global_v2",
         R"(
	add.s64 	%d4, %d0, 16;
	ld.global.v2.u32 	{%r3, %r4}, [%d4+-8];
	st.global.v2.u32 	[%d1+8], {%r4, %r3};
	st.global.v2.f32 	[%d1], {%r3, 0f40A00000};)",
         {0x7f800001, 0x40a00000, 3, 0x7f800001}},
        {"global_v4",
         R"(
	ld.global.v4.u32 	{%r3, %r4, %r5, %r6}, [%d0+16];
	st.global.v4.u32 	[%d1], {%r6, %r5, %r4, %r3};
	ld.global.v4.f32 	{%r3, %r4, %r5, %r6}, [%d0];
	st.global.v4.f32 	[%d1+16], {%r3, %r4, %r5, %r6};)",
         {7, 6, 5, 4, 0x80018002, 0xdeadbeef, 0x7f800001, 3}},
        {"global_nc",
         R"(
	ld.global.nc.L1::no_allocate.L2::128B.v4.u32 	{%r3, %r4, %r5, %r6}, [%d0];
	prefetch.global.L2 	[%d0];
	st.global.v4.u32 	[%d1], {%r3, %r4, %r5, %r6};)",
         {0x80018002, 0xdeadbeef, 0x7f800001, 3}},
        // An address may be a register of its own result.
        {"address_is_result",
         R"(
	ld.global.u32 	%d0, [%d0+12];
	cvt.u32.u64 	%r3, %d0;
	st.global.u32 	[%d1], %r3;)",
         {3}},
        {"parameters",
         R"(
	ld.param.u32 	%r3, [arguments+16];
	ld.param.f32 	%r4, [arguments+16];
	ld.param.u32 	%d4, [arguments+16];
	cvt.u32.u64 	%r5, %d4;
	shr.u64 	%d4, %d4, 32;
	cvt.u32.u64 	%r6, %d4;
	st.global.v4.u32 	[%d1], {%r3, %r4, %r5, %r6};
	mov.b64 	%d5, arguments;
	add.s64 	%d5, %d5, 16;
	ld.param.v2.u32 	{%r7, %r8}, [%d5];
	ld.param.u64 	%d6, [%d5];
	cvt.u32.u64 	%r9, %d6;
	shr.u64 	%d6, %d6, 32;
	cvt.u32.u64 	%r10, %d6;
	st.global.v4.u32 	[%d1+16], {%r7, %r8, %r9, %r10};)",
         {0xfedcba98, 0xfedcba98, 0xfedcba98, 0, 0xfedcba98, 0, 0xfedcba98, 0}},
        // Shared memory holds NaN of every type before it is written.
        {"shared_accesses",
         R"(
	mov.u32 	%r3, shared;
	ld.global.v4.u32 	{%r4, %r5, %r6, %r7}, [%d0+16];
	st.shared.v4.u32 	[%r3+16], {%r4, %r5, %r6, %r7};
	st.shared.f32 	[shared+20], 0f3F800000;
	ld.shared.f32 	%r8, [%r3+16];
	ld.shared.v2.f32 	{%r9, %r10}, [shared+24];
	ld.shared.v4.f32 	{%r11, %r12, %r13, %r14}, [%r3+16];
	ld.shared.v4.u32 	{%r15, %r16, %r17, %r18}, [%r3];
	st.global.v4.u32 	[%d1], {%r8, %r9, %r10, %r11};
	st.global.v4.u32 	[%d1+16], {%r12, %r13, %r14, %r18};)",
         {4, 6, 7, 4, 0x3f800000, 6, 7, NONE}},
        {"shared_u16",
         R"(
	mov.u32 	%r3, shared;
	mov.b64 	%d4, 0x123456789abcdef0;
	st.shared.u64 	[%r3+16], %d4;
	ld.shared.u16 	%h1, [%r3+18];
	cvt.u32.u16 	%r4, %h1;
	st.global.u32 	[%d1], %r4;)",
         {0x9abc}},
        {"shared_u64",
         R"(
	mov.u32 	%r3, shared;
	mov.b64 	%d4, 0x123456789abcdef0;
	mov.b64 	%d5, 5;
	st.shared.u64 	[%r3+16], %d4;
	st.shared.u64 	[shared+24], %d5;
	ld.shared.v2.u64 	{%d6, %d7}, [%r3+16];
	cvt.u32.u64 	%r4, %d6;
	shr.u64 	%d6, %d6, 32;
	cvt.u32.u64 	%r5, %d6;
	cvt.u32.u64 	%r6, %d7;
	st.global.v4.u32 	[%d1], {%r4, %r5, %r6, %r6};)",
         {0x9abcdef0, 0x12345678, 5, 5}},
        // A generic address of shared memory is its own space's address plus the window's.
        {"generic_shared",
         R"(
	mov.u32 	%r3, shared;
	cvt.u64.u32 	%d4, %r3;
	cvta.shared.u64 	%d5, %d4;
	mov.b64 	%d6, 0;
	cvta.shared.u64 	%d6, %d6;
	sub.s64 	%d7, %d5, %d6;
	cvt.u32.u64 	%r4, %d7;
	sub.s32 	%r4, %r4, %r3;
	st.global.u32 	[%d1], %r4;)",
         {0}},
    };
    return all;
}
void accesses_are_right() {
    for (const Access& access : accesses()) {
        for (uint32_t threads : {1u, 32u}) {
            Shape shape;
            shape.threads = threads;
            shape.shared = 64;
            expect_words(std::string(access.name) + ", lanes " + std::to_string(threads), access.name, shape,
                         accessed(), access.words, 0xfedcba98);
        }
    }
}

// ---- Asynchronous copies: lane i copies words 4 i to 4 i + 3, from word 4 i ----------------------------------------

const char* const COPY = R"(
	mov.u32 	%r3, shared;
	mad.lo.s32 	%r3, %r0, 64, %r3;
	mul.wide.u32 	%d4, %r0, 16;
	add.s64 	%d4, %d0, %d4;
	mul.wide.u32 	%d5, %r0, 16;
	add.s64 	%d5, %d1, %d5;)";
const char* const STORE = R"(
	ld.shared.v4.u32 	{%r4, %r5, %r6, %r7}, [%r3];
	st.global.v4.u32 	[%d5], {%r4, %r5, %r6, %r7};)";

std::string copies_module() {
    const std::string copy = COPY, store = STORE;
    std::string text;
    const std::string all =
        "\n\tcp.async.cg.shared.global.L2::128B 	[%r3], [%d4], 16, 16;\n\tcp.async.commit_group;";
    text += entry("copy_waited", copy + all + "\n\tcp.async.wait_group 0;" + store);
    text += entry("copy_not_waited", copy + all + store);
    text += entry("copy_not_committed", copy + R"(
	cp.async.cg.shared.global.L2::128B 	[%r3], [%d4], 16, 16;
	cp.async.wait_group 0;)" + store);
    text += entry("copy_waited_too_little", copy + all + "\n\tcp.async.wait_group 1;" + store);
    // What was there is gone as soon as the copy is under way.
    text += entry("copy_over_something", copy + "\n\tst.shared.v4.u32 \t[%r3], {%r0, %r0, %r0, %r0};" + all + store);
    // Only words of lanes with an even number are read.
    text += entry("copy_zero_fill", copy + R"(
	mov.u32 	%r8, 16;
	and.b32 	%r9, %r0, 1;
	setp.eq.s32 	%p1, %r9, 0;
	selp.u32 	%r8, 16, 0, %p1;
	selp.b64 	%d4, %d4, 3, %p1;
	cp.async.cg.shared.global.L2::128B 	[%r3], [%d4], 16, %r8;
	cp.async.commit_group;
	cp.async.wait_group 0;)" + store);
    // A part is read, and zeros follow.
    text += entry("copy_of_a_part", copy + R"(
	cp.async.cg.shared.global.L2::128B 	[%r3], [%d4], 16, 8;
	cp.async.commit_group;
	cp.async.wait_group 0;)" + store);
    // Four groups, the last two of which may be under way when the first is read: word 4 * group of each.
    text += entry("copy_groups", copy + R"(
	cp.async.cg.shared.global.L2::128B 	[%r3], [%d0], 16, 16;
	cp.async.commit_group;
	cp.async.cg.shared.global.L2::128B 	[%r3+16], [%d0+16], 16, 16;
	cp.async.commit_group;
	cp.async.cg.shared.global.L2::128B 	[%r3+32], [%d0+32], 16, 16;
	cp.async.commit_group;
	cp.async.cg.shared.global.L2::128B 	[%r3+48], [%d0+48], 16, 16;
	cp.async.commit_group;
	cp.async.wait_group 2;
	ld.shared.f32 	%r4, [%r3];
	ld.shared.f32 	%r5, [%r3+16];
	ld.shared.f32 	%r6, [%r3+32];
	ld.shared.f32 	%r7, [%r3+48];
	st.global.v4.u32 	[%d5], {%r4, %r5, %r6, %r7};)");
    // A group may be empty. What is not committed belongs to the next group.
    text += entry("copy_empty_groups", copy + R"(
	cp.async.cg.shared.global.L2::128B 	[%r3], [%d4], 16, 16;
	cp.async.commit_group;
	cp.async.commit_group;
	cp.async.commit_group;
	cp.async.cg.shared.global.L2::128B 	[%r3+16], [%d4], 16, 16;
	cp.async.wait_group 2;
	ld.shared.f32 	%r4, [%r3];
	ld.shared.f32 	%r5, [%r3+16];
	cp.async.commit_group;
	cp.async.wait_group 0;
	ld.shared.f32 	%r6, [%r3+16];
	ld.shared.f32 	%r7, [%r3+4];
	st.global.v4.u32 	[%d5], {%r4, %r5, %r6, %r7};)");
    // Odd lanes close a second group, even ones don't: "all but one" is another copy for each.
    text += entry("copy_groups_of_lanes", copy + all + R"(
	and.b32 	%r9, %r0, 1;
	setp.eq.s32 	%p1, %r9, 0;
	@%p1 bra 	WAIT;
	cp.async.commit_group;
WAIT:
	cp.async.wait_group 1;)" + store);
    // A lane's wait is no other's: lane 0 reads what lane 1 copied and only lane 0 waited.
    text += entry("copy_wait_of_a_lane", copy + all + R"(
	setp.ne.s32 	%p1, %r0, 0;
	@%p1 bra 	REST;
	cp.async.wait_group 0;
	ld.shared.v4.u32 	{%r4, %r5, %r6, %r7}, [%r3+64];
	st.global.v4.u32 	[%d5], {%r4, %r5, %r6, %r7};
REST:)");
    return text;
}

void copies() {
    const uint32_t NONE = 0xffffffff;
    std::vector<uint32_t> in(128), all, poison(128, NONE), zero_fill, part, groups, early_groups, empty, early_empty,
        of_lanes;
    for (uint32_t i = 0; i < 128; ++i) in[i] = 1000 + i;
    all = in;
    for (uint32_t lane = 0; lane < 32; ++lane) {
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t word = 1000 + 4 * lane + i;
            zero_fill.push_back(lane % 2 ? 0 : word);
            part.push_back(i < 2 ? word : 0);
            groups.push_back(i < 2 ? 1000 + 4 * i : NONE);
            early_groups.push_back(1000 + 4 * i);
            of_lanes.push_back(lane % 2 ? word : NONE);
        }
        const uint32_t first = 1000 + 4 * lane;
        empty.insert(empty.end(), {first, NONE, first, first + 1});
        early_empty.insert(early_empty.end(), {first, first, first, first + 1});
    }
    std::vector<uint32_t> other_lane(4, NONE), early_other_lane(in.begin() + 4, in.begin() + 8);
    const struct {
        const char* kernel;
        const std::vector<uint32_t>&late, &early;
    } cases[] = {
        {"copy_waited", all, all},
        {"copy_not_waited", poison, all},
        {"copy_not_committed", poison, all},
        {"copy_over_something", poison, all},
        {"copy_waited_too_little", poison, all},
        {"copy_zero_fill", zero_fill, zero_fill},
        {"copy_of_a_part", part, part},
        {"copy_groups", groups, early_groups},
        {"copy_empty_groups", empty, early_empty},
        {"copy_groups_of_lanes", of_lanes, all},
        {"copy_wait_of_a_lane", other_lane, early_other_lane},
    };
    Shape shape;
    shape.shared = 32 * 64;
    for (const auto& c : cases) {
        std::string wrong;
        for (const EmulatorOptions& options : all_options(1)) {
            const std::vector<uint32_t>& expected = options.early_copies ? c.early : c.late;
            std::string message;
            // The copy of a lane for another one is read in order only.
            if (expected.size() == 4 && options.schedule == 2) continue;
            std::vector<uint32_t> found = run(c.kernel, shape, in, 128, 0, options, &message);
            if (message.empty()) found.resize(expected.size());
            wrong += message.empty() ? difference(found, expected) : message;
        }
        report(c.kernel, wrong.empty(), wrong);
    }
}

// ---- Atomics -------------------------------------------------------------------------------------------------------

/// Each lane of 3 blocks of 64 adds 1 to one word: together all numbers below 192 were there before.
void atomics() {
    std::string wrong;
    for (const EmulatorOptions& options : all_options(3)) {
        Words counter(1, 0), olds(192, 0);
        Shape shape;
        shape.x = 3;
        shape.threads = 64;
        EmulatorCounters counters = {};
        wrong += launch("atomic_adds", shape, Arguments{counter.data, olds.data, 1, 0}, options, &counters);
        std::vector<uint32_t> sorted = olds.read();
        std::sort(sorted.begin(), sorted.end());
        for (uint32_t i = 0; i < 192; ++i) wrong += sorted[i] == i ? "" : " " + std::to_string(sorted[i]);
        if (counter.data[0] != 192 || counters.atomics != 192) wrong += " another sum";
    }
    report("atom.add", wrong.empty(), wrong);
    Words counter(1, 0xfffffffe), olds(32);
    Shape shape;
    shape.threads = 1;
    const std::string message = launch("atomic_adds", shape, Arguments{counter.data, olds.data, 5, 0});
    report("atom.add wraps around", message.empty() && counter.data[0] == 3 && olds.data[0] == 0xfffffffe, message);
}

// ---- Counters, by hand ---------------------------------------------------------------------------------------------

struct Pattern {
    const char* name;
    const char* body;
    // Bytes loaded and stored, sectors and the least of them, accesses of shared memory, passes and the least of them.
    uint64_t expected[7];
};
const std::vector<Pattern>& patterns() {
    static const std::vector<Pattern> all = {
        {"count_neighbours",
         R"(
	ld.global.u32 	%r3, [%d3];)",
         {128, 0, 4, 4, 0, 0, 0}},
        {"count_shifted",
         R"(
	ld.global.f32 	%r3, [%d3+4];)",
         {128, 0, 5, 4, 0, 0, 0}},
        // 32 words in 256 bytes: 8 sectors, where 128 bytes would fill 4.
        {"count_strided",
         R"(
	mul.wide.u32 	%d4, %r0, 8;
	add.s64 	%d4, %d0, %d4;
	ld.global.u32 	%r3, [%d4];)",
         {128, 0, 8, 4, 0, 0, 0}},
        {"count_one_word",
         R"(
	ld.global.u32 	%r3, [%d0];)",
         {128, 0, 1, 1, 0, 0, 0}},
        {"count_wide",
         R"(
	mul.wide.u32 	%d4, %r0, 16;
	add.s64 	%d4, %d1, %d4;
	st.global.v4.u32 	[%d4], {%r0, %r0, %r0, %r0};)",
         {0, 512, 16, 16, 0, 0, 0}},
        {"count_halves",
         R"(
	mul.wide.u32 	%d4, %r0, 2;
	add.s64 	%d4, %d1, %d4;
	mov.u16 	%h1, 1;
	st.global.u16 	[%d4], %h1;)",
         {0, 64, 2, 2, 0, 0, 0}},
        {"count_few_lanes",
         R"(
	setp.gt.u32 	%p1, %r0, 2;
	@%p1 bra 	END;
	ld.global.u32 	%r3, [%d3];
END:)",
         {12, 0, 1, 1, 0, 0, 0}},
        {"count_shared_neighbours",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 4, %r9;
	st.shared.f32 	[%r3], %r0;)",
         {0, 0, 0, 0, 32, 1, 1}},
        {"count_shared_two_way",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 8, %r9;
	ld.shared.f32 	%r4, [%r3];)",
         {0, 0, 0, 0, 32, 2, 1}},
        {"count_shared_column",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 128, %r9;
	ld.shared.f32 	%r4, [%r3];)",
         {0, 0, 0, 0, 32, 32, 1}},
        // One row of padding.
        {"count_shared_padded_column",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 132, %r9;
	ld.shared.f32 	%r4, [%r3];)",
         {0, 0, 0, 0, 32, 1, 1}},
        {"count_shared_broadcast",
         R"(
	ld.shared.f32 	%r4, [shared];)",
         {0, 0, 0, 0, 32, 1, 1}},
        {"count_shared_pairs",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 8, %r9;
	ld.shared.v2.f32 	{%r4, %r5}, [%r3];)",
         {0, 0, 0, 0, 32, 2, 2}},
        {"count_shared_wide",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 16, %r9;
	st.shared.v4.u32 	[%r3], {%r0, %r0, %r0, %r0};)",
         {0, 0, 0, 0, 32, 4, 4}},
        // Eight lanes at a time, 64 bytes apart: each second group of four meets the banks of the first.
        {"count_shared_wide_strided",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 64, %r9;
	ld.shared.v4.u32 	{%r4, %r5, %r6, %r7}, [%r3];)",
         {0, 0, 0, 0, 32, 16, 4}},
        {"count_shared_pair_broadcast",
         R"(
	ld.shared.v2.f32 	{%r4, %r5}, [shared];)",
         {0, 0, 0, 0, 32, 2, 2}},
        {"count_shared_wide_broadcast",
         R"(
	ld.shared.v4.u32 	{%r4, %r5, %r6, %r7}, [shared];)",
         {0, 0, 0, 0, 32, 4, 4}},
        {"count_matrices",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 16, %r9;
	ldmatrix.sync.aligned.m8n8.x4.shared.b16 	{%r4, %r5, %r6, %r7}, [%r3];)",
         {0, 0, 0, 0, 32, 4, 4}},
        {"count_matrices_in_one_bank",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 128, %r9;
	ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 	{%r4, %r5, %r6, %r7}, [%r3];)",
         {0, 0, 0, 0, 32, 32, 4}},
        {"count_copies",
         R"(
	mov.u32 	%r9, shared;
	mad.lo.s32 	%r3, %r0, 16, %r9;
	mul.wide.u32 	%d4, %r0, 16;
	add.s64 	%d4, %d0, %d4;
	cp.async.cg.shared.global.L2::128B 	[%r3], [%d4], 16, 16;)",
         {512, 0, 16, 16, 32, 4, 4}},
    };
    return all;
}
void counters() {
    Words in(1024, 0), out(1024);
    for (const Pattern& pattern : patterns()) {
        EmulatorOptions options = {};
        options.count = 1;
        Shape shape;
        shape.shared = 33 * 132;
        EmulatorCounters c = {};
        const std::string message = launch(pattern.name, shape, Arguments{in.data, out.data, 0, 0}, options, &c);
        const uint64_t found[7] = {c.global_load_bytes,      c.global_store_bytes, c.global_sectors,
                                   c.global_sectors_ideal,   c.shared_accesses,    c.shared_wavefronts,
                                   c.shared_wavefronts_ideal};
        std::string shown = message;
        for (uint64_t count : found) shown += " " + std::to_string(count);
        report(pattern.name, message.empty() && memcmp(found, pattern.expected, sizeof found) == 0, shown);
        options.count = 0;
        EmulatorCounters none = {};
        launch(pattern.name, shape, Arguments{in.data, out.data, 0, 0}, options, &none);
        const bool silent =
            none.global_load_bytes + none.global_store_bytes + none.global_sectors + none.shared_accesses == 0;
        if (!silent) report(std::string(pattern.name) + ", not asked for", false);
    }
    EmulatorCounters c = {};
    Shape shape;
    shape.x = 2;
    shape.threads = 64;
    const std::string message =
        launch("count_meetings", shape, Arguments{in.data, out.data, 0, 0}, EmulatorOptions(), &c);
    report("count_meetings",
           message.empty() && c.block_barriers == 2 && c.warp_collectives == 8 && c.matrix_products == 4, message);
}

}  // namespace

const std::string& memory_module() {
    static const std::string text = [] {
        std::string entries = copies_module();
        for (const Access& access : accesses()) entries += entry(access.name, access.body);
        for (const Pattern& pattern : patterns()) entries += entry(pattern.name, pattern.body);
        entries += entry("atomic_adds", R"(
	atom.add.acq_rel.gpu.global.u32 	%r3, [%d0], %r1;
	mov.u32 	%r4, %ctaid.x;
	mad.lo.s32 	%r4, %r4, 64, %r0;
	mul.wide.u32 	%d4, %r4, 4;
	add.s64 	%d4, %d1, %d4;
	st.global.u32 	[%d4], %r3;)");
        entries += entry("count_meetings", R"(
	mov.u32 	%r3, 0;
	bar.warp.sync 	-1;
	shfl.sync.bfly.b32 	%r4|%p1, %r0, 1, 31, -1;
	bar.sync 	0;
	mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 
		{%r4, %r5, %r6, %r7}, {%r3, %r3, %r3, %r3}, {%r3, %r3}, {%r3, %r3, %r3, %r3};)");
        return module_of(entries);
    }();
    return text;
}

void memory() {
    accesses_are_right();
    copies();
    atomics();
    counters();
}

}  // namespace test
