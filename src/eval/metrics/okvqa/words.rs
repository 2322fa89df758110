//! An answer's words as NLTK's `word_tokenize` cuts them: by the conventions of the Penn Treebank, keeping capitals.
//! Everything is done by putting spaces into the text, and splitting at them.

use super::super::is_space;

/// The words and marks of an answer.
pub(super) fn words(answer: &str) -> Vec<String> {
    spaced(answer)
        .split(is_space)
        .filter(|word| !word.is_empty())
        .flat_map(clitics)
        .flat_map(|word| contractions(&word))
        .collect()
}

/// Spaces around marks.
fn spaced(answer: &str) -> String {
    let text: Vec<char> = answer.chars().collect();
    let mut spaced = String::with_capacity(2 * answer.len());
    let mut at = 0;
    while at < text.len() {
        let character = text[at];
        let run = text[at..].iter().take_while(|&&next| next == character).count();
        let before = at.checked_sub(1).map(|before| text[before]);
        let after = text.get(at + 1).copied();
        let opens = before.is_none_or(|before| " ([{<".contains(before));
        let (taken, written) = match character {
            '"' if opens => (1, " `` ".to_owned()),
            '"' => (1, " '' ".to_owned()),
            '\'' if run == 2 && opens && before.is_some() => (2, " `` ".to_owned()),
            '\'' if run >= 2 => (2, " '' ".to_owned()),
            '\'' if opens_word(&text, at) => (1, "' ".to_owned()),
            '\'' if before.is_some() && after.is_none_or(|after| after == ' ') => (1, " ' ".to_owned()),
            '`' | '.' if run >= 2 || character == '`' => (run, padded(&text[at..at + run])),
            '.' if is_last(&text, at) => (1, " . ".to_owned()),
            '-' if run >= 2 => (2, " -- ".to_owned()),
            ':' | ',' if !after.is_some_and(|after| after.is_ascii_digit()) => (1, padded(&[character])),
            _ if ";@#$%&?!*()[]{}<>«“‘„»”’".contains(character) || ('‒'..='―').contains(&character) => {
                (1, padded(&[character]))
            }
            _ => (1, character.to_string()),
        };
        spaced.push_str(&written);
        at += taken;
    }
    spaced
}

fn padded(marks: &[char]) -> String {
    format!(" {} ", marks.iter().collect::<String>())
}

/// An apostrophe before a word, unless the word is a clitic.
fn opens_word(text: &[char], at: usize) -> bool {
    let in_word = |character: char| character.is_alphanumeric() || character == '_';
    if at > 0 && in_word(text[at - 1]) {
        return false;
    }
    let word: String = text[at + 1..].iter().take_while(|&&next| in_word(next)).collect();
    !word.is_empty() && !["re", "ve", "ll", "m", "t", "s", "d", "n"].contains(&word.to_lowercase().as_str())
}

/// Whether a point ends the answer, but for what closes behind it.
fn is_last(text: &[char], at: usize) -> bool {
    at > 0 && text[at - 1] != '.' && text[at + 1..].iter().all(|next| "])}>\"' »”’".contains(*next))
}

/// "dog's" as "dog", "'s"; first the short ones, then the long ones before them.
fn clitics(word: &str) -> Vec<String> {
    let short = split_off(word, &["'s", "'S", "'m", "'M", "'d", "'D", "'"]);
    let long = ["'ll", "'LL", "'re", "'RE", "'ve", "'VE", "n't", "N'T"];
    short.into_iter().flat_map(|part| split_off(&part, &long)).collect()
}

fn split_off(word: &str, endings: &[&str]) -> Vec<String> {
    let splits =
        |ending: &&&str| word.strip_suffix(**ending).is_some_and(|stem| !stem.is_empty() && !stem.ends_with('\''));
    match endings.iter().find(splits) {
        Some(ending) => vec![word[..word.len() - ending.len()].to_owned(), (*ending).to_owned()],
        None => vec![word.to_owned()],
    }
}

/// "cannot" as "can", "not".
fn contractions(word: &str) -> Vec<String> {
    const TWO: &[(&str, usize)] = &[
        ("cannot", 3),
        ("d'ye", 1),
        ("gimme", 3),
        ("gonna", 3),
        ("gotta", 3),
        ("lemme", 3),
        ("more'n", 4),
        ("wanna", 3),
    ];
    match TWO.iter().find(|(whole, _)| word.eq_ignore_ascii_case(whole)) {
        Some(&(_, first)) => vec![word[..first].to_owned(), word[first..].to_owned()],
        None => vec![word.to_owned()],
    }
}
