//! A crate as a set of modules, and what each of them takes from which other.
//!
//! Names are resolved as the compiler does, as far as paths alone tell: a segment is a child module, a re-export of
//! the module (followed to where it leads), or an item of the module itself. Globs are not followed, and a method
//! call names no path: an import that only a trait method needs is still a `use`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use syn::{Item, UseTree, spanned::Spanned as _, visit::Visit};

/// A path in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mention {
    segments: Vec<String>,
    line: usize,
}

/// A module with a file of its own. Inline modules belong to their file.
struct Module {
    file: PathBuf,
    /// Names that `use` brings into the module: re-exports, and private imports that children reach by `super::`.
    names: BTreeMap<String, Vec<String>>,
    mentions: BTreeSet<Mention>,
}

/// An import: one file takes a name from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The module that imports, `a::b`; the root is the empty string.
    pub from: String,
    /// The module whose file defines the name.
    pub to: String,
    /// The name.
    pub name: String,
    /// Where: the file, and the line in it.
    pub at: String,
}

/// A crate.
pub struct Krate {
    modules: BTreeMap<String, Module>,
}

impl Krate {
    /// Reads a crate from its root file, `src/lib.rs` or `src/main.rs`.
    ///
    /// # Errors
    /// When a file is missing or is not Rust.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut krate = Self { modules: BTreeMap::new() };
        let folder = root.parent().context("a root file lies in a folder")?;
        krate.add(String::new(), root, folder)?;
        Ok(krate)
    }

    /// The names of all modules, the root's being empty.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Everything that one file of the crate takes from another, once for each pair and name.
    #[must_use]
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (from, module) in &self.modules {
            for mention in &module.mentions {
                let Some((to, name)) = self.resolve(from, &mention.segments, 0) else { continue };
                if to != *from && self.modules.contains_key(&to) {
                    let at = format!("{}:{}", module.file.display(), mention.line);
                    imports.insert(Import { from: from.clone(), to, name, at });
                }
            }
        }
        imports
    }

    fn add(&mut self, name: String, file: &Path, folder: &Path) -> anyhow::Result<()> {
        let source = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&source).with_context(|| format!("{} is not Rust", file.display()))?;
        let mut reader = Reader::default();
        reader.visit_file(&parsed);
        for child in &reader.children {
            let (flat, nested) = (folder.join(format!("{child}.rs")), folder.join(child).join("mod.rs"));
            let path = if flat.exists() { flat } else { nested };
            self.add(join(&name, child), &path, &folder.join(child))?;
        }
        let module = Module { file: file.to_owned(), names: reader.names, mentions: reader.mentions };
        self.modules.insert(name, module);
        Ok(())
    }

    /// The module that defines what a path names, and the name there. Nothing for paths out of the crate.
    fn resolve(&self, from: &str, segments: &[String], depth: usize) -> Option<(String, String)> {
        // Re-exports that lead in a circle do not compile; this is for those that were misread here.
        if depth > 16 {
            return None;
        }
        let (mut at, mut rest) = match segments.first()?.as_str() {
            "crate" => (String::new(), &segments[1..]),
            "self" => (from.to_owned(), &segments[1..]),
            "super" => (parent(from)?.to_owned(), &segments[1..]),
            first => {
                let module = self.modules.get(from)?;
                let child = self.modules.contains_key(&join(from, first));
                let brought = segments.len() > 1 && module.names.contains_key(first);
                if !child && !brought {
                    return None;
                }
                (from.to_owned(), segments)
            }
        };
        while rest.first().is_some_and(|segment| segment == "super") {
            at = parent(&at)?.to_owned();
            rest = &rest[1..];
        }
        while let Some((segment, tail)) = rest.split_first() {
            let child = join(&at, segment);
            if self.modules.contains_key(&child) {
                (at, rest) = (child, tail);
                continue;
            }
            if let Some(target) = self.modules.get(&at).and_then(|module| module.names.get(segment)) {
                let mut path = target.clone();
                path.extend_from_slice(tail);
                return self.resolve(&at, &path, depth + 1);
            }
            return Some((at, segment.clone()));
        }
        // A whole module was imported: what is taken from it is said where it is used.
        None
    }
}

fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.to_owned() } else { format!("{parent}::{child}") }
}

fn parent(module: &str) -> Option<&str> {
    if module.is_empty() {
        return None;
    }
    Some(module.rsplit_once("::").map_or("", |(parent, _)| parent))
}

/// Collects what a file declares and mentions. `super` in a module in braces is the file's own module.
#[derive(Default)]
struct Reader {
    children: Vec<String>,
    names: BTreeMap<String, Vec<String>>,
    mentions: BTreeSet<Mention>,
    braces: usize,
}

impl Reader {
    fn tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>, public: bool) {
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.tree(&path.tree, prefix, public);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, prefix, public)),
            UseTree::Name(name) => self.bring(&name.ident.to_string(), None, prefix, line, public),
            UseTree::Rename(rename) => {
                self.bring(&rename.ident.to_string(), Some(rename.rename.to_string()), prefix, line, public);
            }
            UseTree::Glob(_) => {
                let mut segments = prefix.clone();
                segments.push("*".to_owned());
                self.mention(segments, line);
            }
        }
    }

    fn bring(&mut self, name: &str, rename: Option<String>, prefix: &[String], line: usize, public: bool) {
        let mut segments = prefix.to_vec();
        if name != "self" {
            segments.push(name.to_owned());
        }
        let known = rename.or_else(|| segments.last().cloned()).unwrap_or_default();
        if self.braces == 0 {
            self.names.insert(known, segments.clone());
        }
        // A re-export gives a name to others; the file itself takes nothing.
        if !public {
            self.mention(segments, line);
        }
    }

    fn mention(&mut self, mut segments: Vec<String>, line: usize) {
        if self.braces > 0 {
            match segments.first().map(String::as_str) {
                // The file's own module, seen from the module in braces.
                Some("super") if segments.len() == 1 => return,
                Some("super") if segments[1] == "super" => {
                    segments.remove(0);
                }
                Some("super") => segments[0] = "self".to_owned(),
                Some("self") => return,
                _ => {}
            }
        }
        self.mentions.insert(Mention { segments, line });
    }
}

impl Visit<'_> for Reader {
    fn visit_item(&mut self, item: &Item) {
        match item {
            Item::Mod(module) if module.content.is_none() => self.children.push(module.ident.to_string()),
            Item::Mod(module) => {
                self.braces += 1;
                syn::visit::visit_item_mod(self, module);
                self.braces -= 1;
            }
            Item::Use(import) => {
                let public = !matches!(import.vis, syn::Visibility::Inherited);
                self.tree(&import.tree, &mut Vec::new(), public);
            }
            other => syn::visit::visit_item(self, other),
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.mention(segments, path.span().start().line);
        }
        syn::visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of the given files, and its imports as `from -> to: name`.
    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let folder = std::env::temp_dir().join(format!("atrium-krate-{}", std::process::id()));
        let folder = folder.join(files.iter().map(|(_, text)| text.len()).sum::<usize>().to_string());
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a temporary folder");
            fs::write(path, text).expect("a temporary file");
        }
        let krate = Krate::read(&folder.join("lib.rs")).expect("a crate");
        fs::remove_dir_all(folder).expect("the temporary folder");
        krate
            .imports()
            .iter()
            .map(|import| format!("{} -> {}: {}", import.from, import.to, import.name))
            .collect()
    }

    #[test]
    fn a_name_is_followed_through_re_exports_to_its_file() {
        let found = imports(&[
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod inner; pub use self::inner::{Thing, Other as Renamed};"),
            ("a/inner.rs", "pub struct Thing; pub struct Other;"),
            ("b.rs", "use crate::a::{Renamed, Thing};"),
        ]);
        assert_eq!(found, ["b -> a::inner: Other", "b -> a::inner: Thing"]);
    }

    #[test]
    fn paths_in_code_and_in_tests_count_and_other_crates_do_not() {
        let found = imports(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use std::fmt; fn f() { crate::b::g(); }"),
            (
                "b.rs",
                "use crate::a; pub fn g() {} fn h() { a::f(); }
                      mod tests { use super::g; use crate::a::f; fn t() { super::super::a::f(); } }",
            ),
        ]);
        assert_eq!(found, ["a -> b: g", "b -> a: f", "b -> a: f"]);
    }

    #[test]
    fn a_child_may_take_from_its_parent_what_the_parent_defines() {
        let found = imports(&[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod inner; pub struct Own; fn f() { inner::g(); }"),
            ("a/inner.rs", "use super::Own; pub fn g() {}"),
        ]);
        assert_eq!(found, ["a -> a::inner: g", "a::inner -> a: Own"]);
    }
}
