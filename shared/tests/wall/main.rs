//! The tenant wall: its shape in the catalog, what it does, and that the tests here would notice its absence.

mod absent;
mod allow_list;
mod audit;
mod behavior;
mod catalog;
mod documented;
mod escapes;
mod guesses;
mod history;
mod interrupted;
mod lists;
mod matrix;
mod mutations;
mod non_interference;
mod pooler;
mod rows;
mod startup;
mod tenants;
