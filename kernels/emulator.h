// CUDA's programming model on the processor, for the kernels of this directory under any C++17 compiler but nvcc.
//
// Each thread of a block is a fiber; blocks run side by side on the machine's cores. ptx.cuh calls what is declared
// here for each instruction. It checks what a GPU would punish or, worse, forgive: bounds and alignment of each access,
// who meets whom at barriers and warp collectives, races in shared memory, copies read before they land. A launch that
// does something wrong fails with one line that names kernel, block, thread, source line, schedule and seed; the
// emulator stays usable. What a kernel has not written is NaN: shared memory at a block's start and new device memory
// are filled with 0xff, which is a NaN in every type. Red zones around both are looked at after each launch. Not
// modelled: registers, occupancy, time, and how tensor cores round.
//
// The interface for those who launch kernels is the plain C one at the end.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DEVICE inline __attribute__((always_inline))

/// Defines a kernel and enters it in the table that launches look names up in.
#define LARGE_KERNEL KERNEL
#define RESIDENT_KERNEL(name, Arguments, threads, blocks) KERNEL(name, Arguments, threads)
#define KERNEL(name, Arguments, threads)                                                                       \
    static void name##_body(const Arguments& arguments);                                                       \
    static const emulator::Registration name##_registration(                                                   \
        #name, sizeof(Arguments), threads,                                                                      \
        [](const void* arguments) { name##_body(*static_cast<const Arguments*>(arguments)); });                 \
    static void name##_body([[maybe_unused]] const Arguments& arguments)

namespace emulator {
struct Index3 {
    uint32_t x, y, z;
};
}  // namespace emulator

// __thread, unlike thread_local, promises the compiler that no constructor has to run before a read.
#ifdef __ELF__
#define EMULATOR_THREAD_LOCAL_MODEL __attribute__((tls_model("initial-exec")))
#else
#define EMULATOR_THREAD_LOCAL_MODEL
#endif
#define EMULATOR_THREAD_LOCAL extern __thread EMULATOR_THREAD_LOCAL_MODEL
EMULATOR_THREAD_LOCAL emulator::Index3 threadIdx;
EMULATOR_THREAD_LOCAL emulator::Index3 blockIdx;
EMULATOR_THREAD_LOCAL emulator::Index3 blockDim;
EMULATOR_THREAD_LOCAL emulator::Index3 gridDim;

/// Storage types. Arithmetic is done in f32, through to_float and from_float of ptx.cuh.
struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

namespace emulator {

/// A place in the source. As a defaulted parameter it is where the function was called.
struct Site {
    const char* file;
    uint64_t line;  // without a file: the address of an instruction
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return Site{file, uint64_t(line)};
    }
};

struct Registration {
    Registration(const char* name, size_t arguments_size, uint32_t threads, void (*body)(const void*));
};

// ---- Conversions: to nearest even -----------------------------------------------------------------------------------

template <typename To, typename From>
DEVICE To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
constexpr uint16_t NAN_16 = 0x7fff;  // what the GPU makes of any NaN

DEVICE float to_float(bf16 value) { return bits_as<float>(uint32_t(value.bits) << 16); }
DEVICE float to_float(f16 value) {
    const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
    // Moving the exponent by a product makes subnormals right without a case for them.
    float result = bits_as<float>(magnitude) * 0x1p112f;
    if (magnitude >= 0x0f800000u) result = bits_as<float>(magnitude | 0x7f800000u);
    return bits_as<float>(bits_as<uint32_t>(result) | (value.bits & 0x8000u) << 16);
}

DEVICE bf16 to_bf16(float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    if (value != value) return bf16{NAN_16};
    return bf16{uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
DEVICE f16 to_f16(float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    const uint16_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (value != value) return f16{NAN_16};
    if (magnitude >= 0x477ff000u) return f16{uint16_t(sign | 0x7c00u)};  // 65520 and more round to infinity
    // Below 2^-14 the last bit weighs 2^-24 whatever the value: an addition to 0.5, whose last bit weighs the same.
    if (magnitude < 0x38800000u) {
        return f16{uint16_t(sign | (bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) & 0xffffu))};
    }
    return f16{uint16_t(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13)};
}
// ---- Memory ---------------------------------------------------------------------------------------------------------

enum class Access : uint32_t { GlobalLoad, GlobalStore, SharedLoad, SharedStore };

/// What the checks of most accesses need, for the fiber that runs on this thread of the processor.
struct Window {
    uintptr_t shared_begin;  // of the block's shared memory
    uintptr_t global_begin;  // of the allocation that was used last
    size_t shared_size;      // 0 sends all accesses to check_access: races are looked for, or accesses are counted
    size_t global_size;
};
EMULATOR_THREAD_LOCAL Window window;

/// Fails the launch unless the access is within its memory and aligned; counts it, and looks for races.
void check_access(Access access, const void* address, size_t size, Site site);

template <typename V>
DEVICE bool within(const V* address, uintptr_t begin, size_t size) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - begin;
    return offset < size && sizeof(V) <= size - offset && reinterpret_cast<uintptr_t>(address) % sizeof(V) == 0;
}
template <typename V>
DEVICE V load_global(const V* address, Site site) {
    if (!within(address, window.global_begin, window.global_size)) {
        check_access(Access::GlobalLoad, address, sizeof(V), site);
    }
    return *address;
}
template <typename V>
DEVICE void store_global(V* address, V value, Site site) {
    if (!within(address, window.global_begin, window.global_size)) {
        check_access(Access::GlobalStore, address, sizeof(V), site);
    }
    *address = value;
}
template <typename V>
DEVICE V load_shared(const V* address, Site site) {
    if (!within(address, window.shared_begin, window.shared_size)) {
        check_access(Access::SharedLoad, address, sizeof(V), site);
    }
    return *address;
}
template <typename V>
DEVICE void store_shared(V* address, V value, Site site) {
    if (!within(address, window.shared_begin, window.shared_size)) {
        check_access(Access::SharedStore, address, sizeof(V), site);
    }
    *address = value;
}

char* shared_memory();
/// Fails the launch unless `pointer` leads into the block's shared memory; how far in.
uint32_t shared_address(const void* pointer);

/// The destination is NaN until a wait of the same thread that covers the copy; the source is read then. With the
/// option `early_copies` the copy is done at once.
void copy_async_16(void* shared, const void* global, bool valid, Site site);
void copy_async_commit();
void copy_async_wait(uint32_t pending, Site site);

// ---- Meeting --------------------------------------------------------------------------------------------------------

// All lanes of a warp meet here at the same source line; the last one does the work for all.
void load_matrix_x4(uint32_t* word, const void* row, bool transposed, Site site);
void multiply_accumulate(float* d, const uint32_t* a, const uint32_t* b, bool is_bf16, Site site);
void warp_barrier(Site site);
bool warp_any(bool value, Site site);
uint32_t shuffle_xor(uint32_t value, uint32_t mask, Site site);
uint32_t shuffle(uint32_t value, uint32_t lane, Site site);

void block_barrier(Site site);
uint32_t add_release(uint32_t* address, uint32_t value, Site site);
/// Lets other threads run first, so that a loop around it ends.
uint32_t load_acquire(const uint32_t* address, Site site);
void relax(Site site);

/// An access that no instruction of ptx.cuh made, from the hooks of emulator_hooks.cpp.
void raw_access(const void* address, size_t size, bool write, const void* instruction);

// ---- Arithmetic -----------------------------------------------------------------------------------------------------

/// As the GPU does it, results below 2^-126 are 0.
DEVICE float exponential_2(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
DEVICE float reciprocal_square_root(float x) { return float(1.0 / sqrt(double(x))); }

}  // namespace emulator

// ---- The interface for those who launch kernels ---------------------------------------------------------------------

extern "C" {

typedef struct {
    uint64_t seed;
    /// 0: in order, fast. 1: one random warp runs until all its lanes wait (in the interpreter: for at most 200
    /// instructions), then another. 2: lanes of all warps shuffled.
    uint32_t schedule;
    uint32_t early_copies;         // asynchronous copies land at once, not as late as they may
    uint32_t check_races;          // two threads use shared memory with no barrier between, and one of them writes
    uint32_t check_uninitialised;  // shared memory is read before it is written
    uint32_t count;                // fill the counters of accesses
    uint32_t workers;              // threads of the processor; 0: one for each core
    uint32_t matrix_units;         // 0: products added in f32, in order; others, see interpreter/matrix_units.h
} EmulatorOptions;

/// Totals of a launch. The first four are always counted, the others with the option `count`.
typedef struct {
    uint64_t matrix_products;   // multiply_accumulate, once a warp
    uint64_t warp_collectives;  // other warp collectives, once a warp
    uint64_t block_barriers;    // once a block
    uint64_t atomics;
    uint64_t global_load_bytes;  // asked for, by asynchronous copies too
    uint64_t global_store_bytes;
    uint64_t global_sectors;        // sectors of 32 bytes that warps touched, instruction by instruction
    uint64_t global_sectors_ideal;  // the least for the bytes they touched
    uint64_t shared_accesses;       // once a thread
    uint64_t shared_wavefronts;        // passes over the 32 banks
    uint64_t shared_wavefronts_ideal;  // without bank conflicts
} EmulatorCounters;

/// Device memory, 256-byte aligned and filled with 0xff; null if there is none.
void* flamant_emulator_allocate(size_t bytes);
/// 0, or 1 if the memory was not allocated here, or its surroundings were written to.
int flamant_emulator_free(void* memory);

size_t flamant_emulator_kernels(void);
const char* flamant_emulator_kernel_name(size_t index);
/// 0, or 1 if there is no such kernel. `threads` is the most that a block may have.
int flamant_emulator_find(const char* name, size_t* arguments_size, uint32_t* threads);

/// Runs a kernel to its end. With `cooperative` all blocks are under way at once and may wait for each other. `options`
/// and `counters` may be null. 0, or 1 and one line in `message`.
int flamant_emulator_launch(const char* name, const uint32_t grid[3], uint32_t threads, size_t shared_bytes,
                            int cooperative, const void* arguments, const EmulatorOptions* options,
                            EmulatorCounters* counters, char* message, size_t message_size);
}
