//! The source tree read as data, so that tests can hold its structure and its documents.
//!
//! [`krate`] parses a crate into modules and resolves each path in them (`use` or in an expression) to the file
//! that defines what it names, through re-exports. [`graph`] finds circles among files and imports that point
//! upward in a list of layers. [`grouping`] looks at how a file orders its imports, [`tokens`] at what it names, reads
//! and emits, [`phrases`] at the words of the texts, and [`markdown`] takes a document apart.

pub mod graph;
pub mod grouping;
pub mod krate;
pub mod markdown;
pub mod phrases;
pub mod tokens;
pub mod tree;
