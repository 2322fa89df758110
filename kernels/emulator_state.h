// The emulator's state: kernels, device memory, and the threads, warps and blocks that a worker runs. For emulator.cpp.
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "emulator.h"

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

#define EMULATOR_THREAD_LOCAL_DEFINITION __thread EMULATOR_THREAD_LOCAL_MODEL
EMULATOR_THREAD_LOCAL_DEFINITION emulator::Index3 threadIdx;
EMULATOR_THREAD_LOCAL_DEFINITION emulator::Index3 blockIdx;
EMULATOR_THREAD_LOCAL_DEFINITION emulator::Index3 blockDim;
EMULATOR_THREAD_LOCAL_DEFINITION emulator::Index3 gridDim;

namespace emulator {
EMULATOR_THREAD_LOCAL_DEFINITION Window window;

namespace {

constexpr uint32_t LANES = 32;
constexpr uint32_t THREADS_MAX = 1024;
constexpr size_t SHARED_MAX = 227 << 10;
constexpr size_t STACK = 64 << 10;
constexpr size_t RED_ZONE = 256;
constexpr unsigned char RED = 0xa5;
constexpr uint64_t STACK_END = 0x5afe57acc0ffee00;

// ---- Messages -------------------------------------------------------------------------------------------------------

/// A line of a message. It has no destructor to run: fibers that fail never return.
struct Text {
    char bytes[512];
    Text(const char* literal = "") { snprintf(bytes, sizeof bytes, "%s", literal); }
};
Text operator+(const Text& first, const Text& second) {
    Text sum = first;
    const size_t length = strlen(sum.bytes);
    snprintf(sum.bytes + length, sizeof sum.bytes - length, "%s", second.bytes);
    return sum;
}
__attribute__((format(printf, 1, 2))) Text text(const char* format, ...) {
    Text result;
    va_list list;
    va_start(list, format);
    vsnprintf(result.bytes, sizeof result.bytes, format, list);
    va_end(list);
    return result;
}
// ---- Kernels --------------------------------------------------------------------------------------------------------

struct Kernel {
    const char* name;
    size_t arguments_size;
    uint32_t threads;
    void (*body)(const void*);
};
std::vector<Kernel>& kernels() {
    static std::vector<Kernel> table;
    return table;
}
const Kernel* find_kernel(const char* name) {
    for (const Kernel& kernel : kernels()) {
        if (strcmp(kernel.name, name) == 0) return &kernel;
    }
    return nullptr;
}

// ---- Device memory --------------------------------------------------------------------------------------------------

struct Allocation {
    uintptr_t begin;
    size_t size;
};
struct Memory {
    std::shared_mutex mutex;
    std::vector<Allocation> allocations;  // by address
};
Memory& memory() {
    static Memory& instance = *new Memory();
    return instance;
}
/// The last allocation that begins at or before `address`, or the table's end.
std::vector<Allocation>::const_iterator allocation_before(const std::vector<Allocation>& table, uintptr_t address) {
    const auto is_before = [](uintptr_t value, const Allocation& allocation) { return value < allocation.begin; };
    const auto after = std::upper_bound(table.begin(), table.end(), address, is_before);
    return after == table.begin() ? table.end() : after - 1;
}

// The bytes before and after some memory. AddressSanitizer reports whoever touches them; without it they keep a
// pattern.
void guard(char* begin, size_t size) {
#ifdef ADDRESS_SANITIZER
    ASAN_POISON_MEMORY_REGION(begin - RED_ZONE, RED_ZONE);
    ASAN_POISON_MEMORY_REGION(begin + size, RED_ZONE);
#else
    memset(begin - RED_ZONE, RED, RED_ZONE);
    memset(begin + size, RED, RED_ZONE);
#endif
}
bool guards_hold([[maybe_unused]] const char* begin, [[maybe_unused]] size_t size) {
#ifndef ADDRESS_SANITIZER
    static const struct Pattern {
        unsigned char bytes[RED_ZONE];
        Pattern() { memset(bytes, RED, RED_ZONE); }
    } pattern;
    return memcmp(begin - RED_ZONE, pattern.bytes, RED_ZONE) == 0 && memcmp(begin + size, pattern.bytes, RED_ZONE) == 0;
#else
    return true;
#endif
}
void unguard([[maybe_unused]] char* begin, [[maybe_unused]] size_t size) {
#ifdef ADDRESS_SANITIZER
    ASAN_UNPOISON_MEMORY_REGION(begin - RED_ZONE, size + 2 * RED_ZONE);
#endif
}
/// Memory with room for guards on both sides, `begin` a multiple of 256.
char* guarded_memory(size_t size) {
    const size_t whole = (size + 3 * RED_ZONE - 1) / RED_ZONE * RED_ZONE;
    char* memory = static_cast<char*>(aligned_alloc(RED_ZONE, whole));
    return memory ? memory + RED_ZONE : nullptr;
}

// ---- Threads, warps, blocks -----------------------------------------------------------------------------------------

struct Warp;
struct Block;

struct Copy {
    char* to;
    const char* from;  // null: zeros
    uint32_t group;
    Site site;
};

enum class Wait : uint32_t { None, Warp, Block, Relax, Done };

struct Thread {
    void* stack_pointer;
    Warp* warp;
    uint32_t lane;
    uint32_t index;
    Wait wait;
    uint32_t commits;
    Site site;  // of the wait
    char* stack;
    std::vector<Copy> copies;
#ifdef ADDRESS_SANITIZER
    void* fake_stack;
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
    ucontext_t context;
#endif
};

enum class Meeting : uint32_t { LoadMatrix, LoadMatrixTransposed, Multiply, Barrier, Any, ShuffleXor, Shuffle };
const char* name_of(Meeting meeting) {
    static const char* const names[] = {"load_matrix_x4", "load_matrix_x4_transposed", "multiply_accumulate",
                                        "warp_barrier",   "warp_any",                  "shuffle_xor",
                                        "shuffle"};
    return names[uint32_t(meeting)];
}

/// One thread's part in one access of a warp, for the counters.
struct Record {
    Site site;
    uint32_t lane;
    uint32_t occurrence;
    Access access;
    uint32_t size;
    uintptr_t address;
};

struct Warp {
    Block* block;
    Thread* threads;
    uint32_t index;
    uint32_t existing;  // lanes, as bits
    uint32_t ready;
    uint32_t relaxed;
    uint32_t arrived;
    uint32_t finished;
    Meeting meeting;
    Site site;
    uint32_t epoch;  // counts warp barriers
    uint32_t value[LANES];
    uint32_t operand[LANES];
    const void* pointer[LANES][3];
    std::vector<Record> records;
};

/// What the race detector knows of two bytes of shared memory. Epochs count barriers and never return.
struct Cell {
    uint32_t write_epoch, write_warp_epoch;
    uint32_t read_epoch, read_warp_epoch;
    uint16_t writer, reader;
    enum Readers : uint8_t { One, Lanes, Warps } readers;  // a thread; several lanes of its warp; several warps
    bool landing;                                          // an asynchronous copy is under way
    Site write_site, read_site;
};

struct Block {
    Index3 index;
    uint32_t ready_warps;  // as bits
    uint32_t arrived;
    uint32_t finished;
    uint32_t epoch;
    uint32_t first_epoch;
    Site site;  // of the barrier
    Warp* warps;
    char* shared;
    size_t shared_capacity;
    std::vector<Cell> cells;
};

struct Launch {
    const Kernel* kernel;
    const void* arguments;
    Index3 grid;
    uint32_t threads;
    size_t shared_size;
    bool cooperative;
    EmulatorOptions options;
    std::vector<Allocation> allocations;
    std::atomic<uint64_t> next_block;
    std::atomic<bool> failed;
    std::mutex mutex;
    Text message;
    EmulatorCounters counters;
};

/// What one thread of the processor needs to run blocks; kept from launch to launch.
struct Worker {
    Launch* launch;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::unique_ptr<Warp[]>> warps;
    std::vector<std::unique_ptr<Thread[]>> threads;  // THREADS of each block
    std::vector<uint32_t> capacity;                  // of each of these
    std::vector<char*> stacks;
    size_t stacks_used;
    size_t block_count;
    uint64_t living;
    uint64_t relaxed;
    uint64_t progress, progress_seen, idle;
    uint64_t random;
    uint32_t epoch;
    bool stay;  // schedule 1: with the warp that runs
    bool traced;
    void* stack_pointer;  // of the stack that started the fibers
#ifdef ADDRESS_SANITIZER
    void* fake_stack;
    const void* stack_bottom;
    size_t stack_size;
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
    ucontext_t context;
#endif
    EmulatorCounters counters;
};
EMULATOR_THREAD_LOCAL_DEFINITION Worker* worker;
EMULATOR_THREAD_LOCAL_DEFINITION Thread* current;

}  // namespace
}  // namespace emulator
