// What runs: warps of lanes with their registers, blocks with their shared memory, a launch.
#pragma once
#include <string.h>

#include <algorithm>

#include "../emulator.h"
#include "conversions.h"
#include "program.h"

namespace interpreter {

/// Device memory, aligned to 256 bytes; what is around it belongs to nobody.
struct Allocation {
    uintptr_t begin;
    size_t size;
    // What the launch has done with it. ld.global.nc may see what was there before a store of the same launch.
    bool stored, read_as_constant;
};

/// Lanes of a warp that are at the same instruction.
struct Subwarp {
    enum State {
        Runs,
        Pauses,  // after nanosleep: other lanes go first
        Waits,   // at a collective, for the other lanes
    };
    uint32_t pc;
    uint32_t lanes;
    State state;
};

/// 16 bytes that are on their way to shared memory: `size` of them from device memory, then zeros.
struct AsyncCopy {
    uint32_t lane;
    uint32_t group;
    uint32_t to;
    uint32_t size;
    const char* from;
};

struct Launch {
    const Kernel* kernel;
    uint32_t grid[3];
    uint32_t threads;
    size_t shared_size;
    bool cooperative;
    const char* arguments;
    EmulatorOptions options;
    std::vector<Allocation> allocations;  // by address
    EmulatorCounters counters;
    uint64_t random;
    uint64_t progress;  // grows with whatever can end somebody's wait
    uint64_t pauses;
    uint64_t executed;  // instructions, once a warp
    uint32_t epochs;    // the number of the last interval between barriers; each interval of each block has a new one

    /// A number below `bound`, from the launch's seed.
    uint32_t below(uint32_t bound) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return uint32_t((random >> 11) % bound);
    }
};

/// Who used two bytes of shared memory since the last barrier: a thread, several lanes of its warp, or several warps.
struct Accesses {
    enum By : uint32_t { Thread, Lanes, Warps };
    uint32_t epoch;  // of the block; 0: nobody
    uint32_t warp_epoch;
    uint32_t thread;
    By by;
};
/// What the checks of races know of two bytes of shared memory.
struct Cell {
    Accesses writes, reads;
    bool landing;  // an asynchronous copy is under way
};

struct Block {
    Launch* launch;
    uint32_t index[3];
    std::vector<char> shared;
    std::vector<Cell> cells;  // of each two bytes of it, if races are looked for
    uint32_t first_epoch;
    uint32_t epoch;  // a new one with each barrier
    std::vector<Warp> warps;
};

struct Warp {
    Block* block;
    uint32_t index;
    uint32_t launched;  // lanes, as bits
    uint32_t finished;
    std::vector<Subwarp> subwarps;
    bool at_barrier;     // of the block
    uint32_t epoch;      // counts bar.warp.sync
    uint32_t pc;         // of the instruction under way
    std::vector<AsyncCopy> copies;
    uint32_t commits[LANES];  // groups of copies that each lane has closed
    Allocation* last;         // device memory that was used last; null at first
    std::vector<char> storage;
    char* registers;

    Launch& launch() const { return *block->launch; }
    /// The lanes of a register.
    template <typename T>
    T* lanes(Register at) {
        return reinterpret_cast<T*>(registers + at);
    }
    uint32_t& predicate(Register at) { return *lanes<uint32_t>(at); }
};

/// Ends the launch because of the instruction under way.
[[noreturn]] void fail(const Warp& warp, const std::string& what);

template <typename Work>
inline __attribute__((always_inline)) void for_each_lane(uint32_t active, Work work) {
    if (active == ALL_LANES) {
        // A register may be operand and result: lanes never look at each other.
#pragma GCC ivdep
        for (uint32_t lane = 0; lane < LANES; ++lane) work(lane);
    } else {
        for (; active; active &= active - 1) work(uint32_t(__builtin_ctz(active)));
    }
}

/// Where 'size' bytes of shared memory are; `address` is one of its own space. Fails the launch unless they are within
/// the block's memory and aligned.
char* shared_bytes(Warp& warp, uint32_t address, size_t size);
/// Likewise device memory; what it is used for is told to the allocation.
enum class Use { Load, LoadConstant, Store };
char* global_bytes(Warp& warp, uint64_t address, size_t size, Use use);

/// Whether accesses to shared memory are to be told to touch_shared() and its kin.
bool checks_shared(const Launch& launch);
/// An access of a lane, which must be within bounds; with `together`, of ldmatrix, where any lane may read any row.
void touch_shared(Warp& warp, uint32_t lane, uint32_t address, size_t size, bool write, bool together);
/// An asynchronous copy: nobody may look at its bytes before it has landed.
void copy_starts(Warp& warp, uint32_t lane, uint32_t address, size_t size);
void copy_lands(Warp& warp, uint32_t lane, uint32_t address, size_t size);

/// Counts what a warp asks for with one instruction: `address` of each lane in `active`, so many bytes each.
void count_global(Warp& warp, const uint64_t* address, uint32_t active, size_t size, bool store);
void count_shared(Warp& warp, const uint32_t* address, uint32_t active, size_t size);

/// Runs all blocks of a launch.
void run(Launch& launch);

}  // namespace interpreter
