// State spaces: device memory, a block's shared memory, a kernel's parameters; loads, stores, atomics and asynchronous
// copies.
#include "machine.h"

namespace interpreter {

char* global_bytes(Warp& warp, uint64_t address, size_t size, Use use) {
    if (address % size) fail(warp, "device memory at an address that is no multiple of " + std::to_string(size));
    const auto is_within = [&](const Allocation& allocation) {
        const uint64_t offset = address - allocation.begin;
        return offset < allocation.size && size <= allocation.size - offset;
    };
    if (!warp.last || !is_within(*warp.last)) {
        std::vector<Allocation>& table = warp.launch().allocations;
        const auto is_before = [](uint64_t value, const Allocation& allocation) { return value < allocation.begin; };
        const auto after = std::upper_bound(table.begin(), table.end(), address, is_before);
        if (after == table.begin()) fail(warp, "an address that is no device memory");
        warp.last = &*(after - 1);
        if (!is_within(*warp.last)) {
            fail(warp, std::to_string(size) + " bytes at byte " + std::to_string(address - warp.last->begin) +
                           " of device memory of " + std::to_string(warp.last->size) + " bytes");
        }
    }
    warp.last->stored |= use == Use::Store;
    warp.last->read_as_constant |= use == Use::LoadConstant;
    if (warp.last->stored && warp.last->read_as_constant) {
        fail(warp, "device memory that the launch both stores to and reads as constant (.nc)");
    }
    return reinterpret_cast<char*>(address);
}

char* shared_bytes(Warp& warp, uint32_t address, size_t size) {
    const uint32_t offset = address - SHARED_BASE;
    const size_t whole = warp.launch().shared_size;
    if (offset >= whole || size > whole - offset) {
        fail(warp, std::to_string(size) + " bytes at byte " + std::to_string(int32_t(offset)) +
                       " of shared memory of " + std::to_string(whole) + " bytes");
    }
    if (offset % size) fail(warp, "shared memory at an address that is no multiple of " + std::to_string(size));
    return warp.block->shared.data() + offset;
}

namespace {

const char* parameter_bytes(Warp& warp, uint64_t address, size_t size) {
    const uint64_t offset = address - PARAMETER_BASE;
    const size_t whole = warp.launch().kernel->arguments_size;
    if (offset >= whole || size > whole - offset) fail(warp, "an address beyond the kernel's parameters");
    if (offset % size) fail(warp, "a parameter at an address that is no multiple of " + std::to_string(size));
    return warp.launch().arguments + offset;
}

/// Constant: device memory that nobody stores to while the kernel runs.
enum class Space { Global, Constant, Shared, Parameter };
constexpr bool is_device(Space space) { return space == Space::Global || space == Space::Constant; }

/// The addresses of a space have this type.
template <Space SPACE>
using Address = std::conditional_t<SPACE == Space::Shared, uint32_t, uint64_t>;

template <Space SPACE>
char* bytes_at(Warp& warp, Address<SPACE> address, size_t size, bool store) {
    if constexpr (SPACE == Space::Constant) return global_bytes(warp, address, size, Use::LoadConstant);
    else if constexpr (SPACE == Space::Global) return global_bytes(warp, address, size, store ? Use::Store : Use::Load);
    else if constexpr (SPACE == Space::Shared) return shared_bytes(warp, address, size);
    else return const_cast<char*>(parameter_bytes(warp, address, size));
}

/// The addresses of the active lanes; counted, and looked at for races, if that is asked for.
template <Space SPACE>
struct Addresses {
    Address<SPACE> lane[LANES] = {};

    Addresses(Warp& warp, const Instruction& instruction, uint32_t operand, uint32_t active, size_t size, bool store) {
        const Address<SPACE>* const base = warp.lanes<Address<SPACE>>(instruction.operand[operand]);
        const Address<SPACE> displacement = Address<SPACE>(instruction.displacement[0]);
        for_each_lane(active, [&](uint32_t i) { lane[i] = base[i] + displacement; });
        if constexpr (SPACE == Space::Shared) {
            if (checks_shared(warp.launch())) {
                for_each_lane(active, [&](uint32_t i) { touch_shared(warp, i, lane[i], size, store, false); });
            }
        }
        if (!warp.launch().options.count) return;
        if constexpr (is_device(SPACE)) count_global(warp, lane, active, size, store);
        if constexpr (SPACE == Space::Shared) count_shared(warp, lane, active, size);
    }
};

/// COUNT values of type T to as many registers, which may be wider: then what is above is zeros.
template <Space SPACE, typename T, uint32_t COUNT = 1, typename Into = T>
void load(Warp& warp, const Instruction& instruction, uint32_t active) {
    const Addresses<SPACE> address(warp, instruction, COUNT, active, COUNT * sizeof(T), false);
    for_each_lane(active, [&](uint32_t lane) {
        T values[COUNT];
        memcpy(values, bytes_at<SPACE>(warp, address.lane[lane], sizeof values, false), sizeof values);
        for (uint32_t i = 0; i < COUNT; ++i) warp.lanes<Into>(instruction.operand[i])[lane] = values[i];
    });
}
template <Space SPACE, typename T, uint32_t COUNT = 1>
void store(Warp& warp, const Instruction& instruction, uint32_t active) {
    const Addresses<SPACE> address(warp, instruction, 0, active, COUNT * sizeof(T), true);
    for_each_lane(active, [&](uint32_t lane) {
        T values[COUNT];
        for (uint32_t i = 0; i < COUNT; ++i) values[i] = warp.lanes<T>(instruction.operand[1 + i])[lane];
        memcpy(bytes_at<SPACE>(warp, address.lane[lane], sizeof values, true), values, sizeof values);
    });
}

/// The old value, to which the operand is added. Lanes run in order.
void atom_add_u32(Warp& warp, const Instruction& instruction, uint32_t active) {
    const Addresses<Space::Global> address(warp, instruction, 1, active, sizeof(uint32_t), true);
    for_each_lane(active, [&](uint32_t lane) {
        char* const at = global_bytes(warp, address.lane[lane], sizeof(uint32_t), Use::Store);
        uint32_t old;
        memcpy(&old, at, sizeof old);
        const uint32_t sum = old + warp.lanes<uint32_t>(instruction.operand[2])[lane];
        memcpy(at, &sum, sizeof sum);
        warp.lanes<uint32_t>(instruction.operand[0])[lane] = old;
        warp.launch().counters.atomics += 1;
    });
    warp.launch().progress += 1;
}

void nothing(Warp&, const Instruction&, uint32_t) {}

// ---- Asynchronous copies: they land as late as waits allow, or at once ----------------------------------------------

void land(Warp& warp, const AsyncCopy& copy) {
    char* const to = shared_bytes(warp, copy.to, 16);
    memset(to, 0, 16);
    if (copy.from) memcpy(to, copy.from, copy.size);
}

/// [shared], [global], 16, so many bytes that are read: the others of the 16 are zeros.
void cp_async_16(Warp& warp, const Instruction& instruction, uint32_t active) {
    const bool early = warp.launch().options.early_copies;
    const uint32_t* const to = warp.lanes<uint32_t>(instruction.operand[0]);
    const uint64_t* const from = warp.lanes<uint64_t>(instruction.operand[1]);
    const uint32_t* const size = warp.lanes<uint32_t>(instruction.operand[2]);
    uint64_t sources[LANES] = {};
    uint32_t targets[LANES] = {}, reading = 0;
    for_each_lane(active, [&](uint32_t lane) {
        targets[lane] = to[lane] + uint32_t(instruction.displacement[0]);
        sources[lane] = from[lane] + uint64_t(instruction.displacement[1]);
        if (size[lane] > 16) fail(warp, "a copy of more than 16 bytes");
        reading |= uint32_t(size[lane] != 0) << lane;
    });
    if (warp.launch().options.count) {
        count_shared(warp, targets, active, 16);
        count_global(warp, sources, reading, 16, false);
    }
    for_each_lane(active, [&](uint32_t lane) {
        char* const target = shared_bytes(warp, targets[lane], 16);
        const bool reads = reading >> lane & 1;
        const char* const source = reads ? global_bytes(warp, sources[lane], 16, Use::Load) : nullptr;
        if (checks_shared(warp.launch())) copy_starts(warp, lane, targets[lane], 16);
        memset(target, 0xff, 16);
        warp.copies.push_back(AsyncCopy{lane, warp.commits[lane], targets[lane], size[lane], source});
        if (early) land(warp, warp.copies.back());
    });
}
void cp_async_commit_group(Warp& warp, const Instruction&, uint32_t active) {
    for_each_lane(active, [&](uint32_t lane) { warp.commits[lane] += 1; });
}
/// Lands all groups of the lanes but the last ones, as many as the operand says.
void cp_async_wait_group(Warp& warp, const Instruction& instruction, uint32_t active) {
    size_t kept = 0;
    for (const AsyncCopy& copy : warp.copies) {
        const bool waited_for = active >> copy.lane & 1;
        if (!waited_for || copy.group + uint64_t(instruction.immediate) >= warp.commits[copy.lane]) {
            warp.copies[kept++] = copy;
            continue;
        }
        if (!warp.launch().options.early_copies) land(warp, copy);
        if (checks_shared(warp.launch())) copy_lands(warp, copy.lane, copy.to, 16);
    }
    warp.copies.resize(kept);
}

}  // namespace

std::vector<Opcode> memory_opcodes() {
    constexpr Space GLOBAL = Space::Global, SHARED = Space::Shared, PARAMETER = Space::Parameter;
    using u8 = uint8_t;
    using u16 = uint16_t;
    using u32 = uint32_t;
    using u64 = uint64_t;
    const char* const TWO = "{D32, D32}, [A64]";
    const char* const FOUR = "{D32, D32, D32, D32}, [A64]";
    return {
        {"ld.param.u32", "D32, [A64]", load<PARAMETER, u32>},
        {"ld.param.u32", "D64, [A64]", load<PARAMETER, u32, 1, u64>},
        {"ld.param.f32", "D32, [A64]", load<PARAMETER, u32>},
        {"ld.param.u64", "D64, [A64]", load<PARAMETER, u64>},
        {"ld.param.v2.u32", TWO, load<PARAMETER, u32, 2>},
        {"ld.global.u8", "D32, [A64]", load<GLOBAL, u8, 1, u32>},
        {"ld.global.u16", "D16, [A64]", load<GLOBAL, u16>},
        {"ld.global.u32", "D32, [A64]", load<GLOBAL, u32>},
        {"ld.global.u32", "D64, [A64]", load<GLOBAL, u32, 1, u64>},
        {"ld.global.f32", "D32, [A64]", load<GLOBAL, u32>},
        {"ld.global.v2.u32", TWO, load<GLOBAL, u32, 2>},
        {"ld.global.v4.u32", FOUR, load<GLOBAL, u32, 4>},
        {"ld.global.v4.f32", FOUR, load<GLOBAL, u32, 4>},
        {"ld.global.nc.L1::no_allocate.L2::128B.v4.u32", FOUR, load<Space::Constant, u32, 4>},
        {"ld.acquire.gpu.global.u32", "D32, [A64]", load<GLOBAL, u32>},
        {"ld.shared.u16", "D16, [A32]", load<SHARED, u16>},
        {"ld.shared.f32", "D32, [A32]", load<SHARED, u32>},
        {"ld.shared.v2.u64", "{D64, D64}, [A32]", load<SHARED, u64, 2>},
        {"ld.shared.v2.f32", "{D32, D32}, [A32]", load<SHARED, u32, 2>},
        {"ld.shared.v4.f32", "{D32, D32, D32, D32}, [A32]", load<SHARED, u32, 4>},
        {"ld.shared.v4.u32", "{D32, D32, D32, D32}, [A32]", load<SHARED, u32, 4>},
        {"st.global.u16", "[A64], S16", store<GLOBAL, u16>},
        {"st.global.u32", "[A64], S32", store<GLOBAL, u32>},
        {"st.global.f32", "[A64], S32", store<GLOBAL, u32>},
        {"st.global.v2.u32", "[A64], {S32, S32}", store<GLOBAL, u32, 2>},
        {"st.global.v2.f32", "[A64], {S32, S32}", store<GLOBAL, u32, 2>},
        {"st.global.v4.u32", "[A64], {S32, S32, S32, S32}", store<GLOBAL, u32, 4>},
        {"st.global.v4.f32", "[A64], {S32, S32, S32, S32}", store<GLOBAL, u32, 4>},
        {"st.shared.u64", "[A32], S64", store<SHARED, u64>},
        {"st.shared.f32", "[A32], S32", store<SHARED, u32>},
        {"st.shared.v4.u32", "[A32], {S32, S32, S32, S32}", store<SHARED, u32, 4>},
        {"atom.add.acq_rel.gpu.global.u32", "D32, [A64], S32", atom_add_u32},
        // A hint: nothing is read.
        {"prefetch.global.L2", "[A64]", nothing},
        {"cp.async.cg.shared.global.L2::128B", "[A32], [A64], 16, S32", cp_async_16},
        {"cp.async.commit_group", "", cp_async_commit_group},
        {"cp.async.wait_group", "I", cp_async_wait_group},
    };
}

}  // namespace interpreter
