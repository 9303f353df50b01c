//! How a file orders its imports: the standard library, other crates, this crate; a blank line between the groups and
//! none within. (rustfmt could do this with an option that its stable releases do not have.)

use syn::{Item, ItemUse, UseTree, spanned::Spanned as _};

/// Where an import comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Standard,
    Other,
    Own,
}

fn group(import: &ItemUse) -> Group {
    let mut tree = &import.tree;
    while let UseTree::Group(inner) = tree {
        match inner.items.first() {
            Some(first) => tree = first,
            None => return Group::Other,
        }
    }
    let first = match tree {
        UseTree::Path(path) => path.ident.to_string(),
        UseTree::Name(name) => name.ident.to_string(),
        UseTree::Rename(rename) => rename.ident.to_string(),
        UseTree::Group(_) | UseTree::Glob(_) => String::new(),
    };
    match first.as_str() {
        "std" | "core" | "alloc" => Group::Standard,
        "crate" | "self" | "super" => Group::Own,
        _ => Group::Other,
    }
}

/// What is out of order in a file, as `line: what`.
///
/// # Errors
/// When the source is not Rust.
pub fn faults(source: &str) -> syn::Result<Vec<String>> {
    let lines: Vec<&str> = source.lines().collect();
    let private = |item: &Item| match item {
        Item::Use(import) if matches!(import.vis, syn::Visibility::Inherited) => Some(import.clone()),
        _ => None,
    };
    let imports: Vec<ItemUse> = syn::parse_file(source)?.items.iter().filter_map(private).collect();
    let mut faults = Vec::new();
    for pair in imports.windows(2) {
        let (before, after) = (group(&pair[0]), group(&pair[1]));
        let (end, start) = (pair[0].span().end().line, pair[1].span().start().line);
        let between = &lines[end..start - 1];
        // Other items separate them: another block begins.
        if between.iter().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")) {
            continue;
        }
        let blank = between.iter().any(|line| line.trim().is_empty());
        if after < before {
            faults.push(format!("{start}: {after:?} imports stand after {before:?} ones"));
        } else if (before != after) != blank {
            let what = if blank { "a blank line inside a group" } else { "no blank line between groups" };
            faults.push(format!("{start}: {what}"));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::faults;

    #[test]
    fn groups_are_in_order_and_apart() {
        let good = "use std::fmt;\n\nuse http::Uri;\nuse serde::Serialize;\n\nuse crate::a;\n\nfn f() {}\n";
        assert!(faults(good).expect("Rust").is_empty());
        for (bad, line) in [
            ("use http::Uri;\n\nuse std::fmt;\n", "3: "),
            ("use std::fmt;\nuse http::Uri;\n", "2: "),
            ("use std::fmt;\n\nuse std::io;\n", "3: "),
            ("use super::a;\nuse http::Uri;\n", "2: "),
        ] {
            let found = faults(bad).expect("Rust");
            assert!(found.len() == 1 && found[0].starts_with(line), "{bad}: {found:?}");
        }
    }
}
