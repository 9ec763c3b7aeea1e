//! The state of a layer while its members are applied one by one.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::AsFd;

use mica_oci::{DiffId, Digest};
use mica_sys::root::Root;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::disk::{self, Applier, CopyError, copy_data, create, metadata};
use super::names::{self, Place, clean};
use super::stream::{ReadAhead, StreamId};
use super::tree::{Node, Step, Tree};
use super::{Applied, ApplyError, ApplyOptions, OverlayFlavour};
use crate::directories::{Directories, c_name, open_directory};
use crate::entry::{Entry, Kind};
use crate::limits::Cancelled;
use crate::owners::{OwnerLedger, OwnerPolicy};
use crate::path;
use crate::recipe::Capture;
use crate::table::is_link_target;
use crate::tar::{Member, MemberKind, TarReader};
use crate::xattr;

/// A layer being applied.
pub(super) struct Layer<'a> {
    reader: TarReader<ReadAhead, Capture>,
    tree: Tree,
    directories: Directories<'a>,
    /// A second set for the targets of hard links, which are elsewhere.
    targets: Directories<'a>,
    applier: Applier,
    options: &'a ApplyOptions<'a>,
    cancel: Cancelled<'a>,
    skipped_devices: u64,
    implied: BTreeSet<Vec<u8>>,
}

impl<'a> Layer<'a> {
    pub(super) fn new(
        reader: TarReader<ReadAhead, Capture>,
        destination: &'a Root,
        options: &'a ApplyOptions<'a>,
        cancel: Cancelled<'a>,
    ) -> Self {
        Self {
            reader,
            tree: Tree::default(),
            directories: Directories::new(destination),
            targets: Directories::new(destination),
            applier: Applier::new(options.owners),
            options,
            cancel,
            skipped_devices: 0,
            implied: BTreeSet::new(),
        }
    }

    pub(super) fn read_members(&mut self) -> Result<(), ApplyError> {
        while let Some(member) = self.reader.next_member()? {
            if (self.cancel)() {
                return Err(ApplyError::Cancelled);
            }
            match names::place(&member.name, &self.options.limits)? {
                Place::Ignored => {}
                Place::Whiteout(path) => self.whiteout(&path)?,
                Place::Opaque(directory) => self.opaque(&directory)?,
                Place::Path(path) => self.member(&path, member)?,
            }
        }
        Ok(())
    }

    /// Returns the path an entry really has, its directory made if it is missing.
    fn real_path(&mut self, path: &[u8]) -> Result<Vec<u8>, ApplyError> {
        let Some(parent) = path::parent(path) else { return Ok(Vec::new()) };
        let parent = self.ensure_directory(parent)?;
        let real = path::join(&parent, path::file_name(path));
        if real.len() > path::MAX_PATH_BYTES {
            return Err(ApplyError::Link { path: path::show(path), why: "it leads to a path too long" });
        }
        Ok(real)
    }

    fn ensure_directory(&mut self, directory: &[u8]) -> Result<Vec<u8>, ApplyError> {
        loop {
            match self.tree.real_directory(directory)? {
                Step::Found(real) => return Ok(real),
                Step::Missing(path) => {
                    let known = self.options.parent.and_then(|view| view.get(&path));
                    let known = known.filter(|entry| entry.kind.is_directory());
                    let entry = known.map_or_else(
                        || Entry::directory(b"", 0o755),
                        |entry| Entry {
                            path: Vec::new(),
                            kind: Kind::Directory { opaque: false },
                            ..entry.clone()
                        },
                    );
                    self.implied.insert(path.clone());
                    self.put_directory(path, entry)?;
                }
            }
        }
    }

    /// Hides a path of the layers below. What this very layer has there stays.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), ApplyError> {
        let real = self.real_path(path)?;
        match self.tree.get_mut(&real) {
            None => self.tree.insert(real.clone(), Node::Other(Entry::whiteout(b""))),
            Some(Node::Other(Entry { kind: Kind::Directory { opaque }, .. })) => *opaque = true,
            // A file hides what is below it anyway.
            Some(_) => {}
        }
        Ok(())
    }

    fn opaque(&mut self, directory: &[u8]) -> Result<(), ApplyError> {
        let real = self.ensure_directory(directory)?;
        if real.is_empty() && self.tree.get(b"").is_none() {
            self.implied.insert(Vec::new());
            let entry = self.options.parent.and_then(|view| view.get(b"")).cloned();
            self.put_directory(Vec::new(), entry.unwrap_or_else(|| Entry::directory(b"", 0o755)))?;
        }
        if let Some(Node::Other(Entry { kind: Kind::Directory { opaque }, .. })) = self.tree.get_mut(&real) {
            *opaque = true;
        }
        Ok(())
    }

    fn member(&mut self, path: &[u8], mut member: Member) -> Result<(), ApplyError> {
        if path.is_empty() && member.kind != MemberKind::Directory {
            let why = "the root can only be a directory";
            return Err(ApplyError::Name { name: path::show(&member.name), why });
        }
        self.applier.filter(&mut member.xattrs);
        match std::mem::replace(&mut member.kind, MemberKind::File) {
            MemberKind::Hardlink(target) => self.hard_link(path, &target),
            MemberKind::File => {
                let real = self.real_path(path)?;
                self.file(real, member)
            }
            MemberKind::Directory => {
                let real = self.real_path(path)?;
                self.put_directory(real, entry(member, Kind::Directory { opaque: false }))
            }
            MemberKind::Symlink(target) => {
                if !is_link_target(&target) {
                    return Err(ApplyError::Link {
                        path: path::show(path),
                        why: "its target is empty or too long",
                    });
                }
                let real = self.real_path(path)?;
                self.put_other(real, entry(member, Kind::Symlink { target }))
            }
            MemberKind::CharDevice(0, 0) => {
                // On disk this would be a whiteout that nobody wrote down (security.md row 8).
                self.skipped_devices += 1;
                Ok(())
            }
            MemberKind::CharDevice(major, minor) => {
                let real = self.real_path(path)?;
                self.put_other(real, entry(member, Kind::CharDevice { major, minor }))
            }
            MemberKind::BlockDevice(major, minor) => {
                let real = self.real_path(path)?;
                self.put_other(real, entry(member, Kind::BlockDevice { major, minor }))
            }
            MemberKind::Fifo => {
                let real = self.real_path(path)?;
                self.put_other(real, entry(member, Kind::Fifo))
            }
        }
    }

    /// Creates a directory, or gives an existing one new metadata; written to disk at the end.
    fn put_directory(&mut self, real: Vec<u8>, mut entry: Entry) -> Result<(), ApplyError> {
        if let Some(Node::Other(old)) = self.tree.get_mut(&real)
            && let Kind::Directory { opaque } = old.kind
        {
            entry.kind = Kind::Directory { opaque };
            *old = entry;
            self.implied.remove(&real);
            return Ok(());
        }
        let hides = matches!(self.tree.get(&real), Some(Node::Other(old)) if old.kind == Kind::Whiteout);
        entry.kind = Kind::Directory { opaque: hides };
        self.make_room(&real)?;
        if !real.is_empty() {
            let (parent, name) = self.directories.parent(&real).map_err(|error| refused(&real, error))?;
            disk::make_directory(parent, name).map_err(|error| refused(&real, error))?;
        }
        self.tree.insert(real, Node::Other(entry));
        Ok(())
    }

    /// Creates a symbolic link, device or pipe.
    fn put_other(&mut self, real: Vec<u8>, entry: Entry) -> Result<(), ApplyError> {
        self.make_room(&real)?;
        self.create_other(&real, &entry).map_err(|error| refused(&real, error))?;
        self.tree.insert(real, Node::Other(entry));
        Ok(())
    }

    fn create_other(&mut self, real: &[u8], entry: &Entry) -> io::Result<()> {
        let metadata = metadata(entry);
        let (parent, name) = self.directories.parent(real)?;
        let (kind, device) = match &entry.kind {
            Kind::Symlink { target } => return self.applier.symlink(parent, name, target, &metadata),
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, (*major, *minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, (*major, *minor)),
            _ => (FileType::Fifo, (0, 0)),
        };
        let is_device = kind != FileType::Fifo;
        if is_device && !self.options.devices {
            self.skipped_devices += 1;
            return Ok(());
        }
        match self.applier.node(parent, name, kind, device, &metadata) {
            Err(error) if is_device && error.kind() == io::ErrorKind::PermissionDenied => {
                self.skipped_devices += 1;
                Ok(())
            }
            other => other,
        }
    }

    fn file(&mut self, real: Vec<u8>, member: Member) -> Result<(), ApplyError> {
        self.make_room(&real)?;
        let size = member.size;
        let entry = entry(member, Kind::File { size, digest: None });
        let metadata = metadata(&entry);
        let inode = self.tree.add_inode(entry);
        let (parent, name) = self.directories.parent(&real).map_err(|error| refused(&real, error))?;
        let file = create(parent, name).map_err(|error| refused(&real, error))?;
        let copied = copy_data(&mut self.reader, &file, size, self.cancel, |capture, (offset, bytes)| {
            capture.part(inode, offset, bytes);
        });
        let digest = copied.map_err(|error| match error {
            CopyError::Archive(error) => error,
            CopyError::Write(error) => refused(&real, error),
        })?;
        self.applier.set(file.as_fd(), &metadata, true).map_err(|error| refused(&real, error))?;
        self.tree.set_digest(inode, digest);
        self.tree.insert(real, Node::File(inode));
        Ok(())
    }

    /// Links to a file this layer has already (security.md row 4): no other file can be reached.
    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), ApplyError> {
        let bad = |why| ApplyError::Link { path: path::show(path), why };
        let clean = clean(target, &self.options.limits)?;
        let parent = path::parent(&clean).ok_or_else(|| bad("its target is the root"))?;
        let Step::Found(parent) = self.tree.real_directory(parent)? else {
            return Err(bad("its target is not in the archive before it"));
        };
        let target = path::join(&parent, path::file_name(&clean));
        let inode = match self.tree.get(&target) {
            Some(Node::File(inode)) => *inode,
            Some(Node::Other(entry)) if !entry.kind.is_directory() && entry.kind != Kind::Whiteout => {
                // Links to links, devices and pipes exist; the table has them as copies.
                let copy = entry.clone();
                let real = self.real_path(path)?;
                return if real == target { Ok(()) } else { self.put_other(real, copy) };
            }
            Some(Node::Other(entry)) if entry.kind.is_directory() => {
                return Err(bad("its target is a directory"));
            }
            _ => return Err(bad("its target is not in the archive before it")),
        };
        let real = self.real_path(path)?;
        if matches!(self.tree.get(&real), Some(Node::File(same)) if *same == inode) {
            return Ok(());
        }
        self.make_room(&real)?;
        self.link(&target, &real).map_err(|error| refused(&real, error))?;
        self.tree.insert(real, Node::File(inode));
        Ok(())
    }

    fn link(&mut self, target: &[u8], real: &[u8]) -> io::Result<()> {
        let (from, from_name) = self.targets.parent(target)?;
        let (to, to_name) = self.directories.parent(real)?;
        // Without AT_SYMLINK_FOLLOW: the target itself.
        let flags = rustix::fs::AtFlags::empty();
        Ok(rustix::fs::linkat(from, c_name(from_name)?.as_c_str(), to, c_name(to_name)?.as_c_str(), flags)?)
    }

    /// Removes what the layer has at a path and below it.
    fn make_room(&mut self, real: &[u8]) -> Result<(), ApplyError> {
        let Some(node) = self.tree.get(real) else { return Ok(()) };
        let on_disk = !matches!(node, Node::Other(entry) if entry.kind == Kind::Whiteout);
        for path in self.tree.subtree(real) {
            if let Some(Node::File(inode)) = self.tree.get(&path) {
                let inode = *inode;
                if self.tree.inodes[inode].names == 1 {
                    self.keep_content(inode, &path).map_err(|error| refused(&path, error))?;
                }
            }
            self.tree.remove(&path);
            self.implied.remove(&path);
        }
        if on_disk {
            self.directories.forget(real);
            self.targets.forget(real);
            self.directories.root().remove_all(real).map_err(|error| refused(real, error))?;
        }
        Ok(())
    }

    /// Keeps the content of a file about to vanish for the recipe: the stream contains it.
    fn keep_content(&mut self, inode: usize, path: &[u8]) -> io::Result<()> {
        let Kind::File { size, .. } = self.tree.inodes[inode].entry.kind else { return Ok(()) };
        if size == 0 {
            return Ok(());
        }
        let mut content = None;
        if self.reader.literals().wants(size) {
            let (file, _) = self.directories.open_file(path)?;
            let mut bytes = Vec::new();
            file.take(size).read_to_end(&mut bytes)?;
            content = Some(bytes);
        }
        self.reader.literals().replace(inode, content);
        Ok(())
    }

    /// Puts the marks for overlayfs and the metadata of directories on disk.
    pub(super) fn finish_disk(&mut self) -> Result<(), ApplyError> {
        if self.options.overlay != OverlayFlavour::None {
            for path in self.tree.whiteouts() {
                let made = self.directories.parent(path).and_then(|(parent, name)| {
                    let mode = rustix::fs::Mode::empty();
                    let device = rustix::fs::makedev(0, 0);
                    let name = c_name(name)?;
                    Ok(rustix::fs::mknodat(parent, &*name, FileType::CharacterDevice, mode, device)?)
                });
                made.map_err(|error| refused(path, error))?;
            }
        }
        for (path, entry) in self.tree.directories() {
            if (self.cancel)() {
                return Err(ApplyError::Cancelled);
            }
            // An implied root says nothing about the root.
            let implied_root = path.is_empty() && self.implied.contains(path);
            finish_directory(
                &mut self.directories,
                &mut self.applier,
                self.options.overlay,
                path,
                entry,
                implied_root,
            )
            .map_err(|error| refused(path, error))?;
        }
        Ok(())
    }

    pub(super) fn into_applied(self, id: StreamId) -> Result<Applied, ApplyError> {
        let (_, capture) = self.reader.into_parts();
        let (table, paths) = self.tree.into_table()?;
        let reproducible = capture.equals_writer(&table, &paths);
        let recipe = if reproducible { None } else { capture.finish(id, paths) };
        let ledger = match self.options.owners {
            OwnerPolicy::Exact => OwnerLedger::new(),
            OwnerPolicy::Ledger => table
                .entries()
                .iter()
                .filter(|entry| (entry.uid, entry.gid) != (0, 0))
                .map(|entry| (entry.path.clone(), (entry.uid, entry.gid)))
                .collect(),
        };
        Ok(Applied {
            table,
            diff_id: DiffId(Digest::from_sha256(id.sha256)),
            tar_bytes: id.bytes,
            reproducible,
            recipe,
            skipped_devices: self.skipped_devices,
            skipped_xattrs: self.applier.skipped_xattrs,
            implied: self.implied.into_iter().collect(),
            ledger,
        })
    }
}

/// Sets the metadata of a directory through a descriptor opened without following anything.
fn finish_directory(
    directories: &mut Directories<'_>,
    applier: &mut Applier,
    overlay: OverlayFlavour,
    path: &[u8],
    entry: &Entry,
    only_opaque: bool,
) -> io::Result<()> {
    let directory = if path.is_empty() {
        open_directory(directories.root().as_fd(), b".", OFlags::RDONLY)?
    } else {
        let (parent, name) = directories.parent(path)?;
        open_directory(parent, name, OFlags::RDONLY)?
    };
    if entry.kind == (Kind::Directory { opaque: true }) {
        let [trusted, user] = xattr::OPAQUE;
        let name = match overlay {
            OverlayFlavour::Trusted => Some(trusted),
            OverlayFlavour::User => Some(user),
            OverlayFlavour::None => None,
        };
        if let Some(name) = name {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(&directory, c_name(name)?.as_c_str(), b"y", flags)?;
        }
    }
    if only_opaque {
        return Ok(());
    }
    // The root existed before us, so its owner is not known.
    applier.set(directory.as_fd(), &metadata(entry), !path.is_empty())
}

fn entry(member: Member, kind: Kind) -> Entry {
    let Member { mode, uid, gid, mtime, xattrs, .. } = member;
    // The kernel allows the attributes that layers keep on files and directories only.
    let xattrs =
        if matches!(kind, Kind::File { .. } | Kind::Directory { .. }) { xattrs } else { Default::default() };
    Entry { path: Vec::new(), kind, mode, uid, gid, mtime, xattrs }
}

fn refused(path: &[u8], source: io::Error) -> ApplyError {
    // A link on a path that is real in our books means that somebody else writes into the destination.
    let source = match Errno::from_io_error(&source) {
        Some(Errno::LOOP) => io::Error::other("the directory was changed by somebody else"),
        _ => source,
    };
    ApplyError::Write { path: path::show(path), source }
}
