// Which lanes run when. Lanes of a warp that part run the one with the lowest program counter first, so that they meet
// again where their paths do; at a collective they wait for each other, and at a barrier of the block so do the warps.
// Schedules 1 and 2 of EmulatorOptions take other turns that the ISA allows as well.
#include <stdio.h>

#include "machine.h"

namespace interpreter {
namespace {

/// Steps of a warp in one turn, where warps take turns at random; and of a part of a warp.
constexpr uint32_t TURN_MAX = 200;
constexpr uint64_t WHOLE_TURN = 1 << 20;
/// Rounds of turns in which warps pause and nothing happens that they could wait for.
constexpr uint64_t IDLE_ROUNDS_MAX = 10000;
/// Instructions of a launch, once a warp: minutes.
constexpr uint64_t EXECUTED_MAX = uint64_t(1) << 30;

enum Schedule : uint32_t { IN_ORDER = 0, RANDOM_WARPS = 1, RANDOM_LANES = 2 };

// ---- A warp ---------------------------------------------------------------------------------------------------------

/// Takes the lanes that run next; false if all that there are wait. `until` is where others are waiting to be joined.
bool pick_next(Warp& warp, Subwarp* taken, uint32_t* until) {
    std::vector<Subwarp>& all = warp.subwarps;
    const auto runs = [](const Subwarp& subwarp) { return subwarp.state == Subwarp::Runs; };
    // Those that paused have their turn again when there is nobody else.
    if (std::none_of(all.begin(), all.end(), runs)) {
        for (Subwarp& subwarp : all) {
            if (subwarp.state == Subwarp::Pauses) subwarp.state = Subwarp::Runs;
        }
    }
    *until = ~0u;
    if (warp.launch().options.schedule == RANDOM_LANES) {
        const uint32_t count = uint32_t(std::count_if(all.begin(), all.end(), runs));
        if (count == 0) return false;
        uint32_t chosen = warp.launch().below(count);
        const auto is_chosen = [&](const Subwarp& subwarp) { return runs(subwarp) && chosen-- == 0; };
        const auto found = std::find_if(all.begin(), all.end(), is_chosen);
        *taken = *found;
        all.erase(found);
        return true;
    }
    uint32_t lowest = ~0u;
    for (const Subwarp& subwarp : all) {
        if (runs(subwarp)) lowest = std::min(lowest, subwarp.pc);
    }
    if (lowest == ~0u) return false;
    *taken = Subwarp{lowest, 0, Subwarp::Runs};
    size_t kept = 0;
    for (const Subwarp& subwarp : all) {
        if (runs(subwarp) && subwarp.pc == lowest) {
            taken->lanes |= subwarp.lanes;
        } else {
            if (runs(subwarp)) *until = std::min(*until, subwarp.pc);
            all[kept++] = subwarp;
        }
    }
    all.resize(kept);
    return true;
}

/// Lanes arrive at a collective; whether all of the warp are there now.
bool meet(Warp& warp, uint32_t pc, uint32_t lanes) {
    if (warp.finished) fail(warp, "lanes of the warp have returned");
    const auto is_here = [&](const Subwarp& other) { return other.state == Subwarp::Waits && other.pc == pc; };
    for (const Subwarp& other : warp.subwarps) {
        if (is_here(other)) lanes |= other.lanes;
    }
    warp.subwarps.erase(std::remove_if(warp.subwarps.begin(), warp.subwarps.end(), is_here), warp.subwarps.end());
    if (lanes == warp.launched) return true;
    warp.subwarps.push_back(Subwarp{pc, lanes, Subwarp::Waits});
    return false;
}

/// Lanes go on together or, with schedule 2, in two parts.
void resume(Warp& warp, uint32_t pc, uint32_t lanes) {
    uint32_t first = lanes;
    if (warp.launch().options.schedule == RANDOM_LANES) first &= warp.launch().below(~0u);
    if (first) warp.subwarps.push_back(Subwarp{pc, first, Subwarp::Runs});
    if (lanes & ~first) warp.subwarps.push_back(Subwarp{pc, lanes & ~first, Subwarp::Runs});
}

/// Why lanes stop running.
enum class Stop {
    Elsewhere,  // they diverged, wait for other lanes, joined them, or have had their turn
    Yields,
    BlockBarrier,
};

/// Runs lanes until they part, wait, join others at `until`, or have used up their steps.
Stop run_subwarp(Warp& warp, Subwarp running, uint32_t until, uint64_t* steps) {
    const std::vector<Instruction>& code = warp.launch().kernel->code;
    uint32_t pc = running.pc;
    const uint32_t lanes = running.lanes;
    while (true) {
        const Instruction& instruction = code[pc];
        warp.pc = pc;
        *steps -= 1;
        if (++warp.launch().executed > EXECUTED_MAX) fail(warp, "a launch of more instructions than any should have");
        switch (instruction.flow) {
            case Flow::Next:
                instruction.execute(warp, instruction, lanes);
                pc += 1;
                break;
            case Flow::Branch: {
                uint32_t taken = lanes;
                if (instruction.guard != NO_REGISTER) {
                    const uint32_t guard = warp.predicate(instruction.guard);
                    taken &= instruction.guard_negated ? ~guard : guard;
                }
                if (taken != 0 && taken != lanes) {
                    warp.subwarps.push_back(Subwarp{instruction.target, taken, Subwarp::Runs});
                    warp.subwarps.push_back(Subwarp{pc + 1, lanes & ~taken, Subwarp::Runs});
                    return Stop::Elsewhere;
                }
                pc = taken ? instruction.target : pc + 1;
                break;
            }
            case Flow::Return:
                warp.finished |= lanes;
                warp.launch().progress += 1;
                return Stop::Elsewhere;
            case Flow::Pause:
                warp.launch().pauses += 1;
                warp.subwarps.push_back(Subwarp{pc + 1, lanes, Subwarp::Pauses});
                return Stop::Yields;
            case Flow::Collective:
                if (!meet(warp, pc, lanes)) return Stop::Elsewhere;
                instruction.execute(warp, instruction, warp.launched);
                resume(warp, pc + 1, warp.launched);
                return Stop::Elsewhere;
            case Flow::BlockBarrier:
                if (!meet(warp, pc, lanes)) return Stop::Elsewhere;
                return Stop::BlockBarrier;
        }
        if (pc >= until || *steps == 0) {
            resume(warp, pc, lanes);
            return Stop::Elsewhere;
        }
    }
}

/// One turn of a warp.
void run_warp(Warp& warp) {
    Launch& launch = warp.launch();
    const uint32_t schedule = launch.options.schedule;
    uint64_t turn = schedule == IN_ORDER ? WHOLE_TURN : 1 + launch.below(TURN_MAX);
    while (turn > 0 && !warp.subwarps.empty()) {
        Subwarp next;
        uint32_t until;
        if (!pick_next(warp, &next, &until)) {
            const Subwarp& waiting = warp.subwarps.front();
            warp.pc = waiting.pc;
            const bool returned = warp.finished != 0;
            fail(warp, returned ? "lanes of the warp have returned" : "lanes wait here for others that wait elsewhere");
        }
        uint64_t steps = schedule == RANDOM_LANES ? 1 + launch.below(TURN_MAX) : turn;
        steps = std::min(steps, turn);
        turn -= steps;
        const Stop stop = run_subwarp(warp, next, until, &steps);
        turn += steps;
        warp.at_barrier = stop == Stop::BlockBarrier;
        if (stop != Stop::Elsewhere) return;
    }
}

// ---- A block --------------------------------------------------------------------------------------------------------

void prepare(Block& block, Launch& launch, uint64_t number) {
    const Kernel& kernel = *launch.kernel;
    block.launch = &launch;
    block.index[0] = uint32_t(number % launch.grid[0]);
    block.index[1] = uint32_t(number / launch.grid[0] % launch.grid[1]);
    block.index[2] = uint32_t(number / launch.grid[0] / launch.grid[1]);
    // std::vector's memory is aligned to 16 bytes, the widest access.
    block.shared.assign(launch.shared_size, char(0xff));
    if (checks_shared(launch)) block.cells.resize(launch.shared_size / 2 + 1);
    block.first_epoch = block.epoch = ++launch.epochs;
    block.warps.resize((launch.threads + LANES - 1) / LANES);
    for (Warp& warp : block.warps) {
        warp.block = &block;
        warp.index = uint32_t(&warp - block.warps.data());
        const uint32_t lanes = std::min(LANES, launch.threads - warp.index * LANES);
        warp.launched = lanes == LANES ? ALL_LANES : (1u << lanes) - 1;
        warp.finished = 0;
        warp.subwarps.clear();
        resume(warp, 0, warp.launched);
        warp.at_barrier = false;
        warp.epoch = 0;
        warp.copies.clear();
        memset(warp.commits, 0, sizeof warp.commits);
        warp.last = nullptr;
        constexpr size_t LINE = 64;
        warp.storage.resize(kernel.registers.size() + LINE);
        char* const storage = warp.storage.data();
        warp.registers = storage + (LINE - reinterpret_cast<uintptr_t>(storage) % LINE);
        memcpy(warp.registers, kernel.registers.data(), kernel.registers.size());
        for (const auto& [at, which] : kernel.specials) {
            for (uint32_t lane = 0; lane < LANES; ++lane) {
                const uint32_t values[] = {warp.index * LANES + lane, block.index[0], block.index[1],
                                           block.index[2],            launch.threads, launch.grid[0]};
                warp.lanes<uint32_t>(at)[lane] = values[uint32_t(which)];
            }
        }
    }
}

/// One turn of each warp; whether the block has ended.
bool run_turn(Block& block) {
    Launch& launch = *block.launch;
    const size_t count = block.warps.size();
    std::vector<uint32_t> order(count);
    for (uint32_t i = 0; i < count; ++i) order[i] = i;
    for (uint32_t i = uint32_t(count); launch.options.schedule != IN_ORDER && i > 1; --i) {
        std::swap(order[i - 1], order[launch.below(i)]);
    }
    for (uint32_t index : order) {
        Warp& warp = block.warps[index];
        if (!warp.at_barrier && !warp.subwarps.empty()) run_warp(warp);
    }
    size_t waiting = 0, ended = 0;
    for (const Warp& warp : block.warps) {
        waiting += warp.at_barrier;
        ended += !warp.at_barrier && warp.subwarps.empty();
    }
    if (ended == count) return true;
    if (waiting == 0 || waiting + ended < count) return false;
    const auto at_barrier = [](const Warp& warp) { return warp.at_barrier; };
    const Warp& first = *std::find_if(block.warps.begin(), block.warps.end(), at_barrier);
    if (ended) fail(first, "others of the block have returned");
    for (const Warp& warp : block.warps) {
        if (warp.pc != first.pc) fail(warp, "others of the block wait at another barrier");
    }
    for (Warp& warp : block.warps) {
        warp.at_barrier = false;
        resume(warp, warp.pc + 1, warp.launched);
    }
    block.epoch = ++launch.epochs;
    launch.counters.block_barriers += 1;
    launch.progress += 1;
    return false;
}

/// Fails because of a warp that pauses for ever.
[[noreturn]] void fail_waiting(const std::vector<Block*>& running) {
    const auto pauses = [](const Subwarp& subwarp) { return subwarp.state == Subwarp::Pauses; };
    for (Block* block : running) {
        for (Warp& warp : block->warps) {
            const auto found = std::find_if(warp.subwarps.begin(), warp.subwarps.end(), pauses);
            if (found == warp.subwarps.end()) continue;
            warp.pc = found->pc;
            fail(warp, "waits in a loop for a word that nobody changes");
        }
    }
    fail(running.front()->warps.front(), "waits for others that wait");
}

/// Runs these blocks of the grid side by side.
void run_blocks(Launch& launch, std::vector<std::unique_ptr<Block>>& blocks, const uint64_t* numbers, size_t count) {
    while (blocks.size() < count) blocks.emplace_back(new Block());
    std::vector<Block*> running;
    for (size_t i = 0; i < count; ++i) {
        prepare(*blocks[i], launch, numbers[i]);
        running.push_back(blocks[i].get());
    }
    uint64_t idle = 0;
    while (!running.empty()) {
        const uint64_t progress = launch.progress, pauses = launch.pauses;
        running.erase(std::remove_if(running.begin(), running.end(), [](Block* block) { return run_turn(*block); }),
                      running.end());
        if (launch.progress != progress) idle = 0;
        else if (launch.pauses != pauses) idle += 1;
        if (idle > IDLE_ROUNDS_MAX) fail_waiting(running);
    }
}

}  // namespace

void fail(const Warp& warp, const std::string& what) {
    const Launch& launch = warp.launch();
    const Kernel& kernel = *launch.kernel;
    const uint32_t* const block = warp.block->index;
    const Instruction& instruction = kernel.code[warp.pc];
    char schedule[64];
    snprintf(schedule, sizeof schedule, " [schedule %u, seed %llu%s]", launch.options.schedule,
             (unsigned long long)launch.options.seed, launch.options.early_copies ? ", early copies" : "");
    throw Fault{"kernel " + kernel.name + ", block (" + std::to_string(block[0]) + ", " + std::to_string(block[1]) +
                ", " + std::to_string(block[2]) + "), warp " + std::to_string(warp.index) + ", " + kernel.file + ":" +
                std::to_string(instruction.line) + ": " + what + ": " + one_line(instruction.text) + schedule};
}

void run(Launch& launch) {
    std::vector<uint64_t> numbers(uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2]);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
    // Blocks may run in any order.
    for (size_t i = numbers.size(); launch.options.schedule != IN_ORDER && i > 1; --i) {
        std::swap(numbers[i - 1], numbers[launch.below(uint32_t(i))]);
    }
    std::vector<std::unique_ptr<Block>> room;
    const size_t at_once = launch.cooperative ? numbers.size() : 1;
    for (size_t first = 0; first < numbers.size(); first += at_once) run_blocks(launch, room, &numbers[first], at_once);
}

std::vector<Opcode> flow_opcodes() {
    return {
        {"bra", "L", nullptr, Flow::Branch},
        {"bra.uni", "L", nullptr, Flow::Branch},
        {"ret", "", nullptr, Flow::Return},
        {"nanosleep.u32", "S32", nullptr, Flow::Pause},
        {"bar.sync", "0", nullptr, Flow::BlockBarrier},
    };
}

}  // namespace interpreter
