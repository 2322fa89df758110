//! Licences of dependencies: those of `deny.toml`, so that a new one is found where `cargo deny` is not installed.

use std::collections::BTreeSet;
use std::process::Command;

/// Whether an SPDX expression can be met by licences that are allowed.
fn is_met(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let met = any(&mut rest, allowed);
    assert!(rest.is_empty(), "{expression}: not an expression");
    met
}

fn any(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut met = all(words, allowed);
    while let ["OR", rest @ ..] = words {
        *words = rest;
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(words, allowed);
    while let ["AND", rest @ ..] = words {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    match words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any(words, allowed);
            assert_eq!(words.first(), Some(&")"));
            *words = &words[1..];
            met
        }
        // An exception allows more, and is a licence of its own.
        [_, "WITH", _, rest @ ..] => {
            *words = rest;
            false
        }
        [licence, rest @ ..] => {
            *words = rest;
            allowed.contains(licence)
        }
        [] => panic!("an expression ends too early"),
    }
}

#[test]
fn dependencies_have_licences_that_are_allowed() {
    let deny = std::fs::read_to_string(super::root().join("deny.toml")).unwrap();
    let line = deny.lines().find_map(|line| line.strip_prefix("allow = [")).unwrap();
    let allowed: BTreeSet<&str> = line.split('"').skip(1).step_by(2).collect();
    assert!(allowed.contains("MIT") && !is_met("GPL-3.0 OR (MIT AND LGPL-2.1)", &allowed), "{allowed:?}");
    // What this build needs is here; what others need may not have been downloaded.
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{l}\t{p}"]).current_dir(super::root());
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<(&str, &str)> = tree.lines().filter_map(|line| line.split_once('\t')).collect();
    assert!(packages.len() > 50, "{tree}");
    for (licence, package) in packages {
        assert!(is_met(licence.trim_end_matches(" (*)"), &allowed), "{package}: {licence:?} is not in deny.toml");
    }
}
