//! Captions to tokens as the caption metrics cut them: the Penn Treebank rules of Stanford's tokenizer 3.4.1 (as
//! pycocoevalcap 1.2 calls it: a line a caption, lower case), and then no punctuation.
//!
//! It is a lexer: at each place the rule that reaches furthest wins, the first of equals. The rules were found by
//! watching the original, so that no Java is needed here. Against it, none of 1500 captions with every usual mark and
//! abbreviation is cut otherwise, 16 of 2000 strings of odd pieces glued at random (both in
//! `tests/eval/metrics.rs`), and 1 of 30000 glosses of WordNet. Known to differ: abbreviations joined to the next word
//! ("Co.x"), accents written as entities, names of files that begin with a digit, telephone numbers of three parts,
//! faces in brackets.

use std::ops::RangeInclusive;

/// Tokens that say nothing of an image. Brackets are written `-lrb-` and so on by then, and stay, as in the original.
const PUNCTUATION: &[&str] = &["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// Lower-case tokens of a caption, without punctuation.
pub fn tokens(caption: &str) -> Vec<String> {
    let characters: Vec<char> = caption.chars().collect();
    let mut found = Vec::new();
    let mut rest = &characters[..];
    while let Some(&first) = rest.first() {
        if first.is_whitespace() {
            rest = &rest[1..];
            continue;
        }
        let mut best = Match { reach: 0, take: 1 };
        for rule in RULES {
            if let Some(found) = rule(rest)
                && found.reach > best.reach
            {
                best = found;
            }
        }
        let (text, after) = rest.split_at(best.take);
        if best.reach > 0 {
            // A fraction or a telephone number may hold a space.
            found.extend(spelled(text).split_whitespace().map(str::to_lowercase));
        }
        rest = after;
    }
    found.retain(|token| !PUNCTUATION.contains(&token.as_str()));
    found
}

/// What a rule found: how far it looked, by which rules are compared, and how much of that is the token.
struct Match {
    reach: usize,
    take: usize,
}

type Rule = fn(&[char]) -> Option<Match>;

/// All rules; of two that reach as far, the first holds.
const RULES: &[Rule] = &[
    tag,
    joined_words,
    negated,
    word,
    word_before_comma,
    clitic,
    apostrophe_word,
    year,
    address,
    ampersand_name,
    fraction,
    telephone,
    hyphenated,
    slashed,
    handle,
    number,
    acronym,
    abbreviation,
    entity,
    smiley,
    dollar,
    run,
    symbol,
];

fn whole(length: usize) -> Option<Match> {
    (length > 0).then_some(Match { reach: length, take: length })
}

/// Symbols of these ranges are tokens; what is neither one of them, ASCII, nor a letter is dropped.
const SYMBOLS: &[RangeInclusive<char>] = &[
    '¡'..='©',
    '¬'..='¬',
    '®'..='´',
    '¶'..='¹',
    '»'..='¿',
    '×'..='×',
    '÷'..='÷',
    '–'..='‗',
    '‘'..='‚',
    '‛'..='‣',
    '…'..='…',
    '‰'..='‸',
    '‹'..='›',
    '※'..='※',
    '‾'..='⁂',
    '⁄'..='⁄',
    '⁰'..='⁰',
    '⁴'..='⁾',
    '₀'..='₎',
    '₤'..='₤',
    '€'..='€',
    '℀'..='℁',
    '℃'..='℆',
    '℈'..='℉',
    '№'..='№',
    '™'..='™',
    '⅓'..='⅔',
    '⅕'..='⅞',
    '←'..='⯿',
    '、'..='。',
    '〒'..='〒',
    '・'..='・',
    '！'..='／',
    '：'..='＠',
    '［'..='｀',
    '｛'..='･',
];

const SOFT_HYPHEN: char = '\u{ad}';

fn is_symbol(character: char) -> bool {
    character.is_ascii_punctuation() || SYMBOLS.iter().any(|range| range.contains(&character))
}

/// Letters, and the accents that may follow them; the original knows none beyond 16 bits.
fn is_letter(character: char) -> bool {
    let within_a_word = character.is_alphabetic() || matches!(character, '\u{300}'..='\u{36f}' | SOFT_HYPHEN);
    within_a_word && character <= '\u{ffff}' && !is_symbol(character)
}

fn is_digit(character: char) -> bool {
    character.is_ascii_digit()
}

fn is_letter_or_digit(character: char) -> bool {
    is_letter(character) || is_digit(character)
}

fn is_apostrophe(character: char) -> bool {
    matches!(character, '\'' | '’')
}

/// How many characters from `at` on are of a kind.
fn count(text: &[char], at: usize, kind: impl Fn(char) -> bool) -> usize {
    text.iter().skip(at).take_while(|&&character| kind(character)).count()
}

/// Whether `word` (lower case) stands at `at`, in whatever case and with whatever apostrophe it is written.
fn reads(text: &[char], at: usize, word: &str) -> bool {
    let mut rest = text.iter().map(|&character| if character == '’' { '\'' } else { character }).skip(at);
    word.chars().all(|letter| rest.next().is_some_and(|character| character.to_ascii_lowercase() == letter))
}

/// Whether the character at `at` is of a kind.
fn is(text: &[char], at: usize, kind: impl Fn(char) -> bool) -> bool {
    text.get(at).is_some_and(|&character| kind(character))
}

/// Words, also two sentences without a space between them ("dog.The") and names of files and sites.
fn word(text: &[char]) -> Option<Match> {
    let length = word_length(text);
    let clitic = clitic_length(text, length);
    (length > 0).then_some(Match { reach: length + clitic, take: length })
}

/// A point between a word and a comma stays with the word, whatever the word is.
fn word_before_comma(text: &[char]) -> Option<Match> {
    let length = word_length(text).max(hyphenated_length(text));
    let comma = is(text, length, |mark| mark == '.') && is(text, length + 1, |mark| ",;:、".contains(mark));
    (length > 0 && comma).then_some(Match { reach: length + 2, take: length + 1 })
}

fn word_length(text: &[char]) -> usize {
    let mut length = 0;
    while is(text, length, is_letter) {
        length += count(text, length, is_letter_or_digit);
        if !(is(text, length, |mark| ".!?".contains(mark)) && is(text, length + 1, is_letter)) {
            return length;
        }
        length += 1;
    }
    length
}

/// Words that are two: how much of them is the first.
fn joined_words(text: &[char]) -> Option<Match> {
    const JOINED: &[(&str, usize)] = &[
        ("cannot", 3),
        ("gonna", 3),
        ("gotta", 3),
        ("lemme", 3),
        ("gimme", 3),
        ("wanna", 3),
        ("'tis", 2),
        ("'twas", 2),
    ];
    let &(word, take) = JOINED.iter().find(|(word, _)| text[0] != '’' && reads(text, 0, word))?;
    Some(Match { reach: word.len(), take })
}

/// "is" of "isn't".
fn negated(text: &[char]) -> Option<Match> {
    let letters = count(text, 0, |letter| letter.is_ascii_alphabetic());
    let not = |at: usize| {
        let quote = is(text, at + 1, |mark| is_apostrophe(mark) || mark == '`');
        quote && reads(text, at, "n") && reads(text, at + 2, "t")
    };
    if not(0) {
        return whole(3);
    }
    let stem = letters.checked_sub(1).filter(|&stem| stem > 0 && not(stem))?;
    Some(Match { reach: stem + 3, take: stem })
}

/// 's, 'll and so on.
fn clitic(text: &[char]) -> Option<Match> {
    whole(clitic_length(text, 0))
}

/// A letter may not follow, unless the apostrophe is curly.
fn clitic_length(text: &[char], at: usize) -> usize {
    if !is(text, at, is_apostrophe) {
        return 0;
    }
    let ending = ["ll", "re", "ve", "s", "d", "m"].iter().find(|letters| reads(text, at + 1, letters));
    let length = ending.map_or(0, |letters| 1 + letters.len());
    let goes_on = text[at] == '\'' && is(text, at + length, |letter| letter.is_ascii_alphabetic());
    if goes_on { 0 } else { length }
}

/// Words with a mark of their own: o'clock, ma'am, 'em, D'Angelo, rock 'n' roll, C++.
fn apostrophe_word(text: &[char]) -> Option<Match> {
    const LISTED: &str = "\
        'n' 'n 'em 'til 'cause ma'am e'er ne'er hallowe'en nor'easter somethin' ol' dunkin' c'est c'mon ev'ry \
        k'nex c++ c# f#";
    let goes_on = |word: &str| word == "'n" && is(text, 2, is_letter);
    let listed = LISTED.split(' ').filter(|word| reads(text, 0, word) && !goes_on(word));
    let mut length = listed.map(str::len).max().unwrap_or(0);
    if reads(text, 0, "ma'am") {
        length += count(text, length, is_letter_or_digit);
    }
    if reads(text, 0, "qu'") {
        length = 3 + count(text, 3, is_letter);
    }
    if is(text, 1, is_apostrophe) {
        let first = text[0];
        let name = matches!(first, 'A'..='H' | 'J'..='X' | 'Z' | 'n') && count(text, 2, is_letter) >= 2;
        let own = if name { 2 + count(text, 2, is_letter_or_digit) } else { 0 };
        let article = if "lLdDjJyY".contains(first) { 2 } else { 0 };
        length = length.max(own).max(article);
    }
    whole(length)
}

/// The '90s, and '99 before a space.
fn year(text: &[char]) -> Option<Match> {
    let short = is(text, 0, is_apostrophe) && count(text, 1, is_digit) == 2;
    let decade = short && text[2] == '0' && is(text, 3, |letter| letter == 's');
    let ends = !is(text, 3, |character| !character.is_whitespace());
    whole(if decade {
        4
    } else if short && ends {
        3
    } else {
        0
    })
}

/// Addresses of pages, sites and letters.
fn address(text: &[char]) -> Option<Match> {
    let stop = |character: char| character.is_whitespace() || "\"<>|()".contains(character);
    let end = count(text, 0, |character| !stop(character));
    let trimmed = |mut end: usize, marks: &str| {
        while end > 0 && marks.contains(text[end - 1]) {
            end -= 1;
        }
        end
    };
    let line = &text[..end];
    if reads(line, 0, "http://") || reads(line, 0, "https://") {
        let end = trimmed(end, ".!?{},-");
        let scheme = line.iter().take_while(|&&character| character != '/').count() + 2;
        return whole(if end > scheme + 1 { end } else { 0 });
    }
    if let Some(at) = line.iter().position(|&character| character == '@')
        && line[0].is_ascii_alphanumeric()
    {
        let mut length = at;
        while is(line, length + 1, |character| character != '.') {
            length += 1 + count(line, length + 1, |character| character != '.');
        }
        return whole(if length > at { length } else { 0 });
    }
    // A site alone is a word already; with what stands behind it, it is one here.
    let site = word_length(line);
    let name: String = line[..site].iter().collect();
    let known = reads(line, 0, "www.") || [".com", ".net", ".org", ".edu"].iter().any(|end| name.ends_with(end));
    let end = trimmed(line.len(), ".!?{},-");
    let path = known && is(line, site, |character| character == '/') && end > site + 2;
    whole(if path { end } else { 0 })
}

/// AT&T: capitals only.
fn ampersand_name(text: &[char]) -> Option<Match> {
    let capital = |character: char| character.is_ascii_uppercase();
    let before = count(text, 0, capital);
    let sign = if reads(text, before, "&amp;") { 5 } else { usize::from(is(text, before, |sign| sign == '&')) };
    let after = count(text, before + sign, capital);
    (before > 0 && sign > 0 && after > 0).then_some(()).and_then(|()| whole(before + sign + after))
}

/// 1/2, 2-1/2, and 2 1/2.
fn fraction(text: &[char]) -> Option<Match> {
    let digits = |at: usize| count(text, at, is_digit);
    let part = |at: usize| {
        let (above, below) = (digits(at), digits(at + digits(at) + 1));
        let slash = is(text, at + above, |character| character == '/');
        (slash && (1..=4).contains(&above) && (1..=4).contains(&below)).then_some(above + 1 + below)
    };
    let units = digits(0);
    let mixed = (1..=4).contains(&units) && is(text, units, |character| matches!(character, '-' | ' ' | '\u{a0}'));
    let mixed = mixed.then(|| part(units + 1)).flatten().map(|length| units + 1 + length);
    whole(mixed.or_else(|| part(0))?)
}

/// (555) 555-1234.
fn telephone(text: &[char]) -> Option<Match> {
    let digits = |at: usize| count(text, at, is_digit);
    let area = (text[0] == '(').then(|| digits(1)).filter(|area| (2..=3).contains(area))?;
    let mut at = 1 + area;
    is(text, at, |character| character == ')').then_some(())?;
    at += 1 + usize::from(is(text, at + 1, |character| character == ' '));
    let first = Some(digits(at)).filter(|first| (3..=4).contains(first))?;
    at += first;
    at += usize::from(is(text, at, |character| "- ".contains(character)));
    let last = Some(digits(at)).filter(|last| (3..=5).contains(last))?;
    whole(at + last)
}

fn is_hyphen(character: char) -> bool {
    matches!(character, '-' | '_' | '‐' | '‑' | '֊')
}

/// Words joined by hyphens, numbers with points among them: ten-year-old, 1.5-inch, U.S.-made, non-U.S.
fn hyphenated(text: &[char]) -> Option<Match> {
    whole(hyphenated_length(text))
}

fn hyphenated_length(text: &[char]) -> usize {
    let mut length = name_prefix(text);
    length += count(text, length, is_letter_or_digit);
    if length == 0 {
        return 0;
    }
    while is(text, length, is_hyphen) && is(text, length + 1, is_letter_or_digit) {
        length += 1 + count(text, length + 1, is_letter_or_digit);
    }
    length.max(pointed_length(text))
}

/// D' of D'Angelo, before at least two letters.
fn name_prefix(text: &[char]) -> usize {
    let prefix = matches!(text[0], 'd' | 'D' | 'o' | 'O' | 'l' | 'L') && is(text, 1, is_apostrophe);
    if prefix && count(text, 2, is_letter) >= 2 { 2 } else { 0 }
}

/// The kind with points and commas in the first part, all ASCII.
fn pointed_length(text: &[char]) -> usize {
    let ascii = |character: char| character.is_ascii_alphanumeric();
    if !ascii(text[0]) {
        return 0;
    }
    let first = count(text, 0, |character| ascii(character) || ".,".contains(character));
    let mut length = first;
    while is(text, length, |character| character == '-') {
        // One letter with a point is the end of a sentence.
        let initials = Some(initials(text, length + 1)).filter(|&length| length > 2).unwrap_or(0);
        let part = count(text, length + 1, ascii).max(initials);
        if part == 0 {
            break;
        }
        length += 1 + part;
    }
    if length > first { length } else { 0 }
}

/// up/down, black/white/red, w/cheese.
fn slashed(text: &[char]) -> Option<Match> {
    let ascii = |character: char| character.is_ascii_alphanumeric();
    let part = |at: usize| {
        let mut length = count(text, at, ascii);
        for _ in 0..2 {
            let more = if length > 0 && is(text, at + length, |character| character == '-') {
                count(text, at + length + 1, |character| character.is_ascii_alphabetic())
            } else {
                0
            };
            length += if more > 0 { more + 1 } else { 0 };
        }
        length
    };
    let mut length = part(0);
    let first = length;
    for _ in 0..2 {
        if length > 0 && is(text, length, |character| character == '/') {
            let more = part(length + 1);
            length += if more > 0 { more + 1 } else { 0 };
        }
    }
    whole(if length > first { length } else { 0 })
}

/// @name and #word.
fn handle(text: &[char]) -> Option<Match> {
    let ascii = |character: char| character.is_ascii_alphabetic();
    match text[0] {
        '@' if is(text, 1, |character| ascii(character) || character == '_') => {
            whole(1 + count(text, 1, |character| character.is_ascii_alphanumeric() || character == '_'))
        }
        '#' => count(text, 1, ascii).checked_sub(1).and_then(|more| whole(2 + more)),
        _ => None,
    }
}

/// 5, -5, 1,000.50, 10:30, .5
fn number(text: &[char]) -> Option<Match> {
    let sign = usize::from(matches!(text[0], '+' | '-'));
    let mut length = sign + count(text, sign, is_digit);
    while is(text, length, |mark| ".,:".contains(mark)) && is(text, length + 1, is_digit) {
        length += 1 + count(text, length + 1, is_digit);
    }
    whole(if length > sign { length } else { 0 })
}

/// The length of "U.S." or "J.", with the last point.
fn initials(text: &[char], at: usize) -> usize {
    let mut length = 0;
    while is(text, at + length, |letter| letter.is_ascii_alphabetic()) && is(text, at + length + 1, |mark| mark == '.')
    {
        length += 2;
    }
    length
}

fn acronym(text: &[char]) -> Option<Match> {
    whole(initials(text, 0))
}

/// Words that keep their point.
fn abbreviation(text: &[char]) -> Option<Match> {
    let letters = count(text, 0, |character| character.is_ascii_alphabetic());
    if reads(text, 0, "ph.d.") {
        return whole(5);
    }
    if !(1..=LONGEST_ABBREVIATION).contains(&letters) || !is(text, letters, |mark| mark == '.') {
        return None;
    }
    let word: String = text[..letters].iter().collect();
    let lower = word.to_ascii_lowercase();
    let listed = |list: &str| list.split(' ').any(|entry| entry == lower);
    let number_follows = || {
        let spaces = count(text, letters + 1, char::is_whitespace);
        is(text, letters + 1 + spaces, is_digit)
    };
    let capital = word.starts_with(|letter: char| letter.is_ascii_uppercase());
    let mostly_small = !word[1..].contains(|letter: char| letter.is_ascii_uppercase());
    let is_one = listed(ABBREVIATIONS)
        || (capital && listed(WITH_A_CAPITAL))
        || (mostly_small && listed(NOT_IN_CAPITALS))
        || (listed(BEFORE_A_NUMBER) && number_follows());
    whole(if is_one { letters + 1 } else { 0 })
}

const LONGEST_ABBREVIATION: usize = 6;

/// Titles, states, months, days, companies, streets.
const ABBREVIATIONS: &str = "\
    al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd \
    cie col cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd \
    maj mar mme mon mrs neb nev nov oct pfc plc pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis \
    wyo alex ariz assn assoc asst bldg blvd brig bros calif capt cmdr colo conn corp dept elec insp kans lieut \
    messrs mich minn mont okla penn pres prof sens sept supt tenn thurs treas tues univ wisc atty attys comdr \
    govs intl invt mlle msgr natl profs reps";

/// Those that would be words if they were small.
const WITH_A_CAPITAL: &str = "az la pa ark del ill ore tex mass miss wash";

/// Those that are not written in capitals only.
const NOT_IN_CAPITALS: &str = "mfg mtg pte pty";

/// Those that need a number behind them.
const BEFORE_A_NUMBER: &str = "ca no op pp art fig nos prop";

/// &amp; and what else pages write for a character.
fn entity(text: &[char]) -> Option<Match> {
    let named = ENTITIES.iter().find(|(name, _)| reads(text, 0, name)).map_or(0, |(name, _)| name.len());
    let digits = if reads(text, 0, "&#") { count(text, 2, is_digit) } else { 0 };
    let numbered = digits > 0 && is(text, 2 + digits, |mark| mark == ';');
    whole(if numbered { digits + 3 } else { named })
}

const ENTITIES: &[(&str, &str)] = &[
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "''"),
    ("&apos;", "'"),
    ("&nbsp;", " "),
    ("&mdash;", "--"),
    ("&ndash;", "--"),
];

/// <b>, </b>, and <a href="...">.
fn tag(text: &[char]) -> Option<Match> {
    if text[0] != '<' {
        return None;
    }
    let end = count(text, 0, |character| character != '>');
    let inside = if end < text.len() { &text[1..end] } else { &[] };
    let letter = |at: usize| is(inside, at, |character| character.is_ascii_alphabetic());
    let declares = is(inside, 0, |mark| "!?".contains(mark)) && (letter(1) || is(inside, 1, |mark| mark == '-'));
    let names = letter(usize::from(is(inside, 0, |mark| mark == '/')));
    let plain = inside.iter().enumerate().skip(1).all(|(at, &character)| {
        let value = character == '=' && is(inside, at + 1, |quote| "\"'".contains(quote));
        value || character.is_ascii_alphanumeric() || ":._@-\"' /".contains(character)
    });
    whole(if declares || (names && plain) { end + 1 } else { 0 })
}

/// :-) and ^_^
fn smiley(text: &[char]) -> Option<Match> {
    let eyes_at = usize::from(matches!(text[0], '<' | '>'));
    if is(text, eyes_at, |eyes| ":;=".contains(eyes)) {
        let nose = usize::from(is(text, eyes_at + 1, |nose| "-o*'".contains(nose)));
        for mouth in [eyes_at + 1 + nose, eyes_at + 1] {
            let ends = !is(text, mouth + 1, |next| next.is_ascii_alphanumeric());
            if is(text, mouth, |mouth| "()DPdpO\\{@|[]".contains(mouth)) && ends {
                return whole(mouth + 1);
            }
        }
    }
    let eye = |character: char| "-^x=~<>'".contains(character);
    let tired = eye(text[0]) && is(text, 1, |mouth| mouth == '_') && is(text, 2, eye);
    whole(if tired { 3 } else { 0 })
}

/// US$ before an amount.
fn dollar(text: &[char]) -> Option<Match> {
    let country = count(text, 0, |character| character.is_ascii_uppercase());
    is(text, country, |sign| sign == '$').then_some(()).and_then(|()| whole(country + 1))
}

/// Marks that are one token however many they are.
fn run(text: &[char]) -> Option<Match> {
    let first = text[0];
    let same = count(text, 0, |character| character == first);
    match first {
        '?' | '!' => whole(count(text, 0, |character| "?!".contains(character))),
        '*' | '@' | '#' | '_' | '-' => whole(same),
        '\'' | '`' if same >= 2 => whole(2),
        '.' if same >= 3 => whole(same.min(5)),
        _ => None,
    }
}

fn symbol(text: &[char]) -> Option<Match> {
    whole(usize::from(is_symbol(text[0]) || is_letter(text[0])))
}

/// How a token is written: brackets by name, one form of each quote, dash and sign of money.
fn spelled(text: &[char]) -> String {
    let written: String = text.iter().filter(|&&character| character != SOFT_HYPHEN).collect();
    let lower = written.to_ascii_lowercase();
    if let Some((_, character)) = ENTITIES.iter().find(|(name, _)| *name == lower) {
        return (*character).to_owned();
    }
    let single = match written.as_str() {
        "[" => "-lsb-",
        "]" => "-rsb-",
        "{" => "-lcb-",
        "}" => "-rcb-",
        "\"" | "“" | "”" | "»" => "''",
        "‘" | "’" | "‛" | "‹" | "›" => "'",
        "–" | "—" | "―" => "--",
        "…" => "...",
        "¢" => "cents",
        "£" => "#",
        "¤" | "€" => "$",
        "¼" => "1/4",
        "½" => "1/2",
        "¾" => "3/4",
        "⅓" => "1/3",
        "⅔" => "2/3",
        "---" | "----" => "--",
        dots if dots.starts_with("...") => "...",
        _ => "",
    };
    if !single.is_empty() {
        return single.to_owned();
    }
    // Only clitics have their apostrophe straightened.
    let is_whole = |found: Option<Match>| found.is_some_and(|found| found.take == text.len());
    let straight = is_whole(clitic(text)) || is_whole(negated(text));
    let plain = if straight { written.replace('’', "'") } else { written };
    plain.replace("&amp;", "&").replace('(', "-lrb-").replace(')', "-rrb-")
}
