// What is checked and counted at each access: bounds and alignment, races in shared memory, sectors and bank conflicts.
// For emulator.cpp.
#pragma once
#include <tuple>

#include "emulator_fibers.h"

namespace emulator {
namespace {

// ---- Races ----------------------------------------------------------------------------------------------------------

/// Fails because of what another thread does or did (null: nobody wrote) with a cell of shared memory.
[[noreturn, gnu::noinline]] void fail_race(const Thread& thread, const Site& site, const char* verb, size_t cell,
                                           uint32_t other, const char* other_verb, const Site& other_site) {
    const Text what = text("%s shared memory at byte %zu that ", verb, cell * 2);
    if (!other_verb) fail(thread, site, what + "nobody has written");
    fail(thread, site, "race: " + what + text("thread %u %s at ", other, other_verb) + place(other_site) +
                           ", with no barrier between");
}

/// Enters an access to shared memory in the cells it covers and fails if it races. `whole_warp`: all lanes read.
void touch(const Thread& thread, const Site& site, const char* address, size_t size, bool write, bool whole_warp) {
    const Warp& warp = *thread.warp;
    Block& block = *warp.block;
    const EmulatorOptions& options = worker->launch->options;
    const size_t offset = address - block.shared;
    for (size_t index = offset / 2; index < (offset + size + 1) / 2; ++index) {
        Cell& cell = block.cells[index];
        const bool written = cell.write_epoch >= block.first_epoch;
        const bool unordered_write =
            cell.write_epoch == block.epoch &&
            (cell.writer / LANES != warp.index ||
             (cell.write_warp_epoch == warp.epoch && (whole_warp || cell.writer != thread.index)));
        if (options.check_races && written && cell.landing) {
            fail_race(thread, site, write ? "writes" : "reads", index, cell.writer, "is copying to", cell.write_site);
        }
        if (options.check_races && unordered_write) {
            fail_race(thread, site, write ? "writes" : "reads", index, cell.writer, "wrote", cell.write_site);
        }
        const bool same_warp = cell.reader / LANES == warp.index;
        const bool same_epoch = cell.read_warp_epoch == warp.epoch;
        if (write) {
            const bool unordered_read =
                cell.read_epoch == block.epoch &&
                (cell.readers == Cell::Warps || !same_warp ||
                 (same_epoch && (cell.readers == Cell::Lanes || cell.reader != thread.index)));
            if (options.check_races && unordered_read) {
                const char* verb = cell.readers == Cell::One ? "read" : "and others read";
                fail_race(thread, site, "writes", index, cell.reader, verb, cell.read_site);
            }
            cell.write_epoch = block.epoch;
            cell.write_warp_epoch = warp.epoch;
            cell.writer = uint16_t(thread.index);
            cell.write_site = site;
            cell.landing = false;
        } else {
            // Raw stores are seen only through the compiler's hooks: what no longer is 0xffff was written by one.
            uint16_t value = 0;
            memcpy(&value, block.shared + index * 2, std::min<size_t>(2, worker->launch->shared_size - index * 2));
            if (options.check_uninitialised && !written && value == 0xffff) {
                fail_race(thread, site, "reads", index, thread.index, nullptr, site);
            }
            if (cell.read_epoch != block.epoch || (cell.readers != Cell::Warps && same_warp && !same_epoch)) {
                cell.readers = whole_warp ? Cell::Lanes : Cell::One;
            } else if (cell.readers == Cell::Warps) {
                continue;
            } else if (!same_warp) {
                cell.readers = Cell::Warps;
            } else if (whole_warp || cell.reader != thread.index) {
                cell.readers = Cell::Lanes;
            }
            cell.read_epoch = block.epoch;
            cell.read_warp_epoch = warp.epoch;
            cell.reader = uint16_t(thread.index);
            cell.read_site = site;
        }
    }
}
bool checks_shared() {
    return worker->launch->options.check_races || worker->launch->options.check_uninitialised;
}

// ---- Counters -------------------------------------------------------------------------------------------------------

void record(const Thread& thread, Access access, const void* address, size_t size, const Site& site) {
    if (!worker->launch->options.count) return;
    EmulatorCounters& counters = worker->counters;
    if (access == Access::GlobalLoad) counters.global_load_bytes += size;
    if (access == Access::GlobalStore) counters.global_store_bytes += size;
    if (access == Access::SharedLoad || access == Access::SharedStore) counters.shared_accesses += 1;
    thread.warp->records.push_back(
        Record{site, thread.lane, 0, access, uint32_t(size), reinterpret_cast<uintptr_t>(address)});
}

/// Sectors of 32 bytes that one access of a warp touches, and the least that would hold as many bytes.
void count_global(const Record* records, size_t count) {
    std::pair<uintptr_t, uintptr_t> spans[LANES];
    for (size_t i = 0; i < count; ++i) spans[i] = {records[i].address, records[i].address + records[i].size};
    std::sort(spans, spans + count);
    uint64_t bytes = 0, sectors = 0;
    uintptr_t bytes_end = 0, sectors_end = 0;
    for (size_t i = 0; i < count; ++i) {
        const uintptr_t begin = std::max(spans[i].first, bytes_end);
        if (spans[i].second > begin) bytes += spans[i].second - begin;
        bytes_end = std::max(bytes_end, spans[i].second);
        const uintptr_t first = std::max(spans[i].first / 32, sectors_end), end = (spans[i].second + 31) / 32;
        if (end > first) sectors += end - first;
        sectors_end = std::max(sectors_end, end);
    }
    worker->counters.global_sectors += sectors;
    worker->counters.global_sectors_ideal += (bytes + 31) / 32;
}

/// Passes over the banks that one access of a warp takes: wide accesses are served 8 or 16 lanes at a time.
void count_shared(const Record* records, size_t count) {
    const uint32_t lanes = records[0].size <= 4 ? 32 : records[0].size == 8 ? 16 : 8;
    for (size_t begin = 0, end; begin < count; begin = end) {
        const uint32_t part = records[begin].lane / lanes;
        uint32_t words[4 * LANES];
        uint32_t word_count = 0;
        for (end = begin; end < count && records[end].lane / lanes == part; ++end) {
            const uintptr_t first = records[end].address / 4, last = (records[end].address + records[end].size - 1) / 4;
            for (uintptr_t word = first; word <= last; ++word) words[word_count++] = uint32_t(word);
        }
        std::sort(words, words + word_count);
        word_count = uint32_t(std::unique(words, words + word_count) - words);
        uint32_t in_bank[32] = {}, most = 1;
        for (uint32_t i = 0; i < word_count; ++i) most = std::max(most, ++in_bank[words[i] % 32]);
        worker->counters.shared_wavefronts += most;
        worker->counters.shared_wavefronts_ideal += std::max(1u, (word_count + 31) / 32);
    }
}

/// Puts together what the lanes did at the same line for the same time since they last met, and counts it.
void flush_records(Warp& warp) {
    std::vector<Record>& records = warp.records;
    const auto key = [](const Record& r) {
        return std::make_tuple(r.site.line, r.site.file, r.access, r.size, r.lane);
    };
    std::stable_sort(records.begin(), records.end(), [&](const Record& a, const Record& b) { return key(a) < key(b); });
    for (size_t i = 1; i < records.size(); ++i) {
        records[i].occurrence = key(records[i]) == key(records[i - 1]) ? records[i - 1].occurrence + 1 : 0;
    }
    const auto instruction = [](const Record& r) {
        return std::make_tuple(r.site.line, r.site.file, r.access, r.size, r.occurrence);
    };
    std::stable_sort(records.begin(), records.end(),
                     [&](const Record& a, const Record& b) { return instruction(a) < instruction(b); });
    for (size_t begin = 0, end; begin < records.size(); begin = end) {
        end = begin + 1;
        while (end < records.size() && instruction(records[end]) == instruction(records[begin])) ++end;
        const Access access = records[begin].access;
        if (access == Access::GlobalLoad || access == Access::GlobalStore) {
            count_global(&records[begin], end - begin);
        } else {
            count_shared(&records[begin], end - begin);
        }
    }
    records.clear();
}

// ---- Checks of accesses ---------------------------------------------------------------------------------------------

const char* name_of(Access access) {
    static const char* const names[] = {"global load", "global store", "shared load", "shared store"};
    return names[uint32_t(access)];
}

void check_global(const Thread& thread, const char* what, const void* address, size_t size, const Site& site) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
    if (begin % size) {
        fail(thread, site, text("%s of %zu bytes at %p is not aligned", what, size, address));
    }
    const std::vector<Allocation>& table = worker->launch->allocations;
    const auto found = allocation_before(table, begin);
    if (found == table.end()) fail(thread, site, text("%s at %p, which is no device memory", what, address));
    const size_t offset = begin - found->begin;
    if (offset >= found->size || size > found->size - offset) {
        fail(thread, site, text("%s of %zu bytes at byte %zu of device memory of %zu bytes", what, size, offset,
                                found->size));
    }
    if (!worker->traced) {
        window.global_begin = found->begin;
        window.global_size = found->size;
    }
}
void check_shared(const Thread& thread, const char* what, const void* address, size_t size, const Site& site) {
    const size_t shared_size = worker->launch->shared_size;
    const ptrdiff_t offset = static_cast<const char*>(address) - thread.warp->block->shared;
    if (offset < 0 || size_t(offset) >= shared_size || size > shared_size - size_t(offset)) {
        fail(thread, site, text("%s of %zu bytes at byte %td of %zu bytes of shared memory", what, size, offset,
                                shared_size));
    }
    if (size_t(offset) % size) {
        fail(thread, site, text("%s of %zu bytes at byte %td of shared memory is not aligned", what, size, offset));
    }
}

}  // namespace
}  // namespace emulator
