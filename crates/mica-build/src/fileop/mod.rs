//! File operations: COPY, ADD of local files, WORKDIR and heredoc files, executed on a root file system.
//!
//! The rules are build.md C2-C18, A1 and I1; the reference is BuildKit's file backend with fsutil's copier. Attributes
//! come from the source's [`Tree`] (which knows owners the disk cannot hold), bytes from its files. Everything written
//! goes through one [`Destination`], which knows who owns what and which directory times have to be put back.

mod beneath;
mod bytes;
mod copy;
mod destination;
mod kin;
mod mode;
mod owner;
mod unpack;

use std::io;
use std::sync::LazyLock;

use mica_api::{Cancel, Cancelled, Class, Fault};
use mica_archive::{OwnerLedger, OwnerPolicy, SharedFiles, Timestamp, View};
use mica_solve::{FileAction, FileOp, Input, MakeDirectory, MakeFile};
use mica_sys::root::Root;

use crate::context::LocalContext;
use crate::select::{SelectError, Tree, TreeError};

use destination::{Destination, Ids, Written};

pub use kin::Kin;
pub use mode::{BadMode, SymbolicMode};

/// Files that an action reads.
#[derive(Clone, Copy)]
pub struct SourceTree<'a> {
    /// What is there.
    tree: &'a dyn Tree,
    /// Where the bytes are, under the same paths; `None` where there are none.
    files: Option<&'a Root>,
    /// How errors name it.
    reference: &'a str,
    /// A directory of the client.
    is_local: bool,
}

impl<'a> SourceTree<'a> {
    /// A directory of the client, under the name the build knows it by.
    pub fn local(context: &'a LocalContext, name: &'a str) -> Self {
        Self { tree: context, files: Some(context.root()), reference: name, is_local: true }
    }

    /// A snapshot: its merged tables, and the root it is mounted at.
    pub fn snapshot(view: &'a View, root: &'a Root) -> Self {
        Self { tree: view, files: Some(root), reference: "snapshot", is_local: false }
    }

    /// The empty root.
    pub fn scratch() -> Self {
        static EMPTY: LazyLock<View> = LazyLock::new(View::empty);
        Self { tree: &*EMPTY, files: None, reference: "scratch", is_local: false }
    }
}

/// How an operation is executed.
#[derive(Clone, Copy)]
pub struct FileOptions<'a> {
    /// Whether this process has one id only: owners then go to the ledger, not to the disk.
    pub single_id: bool,
    /// Asked per file and per buffer.
    pub cancel: &'a Cancel,
    /// If the destination is a mount that was made for this operation: the directory that it writes to.
    pub beneath: Option<&'a Root>,
    /// What an earlier run of the operation made, on the same file system.
    pub kin: Option<&'a Kin>,
}

impl<'a> FileOptions<'a> {
    /// For a destination that is what it seems.
    pub fn new(single_id: bool, cancel: &'a Cancel) -> Self {
        Self { single_id, cancel, beneath: None, kin: None }
    }
}

/// What an operation did besides writing files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileOutcome {
    /// Owners of everything written, if they are not on the disk.
    pub ledger: OwnerLedger,
    /// Device nodes left out because this process may not make any.
    pub skipped_devices: u64,
    /// Source files that changed between key and copy: the result must be re-keyed and never be recorded.
    pub changed_sources: Vec<Vec<u8>>,
    /// Files that are hard links to files of [`FileOptions::kin`].
    pub shared: SharedFiles,
}

/// Why a file operation failed. Messages are those of the reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileOpError {
    /// A source is not there.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A directory where something else is (C9).
    #[error("cannot copy to non-directory: {0}")]
    NotADirectory(String),
    /// A file where a directory is (C9).
    #[error("cannot replace to directory {0} with file")]
    IsADirectory(String),
    /// A name for `--chown`, and no root file system to look it up in (C13).
    #[error("invalid user index: -1")]
    NoUsers,
    /// A malformed `--chmod`.
    #[error(transparent)]
    Mode(#[from] BadMode),
    /// A destination could not be written. The system's words are part of the text, as in the reference.
    #[error("{action} {path}: {}", gist(error))]
    Io {
        /// What was tried, named as the system call.
        action: &'static str,
        /// Absolute path inside the root file system.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// An archive could not be unpacked.
    #[error("cannot unpack {path}")]
    Unpack {
        /// The archive.
        path: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The user gave up.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl FileOpError {
    fn io(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = shown(path);
        move |error| Self::Io { action, path, error }
    }
}

impl Fault for FileOpError {
    fn class(&self) -> Class {
        match self {
            Self::Io { error, .. } => Class::of_io(error),
            Self::Tree(TreeError::Io { source, .. }) => Class::of_io(source),
            Self::Tree(_) => Class::Corrupt,
            Self::Cancelled(_) => Class::Cancelled,
            _ => Class::Build,
        }
    }
}

/// The words of an error number without "(os error 20)", lower-case: as the reference prints them.
fn gist(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A path inside a root file system as messages show it.
fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// Executes the actions of `op` on `destination`, in order.
///
/// `sources` returns the files of an input. With [`Input::Scratch`] as base, `destination` is an empty directory.
pub fn run<'a>(
    op: &FileOp,
    destination: &Root,
    sources: &dyn Fn(Input) -> SourceTree<'a>,
    options: &FileOptions<'_>,
) -> Result<FileOutcome, FileOpError> {
    let owners = if options.single_id { OwnerPolicy::Ledger } else { OwnerPolicy::Exact };
    let mut writer = Destination::new(destination, options.beneath, owners)?;
    let mut changed_sources = Vec::new();
    for action in &op.actions {
        match action {
            FileAction::Copy(action) => {
                let owner = owner::resolve(action.owner.as_ref(), destination, op.base)?;
                let source = sources(action.from);
                let job = copy::Job { action, source, owner, kin: options.kin, cancel: options.cancel };
                changed_sources.extend(copy::run(&job, &mut writer)?);
            }
            FileAction::MakeDirectory(action) => {
                let owner = owner::resolve(action.owner.as_ref(), destination, op.base)?;
                make_directory(action, owner, &mut writer)?;
            }
            FileAction::MakeFile(action) => {
                let owner = owner::resolve(action.owner.as_ref(), destination, op.base)?;
                make_file(action, owner, &mut writer)?;
            }
        }
        writer.settle()?;
    }
    let Written { ledger, skipped_devices, shared } = writer.finish()?;
    Ok(FileOutcome { ledger, skipped_devices, changed_sources, shared })
}

/// WORKDIR (I1).
fn make_directory(
    action: &MakeDirectory,
    owner: Option<Ids>,
    writer: &mut Destination<'_>,
) -> Result<(), FileOpError> {
    writer.begin(seconds(action.created_seconds), action.mode & 0o777, owner);
    let path = writer.resolve(action.path.as_bytes())?;
    writer.ensure_directory(&path)
}

/// A heredoc file (C3, C6).
fn make_file(action: &MakeFile, owner: Option<Ids>, writer: &mut Destination<'_>) -> Result<(), FileOpError> {
    let parent_mode = match &action.mode_change {
        Some(mica_solve::ModeChange::Octal(mode)) => mode & 0o777,
        _ => 0o755,
    };
    writer.begin(seconds(action.created_seconds), parent_mode, owner);
    let path =
        writer.place(action.path.as_bytes(), action.name_in_directory.as_deref().map(str::as_bytes))?;
    let mode = mode::Change::parse(action.mode_change.as_ref())?.apply(action.mode, mode::Kind::Other);
    let file = writer.create_file(&path, mode)?;
    io::Write::write_all(&mut &file, &action.data).map_err(FileOpError::io("write", &path))?;
    writer.own(&path, owner.unwrap_or(Ids { uid: 0, gid: 0 }))?;
    writer.set_mode(&path, mode)?;
    writer.set_time(&path, seconds(action.created_seconds))
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: 0 }
}

#[cfg(test)]
mod tests;
