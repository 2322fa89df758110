// One inline function for each instruction that C++ has no word for, each with its emulation for the processor. Nothing
// above this file writes assembly.
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__
#define KERNEL(name, Arguments, threads) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Arguments arguments)
#define RESIDENT_KERNEL(name, Arguments, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments arguments)
#define LARGE_KERNEL(name, Arguments, threads) RESIDENT_KERNEL(name, Arguments, threads, 1)

using bf16 = __nv_bfloat16;
using f16 = __half;

// EITHER picks what stands in a function for the GPU or for the processor. The emulator names the source line of a
// mistake: its functions end with a hidden parameter for the place they are called from.
#define EITHER(device, emulation) device
#define SITE
#define AND_SITE
#else
#include "emulator.h"  // DEVICE, KERNEL, LARGE_KERNEL, bf16, f16, threadIdx, blockIdx, blockDim, gridDim

#define EITHER(device, emulation) emulation
#define SITE emulator::Site site = emulator::Site::here()
#define AND_SITE , SITE
#endif

/// 16 bytes, the widest access of one thread.
struct alignas(16) Word4 {
    uint32_t x, y, z, w;
};
struct alignas(8) Word2 {
    uint32_t x, y;
};

template <typename T> constexpr bool IS_BF16 = false;
template <> constexpr bool IS_BF16<bf16> = true;

// ---- Conversions ---------------------------------------------------------------------------------------------------

/// The same bits as another type.
DEVICE float float_of_bits(uint32_t bits) { return EITHER(__uint_as_float(bits), emulator::bits_as<float>(bits)); }
DEVICE uint32_t bits_of_float(float value) {
    return EITHER(__float_as_uint(value), emulator::bits_as<uint32_t>(value));
}

DEVICE float to_float(bf16 value) { return EITHER(__bfloat162float(value), emulator::to_float(value)); }
DEVICE float to_float(f16 value) { return EITHER(__half2float(value), emulator::to_float(value)); }
template <typename T> DEVICE T from_float(float value);
template <> DEVICE bf16 from_float<bf16>(float value) {
    return EITHER(__float2bfloat16_rn(value), emulator::to_bf16(value));
}
template <> DEVICE f16 from_float<f16>(float value) {
    return EITHER(__float2half_rn(value), emulator::to_f16(value));
}

/// Two values in one word, the first in the lower half; rounded to nearest even.
template <typename T> DEVICE uint32_t pack(float first, float second) {
#ifdef __CUDACC__
    uint32_t word;
    if constexpr (IS_BF16<T>) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    }
    return word;
#else
    return from_float<T>(first).bits | uint32_t(from_float<T>(second).bits) << 16;
#endif
}
/// The halves of such a word.
template <typename T> DEVICE float low(uint32_t word) {
#ifdef __CUDACC__
    if constexpr (IS_BF16<T>) return __uint_as_float(word << 16);
    else return __half2float(__ushort_as_half(word & 0xffffu));
#else
    return to_float(T{uint16_t(word)});
#endif
}
template <typename T> DEVICE float high(uint32_t word) {
#ifdef __CUDACC__
    if constexpr (IS_BF16<T>) return __uint_as_float(word & 0xffff0000u);
    else return __half2float(__ushort_as_half(word >> 16));
#else
    return to_float(T{uint16_t(word >> 16)});
#endif
}

// ---- Memory --------------------------------------------------------------------------------------------------------

/// The block's dynamic shared memory.
DEVICE char* shared_memory() {
#ifdef __CUDACC__
    extern __shared__ __align__(128) char memory[];
    return memory;
#else
    return emulator::shared_memory();
#endif
}
DEVICE uint32_t shared_address(const void* pointer) {
    return EITHER(static_cast<uint32_t>(__cvta_generic_to_shared(pointer)), emulator::shared_address(pointer));
}

/// Reads from global memory; V is float, uint8_t, uint32_t, Word2, Word4, bf16 or f16. The address is a multiple of its
/// size.
template <typename V> DEVICE V load_global(const V* address AND_SITE) {
    return EITHER(*address, emulator::load_global(address, site));
}
template <typename V> DEVICE void store_global(V* address, V value AND_SITE) {
    EITHER(*address = value, emulator::store_global(address, value, site));
}

/// Reads 16 bytes that nothing writes while the kernel runs and that no other thread asks for: weights.
DEVICE Word4 load_streaming(const void* address AND_SITE) {
#ifdef __CUDACC__
    Word4 v;
    asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(address));
    return v;
#else
    return emulator::load_global(static_cast<const Word4*>(address), site);
#endif
}

/// Asks L2 for the 128 bytes around an address that will be read soon.
DEVICE void prefetch_l2([[maybe_unused]] const void* address) {
#ifdef __CUDACC__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

/// Reads and writes of shared memory.
template <typename V> DEVICE V load_shared(const V* address AND_SITE) {
    return EITHER(*address, emulator::load_shared(address, site));
}
template <typename V> DEVICE void store_shared(V* address, V value AND_SITE) {
    EITHER(*address = value, emulator::store_shared(address, value, site));
}

/// Starts copying 16 bytes from global to shared memory; where `valid` is false, zeros are written and nothing is read.
DEVICE void copy_async_16(void* shared, const void* global, bool valid AND_SITE) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
#else
    emulator::copy_async_16(shared, global, valid, site);
#endif
}
/// Closes a group of copies.
DEVICE void copy_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    emulator::copy_async_commit();
#endif
}
/// Waits until at most `PENDING` of this thread's groups are under way; a barrier must follow before others' copies are
/// read.
template <int PENDING> DEVICE void copy_async_wait(SITE) {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
    emulator::copy_async_wait(PENDING, site);
#endif
}

// ---- Matrix units --------------------------------------------------------------------------------------------------

/// Four 8x8 matrices of 16-bit values from shared memory. Lane l gives the address of row l % 8 of matrix l / 8 and
/// gets, of matrix i in word i, the values (row l / 4, columns 2 (l % 4) and one after).
DEVICE void load_matrix_x4(uint32_t (&word)[4], const void* row AND_SITE) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "r"(shared_address(row)) : "memory");
#else
    emulator::load_matrix_x4(word, row, false, site);
#endif
}
/// The same, each matrix transposed.
DEVICE void load_matrix_x4_transposed(uint32_t (&word)[4], const void* row AND_SITE) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "r"(shared_address(row)) : "memory");
#else
    emulator::load_matrix_x4(word, row, true, site);
#endif
}

/// d += a b: a (16, 16) row-major, b (16, 8), d (16, 8) f32 (PTX mma.m16n8k16). With g = lane / 4, t = lane % 4:
/// a: words 0, 1 hold rows g, g + 8 at columns 2t, 2t + 1; words 2, 3 the same rows at columns 2t + 8, 2t + 9.
/// b: word 0 holds rows 2t, 2t + 1 of column g, word 1 rows 2t + 8, 2t + 9.
/// d: 0, 1: row g, columns 2t, 2t + 1; 2, 3: row g + 8.
template <typename T>
DEVICE void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] AND_SITE) {
#ifdef __CUDACC__
#define MULTIPLY_ACCUMULATE(type)                                                                  \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                            \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                       \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
    if constexpr (IS_BF16<T>) MULTIPLY_ACCUMULATE("bf16");
    else MULTIPLY_ACCUMULATE("f16");
#undef MULTIPLY_ACCUMULATE
#else
    emulator::multiply_accumulate(d, a, b, IS_BF16<T>, site);
#endif
}

// ---- Meeting -------------------------------------------------------------------------------------------------------

/// All threads of the block.
DEVICE void block_barrier(SITE) { EITHER(__syncthreads(), emulator::block_barrier(site)); }
/// All lanes of the warp. Other warp collectives do not order what lanes read and write; this one does.
DEVICE void warp_barrier(SITE) { EITHER(__syncwarp(), emulator::warp_barrier(site)); }
/// The value of the lane whose number differs by the bits of `mask`. All lanes of the warp must call; V is 32 bits
/// wide.
template <typename V> DEVICE V shuffle_xor(V value, uint32_t mask AND_SITE) {
#ifdef __CUDACC__
    return __shfl_xor_sync(0xffffffffu, value, mask);
#else
    return emulator::bits_as<V>(emulator::shuffle_xor(emulator::bits_as<uint32_t>(value), mask, site));
#endif
}
/// The value of lane `lane`. All lanes of the warp must call.
template <typename V> DEVICE V shuffle(V value, uint32_t lane AND_SITE) {
#ifdef __CUDACC__
    return __shfl_sync(0xffffffffu, value, lane);
#else
    return emulator::bits_as<V>(emulator::shuffle(emulator::bits_as<uint32_t>(value), lane, site));
#endif
}
/// Whether any lane of the warp says so. All lanes must call.
DEVICE bool warp_any(bool value AND_SITE) {
#ifdef __CUDACC__
    return __any_sync(0xffffffffu, value);
#else
    return emulator::warp_any(value, site);
#endif
}

/// Adds to a word of global memory: what this thread wrote before is seen by whoever acquires the sum. Returns the old
/// value.
DEVICE uint32_t add_release(uint32_t* address, uint32_t value AND_SITE) {
#ifdef __CUDACC__
    uint32_t old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(address), "r"(value) : "memory");
    return old;
#else
    return emulator::add_release(address, value, site);
#endif
}
/// Reads a word; what its writer wrote before is seen from here on.
DEVICE uint32_t load_acquire(const uint32_t* address AND_SITE) {
#ifdef __CUDACC__
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
#else
    return emulator::load_acquire(address, site);
#endif
}
/// Lets others run while this thread waits in a loop for them.
DEVICE void relax(SITE) { EITHER(__nanosleep(32), emulator::relax(site)); }

// ---- Arithmetic ----------------------------------------------------------------------------------------------------

/// 2^x, relative error 2^-22; 2^-infinity is 0.
DEVICE float exponential_2(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return emulator::exponential_2(x);
#endif
}
/// e^x.
DEVICE float exponential(float x) { return exponential_2(x * 1.4426950408889634f); }
DEVICE float reciprocal_square_root(float x) { return EITHER(rsqrtf(x), emulator::reciprocal_square_root(x)); }
