// Fibers: switching between them, how one fails, and which one runs next. For emulator.cpp.
//
// A fiber that has to wait marks itself so and switches straight to the next one that may run; the one that arrives
// last at a meeting does the work of all and makes them ready. So a warp collective costs one switch a lane. A failure
// writes its line, leaves for the stack that started the fibers and never comes back: kernels hold nothing that needs
// undoing.
#pragma once
#include "emulator_state.h"

namespace emulator {

// ---- Switching stacks -----------------------------------------------------------------------------------------------

// Saves what a called function must keep on the stack, exchanges stack pointers, restores.
extern "C" void emulator_switch(void** save, void* load) __asm__("emulator_switch");
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl emulator_switch
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl emulator_switch
emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#endif

namespace {

void fiber_main();

/// Makes the thread's stack such that the first switch to it calls fiber_main.
void prepare_stack(Thread& thread) {
#ifdef ADDRESS_SANITIZER
    ASAN_UNPOISON_MEMORY_REGION(thread.stack, STACK);
    thread.fake_stack = nullptr;
#endif
    memcpy(thread.stack, &STACK_END, sizeof STACK_END);
    // Tops of stacks are staggered, lest the same variable of all lanes fall into one set of the cache.
    [[maybe_unused]] char* top = thread.stack + STACK - (thread.index * 1088) % 8192;
#if defined(__x86_64__)
    void** frame = reinterpret_cast<void**>(top) - 8;  // six registers, where to return to, 8 bytes for alignment
    memset(frame, 0, 64);
    frame[6] = reinterpret_cast<void*>(fiber_main);
    thread.stack_pointer = frame;
#elif defined(__aarch64__)
    void** frame = reinterpret_cast<void**>(top - 160);
    memset(frame, 0, 160);
    frame[11] = reinterpret_cast<void*>(fiber_main);  // x30
    thread.stack_pointer = frame;
#else
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack + sizeof STACK_END;
    thread.context.uc_stack.ss_size = STACK - sizeof STACK_END;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, fiber_main, 0);
#endif
}

void arrive_on_fiber([[maybe_unused]] Thread* thread) {
#ifdef ADDRESS_SANITIZER
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(thread ? thread->fake_stack : worker->fake_stack, &bottom, &size);
    if (worker->stack_bottom == nullptr) {
        worker->stack_bottom = bottom;
        worker->stack_size = size;
    }
#endif
}

/// Switches from a fiber (null: from the worker's own stack) to another. `back` is false where nobody will return.
void switch_to(Thread* from, Thread* to, [[maybe_unused]] bool back = true) {
    current = to;
    if (to) {
        threadIdx.x = to->index;
        const Block& block = *to->warp->block;
        blockIdx = block.index;
        window.shared_begin = reinterpret_cast<uintptr_t>(block.shared);
    }
#ifdef ADDRESS_SANITIZER
    void** fake = back ? from ? &from->fake_stack : &worker->fake_stack : nullptr;
    if (to) {
        __sanitizer_start_switch_fiber(fake, to->stack, STACK);
    } else {
        __sanitizer_start_switch_fiber(fake, worker->stack_bottom, worker->stack_size);
    }
#endif
#if defined(__x86_64__) || defined(__aarch64__)
    emulator_switch(from ? &from->stack_pointer : &worker->stack_pointer,
                    to ? to->stack_pointer : worker->stack_pointer);
#else
    swapcontext(from ? &from->context : &worker->context, to ? &to->context : &worker->context);
#endif
    arrive_on_fiber(from);
}

// ---- Failures -------------------------------------------------------------------------------------------------------

Text place(const Site& site) {
    if (!site.file) return text("instruction %#llx", (unsigned long long)site.line);
    const char* slash = strrchr(site.file, '/');
    return text("%s:%llu", slash ? slash + 1 : site.file, (unsigned long long)site.line);
}

/// The first failure of a launch is kept.
void record_failure(Launch& launch, const Text& where, const Text& what) {
    std::lock_guard<std::mutex> lock(launch.mutex);
    if (launch.failed) return;
    const EmulatorOptions& options = launch.options;
    launch.message = text("kernel %s, ", launch.kernel->name) + where + what +
                     text(" [schedule %u, seed %llu%s]", options.schedule, (unsigned long long)options.seed,
                          options.early_copies ? ", early copies" : "");
    launch.failed = true;
}
Text name_of(const Block& block) {
    return text("block (%u, %u, %u)", block.index.x, block.index.y, block.index.z);
}
/// Ends the launch; does not return to the fiber.
[[noreturn]] void fail(const Thread& thread, const Site& site, const Text& what) {
    const Text where = name_of(*thread.warp->block) + text(", thread %u, ", thread.index) + place(site) + ": ";
    record_failure(*worker->launch, where, what);
    switch_to(current, nullptr, false);
    abort();
}

// ---- Schedules ------------------------------------------------------------------------------------------------------

uint64_t next_random() {
    uint64_t& state = worker->random;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 11;
}
/// A set bit of `bits`: the first one at or after `start`, cyclically.
uint32_t bit_from(uint32_t bits, uint32_t start) {
    const uint32_t after = bits & (~0u << start);
    return __builtin_ctz(after ? after : bits);
}
uint32_t random_bit(uint32_t bits) { return bit_from(bits, next_random() % LANES); }

void make_ready(Warp& warp, uint32_t lanes) {
    warp.ready |= lanes;
    warp.block->ready_warps |= 1u << warp.index;
}
Thread* take(Warp& warp, uint32_t lane) {
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0) warp.block->ready_warps &= ~(1u << warp.index);
    return &warp.threads[lane];
}

/// Takes the thread that runs next, or null if none is ready.
Thread* pick() {
    const uint32_t schedule = worker->launch->options.schedule;
    if (current && schedule != 2 && worker->stay) {
        Warp& warp = *current->warp;
        if (warp.ready) return take(warp, schedule == 0 ? bit_from(warp.ready, current->lane) : random_bit(warp.ready));
    }
    worker->stay = true;
    size_t index = 0;
    if (schedule != 0) {
        index = next_random() % worker->block_count;
    } else if (current) {
        Block& block = *current->warp->block;
        if (block.ready_warps) {
            Warp& warp = block.warps[bit_from(block.ready_warps, current->warp->index)];
            return take(warp, __builtin_ctz(warp.ready));
        }
    }
    for (size_t tried = 0; tried < worker->block_count; ++tried) {
        Block& block = *worker->blocks[index];
        index = index + 1 == worker->block_count ? 0 : index + 1;
        if (block.ready_warps == 0) continue;
        Warp& warp = block.warps[schedule == 0 ? __builtin_ctz(block.ready_warps) : random_bit(block.ready_warps)];
        return take(warp, schedule == 0 ? __builtin_ctz(warp.ready) : random_bit(warp.ready));
    }
    return nullptr;
}

template <typename Visit>
void for_each_thread(Visit visit) {
    for (size_t block = 0; block < worker->block_count; ++block) {
        for (uint32_t index = 0; index < worker->launch->threads; ++index) visit(worker->threads[block][index]);
    }
}
Text state_of(const Thread& thread) {
    const Warp& warp = *thread.warp;
    if (thread.wait == Wait::Block) {
        return text("waits in block_barrier with %u of %u threads", warp.block->arrived, worker->launch->threads);
    }
    if (thread.wait == Wait::Relax) return "waits in a loop for a word that nobody changes";
    return text("waits in %s with %u of %u lanes", name_of(warp.meeting), __builtin_popcount(warp.arrived),
                __builtin_popcount(warp.existing));
}
[[noreturn]] void fail_deadlock() {
    // One thread, and one that waits for something else.
    const Thread* first = nullptr;
    const Thread* other = nullptr;
    for_each_thread([&](const Thread& thread) {
        if (thread.wait == Wait::Done) return;
        if (!first) first = &thread;
        const bool differs = thread.wait != first->wait || thread.site.line != first->site.line;
        if (!other && differs) other = &thread;
    });
    Text what = "deadlock: this thread " + state_of(*first);
    if (other) what = what + text("; thread %u ", other->index) + state_of(*other) + " at " + place(other->site);
    fail(*first, first->site, what);
}

/// The next thread to run; null if all have finished.
Thread* next_thread() {
    constexpr uint64_t IDLE_MAX = 10000;
    while (true) {
        if (Thread* thread = pick()) return thread;
        if (worker->relaxed) {
            worker->idle = worker->progress == worker->progress_seen ? worker->idle + 1 : 0;
            worker->progress_seen = worker->progress;
            if (worker->idle > IDLE_MAX) fail_deadlock();
            worker->relaxed = 0;
            for (size_t block = 0; block < worker->block_count; ++block) {
                const uint32_t warps = (worker->launch->threads + LANES - 1) / LANES;
                for (uint32_t index = 0; index < warps; ++index) {
                    Warp& warp = worker->blocks[block]->warps[index];
                    if (warp.relaxed) make_ready(warp, warp.relaxed);
                    warp.relaxed = 0;
                }
            }
        } else if (worker->living) {
            fail_deadlock();
        } else {
            return nullptr;
        }
    }
}
/// Lets others run until this thread is ready and its turn has come.
void suspend() {
    Thread* self = current;
    Thread* next = next_thread();
    if (next != self) switch_to(self, next);
    self->wait = Wait::None;
}

void flush_records(Warp& warp);

void finish() {
    Thread& thread = *current;
    Warp& warp = *thread.warp;
    Block& block = *warp.block;
    thread.wait = Wait::Done;
    if (warp.arrived) {
        const uint32_t waiting = __builtin_ctz(warp.arrived);
        fail(thread, warp.site, text("this thread returned while thread %u waits in %s",
                                     warp.threads[waiting].index, name_of(warp.meeting)));
    }
    if (block.arrived) fail(thread, block.site, "this thread returned while others wait in block_barrier");
    uint64_t end;
    memcpy(&end, thread.stack, sizeof end);
    if (end != STACK_END) fail(thread, thread.site, "this thread used more than its stack of 64 KiB");
    warp.finished |= 1u << thread.lane;
    if (worker->traced && warp.finished == warp.existing) flush_records(warp);
    block.finished += 1;
    worker->living -= 1;
    worker->progress += 1;
    switch_to(&thread, next_thread(), false);
}
void fiber_main() {
    arrive_on_fiber(current);
    worker->launch->kernel->body(worker->launch->arguments);
    finish();
    abort();
}

}  // namespace
}  // namespace emulator
