//! The verb of a word in -ing, as NLTK's `WordNetLemmatizer` finds it in WordNet's files: listed exceptions first, else
//! without the ending or with an e for it, as far as that is a verb; of several, the shortest.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::checkpoint::read_bounded;
use crate::error::{Error, Result};

/// Most bytes of one file; the published ones have half a million.
const BYTES_MAX: u64 = 16 << 20;

/// WordNet's verbs.
#[derive(Debug, Clone)]
pub(super) struct Verbs {
    all: HashSet<String>,
    exceptions: HashMap<String, Vec<String>>,
}

impl Verbs {
    pub(super) fn open(folder: &Path) -> Result<Verbs> {
        let index = folder.join("index.verb");
        let text = read_text(&index, BYTES_MAX)?;
        // Lines of the licence begin with a space.
        let lemmas = text.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next());
        let all: HashSet<String> = lemmas.filter(|lemma| !lemma.is_empty()).map(str::to_owned).collect();
        if all.is_empty() {
            return Err(Error::invalid(index, "verbs", "a line for each", "none"));
        }
        let text = read_text(&folder.join("verb.exc"), BYTES_MAX)?;
        let exceptions = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some((words.next()?, words.collect()))
        });
        let exceptions = exceptions.collect();
        Ok(Verbs { all, exceptions })
    }

    /// The verb, or the word itself if there is none.
    pub(super) fn lemma(&self, word: &str) -> String {
        let stem = word.strip_suffix("ing").unwrap_or(word);
        let formed = || vec![format!("{stem}e"), stem.to_owned()];
        let mut forms = self.exceptions.get(word).cloned().unwrap_or_else(formed);
        forms.insert(0, word.to_owned());
        // The first of the shortest.
        let verbs = forms.into_iter().filter(|template| self.all.contains(template));
        verbs.min_by_key(|template| template.chars().count()).unwrap_or_else(|| word.to_owned())
    }
}

fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let bytes = read_bounded(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|reason| Error::malformed(path, "text", "UTF-8", reason))
}
