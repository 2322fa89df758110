// What the files of the interpreter's own test share: modules of hand-written PTX, launches, reports.
#pragma once
#include <stdint.h>
#include <string.h>

#include <functional>
#include <string>
#include <vector>

#include "../emulator.h"

namespace test {

/// What each kernel here gets. `word` and `other` are what a case wants to say.
struct Arguments {
    const void* in;
    void* out;
    uint32_t word;
    uint32_t other;
};

/// An entry named `name` around a body. At its begin are
///     %d0 in, %d1 out, %d2 out + 4 tid, %d3 in + 4 tid, %r0 tid, %r1 word, %r2 other;
/// free are %d4 to %d19, %r3 to %r59, %h0 to %h9 and %p0 to %p9. `shared` is the block's shared memory.
std::string entry(const std::string& name, const std::string& body, uint32_t threads = 1024);
/// An entry whose body has nothing but registers before it.
std::string bare_entry(const std::string& name, const std::string& body);
/// A module of entries.
std::string module_of(const std::string& entries);

/// "FILE:LINE" of the first statement in `kernel` that begins with `statement`.
std::string place(const char* file, const std::string& module, const std::string& kernel, const std::string& statement);

// The modules, each with the name of the file that it pretends to be.
const std::string& values_module();
const std::string& memory_module();
const std::string& warps_module();
const std::string& flow_module();
const std::string& races_module();
const std::string& faults_module();
const std::string& refusals_module();

// The cases of a file.
void values();
void memory();
void warps();
void flow();
void races();
void faults();
void refusals();

/// A line for a case; whether all cases went well is known by the end.
void report(const std::string& name, bool good, const std::string& detail = "");

/// Device memory of words.
class Words {
public:
    explicit Words(size_t count, uint32_t value = 0xffffffff);
    explicit Words(const std::vector<uint32_t>& values);
    Words(const Words&) = delete;
    ~Words();
    std::vector<uint32_t> read() const {
        return std::vector<uint32_t>(data, data + count);
    }

    uint32_t* data;
    size_t count;
};

struct Shape {
    uint32_t x = 1, y = 1, z = 1;
    uint32_t threads = 32;
    size_t shared = 0;
    bool cooperative = false;
};
/// The launch's message, empty if it went well.
std::string launch(const std::string& kernel, const Shape& shape, const Arguments& arguments,
                   const EmulatorOptions& options = EmulatorOptions(), EmulatorCounters* counters = nullptr);
/// The words that a kernel leaves in `out` of `count` words, which are all bits before; nothing if it failed, and then
/// `message` says why.
std::vector<uint32_t> run(const std::string& kernel, const Shape& shape, const std::vector<uint32_t>& in, size_t count,
                          uint32_t word = 0, const EmulatorOptions& options = EmulatorOptions(),
                          std::string* message = nullptr);

EmulatorOptions scheduled(uint32_t schedule, uint64_t seed, bool early_copies = false);
/// Schedule 0, and the others with this many seeds each; copies late and early.
std::vector<EmulatorOptions> all_options(uint64_t seeds);

/// Reports whether a kernel leaves these words, under all options.
void expect_words(const std::string& name, const std::string& kernel, const Shape& shape,
                  const std::vector<uint32_t>& in, const std::vector<uint32_t>& expected, uint32_t word = 0,
                  uint64_t seeds = 2);

/// The first difference, or nothing.
std::string difference(const std::vector<uint32_t>& found, const std::vector<uint32_t>& expected);
std::string hex(uint64_t value);

inline uint32_t bits(float x) {
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

}  // namespace test
