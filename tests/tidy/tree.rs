//! The modules of a crate as its files declare them, and which others each of them names: in `use`, with braces,
//! `super`, `self` and renames, in paths of expressions and types, and inside macros. Code of tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// Names from the crate's root down.
pub type Names = Vec<String>;

/// A module.
pub struct Module {
    /// Relative to the root of the repository.
    pub file: PathBuf,
    /// All that it names in the crate, itself included.
    pub names: BTreeSet<Names>,
}

/// The modules of a crate.
pub struct Tree {
    /// By path; the root's is empty.
    pub modules: BTreeMap<Names, Module>,
    /// What the root exports from elsewhere: its name there, and where it comes from.
    exports: BTreeMap<String, Names>,
}

impl Tree {
    /// Reads the crate that begins in a file.
    pub fn read(root: &Path, file: &str) -> Tree {
        let mut tree = Tree { modules: BTreeMap::new(), exports: BTreeMap::new() };
        let mut open = vec![(Names::new(), PathBuf::from(file))];
        while let Some((path, file)) = open.pop() {
            let text =
                std::fs::read_to_string(root.join(&file)).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            let mut reader = Reader::new(path.clone(), &file);
            reader.visit_file(&syn::parse_file(&text).unwrap());
            let folder = match file.file_stem().unwrap().to_str().unwrap() {
                "mod" | "lib" | "main" => file.parent().unwrap().to_owned(),
                _ => file.with_extension(""),
            };
            for child in reader.children {
                let inside = child[path.len()..].iter().collect::<PathBuf>();
                let [beside, below] = [inside.with_extension("rs"), inside.join("mod.rs")].map(|end| folder.join(end));
                open.push((child, if root.join(&beside).exists() { beside } else { below }));
            }
            if path.is_empty() {
                tree.exports = reader.exports;
            }
            let names = reader.names;
            assert!(tree.modules.insert(path, Module { file, names }).is_none());
        }
        tree
    }

    /// The module that something named belongs to: the deepest on its path.
    pub fn module_of(&self, named: &Names) -> Names {
        let mut path = match named.first().and_then(|first| self.exports.get(first)) {
            Some(origin) if !self.modules.contains_key(&named[..1]) => origin.clone(),
            _ => named.clone(),
        };
        while !self.modules.contains_key(&path) {
            path.pop();
        }
        path
    }

    /// The modules that one uses.
    pub fn used_by(&self, path: &Names) -> BTreeSet<Names> {
        self.modules[path].names.iter().map(|named| self.module_of(named)).filter(|used| used != path).collect()
    }

    /// Which children of each module use which others of the same: pairs of paths of one length that differ in their
    /// last name.
    pub fn siblings(&self) -> BTreeSet<(Names, Names)> {
        let mut pairs = BTreeSet::new();
        for user in self.modules.keys() {
            for used in self.used_by(user) {
                let shared = user.iter().zip(&used).take_while(|(a, b)| a == b).count();
                if shared < user.len().min(used.len()) {
                    pairs.insert((user[..=shared].to_vec(), used[..=shared].to_vec()));
                }
            }
        }
        pairs
    }
}

/// Those that can be reached from themselves, each with all that it is in a circle with.
pub fn circles(pairs: &BTreeSet<(Names, Names)>) -> BTreeSet<BTreeSet<Names>> {
    let reached = |from: &Names| {
        let (mut found, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = open.pop() {
            for (_, to) in pairs.iter().filter(|(user, _)| *user == at) {
                if found.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        found
    };
    let all: BTreeMap<&Names, BTreeSet<Names>> = pairs.iter().map(|(user, _)| (user, reached(user))).collect();
    let mutual = all.iter().filter(|(user, found)| found.contains(**user)).map(|(user, found)| {
        found.iter().filter(|other| all.get(other).is_some_and(|back| back.contains(*user))).cloned().collect()
    });
    mutual.collect()
}

/// Reads the items of a file.
struct Reader<'a> {
    file: &'a Path,
    /// Where it is: changes inside of modules with a body.
    path: Names,
    names: BTreeSet<Names>,
    /// Modules with a file of their own.
    children: Vec<Names>,
    exports: BTreeMap<String, Names>,
}

impl<'a> Reader<'a> {
    fn new(path: Names, file: &'a Path) -> Self {
        Reader { file, path, names: BTreeSet::new(), children: Vec::new(), exports: BTreeMap::new() }
    }

    /// A path from the root, of one that begins with `crate`, `super` or `self`.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let mut found = match path[0].as_str() {
            "crate" => Names::new(),
            "self" => self.path.clone(),
            "super" => self.path[..self.path.len() - 1].to_vec(),
            _ => return None,
        };
        for name in &path[1..] {
            match name.as_str() {
                "self" => {}
                "super" => {
                    found.pop().expect("nothing is above the root");
                }
                _ => found.push(name.clone()),
            }
        }
        Some(found)
    }

    fn name(&mut self, path: &[String]) {
        self.names.extend(self.absolute(path));
    }

    /// All that a tree of `use` imports, `before` being what stands before it.
    fn import(&mut self, before: &mut Names, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(before, tree)),
            syn::UseTree::Name(name) => self.imported(before, &name.ident, &name.ident),
            syn::UseTree::Rename(name) => self.imported(before, &name.ident, &name.rename),
            syn::UseTree::Glob(_) => {
                let found = self.absolute(before);
                self.refuse_root(&found);
                self.names.extend(found);
            }
        }
    }

    fn imported(&mut self, before: &[String], name: &syn::Ident, to: &syn::Ident) {
        let path = [before, &[name.to_string()]].concat();
        let found = self.absolute(&path);
        self.refuse_root(&found);
        if self.path.is_empty() {
            // In the root, a path that begins with a name begins with a module or another crate.
            self.exports.insert(to.to_string(), found.clone().unwrap_or(path));
        }
        self.names.extend(found);
    }

    /// Behind another name for the root any module could hide.
    fn refuse_root(&self, found: &Option<Names>) {
        let whole = found.as_ref().is_some_and(Vec::is_empty);
        assert!(!whole || self.path.is_empty(), "{}: imports all of the crate's root", self.file.display());
    }

    /// Paths among the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Names = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Ident(ident) if colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.end(&mut path);
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Names) {
        if path.len() > 1 {
            self.name(path);
        }
        path.clear();
    }
}

/// Whether something is there for tests alone.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    })
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if is_test(&item.attrs) {
            return;
        }
        let moved = item.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
        assert!(!moved, "{}: a module in a file of another name", self.file.display());
        self.path.push(item.ident.to_string());
        if item.content.is_none() {
            self.children.push(self.path.clone());
        }
        visit::visit_item_mod(self, item);
        self.path.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.import(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.name(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "mod ground; mod left; mod right; mod top; pub use top::Roof;";
    const LEFT: &str = "
        mod inside { use super::super::ground::Floor as Carpet; }
        use crate::{right::{self, Wall}};
        fn roof() -> crate::Roof { todo!() }
        #[cfg(test)]
        mod tests { use crate::nowhere::at_all; }";
    const RIGHT: &str = "
        mod below;
        use self::below::Cellar;
        fn say() { println!(\"{}\", [super::left::inside::COLOUR]); }";

    fn names(path: &str) -> Names {
        path.split("::").map(str::to_owned).collect()
    }

    fn tree() -> Tree {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("lib.rs", LIB),
            ("ground.rs", ""),
            ("left/mod.rs", LEFT),
            ("right.rs", RIGHT),
            ("right/below.rs", "fn up() { super::say() }"),
            ("top.rs", "use crate::left;"),
        ];
        for (file, text) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Tree::read(folder.path(), "lib.rs")
    }

    #[test]
    fn all_ways_to_name_a_module_are_read() {
        let tree = tree();
        let used = |path| tree.used_by(&names(path));
        assert_eq!(used("left"), ["ground", "right", "top"].map(names).into());
        assert_eq!(used("right"), ["left", "right::below"].map(names).into());
        assert_eq!(used("right::below"), ["right"].map(names).into());
    }

    #[test]
    fn circles_are_found_whole() {
        let found = circles(&tree().siblings());
        assert_eq!(found, [["left", "right", "top"].map(names).into()].into());
    }
}
