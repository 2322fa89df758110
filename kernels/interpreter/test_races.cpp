// What the checks of shared memory find: races, reads of what nobody wrote, copies read before they have landed. They
// are found whatever the order; what is ordered raises no alarm.
#include "test.h"

namespace test {
namespace {

/// With %r3 the address of the thread's own word, %r4 that of its neighbour's in the warp, %r5 of one in another warp.
const char* const ADDRESSES = R"(
	mov.u32 	%r6, shared;
	mad.lo.s32 	%r3, %r0, 4, %r6;
	xor.b32 	%r4, %r0, 1;
	mad.lo.s32 	%r4, %r4, 4, %r6;
	xor.b32 	%r5, %r0, 32;
	mad.lo.s32 	%r5, %r5, 4, %r6;
	mad.lo.s32 	%r7, %r0, 16, %r6;
	mul.wide.u32 	%d4, %r0, 16;
	add.s64 	%d4, %d0, %d4;
)";

struct Race {
    const char* name;
    const char* body;
    const char* what;       // nothing: it is right
    const char* statement;  // where it is found; nothing: at either of two, as they come to run
    bool of_races = true;   // or of reads of what is not written
};
const std::vector<Race>& races_of_shared_memory() {
    static const char* const LOAD = "ld.shared.f32";
    static const char* const STORE = "st.shared.f32";
    static const char* const COPYING = "is copying to";
    static const std::vector<Race> all = {
        {"own_word", R"(
	st.shared.f32 	[%r3], %r0;
	ld.shared.f32 	%r8, [%r3];
	st.shared.f32 	[%r3], %r8;)",
         "", ""},
        {"neighbour_without_barrier", R"(
	st.shared.f32 	[%r3], %r0;
	ld.shared.f32 	%r8, [%r4];)",
         "race: ", LOAD},
        {"neighbour_with_warp_barrier", R"(
	st.shared.f32 	[%r3], %r0;
	bar.warp.sync 	-1;
	ld.shared.f32 	%r8, [%r4];
	bar.warp.sync 	-1;
	st.shared.f32 	[%r3], %r8;)",
         "", ""},
        {"neighbour_with_block_barrier", R"(
	st.shared.f32 	[%r3], %r0;
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r4];)",
         "", ""},
        // Lanes meet at a shuffle, but it orders no memory.
        {"neighbour_with_shuffle", R"(
	st.shared.f32 	[%r3], %r0;
	shfl.sync.idx.b32 	%r9|%p1, %r0, 0, 31, -1;
	ld.shared.f32 	%r8, [%r4];)",
         "race: ", LOAD},
        {"write_after_the_neighbours_read", R"(
	st.shared.f32 	[%r3], %r0;
	bar.warp.sync 	-1;
	ld.shared.f32 	%r8, [%r4];
	st.shared.f32 	[%r3], %r8;)",
         "race: ", "st.shared.f32 	[%r3], %r8"},
        {"other_warp_without_barrier", R"(
	st.shared.f32 	[%r3], %r0;
	ld.shared.f32 	%r8, [%r5];)",
         "race: ", ""},
        {"other_warp_with_warp_barrier", R"(
	st.shared.f32 	[%r3], %r0;
	bar.warp.sync 	-1;
	ld.shared.f32 	%r8, [%r5];)",
         "race: ", ""},
        {"other_warp_with_block_barrier", R"(
	st.shared.f32 	[%r3], %r0;
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r5];
	bar.sync 	0;
	st.shared.f32 	[%r3], %r8;)",
         "", ""},
        {"write_after_the_other_warps_read", R"(
	st.shared.f32 	[%r3], %r0;
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r5];
	st.shared.f32 	[%r3], %r8;)",
         "race: ", ""},
        {"all_read_one_word", R"(
	setp.ne.s32 	%p1, %r0, 7;
	@%p1 bra 	WRITTEN;
	st.shared.f32 	[shared], %r0;
WRITTEN:
	bar.sync 	0;
	ld.shared.f32 	%r8, [shared];
	ld.shared.f32 	%r8, [shared];)",
         "", ""},
        // Both warps read it, then a lane of one of them writes.
        {"write_after_all_read_one_word", R"(
	setp.ne.s32 	%p1, %r0, 7;
	ld.shared.f32 	%r8, [shared];
	bar.warp.sync 	-1;
	@%p1 bra 	WRITTEN;
	st.shared.f32 	[shared], %r0;
WRITTEN:)",
         "race: ", ""},
        {"write_after_another_lane_read_too", R"(
	and.b32 	%r8, %r0, 61;
	setp.ne.s32 	%p1, %r8, 5;
	@%p1 bra 	END;
	ld.shared.f32 	%r8, [shared];
	setp.ne.s32 	%p1, %r0, 5;
	@%p1 bra 	END;
	st.shared.f32 	[shared], %r8;
END:)",
         "race: ", ""},
        // In order, warp 1 reads while warp 0 pauses between its own read and its write.
        {"write_after_another_warp_read_too", R"(
	and.b32 	%r8, %r0, 31;
	setp.ne.s32 	%p1, %r8, 5;
	@%p1 bra 	END;
	ld.shared.f32 	%r8, [shared];
	nanosleep.u32 	20;
	setp.ne.s32 	%p1, %r0, 5;
	@%p1 bra 	END;
	st.shared.f32 	[shared], %r8;
END:)",
         "race: ", ""},
        {"all_write_one_word", "\tst.shared.f32 	[shared], 0f00000000;", "race: ", STORE},
        // A part of what another wrote.
        {"overlapping_widths", R"(
	st.shared.v4.u32 	[%r7], {%r0, %r0, %r0, %r0};
	bar.warp.sync 	-1;
	xor.b32 	%r8, %r7, 528;
	ld.shared.f32 	%r8, [%r8+12];)",
         "race: ", ""},
        {"matrices_without_barrier", R"(
	st.shared.v4.u32 	[%r7], {%r0, %r0, %r0, %r0};
	ldmatrix.sync.aligned.m8n8.x4.shared.b16 	{%r8, %r9, %r10, %r11}, [%r7];)",
         "race: ", "ldmatrix"},
        {"matrices_with_barrier", R"(
	st.shared.v4.u32 	[%r7], {%r0, %r0, %r0, %r0};
	bar.warp.sync 	-1;
	ldmatrix.sync.aligned.m8n8.x4.shared.b16 	{%r8, %r9, %r10, %r11}, [%r7];
	bar.warp.sync 	-1;
	st.shared.v4.u32 	[%r7], {%r0, %r0, %r0, %r0};)",
         "", ""},

        {"copy_not_waited_for", R"(
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 16;
	cp.async.commit_group;
	cp.async.wait_group 	1;
	ld.shared.f32 	%r8, [%r7];)",
         COPYING, LOAD},
        {"copy_waited_for", R"(
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 16;
	cp.async.commit_group;
	cp.async.wait_group 	0;
	ld.shared.f32 	%r8, [%r7+4];)",
         "", ""},
        // Only the lane that waited sees it before a barrier.
        {"copy_of_a_neighbour", R"(
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 16;
	cp.async.commit_group;
	cp.async.wait_group 	0;
	xor.b32 	%r8, %r7, 16;
	ld.shared.f32 	%r8, [%r8];)",
         "race: ", LOAD},
        {"copy_of_a_neighbour_with_barrier", R"(
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 16;
	cp.async.commit_group;
	cp.async.wait_group 	0;
	bar.warp.sync 	-1;
	xor.b32 	%r8, %r7, 16;
	ld.shared.f32 	%r8, [%r8];)",
         "", ""},
        {"copy_with_barrier_before_wait", R"(
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 16;
	cp.async.commit_group;
	bar.sync 	0;
	xor.b32 	%r8, %r7, 16;
	ld.shared.f32 	%r8, [%r8];
	cp.async.wait_group 	0;)",
         COPYING, LOAD},
        {"copy_over_what_others_read", R"(
	st.shared.v4.u32 	[%r7], {%r0, %r0, %r0, %r0};
	bar.sync 	0;
	xor.b32 	%r8, %r7, 16;
	ld.shared.f32 	%r8, [%r8];
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 16;)",
         "race: ", "cp.async"},

        {"not_written", R"(
	setp.eq.s32 	%p1, %r0, 5;
	@%p1 bra 	WRITTEN;
	st.shared.f32 	[%r3], %r0;
WRITTEN:
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r4];)",
         "byte 20 of shared memory that nobody has written", LOAD, false},
        // What the block before wrote is not there.
        {"not_written_in_the_second_block", R"(
	mov.u32 	%r8, %ctaid.x;
	setp.ne.s32 	%p1, %r8, 0;
	@%p1 bra 	WRITTEN;
	st.shared.f32 	[%r3], %r0;
WRITTEN:
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r4];)",
         "nobody has written", LOAD, false},
        {"not_written_in_part", R"(
	st.shared.f32 	[%r3], %r0;
	bar.sync 	0;
	ld.shared.v4.f32 	{%r8, %r9, %r10, %r11}, [shared+256];)",
         "byte 256", "ld.shared.v4.f32", false},
        {"all_written", R"(
	st.shared.f32 	[%r3], %r0;
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r5];)",
         "", "", false},
        {"copied_and_written", R"(
	cp.async.cg.shared.global.L2::128B 	[%r7], [%d4], 16, 0;
	cp.async.commit_group;
	cp.async.wait_group 	0;
	bar.sync 	0;
	ld.shared.f32 	%r8, [%r5];)",
         "", "", false},
    };
    return all;
}

}  // namespace

const std::string& races_module() {
    static const std::string text = [] {
        std::string entries;
        for (const Race& race : races_of_shared_memory()) {
            entries += entry(race.name, ADDRESSES + std::string(race.body));
        }
        return module_of(entries);
    }();
    return text;
}

void races() {
    for (const Race& race : races_of_shared_memory()) {
        std::string where = "races.ptx";
        if (race.statement[0]) where = place("races.ptx", races_module(), race.name, race.statement);
        std::string wrong, last;
        for (EmulatorOptions options : all_options(5)) {
            options.check_races = race.of_races;
            options.check_uninitialised = !race.of_races;
            Words in(256, 0), out(64);
            Shape shape;
            shape.x = 2;
            shape.threads = 64;
            shape.shared = 64 * 16;
            last = launch(race.name, shape, Arguments{in.data, out.data, 0, 0}, options);
            const bool named = last.find(race.what) != std::string::npos && last.find(where) != std::string::npos;
            const bool good = race.what[0] ? named && last.find('\n') == std::string::npos : last.empty();
            if (good) continue;
            wrong = "schedule " + std::to_string(options.schedule) + ", seed " + std::to_string(options.seed) +
                    ", expected '" + race.what + "' at " + where + ", found '" + last + "'";
            break;
        }
        report(std::string("checks, ") + race.name, wrong.empty(), wrong.empty() ? last : wrong);
    }
}

}  // namespace test
