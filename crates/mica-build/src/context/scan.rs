//! Listing directories of a context: `openat2`, `getdents64`, `statx`, each once per directory or entry.
//!
//! Extended attributes are read of files that are new or changed; of the others the stat cache knows that there are none.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use mica_api::Cancel;
use mica_archive::{ContentDigest, OwnerLedger, kept_xattrs, path};
use mica_dockerfile::ignore::Patterns;
use mica_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags};
use rustix::io::Errno;

use super::Identity;
use super::stat_cache::StatCache;

/// Space for directory entries; a name has at most 255 bytes.
const BUFFER_BYTES: usize = 32 << 10;

/// A directory of the context, listed when first asked for.
#[derive(Debug, Default)]
pub(super) struct Directory {
    items: OnceLock<Vec<Item>>,
}

/// One entry of a directory, as it was when the directory was listed.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: Box<[u8]>,
    pub(super) kind: ItemKind,
    pub(super) mode: u32,
    /// User and group.
    pub(super) owner: (u32, u32),
    pub(super) identity: Identity,
    /// Those that belong into a layer.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug)]
pub(super) enum ItemKind {
    File {
        /// What the stat cache has for its identity.
        digest: Option<ContentDigest>,
        /// How many names it has.
        names: u32,
    },
    Directory {
        listing: Box<Directory>,
        /// Excluded by `.dockerignore`: it exists only as the parent of something re-included (D4).
        excluded: bool,
    },
    Symlink {
        target: Box<[u8]>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// What listing needs to know: the root, what is left out, and what was known before.
#[derive(Debug)]
pub(super) struct Scanner {
    pub(super) root: Root,
    pub(super) ignore: Option<Patterns>,
    pub(super) cache_file: Option<PathBuf>,
    pub(super) cache: OnceLock<StatCache>,
    /// Who owns what, if not root everything: a context that came as an archive says so itself.
    pub(super) owners: OwnerLedger,
    /// Looked at once per directory, and while files are read.
    pub(super) cancel: Cancel,
}

impl Directory {
    /// Returns the entries if they were read already.
    pub(super) fn known(&self) -> Option<&[Item]> {
        self.items.get().map(Vec::as_slice)
    }

    /// Returns the entries, reading them if nobody has.
    pub(super) fn items(&self, scanner: &Scanner, path: &[u8]) -> io::Result<&[Item]> {
        if let Some(items) = self.known() {
            return Ok(items);
        }
        let items = scanner.list(path)?;
        Ok(self.items.get_or_init(|| items))
    }

    /// Returns one entry.
    pub(super) fn find(&self, scanner: &Scanner, path: &[u8], name: &[u8]) -> io::Result<Option<&Item>> {
        let items = self.items(scanner, path)?;
        Ok(items.binary_search_by(|item| (*item.name).cmp(name)).ok().map(|index| &items[index]))
    }
}

impl Scanner {
    /// What earlier builds found out, read when first asked for.
    pub(super) fn cache(&self) -> &StatCache {
        self.cache.get_or_init(|| self.cache_file.as_deref().map(StatCache::load).unwrap_or_default())
    }

    /// Fails once somebody has given up; callers turn that into their own word for it.
    pub(super) fn check(&self) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)
    }

    /// Reads a directory: everything in it that is not excluded, sorted by name.
    fn list(&self, directory: &[u8]) -> io::Result<Vec<Item>> {
        self.check()?;
        // No link is followed: a directory that was exchanged for a link since its parent was read is an error.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = self.root.open_at(directory, flags, Mode::empty())?;
        let mut items = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut entries = RawDir::new(fd.as_fd(), buffer.spare_capacity_mut());
        let mut relative = directory.to_vec();
        let mut scratch = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            relative.truncate(directory.len());
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(name.to_bytes());
            items.extend(self.item(fd.as_fd(), name, &relative, &mut scratch)?);
        }
        items.sort_unstable_by(|a: &Item, b| a.name.cmp(&b.name));
        Ok(items)
    }

    /// Reads one entry; `None` if it is excluded, vanished meanwhile, or is a socket, which no image can hold.
    fn item(
        &self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        relative: &[u8],
        scratch: &mut Vec<u8>,
    ) -> io::Result<Option<Item>> {
        let mut excluded = false;
        if let Some(ignore) = &self.ignore {
            let path = String::from_utf8_lossy(relative);
            excluded = ignore.matches(&path);
            if excluded && !ignore.could_reinclude_below(&path) {
                return Ok(None);
            }
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let stat = match rustix::fs::statx(parent, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(mut kind) = kind(parent, name, &stat, excluded)? else { return Ok(None) };
        let identity = Identity::of_statx(&stat);
        let mut xattrs = BTreeMap::new();
        let may_have_xattrs = match &mut kind {
            ItemKind::File { digest, .. } => {
                let remembered = self.cache().get(&identity);
                *digest = remembered.map(|record| record.digest);
                remembered.is_none_or(|record| record.has_xattrs)
            }
            ItemKind::Directory { .. } => true,
            // The kernel allows the attributes kept in layers on files and directories only.
            _ => false,
        };
        if may_have_xattrs {
            // Kept where possible (C7): those that cannot be read are left out.
            xattrs = kept_xattrs(parent, name.to_bytes(), scratch).unwrap_or_default();
        }
        Ok(Some(Item {
            name: name.to_bytes().into(),
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            owner: self.owners.get(relative).copied().unwrap_or_default(),
            identity,
            xattrs,
        }))
    }
}

fn kind(parent: BorrowedFd<'_>, name: &CStr, stat: &Statx, excluded: bool) -> io::Result<Option<ItemKind>> {
    let file_type = FileType::from_raw_mode(stat.stx_mode.into());
    if excluded && file_type != FileType::Directory {
        return Ok(None);
    }
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    Ok(match file_type {
        FileType::RegularFile => Some(ItemKind::File { digest: None, names: stat.stx_nlink }),
        FileType::Directory => Some(ItemKind::Directory { listing: Box::default(), excluded }),
        FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Ok(target) => Some(ItemKind::Symlink { target: target.into_bytes().into() }),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        },
        FileType::CharacterDevice => Some(ItemKind::CharDevice { major, minor }),
        FileType::BlockDevice => Some(ItemKind::BlockDevice { major, minor }),
        FileType::Fifo => Some(ItemKind::Fifo),
        _ => None,
    })
}

/// Joins a directory and an entry of it.
pub(super) fn child(directory: &[u8], item: &Item) -> Vec<u8> {
    path::join(directory, &item.name)
}
