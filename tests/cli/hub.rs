//! Models by their names on the Hub: found in a local cache wherever that is, never fetched.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache as huggingface_hub makes it: files are links into `blobs`.
struct Cache {
    folder: tempfile::TempDir,
}

impl Cache {
    fn new() -> Cache {
        let cache = Cache { folder: tempfile::tempdir().unwrap() };
        let (model, snapshot) = (cache.model(), cache.snapshot());
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(model.join("blobs")).unwrap();
        for (number, file) in std::fs::read_dir(DEMO).unwrap().map(|entry| entry.unwrap().path()).enumerate() {
            if file.is_file() {
                std::fs::copy(&file, model.join(format!("blobs/{number}"))).unwrap();
                symlink(format!("../../blobs/{number}"), snapshot.join(file.file_name().unwrap())).unwrap();
            }
        }
        cache.refer("main", COMMIT.as_bytes());
        cache
    }

    fn hub(&self) -> PathBuf {
        self.folder.path().join("huggingface/hub")
    }

    fn model(&self) -> PathBuf {
        self.hub().join("models--some-one--demo_1.0")
    }

    fn snapshot(&self) -> PathBuf {
        self.model().join("snapshots").join(COMMIT)
    }

    fn refer(&self, revision: &str, to: &[u8]) {
        let file = self.model().join("refs").join(revision);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, to).unwrap();
    }

    /// Looks into a model with this environment alone.
    fn inspect(&self, model: &str, environment: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        for name in ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.args(["inspect", model, "--json"]).env("HOME", "/nowhere").envs(environment.iter().copied());
        command.current_dir(self.folder.path()).output().unwrap()
    }

    fn finds(&self, model: &str, environment: &[(&str, &Path)]) {
        let found = self.inspect(model, environment);
        assert!(found.status.success(), "{model} {environment:?}: {}", String::from_utf8_lossy(&found.stderr));
    }

    /// The one line that says why a model is not found.
    fn misses(&self, model: &str) -> String {
        let found = self.inspect(model, &[("HF_HUB_CACHE", &self.hub())]);
        let told = String::from_utf8(found.stderr).unwrap();
        assert_eq!((found.status.code(), told.matches('\n').count()), (Some(1), 1), "{model}: {told}");
        assert!(found.stdout.is_empty() && told.len() < 1000, "{model}: {told}");
        told
    }
}

const NAME: &str = "some-one/demo_1.0";

#[test]
fn a_name_is_looked_up_where_downloads_are() {
    let cache = Cache::new();
    let (hub, none, empty) = (cache.hub(), Path::new("/nowhere"), Path::new(""));
    let huggingface = hub.parent().unwrap();
    cache.finds(NAME, &[("HF_HUB_CACHE", &hub), ("HF_HOME", none)]);
    cache.finds(NAME, &[("HF_HUB_CACHE", empty), ("HF_HOME", huggingface), ("XDG_CACHE_HOME", none)]);
    cache.finds(NAME, &[("XDG_CACHE_HOME", cache.folder.path())]);
    symlink(cache.folder.path(), cache.folder.path().join(".cache")).unwrap();
    cache.finds(NAME, &[("HOME", cache.folder.path())]);
    assert!(!cache.inspect(NAME, &[]).status.success(), "no cache at all");
}

#[test]
fn revisions_are_branches_tags_and_commits() {
    let cache = Cache::new();
    let hub = cache.hub();
    let finds = |revision: &str| cache.finds(&format!("{NAME}@{revision}"), &[("HF_HUB_CACHE", &hub)]);
    cache.refer("v1.0", format!("{COMMIT}\n").as_bytes());
    cache.refer("refs/pr/1", COMMIT.as_bytes());
    ["main", "v1.0", "refs/pr/1", COMMIT].into_iter().for_each(finds);
    // A snapshot may be a link itself.
    let outside = cache.folder.path().join("demo");
    std::fs::create_dir(&outside).unwrap();
    for file in std::fs::read_dir(DEMO).unwrap().map(|entry| entry.unwrap().path()).filter(|file| file.is_file()) {
        std::fs::copy(&file, outside.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::remove_dir_all(cache.snapshot()).unwrap();
    symlink(&outside, cache.snapshot()).unwrap();
    finds("main");
}

#[test]
fn what_answers_is_what_the_folder_answers() {
    let cache = Cache::new();
    let answer = |model: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.args(["generate", model, "-t", "kep.", "--max-new-tokens", "5"]).env("HF_HUB_CACHE", cache.hub());
        let found = command.output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        found.stdout
    };
    assert_eq!(answer(NAME), answer(DEMO));
}

#[test]
fn a_folder_comes_before_a_name() {
    let cache = Cache::new();
    std::fs::create_dir_all(cache.folder.path().join(NAME)).unwrap();
    let told = cache.misses(NAME);
    assert!(!told.contains("hf download"), "{told}");
}

#[test]
fn what_is_not_there_says_how_it_comes_there() {
    let cache = Cache::new();
    let hub = cache.hub().display().to_string();
    let told = cache.misses("some-one/other");
    let want = format!("some-one/other: no folder, and not in the cache at {hub}; hf download some-one/other\n");
    assert!(told.ends_with(&want), "{told}");
    let told = cache.misses(&format!("{NAME}@dev"));
    assert!(
        told.contains("no such revision") && told.contains("hf download some-one/demo_1.0 --revision dev"),
        "{told}"
    );
    let other = COMMIT.replace('0', "f");
    let told = cache.misses(&format!("{NAME}@{other}"));
    assert!(told.contains("not downloaded to") && told.contains(&format!("--revision {other}")), "{told}");
    // No names: paths, of which the errors speak as ever.
    for path in ["../some-one/demo_1.0", "some-one/..", "some-one/demo_1.0@../../x", "some-one--demo_1.0", "a/b/c"] {
        let told = cache.misses(path);
        assert!(!told.contains("hf download"), "{told}");
    }
    std::fs::remove_file(cache.snapshot().join("model.safetensors")).unwrap();
    assert!(cache.misses(NAME).contains("model.safetensors"), "no weights");
    std::fs::remove_dir_all(cache.snapshot()).unwrap();
    assert!(cache.misses(NAME).contains("not downloaded to"), "no snapshot");
}

#[test]
fn references_are_not_trusted() {
    let cache = Cache::new();
    let name = format!("{NAME}@bad");
    let upper = COMMIT.to_uppercase();
    for junk in [&b""[..], b"main", b"../../../../etc", b"0123\n4567", b"\xff\x1b[31m", upper.as_bytes()] {
        cache.refer("bad", junk);
        let told = cache.misses(&name);
        assert!(told.contains("refs/bad: commit: expected 40 hexadecimal digits, found "), "{told}");
        assert!(!told.contains('\u{1b}'), "{told}");
    }
    let huge = std::fs::File::create(cache.model().join("refs/bad")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(cache.misses(&name).contains("is over the limit of 64"), "a huge file is not read");
    cache.refer("folder/x", b"");
    cache.misses(&format!("{NAME}@folder"));
}
