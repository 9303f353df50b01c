//! The tenant wall: its shape in the catalog, what it does, and that the tests here would notice its absence.

mod allow_list;
mod behavior;
mod catalog;
mod mutations;
mod pooler;
mod startup;
mod tenants;
