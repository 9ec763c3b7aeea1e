//! COPY and local ADD: one source, copied by the rules of build.md C3-C18.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use mica_api::{Cancel, Cancelled};
use mica_archive::{Timestamp, path};
use mica_solve::CopyAction;
use rustix::fs::FileType;

use super::bytes::ByteCopier;
use super::destination::{Attributes, Destination, Ids, file_type};
use super::kin::{Kin, OpenKin};
use super::mode::{Change, Kind};
use super::unpack::{self, Unpacked};
use super::{FileOpError, SourceTree, seconds, shown};
use crate::context::Identity;
use crate::select::{Expectation, Filter, Node, NodeKind, Selected, Selection, TreeError, Verdict, select};

/// One source to be copied.
pub(super) struct Job<'a> {
    pub(super) action: &'a CopyAction,
    pub(super) source: SourceTree<'a>,
    pub(super) owner: Option<Ids>,
    pub(super) kin: Option<&'a Kin>,
    pub(super) cancel: &'a Cancel,
}

/// Copies everything a source selects; returns the source files that were not what their digests say.
pub(super) fn run(job: &Job<'_>, writer: &mut Destination<'_>) -> Result<Vec<Vec<u8>>, FileOpError> {
    let change = Change::parse(job.action.mode.as_ref())?;
    let Selection { items, filter } = select(job.source.tree, job.action, job.source.reference)?;
    let mut copier = Copier {
        job,
        filter: &filter,
        change: &change,
        writer,
        bytes: ByteCopier::new(job.cancel),
        kin: job.kin.map(Kin::open),
        links: HashMap::new(),
        parents: Vec::new(),
        changed: Vec::new(),
    };
    for item in &items {
        if job.action.unpack
            && let Unpacked::Done { unchanged } = unpack::try_unpack(job, &item.path, copier.writer)?
        {
            copier.note(&item.path, unchanged);
            continue;
        }
        copier.links.clear();
        copier.item(item)?;
    }
    Ok(copier.changed)
}

/// A directory on the way that is copied only if something in it is: its patterns did not match it itself.
struct Parent {
    path: Vec<u8>,
    /// Whether it exists by now, and whether we made it.
    state: ParentState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ParentState {
    Awaited,
    Found,
    Made,
}

/// Where a copy goes relative to what the source names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The path named by the source: its attributes do not reach a directory (C8).
    Top,
    /// Below it.
    Nested,
}

struct Copier<'a, 'd> {
    job: &'a Job<'a>,
    filter: &'a Filter,
    change: &'a Change,
    writer: &'a mut Destination<'d>,
    bytes: ByteCopier<'a>,
    kin: Option<OpenKin<'a>>,
    /// Where the first name of a hard-linked source file was copied to.
    links: HashMap<(u64, u64), Vec<u8>>,
    parents: Vec<Parent>,
    changed: Vec<Vec<u8>>,
}

impl Copier<'_, '_> {
    /// Copies one selected path to the destination.
    fn item(&mut self, item: &Selected) -> Result<(), FileOpError> {
        let Some(node) = self.job.source.tree.get(&item.path)? else { return Ok(()) };
        let action = self.job.action;
        self.writer.begin(seconds(action.created_seconds), self.change.of_parents(), self.job.owner);
        let destination = action.destination.as_bytes();
        let name = (!node.is_directory()).then_some(item.name.as_slice());
        let target = self.writer.place(destination, name)?;
        if node.is_directory() && self.writer.lstat(&target)?.is_none() {
            self.writer.ensure_directory(&target)?;
        }
        self.node(&item.path, b"", node, &target, Level::Top)
    }

    fn node(
        &mut self,
        source: &[u8],
        relative: &[u8],
        node: Node<'_>,
        target: &[u8],
        level: Level,
    ) -> Result<(), FileOpError> {
        self.job.cancel.check()?;
        let verdict = self.filter.judge(relative, &node);
        match verdict {
            Verdict::Leave => return Ok(()),
            Verdict::Take => self.make_parents()?,
            Verdict::Descend => {}
        }
        match node.kind {
            NodeKind::Directory => self.directory(source, relative, node, target, (level, verdict)),
            NodeKind::File { .. } => self.file(source, node, target),
            NodeKind::Symlink { target: text } => {
                self.writer.replace(target, "symlink", |root| root.symlink(text, target))?;
                self.dress(target, &node)
            }
            NodeKind::Fifo => self.special(target, &node, FileType::Fifo, (0, 0)),
            NodeKind::CharDevice { major, minor } => {
                self.special(target, &node, FileType::CharacterDevice, (major, minor))
            }
            NodeKind::BlockDevice { major, minor } => {
                self.special(target, &node, FileType::BlockDevice, (major, minor))
            }
        }
    }

    fn directory(
        &mut self,
        source: &[u8],
        relative: &[u8],
        node: Node<'_>,
        target: &[u8],
        (level, verdict): (Level, Verdict),
    ) -> Result<(), FileOpError> {
        let state =
            if verdict == Verdict::Take { self.make_directory(target)? } else { ParentState::Awaited };
        self.parents.push(Parent { path: target.to_vec(), state });
        let tree = self.job.source.tree;
        for (name, child) in tree.children(source)? {
            let (from, relative) = (path::join(source, name), path::join(relative, name));
            self.node(&from, &relative, child, &path::join(target, name), Level::Nested)?;
        }
        let state = self.parents.pop().map_or(state, |parent| parent.state);
        // Attributes come last: the mode may forbid writing, and times change while the content is copied.
        match (state, level) {
            (ParentState::Awaited, _) => Ok(()),
            (_, Level::Top) => {
                self.writer.set_directory_time(target, self.top_time(source, &node));
                Ok(())
            }
            // Patterns did not match the directory itself: it is only on the way, and its time is that of the writing.
            (ParentState::Found, Level::Nested) if verdict == Verdict::Descend => {
                self.writer.set_mode(target, node.mode)
            }
            (ParentState::Made, Level::Nested) if verdict == Verdict::Descend => {
                let attributes = self.attributes(&node);
                self.writer.dress(target, &attributes)
            }
            (_, Level::Nested) => self.dress(target, &node),
        }
    }

    /// Makes the directories on the way to something that is taken.
    fn make_parents(&mut self) -> Result<(), FileOpError> {
        for index in 0..self.parents.len() {
            if self.parents[index].state == ParentState::Awaited {
                let path = self.parents[index].path.clone();
                self.parents[index].state = self.make_directory(&path)?;
            }
        }
        Ok(())
    }

    /// Makes a directory, or finds it.
    fn make_directory(&mut self, target: &[u8]) -> Result<ParentState, FileOpError> {
        match self.writer.lstat(target)? {
            None => {
                // Its own mode comes when its content is there.
                self.writer.make_directory(target, 0o700)?;
                Ok(ParentState::Made)
            }
            Some(stat) if file_type(&stat) == FileType::Directory => Ok(ParentState::Found),
            Some(_) => Err(FileOpError::NotADirectory(shown(target))),
        }
    }

    fn special(
        &mut self,
        target: &[u8],
        node: &Node<'_>,
        kind: FileType,
        device: (u32, u32),
    ) -> Result<(), FileOpError> {
        if self.writer.make_device(target, kind, device)? { self.dress(target, node) } else { Ok(()) }
    }

    fn file(&mut self, source: &[u8], node: Node<'_>, target: &[u8]) -> Result<(), FileOpError> {
        if node.names == Some(1) && self.share(source, &node, target)? {
            return Ok(());
        }
        let failed = |action| move |error| FileOpError::Tree(TreeError::io(action, source)(error));
        let Some(files) = self.job.source.files else { return Ok(()) };
        let from = files.open_file_nofollow(source).map_err(failed("open"))?;
        let stat = rustix::fs::fstat(&from).map_err(|error| failed("read")(error.into()))?;
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                self.writer.hard_link(first, target)?;
                self.writer.own_name(target, self.ids(&node));
                return Ok(());
            }
            self.links.insert(inode, target.to_vec());
        } else if node.names.is_none() && self.share(source, &node, target)? {
            return Ok(());
        }
        let attributes = self.attributes(&node);
        let to = self.writer.create_file(target, attributes.mode.unwrap_or(0o600))?;
        let expected = self.job.source.tree.expectation(source);
        let copied = match expected {
            Some(Expectation::Digest(digest)) => {
                self.bytes.copy_hashing(&from, &to).map(|actual| actual == digest.0)
            }
            _ => self
                .bytes
                .copy(&from, &stat, &to)
                .and_then(|()| still_is(expected, &from, &Identity::of(&stat))),
        };
        let unchanged = copied.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => FileOpError::Cancelled(Cancelled),
            _ => FileOpError::io("copy", target)(error),
        })?;
        self.note(source, unchanged);
        self.writer.dress_file(target, &to, &attributes)
    }

    /// Shares a file with the earlier result, if it is the same there; `node` must be the only name of it.
    fn share(&mut self, source: &[u8], node: &Node<'_>, target: &[u8]) -> Result<bool, FileOpError> {
        let attributes = self.attributes(node);
        let Some(kin) = &mut self.kin else { return Ok(false) };
        let Some(file) = kin.file(target, &attributes) else { return Ok(false) };
        let mica_archive::Kind::File { digest: Some(digest), .. } = file.kind else { return Ok(false) };
        let actual = match node.digest {
            Some(actual) => Some(actual),
            // Known since the key was made.
            None => self.job.source.tree.digests(&[source.to_vec()])?.pop(),
        };
        let is_same = actual == Some(digest);
        Ok(is_same && self.writer.share(target, file, &mut kin.directories))
    }

    fn note(&mut self, source: &[u8], unchanged: bool) {
        if !unchanged {
            self.changed.push(source.to_vec());
        }
    }

    fn ids(&self, node: &Node<'_>) -> Ids {
        self.job.owner.unwrap_or(Ids { uid: node.uid, gid: node.gid })
    }

    fn attributes<'n>(&self, node: &Node<'n>) -> Attributes<'n> {
        let kind = if node.is_directory() { Kind::Directory } else { Kind::Other };
        let is_link = matches!(node.kind, NodeKind::Symlink { .. });
        let mode = (!is_link).then(|| self.change.apply(node.mode, kind));
        Attributes { ids: self.ids(node), mode, mtime: node.mtime, xattrs: node.xattrs }
    }

    /// The time of a destination directory is that of its source; the root of a local context has none, because it
    /// is no part of the context (and differs between two checkouts).
    fn top_time(&self, source: &[u8], node: &Node<'_>) -> Timestamp {
        if source.is_empty() && self.job.source.is_local {
            return Timestamp { seconds: self.job.action.created_seconds, nanoseconds: 0 };
        }
        node.mtime
    }

    /// Gives a copy the attributes of its source.
    fn dress(&mut self, target: &[u8], node: &Node<'_>) -> Result<(), FileOpError> {
        let attributes = self.attributes(node);
        self.writer.dress(target, &attributes)?;
        if node.is_directory() {
            self.writer.set_directory_time(target, node.mtime);
            return Ok(());
        }
        self.writer.set_time(target, node.mtime)
    }
}

/// Whether a file that was read is what its digest was made of. `before` is its identity before the first byte.
pub(super) fn still_is(expected: Option<Expectation>, file: &File, before: &Identity) -> io::Result<bool> {
    let after = Identity::of(&rustix::fs::fstat(file)?);
    Ok(match expected {
        None => true,
        Some(Expectation::Identity(identity)) => identity == *before && identity == after,
        // Too young to tell without reading it again, except when it changed right now.
        Some(Expectation::Digest(_)) => *before == after,
    })
}
