// Opcodes at which all lanes of a warp meet: exchanges between lanes, matrices from shared memory, matrix products.
#include "machine.h"
#include "matrix_units.h"

namespace interpreter {
namespace {

/// All the kernels' collectives are of whole warps.
void need_all_lanes(Warp& warp, uint32_t active) {
    if (active != ALL_LANES) fail(warp, "a collective in a warp of less than 32 lanes");
    warp.launch().counters.warp_collectives += 1;
}

// ---- shfl.sync: d|p, a, b, c, members. c holds the last lane, and above it the bits of the lane that stay as they are

/// Of `lane`: the last lane of its segment that c allows, and the first one of it.
struct Segment {
    uint32_t first, last;
    Segment(uint32_t lane, uint32_t c) {
        const uint32_t fixed = c >> 8 & 31;
        first = lane & fixed;
        last = first | (c & 31 & ~fixed);
    }
};

template <typename From>
void shuffle(Warp& warp, const Instruction& instruction, uint32_t active, From from) {
    need_all_lanes(warp, active);
    const uint32_t* const a = warp.lanes<uint32_t>(instruction.operand[2]);
    const uint32_t* const b = warp.lanes<uint32_t>(instruction.operand[3]);
    const uint32_t* const c = warp.lanes<uint32_t>(instruction.operand[4]);
    const uint32_t* const members = warp.lanes<uint32_t>(instruction.operand[5]);
    uint32_t result[LANES], in_range = 0;
    for (uint32_t lane = 0; lane < LANES; ++lane) {
        if (members[lane] != ALL_LANES) fail(warp, "a shuffle of a part of the warp");
        const Segment segment(lane, c[lane]);
        const uint32_t source = from(lane, b[lane], c[lane], segment);
        const bool valid = source <= segment.last;
        in_range |= uint32_t(valid) << lane;
        result[lane] = a[valid ? source : lane];
    }
    memcpy(warp.lanes<uint32_t>(instruction.operand[0]), result, sizeof result);
    warp.predicate(instruction.operand[1]) = in_range;
}
void shfl_bfly(Warp& warp, const Instruction& instruction, uint32_t active) {
    const auto from = [](uint32_t lane, uint32_t b, uint32_t, const Segment&) { return lane ^ (b & 31); };
    shuffle(warp, instruction, active, from);
}
void shfl_idx(Warp& warp, const Instruction& instruction, uint32_t active) {
    const auto from = [](uint32_t, uint32_t b, uint32_t c, const Segment& segment) {
        return segment.first | (b & 31 & ~(c >> 8));
    };
    shuffle(warp, instruction, active, from);
}

void bar_warp_sync(Warp& warp, const Instruction&, uint32_t active) {
    need_all_lanes(warp, active);
    warp.epoch += 1;
}

// ---- ldmatrix.x4: four matrices of 8 rows of 8 values of 16 bits ----------------------------------------------------

/// The addresses of matrix i's rows are those of lanes 8 i to 8 i + 7. Lane l gets, in register i, two neighbours of
/// row l / 4: columns 2 (l % 4) and the next. With TRANSPOSED, of the transposed matrix.
template <bool TRANSPOSED>
void ldmatrix_x4(Warp& warp, const Instruction& instruction, uint32_t active) {
    need_all_lanes(warp, active);
    const uint32_t* const base = warp.lanes<uint32_t>(instruction.operand[4]);
    uint32_t address[LANES];
    for (uint32_t lane = 0; lane < LANES; ++lane) address[lane] = base[lane] + uint32_t(instruction.displacement[0]);
    if (warp.launch().options.count) count_shared(warp, address, active, 16);
    for (uint32_t lane = 0; checks_shared(warp.launch()) && lane < LANES; ++lane) {
        touch_shared(warp, lane, address[lane], 16, false, true);
    }
    uint32_t result[4][LANES];
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
        uint16_t value[8][8];
        for (uint32_t row = 0; row < 8; ++row) {
            memcpy(value[row], shared_bytes(warp, address[8 * matrix + row], 16), 16);
        }
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            const uint32_t row = lane / 4, column = 2 * (lane % 4);
            const uint32_t low = TRANSPOSED ? value[column][row] : value[row][column];
            const uint32_t high = TRANSPOSED ? value[column + 1][row] : value[row][column + 1];
            result[matrix][lane] = low | high << 16;
        }
    }
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
        memcpy(warp.lanes<uint32_t>(instruction.operand[matrix]), result[matrix], sizeof result[matrix]);
    }
}

// ---- mma.m16n8k16: d, a, b, c in fragments --------------------------------------------------------------------------

// The ISA's tables of fragments. Element i of the lane's a (8), b (4) and c or d (4); two 16-bit elements a register.
uint32_t group_of(uint32_t lane) { return lane >> 2; }
uint32_t in_group(uint32_t lane) { return lane & 3; }
uint32_t a_row(uint32_t lane, uint32_t i) { return group_of(lane) + ((i < 2 || (i >= 4 && i < 6)) ? 0 : 8); }
uint32_t a_column(uint32_t lane, uint32_t i) { return in_group(lane) * 2 + (i & 1) + (i < 4 ? 0 : 8); }
uint32_t b_row(uint32_t lane, uint32_t i) { return in_group(lane) * 2 + (i & 1) + (i < 2 ? 0 : 8); }
uint32_t b_column(uint32_t lane, uint32_t) { return group_of(lane); }
uint32_t c_row(uint32_t lane, uint32_t i) { return group_of(lane) + (i < 2 ? 0 : 8); }
uint32_t c_column(uint32_t lane, uint32_t i) { return in_group(lane) * 2 + (i & 1); }

template <bool IS_BF16>
void mma_m16n8k16(Warp& warp, const Instruction& instruction, uint32_t active) {
    need_all_lanes(warp, active);
    const Register* const d = instruction.operand;
    const Register *const a = d + 4, *const b = a + 4, *const c = b + 2;
    const auto half = [&](Register at, uint32_t lane, uint32_t i) {
        return uint16_t(warp.lanes<uint32_t>(at)[lane] >> 16 * (i & 1));
    };
    Tiles tiles;
    tiles.is_bf16 = IS_BF16;
    for (uint32_t lane = 0; lane < LANES; ++lane) {
        for (uint32_t i = 0; i < 8; ++i) tiles.a[a_row(lane, i)][a_column(lane, i)] = half(a[i / 2], lane, i);
        for (uint32_t i = 0; i < 4; ++i) tiles.b[b_column(lane, i)][b_row(lane, i)] = half(b[i / 2], lane, i);
        for (uint32_t i = 0; i < 4; ++i) tiles.c[c_row(lane, i)][c_column(lane, i)] = warp.lanes<float>(c[i])[lane];
    }
    float result[16][8];
    multiply(MatrixUnits(warp.launch().options.matrix_units), tiles, result);
    for (uint32_t lane = 0; lane < LANES; ++lane) {
        for (uint32_t i = 0; i < 4; ++i) warp.lanes<float>(d[i])[lane] = result[c_row(lane, i)][c_column(lane, i)];
    }
    warp.launch().counters.matrix_products += 1;
    warp.launch().counters.warp_collectives -= 1;
}

}  // namespace

std::vector<Opcode> collective_opcodes() {
    const char* const SHUFFLE = "D32|DP, S32, S32, S32, S32";
    const char* const MATRICES = "{D32, D32, D32, D32}, [A32]";
    const char* const MMA = "{D32, D32, D32, D32}, {S32, S32, S32, S32}, {S32, S32}, {S32, S32, S32, S32}";
    const Flow MEET = Flow::Collective;
    return {
        {"bar.warp.sync", "-1", bar_warp_sync, MEET},
        {"shfl.sync.bfly.b32", SHUFFLE, shfl_bfly, MEET},
        {"shfl.sync.idx.b32", SHUFFLE, shfl_idx, MEET},
        {"ldmatrix.sync.aligned.m8n8.x4.shared.b16", MATRICES, ldmatrix_x4<false>, MEET},
        {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", MATRICES, ldmatrix_x4<true>, MEET},
        {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", MMA, mma_m16n8k16<true>, MEET},
        {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", MMA, mma_m16n8k16<false>, MEET},
    };
}

}  // namespace interpreter
