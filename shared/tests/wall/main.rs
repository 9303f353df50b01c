//! The tenant wall: its shape in the catalogue, what it does, and that the tests here would notice its absence.

mod behavior;
mod catalogue;
mod mutations;
mod startup;
