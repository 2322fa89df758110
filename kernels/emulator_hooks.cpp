// What -fsanitize=thread makes the compiler call at each access to memory, given to the emulator's race detector: so it
// sees what kernels do without the functions of ptx.cuh. Kernels are compiled with -fsanitize=thread, this file and
// emulator.cpp without, and the program is linked without it.
#include <stddef.h>

#include "emulator.h"

#define HOOK(name, size, write) \
    void name(const void* address) { emulator::raw_access(address, size, write, __builtin_return_address(0)); }
#define HOOKS(size)                              \
    HOOK(__tsan_read##size, size, false)           \
    HOOK(__tsan_write##size, size, true)           \
    HOOK(__tsan_unaligned_read##size, size, false) \
    HOOK(__tsan_unaligned_write##size, size, true) \
    HOOK(__tsan_volatile_read##size, size, false)  \
    HOOK(__tsan_volatile_write##size, size, true)

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(const void* address, size_t size) {
    emulator::raw_access(address, size, false, __builtin_return_address(0));
}
void __tsan_write_range(const void* address, size_t size) {
    emulator::raw_access(address, size, true, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
