//! The unpickler: a stack machine (Python's pickletools describes the opcodes, protocols 2 to 5) that can build lists,
//! dictionaries and descriptions of tensors, and nothing else. There is no code path that calls, imports or constructs
//! what a pickle names: a name either is in [`Global::named`] or is refused. Knows no files.

use crate::bytes::{Cursor, beyond, shown};
use narthex_base::{Error, Result};
use std::collections::HashMap;

/// Bytes of a pickle: descriptions only, as the numbers lie elsewhere. Some kilobytes for each hundred tensors.
const PICKLE_BYTES_MAX: usize = 1 << 26;
/// Lists, dictionaries, tuples, texts, storages and tensors together.
const OBJECTS_MAX: usize = 1 << 21;
/// Values on the stack.
const STACK_MAX: usize = 1 << 20;
/// Marks on the stack: nesting of what is being built.
const MARKS_MAX: usize = 1 << 10;
/// Values kept to be used again.
const MEMO_MAX: usize = 1 << 21;
/// Bytes of a name that a pickle asks for.
const NAME_BYTES_MAX: usize = 1 << 10;
/// The newest protocol there is.
const PROTOCOL_MAX: u8 = 5;
/// Dimensions of a tensor.
const DIMENSIONS_MAX: usize = 16;

/// The types of numbers in torch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Scalar {
    /// Each with the name of its storage, and its own.
    #[rustfmt::skip]
    const ALL: [(Scalar, &'static str, &'static str); 10] = [
        (Scalar::F64,  "DoubleStorage",   "float64"),
        (Scalar::F32,  "FloatStorage",    "float32"),
        (Scalar::F16,  "HalfStorage",     "float16"),
        (Scalar::BF16, "BFloat16Storage", "bfloat16"),
        (Scalar::I64,  "LongStorage",     "int64"),
        (Scalar::I32,  "IntStorage",      "int32"),
        (Scalar::I16,  "ShortStorage",    "int16"),
        (Scalar::I8,   "CharStorage",     "int8"),
        (Scalar::U8,   "ByteStorage",     "uint8"),
        (Scalar::Bool, "BoolStorage",     "bool"),
    ];

    pub fn width(self) -> usize {
        match self {
            Scalar::F64 | Scalar::I64 => 8,
            Scalar::F32 | Scalar::I32 => 4,
            Scalar::F16 | Scalar::BF16 | Scalar::I16 => 2,
            Scalar::I8 | Scalar::U8 | Scalar::Bool => 1,
        }
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(scalar, ..)| *scalar == self).map_or("", |(_, _, name)| name)
    }
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and its later versions.
    Tensor(u8),
    Parameter,
    Storage(Scalar),
    /// Bytes, which the tensor itself types.
    UntypedStorage,
    Dtype(Scalar),
    Size,
    Device,
}

impl Global {
    /// The whole list.
    fn named(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor") => Some(Global::Tensor(1)),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::Tensor(2)),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Global::Tensor(3)),
            ("torch._utils", "_rebuild_parameter") => Some(Global::Parameter),
            ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => Some(Global::UntypedStorage),
            ("torch", "Size") => Some(Global::Size),
            ("torch", "device") => Some(Global::Device),
            ("torch" | "torch.cuda", name) => Scalar::ALL.iter().find_map(|(scalar, storage, dtype)| {
                if name == *storage {
                    Some(Global::Storage(*scalar))
                } else {
                    (name == *dtype && module == "torch").then_some(Global::Dtype(*scalar))
                }
            }),
            _ => None,
        }
    }
}

/// A value; what is larger than a word lies in the [`Heap`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Bytes of a number of more than 64 bits.
    Long(usize),
    Text(usize),
    Bytes(usize),
    List(usize),
    Dict(usize),
    Tuple(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// A storage, as a persistent identifier describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub key: String,
    /// None where the tensors type it.
    pub scalar: Option<Scalar>,
    /// Elements; bytes where there is no scalar.
    pub len: u64,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub storage: usize,
    pub scalar: Scalar,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What a pickle has built. Values point into it, so nothing is nested in memory, and dropping it needs no recursion.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    pub texts: Vec<&'a str>,
    pub bytes: Vec<&'a [u8]>,
    /// Lists and sets.
    pub lists: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub tuples: Vec<Vec<Value>>,
    pub storages: Vec<Storage>,
    pub tensors: Vec<Tensor>,
}

impl<'a> Heap<'a> {
    pub fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(at) => Some(self.texts[at]),
            _ => None,
        }
    }

    fn objects(&self) -> usize {
        let containers = self.lists.len() + self.dicts.len() + self.tuples.len();
        containers + self.texts.len() + self.bytes.len() + self.storages.len() + self.tensors.len()
    }
}

/// Runs the pickle at `start`. Gives what it built, and where it ended.
pub(super) fn unpickle<'a>(bytes: &'a [u8], start: usize) -> Result<(Value, Heap<'a>, usize)> {
    let bytes = &bytes[..bytes.len().min(start.saturating_add(PICKLE_BYTES_MAX))];
    let mut machine = Machine {
        cursor: Cursor::new(bytes, start),
        opcode_at: start,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    loop {
        machine.opcode_at = machine.cursor.at();
        let opcode = machine.cursor.u8("the pickle")?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return Ok((value, machine.heap, machine.cursor.at()));
        }
        machine.step(opcode)?;
        let objects = machine.heap.objects();
        for (what, found, limit) in [
            ("the number of objects in the pickle", objects, OBJECTS_MAX),
            ("the stack of the pickle", machine.stack.len(), STACK_MAX),
            ("the nesting in the pickle", machine.marks.len(), MARKS_MAX),
            ("the memory of the pickle", machine.memo.len(), MEMO_MAX),
        ] {
            if found > limit {
                return Err(beyond(what, found, limit as u64, machine.opcode_at));
            }
        }
    }
}

struct Machine<'a> {
    cursor: Cursor<'a>,
    opcode_at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// A map, as a pickle may number its entries as it likes.
    memo: HashMap<u32, Value>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::input(what).cause(format!("byte {} of the pickle", self.opcode_at))
    }

    fn pop(&mut self) -> Result<Value> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<Value> {
        // What lies under the last mark is out of reach.
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(floor..).unwrap_or_default();
        above.last().copied().ok_or_else(|| self.wrong("the pickle takes more from its stack than there is"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("the pickle goes back to a mark that is not there"))?;
        Ok(self.stack.split_off(mark))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn push_text(&mut self, len: u64) -> Result<()> {
        let bytes = self.cursor.take(len, "a text of the pickle")?;
        let text =
            std::str::from_utf8(bytes).map_err(|error| self.wrong("a text of the pickle is not UTF-8").cause(error))?;
        self.heap.texts.push(text);
        self.push(Value::Text(self.heap.texts.len() - 1));
        Ok(())
    }

    fn push_bytes(&mut self, len: u64) -> Result<()> {
        let bytes = self.cursor.take(len, "bytes of the pickle")?;
        self.heap.bytes.push(bytes);
        self.push(Value::Bytes(self.heap.bytes.len() - 1));
        Ok(())
    }

    fn push_integer(&mut self, len: u64) -> Result<()> {
        let bytes = self.cursor.take(len, "a number of the pickle")?;
        if len > 8 {
            self.heap.bytes.push(bytes);
            self.push(Value::Long(self.heap.bytes.len() - 1));
            return Ok(());
        }
        let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut word = [fill; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(word)));
        Ok(())
    }

    fn push_list(&mut self, values: Vec<Value>) {
        self.heap.lists.push(values);
        self.push(Value::List(self.heap.lists.len() - 1));
    }

    fn push_tuple(&mut self, values: Vec<Value>) {
        self.heap.tuples.push(values);
        self.push(Value::Tuple(self.heap.tuples.len() - 1));
    }

    fn push_dict(&mut self, items: Vec<(Value, Value)>) {
        self.heap.dicts.push(items);
        self.push(Value::Dict(self.heap.dicts.len() - 1));
    }

    fn extend(&mut self, values: Vec<Value>) -> Result<()> {
        match self.top()? {
            Value::List(list) => self.heap.lists[list].extend(values),
            _ => return Err(self.wrong("the pickle appends to what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value>) -> Result<()> {
        let items = self.pairs(items)?;
        match self.top()? {
            Value::Dict(dict) => self.heap.dicts[dict].extend(items),
            _ => return Err(self.wrong("the pickle sets items of what is no dictionary")),
        }
        Ok(())
    }

    fn pairs(&self, values: Vec<Value>) -> Result<Vec<(Value, Value)>> {
        if !values.len().is_multiple_of(2) {
            return Err(self.wrong("the pickle gives a key without a value"));
        }
        Ok(values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn tuple_of(&mut self, len: usize) -> Result<()> {
        let mut values = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        values.reverse();
        self.push_tuple(values);
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(number, value);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<()> {
        let value = self.memo.get(&number).copied();
        let value =
            value.ok_or_else(|| self.wrong(format!("the pickle recalls number {number}, which it never kept")))?;
        self.push(value);
        Ok(())
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        let what = "the pickle";
        match opcode {
            0x80 => {
                let protocol = self.cursor.u8(what)?;
                if protocol > PROTOCOL_MAX {
                    return Err(self
                        .wrong(format!("pickle protocol {protocol} is not supported"))
                        .help("supported: 2 to 5"));
                }
            }
            // A frame is only a hint for buffered reading.
            0x95 => _ = self.cursor.u64(what)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_mark()?,
            b'2' => self.push(self.top()?),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let number = self.cursor.u32(what)? as i32;
                self.push(Value::Int(number.into()));
            }
            b'K' => {
                let number = self.cursor.u8(what)?;
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = self.cursor.u16(what)?;
                self.push(Value::Int(number.into()));
            }
            0x8a => {
                let len = self.cursor.u8(what)?;
                self.push_integer(len.into())?;
            }
            0x8b => {
                let len = self.cursor.u32(what)?;
                self.push_integer(len.into())?;
            }
            b'G' => {
                let bits = self.cursor.u64(what)?.swap_bytes();
                self.push(Value::Float(f64::from_bits(bits)));
            }
            b'X' | b'T' => {
                let len = self.cursor.u32(what)?;
                self.push_text(len.into())?;
            }
            0x8c | b'U' => {
                let len = self.cursor.u8(what)?;
                self.push_text(len.into())?;
            }
            0x8d => {
                let len = self.cursor.u64(what)?;
                self.push_text(len)?;
            }
            b'B' => {
                let len = self.cursor.u32(what)?;
                self.push_bytes(len.into())?;
            }
            b'C' => {
                let len = self.cursor.u8(what)?;
                self.push_bytes(len.into())?;
            }
            0x8e | 0x96 => {
                let len = self.cursor.u64(what)?;
                self.push_bytes(len)?;
            }
            // Sets are kept as lists: no tensor has one.
            b']' | 0x8f => self.push_list(vec![]),
            b'l' | 0x91 => {
                let values = self.pop_mark()?;
                self.push_list(values);
            }
            b'a' => {
                let value = self.pop()?;
                self.extend(vec![value])?;
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.extend(values)?;
            }
            b')' => self.push_tuple(vec![]),
            0x85..=0x87 => self.tuple_of(usize::from(opcode - 0x84))?,
            b't' => {
                let values = self.pop_mark()?;
                self.push_tuple(values);
            }
            b'}' => self.push_dict(vec![]),
            b'd' => {
                let values = self.pop_mark()?;
                let items = self.pairs(values)?;
                self.push_dict(items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let values = self.pop_mark()?;
                self.set(values)?;
            }
            b'q' => {
                let number = self.cursor.u8(what)?;
                self.remember(number.into())?;
            }
            b'r' => {
                let number = self.cursor.u32(what)?;
                self.remember(number)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let number = self.cursor.u8(what)?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = self.cursor.u32(what)?;
                self.recall(number)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.heap.text(module), self.heap.text(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err(self.wrong("the pickle asks for something whose name is no text")),
                }
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let value = self.reduce(function, arguments)?;
                self.push(value);
            }
            b'b' => {
                let state = self.pop()?;
                // A state dict is an OrderedDict with an attribute, `_metadata`; it says nothing about the tensors.
                if !matches!((self.top()?, state), (Value::Dict(_), Value::Dict(_))) {
                    return Err(self.refused("sets the inner state of an object"));
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.heap.storages.push(storage);
                self.push(Value::Storage(self.heap.storages.len() - 1));
            }
            0x81 | 0x92 | b'i' | b'o' => return Err(self.refused("makes an object of a class")),
            0x82..=0x84 => return Err(self.refused("asks for an extension by number")),
            b'P' => return Err(self.refused("has a persistent identifier in text form")),
            other => {
                return Err(self
                    .wrong(format!("the pickle has the opcode {other:#04x}, which no state dict needs"))
                    .help(
                        "the file is damaged, or written with pickle protocol 0 or 1: save it again with torch.save",
                    ));
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = self.cursor.left().min(NAME_BYTES_MAX);
        let ahead = self.cursor.take(rest as u64, "a name in the pickle")?;
        let len = ahead.iter().position(|byte| *byte == b'\n');
        let len = len.ok_or_else(|| self.wrong("the pickle asks for something whose name has no end"))?;
        self.cursor.back(rest - len - 1);
        std::str::from_utf8(&ahead[..len]).map_err(|error| self.wrong("a name in the pickle is not UTF-8").cause(error))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = Global::named(module, name).ok_or_else(|| {
            self.wrong(format!(
                "the pickle asks for {}.{}, which is not a part of a state dict: refused, nothing was run",
                shown(module),
                shown(name)
            ))
            .help("if you trust it, write its weights alone, in Python: torch.save(model.state_dict(), \"weights.pt\")")
        })?;
        self.push(Value::Global(global));
        Ok(())
    }

    fn refused(&self, does: &str) -> Error {
        self.wrong(format!("the pickle {does}, which is not a part of a state dict: refused, nothing was run"))
            .help("if you trust it, write its weights alone, in Python: torch.save(model.state_dict(), \"weights.pt\")")
    }

    /// What stands in place of a call: the description of its result.
    fn reduce(&mut self, function: Value, arguments: Value) -> Result<Value> {
        let (Value::Global(function), Value::Tuple(arguments)) = (function, arguments) else {
            return Err(self.refused("calls what is no function of a state dict"));
        };
        let arguments = self.heap.tuples[arguments].clone();
        match (function, arguments.as_slice()) {
            (Global::OrderedDict, []) => {
                self.heap.dicts.push(vec![]);
                Ok(Value::Dict(self.heap.dicts.len() - 1))
            }
            (Global::OrderedDict, [Value::List(items)]) => {
                let pairs = self.heap.lists[*items].iter().map(|item| {
                    let pair = match item {
                        Value::List(pair) => self.heap.lists[*pair].as_slice(),
                        Value::Tuple(pair) => self.heap.tuples[*pair].as_slice(),
                        _ => &[],
                    };
                    match pair {
                        [key, value] => Ok((*key, *value)),
                        _ => Err(self.wrong("the pickle makes a dictionary of what are no pairs")),
                    }
                });
                let pairs = pairs.collect::<Result<_>>()?;
                self.heap.dicts.push(pairs);
                Ok(Value::Dict(self.heap.dicts.len() - 1))
            }
            (Global::Tensor(version), [Value::Storage(storage), offset, size, stride, rest @ ..]) => {
                let stored = self.heap.storages[*storage].scalar;
                let scalar = match (version, stored, rest) {
                    (1, Some(scalar), []) | (2, Some(scalar), [_, _] | [_, _, _]) => scalar,
                    (
                        3,
                        None,
                        [_, _, Value::Global(Global::Dtype(scalar))] | [_, _, Value::Global(Global::Dtype(scalar)), _],
                    ) => *scalar,
                    _ => return Err(self.wrong("the pickle describes a tensor with the wrong arguments")),
                };
                let offset = self.size(*offset)?;
                let (shape, strides) = (self.sizes(*size)?, self.sizes(*stride)?);
                if shape.len() != strides.len() {
                    return Err(self.wrong(format!(
                        "a tensor has {} dimensions and {} strides",
                        shape.len(),
                        strides.len()
                    )));
                }
                self.heap.tensors.push(Tensor { storage: *storage, scalar, offset, shape, strides });
                Ok(Value::Tensor(self.heap.tensors.len() - 1))
            }
            (Global::Parameter, [tensor @ Value::Tensor(_), _, _]) => Ok(*tensor),
            (Global::Size, [sizes @ (Value::Tuple(_) | Value::List(_))]) => Ok(*sizes),
            (Global::Device, _) => Ok(Value::None),
            (function, _) => Err(self.wrong(format!("the pickle gives the wrong arguments to {function:?}"))),
        }
    }

    fn size(&self, value: Value) -> Result<u64> {
        match value {
            Value::Int(number) if number >= 0 => Ok(number as u64),
            other => Err(self
                .wrong(format!("a size, stride or offset of a tensor is {other:?}"))
                .help("it must be a whole number that is not below 0")),
        }
    }

    fn sizes(&self, value: Value) -> Result<Vec<u64>> {
        let values = match value {
            Value::Tuple(tuple) => &self.heap.tuples[tuple],
            Value::List(list) => &self.heap.lists[list],
            _ => return Err(self.wrong("the sizes or strides of a tensor are no tuple")),
        };
        if values.len() > DIMENSIONS_MAX {
            return Err(beyond(
                "the number of dimensions of a tensor",
                values.len(),
                DIMENSIONS_MAX as u64,
                self.opcode_at,
            ));
        }
        values.iter().map(|value| self.size(*value)).collect()
    }

    /// `("storage", type, key, location, length)`; in the older format followed by a view, which must be absent.
    fn storage(&self, id: Value) -> Result<Storage> {
        let wrong = || {
            self.wrong("the pickle has a persistent identifier that describes no storage")
                .help("it must be (\"storage\", type, key, location, length)")
        };
        let Value::Tuple(tuple) = id else { return Err(wrong()) };
        match self.heap.tuples[tuple].as_slice() {
            [kind, Value::Global(class), key, location, len]
            | [kind, Value::Global(class), key, location, len, Value::None] => {
                let scalar = match class {
                    Global::Storage(scalar) => Some(*scalar),
                    Global::UntypedStorage => None,
                    _ => return Err(wrong()),
                };
                let (Some("storage"), Some(key), Some(_)) =
                    (self.heap.text(*kind), self.heap.text(*key), self.heap.text(*location))
                else {
                    return Err(wrong());
                };
                if key.len() > NAME_BYTES_MAX {
                    return Err(wrong());
                }
                Ok(Storage { key: key.into(), scalar, len: self.size(*len)? })
            }
            _ => Err(wrong()),
        }
    }
}
