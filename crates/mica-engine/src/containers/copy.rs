//! `cp`: files into a container and out of it, by docker's rules of cp.

use std::fs::File;
use std::io;
use std::path::Path;

use mica_api::{Cancel, Class, CopyFromContainer, CopyIntoContainer, Error, Result};
use mica_archive::{ApplyError, ExtractOptions, OwnerPolicy, extract, path};
use mica_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags};

use super::files::Files;
use super::list::Container;
use super::spec::{self, Spec};
use super::subtree::Subtree;
use super::volumes::Mounted;
use crate::LocalEngine;

/// `cp CONTAINER:PATH …`.
pub(crate) fn copy_from(engine: &LocalEngine, request: CopyFromContainer, cancel: &Cancel) -> Result<()> {
    let container = Container::find(engine, &request.container)?;
    let files = Files::open(engine, &container, cancel)?;
    let missing = |error: io::Error| not_found(&request.path, &container, &error);
    let wanted = Wanted::parse(&request.path);
    let place = Place::of(&files, &container.spec, &wanted).map_err(missing)?;
    let follow = request.follow_link || wanted.is_directory;
    let (root, real) = place.entry(follow).map_err(missing)?;
    let stat = root.lstat(&real).map_err(missing)?;
    if wanted.is_directory && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Error::new(Class::Invalid, "not a directory").why(request.path));
    }
    Subtree { root: &root, path: &real, owners: owners(engine) }.write(request.output, cancel)
}

/// `cp … CONTAINER:PATH`.
pub(crate) fn copy_into(engine: &LocalEngine, request: CopyIntoContainer, cancel: &Cancel) -> Result<()> {
    let container = Container::find(engine, &request.container)?;
    let files = Files::open(engine, &container, cancel)?;
    let missing = |error: io::Error| not_found(&shown_directory(&request.path), &container, &error);
    let wanted = Wanted::parse(&request.path);
    let place = Place::of(&files, &container.spec, &wanted).map_err(missing)?;
    if container.spec.read_only && place.is_rootfs {
        return Err(Error::new(Class::Conflict, "container rootfs is marked read-only"));
    }
    let target = Target::of(&place, &wanted, &request)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = place.root.open_at(&target.directory, flags, Mode::empty()).map_err(missing)?;
    let options = ExtractOptions {
        chown: if request.archive { None } else { Some((0, 0)) },
        owners: owners(engine),
        devices: engine.workshop.devices,
        rename: target.name.map(|name| (request.source_name.clone().into_bytes(), name)),
        keep_kinds: true,
        ..ExtractOptions::default()
    };
    let unpacked =
        extract(File::from(request.input), &Root::from_fd(directory), &options, &|| cancel.is_cancelled());
    unpacked.map(drop).map_err(|error| unpack_error(&error, &container))
}

fn owners(engine: &LocalEngine) -> OwnerPolicy {
    if engine.workshop.is_single_id() { OwnerPolicy::Ledger } else { OwnerPolicy::Exact }
}

fn not_found(path: &str, container: &Container, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::new(
            Class::NotFound,
            format!("Could not find the file {path} in container {}", container.record.name),
        ),
        _ => Error::new(
            Class::of_io(error),
            format!("cannot look up {path} in container {}", container.record.name),
        )
        .why(error.to_string()),
    }
}

fn unpack_error(error: &ApplyError, container: &Container) -> Error {
    let class = match error {
        ApplyError::Cancelled => Class::Cancelled,
        ApplyError::Occupied { .. } => Class::Conflict,
        ApplyError::Write { source, .. } => Class::of_io(source),
        _ => Class::Corrupt,
    };
    let why = std::error::Error::source(error).map(ToString::to_string);
    let mut shown = Error::new(class, format!("cannot copy to container {}", container.record.name))
        .why(error.to_string());
    if let Some(why) = why {
        shown.why = Some(format!("{error}: {why}"));
    }
    shown
}

/// A path as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    /// Without what marks a directory.
    path: &'a str,
    /// It ends in `/` or `/.`: it has to be a directory, and a link to one is followed.
    is_directory: bool,
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Self {
        let path = text.strip_suffix("/.").unwrap_or(if text == "." { "" } else { text });
        let trimmed = path.trim_end_matches('/');
        Self { path: trimmed, is_directory: trimmed.len() < text.len() || text.is_empty() }
    }
}

/// The real path of an entry that may itself be a link.
fn resolve_parent(root: &Root, rel: &[u8]) -> io::Result<Vec<u8>> {
    let start = rel.iter().position(|byte| *byte != b'/').unwrap_or(rel.len());
    let rel = &rel[start..];
    let name = path::file_name(rel);
    if matches!(name, b"" | b"." | b"..") {
        return root.resolve(rel);
    }
    Ok(path::join(&root.resolve(path::parent(rel).unwrap_or_default())?, name))
}

/// Where a path of a container is: in its root file system, or in a volume, which is mounted only inside it.
struct Place {
    root: Root,
    is_rootfs: bool,
    /// The path in `root`, links not followed yet.
    path: Vec<u8>,
}

impl Place {
    fn of(files: &Files, spec: &Spec, wanted: &Wanted<'_>) -> io::Result<Self> {
        let wanted = spec::cleaned(&format!("/{}", wanted.path));
        let inside = |volume: &Mounted| -> Option<String> {
            let rest = wanted.strip_prefix(spec::cleaned(&volume.target).as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let found = spec.volumes.iter().filter_map(|volume| Some((volume, inside(volume)?)));
        let Some((volume, rest)) = found.min_by_key(|(_, rest)| rest.len()) else {
            return Ok(Self { root: files.root().try_clone()?, is_rootfs: true, path: wanted.into_bytes() });
        };
        Self::of_volume(&volume.source, &rest)
    }

    /// The mounted directory or file itself is reached through the directory it is in.
    fn of_volume(source: &Path, rest: &str) -> io::Result<Self> {
        let name = source.file_name().filter(|_| rest.is_empty());
        let (root, path) = match (name, source.parent()) {
            (Some(name), Some(parent)) => (Root::open(parent)?, name.as_encoded_bytes().to_vec()),
            _ => (Root::open(source)?, rest.as_bytes().to_vec()),
        };
        Ok(Self { root, is_rootfs: false, path })
    }

    /// The entry by its real path; a link itself unless it is to be followed.
    fn entry(self, follow: bool) -> io::Result<(Root, Vec<u8>)> {
        let real =
            if follow { self.root.resolve(&self.path) } else { resolve_parent(&self.root, &self.path) };
        Ok((self.root, real?))
    }
}

/// Where an archive goes: a directory, and the name its top gets there.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    directory: Vec<u8>,
    /// `None`: the names of the archive; empty: what is in the top goes into the directory.
    name: Option<Vec<u8>>,
}

impl Target {
    /// The rules of `docker cp`.
    fn of(place: &Place, wanted: &Wanted<'_>, request: &CopyIntoContainer) -> Result<Self> {
        match (place.root.stat(&place.path), place.root.resolve(&place.path)) {
            // A link stands for what it points to.
            (Ok(stat), Ok(real)) => {
                decide(wanted, &real, Some(FileType::from_raw_mode(stat.st_mode)), request)
            }
            _ => decide(wanted, &place.path, None, request),
        }
    }
}

fn decide(
    wanted: &Wanted<'_>,
    path: &[u8],
    existing: Option<FileType>,
    request: &CopyIntoContainer,
) -> Result<Target> {
    let parent = || path::parent(path).unwrap_or_default().to_vec();
    let own_name = || Some(path::file_name(path).to_vec());
    let source = || Some(request.source_name.clone().into_bytes()).filter(|name| !name.is_empty());
    match existing {
        Some(FileType::Directory) => {
            let name = if request.contents_only { source().map(|_| Vec::new()) } else { source() };
            Ok(Target { directory: path.to_vec(), name })
        }
        Some(_) if request.source_is_directory => Err(Error::new(Class::Invalid, "cannot copy directory")
            .why(format!("{} is not a directory", request.path))),
        Some(_) if wanted.is_directory => {
            Err(Error::new(Class::Invalid, "not a directory").why(request.path.clone()))
        }
        None if wanted.is_directory && !request.source_is_directory => {
            Err(Error::new(Class::NotFound, "no such directory").why(request.path.clone()))
        }
        // An archive from a stream has no top that could be named.
        None if request.source_name.is_empty() => Ok(Target { directory: path.to_vec(), name: None }),
        _ => Ok(Target { directory: parent(), name: own_name() }),
    }
}

/// The directory of a destination, as docker names it when it is missing.
fn shown_directory(text: &str) -> String {
    let wanted = Wanted::parse(text).path;
    let parent = String::from_utf8_lossy(path::parent(wanted.as_bytes()).unwrap_or_default()).into_owned();
    if parent.is_empty() { "/".to_owned() } else { parent }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn request(source_name: &str, path: &str) -> CopyIntoContainer {
        let (reader, _) = io::pipe().unwrap();
        CopyIntoContainer {
            container: "c".into(),
            path: path.into(),
            input: OwnedFd::from(reader),
            source_name: source_name.into(),
            source_is_directory: source_name.starts_with("dir"),
            contents_only: false,
            archive: false,
        }
    }

    fn target(source_name: &str, path: &str, existing: Option<FileType>) -> Result<(String, Option<String>)> {
        let request = request(source_name, path);
        let target = decide(
            &Wanted::parse(&request.path),
            Wanted::parse(&request.path).path.as_bytes(),
            existing,
            &request,
        )?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok((text(target.directory), target.name.map(text)))
    }

    fn place(directory: &str, name: &str) -> (String, Option<String>) {
        (directory.to_owned(), Some(name.to_owned()))
    }

    #[test]
    fn a_source_goes_into_a_directory_or_gets_the_name_of_what_is_not_there() {
        let (directory, file) = (Some(FileType::Directory), Some(FileType::RegularFile));
        assert_eq!(target("file", "/d", directory).unwrap(), place("/d", "file"));
        assert_eq!(target("file", "/d/", directory).unwrap(), place("/d", "file"));
        assert_eq!(target("file", "/d/new", None).unwrap(), place("/d", "new"));
        assert_eq!(target("file", "/d/old", file).unwrap(), place("/d", "old"));
        assert_eq!(target("dir", "/d", directory).unwrap(), place("/d", "dir"));
        assert_eq!(target("dir", "/new/", None).unwrap(), place("", "new"));
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        let message = |result: Result<_>| result.unwrap_err().message;
        assert_eq!(message(target("dir", "/f", Some(FileType::RegularFile))), "cannot copy directory");
        assert_eq!(message(target("file", "/f/", Some(FileType::RegularFile))), "not a directory");
        assert_eq!(message(target("file", "/new/", None)), "no such directory");
    }

    #[test]
    fn contents_go_into_the_directory_itself() {
        let mut request = request("dir", "/d/.");
        request.contents_only = true;
        let wanted = Wanted { path: "/d", is_directory: true };
        let target = decide(&wanted, b"d", Some(FileType::Directory), &request).unwrap();
        assert_eq!(target, Target { directory: b"d".to_vec(), name: Some(Vec::new()) });
        request.source_name.clear();
        let target = decide(&wanted, b"d", Some(FileType::Directory), &request).unwrap();
        assert_eq!(target, Target { directory: b"d".to_vec(), name: None });
    }

    #[test]
    fn trailing_slashes_and_dots_ask_for_a_directory() {
        assert_eq!(Wanted::parse("/a/."), Wanted { path: "/a", is_directory: true });
        assert_eq!(Wanted::parse("/a/"), Wanted { path: "/a", is_directory: true });
        assert_eq!(Wanted::parse("/"), Wanted { path: "", is_directory: true });
        assert_eq!(Wanted::parse("/a.b"), Wanted { path: "/a.b", is_directory: false });
        assert_eq!(shown_directory("/no/file"), "/no");
        assert_eq!(shown_directory("/file"), "/");
    }
}
