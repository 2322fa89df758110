//! Models by the names that they have on the Hugging Face Hub, if somebody has downloaded them: looked up in the local
//! cache, as huggingface_hub lays it out. Nothing is ever fetched.

use std::borrow::Cow;
use std::env;
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};

use crate::checkpoint::{is_there, read_bounded};
use crate::error::{Error, Result};

/// Digits of a commit.
const COMMIT_DIGITS: usize = 40;
/// Bytes of a file that names a commit: its digits, and whatever ends the line.
const REFERENCE_BYTES_MAX: u64 = 64;
/// Bytes of a name with its revision.
const NAME_BYTES_MAX: usize = 256;

/// The folder of a model: `model` itself if it is there, or anything but `owner/name` or `owner/name@revision`; else
/// the snapshot of that name in the local cache (`$HF_HUB_CACHE`, or `$HF_HOME/hub`, or `huggingface/hub` in
/// `$XDG_CACHE_HOME` or `~/.cache`). A revision is a branch, a tag or a commit, `main` if there is none. Nothing is
/// downloaded: the error says how to.
///
/// # Errors
/// A name that the cache does not have; a reference in it that names no commit.
pub fn resolve(model: &Path) -> Result<Cow<'_, Path>> {
    if is_there(model) {
        return Ok(Cow::Borrowed(model));
    }
    match model.to_str().and_then(Name::read) {
        Some(name) => name.find().map(Cow::Owned),
        None => Ok(Cow::Borrowed(model)),
    }
}

/// What a model is called by the folder that it was opened from: `owner/name` of a snapshot in a cache, else the
/// folder's own name.
pub fn model_name(folder: &Path) -> String {
    let of_snapshot = || {
        let snapshots = folder.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
        let (owner, name) = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?.split_once("--")?;
        Some(format!("{owner}/{name}"))
    };
    let own = || folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    of_snapshot().unwrap_or_else(own)
}

/// `owner/name@revision`.
struct Name<'a> {
    whole: &'a str,
    owner: &'a str,
    name: &'a str,
    revision: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// None of a text that is no such name. What a name is made of cannot lead out of the cache.
    fn read(whole: &'a str) -> Option<Name<'a>> {
        let (model, revision) = whole.split_once('@').map_or((whole, None), |(model, rest)| (model, Some(rest)));
        let (owner, name) = model.split_once('/')?;
        let is_name = |part: &str| is_word(part) && !part.contains("--");
        let is_revision = |revision: &str| revision.split('/').all(is_word);
        let is_read =
            whole.len() <= NAME_BYTES_MAX && is_name(owner) && is_name(name) && revision.is_none_or(is_revision);
        is_read.then_some(Name { whole, owner, name, revision })
    }

    /// Its snapshot in the cache.
    fn find(&self) -> Result<PathBuf> {
        let cache = cache();
        let missing = |what: &str, place: &Path| {
            let revision = self.revision.map_or(String::new(), |revision| format!(" --revision {revision}"));
            let Name { owner, name, .. } = self;
            let reason = format!("{what} {}; hf download {owner}/{name}{revision}", place.display());
            Error::file(self.whole, IoError::new(ErrorKind::NotFound, reason))
        };
        let Some(cache) = cache else {
            return Err(missing(
                "no folder, and without HF_HUB_CACHE, HF_HOME or HOME no cache of",
                Path::new("models"),
            ));
        };
        let model = cache.join(format!("models--{}--{}", self.owner, self.name));
        if !is_there(&model) {
            return Err(missing("no folder, and not in the cache at", &cache));
        }
        let revision = self.revision.unwrap_or("main");
        let reference = model.join("refs").join(revision);
        let commit = match is_there(&reference) {
            true => commit_of(&reference)?,
            false if is_commit(revision) => revision.to_owned(),
            false => return Err(missing("no such revision in the cache at", &model)),
        };
        let snapshot = model.join("snapshots").join(commit);
        if is_there(&snapshot) { Ok(snapshot) } else { Err(missing("not downloaded to", &snapshot)) }
    }
}

/// What a path may have as one of its parts, and nothing that leads elsewhere.
fn is_word(part: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty() && !part.starts_with('.') && !part.contains("..") && part.bytes().all(is_known)
}

fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The commit that a file names.
fn commit_of(reference: &Path) -> Result<String> {
    let bytes = read_bounded(reference, REFERENCE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let commit = text.trim_ascii_end();
    if is_commit(commit) {
        return Ok(commit.to_owned());
    }
    let expected = format!("{COMMIT_DIGITS} hexadecimal digits");
    Err(Error::invalid(reference, "commit", expected, format!("{commit:?}")))
}

/// Where downloads are, as huggingface_hub has it; an empty variable counts as not set.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
    let own = || set("HF_HOME").or_else(|| Some(home()?.join("huggingface")));
    set("HF_HUB_CACHE").or_else(|| Some(own()?.join("hub")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for text in ["a/b", "HuggingFaceM4/idefics-9b", "a.b/c_d@main", "a/b@refs/pr/1", "a/b@v1.0"] {
            assert!(Name::read(text).is_some(), "{text}");
        }
        let long = format!("a/{}", "b".repeat(NAME_BYTES_MAX));
        let wrong = [
            "",
            "a",
            "/a",
            "a/",
            "a/b/c",
            "./a",
            "../a",
            "a/..",
            "a/b@",
            "a/b@..",
            "a/b@../c",
            "a/b@c//d",
            "a/b@/c",
            "a--b/c",
            "a/b c",
            "a\\b/c",
            "~/a",
            "a/b@c@d",
            "a/b\n",
            "a/.b",
            "a/b@x/../y",
            "ä/b",
            &long,
        ];
        for text in wrong {
            assert!(Name::read(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn snapshots_are_called_as_on_the_hub() {
        for (folder, name) in [
            ("/c/hub/models--HuggingFaceM4--idefics-9b/snapshots/0123", "HuggingFaceM4/idefics-9b"),
            ("/c/models--a--b/snapshots/0/", "a/b"),
            ("/c/models--a/snapshots/0", "0"),
            ("/c/models--a--b/0", "0"),
            ("idefics-9b", "idefics-9b"),
            ("/", "/"),
        ] {
            assert_eq!(model_name(Path::new(folder)), name);
        }
    }
}
