// Planted mistakes: each ends the launch with one line that names kernel, block, file, line and statement.
#include <algorithm>

#include "test.h"

namespace test {
namespace {

struct Fault {
    const char* name;
    const char* body;
    const char* statement;  // the one that is wrong, as it begins
    const char* what;       // part of the line
    uint32_t threads = 32;
    uint32_t block = 0;  // of 4
};

// Memory: `in` has 32 words, `out` 1024, the block's shared memory 256 bytes.
const std::vector<Fault>& all_faults() {
    static const std::vector<Fault> all = {
        {"global_after", "\tld.global.u32 \t%r3, [%d3+4];", "ld.global.u32",
         "4 bytes at byte 128 of device memory of 128 bytes"},
        {"global_before", "\tld.global.u32 \t%r3, [%d3+-4];", "ld.global.u32", "device memory"},
        {"global_red_zone", "\tst.global.f32 \t[%d3+128], %r0;", "st.global.f32", "device memory"},
        {"global_v4_after", "\tst.global.v4.u32 \t[%d0+128], {%r0, %r0, %r0, %r0};", "st.global.v4.u32",
         "device memory"},
        {"global_straddles_the_end", R"(
	add.s64 	%d4, %d1, 4092;
	ld.global.u32 	%r3, [%d4];
	add.s64 	%d4, %d1, 4096;
	ld.global.u16 	%h1, [%d4];)",
         "ld.global.u16", "2 bytes at byte 4096 of device memory of 4096 bytes"},
        {"global_u8_after", "\tld.global.u8 \t%r3, [%d0+128];", "ld.global.u8",
         "1 bytes at byte 128 of device memory of 128 bytes"},
        {"global_null", "\tmov.b64 \t%d4, 0;\n\tld.global.v2.u32 \t{%r3, %r4}, [%d4];", "ld.global.v2.u32",
         "no device memory"},
        {"global_wild", "\tmov.b64 \t%d4, -16;\n\tld.global.v4.u32 \t{%r3, %r4, %r5, %r6}, [%d4];", "ld.global.v4.u32",
         "device memory"},
        {"global_unaligned_u16", "\tld.global.u16 \t%h1, [%d3+1];", "ld.global.u16", "multiple of 2"},
        {"global_unaligned_u32", "\tst.global.u32 \t[%d0+2], %r0;", "st.global.u32", "multiple of 4"},
        {"global_unaligned_v2", "\tld.global.v2.u32 \t{%r3, %r4}, [%d0+4];", "ld.global.v2.u32", "multiple of 8"},
        {"global_unaligned_v4", "\tst.global.v4.f32 \t[%d0+8], {%r0, %r0, %r0, %r0};", "st.global.v4.f32",
         "multiple of 16"},
        {"global_one_lane", R"(
	setp.ne.s32 	%p1, %r0, 21;
	@%p1 bra 	END;
	ld.global.u32 	%r3, [%d3+44];
END:)",
         "ld.global.u32", "byte 128 of device memory of 128 bytes"},
        {"global_of_shared", R"(
	mov.u32 	%r3, shared;
	cvt.u64.u32 	%d4, %r3;
	cvta.shared.u64 	%d4, %d4;
	ld.global.u32 	%r4, [%d4];)",
         "ld.global.u32", "device memory"},
        {"global_of_parameters", "\tmov.b64 \t%d4, arguments;\n\tld.global.u32 \t%r4, [%d4];", "ld.global.u32",
         "device memory"},
        {"atomic_after", "\tatom.add.acq_rel.gpu.global.u32 \t%r3, [%d0+128], 1;", "atom.add.acq_rel.gpu.global.u32",
         "device memory"},
        {"atomic_unaligned", "\tatom.add.acq_rel.gpu.global.u32 \t%r3, [%d0+1], 1;", "atom.add.acq_rel.gpu.global.u32",
         "multiple of 4"},
        {"acquire_after", "\tld.acquire.gpu.global.u32 \t%r3, [%d0+128];", "ld.acquire.gpu.global.u32",
         "device memory"},
        {"nc_after", "\tld.global.nc.L1::no_allocate.L2::128B.v4.u32 \t{%r3, %r4, %r5, %r6}, [%d0+128];",
         "ld.global.nc", "device memory"},

        {"shared_after", "\tst.shared.f32 \t[shared+256], %r0;", "st.shared.f32",
         "4 bytes at byte 256 of shared memory of 256 bytes"},
        {"shared_before", "\tmov.u32 \t%r3, shared;\n\tld.shared.f32 \t%r4, [%r3+-4];", "ld.shared.f32",
         "byte -4 of shared memory"},
        {"shared_v4_after", "\tst.shared.v4.u32 \t[shared+256], {%r0, %r0, %r0, %r0};", "st.shared.v4.u32",
         "shared memory"},
        {"shared_at_zero", "\tmov.u32 \t%r3, 0;\n\tld.shared.f32 \t%r4, [%r3];", "ld.shared.f32", "shared memory"},
        {"shared_of_generic", R"(
	mov.u32 	%r3, shared;
	cvt.u64.u32 	%d4, %r3;
	cvta.shared.u64 	%d4, %d4;
	cvt.u32.u64 	%r4, %d4;
	ld.shared.f32 	%r5, [%r4];)",
         "ld.shared.f32", "shared memory"},
        {"shared_unaligned_f32", "\tst.shared.f32 \t[shared+2], %r0;", "st.shared.f32", "multiple of 4"},
        {"shared_unaligned_v2", "\tld.shared.v2.f32 \t{%r3, %r4}, [shared+4];", "ld.shared.v2.f32", "multiple of 8"},
        {"shared_unaligned_v4", "\tld.shared.v4.u32 \t{%r3, %r4, %r5, %r6}, [shared+8];", "ld.shared.v4.u32",
         "multiple of 16"},
        {"matrix_after", "\tldmatrix.sync.aligned.m8n8.x4.shared.b16 \t{%r3, %r4, %r5, %r6}, [shared+256];", "ldmatrix",
         "16 bytes at byte 256"},
        {"matrix_unaligned", "\tldmatrix.sync.aligned.m8n8.x4.shared.b16 \t{%r3, %r4, %r5, %r6}, [shared+8];",
         "ldmatrix", "multiple of 16"},

        {"copy_from_after", "\tcp.async.cg.shared.global.L2::128B \t[shared], [%d0+128], 16, 16;", "cp.async",
         "device memory"},
        {"copy_from_unaligned", "\tcp.async.cg.shared.global.L2::128B \t[shared], [%d0+8], 16, 16;", "cp.async",
         "multiple of 16"},
        {"copy_to_after", "\tcp.async.cg.shared.global.L2::128B \t[shared+256], [%d0], 16, 16;", "cp.async",
         "shared memory"},
        {"copy_to_unaligned", "\tcp.async.cg.shared.global.L2::128B \t[shared+4], [%d0], 16, 16;", "cp.async",
         "multiple of 16"},
        {"constant_that_is_stored",
         "\tst.global.u32 \t[%d0], %r0;\n\tld.global.nc.L1::no_allocate.L2::128B.v4.u32 \t{%r4, %r5, %r6, %r7}, [%d0];",
         "ld.global.nc", "as constant"},
        {"copy_of_more", "\tcp.async.cg.shared.global.L2::128B \t[shared], [%d0], 16, 17;", "cp.async", "16 bytes"},

        {"parameter_after", "\tmov.b64 \t%d4, arguments;\n\tld.param.u32 \t%r3, [%d4+24];", "ld.param.u32 \t%r3, [%d4",
         "parameter"},
        {"parameter_partly_inside", "\tld.param.u64 \t%d4, [arguments+20];", "ld.param.u64 \t%d4",
         "beyond the kernel's parameters"},
        {"parameter_before", "\tld.param.u32 \t%r3, [arguments+-4];", "ld.param.u32 \t%r3, [arg", "parameter"},
        {"parameter_unaligned", "\tld.param.u32 \t%r3, [arguments+2];", "ld.param.u32 \t%r3, [arg", "multiple of 4"},

        {"shuffle_of_a_part", "\tshfl.sync.bfly.b32 \t%r3|%p1, %r0, 1, 31, 65535;", "shfl.sync.bfly.b32",
         "part of the warp"},
        {"shuffle_of_one_lanes_mask", R"(
	setp.eq.s32 	%p1, %r0, 9;
	selp.b32 	%r3, 0x7fffffff, -1, %p1;
	shfl.sync.idx.b32 	%r4|%p2, %r0, 0, 31, %r3;)",
         "shfl.sync.idx.b32", "part of the warp"},
        {"collective_after_returns", R"(
	setp.eq.s32 	%p1, %r0, 3;
	@%p1 bra 	GONE;
	bar.warp.sync 	-1;
	bra 	END;
GONE:
	ret;
END:)",
         "bar.warp.sync", ""},
        {"collective_before_returns", R"(
	setp.ne.s32 	%p1, %r0, 3;
	@%p1 bra 	MEET;
	add.s32 	%r3, %r3, 1;
	ret;
MEET:
	shfl.sync.bfly.b32 	%r3|%p2, %r0, 1, 31, -1;)",
         "shfl.sync", "returned"},
        {"collective_of_some", R"(
	setp.lt.u32 	%p1, %r0, 16;
	@%p1 bra 	END;
	mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 
		{%r4, %r5, %r6, %r7}, {%r3, %r3, %r3, %r3}, {%r3, %r3}, {%r3, %r3, %r3, %r3};
END:)",
         "mma.sync", ""},
        // In whatever order lanes run, some wait at one of them.
        {"collectives_of_two_places", R"(
	setp.lt.u32 	%p1, %r0, 16;
	@%p1 bra 	OTHER;
	bar.warp.sync 	-1;
	bra 	END;
OTHER:
	bar.warp.sync 	-1;
END:)",
         "bar.warp.sync", "lanes wait"},
        {"collective_and_block_barrier", R"(
	setp.eq.s32 	%p1, %r0, 40;
	@%p1 bra 	OTHER;
	bar.warp.sync 	-1;
OTHER:
	bar.sync 	0;)",
         "bar", "", 64},
        {"collective_of_40_threads", "\tbar.warp.sync \t-1;", "bar.warp.sync", "less than 32 lanes", 40},
        {"shuffle_of_40_threads", "\tshfl.sync.idx.b32 \t%r3|%p1, %r0, 0, 31, -1;", "shfl.sync.idx.b32",
         "less than 32 lanes", 40},
        {"matrix_of_1_thread", "\tldmatrix.sync.aligned.m8n8.x4.shared.b16 \t{%r3, %r4, %r5, %r6}, [shared];",
         "ldmatrix", "less than 32 lanes", 1},

        {"block_barrier_after_a_warp_returns", R"(
	setp.ge.u32 	%p1, %r0, 32;
	@%p1 bra 	END;
	bar.sync 	0;
END:)",
         "bar.sync", "returned", 64},
        {"block_barrier_after_a_lane_returns", R"(
	setp.eq.s32 	%p1, %r0, 63;
	@%p1 bra 	GONE;
	bar.sync 	0;
	bra 	END;
GONE:
	ret;
END:)",
         "bar.sync", "", 64},
        {"block_barriers_of_two_places", R"(
	setp.ge.u32 	%p1, %r0, 32;
	@%p1 bra 	OTHER;
	bar.sync 	0;
	bra 	END;
OTHER:
	bar.sync 	0;
END:)",
         "bar.sync", "another barrier", 64},
        {"block_barriers_of_two_places_in_a_warp", R"(
	setp.ge.u32 	%p1, %r0, 16;
	@%p1 bra 	OTHER;
	bar.sync 	0;
	bra 	END;
OTHER:
	bar.sync 	0;
END:)",
         "bar.sync", "lanes wait"},
        {"in_block_2", R"(
	mov.u32 	%r3, %ctaid.x;
	mul.wide.u32 	%d4, %r3, 64;
	add.s64 	%d4, %d0, %d4;
	ld.global.u32 	%r4, [%d4];)",
         "ld.global.u32", "byte 128 of device memory", 32, 2},
    };
    return all;
}

bool is_one_line(const std::string& text) {
    return !text.empty() && text.find('\n') == std::string::npos && text.find('\t') == std::string::npos;
}
/// Text without tabs, as messages show it.
std::string shown(std::string text) {
    std::replace(text.begin(), text.end(), '\t', ' ');
    size_t at;
    while ((at = text.find("  ")) != std::string::npos) text.erase(at, 1);
    return text;
}

/// All lines of the file where a statement of the kernel begins so.
std::vector<std::string> places(const Fault& fault) {
    const std::string& module = faults_module();
    const std::string start = "\n\t" + std::string(fault.statement);
    const size_t begin = module.find(".entry " + std::string(fault.name) + "("), end = module.find("\n}", begin);
    std::vector<std::string> found;
    for (size_t at = module.find(start, begin); at < end; at = module.find(start, at + 1)) {
        const auto lines = std::count(module.begin(), module.begin() + ptrdiff_t(at) + 1, '\n');
        found.push_back("faults.ptx:" + std::to_string(1 + lines) + ": ");
    }
    return found;
}

void check(const Fault& fault) {
    std::string last, wrong;
    const std::vector<std::string> lines = places(fault);
    if (lines.empty()) wrong = "no such statement";
    for (const EmulatorOptions& options : all_options(3)) {
        Words in(32, 0), out(1024);
        Shape shape;
        shape.x = fault.block + 1;
        shape.threads = fault.threads;
        shape.shared = 256;
        last = launch(fault.name, shape, Arguments{in.data, out.data, 0, 0}, options);
        const std::string block = std::to_string(fault.block);
        const std::string start = "kernel " + std::string(fault.name) + ", block (" + block + ", 0, 0), ";
        const auto is_named = [&](const std::string& line) { return last.find(line) != std::string::npos; };
        const bool good =
            is_one_line(last) && last.find(start) == 0 && std::any_of(lines.begin(), lines.end(), is_named) &&
            last.find(shown(fault.statement)) != std::string::npos && last.find(fault.what) != std::string::npos;
        if (good) continue;
        wrong = "schedule " + std::to_string(options.schedule) + ", expected " + start + "... " +
                (lines.empty() ? "" : lines[0]) + fault.what + ", found '" + last + "'";
        break;
    }
    report(fault.name, wrong.empty(), wrong.empty() ? last : wrong);
}

void freed_memory() {
    uint32_t* const memory = static_cast<uint32_t*>(flamant_emulator_allocate(128));
    flamant_emulator_free(memory);
    Words out(1);
    const std::string found = launch("global_read", Shape(), Arguments{memory, out.data, 0, 0});
    const std::string line = place("faults.ptx", faults_module(), "global_read", "ld.global.u32");
    report("freed memory", is_one_line(found) && found.find(line) != std::string::npos, found);
}

/// Launches that are refused before they begin.
void shapes() {
    Words in(32, 0), out(64);
    const Arguments arguments{in.data, out.data, 0, 0};
    const auto refused = [&](const char* name, const char* kernel, const Shape& shape, const char* what,
                             const EmulatorOptions& options = EmulatorOptions()) {
        const std::string found = launch(kernel, shape, arguments, options);
        report(name,
               is_one_line(found) && found.find(what) != std::string::npos && found.find(kernel) != std::string::npos,
               found);
    };
    Shape shape;
    refused("unknown kernel", "no_such_kernel", shape, "no kernel is named no_such_kernel");
    shape.threads = 65;
    refused("more threads than .maxntid", "threads_64", shape, "65 threads");
    shape.threads = 0;
    refused("no threads", "threads_64", shape, "0 threads");
    shape = Shape();
    shape.y = 0;
    refused("no blocks", "threads_64", shape, "1, 0, 1 blocks");
    shape.y = 65536;
    refused("too many blocks", "threads_64", shape, "1, 65536, 1 blocks");
    shape = Shape();
    shape.shared = (227 << 10) + 1;
    refused("too much shared memory", "threads_64", shape, "bytes of shared memory");
    shape = Shape();
    EmulatorOptions options = {};
    options.schedule = 3;
    refused("unknown schedule", "threads_64", shape, "schedule", options);
    options.schedule = 0;
    options.matrix_units = 3;
    refused("unknown matrix units", "threads_64", shape, "matrix units", options);
    shape.threads = 64;
    shape.shared = 227 << 10;
    const std::string found = launch("threads_64", shape, arguments);
    report("the most that is allowed", found.empty(), found);
    // A refused or failed launch leaves nothing behind that a later one would notice.
    std::string message;
    const std::vector<uint32_t> words = run("threads_64", Shape(), {0}, 32, 0, EmulatorOptions(), &message);
    report("a launch after failed ones", message.empty() && words[31] == 31, message);
}

}  // namespace

const std::string& faults_module() {
    static const std::string text = [] {
        std::string entries;
        for (const Fault& fault : all_faults()) entries += entry(fault.name, fault.body);
        entries += entry("global_read", "\tld.global.u32 \t%r3, [%d3];");
        entries += entry("threads_64", "\tst.global.u32 \t[%d2], %r0;", 64);
        return module_of(entries);
    }();
    return text;
}

void faults() {
    for (const Fault& fault : all_faults()) check(fault);
    freed_memory();
    shapes();
}

}  // namespace test
