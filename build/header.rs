//! Reads `kernels/arguments.h` and writes it in Rust: what kernels are told, with the same layout. Its C++ is plain:
//!
//! - `struct Name { type field; type field[length]; };`, where a type is `uint8_t`, `uint32_t`, `uint64_t`, `float`, an
//!   enum or struct from further above, or a pointer, which is an `Address` in Rust
//! - `enum class Name : uint32_t { First, Second };`, numbered from 0
//! - `constexpr uint32_t NAME = value;`, where a value is a number, a constant from above, or a product of these
//!
//! Anything else is an error with its line, and so is padding, which would be bytes of no value: a field says `unused`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::tokens::{Token, mistake, parts};

/// Words that are none of a field's in Rust.
const RESERVED: [&str; 12] = ["as", "fn", "impl", "in", "let", "loop", "match", "mod", "move", "ref", "type", "where"];

/// What a type is in Rust, and what is known of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Type {
    name: String,
    size: usize,
    alignment: usize,
    /// Holds `f32`, so that equality is not reflexive.
    float: bool,
    /// Holds an enum, so that not all bytes are a value.
    partial: bool,
}

#[derive(Debug)]
struct Field {
    name: String,
    of: Type,
    /// For an array.
    length: Option<u32>,
}

#[derive(Debug)]
enum Item {
    Constant { name: String, value: u32 },
    Enum { name: String, variants: Vec<String> },
    Struct { of: Type, fields: Vec<Field> },
}

/// The declarations of a header.
#[derive(Debug)]
pub struct Header {
    items: Vec<Item>,
    /// By their names in C++.
    types: BTreeMap<String, Type>,
}

/// What a struct is called in Rust: `LinearArguments` is `Linear`, in a module that says the rest.
pub fn rust_name(name: &str) -> &str {
    name.strip_suffix("Arguments").filter(|rest| !rest.is_empty()).unwrap_or(name)
}

impl Header {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// What is not of the kind above: file, line, expected, found.
    pub fn read(file: &str, text: &str) -> Result<Header, String> {
        let mut tokens = Vec::new();
        for part in parts(text) {
            if part.directive {
                let directive: String = part.tokens.iter().map(|token| token.text.as_str()).collect();
                if !["#pragmaonce", "#include<stdint.h>"].contains(&directive.as_str()) {
                    let wanted = "expected `#pragma once` or `#include <stdint.h>`, found another directive";
                    return Err(mistake(file, part.tokens[0].line, wanted));
                }
            } else {
                tokens.extend(part.tokens);
            }
        }
        let plain = |name: &str, size, float| Type { name: name.into(), size, alignment: size, float, partial: false };
        let types = [("uint32_t", plain("u32", 4, false)), ("uint64_t", plain("u64", 8, false))];
        let types = types.into_iter().chain([("float", plain("f32", 4, true)), ("uint8_t", plain("u8", 1, false))]);
        let types = types.chain([("void", plain("u8", 1, false))]);
        let types = types.map(|(name, of)| (name.to_owned(), of)).collect();
        let header = Header { items: Vec::new(), types };
        let mut reader = Preparer { file, tokens: &tokens, at: 0, header };
        while reader.at < tokens.len() {
            reader.item()?;
        }
        Ok(reader.header)
    }

    /// Whether it declares a struct of this name.
    pub fn has_struct(&self, name: &str) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Struct { of, .. } if of.name == rust_name(name)))
    }

    /// The declarations in Rust.
    pub fn write(&self) -> String {
        let mut text = String::new();
        self.items.iter().for_each(|item| write_item(item, &mut text));
        text
    }
}

fn write_item(item: &Item, text: &mut String) {
    let always = "Debug, Clone, Copy, Default, PartialEq";
    let done = match item {
        Item::Constant { name, value } => writeln!(text, "pub const {name}: u32 = {value};"),
        Item::Enum { name, variants } => {
            let numbered = variants.iter().enumerate().map(|(number, variant)| {
                let default = if number == 0 { "#[default]\n    " } else { "" };
                format!("    {default}{variant} = {number},\n")
            });
            let derives = format!("{always}, Eq, bytemuck::NoUninit, bytemuck::Zeroable");
            let numbered: String = numbered.collect();
            writeln!(text, "#[derive({derives})]\n#[repr(u32)]\npub enum {name} {{\n{numbered}}}")
        }
        Item::Struct { of: Type { name, size, float, partial, .. }, fields } => {
            let lines = fields.iter().map(|Field { name, of, length }| match length {
                Some(length) => format!("    pub {name}: [{}; {length}],\n", of.name),
                None => format!("    pub {name}: {},\n", of.name),
            });
            let lines: String = lines.collect();
            let bytes = if *partial { "bytemuck::NoUninit" } else { "bytemuck::Pod" };
            let derives = format!("{always}{}, {bytes}, bytemuck::Zeroable", if *float { "" } else { ", Eq" });
            writeln!(text, "#[derive({derives})]\n#[repr(C)]\npub struct {name} {{\n{lines}}}")
                .and_then(|()| writeln!(text, "const _: () = assert!(size_of::<{name}>() == {size});"))
        }
    };
    done.expect("strings take all that is written");
}

struct Preparer<'a> {
    file: &'a str,
    tokens: &'a [Token],
    at: usize,
    header: Header,
}

impl<'a> Preparer<'a> {
    /// The next token; at the end of the file an empty one.
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).map_or("", |token| &token.text)
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// The line of the last token that was taken.
    fn line(&self) -> usize {
        let last = self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last());
        last.map_or(1, |token| token.line)
    }

    fn mistake<T>(&self, what: impl std::fmt::Display) -> Result<T, String> {
        Err(mistake(self.file, self.line(), what))
    }

    fn found<T>(&self, expected: &str, found: &str) -> Result<T, String> {
        let found = if found.is_empty() { "the end of the file".to_owned() } else { format!("{found:?}") };
        self.mistake(format_args!("expected {expected}, found {found}"))
    }

    fn take(&mut self, sign: &str) -> Result<(), String> {
        match self.next() {
            found if found == sign => Ok(()),
            found => self.found(&format!("{sign:?}"), found),
        }
    }

    /// Takes a sign if it is there.
    fn took(&mut self, sign: &str) -> bool {
        let there = self.peek() == sign;
        self.at += usize::from(there);
        there
    }

    /// A name that nothing else has yet.
    fn name(&mut self, what: &str) -> Result<String, String> {
        let found = self.next();
        let begins = found.starts_with(|first: char| first.is_alphabetic() || first == '_');
        if !begins || RESERVED.contains(&found) {
            return self.found(&format!("the name of {what}"), found);
        }
        Ok(found.to_owned())
    }

    fn item(&mut self) -> Result<(), String> {
        match self.next() {
            "constexpr" => self.constant(),
            "enum" => self.enumeration(),
            "struct" => self.structure(),
            found => self.found("`struct`, `enum class` or `constexpr`", found),
        }
    }

    fn constant(&mut self) -> Result<(), String> {
        self.take("uint32_t")?;
        let name = self.name("a constant")?;
        self.take("=")?;
        let value = self.value()?;
        self.take(";")?;
        self.header.items.push(Item::Constant { name, value });
        Ok(())
    }

    /// A number, a constant, or a product.
    fn value(&mut self) -> Result<u32, String> {
        let mut product = 1u32;
        loop {
            let found = self.next();
            let mut constants = self.header.items.iter().filter_map(|item| match item {
                Item::Constant { name, value } if name == found => Some(*value),
                _ => None,
            });
            let number = match found.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => found.parse().ok(),
            };
            let Some(factor) = number.or_else(|| constants.next()) else {
                return self.found("a number or a constant from above", found);
            };
            let Some(larger) = product.checked_mul(factor) else { return self.mistake("a value beyond 32 bits") };
            product = larger;
            if !self.took("*") {
                return Ok(product);
            }
        }
    }

    fn enumeration(&mut self) -> Result<(), String> {
        self.take("class")?;
        let name = self.name("an enum")?;
        self.take(":")?;
        self.take("uint32_t")?;
        self.take("{")?;
        let mut variants = Vec::new();
        while !self.took("}") {
            variants.push(self.name("a variant")?);
            if !self.took(",") && self.peek() != "}" {
                let found = self.next();
                return self.found("\",\" or \"}\"", found);
            }
        }
        self.take(";")?;
        let of = Type { name: name.clone(), size: 4, alignment: 4, float: false, partial: true };
        self.declare(&name, of)?;
        self.header.items.push(Item::Enum { name, variants });
        Ok(())
    }

    fn declare(&mut self, name: &str, of: Type) -> Result<(), String> {
        if self.header.types.values().any(|other| other.name == of.name) {
            return self.mistake(format_args!("{name} is declared twice, in Rust as {}", of.name));
        }
        self.header.types.insert(name.to_owned(), of);
        Ok(())
    }

    fn structure(&mut self) -> Result<(), String> {
        let name = self.name("a struct")?;
        self.take("{")?;
        let (mut size, mut alignment) = (0usize, 1);
        let mut fields: Vec<Field> = Vec::new();
        while !self.took("}") {
            let field = self.field()?;
            if !size.is_multiple_of(field.of.alignment) {
                return self.mistake(format_args!("{name}: there would be padding before {}", field.name));
            }
            if fields.iter().any(|other| other.name == field.name) {
                return self.mistake(format_args!("{name}: {} is there twice", field.name));
            }
            size += field.of.size * field.length.unwrap_or(1) as usize;
            alignment = field.of.alignment.max(alignment);
            fields.push(field);
        }
        if size == 0 || !size.is_multiple_of(alignment) {
            let padding = size.next_multiple_of(alignment) - size;
            return self
                .mistake(format_args!("{name} has {size} bytes of fields, and would have {padding} of padding"));
        }
        self.take(";")?;
        let (float, partial) = (fields.iter().any(|field| field.of.float), fields.iter().any(|field| field.of.partial));
        let of = Type { name: rust_name(&name).to_owned(), size, alignment, float, partial };
        self.declare(&name, of.clone())?;
        self.header.items.push(Item::Struct { of, fields });
        Ok(())
    }

    fn field(&mut self) -> Result<Field, String> {
        let constant = self.took("const");
        let word = self.next();
        let Some(mut of) = self.header.types.get(word).cloned() else {
            return self.found("a type: uint8_t, uint32_t, uint64_t, float, or one from above", word);
        };
        if self.took("*") {
            of = Type { name: "Address".into(), size: 8, alignment: 8, float: false, partial: false };
        } else if constant || word == "void" {
            let found = self.next();
            return self.found("\"*\"", found);
        }
        let name = self.name("a field")?;
        let mut length = None;
        if self.took("[") {
            length = Some(self.value()?);
            self.take("]")?;
        }
        self.take(";")?;
        Ok(Field { name, of, length })
    }
}
