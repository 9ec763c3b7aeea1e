//! A tar of a container as files of this machine.
//!
//! The tar comes from a container and is not trusted: every look-up stays below the directory that the destination is
//! in, whatever links the tar makes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use mica_api::{Class, Error};
use mica_sys::root::{Root, Timestamp};
use rustix::fs::FileType;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, HEADER_SIZE};

/// Where a copy goes.
#[derive(Debug)]
pub(super) struct Target {
    /// As written.
    here: PathBuf,
    /// Last name of the source.
    source_name: String,
    /// Whether the source was written as `dir/.`.
    contents_only: bool,
    keep_owners: bool,
}

impl Target {
    /// The destination of a copy from `source`, a path in a container.
    pub(super) fn of(source: &str, here: &str, keep_owners: bool) -> Self {
        let (source_name, contents_only) = super::base(source);
        Self { here: here.into(), source_name, contents_only, keep_owners }
    }

    /// The directory that is opened and the name that the first member gets in it; an empty name is the directory.
    fn resolve(&self, source_is_directory: bool) -> Result<(PathBuf, Vec<u8>), Error> {
        let here = &self.here;
        let inside = |name: &str| Ok((here.clone(), name.as_bytes().to_vec()));
        if here.is_dir() {
            let whole = self.contents_only || self.source_name.is_empty();
            return inside(if whole && source_is_directory { "" } else { &self.source_name });
        }
        if here.exists() && source_is_directory {
            return Err(Error::new(Class::Invalid, "cannot copy directory")
                .why(format!("{} is not a directory", here.display())));
        }
        let written = here.as_os_str().as_encoded_bytes();
        if written.ends_with(b"/") && !source_is_directory {
            return Err(Error::new(Class::NotFound, "no such directory").why(here.display().to_string()));
        }
        let parent = super::parent(here);
        if !parent.is_dir() {
            let message = format!("invalid output path: directory {:?} does not exist", parent.display());
            return Err(Error::new(Class::NotFound, message));
        }
        let name = here.file_name().unwrap_or_default();
        Ok((parent, name.as_encoded_bytes().to_vec()))
    }
}

/// Unpacks; returns the bytes of the files. A stream without members makes nothing.
///
/// # Errors
/// The tar is malformed, or the files cannot be written.
pub(super) fn unpack(input: &mut File, target: &Target) -> Result<u64, Error> {
    let mut members = Members { input, parser: Parser::new(Limits::default()), buffer: Vec::new() };
    let Some(first) = members.next()? else { return Ok(0) };
    let (directory, name) = target.resolve(first.kind == EntryType::Directory)?;
    let root = Root::open(&directory).map_err(super::at(&directory))?;
    let mut unpacking = Unpacking {
        root,
        directory,
        old: first.name.clone(),
        new: name,
        target,
        times: Vec::new(),
        total: 0,
    };
    let mut member = Some(first);
    while let Some(current) = member {
        unpacking.member(&current, &mut members)?;
        member = members.next()?;
    }
    unpacking.finish();
    Ok(unpacking.total)
}

/// A member without its data.
struct Member {
    name: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: Timestamp,
    size: u64,
    device: (u32, u32),
}

impl Member {
    fn of(entry: &ParsedEntry<'_>) -> Self {
        let id = |id: u64| u32::try_from(id).unwrap_or_default();
        Self {
            name: entry.path.to_vec(),
            kind: entry.entry_type,
            link: entry.link_target.as_deref().unwrap_or_default().to_vec(),
            mode: entry.mode & 0o7777,
            owner: (id(entry.uid), id(entry.gid)),
            mtime: Timestamp { seconds: i64::try_from(entry.mtime).unwrap_or_default(), nanoseconds: 0 },
            size: entry.size,
            device: (entry.dev_major.unwrap_or_default(), entry.dev_minor.unwrap_or_default()),
        }
    }
}

/// Reads members; the data of one is read before the next is asked for.
struct Members<'a> {
    input: &'a mut File,
    parser: Parser,
    buffer: Vec<u8>,
}

impl Members<'_> {
    fn next(&mut self) -> Result<Option<Member>, Error> {
        let malformed = |why: String| Error::new(Class::Corrupt, "the container's tar is malformed").why(why);
        loop {
            let (consumed, member) = match self.parser.parse(&self.buffer) {
                Err(error) => return Err(malformed(error.to_string())),
                Ok(ParseEvent::End { .. }) => return Ok(None),
                Ok(ParseEvent::SparseEntry { .. }) => {
                    return Err(malformed("sparse members are not expected".into()));
                }
                Ok(ParseEvent::GlobalExtensions { consumed, .. }) => (consumed, None),
                Ok(ParseEvent::Entry { consumed, entry }) => (consumed, Some(Member::of(&entry))),
                Ok(ParseEvent::NeedData { min_bytes }) => {
                    let wanted = (min_bytes.max(self.buffer.len() + 1) - self.buffer.len()) as u64;
                    let read = Read::by_ref(&mut self.input).take(wanted).read_to_end(&mut self.buffer);
                    match read.map_err(|error| malformed(error.to_string()))? {
                        0 if self.buffer.is_empty() => return Ok(None),
                        0 => return Err(malformed("it ends in the middle".to_owned())),
                        _ => continue,
                    }
                }
            };
            self.buffer.drain(..consumed);
            if member.is_some() {
                return Ok(member);
            }
        }
    }

    /// Hands out the data of the last member.
    fn data(&mut self, size: u64, out: &mut dyn Write) -> io::Result<()> {
        let padded = size.next_multiple_of(HEADER_SIZE as u64);
        let ahead = self.buffer.len().min(usize::try_from(padded).unwrap_or(usize::MAX));
        let head: Vec<u8> = self.buffer.drain(..ahead).collect();
        let mut rest = head.as_slice().chain(Read::by_ref(&mut self.input));
        let copied = io::copy(&mut rest.by_ref().take(size), out)?;
        io::copy(&mut rest.take(padded - size), &mut io::sink())?;
        if copied == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

struct Unpacking<'a> {
    root: Root,
    directory: PathBuf,
    /// Name of the first member, and the name it gets.
    old: Vec<u8>,
    new: Vec<u8>,
    target: &'a Target,
    /// Times of directories, set when nothing is put into them any more.
    times: Vec<(Vec<u8>, Timestamp)>,
    total: u64,
}

impl Unpacking<'_> {
    /// The name here of a name in the tar; `None` if it is not below the first member.
    fn renamed(&self, name: &[u8]) -> Option<Vec<u8>> {
        let trim = |name: &[u8]| {
            let name = name.strip_prefix(b"./").unwrap_or(name);
            let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
            if &name[..end] == b"." { Vec::new() } else { name[..end].to_vec() }
        };
        let (old, name) = (trim(&self.old), trim(name));
        let rest = name.strip_prefix(old.as_slice())?;
        let rest = if old.is_empty() || rest.is_empty() { rest } else { rest.strip_prefix(b"/")? };
        Some(match (self.new.is_empty(), rest.is_empty()) {
            (_, true) => self.new.clone(),
            (true, false) => rest.to_vec(),
            (false, false) => [self.new.as_slice(), b"/", rest].concat(),
        })
    }

    fn member(&mut self, member: &Member, data: &mut Members<'_>) -> Result<(), Error> {
        let Some(name) = self.renamed(&member.name) else {
            let why = format!("{} is not below {}", lossy(&member.name), lossy(&self.old));
            return Err(Error::new(Class::Corrupt, "the container's tar is malformed").why(why));
        };
        let path = self.directory.join(&*lossy(&name));
        self.create(&name, member, data).map_err(super::at(&path))?;
        if member.kind == EntryType::Directory {
            self.times.push((name, member.mtime));
        }
        Ok(())
    }

    fn create(&mut self, name: &[u8], member: &Member, data: &mut Members<'_>) -> io::Result<()> {
        if member.kind == EntryType::Directory {
            match self.root.lstat(name) {
                _ if name.is_empty() => return Ok(()),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
                Ok(_) => {
                    self.root.remove(name)?;
                    self.root.create_dir(name, member.mode)?;
                }
                Err(_) => self.root.create_dir(name, member.mode)?,
            }
            return self.own(name, member);
        }
        match self.root.lstat(name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                return Err(io::Error::other("a directory is in the way"));
            }
            Ok(_) => self.root.remove(name)?,
            Err(_) => {}
        }
        let (major, minor) = member.device;
        match member.kind {
            EntryType::Symlink => self.root.symlink(&member.link, name)?,
            EntryType::Link => {
                let existing = self.renamed(&member.link).ok_or(io::ErrorKind::NotFound)?;
                return self.root.hard_link(&existing, name);
            }
            EntryType::Fifo => self.root.mknod(name, FileType::Fifo, member.mode, 0, 0)?,
            EntryType::Char => self.root.mknod(name, FileType::CharacterDevice, member.mode, major, minor)?,
            EntryType::Block => self.root.mknod(name, FileType::BlockDevice, member.mode, major, minor)?,
            _ => {
                let mut file = self.root.create_file(name, member.mode)?;
                data.data(member.size, &mut file)?;
                self.total += member.size;
            }
        }
        self.own(name, member)?;
        self.root.set_times(name, member.mtime)
    }

    /// Files belong to whoever copies, unless owners are to be kept.
    fn own(&self, name: &[u8], member: &Member) -> io::Result<()> {
        if !self.target.keep_owners {
            return Ok(());
        }
        self.root.set_owner(name, member.owner.0, member.owner.1)?;
        match member.kind {
            // A change of owner takes the set-id bits away; links have no mode.
            EntryType::Symlink => Ok(()),
            _ => self.root.set_mode(name, member.mode),
        }
    }

    fn finish(&self) {
        for (name, mtime) in self.times.iter().rev().filter(|(name, _)| !name.is_empty()) {
            // The files are there; a directory's time is not worth failing for.
            let _kept = self.root.set_times(name, *mtime);
        }
    }
}

fn lossy(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(source: &str, here: &std::path::Path, directory: bool) -> Result<(PathBuf, String), String> {
        let target = Target::of(source, here.to_str().unwrap(), false);
        target
            .resolve(directory)
            .map(|(path, name)| (path, lossy(&name).into_owned()))
            .map_err(|error| error.message)
    }

    #[test]
    fn the_rules_of_cp_decide_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let file = root.join("file");
        std::fs::write(&file, "").unwrap();
        let named = |name: &str| Ok((root.to_owned(), name.to_owned()));
        assert_eq!(resolved("/a/b", root, true), named("b"));
        assert_eq!(resolved("/a/b/.", root, true), named(""));
        assert_eq!(resolved("/", root, true), named(""));
        assert_eq!(resolved("/a/b", &file, false), named("file"));
        assert_eq!(resolved("/a/b", &root.join("new"), true), named("new"));
        assert_eq!(resolved("/a/b", &file, true), Err("cannot copy directory".to_owned()));
        assert!(resolved("/a/b", &root.join("no/such"), true).unwrap_err().contains("does not exist"));
        assert_eq!(resolved("/a/b", &root.join("new/"), false), Err("no such directory".to_owned()));
    }
}
