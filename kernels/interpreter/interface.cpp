// The C interface of ../emulator.h over the interpreter: device memory, the kernels of the modules that are linked in,
// launches. One launch is run by the thread that starts it; many threads may start some.
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <shared_mutex>

#include "machine.h"
#include "modules.h"

namespace interpreter {
namespace {

// ---- Device memory --------------------------------------------------------------------------------------------------

constexpr size_t RED_ZONE = 256;
constexpr unsigned char RED = 0xa5;
constexpr size_t ALIGNMENT = 256;

struct Memory {
    std::shared_mutex mutex;
    std::vector<Allocation> allocations;  // by address
};
Memory& memory() {
    static Memory& instance = *new Memory();  // at exit, other threads may still be at work
    return instance;
}
bool is_red(const char* zone) {
    return std::all_of(zone, zone + RED_ZONE, [](char c) { return static_cast<unsigned char>(c) == RED; });
}

// ---- Kernels --------------------------------------------------------------------------------------------------------

struct Modules {
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
    std::string refusal;  // of a module, if one could not be read
};
Modules& modules() {
    static Modules& instance = *[] {
        Modules* all = new Modules();
        for (size_t i = 0; i < flamant_interpreter_module_count; ++i) {
            const InterpreterModule& module = flamant_interpreter_modules[i];
            try {
                const std::string_view text(module.begin, size_t(module.end - module.begin));
                for (std::unique_ptr<Kernel>& kernel : read_module(module.file, text)) {
                    const std::string name = kernel->name;
                    all->kernels[name] = std::move(kernel);
                }
            } catch (const Fault& fault) {
                if (all->refusal.empty()) all->refusal = fault.line;
            }
        }
        return all;
    }();
    return instance;
}
Kernel* find(const char* name) {
    const auto found = modules().kernels.find(name);
    return found == modules().kernels.end() ? nullptr : found->second.get();
}

/// The kernel, decoded.
const Kernel& need(const char* name) {
    Kernel* const kernel = find(name);
    if (!kernel) {
        const std::string why = modules().refusal.empty() ? "" : "; " + modules().refusal;
        throw Fault{std::string("no kernel is named ") + name + why};
    }
    std::call_once(kernel->decoded, [&] {
        try {
            decode(*kernel);
        } catch (const Fault& fault) {
            kernel->refusal = fault.line;
        }
    });
    if (!kernel->refusal.empty()) throw Fault{"kernel " + kernel->name + ", " + kernel->refusal};
    return *kernel;
}

void check(const Launch& launch) {
    const std::string start = "kernel " + launch.kernel->name + ": ";
    const uint32_t* const grid = launch.grid;
    if (launch.threads == 0 || launch.threads > launch.kernel->threads) {
        throw Fault{start + std::to_string(launch.threads) + " threads a block, and it takes 1 to " +
                    std::to_string(launch.kernel->threads)};
    }
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535) {
        throw Fault{start + "a grid of " + std::to_string(grid[0]) + ", " + std::to_string(grid[1]) + ", " +
                    std::to_string(grid[2]) + " blocks"};
    }
    constexpr size_t SHARED_MAX = 227 << 10;
    if (launch.shared_size > SHARED_MAX) {
        throw Fault{start + std::to_string(launch.shared_size) + " bytes of shared memory"};
    }
    if (launch.options.matrix_units > 2) throw Fault{start + "matrix units that are not known"};
    if (launch.options.schedule > 2) throw Fault{start + "a schedule that is not known"};
}

}  // namespace
}  // namespace interpreter

using namespace interpreter;

void* flamant_emulator_allocate(size_t bytes) {
    if (bytes > SIZE_MAX / 2) return nullptr;
    const size_t whole = (bytes + 2 * RED_ZONE + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char* const memory_begin = static_cast<char*>(aligned_alloc(ALIGNMENT, whole));
    if (!memory_begin) return nullptr;
    char* const begin = memory_begin + RED_ZONE;
    memset(memory_begin, RED, RED_ZONE);
    memset(begin, 0xff, bytes);
    memset(begin + bytes, RED, RED_ZONE);
    std::unique_lock<std::shared_mutex> lock(memory().mutex);
    std::vector<Allocation>& table = memory().allocations;
    const Allocation allocation = {reinterpret_cast<uintptr_t>(begin), bytes, false, false};
    const auto is_before = [](const Allocation& a, const Allocation& b) { return a.begin < b.begin; };
    table.insert(std::upper_bound(table.begin(), table.end(), allocation, is_before), allocation);
    return begin;
}
int flamant_emulator_free(void* pointer) {
    std::unique_lock<std::shared_mutex> lock(memory().mutex);
    std::vector<Allocation>& table = memory().allocations;
    const auto is_it = [&](const Allocation& a) { return a.begin == reinterpret_cast<uintptr_t>(pointer); };
    const auto found = std::find_if(table.begin(), table.end(), is_it);
    if (found == table.end()) return 1;
    char* const begin = static_cast<char*>(pointer);
    const bool held = is_red(begin - RED_ZONE) && is_red(begin + found->size);
    table.erase(found);
    free(begin - RED_ZONE);
    return held ? 0 : 1;
}

size_t flamant_emulator_kernels(void) { return modules().kernels.size(); }
const char* flamant_emulator_kernel_name(size_t index) {
    if (index >= modules().kernels.size()) return nullptr;
    return std::next(modules().kernels.begin(), ptrdiff_t(index))->first.c_str();
}
int flamant_emulator_find(const char* name, size_t* arguments_size, uint32_t* threads) {
    const Kernel* const kernel = find(name);
    if (!kernel) return 1;
    *arguments_size = kernel->arguments_size;
    *threads = kernel->threads;
    return 0;
}

int flamant_emulator_launch(const char* name, const uint32_t grid[3], uint32_t threads, size_t shared_bytes,
                            int cooperative, const void* arguments, const EmulatorOptions* options,
                            EmulatorCounters* counters, char* message, size_t message_size) {
    try {
        const Kernel& kernel = need(name);
        const char* const given = static_cast<const char*>(arguments);
        const std::vector<char> copy(given, given + kernel.arguments_size);
        Launch launch = {};
        launch.kernel = &kernel;
        memcpy(launch.grid, grid, sizeof launch.grid);
        launch.threads = threads;
        launch.shared_size = shared_bytes;
        launch.cooperative = cooperative != 0;
        launch.arguments = copy.data();
        if (options) launch.options = *options;
        // splitmix64: seeds that differ little give numbers that differ much.
        uint64_t random = (launch.options.seed + 1) * 0x9e3779b97f4a7c15;
        random = (random ^ random >> 30) * 0xbf58476d1ce4e5b9;
        random = (random ^ random >> 27) * 0x94d049bb133111eb;
        launch.random = (random ^ random >> 31) | 1;
        check(launch);
        {
            std::shared_lock<std::shared_mutex> lock(memory().mutex);
            launch.allocations = memory().allocations;
        }
        run(launch);
        if (counters) *counters = launch.counters;
        return 0;
    } catch (const Fault& fault) {
        if (message && message_size) snprintf(message, message_size, "%s", fault.line.c_str());
        return 1;
    } catch (const std::bad_alloc&) {
        if (message && message_size) snprintf(message, message_size, "kernel %s: no memory for its blocks", name);
        return 1;
    }
}
