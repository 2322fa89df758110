// The modules that an interpreter runs: texts of PTX, which a program or library brings with it.
#pragma once
#include <stddef.h>

extern "C" {
/// A text, and how faults name it.
typedef struct {
    const char* file;
    const char* begin;
    const char* end;
} InterpreterModule;

/// Defined by whatever is linked with the interpreter.
extern const InterpreterModule flamant_interpreter_modules[];
extern const size_t flamant_interpreter_module_count;
}
