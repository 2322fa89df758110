// From the text of PTX to decoded instructions. Each statement is held to the forms that its opcode has in the tables;
// registers have the widths of their declarations, constants must fit them.
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <unordered_map>

#include "program.h"

namespace interpreter {
namespace {

struct Token {
    std::string_view text;  // empty at the end
    uint32_t line;
};

[[noreturn]] void refuse(const std::string& file, uint32_t line, const std::string& why, std::string_view text) {
    throw Fault{file + ":" + std::to_string(line) + ": " + why + ": " + one_line(text)};
}

/// Cuts a text into words and signs. A word is a name, an opcode or a number; "::" belongs to it.
class Scanner {
public:
    Scanner(std::string_view text, uint32_t line) : text_(text), line_(line) { advance(); }

    const Token& peek() const { return token_; }
    Token take() {
        const Token taken = token_;
        advance();
        return taken;
    }
    /// Where the next token is, in the text.
    size_t place() const { return at_ - token_.text.size(); }
    std::string_view text(size_t begin, size_t end) const { return text_.substr(begin, end - begin); }

private:
    static bool in_word(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
               c == '$' || c == '%';
    }
    void skip_blanks_and_comments() {
        while (at_ < text_.size()) {
            if (text_[at_] == '\n') ++line_;
            if (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r') {
                ++at_;
            } else if (text_.compare(at_, 2, "//") == 0) {
                at_ = std::min(text_.find('\n', at_), text_.size());
            } else {
                return;
            }
        }
    }
    void advance() {
        skip_blanks_and_comments();
        const size_t begin = at_;
        if (at_ == text_.size()) {
            token_ = Token{{}, line_};
            return;
        }
        if (text_[at_] == '"') {
            at_ = std::min(text_.find('"', at_ + 1), text_.size() - 1) + 1;
        } else {
            const bool number = text_[at_] == '-' && at_ + 1 < text_.size() && isdigit(text_[at_ + 1]);
            if (number) ++at_;
            while (at_ < text_.size() && (in_word(text_[at_]) || text_.compare(at_, 2, "::") == 0)) {
                at_ += text_[at_] == ':' ? 2 : 1;
            }
            if (at_ == begin) ++at_;  // a sign
        }
        token_ = Token{text_.substr(begin, at_ - begin), line_};
    }

    std::string_view text_;
    size_t at_ = 0;
    uint32_t line_;
    Token token_;
};

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

/// A number as PTX writes integers; false if it is none.
bool read_integer(std::string_view word, int64_t* value) {
    const std::string text(word);
    if (text.empty() || !(isdigit(text[0]) || (text[0] == '-' && text.size() > 1))) return false;
    char* end;
    errno = 0;
    *value = text[0] == '-' ? strtoll(text.c_str(), &end, 0) : int64_t(strtoull(text.c_str(), &end, 0));
    return *end == 0 && errno == 0;
}

// ---- Modules --------------------------------------------------------------------------------------------------------

class ModuleReader {
public:
    ModuleReader(const std::string& file, std::string_view text) : file_(file), scanner_(text, 1) {}

    std::vector<std::unique_ptr<Kernel>> read() {
        while (!scanner_.peek().text.empty()) declaration();
        return std::move(kernels_);
    }

private:
    [[noreturn]] void refuse_token(const Token& token, const std::string& why) {
        refuse(file_, token.line, why, token.text);
    }
    void expect(std::string_view word) {
        const Token token = scanner_.take();
        if (token.text != word) refuse_token(token, "expected " + std::string(word));
    }
    uint64_t number() {
        const Token token = scanner_.take();
        int64_t value;
        if (!read_integer(token.text, &value) || value < 0) refuse_token(token, "expected a number");
        return uint64_t(value);
    }
    void expect_all(std::initializer_list<std::string_view> words) {
        for (std::string_view word : words) expect(word);
    }

    void declaration() {
        const Token token = scanner_.take();
        if (token.text == ".version") {
            const Token version = scanner_.take();
            if (atoi(std::string(version.text).c_str()) < 7) refuse_token(version, "a version of PTX that is too old");
        } else if (token.text == ".target") {
            const Token target = scanner_.take();
            if (!starts_with(target.text, "sm_")) refuse_token(target, "a target that is not known");
        } else if (token.text == ".address_size") {
            expect("64");
        } else if (token.text == ".extern") {
            expect_all({".shared", ".align"});
            if (number() > 128) refuse_token(token, "an alignment that shared memory does not have");
            expect(".b8");
            shared_symbol_ = std::string(scanner_.take().text);
            expect_all({"[", "]", ";"});
        } else if (token.text == ".visible") {
            expect(".entry");
            entry();
        } else {
            refuse_token(token, "a declaration that is not known");
        }
    }

    void entry() {
        std::unique_ptr<Kernel> kernel(new Kernel());
        kernel->name = std::string(scanner_.take().text);
        kernel->file = file_;
        kernel->shared_symbol = shared_symbol_;
        expect_all({"(", ".param", ".align"});
        number();
        expect(".b8");
        kernel->parameter = std::string(scanner_.take().text);
        expect("[");
        kernel->arguments_size = number();
        expect_all({"]", ")"});
        while (scanner_.peek().text != "{") directive(*kernel);
        if (kernel->threads == 0) refuse_token(scanner_.peek(), "an entry without .maxntid");
        scanner_.take();
        kernel->body_line = scanner_.peek().line;
        const size_t begin = scanner_.place();
        for (uint32_t depth = 1;;) {
            const size_t end = scanner_.place();
            const Token token = scanner_.take();
            if (token.text.empty()) refuse_token(token, "a body without an end, of " + kernel->name);
            depth += token.text == "{";
            depth -= token.text == "}";
            if (depth > 0) continue;
            kernel->body = scanner_.text(begin, end);
            break;
        }
        kernels_.push_back(std::move(kernel));
    }
    void directive(Kernel& kernel) {
        const Token token = scanner_.take();
        if (token.text == ".maxntid") {
            kernel.threads = uint32_t(number());
            expect_all({",", "1", ",", "1"});
        } else if (token.text == ".minnctapersm") {
            number();
        } else {
            refuse_token(token, "a directive of an entry that is not known");
        }
    }

    const std::string& file_;
    Scanner scanner_;
    std::string shared_symbol_;
    std::vector<std::unique_ptr<Kernel>> kernels_;
};

// ---- The table of opcodes -------------------------------------------------------------------------------------------

struct Form {
    const Opcode* opcode;
    std::vector<std::string> parts;
};

const std::unordered_map<std::string_view, std::vector<Form>>& forms() {
    static const auto& table = *[] {
        auto* by_name = new std::unordered_map<std::string_view, std::vector<Form>>();
        for (const Opcode& opcode : opcodes()) {
            Form form{&opcode, {}};
            Scanner scanner(opcode.form, 0);
            while (!scanner.peek().text.empty()) form.parts.emplace_back(scanner.take().text);
            (*by_name)[opcode.name].push_back(std::move(form));
        }
        return by_name;
    }();
    return table;
}

// ---- Bodies ---------------------------------------------------------------------------------------------------------

/// Bits of a register's lane; a predicate has 1.
struct Declared {
    Register at;
    uint32_t bits;
};

class BodyDecoder {
public:
    explicit BodyDecoder(Kernel& kernel) : kernel_(kernel), scanner_(kernel.body, kernel.body_line), scopes_(1) {}

    void run() {
        while (!scanner_.peek().text.empty()) statement();
        // An end without `ret`, or a label after it, would run into nothing.
        if (kernel_.code.empty() || kernel_.code.back().flow != Flow::Return) refuse_here("expected ret at the end");
        for (const Jump& jump : jumps_) {
            const auto label = labels_.find(jump.label);
            Instruction& instruction = kernel_.code[jump.instruction];
            if (label == labels_.end() || label->second == kernel_.code.size()) {
                refuse(kernel_.file, instruction.line, "a label with nothing behind it", instruction.text);
            }
            instruction.target = label->second;
        }
    }

private:
    struct Jump {
        size_t instruction;
        std::string_view label;
    };

    [[noreturn]] void refuse_here(const std::string& why) {
        const size_t end = std::min(scanner_.place(), kernel_.body.size());
        refuse(kernel_.file, line_, why, scanner_.text(std::min(begin_, end), end));
    }
    void expect(std::string_view word) {
        if (scanner_.take().text != word) refuse_here("expected " + std::string(word));
    }

    void statement() {
        begin_ = scanner_.place();
        line_ = scanner_.peek().line;
        const Token token = scanner_.take();
        if (token.text == "{") {
            scopes_.emplace_back();
        } else if (token.text == "}") {
            assert(scopes_.size() > 1);  // the module's reader has paired them
            scopes_.pop_back();
        } else if (token.text == ".reg") {
            declare();
        } else if (token.text == ".pragma") {
            const std::string_view hint = scanner_.take().text;
            // Hints to the compiler that change no result.
            if (hint != "\"nounroll\"" && !starts_with(hint, "\"used_bytes_mask ")) refuse_here("an unknown pragma");
            expect(";");
        } else if (scanner_.peek().text == ":") {
            scanner_.take();
            const bool is_new = labels_.emplace(token.text, uint32_t(kernel_.code.size())).second;
            if (!is_new) refuse_here("a label that stands twice");
        } else {
            instruction(token);
        }
    }

    /// `.reg .b32 %r<5>;` declares %r0 to %r4, `.reg .b32 %r;` one register.
    void declare() {
        const std::string_view type = scanner_.take().text;
        uint32_t bits = 0;
        if (type == ".pred") bits = 1;
        if (type == ".b16" || type == ".u16" || type == ".s16") bits = 16;
        if (type == ".b32" || type == ".u32" || type == ".s32" || type == ".f32") bits = 32;
        if (type == ".b64" || type == ".u64" || type == ".s64") bits = 64;
        if (bits == 0) refuse_here("registers of a type that is not known");
        const std::string name(scanner_.take().text);
        if (scanner_.peek().text == "<") {
            scanner_.take();
            int64_t count;
            if (!read_integer(scanner_.take().text, &count) || count < 0 || count > 1 << 20) {
                refuse_here("expected a number of registers");
            }
            expect(">");
            for (int64_t i = 0; i < count; ++i) declare(name + std::to_string(i), bits);
        } else {
            declare(name, bits);
        }
        expect(";");
    }
    void declare(const std::string& name, uint32_t bits) {
        const bool is_new = scopes_.back().emplace(name, Declared{new_register(bits), bits}).second;
        if (!is_new) refuse_here("a register that is declared twice");
    }

    /// A register, poisoned.
    Register new_register(uint32_t bits) {
        constexpr size_t LINE = 64;
        const size_t size = bits == 1 ? sizeof(uint32_t) : LANES * bits / 8;
        const size_t at = kernel_.registers.size();
        kernel_.registers.resize(at + (size + LINE - 1) / LINE * LINE, char(0xff));
        return Register(at);
    }
    /// A register that always holds `value`.
    Register constant(uint32_t bits, uint64_t value) {
        const auto [found, is_new] = constants_.try_emplace({bits, value}, 0);
        if (!is_new) return found->second;
        const Register at = found->second = new_register(bits);
        char* const lanes = &kernel_.registers[at];
        if (bits == 1) {
            const uint32_t mask = value ? ALL_LANES : 0;
            memcpy(lanes, &mask, sizeof mask);
        }
        // The bytes of the value's low end come first.
        for (uint32_t lane = 0; bits > 1 && lane < LANES; ++lane) memcpy(lanes + lane * bits / 8, &value, bits / 8);
        return at;
    }

    const Declared* find(std::string_view name) const {
        for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
            const auto found = scope->find(std::string(name));
            if (found != scope->end()) return &found->second;
        }
        return nullptr;
    }
    /// The register of this name, if it has so many bits.
    bool declared(std::string_view name, uint32_t bits, Register* at) const {
        const Declared* found = find(name);
        if (!found || found->bits != bits) return false;
        *at = found->at;
        return true;
    }
    bool special(std::string_view name, Register* at) {
        static const std::pair<std::string_view, Special> NAMES[] = {
            {"%tid.x", Special::ThreadX},   {"%ctaid.x", Special::BlockX}, {"%ctaid.y", Special::BlockY},
            {"%ctaid.z", Special::BlockZ},  {"%ntid.x", Special::ThreadsX}, {"%nctaid.x", Special::BlocksX},
        };
        for (const auto& [known, which] : NAMES) {
            if (name != known) continue;
            const auto is_it = [which = which](const auto& special) { return special.second == which; };
            const auto found = std::find_if(kernel_.specials.begin(), kernel_.specials.end(), is_it);
            *at = found != kernel_.specials.end() ? found->first : new_register(32);
            if (found == kernel_.specials.end()) kernel_.specials.emplace_back(*at, which);
            return true;
        }
        return false;
    }
    /// A constant as an operand of so many bits.
    bool literal(std::string_view word, uint32_t bits, Register* at) {
        int64_t value;
        if (bits == 32 && (starts_with(word, "0f") || starts_with(word, "0F")) && word.size() == 10) {
            char* end;
            const std::string digits(word.substr(2));
            *at = constant(32, strtoul(digits.c_str(), &end, 16));
            return *end == 0;
        }
        if (!read_integer(word, &value)) return false;
        uint64_t mask = ~uint64_t(0);
        if (bits < 64) {
            // As a signed or an unsigned number; a predicate may be -1 as well.
            mask = (uint64_t(1) << bits) - 1;
            const int64_t least = bits == 1 ? -1 : -int64_t(mask / 2) - 1;
            if (value < least || value > int64_t(mask)) return false;
        }
        *at = constant(bits, uint64_t(value) & mask);
        return true;
    }
    /// The address that a symbol stands for.
    bool symbol(std::string_view word, uint32_t bits, Register* at) {
        if (bits == 32 && !kernel_.shared_symbol.empty() && word == kernel_.shared_symbol) {
            *at = constant(32, SHARED_BASE);
            return true;
        }
        if (bits == 64 && word == kernel_.parameter) {
            *at = constant(64, PARAMETER_BASE);
            return true;
        }
        return false;
    }
    bool source(std::string_view word, uint32_t bits, Register* at) {
        return declared(word, bits, at) || literal(word, bits, at) || symbol(word, bits, at) ||
               (bits == 32 && special(word, at));
    }

    void instruction(Token opcode) {
        Instruction next;
        next.line = line_;
        if (opcode.text == "@") {
            next.guard_negated = scanner_.peek().text == "!";
            if (next.guard_negated) scanner_.take();
            if (!declared(scanner_.take().text, 1, &next.guard)) refuse_here("expected a predicate");
            opcode = scanner_.take();
        }
        std::vector<std::string_view> words;
        while (scanner_.peek().text != ";") {
            if (scanner_.peek().text.empty()) refuse_here("a statement without an end");
            words.push_back(scanner_.take().text);
        }
        const size_t end = scanner_.place();
        scanner_.take();
        next.text = scanner_.text(begin_, end);

        const auto known = forms().find(opcode.text);
        if (known == forms().end()) refuse(kernel_.file, line_, "an opcode that is not known", next.text);
        const Form* form = nullptr;
        Instruction filled;
        for (const Form& candidate : known->second) {
            filled = next;
            if (matches(candidate, words, filled)) form = &candidate;
            if (form) break;
        }
        if (!form) refuse(kernel_.file, line_, "operands of a form that is not known", next.text);
        filled.execute = form->opcode->execute;
        filled.flow = form->opcode->flow;
        if (filled.guard != NO_REGISTER && filled.flow != Flow::Branch) {
            refuse(kernel_.file, line_, "a guard of something else than a branch", next.text);
        }
        kernel_.code.push_back(filled);
    }

    /// Whether the words have the form; then the instruction's operands are filled in.
    bool matches(const Form& form, const std::vector<std::string_view>& words, Instruction& instruction) {
        size_t at = 0, operands = 0, addresses = 0;
        for (const std::string& part : form.parts) {
            if (at == words.size()) return false;
            const std::string_view word = words[at++];
            const bool is_operand = part.size() > 1 && strchr("DSA", part[0]) && part != "L";
            if (part == "L") {
                jumps_.push_back(Jump{kernel_.code.size(), word});
            } else if (part == "I") {
                if (!read_integer(word, &instruction.immediate) || instruction.immediate < 0) return false;
            } else if (!is_operand) {
                if (word != part) return false;
            } else {
                const uint32_t bits = part[1] == 'P' ? 1 : uint32_t(atoi(part.c_str() + 1));
                Register* const into = &instruction.operand[operands++];
                const bool found = part[0] == 'D'   ? declared(word, bits, into)
                                   : part[0] == 'S' ? source(word, bits, into)
                                                    : declared(word, bits, into) || symbol(word, bits, into);
                if (!found) return false;
                if (part[0] != 'A') continue;
                int64_t& displacement = instruction.displacement[addresses++];
                if (at + 1 < words.size() && words[at] == "+") {
                    if (!read_integer(words[at + 1], &displacement)) return false;
                    if (displacement != int32_t(displacement)) return false;
                    at += 2;
                }
            }
        }
        return at == words.size();
    }

    Kernel& kernel_;
    Scanner scanner_;
    std::vector<std::unordered_map<std::string, Declared>> scopes_;
    std::unordered_map<std::string_view, uint32_t> labels_;
    std::vector<Jump> jumps_;
    struct Constant {
        uint32_t bits;
        uint64_t value;
        bool operator==(const Constant& other) const { return bits == other.bits && value == other.value; }
    };
    struct Hash {
        size_t operator()(const Constant& of) const { return std::hash<uint64_t>()(of.value) + of.bits; }
    };
    std::unordered_map<Constant, Register, Hash> constants_;
    size_t begin_ = 0;  // of the statement
    uint32_t line_ = 0;
};

}  // namespace

const std::vector<Opcode>& opcodes() {
    static const std::vector<Opcode>& all = *[] {
        std::vector<Opcode>* tables = new std::vector<Opcode>();
        for (auto* table : {arithmetic_opcodes, memory_opcodes, collective_opcodes, flow_opcodes}) {
            for (Opcode& opcode : table()) tables->push_back(std::move(opcode));
        }
        return tables;
    }();
    return all;
}

std::string one_line(std::string_view text) {
    constexpr size_t SHOWN = 160;
    std::string line;
    for (char c : text.substr(0, SHOWN)) {
        const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
        if (!blank) line += c;
        else if (!line.empty() && line.back() != ' ') line += ' ';
    }
    return line;
}

std::vector<std::unique_ptr<Kernel>> read_module(const std::string& file, std::string_view text) {
    return ModuleReader(file, text).read();
}

void decode(Kernel& kernel) { BodyDecoder(kernel).run(); }

}  // namespace interpreter
