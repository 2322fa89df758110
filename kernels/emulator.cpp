// The emulator of emulator.h: meetings of warps and blocks, the instructions of ptx.cuh, launches, the C interface.
#include <thread>

#include "emulator_checks.h"

namespace emulator {
namespace {

// ---- Meetings -------------------------------------------------------------------------------------------------------

bool same(const Site& a, const Site& b) {
    return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}
/// Fails because others of the warp wait elsewhere or have returned. Apart, so that its texts are on no waiting stack.
[[noreturn, gnu::noinline]] void fail_divergent(const Warp& warp, const char* name, const Site& site) {
    if (!warp.arrived) {
        const uint32_t lane = __builtin_ctz(warp.finished);
        fail(*current, site, text("%s after thread %u of the warp has returned", name, warp.threads[lane].index));
    }
    const uint32_t lane = __builtin_ctz(warp.arrived);
    fail(*current, site, text("divergent warp: %s here, but thread %u waits in %s at ", name, warp.threads[lane].index,
                              name_of(warp.meeting)) + place(warp.site));
}
[[noreturn, gnu::noinline]] void fail_barrier(const Block& block, const Site& site) {
    if (block.finished) {
        fail(*current, site, text("block_barrier after %u threads of the block have returned", block.finished));
    }
    fail(*current, site, "divergent barrier: other threads of the block wait in block_barrier at " + place(block.site));
}

/// Waits for all lanes of the warp; the last one calls `work`.
template <typename Work>
void meet(Meeting meeting, const Site& site, Work work) {
    Thread& thread = *current;
    Warp& warp = *thread.warp;
    if (warp.arrived == 0) {
        if (warp.finished) fail_divergent(warp, name_of(meeting), site);
        warp.meeting = meeting;
        warp.site = site;
    } else if (meeting != warp.meeting || !same(site, warp.site)) {
        fail_divergent(warp, name_of(meeting), site);
    }
    warp.arrived |= 1u << thread.lane;
    if (warp.arrived != warp.existing) {
        thread.wait = Wait::Warp;
        thread.site = site;
        suspend();
        return;
    }
    work(warp);
    warp.arrived = 0;
    worker->progress += 1;
    if (worker->traced) flush_records(warp);
    make_ready(warp, warp.existing & ~(1u << thread.lane));
    if (worker->launch->options.schedule != 0) {
        make_ready(warp, 1u << thread.lane);
        suspend();
    }
}
void need_whole_warp(const Warp& warp, const Site& site) {
    if (warp.existing != ~0u) fail(*current, site, "a matrix instruction in a warp of less than 32 threads");
}

void read_matrices(Warp& warp, bool transposed) {
    if (worker->traced) {
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            const Thread& thread = warp.threads[lane];
            record(thread, Access::SharedLoad, warp.pointer[lane][1], 16, warp.site);
            if (checks_shared()) {
                touch(thread, warp.site, static_cast<const char*>(warp.pointer[lane][1]), 16, false, true);
            }
        }
    }
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
        uint16_t values[8][8];
        for (uint32_t row = 0; row < 8; ++row) memcpy(values[row], warp.pointer[matrix * 8 + row][1], 16);
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            const uint32_t g = lane / 4, t = lane % 4;
            const uint32_t low = transposed ? values[2 * t][g] : values[g][2 * t];
            const uint32_t high = transposed ? values[2 * t + 1][g] : values[g][2 * t + 1];
            static_cast<uint32_t*>(const_cast<void*>(warp.pointer[lane][0]))[matrix] = low | high << 16;
        }
    }
}

/// sums = a b; each sum is taken from k = 0 on. The one loop that is worth wide vectors, where the processor has them.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
__attribute__((target_clones("default", "avx2")))
#endif
void multiply_matrices(const float (&a)[16][16], const float (&b)[16][8], float (&sums)[16][8]) {
    typedef float Row __attribute__((vector_size(32)));
    Row rows[16];
    memcpy(rows, b, sizeof b);
    for (uint32_t i = 0; i < 16; i += 4) {
        Row sum[4] = {};
        for (uint32_t k = 0; k < 16; ++k) {
            for (uint32_t j = 0; j < 4; ++j) sum[j] += a[i + j][k] * rows[k];
        }
        memcpy(sums[i], sum, sizeof sum);
    }
}

template <typename T>
void multiply(Warp& warp) {
    T a_values[16][16], b_values[8][16];  // b by columns
    for (uint32_t lane = 0; lane < LANES; ++lane) {
        const uint32_t g = lane / 4, t = lane % 4;
        const char* const a_words = static_cast<const char*>(warp.pointer[lane][1]);
        const char* const b_words = static_cast<const char*>(warp.pointer[lane][2]);
        for (uint32_t half = 0; half < 2; ++half) {
            const uint32_t k = 2 * t + 8 * half;
            memcpy(&a_values[g][k], a_words + 8 * half, 4);
            memcpy(&a_values[g + 8][k], a_words + 8 * half + 4, 4);
            memcpy(&b_values[g][k], b_words + 4 * half, 4);
        }
    }
    float a[16][16], b[16][8], sums[16][8];
    for (uint32_t i = 0; i < 16; ++i) {
        for (uint32_t k = 0; k < 16; ++k) a[i][k] = to_float(a_values[i][k]);
        for (uint32_t j = 0; j < 8; ++j) b[i][j] = to_float(b_values[j][i]);
    }
    multiply_matrices(a, b, sums);
    for (uint32_t lane = 0; lane < LANES; ++lane) {
        const uint32_t g = lane / 4, t = lane % 4;
        float* d = static_cast<float*>(const_cast<void*>(warp.pointer[lane][0]));
        for (uint32_t part = 0; part < 2; ++part) {
            for (uint32_t column = 0; column < 2; ++column) d[2 * part + column] += sums[g + 8 * part][2 * t + column];
        }
    }
}

}  // namespace

// ---- What ptx.cuh calls ---------------------------------------------------------------------------------------------

Registration::Registration(const char* name, size_t arguments_size, uint32_t threads, void (*body)(const void*)) {
    if (find_kernel(name)) {
        fprintf(stderr, "emulator: two kernels are named %s\n", name);
        abort();
    }
    kernels().push_back(Kernel{name, arguments_size, threads, body});
}

void check_access(Access access, const void* address, size_t size, Site site) {
    const Thread& thread = *current;
    if (access == Access::GlobalLoad || access == Access::GlobalStore) {
        check_global(thread, name_of(access), address, size, site);
    } else {
        check_shared(thread, name_of(access), address, size, site);
        if (checks_shared()) {
            touch(thread, site, static_cast<const char*>(address), size, access == Access::SharedStore, false);
        }
    }
    record(thread, access, address, size, site);
}

void raw_access(const void* address, size_t size, bool write, const void* instruction) {
    if (!current || !checks_shared()) return;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(current->warp->block->shared);
    const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - begin;
    if (offset >= worker->launch->shared_size) return;
    const size_t inside = std::min(size, worker->launch->shared_size - offset);
    touch(*current, Site{nullptr, reinterpret_cast<uint64_t>(instruction)}, static_cast<const char*>(address), inside,
          write, false);
}

char* shared_memory() { return current->warp->block->shared; }
uint32_t shared_address(const void* pointer) {
    const ptrdiff_t offset = static_cast<const char*>(pointer) - shared_memory();
    if (offset < 0 || size_t(offset) > worker->launch->shared_size) {
        fail(*current, Site{"ptx.cuh", 0}, "shared_address of a pointer that does not lead to shared memory");
    }
    return uint32_t(offset);
}

void copy_async_16(void* shared, const void* global, bool valid, Site site) {
    Thread& thread = *current;
    char* to = static_cast<char*>(shared);
    const char* from = valid ? static_cast<const char*>(global) : nullptr;
    check_shared(thread, "copy_async", shared, 16, site);
    if (valid) check_global(thread, "copy_async", global, 16, site);
    if (worker->traced) {
        record(thread, Access::SharedStore, shared, 16, site);
        if (valid) record(thread, Access::GlobalLoad, global, 16, site);
    }
    if (checks_shared()) {
        touch(thread, site, to, 16, true, false);
        Cell* cells = &thread.warp->block->cells[(to - thread.warp->block->shared) / 2];
        for (uint32_t i = 0; i < 8; ++i) cells[i].landing = true;
    }
    if (!worker->launch->options.early_copies) {
        memset(to, 0xff, 16);
    } else if (from) {
        memcpy(to, from, 16);
    } else {
        memset(to, 0, 16);
    }
    thread.copies.push_back(Copy{to, from, thread.commits, site});
}
void copy_async_commit() { current->commits += 1; }
void copy_async_wait(uint32_t pending, Site) {
    Thread& thread = *current;
    size_t landed = 0;
    for (; landed < thread.copies.size(); ++landed) {
        const Copy& copy = thread.copies[landed];
        if (copy.group + pending >= thread.commits) break;
        if (!worker->launch->options.early_copies) {
            if (copy.from) {
                memcpy(copy.to, copy.from, 16);
            } else {
                memset(copy.to, 0, 16);
            }
        }
        if (checks_shared()) {
            Cell* cells = &thread.warp->block->cells[(copy.to - thread.warp->block->shared) / 2];
            for (uint32_t i = 0; i < 8; ++i) cells[i].landing = false;
            touch(thread, copy.site, copy.to, 16, true, false);
        }
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + landed);
}

void load_matrix_x4(uint32_t* word, const void* row, bool transposed, Site site) {
    Warp& warp = *current->warp;
    need_whole_warp(warp, site);
    check_shared(*current, "load_matrix", row, 16, site);
    warp.pointer[current->lane][0] = word;
    warp.pointer[current->lane][1] = row;
    const Meeting meeting = transposed ? Meeting::LoadMatrixTransposed : Meeting::LoadMatrix;
    meet(meeting, site, [=](Warp& all) {
        worker->counters.warp_collectives += 1;
        read_matrices(all, transposed);
    });
}
void multiply_accumulate(float* d, const uint32_t* a, const uint32_t* b, bool is_bf16, Site site) {
    Warp& warp = *current->warp;
    need_whole_warp(warp, site);
    warp.pointer[current->lane][0] = d;
    warp.pointer[current->lane][1] = a;
    warp.pointer[current->lane][2] = b;
    meet(Meeting::Multiply, site, [=](Warp& all) {
        worker->counters.matrix_products += 1;
        is_bf16 ? multiply<bf16>(all) : multiply<f16>(all);
    });
}
void warp_barrier(Site site) {
    meet(Meeting::Barrier, site, [](Warp& warp) {
        worker->counters.warp_collectives += 1;
        warp.epoch += 1;
    });
}
bool warp_any(bool value, Site site) {
    Warp& warp = *current->warp;
    const uint32_t lane = current->lane;
    warp.operand[lane] = value;
    meet(Meeting::Any, site, [](Warp& all) {
        worker->counters.warp_collectives += 1;
        uint32_t any = 0;
        for (uint32_t i = 0; i < LANES; ++i) any |= (all.existing >> i & 1) ? all.operand[i] : 0;
        for (uint32_t& out : all.value) out = any;
    });
    return warp.value[lane];
}
uint32_t shuffle_xor(uint32_t value, uint32_t mask, Site site) {
    Warp& warp = *current->warp;
    const uint32_t lane = current->lane;
    warp.operand[lane] = value;
    warp.pointer[lane][0] = reinterpret_cast<const void*>(uintptr_t((lane ^ mask) % LANES));
    meet(Meeting::ShuffleXor, site, [](Warp& all) {
        worker->counters.warp_collectives += 1;
        for (uint32_t i = 0; i < LANES; ++i) {
            const uint32_t source = uint32_t(reinterpret_cast<uintptr_t>(all.pointer[i][0])) % LANES;
            all.value[i] = (all.existing >> source & 1) ? all.operand[source] : ~0u;
        }
    });
    return warp.value[lane];
}
uint32_t shuffle(uint32_t value, uint32_t lane, Site site) {
    return shuffle_xor(value, lane ^ current->lane, site);
}

void block_barrier(Site site) {
    Thread& thread = *current;
    Warp& warp = *thread.warp;
    Block& block = *warp.block;
    if (warp.arrived) fail_divergent(warp, "block_barrier", site);
    if (block.finished || (block.arrived && !same(site, block.site))) fail_barrier(block, site);
    if (block.arrived == 0) block.site = site;
    block.arrived += 1;
    if (block.arrived == worker->launch->threads) {
        block.arrived = 0;
        block.epoch = ++worker->epoch;
        worker->progress += 1;
        worker->counters.block_barriers += 1;
        for (uint32_t index = 0; index * LANES < worker->launch->threads; ++index) {
            Warp& other = block.warps[index];
            if (worker->traced) flush_records(other);
            const uint32_t self = &other == &warp ? 1u << thread.lane : 0;
            if (other.existing & ~self) make_ready(other, other.existing & ~self);
        }
        if (worker->launch->options.schedule == 0) return;
        make_ready(warp, 1u << thread.lane);
        worker->stay = false;
    } else {
        thread.wait = Wait::Block;
        thread.site = site;
    }
    suspend();
}

uint32_t add_release(uint32_t* address, uint32_t value, Site site) {
    check_global(*current, "add_release", address, 4, site);
    worker->counters.atomics += 1;
    worker->progress += 1;
    return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}
void relax(Site site) {
    Thread& thread = *current;
    thread.warp->relaxed |= 1u << thread.lane;
    worker->relaxed += 1;
    thread.wait = Wait::Relax;
    thread.site = site;
    suspend();
}
uint32_t load_acquire(const uint32_t* address, Site site) {
    check_global(*current, "load_acquire", address, 4, site);
    relax(site);
    return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}

// ---- Launches -------------------------------------------------------------------------------------------------------

namespace {

/// Workers that no launch uses.
struct Spare {
    std::mutex mutex;
    std::vector<std::unique_ptr<Worker>> workers;
};
Spare& spare() {
    static Spare& instance = *new Spare();  // at exit, other threads may still be at work
    return instance;
}
std::unique_ptr<Worker> take_worker() {
    std::lock_guard<std::mutex> lock(spare().mutex);
    if (spare().workers.empty()) return std::unique_ptr<Worker>(new Worker());
    std::unique_ptr<Worker> taken = std::move(spare().workers.back());
    spare().workers.pop_back();
    return taken;
}
void give_worker(std::unique_ptr<Worker> given) {
    std::lock_guard<std::mutex> lock(spare().mutex);
    spare().workers.push_back(std::move(given));
}

/// The stack of one thread, from those of this worker.
char* take_stack() {
    constexpr size_t AT_ONCE = 64;
    if (worker->stacks_used == worker->stacks.size()) {
        void* area = mmap(nullptr, AT_ONCE * STACK, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (area == MAP_FAILED) {
            fprintf(stderr, "emulator: no memory for the stacks of fibers\n");
            abort();
        }
        for (size_t i = 0; i < AT_ONCE; ++i) worker->stacks.push_back(static_cast<char*>(area) + i * STACK);
    }
    return worker->stacks[worker->stacks_used++];
}

/// Sets up block number `number` of the grid in place `slot` of this worker.
void prepare_block(size_t slot, uint64_t number) {
    const Launch& launch = *worker->launch;
    if (slot == worker->blocks.size()) {
        worker->blocks.emplace_back(new Block());
        worker->warps.emplace_back();
        worker->threads.emplace_back();
        worker->capacity.push_back(0);
    }
    Block& block = *worker->blocks[slot];
    const uint32_t warps = (launch.threads + LANES - 1) / LANES;
    if (worker->capacity[slot] < warps) {
        worker->warps[slot].reset(new Warp[warps]());
        worker->threads[slot].reset(new Thread[warps * LANES]());
        worker->capacity[slot] = warps;
    }
    if (!block.shared || block.shared_capacity < launch.shared_size) {
        if (block.shared) {
            unguard(block.shared, block.shared_capacity);
            free(block.shared - RED_ZONE);
        }
        block.shared = guarded_memory(launch.shared_size);
        block.shared_capacity = launch.shared_size;
    }
    block.index.x = uint32_t(number % launch.grid.x);
    block.index.y = uint32_t(number / launch.grid.x % launch.grid.y);
    block.index.z = uint32_t(number / launch.grid.x / launch.grid.y);
    block.arrived = 0;
    block.finished = 0;
    block.first_epoch = block.epoch = ++worker->epoch;
    block.warps = worker->warps[slot].get();
    block.ready_warps = 0;
    unguard(block.shared, block.shared_capacity);
    memset(block.shared, 0xff, launch.shared_size);
    guard(block.shared, launch.shared_size);
    const size_t cells = launch.shared_size / 2 + 1;
    if (checks_shared() && block.cells.size() < cells) block.cells.resize(cells);
    for (uint32_t index = 0; index < warps; ++index) {
        Warp& warp = block.warps[index];
        const uint32_t lanes = std::min(LANES, launch.threads - index * LANES);
        warp.block = &block;
        warp.threads = &worker->threads[slot][index * LANES];
        warp.index = index;
        warp.existing = lanes == LANES ? ~0u : (1u << lanes) - 1;
        warp.ready = warp.relaxed = warp.arrived = warp.finished = 0;
        warp.epoch = 0;
        warp.records.clear();
        make_ready(warp, warp.existing);
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            Thread& thread = warp.threads[lane];
            thread.warp = &warp;
            thread.lane = lane;
            thread.index = index * LANES + lane;
            thread.wait = Wait::None;
            thread.commits = 0;
            thread.copies.clear();
            thread.stack = take_stack();
            prepare_stack(thread);
        }
    }
}

/// Runs the blocks from `first` on, all at once.
void run_blocks(uint64_t first, size_t count) {
    Launch& launch = *worker->launch;
    worker->block_count = count;
    worker->living = uint64_t(count) * launch.threads;
    worker->relaxed = worker->idle = 0;
    worker->stay = false;
    worker->stacks_used = 0;
    // splitmix64 of seed and block, so that a seed means the same whatever the number of workers.
    uint64_t random = launch.options.seed * 0x9e3779b97f4a7c15 + (first + 1) * 0xd1342543de82ef95;
    random = (random ^ random >> 30) * 0xbf58476d1ce4e5b9;
    random = (random ^ random >> 27) * 0x94d049bb133111eb;
    worker->random = (random ^ random >> 31) | 1;
    for (size_t slot = 0; slot < count; ++slot) prepare_block(slot, first + slot);
    switch_to(nullptr, next_thread());
    for (size_t slot = 0; slot < count; ++slot) {
        const Block& block = *worker->blocks[slot];
        if (!guards_hold(block.shared, launch.shared_size)) {
            record_failure(launch, name_of(block) + ": ", "wrote before or after its shared memory");
        }
    }
}

/// Takes blocks of the launch and runs them until there are no more.
void work(Launch& launch) {
    std::unique_ptr<Worker> mine = take_worker();
    worker = mine.get();
    worker->launch = &launch;
    worker->counters = EmulatorCounters{};
    worker->traced = launch.options.count || launch.options.check_races || launch.options.check_uninitialised;
#ifdef ADDRESS_SANITIZER
    worker->stack_bottom = nullptr;
#endif
    current = nullptr;
    threadIdx = Index3{0, 0, 0};
    blockDim = Index3{launch.threads, 1, 1};
    gridDim = launch.grid;
    window = Window{0, 0, worker->traced ? 0 : launch.shared_size, 0};
    const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    const uint64_t at_once = launch.cooperative ? blocks : 1;
    while (!launch.failed) {
        const uint64_t first = launch.next_block.fetch_add(at_once);
        if (first >= blocks) break;
        run_blocks(first, at_once);
    }
    std::lock_guard<std::mutex> lock(launch.mutex);
    const auto add = [](uint64_t* to, const uint64_t* from) {
        for (size_t i = 0; i < sizeof(EmulatorCounters) / sizeof(uint64_t); ++i) to[i] += from[i];
    };
    add(reinterpret_cast<uint64_t*>(&launch.counters), reinterpret_cast<const uint64_t*>(&worker->counters));
    worker = nullptr;
    give_worker(std::move(mine));
}

void run(Launch& launch) {
    {
        std::shared_lock<std::shared_mutex> lock(memory().mutex);
        launch.allocations = memory().allocations;
    }
    const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    uint64_t workers = launch.options.workers;
    if (workers == 0) workers = std::max(1u, std::thread::hardware_concurrency());
    workers = launch.cooperative ? 1 : std::min(workers, blocks);
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < workers; ++i) others.emplace_back([&] { work(launch); });
    work(launch);
    for (std::thread& other : others) other.join();
    std::shared_lock<std::shared_mutex> lock(memory().mutex);
    for (const Allocation& allocation : memory().allocations) {
        if (!guards_hold(reinterpret_cast<const char*>(allocation.begin), allocation.size)) {
            record_failure(launch, "", text("device memory of %zu bytes: written before its begin or after its end",
                                            allocation.size));
        }
    }
}

}  // namespace
}  // namespace emulator

// ---- The plain C interface ------------------------------------------------------------------------------------------

using namespace emulator;

void* flamant_emulator_allocate(size_t bytes) {
    char* begin = guarded_memory(bytes);
    if (!begin) return nullptr;
    memset(begin, 0xff, bytes);
    guard(begin, bytes);
    std::unique_lock<std::shared_mutex> lock(memory().mutex);
    const Allocation allocation = {reinterpret_cast<uintptr_t>(begin), bytes};
    std::vector<Allocation>& table = memory().allocations;
    table.insert(std::upper_bound(table.begin(), table.end(), allocation,
                                  [](const Allocation& a, const Allocation& b) { return a.begin < b.begin; }),
                 allocation);
    return begin;
}
int flamant_emulator_free(void* pointer) {
    std::unique_lock<std::shared_mutex> lock(memory().mutex);
    std::vector<Allocation>& table = memory().allocations;
    const auto found = allocation_before(table, reinterpret_cast<uintptr_t>(pointer));
    if (found == table.end() || found->begin != reinterpret_cast<uintptr_t>(pointer)) return 1;
    const size_t size = found->size;
    table.erase(found);
    char* begin = static_cast<char*>(pointer);
    const bool held = guards_hold(begin, size);
    unguard(begin, size);
    free(begin - RED_ZONE);
    return held ? 0 : 1;
}

size_t flamant_emulator_kernels(void) { return kernels().size(); }
const char* flamant_emulator_kernel_name(size_t index) {
    return index < kernels().size() ? kernels()[index].name : nullptr;
}
int flamant_emulator_find(const char* name, size_t* arguments_size, uint32_t* threads) {
    const Kernel* kernel = find_kernel(name);
    if (!kernel) return 1;
    *arguments_size = kernel->arguments_size;
    *threads = kernel->threads;
    return 0;
}

int flamant_emulator_launch(const char* name, const uint32_t grid[3], uint32_t threads, size_t shared_bytes,
                            int cooperative, const void* arguments, const EmulatorOptions* options,
                            EmulatorCounters* counters, char* message, size_t message_size) {
    const auto refuse = [&](const Text& why) {
        if (message && message_size) snprintf(message, message_size, "%s", why.bytes);
        return 1;
    };
    const Kernel* kernel = find_kernel(name);
    if (!kernel) return refuse(text("no kernel is named %s", name));
    if (threads == 0 || threads > kernel->threads || threads > THREADS_MAX) {
        return refuse(text("kernel %s: %u threads a block, and it takes 1 to %u", name, threads, kernel->threads));
    }
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535) {
        return refuse(text("kernel %s: a grid of %u, %u, %u blocks", name, grid[0], grid[1], grid[2]));
    }
    if (shared_bytes > SHARED_MAX) return refuse(text("kernel %s: %zu bytes of shared memory", name, shared_bytes));
    if (options && options->matrix_units != 0) {
        return refuse(text("kernel %s: matrix units %u, and the emulator has its own alone", name, options->matrix_units));
    }
    // Arguments are copied, as a GPU does it, to memory that is aligned for any of them.
    std::unique_ptr<char, void (*)(void*)> copy(static_cast<char*>(malloc(kernel->arguments_size)), free);
    memcpy(copy.get(), arguments, kernel->arguments_size);
    Launch launch;
    launch.kernel = kernel;
    launch.arguments = copy.get();
    launch.grid = Index3{grid[0], grid[1], grid[2]};
    launch.threads = threads;
    launch.shared_size = shared_bytes;
    launch.cooperative = cooperative != 0;
    launch.options = options ? *options : EmulatorOptions{};
    launch.next_block = 0;
    launch.failed = false;
    launch.counters = EmulatorCounters{};
    run(launch);
    if (counters) *counters = launch.counters;
    return launch.failed ? refuse(launch.message) : 0;
}
