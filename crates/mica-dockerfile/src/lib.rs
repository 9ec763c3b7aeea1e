//! Dockerfiles as text: a checked syntax tree, variable expansion, ignore files.
//!
//! [`parse`] makes the tree ([`ast`]), refusing everything that is wrong without knowing a variable.
//! Whoever evaluates it expands fields with [`expand`] and reads the results with the small parsers here:
//! [`mounts`], [`ports`], [`chmod`], [`check_stop_signal`].
//!
//! Pure: no I/O, no clock, no environment. Foreign bytes never make it panic; sizes and nesting are limited
//! (security.md, Dockerfile parser): [`MAX_FILE_BYTES`], [`MAX_LINE_BYTES`], [`expand::MAX_DEPTH`],
//! [`expand::MAX_BYTES`].

pub mod ast;
pub mod chmod;
mod directive;
mod duration;
mod error;
pub mod excerpt;
pub mod expand;
mod flags;
mod glob;
mod heredoc;
pub mod ignore;
mod instruction;
pub mod mounts;
mod parse;
pub mod ports;
mod signal;
mod source;
mod statement;
mod suggest;
#[cfg(test)]
mod tests;
mod words;

pub use ast::*;
pub use directive::{detect_syntax, parse_check_options};
pub use duration::DurationError;
pub use error::{CheckOptionError, ParseError, ParseErrorKind};
pub use parse::{parse, parse_instruction};
pub use signal::{InvalidSignal, check_stop_signal};
pub use source::{MAX_FILE_BYTES, MAX_LINE_BYTES};
pub use suggest::DidYouMean;
