//! What this crate asks of a tree of files.

/// A tree of files: the host's, or the one inside an image.
///
/// Every path given to these methods is absolute, has no `.`, `..` or empty component, and names nothing
/// below a symbolic link: this crate follows links itself, through [`Files::link`], because a link passed
/// on the way is part of the answer. An implementation must not follow a link in the last component
/// either. Whatever cannot be read is `None`: for starting a program, unreadable and absent are the same.
pub trait Files {
    /// Type, permissions and owner of what is at `path`, a link itself rather than its target.
    fn stat(&self, path: &[u8]) -> Option<FileStat>;

    /// The target of the symbolic link at `path`.
    fn link(&self, path: &[u8]) -> Option<Vec<u8>>;

    /// Up to `length_bytes` bytes of the regular file at `path`, from `offset_bytes` on; fewer at its end.
    fn read(&self, path: &[u8], offset_bytes: u64, length_bytes: usize) -> Option<Vec<u8>>;

    /// The names in the directory at `path`, in any order.
    fn names(&self, path: &[u8]) -> Option<Vec<Vec<u8>>>;
}

/// The type of a file, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a socket or a fifo.
    Other,
}

/// What [`Files::stat`] says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Its type.
    pub kind: FileKind,
    /// Its permission bits, `0o7777`.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}
