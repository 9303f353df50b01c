//! The source tree read as data, so that tests can hold its structure.
//!
//! [`krate`] parses a crate into modules and resolves each path in them (`use` or in an expression) to the file
//! that defines what it names, through re-exports. [`graph`] finds circles among files and imports that point
//! upward in a list of layers. [`grouping`] looks at how a file orders its imports, and [`phrases`] at the words of
//! the texts.

pub mod graph;
pub mod grouping;
pub mod krate;
pub mod phrases;
pub mod tree;
