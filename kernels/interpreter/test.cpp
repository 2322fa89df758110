// The interpreter's own test: opcode by opcode what the PTX ISA says, on PTX written by hand; right kernels under every
// schedule; planted mistakes and PTX that must be refused, each in one line.
//
//   g++ -O1 -std=c++17 -ffp-contract=off -fno-strict-aliasing -pthread *.cpp -o /tmp/interpreter-test
//   /tmp/interpreter-test ../../tests/data/matrix_units.txt
//
// The expected values come from the words of the PTX ISA 9.0, not from the interpreter. The argument is the file that
// tools/golden_matrix_units.py makes. Prints a line for each case; the exit status is 1 if one went wrong. A case that
// hangs ends the program by SIGALRM.
#include "test.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "modules.h"
#include "program.h"

namespace test {
namespace {

InterpreterModule as_module(const char* file, const std::string& text) {
    return InterpreterModule{file, text.data(), text.data() + text.size()};
}

}  // namespace
}  // namespace test

const InterpreterModule flamant_interpreter_modules[] = {
    test::as_module("values.ptx", test::values_module()),     test::as_module("memory.ptx", test::memory_module()),
    test::as_module("warps.ptx", test::warps_module()),       test::as_module("flow.ptx", test::flow_module()),
    test::as_module("faults.ptx", test::faults_module()),     test::as_module("races.ptx", test::races_module()),
    test::as_module("refusals.ptx", test::refusals_module()),
};
const size_t flamant_interpreter_module_count =
    sizeof flamant_interpreter_modules / sizeof *flamant_interpreter_modules;

namespace test {

// ---- Modules -------------------------------------------------------------------------------------------------------

std::string bare_entry(const std::string& name, const std::string& body) {
    return ".visible .entry " + name +
           "(\n\t.param .align 8 .b8 arguments[24]\n)\n.maxntid 1024, 1, 1\n{\n"
           "\t.reg .pred %p<10>;\n\t.reg .b16 %h<10>;\n\t.reg .b32 %r<60>;\n\t.reg .b64 %d<20>;\n" +
           body + "\n}\n";
}
std::string entry(const std::string& name, const std::string& body, uint32_t threads) {
    std::string text = bare_entry(name, R"(
	ld.param.u64 	%d0, [arguments];
	ld.param.u64 	%d1, [arguments+8];
	ld.param.v2.u32 	{%r1, %r2}, [arguments+16];
	cvta.to.global.u64 	%d0, %d0;
	cvta.to.global.u64 	%d1, %d1;
	mov.u32 	%r0, %tid.x;
	mul.wide.u32 	%d3, %r0, 4;
	add.s64 	%d2, %d1, %d3;
	add.s64 	%d3, %d0, %d3;
)" + body + "\n\tret;");
    const std::string most = ".maxntid 1024,";
    return text.replace(text.find(most), most.size(), ".maxntid " + std::to_string(threads) + ",");
}
std::string module_of(const std::string& entries) {
    return "//\n// Written by hand.\n//\n.version 9.0\n.target sm_90a\n.address_size 64\n"
           ".extern .shared .align 16 .b8 shared[];\n" +
           entries;
}
std::string place(const char* file, const std::string& module, const std::string& kernel,
                  const std::string& statement) {
    const size_t begin = module.find(".entry " + kernel + "(");
    const size_t at = begin == std::string::npos ? begin : module.find("\t" + statement, begin);
    if (at == std::string::npos) return "no statement " + statement + " in " + kernel;
    return std::string(file) + ":" +
           std::to_string(1 + std::count(module.begin(), module.begin() + ptrdiff_t(at), '\n'));
}

// ---- Reports -------------------------------------------------------------------------------------------------------

namespace {
int failures = 0, checks = 0;
constexpr unsigned PATIENCE_SECONDS = 120;
}  // namespace

void report(const std::string& name, bool good, const std::string& detail) {
    printf("%s %s%s%s\n", good ? "ok  " : "FAIL", name.c_str(), detail.empty() ? "" : ": ", detail.c_str());
    fflush(stdout);
    failures += !good;
    checks += 1;
    alarm(PATIENCE_SECONDS);
}
std::string hex(uint64_t value) {
    char text[32];
    snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}
std::string difference(const std::vector<uint32_t>& found, const std::vector<uint32_t>& expected) {
    if (found.size() != expected.size()) {
        return std::to_string(found.size()) + " words, and not " + std::to_string(expected.size());
    }
    for (size_t i = 0; i < found.size(); ++i) {
        if (found[i] == expected[i]) continue;
        return "word " + std::to_string(i) + " is " + hex(found[i]) + " and not " + hex(expected[i]);
    }
    return "";
}

// ---- Launches ------------------------------------------------------------------------------------------------------

Words::Words(size_t count_, uint32_t value)
    : data(static_cast<uint32_t*>(flamant_emulator_allocate(count_ * sizeof(uint32_t)))), count(count_) {
    std::fill(data, data + count, value);
}
Words::Words(const std::vector<uint32_t>& values) : Words(values.size()) {
    std::copy(values.begin(), values.end(), data);
}
Words::~Words() {
    if (flamant_emulator_free(data)) report("memory of a case", false, "its surroundings were written to");
}

std::string launch(const std::string& kernel, const Shape& shape, const Arguments& arguments,
                   const EmulatorOptions& options, EmulatorCounters* counters) {
    const uint32_t grid[3] = {shape.x, shape.y, shape.z};
    char message[1024] = "";
    const int code = flamant_emulator_launch(kernel.c_str(), grid, shape.threads, shape.shared, shape.cooperative,
                                             &arguments, &options, counters, message, sizeof message);
    return code == 0 ? "" : message[0] ? message : "no message";
}
std::vector<uint32_t> run(const std::string& kernel, const Shape& shape, const std::vector<uint32_t>& in, size_t count,
                          uint32_t word, const EmulatorOptions& options, std::string* message) {
    Words from(in), to(count);
    const std::string found = launch(kernel, shape, Arguments{from.data, to.data, word, 0}, options);
    if (message) *message = found;
    return found.empty() ? to.read() : std::vector<uint32_t>();
}

EmulatorOptions scheduled(uint32_t schedule, uint64_t seed, bool early_copies) {
    EmulatorOptions options = {};
    options.schedule = schedule;
    options.seed = seed;
    options.early_copies = early_copies;
    return options;
}
std::vector<EmulatorOptions> all_options(uint64_t seeds) {
    std::vector<EmulatorOptions> all;
    for (bool early : {false, true}) {
        for (uint32_t schedule = 0; schedule < 3; ++schedule) {
            for (uint64_t seed = 0; seed < (schedule ? seeds : 1); ++seed) {
                all.push_back(scheduled(schedule, seed, early));
            }
        }
    }
    return all;
}
void expect_words(const std::string& name, const std::string& kernel, const Shape& shape,
                  const std::vector<uint32_t>& in, const std::vector<uint32_t>& expected, uint32_t word,
                  uint64_t seeds) {
    for (const EmulatorOptions& options : all_options(seeds)) {
        std::string message;
        const std::vector<uint32_t> found = run(kernel, shape, in, expected.size(), word, options, &message);
        const std::string wrong = message.empty() ? difference(found, expected) : message;
        if (wrong.empty()) continue;
        report(
            name, false,
            wrong + " (schedule " + std::to_string(options.schedule) + ", seed " + std::to_string(options.seed) + ")");
        return;
    }
    report(name, true);
}

// ---- Matrix units against MMA-Sim ----------------------------------------------------------------------------------

namespace {

std::vector<uint32_t> read_words(std::istream& from, size_t count) {
    std::vector<uint32_t> words(count);
    for (uint32_t& word : words) from >> std::hex >> word;
    return words;
}
void matrix_units(const char* path) {
    std::ifstream file(path);
    std::string line, text;
    while (std::getline(file, line)) {
        if (line.empty() || line[0] != '#') text += line + "\n";
    }
    std::istringstream from(text);
    std::string type, name;
    size_t tiles = 0;
    while (from >> type >> name) {
        // In the order of the kernel's input: a, b, c.
        std::vector<uint32_t> in = read_words(from, 16 * 16 + 16 * 8 + 16 * 8);
        for (uint32_t units : {1u, 2u}) {
            const std::vector<uint32_t> expected = read_words(from, 16 * 8);
            EmulatorOptions options = {};
            options.matrix_units = units;
            std::string message;
            const std::vector<uint32_t> found = run("mma_" + type, Shape(), in, 16 * 8, 0, options, &message);
            const std::string wrong = message.empty() ? difference(found, expected) : message;
            const char* const card = units == 1 ? "Hopper" : "Ampere";
            report("mma " + type + " on " + card + ", " + name, from && wrong.empty(), wrong);
        }
        tiles += 1;
    }
    report("tiles of " + std::string(path), tiles >= 16, std::to_string(tiles));
}

/// Each opcode that the interpreter knows stands in some module of this test.
void completeness() {
    std::string all;
    for (const InterpreterModule& module : flamant_interpreter_modules) {
        if (std::string(module.file) == "refusals.ptx" || std::string(module.file) == "faults.ptx") continue;
        all.append(module.begin, module.end);
    }
    std::string missing;
    size_t count = 0;
    for (auto* table : {interpreter::arithmetic_opcodes, interpreter::memory_opcodes, interpreter::collective_opcodes,
                        interpreter::flow_opcodes}) {
        for (const interpreter::Opcode& opcode : table()) {
            count += 1;
            bool found = false;
            for (const char* before : {"\t", "@%p0 ", "@!%p0 "}) {
                for (const char* after : {" ", "\t", ";"}) {
                    found |= all.find(before + opcode.name + after) != std::string::npos;
                }
            }
            if (!found) missing += " " + opcode.name;
        }
    }
    report("every opcode is tested", missing.empty(), missing.empty() ? std::to_string(count) + " forms" : missing);
}

void interface() {
    size_t size = 0;
    uint32_t threads = 0;
    const bool known = flamant_emulator_find("of_64_threads", &size, &threads) == 0;
    report("a kernel is found", known && size == sizeof(Arguments) && threads == 64);
    report("a kernel that is not there", flamant_emulator_find("nothing", &size, &threads) == 1);
    const size_t count = flamant_emulator_kernels();
    bool listed = false;
    for (size_t i = 0; i < count; ++i) listed |= flamant_emulator_kernel_name(i) == std::string("of_64_threads");
    report("kernels are listed", listed && !flamant_emulator_kernel_name(count), std::to_string(count));
    Words out(64);
    const uint32_t grid[3] = {1, 1, 1};
    const Arguments arguments{out.data, out.data, 0, 0};
    const int code = flamant_emulator_launch("of_64_threads", grid, 64, 0, 0, &arguments, nullptr, nullptr, nullptr, 0);
    report("neither options nor counters nor a message", code == 0);
    char message[9] = "--------";
    const int failed =
        flamant_emulator_launch("of_64_threads", grid, 65, 0, 0, &arguments, nullptr, nullptr, message, 7);
    report("a message that is cut", failed == 1 && std::string(message) == "kernel" && message[7] == '-');
    int local = 0;
    report("free of what is not device memory", flamant_emulator_free(&local) == 1);
    for (ptrdiff_t at : {ptrdiff_t(-1), ptrdiff_t(100)}) {
        char* const memory = static_cast<char*>(flamant_emulator_allocate(100));
        memory[at] = 0;
        report("a byte in the red zone at " + std::to_string(at), flamant_emulator_free(memory) == 1);
    }
    const unsigned char* const fresh = static_cast<unsigned char*>(flamant_emulator_allocate(1000));
    bool poisoned = reinterpret_cast<uintptr_t>(fresh) % 256 == 0;
    for (size_t i = 0; i < 1000; ++i) poisoned &= fresh[i] == 0xff;
    report("fresh memory", poisoned && flamant_emulator_free(const_cast<unsigned char*>(fresh)) == 0);
}

}  // namespace
}  // namespace test

int main(int count, char** words) {
    using namespace test;
    if (count != 2) {
        fprintf(stderr, "expected the path of matrix_units.txt\n");
        return 2;
    }
    alarm(PATIENCE_SECONDS);
    interface();
    completeness();
    values();
    memory();
    warps();
    flow();
    races();
    faults();
    refusals();
    matrix_units(words[1]);
    if (failures) printf("%d of %d FAILED\n", failures, checks);
    else printf("all as expected\n");
    return failures ? 1 : 0;
}
