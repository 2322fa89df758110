// PTX as the interpreter holds it: kernels whose instructions are decoded, and the table of opcodes that it knows.
//
// The interpreter executes the PTX that nvcc makes of the kernels, on the processor and behind the C interface of
// ../emulator.h. It is written from the PTX ISA 9.0 and not from ptx.cuh: a second reading of what each line of
// assembly means, of what the compiler really made of the sources. Whatever it does not know exactly, an opcode, a
// modifier or a form of operands, it refuses with file, line and text. Not covered: what ptxas makes of PTX, the
// order of memory between blocks, and time. Races in shared memory are detected; one in device memory shows only
// where another order of blocks, warps or lanes changes a result.
#pragma once
#include <stdint.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace interpreter {

constexpr uint32_t LANES = 32;
constexpr uint32_t ALL_LANES = ~0u;

struct Warp;
struct Instruction;

/// What an opcode does for the lanes in `active`, as bits.
using Execute = void (*)(Warp& warp, const Instruction& instruction, uint32_t active);

/// What an instruction does to the order in which others run.
enum class Flow : uint8_t {
    Next,
    Branch,
    Return,
    Pause,         // others may run first: nanosleep
    Collective,    // all lanes of the warp meet, then it is executed once for all
    BlockBarrier,  // so do all warps of the block
};

/// Where a register is in the register file of a warp, in bytes. A register is 32 lanes side by side; a predicate is
/// one word whose bits are the lanes.
using Register = uint32_t;
constexpr Register NO_REGISTER = ~0u;

/// An instruction, ready to run: operands are registers, constants included.
struct Instruction {
    Execute execute = nullptr;
    Flow flow = Flow::Next;
    bool guard_negated = false;
    Register guard = NO_REGISTER;  // of a branch
    uint32_t target = 0;           // of a branch, as an index
    Register operand[14] = {};     // in the order of the text
    int64_t displacement[2] = {};  // of each address
    int64_t immediate = 0;
    uint32_t line = 0;
    std::string_view text;
};

/// A register that the machine fills in.
enum class Special : uint8_t { ThreadX, BlockX, BlockY, BlockZ, ThreadsX, BlocksX };

/// One entry point of a module.
struct Kernel {
    std::string name;
    std::string file;
    size_t arguments_size = 0;
    uint32_t threads = 0;  // most that a block may have
    std::string parameter;      // the symbol of its one parameter
    std::string shared_symbol;  // of the block's dynamic shared memory; empty without
    std::string_view body;
    uint32_t body_line = 0;

    // Filled by decode().
    std::vector<Instruction> code;
    std::vector<char> registers;  // the file of a warp at its start: poison, and constants in their places
    std::vector<std::pair<Register, Special>> specials;
    std::once_flag decoded;
    std::string refusal;  // why it cannot be run
};

/// What ends a launch, or the reading of a module: one line.
struct Fault {
    std::string line;
};
/// The beginning of a text, with its white space as single blanks.
std::string one_line(std::string_view text);

/// Addresses that symbols stand for. The low 32 bits of a generic address of shared memory differ from the address in
/// its own space, so that taking one for the other is a fault.
constexpr uint32_t SHARED_BASE = 1024;
constexpr uint64_t SHARED_WINDOW = 0x00007f40'00200000;
constexpr uint64_t PARAMETER_BASE = 0x00000100'00000000;

/// An opcode with all its modifiers, and one form of its operands.
///
/// A form is written as PTX writes operands. D16, D32, D64 and DP stand for a register that is written (DP: a
/// predicate), S16, S32, S64 and SP for one that is read or a constant, A32 and A64 for an address with or without
/// displacement, I for a constant that is part of the instruction, L for a label; all else stands for itself. An opcode
/// has several entries if it has several forms.
struct Opcode {
    std::string name;
    std::string form;
    Execute execute;
    Flow flow = Flow::Next;
};
std::vector<Opcode> arithmetic_opcodes();
std::vector<Opcode> memory_opcodes();
std::vector<Opcode> collective_opcodes();
std::vector<Opcode> flow_opcodes();
/// All of them.
const std::vector<Opcode>& opcodes();

/// The kernels of a module's text, which must outlive them; their bodies are not looked at yet.
std::vector<std::unique_ptr<Kernel>> read_module(const std::string& file, std::string_view text);
/// Decodes a kernel's body.
void decode(Kernel& kernel);

}  // namespace interpreter
