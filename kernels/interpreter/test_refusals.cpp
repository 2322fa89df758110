// PTX that the interpreter does not know, or that is none, is refused with file, line and text, and never guessed at.
#include "program.h"
#include "test.h"

namespace test {
namespace {

/// A kernel with one statement that is refused. The message shows `text`, or the statement as it is.
struct Refusal {
    const char* name;
    const char* statement;
    const char* text = nullptr;
};

const std::vector<Refusal>& all_refusals() {
    static const std::vector<Refusal> all = {
        // Opcodes and modifiers.
        {"unknown_opcode", "frobnicate.s32 %r3, %r4, %r5;"},
        {"saturating_add", "add.sat.s32 %r3, %r4, %r5;"},
        {"add_without_rounding", "add.f32 %r3, %r4, %r5;"},
        {"add_towards_zero", "add.rz.f32 %r3, %r4, %r5;"},
        {"add_with_ftz", "add.rn.ftz.f32 %r3, %r4, %r5;"},
        {"mul_with_ftz", "mul.rn.ftz.f32 %r3, %r4, %r5;"},
        {"fma_towards_zero", "fma.rz.f32 %r3, %r4, %r5, %r6;"},
        {"max_with_ftz", "max.ftz.f32 %r3, %r4, %r5;"},
        {"max_with_nan", "max.NaN.f32 %r3, %r4, %r5;"},
        {"min_of_floats", "min.f32 %r3, %r4, %r5;"},
        {"ex2_without_ftz", "ex2.approx.f32 %r3, %r4;"},
        {"rcp_without_ftz", "rcp.approx.f32 %r3, %r4;"},
        {"rsqrt_with_ftz", "rsqrt.approx.ftz.f32 %r3, %r4;"},
        {"full_division", "div.full.f32 %r3, %r4, %r5;"},
        {"add_with_carry", "add.cc.u32 %r3, %r4, %r5;"},
        {"mul_high", "mul.hi.u32 %r3, %r4, %r5;"},
        {"signed_shift", "shr.s32 %r3, %r4, 1;"},
        {"setp_with_ftz", "setp.lt.ftz.f32 %p1, %r4, %r5;"},
        {"setp_of_two", "setp.lt.s32 %p1|%p2, %r4, %r5;"},
        {"setp_and", "setp.lt.and.s32 %p1, %r4, %r5, %p2;"},
        {"cvt_with_sat", "cvt.rzi.sat.u32.f32 %r3, %r4;"},
        {"cvt_with_ftz", "cvt.rzi.ftz.u32.f32 %r3, %r4;"},
        {"cvt_towards_zero", "cvt.rz.f16.f32 %h1, %r4;"},
        {"cvt_with_relu", "cvt.rn.relu.bf16.f32 %h1, %r4;"},
        {"volatile_load", "ld.volatile.global.u32 %r3, [%d0];"},
        {"generic_load", "ld.u32 %r3, [%d0];"},
        {"relaxed_load", "ld.relaxed.gpu.global.u32 %r3, [%d0];"},
        {"acquire_of_system", "ld.acquire.sys.global.u32 %r3, [%d0];"},
        {"constant_load", "ld.const.u32 %r3, [%d0];"},
        {"local_load", "ld.local.u32 %r3, [%d0];"},
        {"relaxed_atomic", "atom.global.add.u32 %r3, [%d0], 1;"},
        {"atomic_max", "atom.max.acq_rel.gpu.global.u32 %r3, [%d0], 1;"},
        {"reduction", "red.global.add.u32 [%d0], 1;"},
        {"fence", "fence.acq_rel.gpu;"},
        {"membar", "membar.gl;"},
        {"copy_of_8_bytes", "cp.async.ca.shared.global [%r3], [%d0], 8;"},
        {"copy_without_size", "cp.async.cg.shared.global.L2::128B [%r3], [%d0], 16;"},
        {"copy_of_other_hint", "cp.async.cg.shared.global.L2::64B [%r3], [%d0], 16, 16;"},
        {"wait_all", "cp.async.wait_all;"},
        {"bulk_copy", "cp.async.bulk.commit_group;"},
        {"shuffle_up", "shfl.sync.up.b32 %r3|%p1, %r4, 1, 0, -1;"},
        {"shuffle_without_sync", "shfl.bfly.b32 %r3, %r4, 1, 31;"},
        {"shuffle_without_predicate", "shfl.sync.bfly.b32 %r3, %r4, 1, 31, -1;"},
        {"vote", "vote.sync.any.pred %p1, %p2, -1;"},
        {"part_of_a_warp_meets", "bar.warp.sync 65535;"},
        {"other_barrier", "bar.sync 1;"},
        {"barrier_of_some_threads", "bar.sync 0, 64;"},
        {"barrier_arrive", "bar.arrive 0, 64;"},
        {"ldmatrix_x2", "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r3, %r4}, [%r5];"},
        {"mma_of_other_shape",
         "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r3, %r4, %r5, %r6}, {%r7, %r8}, "
         "{%r9}, {%r3, %r4, %r5, %r6};"},
        {"mma_with_f16_sums",
         "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r3, %r4}, {%r5, %r6, %r7, %r8}, "
         "{%r9, %r10}, {%r3, %r4};"},
        {"double", "add.rn.f64 %d4, %d5, %d6;"},
        {"call", "call.uni helper;"},
        {"indirect_branch", "brx.idx %r3, TARGETS;"},
        {"exit", "exit;"},
        {"trap", "trap;"},

        // Numbers, widths and kinds of operands.
        {"one_operand_less", "add.s32 %r3, %r4;"},
        {"one_operand_more", "add.s32 %r3, %r4, %r5, %r6;"},
        {"no_operands", "mov.u32;"},
        {"no_comma", "add.s32 %r3 %r4, %r5;"},
        {"comma_at_the_end", "add.s32 %r3, %r4, %r5,;"},
        {"ret_of_something", "ret %r3;"},
        {"narrow_result", "add.s64 %r3, %d4, %d5;"},
        {"narrow_operand", "add.s64 %d3, %d4, %r5;"},
        {"wide_result", "add.s32 %d3, %r4, %r5;"},
        {"wide_operand", "add.s32 %r3, %r4, %d5;"},
        {"half_for_word", "mov.b32 %r3, %h1;"},
        {"word_for_half", "mov.u16 %h1, %r3;"},
        {"wide_shift", "shl.b64 %d4, %d5, %d6;"},
        {"predicate_for_word", "mov.u32 %r3, %p1;"},
        {"word_for_predicate", "selp.u32 %r3, %r4, %r5, %r6;"},
        {"setp_to_a_word", "setp.eq.s32 %r3, %r4, %r5;"},
        {"narrow_address", "ld.global.u32 %r3, [%r4];"},
        {"wide_address", "ld.shared.f32 %r3, [%d4];"},
        {"narrow_load", "ld.global.u32 %h1, [%d4];"},
        {"wide_pair", "ld.global.v2.u32 {%d4, %d5}, [%d6];"},
        {"three_of_four", "ld.global.v4.u32 {%r3, %r4, %r5}, [%d4];"},
        {"no_braces", "ld.global.v2.u32 %r3, %r4, [%d4];"},
        {"no_brackets", "ld.global.u32 %r3, %d4;"},
        {"address_of_registers", "ld.global.u32 %r3, [%d4+%d5];"},
        {"address_minus", "ld.global.u32 %r3, [%d4-4];"},
        {"address_times", "ld.global.u32 %r3, [%d4*4];"},
        {"absolute_address", "ld.global.u32 %r3, [4096];"},
        {"shared_symbol_for_global", "ld.global.u32 %r3, [shared];"},
        {"parameter_for_shared", "ld.shared.f32 %r3, [arguments];"},
        {"wide_displacement", "ld.shared.f32 %r3, [%r4+4294967296];"},
        {"undeclared_register", "add.s32 %r3, %r4, %r60;"},
        {"undeclared_result", "add.s32 %q1, %r4, %r5;"},
        {"undeclared_address", "ld.global.u32 %r3, [%d20];"},
        {"unknown_symbol", "mov.u32 %r3, other;"},
        {"result_is_a_constant", "mov.u32 5, %r3;"},
        {"result_is_special", "mov.u32 %tid.x, %r3;"},
        {"unknown_special", "mov.u32 %r3, %laneid;"},
        {"clock", "mov.u32 %r3, %clock;"},
        {"special_y", "mov.u32 %r3, %tid.y;"},
        {"literal_of_33_bits", "mov.u32 %r3, 0x100000000;"},
        {"literal_below_32_bits", "mov.u32 %r3, -2147483649;"},
        {"literal_of_17_bits", "mov.u16 %h1, 65536;"},
        {"literal_below_16_bits", "mov.u16 %h1, -32769;"},
        {"literal_of_65_bits", "mov.u64 %d4, 18446744073709551616;"},
        {"literal_of_a_predicate", "mov.pred %p1, 2;"},
        {"decimal_float", "mov.f32 %r3, 1.5;"},
        {"short_float", "mov.f32 %r3, 0f3F80;"},
        {"long_float", "mov.f32 %r3, 0f3F8000000;"},
        {"float_of_no_digits", "mov.f32 %r3, 0f3F80000G;"},
        {"signed_float", "mov.f32 %r3, 0f-3F80000;"},
        {"float_for_wide", "mov.b64 %d4, 0f3F800000;"},
        {"double_literal", "mov.b64 %d4, 0d3FF0000000000000;"},
        {"expression", "mov.u32 %r3, 1+2;"},
        {"negated_operand", "add.s32 %r3, %r4, -%r5;"},
        {"wait_for_a_register", "cp.async.wait_group %r3;"},
        {"wait_for_less_than_none", "cp.async.wait_group -1;"},
        {"sink", "mov.b32 {%h1, _}, %r3;"},

        // Guards, labels, declarations.
        {"guarded_add", "@%p1 add.s32 %r3, %r4, %r5;"},
        {"guarded_store", "@!%p1 st.global.u32 [%d0], %r3;"},
        {"guarded_return", "@%p1 ret;"},
        {"guarded_barrier", "@%p1 bar.sync 0;"},
        {"guard_is_a_word", "@%r3 bra LABEL;\nLABEL:", "@%r3"},
        {"guard_is_undeclared", "@%p77 bra LABEL;\nLABEL:", "@%p77"},
        {"missing_label", "bra NOWHERE;"},
        {"missing_guarded_label", "@%p1 bra NOWHERE;"},
        {"branch_to_a_register", "bra %r3;"},
        {"label_twice", "bra AGAIN;\nAGAIN:\nmov.u32 %r3, 0;\nAGAIN:", "AGAIN:"},
        {"local_memory", ".local .align 4 .b8 depot[16];", ".local"},
        {"static_shared_memory", ".shared .align 4 .b8 tile[64];", ".shared"},
        {"constants", ".const .b32 table[4];", ".const"},
        {"declared_doubles", ".reg .f64 %fd<3>;", ".reg .f64"},
        {"declared_bytes", ".reg .b8 %b<3>;", ".reg .b8"},
        {"declared_vectors", ".reg .v4 .b32 %v;", ".reg .v4"},
        {"declared_too_many", ".reg .b32 %x<2000000>;", ".reg .b32 %x<2000000"},
        {"declared_twice", ".reg .b32 %r59;", ".reg .b32 %r59"},
        {"unknown_pragma", ".pragma \"enable_smem_spilling\";", ".pragma"},
        {"line_directive", ".loc 1 2 3", ".loc"},
        {"comment_of_lines", "/* a comment */", "/"},
    };
    return all;
}
// Bodies that are refused at their end, and registers of a scope that has ended.
const char* const WHOLE[][3] = {
    {"body_without_ret", "\tmov.u32 \t%r3, 0;", ""},
    {"body_of_nothing", "", ""},
    {"ret_is_not_last", "\tret;\n\tmov.u32 \t%r3, 0;", ""},
    {"label_after_the_last_ret", "\tsetp.eq.s32 \t%p1, %r3, 0;\n\t@%p1 bra \tEND;\n\tret;\nEND:", ""},
    {"register_of_another_scope",
     "\t{\n\t.reg .b32 inner;\n\tmov.u32 \tinner, 0;\n\t}\n\tmov.u32 \t%r3, inner;\n\tret;", "mov.u32 %r3, inner"},
    {"statement_without_an_end", "\tret", "ret"},
};

bool is_one_line(const std::string& text) {
    return !text.empty() && text.find('\n') == std::string::npos && text.find('\t') == std::string::npos;
}

void check(const Refusal& refusal) {
    std::string statement = refusal.text ? refusal.text : refusal.statement;
    if (!refusal.text) statement.pop_back();  // without the semicolon
    const std::string line = place("refusals.ptx", refusals_module(), refusal.name, refusal.statement);
    Words word(64, 0);
    const std::string found = launch(refusal.name, Shape(), Arguments{word.data, word.data, 0, 0});
    // The label that stands twice is refused where it does so for the second time.
    const bool here = refusal.name == std::string("label_twice") || found.find(line + ": ") != std::string::npos;
    const bool good = is_one_line(found) && here &&
                      found.find("kernel " + std::string(refusal.name) + ", refusals.ptx:") == 0 &&
                      found.find(": " + statement) != std::string::npos;
    report(refusal.name, good, good ? found : "expected " + line + ", found '" + found + "'");
}

// ---- Modules: read, not run ----------------------------------------------------------------------------------------

struct Module {
    const char* name;
    const char* text;
    uint32_t line;  // 0: it is right
};
const Module MODULES[] = {
    {"module of nothing", "", 0},
    {"module of a header", ".version 8.4\n.target sm_80\n.address_size 64\n", 0},
    {"module with an entry",
     ".version 9.0\n.target sm_90a\n.visible .entry k(\n.param .align 8 .b8 p[8]\n)\n.maxntid 32, 1, 1\n"
     ".minnctapersm 2\n{\n{\nret;\n}\n}\n",
     0},
    {"old version", "\n.version 6.5\n", 2},
    {"other target", ".target gfx90a\n", 1},
    {"32-bit addresses", "\n\n.address_size 32\n", 3},
    {"a function", ".func helper()\n{\nret;\n}\n", 1},
    {"an extern function", ".extern .func (.param .b32 r) vprintf\n", 1},
    {"global data", "//\n.global .align 4 .b8 table[16];\n", 2},
    {"constant data", ".const .align 4 .b8 table[16];\n", 1},
    {"static shared memory", ".shared .align 4 .b8 table[16];\n", 1},
    {"shared memory of a size", ".extern .shared .align 16 .b8 table[16];\n", 1},
    {"shared memory of words", ".extern .shared .align 16 .b32 table[];\n", 1},
    {"shared memory aligned too much", ".extern .shared .align 1024 .b8 table[];\n", 1},
    {"an entry that is not visible", ".entry k(\n.param .align 8 .b8 p[8]\n)\n.maxntid 32, 1, 1\n{\nret;\n}\n", 1},
    {"an entry without parameters", ".visible .entry k()\n.maxntid 32, 1, 1\n{\nret;\n}\n", 1},
    {"an entry with two parameters",
     ".visible .entry k(\n.param .align 8 .b8 p[8],\n.param .b32 q\n)\n.maxntid 32, 1, 1\n{\nret;\n}\n", 2},
    {"an entry with a number", ".visible .entry k(\n.param .u64 p\n)\n.maxntid 32, 1, 1\n{\nret;\n}\n", 2},
    {"an entry without .maxntid", ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n{\nret;\n}\n", 4},
    {"an entry of planes of threads",
     ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n.maxntid 32, 2, 1\n{\nret;\n}\n", 4},
    {"an entry with .reqntid", ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n.reqntid 32, 1, 1\n{\nret;\n}\n", 4},
    {"an entry with clusters",
     ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n.maxntid 32, 1, 1\n.explicitcluster\n{\nret;\n}\n", 5},
    {"an entry without an end", ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n.maxntid 32, 1, 1\n{\nret;\n", 7},
    {"an entry with two ends", ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n.maxntid 32, 1, 1\n{\nret;\n}\n}\n",
     8},
    {"half an entry", ".visible .entry k(\n.param .align 8 .b8 p[8]\n)\n", 4},
    {"a comment of lines", "/* text */\n", 1},
};
void modules() {
    for (const Module& module : MODULES) {
        std::string found;
        try {
            interpreter::read_module("m.ptx", module.text);
        } catch (const interpreter::Fault& fault) {
            found = fault.line;
        }
        const std::string line = "m.ptx:" + std::to_string(module.line) + ": ";
        const bool good = module.line ? is_one_line(found) && found.find(line) == 0 : found.empty();
        report(module.name, good, good ? found : "expected " + line + ", found '" + found + "'");
    }
}

}  // namespace

const std::string& refusals_module() {
    static const std::string text = [] {
        std::string entries;
        for (const Refusal& refusal : all_refusals()) {
            entries += entry(refusal.name, "\tsetp.eq.s32 \t%p1, %r0, 0;\n\t" + std::string(refusal.statement));
        }
        for (const auto& [name, body, shown] : WHOLE) entries += bare_entry(name, body);
        return module_of(entries);
    }();
    return text;
}

void refusals() {
    for (const Refusal& refusal : all_refusals()) check(refusal);
    for (const auto& [name, body, shown] : WHOLE) {
        Words word(64, 0);
        const std::string found = launch(name, Shape(), Arguments{word.data, word.data, 0, 0});
        const bool good = is_one_line(found) && found.find("kernel " + std::string(name) + ", refusals.ptx:") == 0 &&
                          found.find(shown) != std::string::npos;
        report(name, good, found);
    }
    modules();
}

}  // namespace test
