//! Embeds what the API serves besides its own answers: the files of `web/`, and the API description as JSON.
//!
//! The description is written in YAML, for people; it becomes JSON here, with its order kept, so that no process
//! needs a YAML parser.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::SerializeMap as _,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");

    let description = root.join("docs/api/openapi.yaml");
    println!("cargo::rerun-if-changed={}", description.display());
    let document: Document = serde_saphyr::from_str(&fs::read_to_string(&description)?)?;
    fs::write(out.join("openapi.json"), serde_json::to_vec(&document)?)?;

    let mut files = BTreeMap::new();
    for folder in ["web", "web/views"] {
        collect(&root.join(folder), &root.join("web"), &mut files)?;
    }
    let catalog = root.join("docs/api/error-catalog.md");
    println!("cargo::rerun-if-changed={}", catalog.display());
    files.insert("/docs/error-catalog.md".to_owned(), ("text/markdown; charset=utf-8", catalog));

    let rows: String = files
        .iter()
        .map(|(path, (kind, file))| format!("    ({path:?}, {kind:?}, include_bytes!({file:?})),\n"))
        .collect();
    fs::write(out.join("files.rs"), format!("&[\n{rows}]\n"))?;
    Ok(())
}

/// Adds a folder's files by the path they are served at. What a browser has no use for stays out.
fn collect(folder: &Path, web: &Path, files: &mut BTreeMap<String, (&'static str, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let kind = match file.extension().and_then(|extension| extension.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => continue,
        };
        println!("cargo::rerun-if-changed={}", file.display());
        let path = match file.strip_prefix(web)?.to_str() {
            Some("index.html") => "/".to_owned(),
            Some("docs.html") => "/docs".to_owned(),
            Some("errors.html") => "/docs/errors".to_owned(),
            Some(other) => format!("/{other}"),
            None => continue,
        };
        files.insert(path, (kind, file));
    }
    Ok(())
}

/// A YAML value that keeps the order of its fields.
enum Document {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_none<E>(self) -> std::result::Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Document, E> {
        Ok(Document::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Document, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Document, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<Document, E> {
        serde_json::Number::from_f64(value)
            .map(Document::Number)
            .ok_or_else(|| E::custom("JSON knows no such number"))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Document, E> {
        Ok(Document::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Document, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Document::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Document, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Document::Object(fields))
    }
}
