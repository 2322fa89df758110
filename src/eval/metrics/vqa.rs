//! VQA accuracy as OpenFlamingo 2.0.1 computes it (`eval/vqa_metric.py`, after the VQA challenge's own evaluation): an
//! answer counts fully when three of the other people gave it, after both were brought to one form.
//!
//! The form is the original's with its peculiarities: a punctuation mark is removed where it stands beside a space
//! anywhere in the text and is a space otherwise, and at most 32 points are removed. One thing differs: only ASCII
//! digits count as digits beside a comma or a point.

use super::{is_space, mean};

/// The accuracy of an answer to one question, 0 to 1: for each person, whether three of the others gave it (less for
/// fewer), averaged over the people. Everything is [`normalised`] first. No answers: 0.
///
/// The original leaves out all answers that equal a person's in every field; here just the person's own, which is the
/// same where answers are numbered, as they are in all published sets.
pub fn accuracy<'a>(answer: &str, people: impl IntoIterator<Item = &'a str>) -> f64 {
    let answer = normalised(answer);
    let agree: Vec<bool> = people.into_iter().map(|given| normalised(given) == answer).collect();
    if agree.is_empty() {
        return 0.0;
    }
    let all = agree.iter().filter(|&&agrees| agrees).count();
    mean(agree.iter().map(|&own| ((all - usize::from(own)) as f64 / 3.0).min(1.0)))
}

/// The form in which answers are compared.
pub fn normalised(answer: &str) -> String {
    let spaced = answer.replace(['\n', '\t'], " ");
    let words = without_punctuation(spaced.trim_matches(is_space)).to_lowercase();
    let words = words.split(is_space).filter(|word| !word.is_empty()).map(digit);
    words.filter(|word| !["a", "an", "the"].contains(word)).map(contraction).collect::<Vec<_>>().join(" ")
}

const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// The original hands a flag of value 32 where the number of points to remove is expected.
const POINTS_MAX: usize = 32;

fn without_punctuation(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let digit_at = |at: usize| characters.get(at).is_some_and(char::is_ascii_digit);
    let number_with_comma =
        (1..characters.len()).any(|at| characters[at] == ',' && digit_at(at - 1) && digit_at(at + 1));
    let beside_space = |mark: char| characters.windows(2).any(|pair| pair == [mark, ' '] || pair == [' ', mark]);
    let removed: Vec<char> = PUNCTUATION.chars().filter(|&mark| number_with_comma || beside_space(mark)).collect();
    let kept = characters.iter().filter(|character| !removed.contains(character));
    let kept: Vec<char> =
        kept.map(|&character| if PUNCTUATION.contains(character) { ' ' } else { character }).collect();
    let mut points = 0;
    let mut text = String::with_capacity(kept.len());
    for (at, &character) in kept.iter().enumerate() {
        let before_digit = kept.get(at + 1).is_some_and(char::is_ascii_digit);
        if character == '.' && !before_digit && points < POINTS_MAX {
            points += 1;
        } else {
            text.push(character);
        }
    }
    text
}

fn digit(word: &str) -> &str {
    match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        _ => word,
    }
}

/// Words that get their apostrophe back when it is missing.
const ONE_APOSTROPHE: &str = "\
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's \
    isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've \
    shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd \
    there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've \
    when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all \
    you'd you'll you're you've";

/// Words that get one of their two apostrophes back.
const TWO_APOSTROPHES: &str = "\
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've \
    something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've";

/// A word as the original's table of contractions writes it. (Its entries with a capital I never apply: the text is in
/// small letters by then.)
fn contraction(word: &str) -> &str {
    match word {
        "yall'd've" | "y'alld've" | "y'all'dve" => return "y'all'd've",
        "ow's'at" | "'ows'at" | "'ow'sat" => return "'ow's'at",
        "somebody'd" => return "somebodyd",
        _ => {}
    }
    let restores = |full: &&str, missing: usize| {
        full.len() == word.len() + 1
            && full.match_indices('\'').count() == missing
            && full.match_indices('\'').any(|(at, _)| full[..at] == word[..at] && full[at + 1..] == word[at..])
    };
    let one = ONE_APOSTROPHE.split(' ').find(|full| word.is_ascii() && restores(full, 1));
    one.or_else(|| TWO_APOSTROPHES.split(' ').find(|full| word.is_ascii() && restores(full, 2))).unwrap_or(word)
}
