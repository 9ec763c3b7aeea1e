//! What a build starts from: the context's directory and the text of the Dockerfile (build.md O1, P1, D1).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use mica_api::{BuildContext, Class, DockerfileSource, Error};
use mica_archive::{ExtractOptions, OwnerLedger, OwnerPolicy};
use mica_dockerfile::ignore::Patterns;
use mica_solve::{GitSource, HttpSource, Remote, SourceOp};
use mica_sys::root::Root;

use crate::progress::Progress;
use crate::remote::Remotes;

/// The most bytes a Dockerfile may have (security.md section 5).
const DOCKERFILE_LIMIT_BYTES: u64 = 10 << 20;
/// The most bytes an ignore file may have.
const IGNORE_LIMIT_BYTES: u64 = 1 << 20;
/// File names tried in the context root, in order.
const DEFAULT_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// The sources of a build, opened.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The context's directory.
    pub(crate) directory: PathBuf,
    /// Name of the Dockerfile, for messages.
    pub(crate) file_name: String,
    /// Its bytes.
    pub(crate) dockerfile: Vec<u8>,
    /// What the context leaves out; `None` for streams, which ignore nothing (D1).
    pub(crate) ignore: Option<Patterns>,
    /// Bytes of the ignore file, for progress.
    pub(crate) ignore_bytes: u64,
    /// Who owns what in it, if that came as an archive.
    pub(crate) owners: OwnerLedger,
    /// The repository that is the context; then there is no directory.
    pub(crate) source: Option<SourceOp>,
    /// The time of the context if it has one: its commit's, its file's, that of its newest member.
    pub(crate) seconds: Option<i64>,
}

/// Opens the sources of a build. Streams are spooled and unpacked into scratch space of the lease; a repository is shown
/// with its `.git` if that is to be kept.
///
/// # Errors
/// Missing or oversized Dockerfiles, contexts that are no directories, damaged archives.
pub(crate) fn open(
    (context, keep_git_dir): (BuildContext, bool),
    dockerfile: DockerfileSource,
    remotes: &Remotes<'_>,
    progress: &Progress<'_>,
) -> Result<Inputs, Error> {
    match context {
        BuildContext::Directory(directory) => from_directory(directory, dockerfile, remotes),
        BuildContext::Stream(stream) => from_stream(File::from(stream), dockerfile, remotes),
        BuildContext::Remote(url) => match Remote::parse_context(&url) {
            Ok(Some(Remote::Git(mut git))) => {
                git.keep_git_dir |= keep_git_dir;
                from_repository(git, &url, dockerfile, remotes, progress)
            }
            Ok(Some(Remote::Http(http))) => from_url(&http, dockerfile, remotes, progress),
            Ok(None) => Err(Error::new(Class::Invalid, format!("{url} is neither a URL nor a repository"))),
            Err(error) => {
                Err(Error::new(Class::Invalid, format!("invalid build context {url}")).why(error.to_string()))
            }
        },
    }
}

fn from_directory(
    directory: PathBuf,
    source: DockerfileSource,
    remotes: &Remotes<'_>,
) -> Result<Inputs, Error> {
    let root = Root::open(&directory).map_err(|error| no_context(&directory, &error))?;
    let (file_name, bytes, ignore) = match source {
        DockerfileSource::Default => {
            let (name, bytes) = default_dockerfile(&root)?;
            let ignore = ignore_file(&root, &format!("{name}.dockerignore"))?;
            (name.to_owned(), bytes, ignore)
        }
        DockerfileSource::Path(path) => {
            let (bytes, ignore) = dockerfile_at(&path)?;
            (display_name(&path), bytes, ignore)
        }
        DockerfileSource::Stream(stream) => ("Dockerfile".to_owned(), read_stream(stream.into())?, None),
        DockerfileSource::Remote(url) => ("Dockerfile".to_owned(), download(&url, remotes)?, None),
    };
    let ignore = match ignore {
        Some(bytes) => Some(bytes),
        None => context_ignore(&root)?,
    };
    let ignore_bytes = ignore.as_ref().map_or(2, |bytes| bytes.len() as u64);
    let ignore = ignore.map(|bytes| Patterns::parse(&bytes)).transpose().map_err(bad_ignore)?;
    Ok(Inputs {
        directory,
        file_name,
        dockerfile: bytes,
        ignore,
        ignore_bytes,
        owners: OwnerLedger::new(),
        source: None,
        seconds: None,
    })
}

fn no_context(directory: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(Class::NotFound, format!("unable to prepare context: path {:?} not found", directory))
        }
        _ => Error::new(Class::of_io(error), format!("unable to prepare context: path {directory:?}"))
            .why(error.to_string()),
    }
}

fn bad_ignore(error: mica_dockerfile::ignore::IgnoreError) -> Error {
    Error::new(Class::Build, format!("error parsing .dockerignore: {error}"))
}

fn context_ignore(root: &Root) -> Result<Option<Vec<u8>>, Error> {
    for name in [".dockerignore", ".containerignore"] {
        let found = ignore_file(root, name)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// An ignore file; `None` if it is not there. One that cannot be read is an error: it may exclude secrets.
fn ignore_file(root: &Root, name: &str) -> Result<Option<Vec<u8>>, Error> {
    match root.read(name.as_bytes(), IGNORE_LIMIT_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Error::new(Class::of_io(&error), format!("cannot read {name}")).why(error.to_string()))
        }
    }
}

fn default_dockerfile(root: &Root) -> Result<(&'static str, Vec<u8>), Error> {
    for name in DEFAULT_NAMES {
        match root.read(name.as_bytes(), DOCKERFILE_LIMIT_BYTES) {
            Ok(bytes) => return Ok((name, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable_dockerfile(name, &error)),
        }
    }
    Err(missing_dockerfile("Dockerfile"))
}

fn missing_dockerfile(name: &str) -> Error {
    Error::new(Class::Build, format!("failed to read dockerfile: open {name}: no such file or directory"))
}

fn unreadable_dockerfile(name: &str, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return missing_dockerfile(name);
    }
    Error::new(Class::Build, format!("failed to read dockerfile: open {name}: {error}"))
}

/// A Dockerfile named by the user, and the ignore file of its own beside it. The path is the user's and trusted; what is
/// there must still be a regular file of bearable size.
fn dockerfile_at(path: &Path) -> Result<(Vec<u8>, Option<Vec<u8>>), Error> {
    let name = display_name(path);
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let bytes = read_regular(path).map_err(|error| unreadable_dockerfile(&name, &error))?;
    let folder = Root::open(folder).map_err(|error| unreadable_dockerfile(&name, &error))?;
    let beside = ignore_file(&folder, &format!("{name}.dockerignore"))?;
    Ok((bytes, beside))
}

fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("is a directory"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCKERFILE_LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        return Err(io::Error::other(format!("larger than {DOCKERFILE_LIMIT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// What a Dockerfile is called before it is there.
pub(crate) fn title_of(dockerfile: &DockerfileSource) -> String {
    match dockerfile {
        DockerfileSource::Path(path) => display_name(path),
        DockerfileSource::Default | DockerfileSource::Stream(_) | DockerfileSource::Remote(_) => {
            DEFAULT_NAMES[0].to_owned()
        }
    }
}

fn display_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn read_stream(stream: File) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    stream
        .take(DOCKERFILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable_dockerfile("-", &error))?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        return Err(Error::new(
            Class::Build,
            format!("Dockerfile is larger than {DOCKERFILE_LIMIT_BYTES} bytes"),
        ));
    }
    Ok(bytes)
}

/// A repository: its files are a source of the graph; only the Dockerfile is read here.
fn from_repository(
    git: GitSource,
    url: &str,
    dockerfile: DockerfileSource,
    remotes: &Remotes<'_>,
    progress: &Progress<'_>,
) -> Result<Inputs, Error> {
    let title = format!("[internal] load git source {url}");
    let step = progress.internal(&*title);
    let source = SourceOp::Git(git);
    let hit = match remotes.layers(&source, &title) {
        Ok((_, hit)) => hit,
        Err(error) => {
            step.failed(error.to_string());
            return Err(error);
        }
    };
    step.done();
    let seconds = Some(remotes.git_time(&source)?);
    let mounted = remotes.workshop.mount(&hit.layers, remotes.lease)?;
    let (file_name, dockerfile) = dockerfile_inside(mounted.root(), dockerfile, remotes)?;
    let directory = remotes.lease.scratch()?;
    Ok(Inputs { source: Some(source), seconds, ..without_ignore(directory, (file_name, dockerfile)) })
}

/// A URL: what it gives is treated like a stream.
fn from_url(
    http: &HttpSource,
    dockerfile: DockerfileSource,
    remotes: &Remotes<'_>,
    progress: &Progress<'_>,
) -> Result<Inputs, Error> {
    let title = format!("[internal] load remote build context {}", http.url);
    let step = progress.internal(&*title);
    let source = SourceOp::Http(http.clone());
    let (resolved, hit) = match remotes.layers(&source, &title) {
        Ok(found) => found,
        Err(error) => {
            step.failed(error.to_string());
            return Err(error);
        }
    };
    step.done();
    let mounted = remotes.workshop.mount(&hit.layers, remotes.lease)?;
    let file = mounted.root().open_file(http.file_name.as_bytes()).map_err(unreadable_stream)?;
    let inputs = from_stream(file, dockerfile, remotes)?;
    Ok(Inputs { seconds: resolved.seconds.or(inputs.seconds), ..inputs })
}

/// The Dockerfile of a context that is not the client's.
fn dockerfile_inside(
    root: &Root,
    source: DockerfileSource,
    remotes: &Remotes<'_>,
) -> Result<(String, Vec<u8>), Error> {
    match source {
        DockerfileSource::Default => default_dockerfile(root).map(|(name, bytes)| (name.to_owned(), bytes)),
        DockerfileSource::Path(path) => {
            let name = display_name(&path);
            let bytes = root.read(path.as_os_str().as_encoded_bytes(), DOCKERFILE_LIMIT_BYTES);
            Ok((name.clone(), bytes.map_err(|error| unreadable_dockerfile(&name, &error))?))
        }
        DockerfileSource::Stream(stream) => Ok(("Dockerfile".to_owned(), read_stream(stream.into())?)),
        DockerfileSource::Remote(url) => Ok(("Dockerfile".to_owned(), download(&url, remotes)?)),
    }
}

/// `-f URL`.
fn download(url: &str, remotes: &Remotes<'_>) -> Result<Vec<u8>, Error> {
    let http = HttpSource::new(url);
    let (_, hit) = remotes.layers(&SourceOp::Http(http.clone()), url)?;
    let mounted = remotes.workshop.mount(&hit.layers, remotes.lease)?;
    let bytes = mounted.root().read(http.file_name.as_bytes(), DOCKERFILE_LIMIT_BYTES);
    bytes.map_err(|error| unreadable_dockerfile(url, &error))
}

fn unreadable_stream(error: io::Error) -> Error {
    Error::new(Class::of_io(&error), "cannot read the build context from the stream").why(error.to_string())
}

/// `-`: a tar is the context; anything else is the text of a Dockerfile with an empty context.
fn from_stream(mut stream: File, source: DockerfileSource, remotes: &Remotes<'_>) -> Result<Inputs, Error> {
    let failed = unreadable_stream;
    let scratch = remotes.lease.scratch()?;
    let mut spool = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(scratch.join("spool"))
        .map_err(failed)?;
    io::copy(&mut stream, &mut spool).map_err(failed)?;
    spool.seek(SeekFrom::Start(0)).map_err(failed)?;
    let directory = scratch.join("context");
    std::fs::create_dir(&directory).map_err(failed)?;
    if !mica_archive::is_tar(&mut spool).map_err(failed)? {
        spool.seek(SeekFrom::Start(0)).map_err(failed)?;
        let dockerfile = read_stream(spool)?;
        return Ok(without_ignore(directory, ("Dockerfile".to_owned(), dockerfile)));
    }
    spool.seek(SeekFrom::Start(0)).map_err(failed)?;
    let root = Root::open(&directory).map_err(failed)?;
    let options = ExtractOptions { owners: OwnerPolicy::Ledger, ..ExtractOptions::default() };
    let extracted = mica_archive::extract(&spool, &root, &options, &|| remotes.cancel.is_cancelled())
        .map_err(|error| {
            Error::new(Class::Corrupt, "cannot unpack the build context").why(error.to_string())
        })?;
    if matches!(source, DockerfileSource::Stream(_)) {
        return Err(Error::new(Class::Invalid, "can't use stdin for both build context and dockerfile"));
    }
    let dockerfile = dockerfile_inside(&root, source, remotes)?;
    let seconds = newest_below(&directory).map_err(failed)?;
    Ok(Inputs { owners: extracted.owners, seconds, ..without_ignore(directory, dockerfile) })
}

/// A context that ignores nothing.
fn without_ignore(directory: PathBuf, (file_name, dockerfile): (String, Vec<u8>)) -> Inputs {
    let owners = OwnerLedger::new();
    Inputs {
        directory,
        file_name,
        dockerfile,
        ignore: None,
        ignore_bytes: 2,
        owners,
        source: None,
        seconds: None,
    }
}

/// The newest time below a directory that this process has unpacked.
fn newest_below(directory: &Path) -> io::Result<Option<i64>> {
    let mut waiting = vec![directory.to_owned()];
    let mut newest = None;
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            newest = newest.max(Some(metadata.mtime()));
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(newest)
}
