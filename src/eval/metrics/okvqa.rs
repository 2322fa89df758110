//! The stems in which OK-VQA's answers are compared, as OpenFlamingo 2.0.1 makes them from what a model wrote
//! (`eval/ok_vqa_utils.py`): a table of exceptions, WordNet's verb for words in -ing, the singular of words that a
//! tagger takes for plurals.
//!
//! Tagger and verbs are data of NLTK, which the original downloads, and which are read here from the same folder:
//! `taggers/averaged_perceptron_tagger_eng/*.json` and `corpora/wordnet/{index.verb,verb.exc}`. One thing differs: an
//! answer is taken for one sentence.

mod plural;
mod tagger;
mod verbs;
mod words;

use std::path::Path;

use tagger::Tagger;
use verbs::Verbs;

use crate::error::Result;

/// Stems answers.
#[derive(Debug, Clone)]
pub struct Stemmer {
    tagger: Tagger,
    verbs: Verbs,
}

impl Stemmer {
    /// Reads a folder of NLTK's data (`nltk.download` of `averaged_perceptron_tagger_eng` and `wordnet`, unpacked).
    ///
    /// # Errors
    /// If a file is missing, too large, or not what it must be.
    pub fn open(nltk_data: impl AsRef<Path>) -> Result<Stemmer> {
        let folder = nltk_data.as_ref();
        let tagger = Tagger::open(&folder.join("taggers/averaged_perceptron_tagger_eng"))?;
        let verbs = Verbs::open(&folder.join("corpora/wordnet"))?;
        Ok(Stemmer { tagger, verbs })
    }

    /// The stems of an answer's words, one space between them.
    pub fn stem(&self, answer: &str) -> String {
        let words = words::words(answer);
        let tags = self.tagger.tags(&words);
        let stems = words.iter().zip(tags).map(|(word, tag)| match exception(word) {
            Some(stem) => stem,
            None if word.ends_with("ing") => self.verbs.lemma(word),
            None if tag.starts_with("NNS") || tag.starts_with("NNPS") => plural::singular(word),
            None => word.clone(),
        });
        stems.collect::<Vec<_>>().join(" ")
    }
}

/// Words whose stem no rule finds: what is taken from their end, what is put there, and the words.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("", "", "are christmas las married police tennis vegas yes"),
    (
        "s",
        "",
        "adhesives bases braves caves childrens cumulis doves drives gloves graves jeans microwaves overseas pies \
         quantas shelves sometimes ties waves womens",
    ),
    ("es", "", "alpes circuses clothes hornes lenses lowes rabbies raines routes"),
    ("'s", "", "batter's boy's daughter's domino's farmer's hell's kid's men's regent's veteran's"),
    ("ves", "f", "leaves"),
    (
        "ing",
        "",
        "awning browsing clothing couponing earing firefighting hearding morning pooping rodeoing scrapbooking \
         sunbathing teasing teething texting toileting",
    ),
    ("ing", "e", "coding dining kiting mating paring piping plating riding staring striping swining wading"),
    ("ting", "", "eatting haircutting"),
    ("ding", "", "pudding"),
    ("ning", "", "tenning"),
    ("ring", "e", "purring"),
    ("ating", "e", "urinating"),
    ("izing", "", "polarizing socializing"),
    ("eering", "", "charioteering"),
    ("ioning", "e", "vacationing"),
    ("ings", "", "belongings buildings earnings markings meetings paintings stockings"),
    ("ings", "e", "casings"),
    ("pings", "", "toppings"),
    ("tings", "", "settings"),
    ("dings", "", "weddings"),
    (
        "ness",
        "",
        "alertness badness baldness blindness brightness drunkenness illness ripeness sadness sickness smugness \
         vastness wetness wilderness",
    ),
    ("fulness", "", "playfulness"),
    ("e", "", "corgie creame crepte gondoliere hawke mustange pease porche potatoe ringe sautee tomatoe walle"),
    ("er", "", "conducter kindergartener sunblocker"),
    (
        "ers",
        "",
        "backpackers containers designers firefighters hamburgers protesters reminders reporters skateboarders \
         suspenders travelers",
    ),
    ("lers", "", "controllers propellers travellers"),
    ("izers", "", "vandalizers"),
    ("ators", "", "elevators"),
    ("ions", "", "directions expressions projections reflections transitions"),
    ("ations", "", "decorations revelations"),
    ("als", "", "minerals nationals personals professionals"),
    ("ous", "", "coniferous dangerous mountainous"),
    ("d", "", "glaced paned"),
    ("ds", "", "mopeds"),
    ("ity", "", "curiousity"),
    ("icity", "", "electicity"),
    ("ics", "", "electronics"),
    ("ences", "", "conferences"),
    ("ments", "", "apartments"),
    ("ates", "", "emirates"),
    ("ize", "", "oxygenize"),
];

fn exception(word: &str) -> Option<String> {
    let (end, instead, _) = EXCEPTIONS.iter().find(|(_, _, words)| words.split(' ').any(|listed| listed == word))?;
    Some(format!("{}{instead}", &word[..word.len() - end.len()]))
}
