//! An inert reader of the pickles inside PyTorch archives. It builds data and calls nothing.
//!
//! A pickle is a program that may name any function of the Python installation. Here a name outside a fixed list is
//! an error that shows the name, and the names on the list are labels: those for containers and tensors make values
//! of this module, the others (what optimisers and training scripts leave behind) make [`Value::Opaque`], whatever is
//! done to them. There is no fallback. Values lie in one arena and point at each other by index, so neither sharing
//! nor depth nor cycles cost more than the opcodes that made them, and those are counted.

use super::RANK_MAX;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Bytes of one pickle.
pub const BYTES_MAX: usize = 64 << 20;
/// Opcodes of one pickle; a state dictionary takes about 25 a tensor.
pub const OPCODES_MAX: usize = 1_000_000;

const PROTOCOL_MAX: u8 = 5;

/// A value of a pickle, named by its place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// What a pickle can hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A number that fits 64 bits.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// A list, or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dictionary of any kind, in the order of insertion.
    Dictionary(Vec<(Id, Id)>),
    /// A name on the list.
    Global(Global<'a>),
    /// The numbers behind tensors.
    Storage(Storage<'a>),
    /// A view of a storage.
    Tensor(Box<TensorView<'a>>),
    /// An instance of a TorchScript class: its class's name and the dictionary of its attributes.
    Object(&'a str, Option<Id>),
    /// Something whose content is of no interest, such as bytes or a foreign object.
    Opaque,
}

/// What a name on the list stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global<'a> {
    /// A dictionary class.
    Dictionary,
    /// A function or class whose first argument is all that matters.
    First,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._tensor._rebuild_from_type_v2`: calls its first argument with its third.
    TypedTensor,
    /// A storage class.
    Storage(StorageType),
    /// A TorchScript class.
    Script(&'a str),
    /// A name that can do no harm as a label.
    Inert,
}

/// The number formats of PyTorch's storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageType {
    /// `float64`.
    Double,
    /// `float32`.
    Float,
    /// `float16`.
    Half,
    /// `bfloat16`.
    BFloat16,
    /// `int64`.
    Long,
    /// `int32`.
    Int,
    /// `int16`.
    Short,
    /// `int8`.
    Char,
    /// `uint8`.
    Byte,
    /// `bool`.
    Bool,
    /// `complex64`.
    ComplexFloat,
    /// `complex128`.
    ComplexDouble,
}

impl StorageType {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            StorageType::ComplexDouble => 16,
            StorageType::Double | StorageType::Long | StorageType::ComplexFloat => 8,
            StorageType::Float | StorageType::Int => 4,
            StorageType::Half | StorageType::BFloat16 | StorageType::Short => 2,
            StorageType::Char | StorageType::Byte | StorageType::Bool => 1,
        }
    }

    fn of_class(name: &str) -> Option<Self> {
        Some(match name.strip_suffix("Storage")? {
            "Double" => StorageType::Double,
            "Float" => StorageType::Float,
            "Half" => StorageType::Half,
            "BFloat16" => StorageType::BFloat16,
            "Long" => StorageType::Long,
            "Int" => StorageType::Int,
            "Short" => StorageType::Short,
            "Char" => StorageType::Char,
            "Byte" => StorageType::Byte,
            "Bool" => StorageType::Bool,
            "ComplexFloat" => StorageType::ComplexFloat,
            "ComplexDouble" => StorageType::ComplexDouble,
            _ => return None,
        })
    }
}

/// A record of the archive that holds numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage<'a> {
    /// The format of the numbers.
    pub kind: StorageType,
    /// The record's name in the archive's `data` folder.
    pub key: &'a str,
    /// How many numbers it has.
    pub elements: usize,
}

/// A tensor as the pickle states it: nothing is checked yet but that the numbers are not negative and the rank is
/// small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Where its numbers are.
    pub storage: Storage<'a>,
    /// The first number's index in the storage.
    pub offset: usize,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Steps between the numbers of each dimension.
    pub strides: Vec<usize>,
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// The value that the pickle is of.
    pub fn root(&self) -> Id {
        self.root
    }

    /// A value by its place.
    pub fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }
}

/// Reads a pickle. `source` is named in errors.
pub fn parse<'a>(bytes: &'a [u8], source: &Path) -> Result<Pickle<'a>> {
    if bytes.len() > BYTES_MAX {
        return Err(Error::limit(format!("{}: pickle bytes", source.display()), BYTES_MAX as u64, bytes.len() as u64));
    }
    let mut machine = Machine {
        bytes,
        source,
        at: 0,
        values: vec![Value::None, Value::Bool(false), Value::Bool(true), Value::Opaque],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine.run()?;
    Ok(Pickle { values: machine.values, root })
}

// Values that every pickle shares.
const NONE: Id = Id(0);
const FALSE: Id = Id(1);
const TRUE: Id = Id(2);
const OPAQUE: Id = Id(3);

/// What a name stands for, if it is on the list.
fn global<'a>(module: &'a str, name: &'a str) -> Option<Global<'a>> {
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dictionary,
        // Settings of training, as OpenMMLab keeps them.
        ("mmengine.config.config" | "mmcv.utils.config", "ConfigDict") => Global::Dictionary,
        ("torch._utils", "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::TypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") | ("torch", "Size") => Global::First,
        ("builtins" | "__builtin__", "set" | "frozenset") => Global::First,
        ("torch.jit._pickle", "restore_type_tag") => Global::First,
        ("torch.jit._pickle", "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist") => {
            Global::First
        }
        ("torch" | "torch.storage", name) if StorageType::of_class(name).is_some() => {
            Global::Storage(StorageType::of_class(name)?)
        }
        (module, _) if module == "__torch__" || module.starts_with("__torch__.") => Global::Script(name),
        // Formats, devices, and what optimisers, schedulers and training scripts store.
        (
            "torch",
            "float64" | "float32" | "float16" | "bfloat16" | "int64" | "int32" | "int16" | "int8" | "uint8" | "bool",
        ) => Global::Inert,
        ("torch", "device" | "Tensor" | "Generator" | "strided" | "contiguous_format" | "preserve_format") => {
            Global::Inert
        }
        ("torch.nn.parameter", "Parameter") | ("torch.serialization", "_get_layout") => Global::Inert,
        ("builtins" | "__builtin__", "int" | "float" | "bool" | "str" | "list" | "dict" | "complex" | "bytearray") => {
            Global::Inert
        }
        ("mmengine.config.config" | "mmcv.utils.config", "Config") => Global::Inert,
        ("_codecs", "encode") | ("argparse", "Namespace") | ("datetime", "datetime" | "timedelta") => Global::Inert,
        ("pathlib", "Path" | "PosixPath" | "PurePosixPath" | "WindowsPath") => Global::Inert,
        ("numpy", "dtype" | "ndarray") => Global::Inert,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct") => Global::Inert,
        _ => return None,
    })
}

/// The opcodes that PyTorch writes, under the names of Python's `pickletools`.
mod opcode {
    pub const STOP: u8 = b'.';
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;
    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG1: u8 = 0x8a;
    pub const LONG4: u8 = 0x8b;
    pub const BINFLOAT: u8 = b'G';
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE: u8 = b'X';
    pub const BINUNICODE8: u8 = 0x8d;
    pub const SHORT_BINSTRING: u8 = b'U';
    pub const SHORT_BINBYTES: u8 = b'C';
    pub const BINSTRING: u8 = b'T';
    pub const BINBYTES: u8 = b'B';
    pub const BINBYTES8: u8 = 0x8e;
    pub const BYTEARRAY8: u8 = 0x96;
    pub const EMPTY_DICT: u8 = b'}';
    pub const EMPTY_LIST: u8 = b']';
    pub const EMPTY_SET: u8 = 0x8f;
    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;
    pub const TUPLE: u8 = b't';
    pub const FROZENSET: u8 = 0x91;
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const ADDITEMS: u8 = 0x90;
    pub const SETITEM: u8 = b's';
    pub const SETITEMS: u8 = b'u';
    pub const MARK: u8 = b'(';
    pub const POP: u8 = b'0';
    pub const POP_MARK: u8 = b'1';
    pub const DUP: u8 = b'2';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const MEMOIZE: u8 = 0x94;
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';
    pub const GLOBAL: u8 = b'c';
    pub const STACK_GLOBAL: u8 = 0x93;
    pub const REDUCE: u8 = b'R';
    pub const NEWOBJ: u8 = 0x81;
    pub const BUILD: u8 = b'b';
    pub const BINPERSID: u8 = b'Q';
}

/// The pickle machine: a stack with marks, a memo, and the arena.
struct Machine<'a, 's> {
    bytes: &'a [u8],
    source: &'s Path,
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a, '_> {
    fn run(&mut self) -> Result<Id> {
        for _ in 0..OPCODES_MAX {
            let code = self.u8()?;
            if code == opcode::STOP {
                return self.stop();
            }
            self.step(code)?;
        }
        Err(Error::limit(
            format!("{}: pickle opcodes", self.source.display()),
            OPCODES_MAX as u64,
            OPCODES_MAX as u64 + 1,
        ))
    }

    fn stop(&mut self) -> Result<Id> {
        let root = self.pop()?;
        match self.bytes.len() - self.at {
            0 => Ok(root),
            rest => Err(self.wrong("the end after STOP", format!("{rest} bytes more"))),
        }
    }

    /// Carries out one opcode.
    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            opcode::PROTO => self.protocol(),
            opcode::FRAME => self.take(8).map(drop),
            opcode::NONE => self.push_id(NONE),
            opcode::NEWTRUE => self.push_id(TRUE),
            opcode::NEWFALSE => self.push_id(FALSE),
            opcode::BININT => self.u32().and_then(|bits| self.push(Value::Int(i64::from(bits as i32)))),
            opcode::BININT1 => self.u8().and_then(|value| self.push(Value::Int(i64::from(value)))),
            opcode::BININT2 => self.u16().and_then(|value| self.push(Value::Int(i64::from(value)))),
            opcode::LONG1 => self.u8().and_then(|length| self.long(usize::from(length))),
            opcode::LONG4 => self.u32().and_then(|length| self.long(length as usize)),
            opcode::BINFLOAT => self.chunk().and_then(|bits| self.push(Value::Float(f64::from_be_bytes(bits)))),
            opcode::SHORT_BINUNICODE => self.u8().and_then(|length| self.text(usize::from(length))),
            opcode::BINUNICODE => self.u32().and_then(|length| self.text(length as usize)),
            opcode::BINUNICODE8 => self.length_64().and_then(|length| self.text(length)),
            opcode::SHORT_BINSTRING | opcode::SHORT_BINBYTES => {
                self.u8().and_then(|length| self.binary(usize::from(length)))
            }
            opcode::BINSTRING | opcode::BINBYTES => self.u32().and_then(|length| self.binary(length as usize)),
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => self.length_64().and_then(|length| self.binary(length)),
            opcode::EMPTY_DICT => self.push(Value::Dictionary(Vec::new())),
            opcode::EMPTY_LIST | opcode::EMPTY_SET => self.push(Value::List(Vec::new())),
            opcode::EMPTY_TUPLE => self.push(Value::Tuple(Vec::new())),
            opcode::TUPLE1 => self.small_tuple(1),
            opcode::TUPLE2 => self.small_tuple(2),
            opcode::TUPLE3 => self.small_tuple(3),
            opcode::TUPLE => self.pop_to_mark().and_then(|items| self.push(Value::Tuple(items))),
            opcode::FROZENSET => self.pop_to_mark().and_then(|items| self.push(Value::List(items))),
            opcode::APPEND => self.pop().and_then(|item| self.append(vec![item])),
            opcode::APPENDS | opcode::ADDITEMS => self.pop_to_mark().and_then(|items| self.append(items)),
            opcode::SETITEM => self.pop_two().and_then(|pair| self.set_items(&pair)),
            opcode::SETITEMS => self.pop_to_mark().and_then(|items| self.set_items(&items)),
            opcode::MARK => self.mark(),
            opcode::POP => self.pop().map(drop),
            opcode::POP_MARK => self.pop_to_mark().map(drop),
            opcode::DUP => self.top().and_then(|id| self.push_id(id)),
            opcode::BINPUT => self.u8().and_then(|key| self.memorise(u32::from(key))),
            opcode::LONG_BINPUT => self.u32().and_then(|key| self.memorise(key)),
            opcode::MEMOIZE => self.memorise(self.memo.len() as u32),
            opcode::BINGET => self.u8().and_then(|key| self.recall(u32::from(key))),
            opcode::LONG_BINGET => self.u32().and_then(|key| self.recall(key)),
            opcode::GLOBAL => self.global_lines(),
            opcode::STACK_GLOBAL => self.global_stack(),
            opcode::REDUCE | opcode::NEWOBJ => self.call(),
            opcode::BUILD => self.build(),
            opcode::BINPERSID => self.storage(),
            _ => Err(self.wrong("an opcode that PyTorch writes", format!("{code:#04x}"))),
        }
    }

    fn protocol(&mut self) -> Result<()> {
        match self.u8()? {
            ..=PROTOCOL_MAX => Ok(()),
            protocol => Err(self.wrong(format!("a pickle protocol up to {PROTOCOL_MAX}"), protocol)),
        }
    }

    /// A number in two's complement, least significant byte first, of any length.
    fn long(&mut self, length: usize) -> Result<()> {
        let digits = self.take(length)?;
        if digits.len() > 8 {
            return self.push_id(OPAQUE);
        }
        let sign = if digits.last().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 };
        let mut bytes = [sign; 8];
        bytes[..digits.len()].copy_from_slice(digits);
        self.push(Value::Int(i64::from_le_bytes(bytes)))
    }

    fn text(&mut self, length: usize) -> Result<()> {
        let bytes = self.take(length)?;
        let text = str::from_utf8(bytes).map_err(|reason| self.wrong("text in UTF-8", reason))?;
        self.push(Value::Text(text))
    }

    fn binary(&mut self, length: usize) -> Result<()> {
        self.take(length)?;
        self.push_id(OPAQUE)
    }

    fn small_tuple(&mut self, length: usize) -> Result<()> {
        let mut items = vec![NONE; length];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list.0 as usize] {
            Value::List(present) => present.extend(items),
            Value::Opaque => (),
            _ => return Err(self.wrong("a list to append to", "something else")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let dictionary = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.wrong("keys with values", "an odd number of items"));
        };
        match &mut self.values[dictionary.0 as usize] {
            Value::Dictionary(present) => present.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Value::Opaque => (),
            _ => return Err(self.wrong("a dictionary to set items of", "something else")),
        }
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn memorise(&mut self, key: u32) -> Result<()> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        match self.memo.get(&key) {
            Some(&id) => self.push_id(id),
            None => Err(self.wrong("a remembered value", format!("none at {key}"))),
        }
    }

    fn global_lines(&mut self) -> Result<()> {
        let (module, name) = (self.line()?, self.line()?);
        self.push_global(module, name)
    }

    fn global_stack(&mut self) -> Result<()> {
        let [module, name] = self.pop_two()?;
        match (&self.values[module.0 as usize], &self.values[name.0 as usize]) {
            (&Value::Text(module), &Value::Text(name)) => self.push_global(module, name),
            _ => Err(self.wrong("the text of a global's name", "something else")),
        }
    }

    fn push_global(&mut self, module: &'a str, name: &'a str) -> Result<()> {
        match global(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(self.wrong("only names that a state dictionary needs", format!("the global {module}.{name}"))),
        }
    }

    /// What calling a name on the list makes; nothing is ever called.
    fn call(&mut self) -> Result<()> {
        let [callee, arguments] = self.pop_two()?;
        let first = self.arguments::<1>(arguments).ok().map(|[first]| first);
        match self.values[callee.0 as usize] {
            Value::Global(Global::Dictionary) => match first.map(|id| (id, &self.values[id.0 as usize])) {
                Some((id, Value::Dictionary(_))) => self.push_id(id),
                None | Some((_, Value::Global(_) | Value::None)) => self.push(Value::Dictionary(Vec::new())),
                Some(_) => Err(self.wrong("a dictionary", "something else")),
            },
            Value::Global(Global::First) => self.arguments(arguments).and_then(|[first]| self.push_id(first)),
            Value::Global(Global::Tensor) => self.tensor(arguments),
            Value::Global(Global::TypedTensor) => self.typed_tensor(arguments),
            Value::Global(Global::Script(class)) => self.push(Value::Object(class, None)),
            Value::Global(Global::Inert) | Value::Opaque => self.push_id(OPAQUE),
            _ => Err(self.wrong("something that a state dictionary calls", "something else")),
        }
    }

    /// The first `N` of a call's arguments. They are never copied as a whole: a pickle may call often with a long
    /// tuple.
    fn arguments<const N: usize>(&self, id: Id) -> Result<[Id; N]> {
        let arguments = match &self.values[id.0 as usize] {
            Value::Tuple(arguments) => arguments.as_slice(),
            _ => return Err(self.wrong("a tuple of arguments", "something else")),
        };
        let enough = arguments.first_chunk().copied();
        enough.ok_or_else(|| self.wrong(format!("at least {N} arguments"), arguments.len()))
    }

    /// `_rebuild_from_type_v2(function, type, arguments, state)`, where the function may only be one that makes a
    /// tensor.
    fn typed_tensor(&mut self, arguments: Id) -> Result<()> {
        let [function, _, arguments] = self.arguments(arguments)?;
        match self.values[function.0 as usize] {
            Value::Global(Global::Tensor) => self.tensor(arguments),
            Value::Global(Global::First) => self.arguments(arguments).and_then(|[first]| self.push_id(first)),
            _ => Err(self.wrong("a function that makes a tensor", "something else")),
        }
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
    fn tensor(&mut self, arguments: Id) -> Result<()> {
        let [storage, offset, shape, strides] = self.arguments(arguments)?;
        let &Value::Storage(storage) = &self.values[storage.0 as usize] else {
            return Err(self.wrong("a storage", "something else"));
        };
        let view = TensorView {
            storage,
            offset: self.natural(offset)?,
            shape: self.naturals(shape)?,
            strides: self.naturals(strides)?,
        };
        if view.shape.len() != view.strides.len() {
            return Err(self.wrong(format!("{} strides", view.shape.len()), view.strides.len()));
        }
        self.push(Value::Tensor(Box::new(view)))
    }

    /// The persistent id `("storage", class, key, device, elements)`.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let parts = match &self.values[id.0 as usize] {
            Value::Tuple(parts) => parts.as_slice(),
            _ => &[],
        };
        let &[kind, class, key, _, elements] = parts else {
            return Err(self.wrong("a storage's five parts", "something else"));
        };
        let value = |id: Id| &self.values[id.0 as usize];
        match (value(kind), value(class), value(key)) {
            (Value::Text("storage"), &Value::Global(Global::Storage(kind)), &Value::Text(key)) => {
                let elements = self.natural(elements)?;
                self.push(Value::Storage(Storage { kind, key, elements }))
            }
            _ => Err(self.wrong("the parts of a storage", "something else")),
        }
    }

    /// Sets the state of the object under the top. Only TorchScript objects have one; attributes of containers and
    /// tensors (such as the `_metadata` of a state dictionary) are of no use here.
    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let object = self.top()?;
        match &mut self.values[object.0 as usize] {
            Value::Object(_, present) => *present = Some(state),
            Value::Dictionary(_) | Value::List(_) | Value::Tensor(_) | Value::Opaque => (),
            _ => return Err(self.wrong("an object to set the state of", "something else")),
        }
        Ok(())
    }

    fn natural(&self, id: Id) -> Result<usize> {
        match self.values[id.0 as usize] {
            Value::Int(value) if value >= 0 => usize::try_from(value).map_err(|_| self.wrong("a size", value)),
            Value::Int(value) => Err(self.wrong("a number that is not negative", value)),
            _ => Err(self.wrong("a number", "something else")),
        }
    }

    fn naturals(&self, id: Id) -> Result<Vec<usize>> {
        match &self.values[id.0 as usize] {
            Value::Tuple(items) | Value::List(items) if items.len() <= RANK_MAX => {
                items.iter().map(|&item| self.natural(item)).collect()
            }
            Value::Tuple(items) | Value::List(items) => {
                Err(self.wrong(format!("at most {RANK_MAX} dimensions"), items.len()))
            }
            _ => Err(self.wrong("a tuple of sizes", "something else")),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack[floor..].last() {
            Some(&id) => Ok(id),
            None => Err(self.wrong("a value on the stack", "none")),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_two(&mut self) -> Result<[Id; 2]> {
        let second = self.pop()?;
        Ok([self.pop()?, second])
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.wrong("a mark on the stack", "none")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.bytes[self.at..].get(..length) {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => {
                Err(self.wrong(format!("{length} bytes"), format!("{} before the end", self.bytes.len() - self.at)))
            }
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N).map(|bytes| *bytes.first_chunk().expect("as many bytes as were taken"))
    }

    fn u8(&mut self) -> Result<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn length_64(&mut self) -> Result<usize> {
        let length = self.chunk().map(u64::from_le_bytes)?;
        usize::try_from(length).map_err(|_| self.wrong("a length", length))
    }

    /// A line of text, without its end.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.wrong("a line of text", "no end of it"));
        };
        let line = self.take(length + 1)?;
        str::from_utf8(&line[..length]).map_err(|reason| self.wrong("a name in UTF-8", reason))
    }

    /// An error at the place that has been reached.
    fn wrong(&self, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.source, format!("pickle byte {}", self.at), expected, found)
    }
}
