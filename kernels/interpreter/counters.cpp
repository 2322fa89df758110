// What warps ask for, instruction by instruction: bytes and sectors of device memory, passes over the banks of shared
// memory.
#include "machine.h"

namespace interpreter {

void count_global(Warp& warp, const uint64_t* address, uint32_t active, size_t size, bool store) {
    EmulatorCounters& counters = warp.launch().counters;
    std::vector<uint64_t> begins;
    for_each_lane(active, [&](uint32_t lane) { begins.push_back(address[lane]); });
    (store ? counters.global_store_bytes : counters.global_load_bytes) += begins.size() * size;
    std::sort(begins.begin(), begins.end());
    constexpr uint64_t SECTOR = 32;
    uint64_t bytes = 0, bytes_end = 0, sectors_end = 0;
    for (uint64_t begin : begins) {
        const uint64_t end = begin + size;
        bytes += end - std::min(std::max(begin, bytes_end), end);
        bytes_end = std::max(bytes_end, end);
        const uint64_t first = std::max(begin / SECTOR, sectors_end), last = (end + SECTOR - 1) / SECTOR;
        counters.global_sectors += last - std::min(first, last);
        sectors_end = std::max(sectors_end, last);
    }
    counters.global_sectors_ideal += (bytes + SECTOR - 1) / SECTOR;
}

void count_shared(Warp& warp, const uint32_t* address, uint32_t active, size_t size) {
    EmulatorCounters& counters = warp.launch().counters;
    counters.shared_accesses += uint64_t(__builtin_popcount(active));
    // Accesses of 8 and 16 bytes are served 16 and 8 lanes at a time.
    const uint32_t together = size <= 4 ? 32 : size == 8 ? 16 : 8;
    for (uint32_t first = 0; first < LANES; first += together) {
        std::vector<uint32_t> words;
        for (uint32_t lane = first; lane < first + together; ++lane) {
            if (!(active >> lane & 1)) continue;
            const uint32_t last = uint32_t(address[lane] + size - 1) / 4;
            for (uint32_t word = address[lane] / 4; word <= last; ++word) words.push_back(word);
        }
        if (words.empty()) continue;
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        uint32_t in_bank[32] = {}, most = 0;
        for (uint32_t word : words) most = std::max(most, ++in_bank[word % 32]);
        counters.shared_wavefronts += most;
        counters.shared_wavefronts_ideal += (words.size() + 31) / 32;
    }
}

}  // namespace interpreter
