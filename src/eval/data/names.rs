//! Files of lines that each give something a name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::read_input;

/// Largest file; that of all 21,841 classes of ImageNet has 1 MB.
pub const BYTES_MAX: u64 = 16 << 20;

/// What lines name, with its name. `pair` takes both from a line; `expected` says what a line is.
pub fn read(
    file: &Path,
    expected: &str,
    pair: impl Fn(&str) -> Option<(&str, &str)>,
) -> Result<BTreeMap<String, String>> {
    let bytes = read_input(file, BYTES_MAX)?;
    let text = str::from_utf8(&bytes).map_err(|reason| Error::malformed(file, "text", "UTF-8", reason))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut names = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()) {
        let invalid = |found: String| Error::invalid(file, format!("line {number}"), expected, found);
        let (named, name) = pair(line).ok_or_else(|| invalid(format!("{line:?}")))?;
        if names.insert(named.to_owned(), name.to_owned()).is_some() {
            return Err(invalid(format!("{named} again")));
        }
    }
    Ok(names)
}
