//! C++ as far as the shared declarations need it: words and signs with their lines, and errors that name the line.

/// A word, a number or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

/// A file's text in parts: a directive of the preprocessor with all its lines, or one line of code.
#[derive(Debug)]
pub struct Part {
    pub directive: bool,
    pub tokens: Vec<Token>,
}

/// Names the file and the line of a mistake.
pub fn mistake(file: &str, line: usize, what: impl std::fmt::Display) -> String {
    format!("{file}:{line}: {what}")
}

/// The parts of a text, without comments from `//` on, the only ones that there are.
pub fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut continues = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        let (code, more) = code.strip_suffix('\\').map_or((code, false), |code| (code, true));
        if !continues {
            parts.push(Part { directive: code.starts_with('#'), tokens: Vec::new() });
        }
        let part = parts.last_mut().expect("one was begun");
        part.tokens.extend(tokens(code, index + 1));
        continues = more && part.directive;
    }
    parts
}

/// Letters, digits and `_` make words; `##` and `::` are signs of two characters.
fn tokens(code: &str, line: usize) -> Vec<Token> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|character| !is_word(character)).unwrap_or(rest.len())
        } else if rest.starts_with("##") || rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (text, after) = rest.split_at(length);
        found.push(Token { text: text.to_owned(), line });
        rest = after.trim_start();
    }
    found
}
