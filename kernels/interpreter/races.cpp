// Races in shared memory: two threads use the same bytes, one of them writes, and no barrier stands between. Also reads
// of what nobody has written, and of asynchronous copies that are under way.
//
// A barrier of the block orders all that went before it; bar.warp.sync orders what lanes of its warp did. Other
// collectives order nothing, though lanes meet there.
#include "machine.h"

namespace interpreter {
namespace {

std::string thread_of(const Accesses& accesses) { return "thread " + std::to_string(accesses.thread); }

/// Whether no barrier orders an earlier access before one of `thread`. One that a warp makes `together` conflicts with
/// those of each of its lanes.
bool unordered(const Accesses& earlier, const Warp& warp, uint32_t thread, bool together) {
    if (earlier.epoch != warp.block->epoch) return false;
    if (earlier.by == Accesses::Warps || earlier.thread / LANES != warp.index) return true;
    if (earlier.warp_epoch != warp.epoch) return false;
    return together || earlier.by == Accesses::Lanes || earlier.thread != thread;
}

}  // namespace

bool checks_shared(const Launch& launch) {
    return launch.options.check_races || launch.options.check_uninitialised;
}

void touch_shared(Warp& warp, uint32_t lane, uint32_t address, size_t size, bool write, bool together) {
    Block& block = *warp.block;
    const EmulatorOptions& options = warp.launch().options;
    const uint32_t thread = warp.index * LANES + lane;
    shared_bytes(warp, address, size);
    const size_t offset = address - SHARED_BASE;
    for (size_t at = offset / 2; at < (offset + size) / 2; ++at) {
        Cell& cell = block.cells[at];
        const auto place = [&] {
            return (write ? "writes byte " : "reads byte ") + std::to_string(2 * at) + " of shared memory that ";
        };
        const bool written = cell.writes.epoch >= block.first_epoch;
        if (options.check_races) {
            if (written && cell.landing) fail(warp, place() + thread_of(cell.writes) + " is copying to");
            if (unordered(cell.writes, warp, thread, together)) {
                fail(warp, "race: " + place() + thread_of(cell.writes) + " wrote, with no barrier between");
            }
            if (write && unordered(cell.reads, warp, thread, together)) {
                fail(warp, "race: " + place() + thread_of(cell.reads) + " read, with no barrier between");
            }
        }
        if (write) {
            cell.writes = Accesses{block.epoch, warp.epoch, thread, Accesses::Thread};
            cell.landing = false;
            continue;
        }
        if (options.check_uninitialised && !written) fail(warp, place() + "nobody has written");
        Accesses& reads = cell.reads;
        const bool same_warp = reads.thread / LANES == warp.index;
        const Accesses::By by = together ? Accesses::Lanes : Accesses::Thread;
        if (reads.epoch != block.epoch) {
            reads = Accesses{block.epoch, warp.epoch, thread, by};
        } else if (!same_warp || reads.by == Accesses::Warps) {
            reads.by = Accesses::Warps;
        } else if (reads.warp_epoch != warp.epoch) {
            reads = Accesses{block.epoch, warp.epoch, thread, by};
        } else if (reads.thread != thread || together) {
            reads.by = Accesses::Lanes;
        }
    }
}

void copy_starts(Warp& warp, uint32_t lane, uint32_t address, size_t size) {
    touch_shared(warp, lane, address, size, true, false);
    const size_t offset = address - SHARED_BASE;
    for (size_t at = offset / 2; at < (offset + size) / 2; ++at) warp.block->cells[at].landing = true;
}
void copy_lands(Warp& warp, uint32_t lane, uint32_t address, size_t size) {
    const size_t offset = address - SHARED_BASE;
    for (size_t at = offset / 2; at < (offset + size) / 2; ++at) warp.block->cells[at].landing = false;
    touch_shared(warp, lane, address, size, true, false);
}

}  // namespace interpreter
