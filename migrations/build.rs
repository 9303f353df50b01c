//! Rebuilds the crate when a migration changes: the files are embedded at compile time, and cargo does not see
//! them otherwise.

fn main() {
    println!("cargo::rerun-if-changed=.");
}
