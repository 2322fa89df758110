// Which lanes run when: branches, loops of other lengths in each lane, returns, blocks that wait for each other.
#include <thread>

#include "test.h"

namespace test {
namespace {

constexpr uint32_t THREADS = 96;

/// A kernel of three warps, and what each thread leaves in its word.
struct Flow {
    const char* name;
    const char* body;
    uint32_t (*expected)(uint32_t thread);
};

uint32_t collatz(uint32_t n) {
    uint32_t steps = 0;
    for (; n != 1; ++steps) n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}
uint32_t collatz_of_warp(uint32_t thread) {
    uint32_t sum = 0;
    for (uint32_t lane = 0; lane < 32; ++lane) sum += collatz(thread / 32 * 32 + lane + 1);
    return sum;
}

const std::vector<Flow>& flows() {
    static const std::vector<Flow> all = {
        {"branch_uniform", R"(
	setp.eq.s32 	%p1, %r1, 0;
	mov.u32 	%r3, 1;
	@%p1 bra 	TAKEN;
	mov.u32 	%r3, 2;
TAKEN:
	@!%p1 bra 	NOT_TAKEN;
	add.s32 	%r3, %r3, 10;
NOT_TAKEN:
	bra.uni 	END;
	mov.u32 	%r3, 3;
END:
	st.global.u32 	[%d2], %r3;)",
         [](uint32_t) { return 11u; }},
        {"if_else", R"(
	and.b32 	%r3, %r0, 1;
	setp.eq.s32 	%p1, %r3, 0;
	@%p1 bra 	EVEN;
	mul.lo.s32 	%r4, %r0, 3;
	bra 	JOINED;
EVEN:
	add.s32 	%r4, %r0, 1000;
JOINED:
	add.s32 	%r4, %r4, 1;
	st.global.u32 	[%d2], %r4;)",
         [](uint32_t t) { return t % 2 ? 3 * t + 1 : t + 1001; }},
        // The part that is taken lies before the branch and after it.
        {"branches_nested", R"(
	mov.u32 	%r5, 0;
	bra 	START;
BACK:
	add.s32 	%r5, %r5, 100;
	bra 	END;
START:
	and.b32 	%r3, %r0, 3;
	setp.eq.s32 	%p1, %r3, 3;
	@%p1 bra 	BACK;
	setp.eq.s32 	%p2, %r3, 1;
	@%p2 bra 	ONE;
	setp.lt.u32 	%p3, %r0, 40;
	@!%p3 bra 	MANY;
	add.s32 	%r5, %r5, 1;
	bra 	END;
MANY:
	add.s32 	%r5, %r5, 2;
	bra 	END;
ONE:
	add.s32 	%r5, %r5, 10;
END:
	mad.lo.s32 	%r5, %r5, 1000, %r0;
	st.global.u32 	[%d2], %r5;)",
         [](uint32_t t) {
             const uint32_t kind = t % 4 == 3 ? 100 : t % 4 == 1 ? 10 : t < 40 ? 1 : 2;
             return kind * 1000 + t;
         }},
        // Predicates of lanes that are elsewhere stay as they are.
        {"predicates_of_parted_lanes", R"(
	setp.gt.u32 	%p1, %r0, 50;
	and.b32 	%r3, %r0, 1;
	setp.eq.s32 	%p2, %r3, 0;
	@%p2 bra 	JOINED;
	not.pred 	%p1, %p1;
	setp.lt.u32 	%p3, %r0, 1000;
JOINED:
	selp.u32 	%r4, 1, 0, %p1;
	st.global.u32 	[%d2], %r4;)",
         [](uint32_t t) { return uint32_t((t > 50) != (t % 2 == 1)); }},
        // Steps of the Collatz sequence from t + 1.
        {"loops_of_lanes", R"(
	add.s32 	%r3, %r0, 1;
	mov.u32 	%r4, 0;
LOOP:
	setp.eq.s32 	%p1, %r3, 1;
	@%p1 bra 	DONE;
	add.s32 	%r4, %r4, 1;
	and.b32 	%r5, %r3, 1;
	setp.ne.s32 	%p2, %r5, 0;
	@%p2 bra 	ODD;
	shr.u32 	%r3, %r3, 1;
	bra 	LOOP;
ODD:
	mad.lo.s32 	%r3, %r3, 3, 1;
	bra 	LOOP;
DONE:
	st.global.u32 	[%d2], %r4;)",
         [](uint32_t t) { return collatz(t + 1); }},
        // The same, then all lanes of a warp add theirs.
        {"meeting_after_loops", R"(
	add.s32 	%r3, %r0, 1;
	mov.u32 	%r4, 0;
LOOP:
	setp.eq.s32 	%p1, %r3, 1;
	@%p1 bra 	DONE;
	add.s32 	%r4, %r4, 1;
	and.b32 	%r5, %r3, 1;
	setp.ne.s32 	%p2, %r5, 0;
	@%p2 bra 	ODD;
	shr.u32 	%r3, %r3, 1;
	bra 	LOOP;
ODD:
	mad.lo.s32 	%r3, %r3, 3, 1;
	bra 	LOOP;
DONE:
	shfl.sync.bfly.b32 	%r5|%p3, %r4, 16, 31, -1;
	add.s32 	%r4, %r4, %r5;
	shfl.sync.bfly.b32 	%r5|%p3, %r4, 8, 31, -1;
	add.s32 	%r4, %r4, %r5;
	shfl.sync.bfly.b32 	%r5|%p3, %r4, 4, 31, -1;
	add.s32 	%r4, %r4, %r5;
	shfl.sync.bfly.b32 	%r5|%p3, %r4, 2, 31, -1;
	add.s32 	%r4, %r4, %r5;
	shfl.sync.bfly.b32 	%r5|%p3, %r4, 1, 31, -1;
	add.s32 	%r4, %r4, %r5;
	st.global.u32 	[%d2], %r4;)",
         collatz_of_warp},
        // A collective in a loop whose length is the same for all lanes, after lanes have parted in it.
        {"meetings_in_a_loop", R"(
	mov.u32 	%r3, %r0;
	mov.u32 	%r4, 0;
LOOP:
	and.b32 	%r5, %r3, 1;
	setp.ne.s32 	%p1, %r5, 0;
	@%p1 bra 	ODD;
	add.s32 	%r3, %r3, 3;
ODD:
	add.s32 	%r3, %r3, 1;
	add.s32 	%r6, %r0, 1;
	shfl.sync.idx.b32 	%r3|%p2, %r3, %r6, 31, -1;
	add.s32 	%r4, %r4, 1;
	setp.lt.u32 	%p3, %r4, 10;
	@%p3 bra 	LOOP;
	st.global.u32 	[%d2], %r3;)",
         [](uint32_t t) {
             std::vector<uint32_t> lanes(32);
             for (uint32_t i = 0; i < 32; ++i) lanes[i] = t / 32 * 32 + i;
             for (uint32_t step = 0; step < 10; ++step) {
                 const std::vector<uint32_t> before = lanes;
                 for (uint32_t i = 0; i < 32; ++i) {
                     const uint32_t x = before[(i + 1) % 32];
                     lanes[i] = x + (x % 2 ? 1 : 4);
                 }
             }
             return lanes[t % 32];
         }},
        // Barriers of the block after lanes have parted; each thread reads another warp's word each time.
        {"barriers_in_a_loop", R"(
	mov.u32 	%r3, shared;
	mov.u32 	%r4, %r0;
	mov.u32 	%r5, 0;
LOOP:
	and.b32 	%r6, %r4, 1;
	setp.ne.s32 	%p1, %r6, 0;
	@%p1 bra 	ODD;
	add.s32 	%r4, %r4, 7;
ODD:
	mad.lo.s32 	%r7, %r0, 4, %r3;
	st.shared.f32 	[%r7], %r4;
	bar.sync 	0;
	add.s32 	%r8, %r0, 33;
	rem.u32 	%r8, %r8, 96;
	mad.lo.s32 	%r7, %r8, 4, %r3;
	ld.shared.f32 	%r4, [%r7];
	bar.sync 	0;
	add.s32 	%r4, %r4, 1;
	add.s32 	%r5, %r5, 1;
	setp.ne.s32 	%p2, %r5, 5;
	@%p2 bra 	LOOP;
	st.global.u32 	[%d2], %r4;)",
         [](uint32_t t) {
             std::vector<uint32_t> all(THREADS);
             for (uint32_t i = 0; i < THREADS; ++i) all[i] = i;
             for (uint32_t step = 0; step < 5; ++step) {
                 const std::vector<uint32_t> before = all;
                 for (uint32_t i = 0; i < THREADS; ++i) {
                     const uint32_t x = before[(i + 33) % THREADS];
                     all[i] = x + (x % 2 ? 1 : 8);
                 }
             }
             return all[t];
         }},
        // Two returns; warp 1 returns as a whole, some lanes of the others.
        {"returns", R"(
	st.global.u32 	[%d2], %r0;
	shr.u32 	%r3, %r0, 5;
	setp.eq.s32 	%p1, %r3, 1;
	@%p1 bra 	GONE;
	and.b32 	%r3, %r0, 7;
	setp.eq.s32 	%p2, %r3, 5;
	@%p2 bra 	GONE;
	add.s32 	%r4, %r0, 500;
	st.global.u32 	[%d2], %r4;
	bra 	END;
GONE:
	ret;
END:)",
         [](uint32_t t) { return t / 32 == 1 || t % 8 == 5 ? t : t + 500; }},
        // One lane waits for another of its warp: both go on in the end.
        {"lanes_wait_for_each_other", R"(
	setp.eq.s32 	%p1, %r0, 0;
	@%p1 bra 	GIVE;
	mov.u32 	%r3, 0;
WAIT:
	nanosleep.u32 	32;
	ld.acquire.gpu.global.u32 	%r3, [%d1+1024];
	setp.ne.s32 	%p2, %r3, 77;
	@%p2 bra 	WAIT;
	bra 	END;
GIVE:
	mov.u32 	%r3, 77;
	st.global.u32 	[%d1+1024], %r3;
END:
	st.global.u32 	[%d2], %r3;)",
         [](uint32_t) { return 77u; }},
    };
    return all;
}

void branches() {
    Shape shape;
    shape.threads = THREADS;
    shape.shared = 4 * THREADS;
    for (const Flow& c : flows()) {
        std::string wrong;
        std::vector<uint32_t> expected;
        for (uint32_t t = 0; t < THREADS; ++t) expected.push_back(c.expected(t));
        for (EmulatorOptions options : all_options(8)) {
            options.check_races = options.check_uninitialised = options.seed % 2;
            std::string message;
            std::vector<uint32_t> found = run(c.name, shape, {0}, 512, 0, options, &message);
            if (message.empty()) found.resize(THREADS);
            wrong = message.empty() ? difference(found, expected) : message;
            if (wrong.empty()) continue;
            wrong += " (schedule " + std::to_string(options.schedule) + ", seed " + std::to_string(options.seed) + ")";
            break;
        }
        report(c.name, wrong.empty(), wrong);
    }
}

// ---- Blocks that meet ----------------------------------------------------------------------------------------------

/// Each block writes its word, adds one to a count when all its threads are there, and waits until all blocks have;
/// then it adds all words. Word 64 of the output is the count. With `word`, block 3 does not arrive.
const char* const GRID_BARRIER = R"(
	mov.u32 	%r3, %ctaid.x;
	mov.u32 	%r9, %nctaid.x;
	mul.wide.u32 	%d4, %r3, 4;
	add.s64 	%d4, %d1, %d4;
	setp.ne.s32 	%p1, %r0, 0;
	@%p1 bra 	WRITTEN;
	add.s32 	%r4, %r3, 1;
	st.global.u32 	[%d4], %r4;
WRITTEN:
	bar.sync 	0;
	@%p1 bra 	MET;
	setp.eq.s32 	%p2, %r3, 3;
	setp.ne.s32 	%p3, %r1, 0;
	and.pred 	%p2, %p2, %p3;
	@%p2 bra 	WAIT;
	atom.add.acq_rel.gpu.global.u32 	%r5, [%d1+256], 1;
WAIT:
	ld.acquire.gpu.global.u32 	%r5, [%d1+256];
	setp.ge.u32 	%p4, %r5, %r9;
	@%p4 bra 	MET;
	nanosleep.u32 	32;
	bra 	WAIT;
MET:
	bar.sync 	0;
	mov.u32 	%r6, 0;
	mov.u32 	%r7, 0;
	mov.b64 	%d5, %d1;
SUM:
	ld.global.u32 	%r8, [%d5];
	add.s64 	%d5, %d5, 4;
	add.s32 	%r7, %r7, %r8;
	add.s32 	%r6, %r6, 1;
	setp.lt.u32 	%p5, %r6, %r9;
	@%p5 bra 	SUM;
	st.global.u32 	[%d4+512], %r7;)";

bool is_one_line(const std::string& text) {
    return !text.empty() && text.find('\n') == std::string::npos && text.find('\t') == std::string::npos;
}

void blocks_meet() {
    for (bool all_arrive : {true, false}) {
        std::string wrong, last;
        for (const EmulatorOptions& options : all_options(4)) {
            Words none(1), out(256, 0);
            Shape shape;
            shape.x = 8;
            shape.threads = 64;
            shape.cooperative = true;
            last = launch("grid_barrier", shape, Arguments{none.data, out.data, !all_arrive, 0}, options);
            if (all_arrive) {
                wrong += last;
                for (uint32_t i = 0; i < 8; ++i) wrong += out.data[128 + i] == 36 ? "" : " another sum";
            } else if (!is_one_line(last) || last.find("kernel grid_barrier, block (") != 0) {
                wrong += " found '" + last + "'";
            }
        }
        report(all_arrive ? "blocks that meet" : "blocks of which one does not arrive", wrong.empty(),
               wrong.empty() ? last : wrong);
    }
    Words none(1), out(256, 0);
    Shape shape;
    shape.x = 8;
    shape.threads = 64;
    const std::string found = launch("grid_barrier", shape, Arguments{none.data, out.data, 0, 0}, EmulatorOptions());
    report("blocks that meet, not cooperative", is_one_line(found), found);
}

/// A word that nobody changes ends the launch, in one warp and with others at a barrier.
void hangs() {
    for (uint32_t schedule = 0; schedule < 3; ++schedule) {
        for (uint32_t threads : {1u, 32u, 64u}) {
            Words word(1, 0), out(64);
            Shape shape;
            shape.threads = threads;
            const std::string found =
                launch("waits_for_ever", shape, Arguments{word.data, out.data, 0, 0}, scheduled(schedule, threads));
            report(
                "a word nobody changes, schedule " + std::to_string(schedule) + ", threads " + std::to_string(threads),
                is_one_line(found) && found.find("kernel waits_for_ever, block (0, 0, 0)") == 0, found);
        }
    }
}

/// A block finds nothing of the one before: neither in shared memory nor in registers.
void fresh_blocks() {
    Shape shape;
    shape.x = 3;
    shape.threads = 64;
    shape.shared = 256;
    expect_words("blocks begin with nothing", "fresh_block", shape, {0}, std::vector<uint32_t>(3 * 64 * 2, 0xffffffff));
}

/// Launches of many threads, the first ones of a kernel among them.
void launches_of_threads() {
    std::vector<std::string> wrong(4);
    std::vector<std::thread> threads;
    for (std::string& found : wrong) {
        threads.emplace_back([&found] {
            for (uint32_t i = 0; i < 50; ++i) {
                std::string message;
                Shape shape;
                shape.x = 4;
                const std::vector<uint32_t> words =
                    run("of_many_threads", shape, {0}, 32, i, scheduled(i % 3, i), &message);
                const std::vector<uint32_t> expected(32, 2 * i);
                found += message.empty() ? difference(words, expected) : message;
            }
        });
    }
    std::string all;
    for (uint32_t i = 0; i < 4; ++i) {
        threads[i].join();
        all += wrong[i];
    }
    report("launches of many threads", all.empty(), all);
}

/// The same seed gives the same order.
void seeds() {
    Shape shape;
    shape.threads = 128;
    shape.shared = 512;
    bool same = true, differ = false;
    std::vector<uint32_t> first;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        const std::vector<uint32_t> once = run("order", shape, {0}, 128, 0, scheduled(2, seed));
        const std::vector<uint32_t> again = run("order", shape, {0}, 128, 0, scheduled(2, seed));
        same &= once == again;
        differ |= seed > 0 && once != first;
        first = once;
    }
    report("a seed is replayed", same && differ);
}

}  // namespace

const std::string& flow_module() {
    static const std::string text = [] {
        std::string entries;
        for (const Flow& c : flows()) entries += entry(c.name, c.body);
        entries += entry("grid_barrier", GRID_BARRIER);
        entries += entry("waits_for_ever", R"(
	setp.ge.u32 	%p1, %r0, 32;
	@%p1 bra 	BARRIER;
WAIT:
	ld.acquire.gpu.global.u32 	%r3, [%d0];
	setp.ne.s32 	%p2, %r3, 0;
	@%p2 bra 	BARRIER;
	nanosleep.u32 	20;
	bra 	WAIT;
BARRIER:
	bar.sync 	0;
	st.global.u32 	[%d2], %r3;)");
        entries += entry("fresh_block", R"(
	mov.u32 	%r3, shared;
	mad.lo.s32 	%r3, %r0, 4, %r3;
	ld.shared.f32 	%r4, [%r3];
	st.shared.f32 	[%r3], %r0;
	mov.u32 	%r5, %ctaid.x;
	mad.lo.s32 	%r5, %r5, 64, %r0;
	mul.wide.u32 	%d4, %r5, 8;
	add.s64 	%d4, %d1, %d4;
	st.global.v2.u32 	[%d4], {%r4, %r50};
	mov.u32 	%r50, 1;)");
        entries += entry("of_many_threads", R"(
	add.s32 	%r3, %r1, %r1;
	st.global.u32 	[%d2], %r3;)");
        entries += entry("order", R"(
	atom.add.acq_rel.gpu.global.u32 	%r3, [%d0], 1;
	st.global.u32 	[%d2], %r3;)");
        return module_of(entries);
    }();
    return text;
}

void flow() {
    branches();
    blocks_meet();
    fresh_blocks();
    launches_of_threads();
    seeds();
    hangs();
}

}  // namespace test
