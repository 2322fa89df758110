// Vectors of 8 values of T, 16 bytes: what a thread reads or writes at a time; 8 floats in registers.
#pragma once
#include "common.cuh"

/// Entries of one vector.
constexpr uint32_t VECTOR = 8;

struct alignas(16) Float4 {
    float x, y, z, w;
};

template <typename T>
DEVICE Word4 load_vector(const T* address) {
    return load_global(reinterpret_cast<const Word4*>(address));
}
template <typename T>
DEVICE void store_vector(T* address, const Word4& vector) {
    store_global(reinterpret_cast<Word4*>(address), vector);
}

template <typename T>
DEVICE void unpack_vector(float (&value)[VECTOR], const Word4& vector) {
    const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        value[2 * i] = low<T>(words[i]);
        value[2 * i + 1] = high<T>(words[i]);
    }
}
template <typename T>
DEVICE Word4 pack_vector(const float (&value)[VECTOR]) {
    return {pack<T>(value[0], value[1]), pack<T>(value[2], value[3]), pack<T>(value[4], value[5]),
            pack<T>(value[6], value[7])};
}

/// 8 floats of global memory, 16-byte aligned.
DEVICE void load_floats(float (&value)[VECTOR], const float* address) {
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i += 4) {
        const Float4 part = load_global(reinterpret_cast<const Float4*>(address + i));
        value[i] = part.x;
        value[i + 1] = part.y;
        value[i + 2] = part.z;
        value[i + 3] = part.w;
    }
}
