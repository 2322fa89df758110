// The emulator's own test: kernels that are right pass in every schedule, and each planted mistake is reported.
//
//   g++ -O2 -std=c++17 -ffp-contract=off -fno-strict-aliasing -pthread emulator_test.cpp emulator.cpp
//
// With AddressSanitizer add -g -fsanitize=address. For the hooks compile this file with -fsanitize=thread -c, then link
// it with emulator.cpp and emulator_hooks.cpp, both without. Prints a line for each case; the exit status is 1 if one
// went wrong. With the argument `speed` it measures instead.
#include <stdio.h>
#include <time.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "common.cuh"

// ---- A matrix product with one mistake or none ----------------------------------------------------------------------

enum class Mistake : uint32_t {
    None,
    WaitTooShallow,
    NoBarrierBeforeUse,
    NoBarrierAfterUse,
    TileTooFar,
    WrongRow,
    RowPastTheEnd,
    HalvesSwapped,
    NoWait,
};
struct ProductArguments {
    const void* a;  // (rows, columns)
    const void* b;  // (width, columns), or (columns, width) where it is read transposed
    float* out;     // (rows, width)
    uint32_t width;
    uint32_t columns;
    uint32_t transposed;
    Mistake mistake;
};

constexpr uint32_t TILE = 64;
constexpr uint32_t STEP = 32;
constexpr uint32_t PITCH = STEP + 8;
constexpr uint32_t TRANSPOSED_PITCH = TILE + 8;
constexpr size_t PRODUCT_SHARED = 2 * 2 * TILE * PITCH * 2;

/// One tile of 64 x 64 by four warps, two stages of copies. Grid: (width / 64, rows / 64).
template <typename T>
DEVICE void product(const ProductArguments& arguments) {
    const Mistake mistake = arguments.mistake;
    const T* a = static_cast<const T*>(arguments.a) + uint64_t(blockIdx.y) * TILE * arguments.columns;
    const T* b = static_cast<const T*>(arguments.b);
    T* stages = reinterpret_cast<T*>(shared_memory());
    const uint32_t thread = threadIdx.x, warp = thread / LANES, lane = thread % LANES;
    const uint32_t row = warp / 2 * 32, column = warp % 2 * 32;
    const auto stage_a = [&](uint32_t step) { return stages + step % 2 * 2 * TILE * PITCH; };
    const auto stage_b = [&](uint32_t step) { return stage_a(step) + TILE * PITCH; };
    const auto copy = [&](uint32_t step) {
        for (uint32_t i = thread; i < TILE * STEP / 8; i += blockDim.x) {
            const uint32_t r = i / 4, c = i % 4 * 8;
            copy_async_16(stage_a(step) + r * PITCH + c, a + r * arguments.columns + step * STEP + c, true);
            if (arguments.transposed) {
                const uint32_t k = i / 8, n = i % 8 * 8;
                copy_async_16(stage_b(step) + k * TRANSPOSED_PITCH + n,
                              b + (step * STEP + k) * arguments.width + blockIdx.x * TILE + n, true);
            } else {
                copy_async_16(stage_b(step) + r * PITCH + c,
                              b + (blockIdx.x * TILE + r) * arguments.columns + step * STEP + c, true);
            }
        }
    };
    float sums[2][4][4] = {};
    copy(0);
    copy_async_commit();
    const uint32_t steps = arguments.columns / STEP + (mistake == Mistake::TileTooFar ? 1 : 0);
    for (uint32_t step = 0; step < steps; ++step) {
        if (step + 1 < steps) copy(step + 1);
        copy_async_commit();
        if (mistake == Mistake::WaitTooShallow) copy_async_wait<2>();
        else if (mistake != Mistake::NoWait) copy_async_wait<1>();
        if (mistake != Mistake::NoBarrierBeforeUse) block_barrier();
        for (uint32_t k = 0; k < STEP; k += 16) {
            uint32_t a_words[2][4], b_words[4][2];
            for (uint32_t i = 0; i < 2; ++i) {
                uint32_t r = row + i * 16 + lane % 16;
                if (mistake == Mistake::WrongRow) r ^= 1;
                if (mistake == Mistake::RowPastTheEnd) r += 4 * TILE;
                load_matrix_x4(a_words[i], stage_a(step) + r * PITCH + k + lane / 16 * 8);
                if (mistake == Mistake::HalvesSwapped) {
                    std::swap(a_words[i][0], a_words[i][2]);
                    std::swap(a_words[i][1], a_words[i][3]);
                }
            }
            for (uint32_t j = 0; j < 2; ++j) {
                uint32_t words[4];
                if (arguments.transposed) {
                    load_matrix_x4_transposed(words, stage_b(step) + (k + lane % 16) * TRANSPOSED_PITCH + column +
                                                         j * 16 + lane / 16 * 8);
                } else {
                    load_matrix_x4(words, stage_b(step) + (column + j * 16 + lane / 16 * 8 + lane % 8) * PITCH + k +
                                              lane / 8 % 2 * 8);
                }
                for (uint32_t i = 0; i < 4; ++i) b_words[j * 2 + i / 2][i % 2] = words[i];
            }
            for (uint32_t i = 0; i < 2; ++i) {
                for (uint32_t j = 0; j < 4; ++j) multiply_accumulate<T>(sums[i][j], a_words[i], b_words[j]);
            }
        }
        if (mistake != Mistake::NoBarrierAfterUse) block_barrier();
    }
    for (uint32_t i = 0; i < 2; ++i) {
        for (uint32_t j = 0; j < 4; ++j) {
            for (uint32_t e = 0; e < 4; ++e) {
                const uint32_t r = blockIdx.y * TILE + row + i * 16 + lane / 4 + e / 2 * 8;
                const uint32_t c = blockIdx.x * TILE + column + j * 8 + lane % 4 * 2 + e % 2;
                store_global(arguments.out + r * arguments.width + c, sums[i][j][e]);
            }
        }
    }
}
KERNEL(product_bf16, ProductArguments, 128) { product<bf16>(arguments); }
KERNEL(product_f16, ProductArguments, 128) { product<f16>(arguments); }

// ---- Small kernels, each with a mistake -----------------------------------------------------------------------------

struct WordsArguments {
    uint32_t* words;
    uint32_t count;
    uint32_t mistake;
};
DEVICE uint32_t* shared_words() { return reinterpret_cast<uint32_t*>(shared_memory()); }

/// The sum of 256 numbers; mistake: no barrier between writing and reading the sums of warps.
KERNEL(sum, WordsArguments, 256) {
    float value = float(threadIdx.x);
    value = warp_sum(value);
    if (threadIdx.x % LANES == 0) store_shared(shared_words() + threadIdx.x / LANES, uint32_t(value));
    if (!arguments.mistake) block_barrier();
    if (threadIdx.x == 0) {
        uint32_t total = 0;
        for (uint32_t warp = 0; warp < blockDim.x / LANES; ++warp) total += load_shared(shared_words() + warp);
        store_global(arguments.words, total);
    }
}
/// Neighbours exchange values through shared memory. A shuffle between does not order memory; a warp barrier does.
KERNEL(exchange, WordsArguments, 32) {
    store_shared(shared_words() + threadIdx.x, threadIdx.x);
    if (arguments.mistake) shuffle(0u, 0); else warp_barrier();
    store_global(arguments.words + threadIdx.x, load_shared(shared_words() + (threadIdx.x ^ 1)));
}
KERNEL(shared_bounds, WordsArguments, 32) { store_shared(shared_words() + threadIdx.x + arguments.mistake, 1u); }
KERNEL(shared_bounds_before, WordsArguments, 32) { load_shared(shared_words() - 1 + threadIdx.x); }
KERNEL(global_bounds, WordsArguments, 32) { store_global(arguments.words + threadIdx.x + arguments.mistake, 1u); }
KERNEL(global_read_bounds, WordsArguments, 32) {
    if (load_global(arguments.words + arguments.count + threadIdx.x) == 7) store_global(arguments.words, 1u);
}
KERNEL(null_pointer, WordsArguments, 32) { load_global(reinterpret_cast<const float*>(uintptr_t(4 * threadIdx.x))); }
KERNEL(misaligned_global, WordsArguments, 32) {
    load_global(reinterpret_cast<const Word4*>(arguments.words + threadIdx.x));
}
KERNEL(misaligned_shared, WordsArguments, 32) {
    store_shared(reinterpret_cast<Word2*>(shared_words() + 1), Word2{0, 0});
}
KERNEL(misaligned_copy, WordsArguments, 32) { copy_async_16(shared_words() + 4, arguments.words + 2, true); }
KERNEL(misaligned_matrix, WordsArguments, 32) {
    uint32_t word[4];
    load_matrix_x4(word, shared_words() + 2);
}
KERNEL(copy_of_nothing, WordsArguments, 32) {
    copy_async_16(shared_words() + 4 * threadIdx.x, reinterpret_cast<const char*>(uintptr_t(3)), false);
    copy_async_commit();
    copy_async_wait<0>();
    warp_barrier();
    store_global(arguments.words + threadIdx.x, load_shared(shared_words() + 127 - threadIdx.x));
}
/// The second barrier is another one for half of the threads.
KERNEL(divergent_barrier, WordsArguments, 64) {
    if (threadIdx.x < 32) block_barrier();
    else
        block_barrier();
}
KERNEL(barrier_and_collective, WordsArguments, 64) {
    if (threadIdx.x == 40) block_barrier();
    else warp_barrier();
}
KERNEL(early_return, WordsArguments, 64) {
    if (threadIdx.x == 63) return;
    block_barrier();
}
KERNEL(early_return_of_a_lane, WordsArguments, 64) {
    if (threadIdx.x == 3) return;
    shuffle_xor(threadIdx.x, 1);
}
KERNEL(mixed_collectives, WordsArguments, 32) {
    if (threadIdx.x % 2) warp_any(true);
    else warp_barrier();
}
KERNEL(different_lines, WordsArguments, 32) {
    if (threadIdx.x < 16) warp_barrier();
    else
        warp_barrier();
}
KERNEL(deadlock, WordsArguments, 64) {
    if (threadIdx.x < 32) block_barrier();
    else if (threadIdx.x < 48) warp_barrier();
    else while (load_acquire(arguments.words) != 1) relax();
}
KERNEL(uninitialised, WordsArguments, 64) {
    if (threadIdx.x != 5) store_shared(shared_words() + threadIdx.x, 1u);
    block_barrier();
    store_global(arguments.words + threadIdx.x, load_shared(shared_words() + 63 - threadIdx.x));
}
/// A copy is waited for, but only the thread that made it may read it before a barrier.
KERNEL(copy_without_barrier, WordsArguments, 64) {
    if (threadIdx.x < 16) copy_async_16(shared_words() + 4 * threadIdx.x, arguments.words + 4 * threadIdx.x, true);
    copy_async_commit();
    copy_async_wait<0>();
    if (!arguments.mistake) block_barrier();
    const uint32_t value = load_shared(shared_words() + threadIdx.x);
    block_barrier();
    store_global(arguments.words + threadIdx.x, value + 1);
}
KERNEL(raw_shared_past_the_end, WordsArguments, 32) {
    volatile uint32_t* words = shared_words();
    if (threadIdx.x == 0) words[32 + arguments.mistake] = 1;
}
KERNEL(raw_global_past_the_end, WordsArguments, 32) {
    volatile uint32_t* words = arguments.words;
    if (threadIdx.x == 0) words[arguments.count] = 1;
}
KERNEL(raw_race, WordsArguments, 64) {
    uint32_t* words = shared_words();
    words[threadIdx.x] = threadIdx.x;
    if (!arguments.mistake) block_barrier();
    store_global(arguments.words + threadIdx.x, words[63 - threadIdx.x]);
}
KERNEL(partial_warp, WordsArguments, 64) {
    float d[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    multiply_accumulate<bf16>(d, a, b);
}

/// Each block writes its word, all blocks meet, each block sums the words of all. Word `count` is the barrier.
KERNEL(grid_barrier, WordsArguments, 64) {
    uint32_t* barrier = arguments.words + arguments.count;
    uint32_t* sums = barrier + 1;
    if (threadIdx.x == 0) store_global(arguments.words + blockIdx.x, blockIdx.x + 1);
    block_barrier();
    if (threadIdx.x == 0) {
        if (!(arguments.mistake && blockIdx.x == 3)) add_release(barrier, 1);
        while (load_acquire(barrier) < gridDim.x) relax();
    }
    block_barrier();
    if (threadIdx.x == 0) {
        uint32_t total = 0;
        for (uint32_t i = 0; i < gridDim.x; ++i) total += load_global(arguments.words + i);
        store_global(sums + blockIdx.x, total);
    }
}

/// Accesses whose cost is known. Shared memory: 32 x 32 words.
KERNEL(access_patterns, WordsArguments, 32) {
    const uint32_t lane = threadIdx.x;
    switch (arguments.mistake) {
        case 0: load_global(arguments.words + lane); break;
        case 1: load_global(arguments.words + 8 * lane); break;
        case 2: load_global(reinterpret_cast<const Word4*>(arguments.words) + lane); break;
        case 3: load_global(arguments.words); break;
        case 4: load_global(arguments.words + 1 + lane); break;
        case 5: store_shared(shared_words() + lane, 0u); break;
        case 6: store_shared(shared_words() + 32 * lane, 0u); break;
        case 7: store_shared(reinterpret_cast<Word4*>(shared_words()) + lane, Word4{}); break;
        case 8: store_shared(shared_words() + 2 * lane, 0u); break;
        case 9: load_shared(shared_words()); break;
        case 10: for (uint32_t i = 0; i < 3; ++i) load_global(arguments.words + 32 * i + lane); break;
        default: {
            uint32_t word[4];
            load_matrix_x4(word, shared_words() + 32 * lane);
        }
    }
}

KERNEL(meetings, WordsArguments, 256) {
    for (uint32_t i = 0; i < arguments.count; ++i) warp_barrier();
}
KERNEL(block_meetings, WordsArguments, 256) {
    for (uint32_t i = 0; i < arguments.count; ++i) block_barrier();
}
KERNEL(products, WordsArguments, 256) {
    float d[4] = {};
    uint32_t a[4] = {0x3f803f80, 0, 0, 0}, b[2] = {0x3f803f80, 0};
    for (uint32_t i = 0; i < arguments.count; ++i) multiply_accumulate<bf16>(d, a, b);
    store_global(reinterpret_cast<float*>(arguments.words) + threadIdx.x, d[0]);
}
KERNEL(f16_products, WordsArguments, 256) {
    float d[4] = {};
    uint32_t a[4] = {0x3c003c00, 0, 0, 0}, b[2] = {0x3c003c00, 0};
    for (uint32_t i = 0; i < arguments.count; ++i) multiply_accumulate<f16>(d, a, b);
    store_global(reinterpret_cast<float*>(arguments.words) + threadIdx.x, d[0]);
}
KERNEL(loads, WordsArguments, 256) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < arguments.count; ++i) sum += load_global(arguments.words + (i + threadIdx.x) % 256);
    store_global(arguments.words + threadIdx.x, sum);
}

// ---- Running them ---------------------------------------------------------------------------------------------------

#if defined(__SANITIZE_ADDRESS__)
constexpr bool GUARDED_BY_SANITIZER = true;
#else
constexpr bool GUARDED_BY_SANITIZER = false;
#endif
#if defined(__SANITIZE_THREAD__)
constexpr bool HOOKED = true;
#else
constexpr bool HOOKED = false;
#endif

int failures = 0;
void report(const std::string& name, bool good, const std::string& detail) {
    printf("%s %s: %s\n", good ? "ok  " : "FAIL", name.c_str(), detail.c_str());
    failures += !good;
}

template <typename V>
struct DeviceMemory {
    V* data;
    size_t count;
    explicit DeviceMemory(size_t count_)
        : data(static_cast<V*>(flamant_emulator_allocate(count_ * sizeof(V)))), count(count_) {}
    DeviceMemory(const DeviceMemory&) = delete;
    ~DeviceMemory() { flamant_emulator_free(data); }
};

struct Shape {
    uint32_t x = 1, y = 1;
    uint32_t threads = 32;
    size_t shared = 0;
    bool cooperative = false;
};
/// The launch's message, empty if it went well.
template <typename Arguments>
std::string launch(const char* name, const Shape& shape, const Arguments& arguments, const EmulatorOptions& options,
                   EmulatorCounters* counters = nullptr) {
    const uint32_t grid[3] = {shape.x, shape.y, 1};
    char message[1024] = "";
    const int code = flamant_emulator_launch(name, grid, shape.threads, shape.shared, shape.cooperative, &arguments,
                                             &options, counters, message, sizeof message);
    return code == 0 ? "" : message[0] ? message : "no message";
}

/// All schedules, a few seeds each, copies late and early.
std::vector<EmulatorOptions> all_options(bool check) {
    std::vector<EmulatorOptions> all;
    for (uint32_t schedule = 0; schedule < 3; ++schedule) {
        for (uint64_t seed = 0; seed < (schedule ? 4 : 2); ++seed) {
            EmulatorOptions options = {};
            options.schedule = schedule;
            options.seed = seed;
            options.early_copies = seed % 2;
            options.check_races = options.check_uninitialised = check;
            all.push_back(options);
        }
    }
    return all;
}

// ---- The cases ------------------------------------------------------------------------------------------------------

constexpr uint32_t ROWS = 64, WIDTH = 128, COLUMNS = 160;

template <typename T>
struct Product {
    DeviceMemory<T> a{ROWS * COLUMNS}, b{WIDTH * COLUMNS};
    DeviceMemory<float> out{ROWS * WIDTH};
    std::vector<double> expected = std::vector<double>(ROWS * WIDTH);
    ProductArguments arguments;

    explicit Product(bool transposed) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        for (size_t i = 0; i < a.count; ++i) a.data[i] = from_float<T>(normal(random));
        for (size_t i = 0; i < b.count; ++i) b.data[i] = from_float<T>(normal(random));
        for (uint32_t r = 0; r < ROWS; ++r) {
            for (uint32_t c = 0; c < WIDTH; ++c) {
                for (uint32_t k = 0; k < COLUMNS; ++k) {
                    const T weight = b.data[transposed ? k * WIDTH + c : c * COLUMNS + k];
                    expected[r * WIDTH + c] += double(to_float(a.data[r * COLUMNS + k])) * to_float(weight);
                }
            }
        }
        arguments = {a.data, b.data, out.data, WIDTH, COLUMNS, transposed, Mistake::None};
    }
    /// What is wrong, empty if nothing is.
    std::string run(Mistake mistake, const EmulatorOptions& options, bool is_bf16) {
        for (size_t i = 0; i < out.count; ++i) out.data[i] = NAN;
        arguments.mistake = mistake;
        Shape shape;
        shape.x = WIDTH / TILE;
        shape.y = ROWS / TILE;
        shape.threads = 128;
        shape.shared = PRODUCT_SHARED;
        const std::string message = launch(is_bf16 ? "product_bf16" : "product_f16", shape, arguments, options);
        if (!message.empty()) return message;
        size_t wrong = 0, not_finite = 0;
        for (size_t i = 0; i < out.count; ++i) {
            const double difference = std::fabs(out.data[i] - expected[i]);
            if (!std::isfinite(difference)) ++not_finite;
            else if (difference > 1e-4) ++wrong;
        }
        if (wrong + not_finite == 0) return "";
        return std::to_string(wrong) + " wrong and " + std::to_string(not_finite) + " not finite results";
    }
};

void right_products() {
    for (bool check : {false, true}) {
        std::string found;
        for (const EmulatorOptions& options : all_options(check)) {
            for (bool transposed : {false, true}) {
                found += Product<bf16>(transposed).run(Mistake::None, options, true);
                found += Product<f16>(transposed).run(Mistake::None, options, false);
            }
        }
        report(check ? "right product, checked" : "right product", found.empty(), found.empty() ? "no alarm" : found);
    }
}

/// A mistake in the product is found with checks in every schedule (`message` says how), and without in some.
void wrong_product(const char* name, Mistake mistake, const char* message, bool always = true) {
    Product<bf16> product(false);
    size_t found = 0, runs = 0, checked_found = 0, checked_runs = 0;
    std::string last;
    for (const EmulatorOptions& options : all_options(false)) {
        runs += 1;
        found += !product.run(mistake, options, true).empty();
    }
    for (const EmulatorOptions& options : all_options(true)) {
        const std::string result = product.run(mistake, options, true);
        checked_runs += 1;
        checked_found += result.find(message) != std::string::npos;
        if (!result.empty()) last = result;
    }
    report(name, found > 0 && (always ? checked_found == checked_runs : checked_found > 0),
           "without checks " + std::to_string(found) + "/" + std::to_string(runs) + ", with checks " +
               std::to_string(checked_found) + "/" + std::to_string(checked_runs) + ": " + last);
}

/// `message` is found in what the launch says, in every schedule; nothing is said if it is empty.
void expect(const char* kernel, const char* message, uint32_t mistake = 1, Shape shape = Shape(), bool check = true) {
    std::string last;
    bool good = true;
    for (const EmulatorOptions& options : all_options(check)) {
        DeviceMemory<uint32_t> words(128);
        for (size_t i = 0; i < words.count; ++i) words.data[i] = 0;
        last = launch(kernel, shape, WordsArguments{words.data, 128, mistake}, options);
        if (message[0] == 0 ? !last.empty() : last.find(message) == std::string::npos) {
            good = false;
            break;
        }
    }
    report(std::string(kernel) + (mistake ? "" : ", right"), good, last.empty() ? "no alarm" : last);
}

void small_mistakes() {
    Shape warp, two_warps, block;
    warp.shared = two_warps.shared = block.shared = 1024;
    two_warps.threads = 64;
    block.threads = 256;
    expect("sum", "", 0, block);
    expect("sum", "shared memory at byte", 1, block);
    expect("exchange", "", 0, warp);
    expect("exchange", "race: ", 1, warp);
    expect("shared_bounds", "", 224, warp);
    expect("shared_bounds", "shared store of 4 bytes at byte 1024 of 1024", 225, warp, false);
    expect("shared_bounds_before", "shared load of 4 bytes at byte -4 of 1024", 0, warp, false);
    expect("global_bounds", "", 96, warp);
    expect("global_bounds", "global store of 4 bytes at byte 512 of device memory of 512 bytes", 97, warp, false);
    expect("global_read_bounds", " of device memory of 512 bytes", 1, warp, false);
    expect("null_pointer", "no device memory", 1, warp, false);
    expect("misaligned_global", "global load of 16 bytes", 1, warp, false);
    expect("misaligned_shared", "shared store of 8 bytes at byte 4 of shared memory is not aligned", 1, warp, false);
    expect("misaligned_copy", "copy_async of 16 bytes", 1, warp, false);
    expect("misaligned_matrix", "load_matrix of 16 bytes at byte 8 of shared memory is not aligned", 1, warp, false);
    expect("copy_of_nothing", "", 0, warp);
    expect("divergent_barrier", "divergent barrier", 1, two_warps, false);
    expect("barrier_and_collective", "thread 40", 1, two_warps, false);
    expect("early_return", "block_barrier", 1, two_warps, false);
    expect("early_return_of_a_lane", "thread 3", 1, two_warps, false);
    expect("mixed_collectives", "divergent warp", 1, warp, false);
    expect("different_lines", "divergent warp", 1, warp, false);
    expect("deadlock", "deadlock", 1, two_warps, false);
    expect("uninitialised", "reads shared memory at byte 20 that nobody has written", 1, two_warps);
    expect("copy_without_barrier", "", 0, two_warps);
    expect("copy_without_barrier", "shared memory at byte", 1, two_warps);
    expect("partial_warp", "less than 32 threads", 1, [] { Shape s; s.threads = 48; return s; }(), false);
    expect("raw_race", "", 0, two_warps);
    if (HOOKED) expect("raw_race", "shared memory at byte", 1, two_warps);
    Shape exact = warp;
    exact.shared = 128;
    if (!GUARDED_BY_SANITIZER) {
        expect("raw_shared_past_the_end", "before or after its shared memory", 0, exact, false);
        expect("raw_shared_past_the_end", "before or after its shared memory", 20, exact, false);
        expect("raw_global_past_the_end", "device memory of 512 bytes: written before", 1, warp, false);
    }
}

void grid_barriers() {
    Shape shape;
    shape.x = 8;
    shape.threads = 64;
    for (uint32_t mistake = 0; mistake < 2; ++mistake) {
        bool good = true;
        std::string last;
        for (const EmulatorOptions& options : all_options(true)) {
            DeviceMemory<uint32_t> words(17);
            for (size_t i = 0; i < words.count; ++i) words.data[i] = 0;
            shape.cooperative = true;
            last = launch("grid_barrier", shape, WordsArguments{words.data, 8, mistake}, options);
            for (uint32_t i = 0; i < 8 && !mistake; ++i) good &= words.data[9 + i] == 36;
            good &= mistake ? last.find("deadlock") != std::string::npos : last.empty();
        }
        report(mistake ? "grid barrier, one block does not arrive" : "grid barrier", good,
               last.empty() ? "no alarm" : last);
    }
    DeviceMemory<uint32_t> words(17);
    for (size_t i = 0; i < words.count; ++i) words.data[i] = 0;
    shape.cooperative = false;
    EmulatorOptions options = {};
    options.workers = 1;
    const std::string found = launch("grid_barrier", shape, WordsArguments{words.data, 8, 0}, options);
    report("grid barrier, not cooperative", found.find("deadlock") != std::string::npos, found);
}

void counters() {
    struct Case {
        const char* name;
        uint64_t sectors, sectors_ideal, wavefronts, wavefronts_ideal;
    };
    const Case cases[] = {
        {"neighbouring words", 4, 4, 0, 0},
        {"words 32 bytes apart", 32, 4, 0, 0},
        {"16 bytes a lane", 16, 16, 0, 0},
        {"one word for all", 1, 1, 0, 0},
        {"shifted by a word", 5, 4, 0, 0},
        {"shared, neighbours", 0, 0, 1, 1},
        {"shared, a column", 0, 0, 32, 1},
        {"shared, 16 bytes", 0, 0, 4, 4},
        {"shared, every other", 0, 0, 2, 1},
        {"shared, one for all", 0, 0, 1, 1},
        {"three loads", 12, 12, 0, 0},
        {"matrix rows in one bank", 0, 0, 32, 4},
    };
    DeviceMemory<uint32_t> words(512);
    EmulatorOptions options = {};
    options.count = 1;
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        Shape shape;
        shape.shared = 4096;
        EmulatorCounters c = {};
        const std::string found = launch("access_patterns", shape, WordsArguments{words.data, 512, i}, options, &c);
        const Case& expected = cases[i];
        const bool good = found.empty() && c.global_sectors == expected.sectors &&
                          c.global_sectors_ideal == expected.sectors_ideal &&
                          c.shared_wavefronts == expected.wavefronts &&
                          c.shared_wavefronts_ideal == expected.wavefronts_ideal;
        report(std::string("counters, ") + cases[i].name, good,
               found + std::to_string(c.global_sectors) + " sectors, " + std::to_string(c.global_sectors_ideal) +
                   " ideal, " + std::to_string(c.shared_wavefronts) + " wavefronts, " +
                   std::to_string(c.shared_wavefronts_ideal) + " ideal");
    }
}

/// The nearest value of `fraction` bits after the leading one, in [2^least, 2^(most + 1)).
double nearest(double value, int fraction, int least, int most) {
    if (value == 0 || !std::isfinite(value)) return value;
    const int exponent = std::max(std::ilogb(value), least);
    const double unit = std::ldexp(1.0, exponent - fraction);
    const double rounded = std::nearbyint(value / unit) * unit;
    return std::fabs(rounded) >= std::ldexp(1.0, most + 1) ? std::copysign(INFINITY, value) : rounded;
}
template <typename T>
void conversions(const char* name, int fraction, int least, int most) {
    size_t wrong = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float value = to_float(T{uint16_t(bits)});
        const T back = from_float<T>(value);
        wrong += value == value ? back.bits != bits : back.bits != 0x7fff;
        const uint32_t top = bits >> fraction & ((1u << (15 - fraction)) - 1);
        const double part = std::ldexp(double(bits & ((1u << fraction) - 1)), -fraction);
        const bool special = top == (1u << (15 - fraction)) - 1;
        const double magnitude = special ? (part == 0 ? INFINITY : NAN)
                                 : top   ? std::ldexp(1 + part, int(top) - 1 + least)
                                         : std::ldexp(part, least);
        const double expected = bits & 0x8000 ? -magnitude : magnitude;
        wrong += expected == expected ? value != expected : value == value;
    }
    std::mt19937 random(1);
    for (uint32_t i = 0; i < 2000000; ++i) {
        uint32_t bits = random();
        if (i % 4 == 0) bits = (bits & 0x8fffffffu) | 0x30000000u;                      // small for f16
        if (i % 4 == 1) bits = (bits & 0xffffe000u) | (i % 8 == 1 ? 0x1000u : 0x8000u);  // half-way cases
        const float value = emulator::bits_as<float>(bits);
        const float rounded = to_float(from_float<T>(value));
        const double expected = nearest(value, fraction, least, most);
        wrong += value == value ? double(rounded) != expected : rounded == rounded;
    }
    const uint32_t word = pack<T>(1.5f, -2.0f);
    wrong += low<T>(word) != 1.5f || high<T>(word) != -2.0f;
    report(std::string("conversions of ") + name, wrong == 0, std::to_string(wrong) + " wrong");
}

void refusals() {
    EmulatorOptions options = {};
    Shape shape;
    const WordsArguments none = {};
    std::string found = launch("no_such_kernel", shape, none, options);
    report("unknown kernel", found == "no kernel is named no_such_kernel", found);
    shape.threads = 64;
    found = launch("exchange", shape, none, options);
    report("too many threads", found.find("64 threads") != std::string::npos, found);
    shape.threads = 32;
    shape.x = 0;
    found = launch("exchange", shape, none, options);
    report("no blocks", found.find("0, 1, 1 blocks") != std::string::npos, found);
    size_t size = 0;
    uint32_t threads = 0;
    const bool listed = flamant_emulator_kernels() > 20 && flamant_emulator_find("sum", &size, &threads) == 0 &&
                        size == sizeof(WordsArguments) && threads == 256 && flamant_emulator_find("-", &size, &threads);
    report("table of kernels", listed, std::to_string(flamant_emulator_kernels()) + " kernels");
    int local = 0;
    report("free of what is not device memory", flamant_emulator_free(&local) == 1, "refused");
    // A seed means the same at every run.
    Product<bf16> product(false);
    options = all_options(true).back();
    const std::string once = product.run(Mistake::NoBarrierAfterUse, options, true);
    options.workers = 1;
    const std::string first = product.run(Mistake::NoBarrierAfterUse, options, true);
    const std::string again = product.run(Mistake::NoBarrierAfterUse, options, true);
    report("a seed is replayed", !once.empty() && !first.empty() && first == again, first);
}

/// Time of one processor, in nanoseconds.
double now() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return double(time.tv_sec) * 1e9 + double(time.tv_nsec);
}
void speed() {
    EmulatorOptions options = {};
    options.workers = 1;
    const auto measure = [&](const char* kernel, double per_unit, const char* unit) {
        DeviceMemory<uint32_t> words(256);
        Shape shape;
        shape.threads = 256;
        const uint32_t count = 20000;
        launch(kernel, shape, WordsArguments{words.data, 100, 0}, options);
        const double begin = now();
        const std::string found = launch(kernel, shape, WordsArguments{words.data, count, 0}, options);
        printf("%s: %.1f ns a %s %s\n", kernel, (now() - begin) / count / per_unit, unit, found.c_str());
    };
    measure("meetings", 256, "switch");
    measure("block_meetings", 256, "switch");
    measure("products", 8, "matrix product of a warp");
    measure("f16_products", 8, "matrix product of a warp");
    measure("loads", 256, "load");
    for (bool check : {false, true}) {
        Product<bf16> product(false);
        options.check_races = options.check_uninitialised = check;
        const double begin = now();
        for (int i = 0; i < 20; ++i) product.run(Mistake::None, options, true);
        printf("product of 64 x 160 x 128, %s: %.2f ms\n", check ? "checked" : "plain", (now() - begin) / 20e6);
    }
}

int main(int count, char** words) {
    if (count > 1 && std::string(words[1]) == "speed") {
        speed();
        return 0;
    }
    conversions<bf16>("bf16", 7, -126, 127);
    conversions<f16>("f16", 10, -14, 15);
    right_products();
    wrong_product("wait too shallow", Mistake::WaitTooShallow, "is copying to");
    wrong_product("no wait", Mistake::NoWait, "is copying to");
    wrong_product("no barrier before use", Mistake::NoBarrierBeforeUse, "shared memory at byte");
    wrong_product("no barrier after use", Mistake::NoBarrierAfterUse, "shared memory at byte");
    wrong_product("one tile too far", Mistake::TileTooFar, "copy_async of 16 bytes at byte", true);
    wrong_product("wrong matrix row", Mistake::WrongRow, "wrong and 0 not finite");
    wrong_product("matrix row past the end", Mistake::RowPastTheEnd, "load_matrix of 16 bytes at byte");
    wrong_product("halves of k swapped", Mistake::HalvesSwapped, "wrong and 0 not finite");
    small_mistakes();
    grid_barriers();
    counters();
    refusals();
    printf(failures ? "%d FAILED\n" : "all as expected\n", failures);
    return failures ? 1 : 0;
}
