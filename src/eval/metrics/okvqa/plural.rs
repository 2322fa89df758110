//! The singular of an English noun by endings, rule for rule that of the Python package `inflection` 0.5.1.

/// Words without a plural; after a hyphen too.
const UNCOUNTABLE: &[&str] =
    &["equipment", "fish", "information", "jeans", "money", "rice", "series", "sheep", "species"];

/// Endings in the order in which they are tried: how many of their letters stay, and what stands for the others.
const ENDINGS: &[(&str, usize, &str)] = &[
    ("zombies", 1, "ombie"),
    ("kine", 0, "cow"),
    ("moves", 1, "ove"),
    ("sexes", 1, "ex"),
    ("children", 1, "hild"),
    ("humans", 1, "uman"),
    ("men", 1, "an"),
    ("people", 1, "erson"),
    ("databases", 8, ""),
    ("quizzes", 4, ""),
    ("matrices", 4, "ix"),
    ("vertices", 4, "ex"),
    ("indices", 3, "ex"),
    ("passersby", 6, "by"),
    ("aliases", 5, ""),
    ("alias", 5, ""),
    ("statuses", 6, ""),
    ("status", 6, ""),
    ("octopus", 5, "us"),
    ("octopi", 5, "us"),
    ("virus", 3, "us"),
    ("viri", 3, "us"),
    ("crisis", 4, "is"),
    ("crises", 4, "is"),
    ("testis", 4, "is"),
    ("testes", 4, "is"),
    ("shoes", 4, ""),
    ("oes", 1, ""),
    ("buses", 3, ""),
    ("bus", 3, ""),
    ("mice", 1, "ouse"),
    ("lice", 1, "ouse"),
    ("xes", 1, ""),
    ("ches", 2, ""),
    ("sses", 2, ""),
    ("shes", 2, ""),
    ("movies", 1, "ovie"),
    ("series", 1, "eries"),
    ("quies", 2, "y"),
    ("ies", 0, "y"),
    ("lves", 1, "f"),
    ("rves", 1, "f"),
    ("tives", 4, ""),
    ("hives", 4, ""),
    ("ves", 0, "fe"),
    ("thesis", 1, "hesis"),
    ("theses", 1, "hesis"),
    ("synopsis", 1, "ynopsis"),
    ("synopses", 1, "ynopsis"),
    ("prognosis", 1, "rognosis"),
    ("prognoses", 1, "rognosis"),
    ("parenthesis", 1, "arenthesis"),
    ("parentheses", 1, "arenthesis"),
    ("diagnosis", 1, "iagnosis"),
    ("diagnoses", 1, "iagnosis"),
    ("basis", 1, "asis"),
    ("bases", 1, "asis"),
    ("analysis", 1, "nalysis"),
    ("analyses", 1, "nalysis"),
    ("ta", 1, "um"),
    ("ia", 1, "um"),
    ("news", 1, "ews"),
    ("ss", 2, ""),
    ("s", 0, ""),
];

/// Letters before which "ies" and "ves" are not the endings of their rules.
fn holds_back(ending: &str, before: Option<char>) -> bool {
    match ending {
        "ies" => before.is_none_or(|letter| "aeiouy".contains(letter)),
        "ves" => before.is_none_or(|letter| letter == 'f'),
        _ => false,
    }
}

/// The singular of a word.
pub(super) fn singular(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let is_uncountable = |uncountable: &&str| {
        let before = lower.strip_suffix(*uncountable).map(|rest| rest.chars().next_back());
        before.is_some_and(|letter| letter.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_'))
    };
    if UNCOUNTABLE.iter().any(is_uncountable) {
        return word.to_owned();
    }
    match lower.as_str() {
        "axis" | "axes" => return format!("{}xis", &word[..1]),
        _ if lower.starts_with("oxen") => return format!("{}{}", &word[..2], &word[4..]),
        _ => {}
    }
    for &(ending, stays, instead) in ENDINGS {
        if let Some(rest) = lower.strip_suffix(ending)
            && !holds_back(ending, rest.chars().next_back())
        {
            return format!("{}{instead}", &word[..rest.len() + stays]);
        }
    }
    word.to_owned()
}
