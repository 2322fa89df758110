//! Finds the kernels of `kernels/*.cu`, by their `KERNEL(name, Arguments, threads)` and its kin, also where a
//! macro of the same file writes these, and writes `enum Kernel` of them. A kernel's name is `what`, `what_STORAGE` or
//! `what_STORAGE_NUMBERS`: bf16 or f16, then numbers with an x or _ between. In Rust there is one function for each
//! `what`, which takes the others and knows the kernel's struct of arguments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::header::{Header, rust_name};
use super::tokens::{Token, mistake, parts};

/// Types of stored numbers, in names of kernels and in Rust.
const STORAGE: [(&str, &str); 2] = [("bf16", "Bf16"), ("f16", "F16")];
/// Macros in macros at most.
const DEPTH_MAX: usize = 8;

/// A kernel as a source declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Declared {
    name: String,
    arguments: String,
    file: String,
    line: usize,
}

/// What a macro takes, and what it writes.
struct Macro {
    parameters: Vec<String>,
    body: Vec<Token>,
}

/// Kernels of one `what`.
#[derive(Debug)]
struct Family {
    arguments: String,
    /// Where the first was found.
    file: String,
    line: usize,
    /// By numbers, then by type of storage, an index into `STORAGE`; none where there is but one kernel.
    kernels: BTreeMap<Vec<u32>, BTreeMap<Option<usize>, String>>,
}

/// All kernels of the sources (name of the file, text), as `enum Kernel`.
///
/// # Errors
/// A name of another form, arguments that the header lacks, a kernel that is there for one type of storage alone.
pub fn write(sources: &[(String, String)], header: &Header) -> Result<String, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for (file, text) in sources {
        for declared in kernels(file, text)? {
            let at = |what: String| mistake(file, declared.line, format_args!("kernel {}: {what}", declared.name));
            enter(&mut families, &declared, header).map_err(at)?;
        }
    }
    for (what, Family { file, line, kernels, .. }) in &families {
        let (first, storage) = kernels.first_key_value().expect("a kernel made it");
        let alike = |(numbers, by): &(&Vec<u32>, &BTreeMap<Option<usize>, String>)| {
            let single = by.len() == 1 && by.contains_key(&None);
            numbers.len() == first.len() && by.keys().eq(storage.keys()) && (single || by.len() == STORAGE.len())
        };
        if let Some((_, other)) = kernels.iter().find(|kernel| !alike(kernel)) {
            let names = other.values().cloned().collect::<Vec<_>>().join(", ");
            let what = format!("kernels {what}: each is for bf16 and f16 and has as many numbers, but {names}");
            return Err(mistake(file, *line, what));
        }
    }
    Ok(text(&families))
}

/// Adds a kernel to those of its kind.
fn enter(families: &mut BTreeMap<String, Family>, declared: &Declared, header: &Header) -> Result<(), String> {
    let Declared { name, arguments, file, line } = declared;
    let (what, storage, numbers) = split(name)?;
    if !header.has_struct(arguments) {
        return Err(format!("expected a struct of arguments.h, found {arguments}"));
    }
    let new = || Family { arguments: arguments.clone(), file: file.clone(), line: *line, kernels: BTreeMap::new() };
    let family = families.entry(what).or_insert_with(new);
    if family.arguments != *arguments {
        return Err(format!("expected {} as others of its name take, found {arguments}", family.arguments));
    }
    match family.kernels.entry(numbers).or_default().insert(storage, name.clone()) {
        Some(other) => Err(format!("expected it once, found it beside {other}")),
        None => Ok(()),
    }
}

/// The parts of a kernel's name.
fn split(name: &str) -> Result<(String, Option<usize>, Vec<u32>), String> {
    let words: Vec<&str> = name.split('_').collect();
    let storage = |word: &&str| STORAGE.iter().position(|(storage, _)| storage == word);
    let place = words.iter().enumerate().find_map(|(place, word)| Some((place, storage(word)?)));
    let Some((place, storage)) = place else { return Ok((name.to_owned(), None, vec![])) };
    let numbers = words[place + 1..].iter().flat_map(|word| word.split('x')).map(str::parse);
    let numbers =
        numbers.collect::<Result<_, _>>().map_err(|_| "expected numbers behind the type of storage".to_owned());
    Ok((words[..place].join("_"), Some(storage), numbers?))
}

/// Each kernel that a source declares.
fn kernels(file: &str, text: &str) -> Result<Vec<Declared>, String> {
    let mut macros = BTreeMap::new();
    let mut code = Vec::new();
    for part in parts(text) {
        if !part.directive {
            code.extend(part.tokens);
        } else if let [_, define, name, open, ..] = &part.tokens[..] {
            // What is behind an argument in parentheses is code; of all other directives none matters.
            if define.text == "define" && open.text == "(" {
                let (parameters, end) = arguments(file, &part.tokens, 2)?;
                let parameters = parameters.into_iter().map(|words| joined(&words)).collect();
                macros.insert(name.text.clone(), Macro { parameters, body: part.tokens[end..].to_vec() });
            }
        }
    }
    let mut found = Vec::new();
    declared(file, &code, &macros, 0, &mut found)?;
    Ok(found)
}

/// What declares a kernel, and what it takes.
const DECLARING: [(&str, &[&str]); 3] = [
    ("KERNEL", &["a name", "arguments", "threads"]),
    ("LARGE_KERNEL", &["a name", "arguments", "threads"]),
    ("RESIDENT_KERNEL", &["a name", "arguments", "threads", "blocks"]),
];

fn declared(
    file: &str,
    code: &[Token],
    macros: &BTreeMap<String, Macro>,
    depth: usize,
    found: &mut Vec<Declared>,
) -> Result<(), String> {
    for (place, token) in code.iter().enumerate() {
        let line = token.line;
        if code.get(place + 1).is_none_or(|next| next.text != "(") {
            continue;
        }
        if let Some((_, takes)) = DECLARING.iter().find(|(name, _)| *name == token.text) {
            let (told, _) = arguments(file, code, place)?;
            if told.len() != takes.len() {
                let (last, others) = takes.split_last().expect("a kernel has a name");
                let takes = format!("{} takes {} and {last}", token.text, others.join(", "));
                return Err(mistake(file, line, takes));
            }
            let (name, arguments) = (joined(&told[0]), joined(&told[1]));
            found.push(Declared { name, arguments, file: file.to_owned(), line });
        } else if let Some(used) = macros.get(&token.text) {
            let (told, _) = arguments(file, code, place)?;
            if told.len() != used.parameters.len() || depth == DEPTH_MAX {
                let wanted = used.parameters.len();
                let what = format!("{}: expected {wanted} arguments, and no macro in itself", token.text);
                return Err(mistake(file, line, what));
            }
            declared(file, &used.expand(&told, line), macros, depth + 1, found)?;
        }
    }
    Ok(())
}

impl Macro {
    /// The body with what it was told, as if all stood in `line`.
    fn expand(&self, told: &[Vec<Token>], line: usize) -> Vec<Token> {
        let mut expanded: Vec<Token> = Vec::new();
        let mut paste = false;
        for token in &self.body {
            if token.text == "##" {
                paste = true;
                continue;
            }
            let parameter = self.parameters.iter().position(|parameter| *parameter == token.text);
            let words = parameter.map_or(std::slice::from_ref(token), |parameter| &told[parameter][..]);
            for word in words {
                match expanded.last_mut() {
                    Some(last) if paste => last.text.push_str(&word.text),
                    _ => expanded.push(Token { text: word.text.clone(), line }),
                }
                paste = false;
            }
        }
        expanded
    }
}

/// What stands between the parentheses behind a name, apart by commas, and the place after them.
fn arguments(file: &str, code: &[Token], name: usize) -> Result<(Vec<Vec<Token>>, usize), String> {
    let mut found = vec![Vec::new()];
    let mut depth = 0;
    for (place, token) in code.iter().enumerate().skip(name + 1) {
        match token.text.as_str() {
            "(" if depth == 0 => depth = 1,
            ")" if depth == 1 => return Ok((found, place + 1)),
            "," if depth == 1 => found.push(Vec::new()),
            sign => {
                depth += usize::from(sign == "(");
                depth -= usize::from(sign == ")");
                found.last_mut().expect("there is one").push(token.clone());
            }
        }
    }
    Err(mistake(file, code[name].line, format_args!("{}: expected \")\", found none", code[name].text)))
}

fn joined(tokens: &[Token]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

/// A kernel's name as that of a variant: `LinearRowsBf16_32x8`.
fn variant(what: &str, storage: Option<usize>, numbers: &[u32]) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let words: String = what.split('_').map(capital).collect();
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    let behind = if numbers.is_empty() { String::new() } else { format!("_{}", numbers.join("x")) };
    format!("{words}{}{behind}", storage.map_or("", |storage| STORAGE[storage].1))
}

/// `enum Kernel`.
fn text(families: &BTreeMap<String, Family>) -> String {
    let mut variants = Vec::new();
    let mut functions = String::new();
    for (what, family) in families {
        let taken = rust_name(&family.arguments);
        let mut arms = String::new();
        for (numbers, kernels) in &family.kernels {
            for (&storage, name) in kernels {
                let variant = variant(what, storage, numbers);
                let storage = storage.map(|storage| format!("Dtype::{}", STORAGE[storage].1));
                let pattern = match (storage, &numbers[..]) {
                    (None, _) => String::new(),
                    (Some(storage), []) => storage,
                    (Some(storage), numbers) => format!("({storage}, {numbers:?})"),
                };
                writeln!(arms, "            {pattern} => Kernel::{variant},").expect(WRITTEN);
                variants.push((variant, name, taken));
            }
        }
        let count = family.kernels.keys().next().map_or(0, Vec::len);
        let single = family.kernels.values().all(|kernels| kernels.contains_key(&None));
        let (parameters, body) = match (single, count) {
            (true, _) => (String::new(), format!("Kernel::{}", variants.last().expect("it has a kernel").0)),
            (false, 0) => {
                arms += "            Dtype::F32 => panic!(\"no kernel stores activations in f32\"),\n";
                ("dtype: Dtype".to_owned(), format!("match dtype {{\n{arms}        }}"))
            }
            (false, _) => {
                arms += "            _ => panic!(\"no kernel WHAT is compiled for {dtype} and {numbers:?}\"),\n";
                let arms = arms.replace("WHAT", what);
                let parameters = format!("dtype: Dtype, numbers: [u32; {count}]");
                (parameters, format!("match (dtype, numbers) {{\n{arms}        }}"))
            }
        };
        writeln!(functions, "    pub fn {what}({parameters}) -> KernelOf<{taken}> {{").expect(WRITTEN);
        writeln!(functions, "        KernelOf::new({body})\n    }}").expect(WRITTEN);
    }
    let list = |line: &dyn Fn(&(String, &String, &str)) -> String| variants.iter().map(line).collect::<String>();
    let names = list(&|(variant, ..)| format!("    {variant},\n"));
    let all = list(&|(variant, ..)| format!("        Kernel::{variant},\n"));
    let texts = list(&|(variant, name, _)| format!("            Kernel::{variant} => {name:?},\n"));
    let sizes = list(&|(variant, _, taken)| format!("            Kernel::{variant} => size_of::<{taken}>(),\n"));
    format!(
        "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\npub enum Kernel {{\n{names}}}\n\
        impl Kernel {{\n    pub const ALL: &[Kernel] = &[\n{all}    ];\n\
        \x20   pub fn name(self) -> &'static str {{\n        match self {{\n{texts}        }}\n    }}\n\
        \x20   pub fn arguments_bytes(self) -> usize {{\n        match self {{\n{sizes}        }}\n    }}\n\
        {functions}}}\n"
    )
}

const WRITTEN: &str = "strings take all that is written";
