//! Dockerfiles as text: a checked syntax tree, variable expansion, ignore files.
//!
//! Pure: no I/O, no clock, no environment. Foreign bytes never make it panic.

pub mod ast;

pub use ast::*;
