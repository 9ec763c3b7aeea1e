//! Which files a COPY takes, and what they are worth as a cache key. Pure: reads a [`Tree`], writes nothing.
//!
//! A source becomes a [`Selection`]: the paths it names, links followed, and the [`Filter`] for what is below them.
//! The same selection is digested for the key ([`selection_digest`]) and walked by the copier (`crate::fileop`), so that
//! key and copy cannot disagree.

mod digest;
mod filter;
mod pattern;
mod tree;

use std::io;

use mica_archive::path;
use mica_solve::{CopyAction, Input};

pub use digest::selection_digest;
pub use filter::{Filter, Verdict};
pub use pattern::BadPattern;
pub use tree::{Expectation, Node, NodeKind, Tree, TreeError, resolve};

use pattern::{Component, has_wildcard};
pub(crate) use tree::{clean, components};

/// What one source of a COPY selects.
#[derive(Debug)]
pub struct Selection {
    /// The paths named, in the order in which they are copied. Empty if a wildcard matches nothing.
    pub items: Vec<Selected>,
    /// What is taken of the directories among them.
    pub filter: Filter,
}

/// One path named by a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Where it is, all links followed.
    pub path: Vec<u8>,
    /// Its name as written, before links were followed: what the copy is called below a directory (C3).
    pub name: Vec<u8>,
    /// Whether the attributes of the directory itself belong to the key (K5).
    pub with_header: bool,
}

/// Why a source selects nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A source without wildcards that is not there, or is excluded by `.dockerignore` (C12).
    #[error(
        "failed to compute cache key: failed to calculate checksum of ref {reference}: {path:?}: not found"
    )]
    NotFound {
        /// Whose files were looked at.
        reference: String,
        /// The path as written, cleaned.
        path: String,
    },
    /// The directory a wildcard is to be matched in is missing, or the source is the empty root (C15).
    #[error("lstat {path}: no such file or directory")]
    NoSuchFile {
        /// The path as written, cleaned.
        path: String,
    },
    /// A malformed wildcard.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A malformed `--exclude` or `--parents` pattern.
    #[error("invalid pattern {pattern:?}")]
    Filter {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Finds what a COPY takes from `tree`. `reference` names the tree in errors.
///
/// # Errors
/// [`SelectError::NotFound`] if a source without wildcards does not exist. A wildcard that matches nothing is fine.
pub fn select(tree: &dyn Tree, action: &CopyAction, reference: &str) -> Result<Selection, SelectError> {
    let selector = Selector { tree, reference, scratch: action.from == Input::Scratch };
    let (source, below) = split_pivot(action);
    let include = below.as_deref().map(Filter::include_pattern).transpose()?;
    let filter = Filter::new(include, &action.exclude)?;
    let mut items = Vec::new();
    for item in selector.expand(source)? {
        let is_directory = tree.get(&item.path)?.is_some_and(|node| node.is_directory());
        if is_directory {
            tree.prefetch(&item.path)?;
        }
        // Before a pivot there can only be directories.
        if is_directory || below.is_none() {
            items.push(item);
        }
    }
    let selection = Selection { items, filter };
    if let Some(below) = below {
        selector.require(&selection, source, &below)?;
    }
    Ok(selection)
}

/// Splits the source of a `--parents` at its pivot: what is walked, and what is taken of it (C17).
fn split_pivot(action: &CopyAction) -> (&str, Option<String>) {
    if !action.parents {
        return (&action.source, None);
    }
    let (source, below) = action.source.split_once("/./").unwrap_or(("/", &action.source));
    // A wildcard is text from a Dockerfile, so what is cleaned is still UTF-8.
    (source, Some(String::from_utf8_lossy(&clean(below.as_bytes())).into_owned()))
}

struct Selector<'a> {
    tree: &'a dyn Tree,
    reference: &'a str,
    scratch: bool,
}

impl Selector<'_> {
    /// Turns a path or wildcard into the paths it names.
    fn expand(&self, source: &str) -> Result<Vec<Selected>, SelectError> {
        let cleaned = clean(source.as_bytes());
        let parts: Vec<&[u8]> = components(&cleaned).collect();
        let fixed = parts.iter().position(|part| has_wildcard(part)).unwrap_or(parts.len());
        let (fixed, wild) = parts.split_at(fixed);
        if wild.is_empty() {
            let with_header = !cleaned.is_empty() && !source.ends_with('/') && !source.ends_with("/.");
            return Ok(vec![self.follow(&cleaned, with_header)?]);
        }
        let wild = wild.iter().map(|part| Component::parse(part)).collect::<Result<Vec<_>, _>>()?;
        let base = fixed.join(&b'/');
        let Some(base) = resolve(self.tree, &base)? else {
            return Err(SelectError::NoSuchFile { path: shown(&base) });
        };
        let mut matches = Vec::new();
        self.search(&base, &wild, &mut matches)?;
        matches.iter().map(|found| self.follow(found, true)).collect()
    }

    /// Follows the links of a path named by a source, the last component included (C10).
    fn follow(&self, named: &[u8], with_header: bool) -> Result<Selected, SelectError> {
        let name = path::file_name(named).to_vec();
        match resolve(self.tree, named)? {
            Some(path) => Ok(Selected { path, name, with_header }),
            None => Err(self.missing(named)),
        }
    }

    fn missing(&self, named: &[u8]) -> SelectError {
        let path = shown(named);
        if self.scratch {
            return SelectError::NoSuchFile { path };
        }
        SelectError::NotFound { reference: self.reference.to_owned(), path }
    }

    /// Collects the paths below `directory` that match component by component. Links on the way are not entered.
    fn search(
        &self,
        directory: &[u8],
        wild: &[Component],
        matches: &mut Vec<Vec<u8>>,
    ) -> Result<(), TreeError> {
        let Some((first, rest)) = wild.split_first() else { return Ok(()) };
        if !self.tree.get(directory)?.is_some_and(|node| node.is_directory()) {
            return Ok(());
        }
        for (name, node) in self.tree.children(directory)? {
            if !first.matches(name) {
                continue;
            }
            let found = path::join(directory, name);
            if rest.is_empty() {
                matches.push(found);
            } else if node.is_directory() {
                self.search(&found, rest, matches)?;
            }
        }
        Ok(())
    }

    /// Checks that a `--parents` source without wildcards selects something (C17).
    fn require(&self, selection: &Selection, source: &str, below: &str) -> Result<(), SelectError> {
        let wild = |text: &str| components(text.as_bytes()).any(has_wildcard);
        if wild(source) || wild(below) {
            return Ok(());
        }
        for item in &selection.items {
            let named = path::join(&item.path, below.as_bytes());
            let found = if below.is_empty() { None } else { self.tree.get(&named)? };
            if found.is_some_and(|node| selection.filter.judge(below.as_bytes(), &node) == Verdict::Take) {
                return Ok(());
            }
        }
        Err(self.missing(&clean(format!("{source}/{below}").as_bytes())))
    }
}

/// A path of a tree as messages show it.
fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests;
