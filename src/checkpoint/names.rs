//! Names of tensors without what wrappers of training put into them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use crate::error::{Error, Result};

/// Parts of names that wrappers put in, anywhere: data-parallel training, sharded training and its older form,
/// activation checkpointing, compilation, and what frameworks around training wrap once more.
const WRAPPERS: [&str; 6] =
    ["module", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_orig_mod", "_forward_module"];

/// The entries under their names without the parts of wrappers. `source` is named in errors.
///
/// # Errors
/// Two names that become one.
pub fn unwrapped<V>(entries: BTreeMap<String, V>, source: &Path) -> Result<BTreeMap<String, V>> {
    let mut found = BTreeMap::new();
    for (name, value) in entries {
        match found.entry(without_wrappers(&name).into_owned()) {
            Entry::Vacant(place) => drop(place.insert(value)),
            Entry::Occupied(place) => {
                let expected = "one tensor of this name without wrappers of training";
                return Err(Error::invalid(source, place.key(), expected, format!("another one, {name}")));
            }
        }
    }
    Ok(found)
}

/// A name without those of its parts that wrappers put in. One that has no other part stays.
fn without_wrappers(name: &str) -> Cow<'_, str> {
    let wraps = |part: &&str| WRAPPERS.contains(part);
    if !name.split('.').any(|part| wraps(&part)) {
        return Cow::Borrowed(name);
    }
    let rest: Vec<&str> = name.split('.').filter(|part| !wraps(part)).collect();
    if rest.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(rest.join(".")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_whole_parts_of_a_name() {
        for (name, expected) in [
            ("module.perceiver.latents", "perceiver.latents"),
            ("_fsdp_wrapped_module._fpw_module.a.0.weight", "a.0.weight"),
            ("a.0._checkpoint_wrapped_module.b._orig_mod.weight", "a.0.b.weight"),
            ("_orig_mod.module.a", "a"),
            ("a.module", "a"),
            ("a.submodule.weight", "a.submodule.weight"),
            ("modules.a", "modules.a"),
            ("my_orig_mod.a", "my_orig_mod.a"),
            ("module", "module"),
            ("", ""),
        ] {
            assert_eq!(without_wrappers(name), expected, "{name}");
        }
    }

    #[test]
    fn two_names_that_become_one_are_refused() {
        let names = |names: [&str; 2]| unwrapped(names.map(|name| (name.to_owned(), ())).into(), Path::new("a.pt"));
        assert_eq!(names(["a.module.b", "a.c"]).unwrap().into_keys().collect::<Vec<_>>(), ["a.b", "a.c"]);
        let error = names(["module.a.b", "a.b"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "a.pt: a.b: expected one tensor of this name without wrappers of training, found another one, module.a.b"
        );
    }
}
