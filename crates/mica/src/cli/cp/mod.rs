//! `mica cp`: files between a container and this machine, by the rules of cp.

mod pack;
mod unpack;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mica_api::{Class, CopyFromContainer, CopyIntoContainer, Error};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::Verb;
use crate::format::units;
use crate::output;

/// Copy files between a container and this machine
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Copy files between a container and this machine.

One of the two places is CONTAINER:PATH, the other a path here, or `-` for a tar on standard input or output. A \
directory is copied with everything in it; `DIR/.` copies only what is in it. If the destination is a directory the \
source goes into it, else the source gets its name.",
    after_long_help = "\
Examples:
  Take a file out of a container:
    $ mica cp web:/etc/nginx/nginx.conf .

  Put what is in a directory into one of the container:
    $ mica cp site/. web:/usr/share/nginx/html

  Look at a directory as a tar:
    $ mica cp web:/var/log - | tar tv"
)]
pub(crate) struct CpArgs {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a link named by the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say how much was copied
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path here, or `-`
    #[arg(value_name = "SOURCE")]
    source: String,
    /// CONTAINER:PATH, a path here, or `-`
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Container { name: &'a str, path: &'a str },
    Here(&'a str),
    Stream,
}

impl<'a> Place<'a> {
    /// A colon before any slash, and not at the front, names a container.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((name, path)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
                Self::Container { name, path }
            }
            _ => Self::Here(text),
        }
    }
}

impl Verb for CpArgs {
    const USAGE: &'static str = "[OPTIONS] SOURCE DESTINATION";

    fn run(self, cx: &Cx) -> Outcome {
        let bytes = match (Place::parse(&self.source), Place::parse(&self.destination)) {
            (Place::Container { name, path }, Place::Stream) => {
                self.to_stream(cx, name, path).map(|()| None)?
            }
            (Place::Container { name, path }, Place::Here(here)) => Some(self.to_here(cx, name, path, here)?),
            (Place::Stream, Place::Container { name, path }) => {
                self.stream_into(cx, name, path).map(|()| None)?
            }
            (Place::Here(here), Place::Container { name, path }) => {
                Some(self.files_into(cx, here, name, path)?)
            }
            (Place::Container { .. }, Place::Container { .. }) => {
                return Err(Failure::new(Class::Unsupported, "copying between containers is not supported"));
            }
            _ => {
                return Err(Error::new(Class::Invalid, "must specify at least one container source")
                    .hint("one of the two is CONTAINER:PATH")
                    .into());
            }
        };
        if let Some(bytes) = bytes.filter(|_| !self.quiet && cx.err.is_terminal()) {
            cx.warn(&format!("Successfully copied {} to {}", units::size3(bytes), self.destination));
        }
        Ok(Status::default())
    }
}

impl CpArgs {
    fn to_stream(&self, cx: &Cx, container: &str, path: &str) -> Result<(), Failure> {
        if cx.out.is_terminal() {
            return Err(Error::new(Class::Invalid, "cowardly refusing to write a tar to a terminal")
                .hint("redirect standard output")
                .into());
        }
        let output =
            output::stdout_fd().map_err(|error| io_failure("cannot write to standard output", &error))?;
        let request = self.copy_from(container, path, output);
        cx.engine()?.copy_from(request, &cx.cancel).map_err(Failure::of_stream)
    }

    fn stream_into(&self, cx: &Cx, container: &str, path: &str) -> Result<(), Failure> {
        let input = output::stdin_fd().map_err(|error| io_failure("cannot read standard input", &error))?;
        let request = CopyIntoContainer {
            container: container.to_owned(),
            path: path.to_owned(),
            input,
            source_name: String::new(),
            source_is_directory: true,
            contents_only: true,
            archive: self.archive,
        };
        Ok(cx.engine()?.copy_into(request, &cx.cancel)?)
    }

    /// The engine writes a tar into a pipe, a thread of ours unpacks it.
    fn to_here(&self, cx: &Cx, container: &str, path: &str, here: &str) -> Result<u64, Failure> {
        let engine = cx.engine()?;
        let (reader, writer) = pipe()?;
        let target = unpack::Target::of(path, here, self.archive);
        std::thread::scope(|scope| {
            let unpacking = std::thread::Builder::new().spawn_scoped(scope, move || {
                let mut reader = std::fs::File::from(reader);
                let result = unpack::unpack(&mut reader, &target);
                // The engine must not wait for, nor die of, a reader that has stopped; its own error matters more.
                let _rest = std::io::copy(&mut reader.by_ref(), &mut std::io::sink());
                result
            });
            let unpacking = unpacking.map_err(|error| io_failure("cannot start a thread", &error))?;
            let sent = engine.copy_from(self.copy_from(container, path, writer), &cx.cancel);
            let unpacked = unpacking.join().expect("unpacking does not panic");
            sent?;
            Ok(unpacked?)
        })
    }

    /// A thread of ours packs a tar into a pipe, the engine reads it.
    fn files_into(&self, cx: &Cx, here: &str, container: &str, path: &str) -> Result<u64, Failure> {
        let engine = cx.engine()?;
        let source = pack::Source::of(here, self.follow_link, self.archive)?;
        let (reader, writer) = pipe()?;
        let request = CopyIntoContainer {
            container: container.to_owned(),
            path: path.to_owned(),
            input: reader,
            source_name: source.name.clone(),
            source_is_directory: source.is_directory,
            contents_only: source.contents_only,
            archive: self.archive,
        };
        std::thread::scope(|scope| {
            let pack = move || pack::pack(&source, std::fs::File::from(writer));
            let packing = std::thread::Builder::new()
                .spawn_scoped(scope, pack)
                .map_err(|error| io_failure("cannot start a thread", &error))?;
            let received = engine.copy_into(request, &cx.cancel);
            let packed = packing.join().expect("packing does not panic");
            match (received, packed) {
                // An engine that stopped reading makes packing fail too; its own error says why.
                (Err(error), _) => Err(error.into()),
                (Ok(()), packed) => Ok(packed?),
            }
        })
    }

    fn copy_from(&self, container: &str, path: &str, output: OwnedFd) -> CopyFromContainer {
        CopyFromContainer {
            container: container.to_owned(),
            path: path.to_owned(),
            follow_link: self.follow_link,
            output,
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| io_failure("cannot make a pipe", &errno.into()))
}

/// The last name of a path, and whether the path ends in `/.`, which means "what is in it".
fn base(path: &str) -> (String, bool) {
    let contents = path == "." || path.ends_with("/.");
    let trimmed = path.strip_suffix("/.").unwrap_or(path).trim_end_matches('/');
    (trimmed.rsplit('/').next().unwrap_or_default().to_owned(), contents)
}

/// An I/O error that names the path.
fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| {
        Error::new(Class::of_io(&error), format!("cannot copy {}", path.display())).why(error.to_string())
    }
}

/// The directory that holds a path; the current one for a bare name.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, golden};

    #[test]
    fn a_colon_names_a_container_unless_it_is_part_of_a_path() {
        assert_eq!(Place::parse("web:/etc"), Place::Container { name: "web", path: "/etc" });
        assert_eq!(Place::parse("./a:b"), Place::Here("./a:b"));
        assert_eq!(Place::parse("/a:b"), Place::Here("/a:b"));
        assert_eq!(Place::parse("-"), Place::Stream);
        assert_eq!(base("/a/b/."), ("b".to_owned(), true));
        assert_eq!(base("/a/b/"), ("b".to_owned(), false));
    }

    #[test]
    fn two_places_of_the_same_kind_are_refused() {
        golden("cp-two-containers", &Bench::new().run(&["cp", "a:/x", "b:/y"]).text());
        golden("cp-no-container", &Bench::new().run(&["cp", "/x", "/y"]).text());
        golden("cp-arguments", &Bench::new().run(&["cp", "/x"]).text());
        golden("cp-terminal", &Bench::new().on_terminal().run(&["cp", "web:/x", "-"]).text());
    }

    #[test]
    fn files_go_into_a_container_as_a_tar() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("file"), "x".repeat(600)).unwrap();
        std::os::unix::fs::symlink("file", root.join("link")).unwrap();
        let bench = Bench::new();
        let path = root.to_str().unwrap();
        assert_eq!(bench.run(&["cp", path, "web:/dst"]).text(), "exit 0\n");
        assert_eq!(bench.run(&["cp", &format!("{path}/."), "web:/dst"]).text(), "exit 0\n");
        assert_eq!(bench.run(&["cp", "-aL", &format!("{path}/link"), "web:/dst"]).text(), "exit 0\n");
        golden("cp-into", &bench.calls());
    }

    #[test]
    fn files_come_out_by_the_rules_of_cp() {
        let directory = tempfile::tempdir().unwrap();
        let here = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let read = |name: &str| std::fs::read_to_string(here(name)).unwrap();
        std::fs::create_dir(here("there")).unwrap();
        assert_eq!(Bench::new().run(&["cp", "web:/data", &here("there")]).text(), "exit 0\n");
        assert_eq!(read("there/data/file"), "content");
        assert_eq!(std::fs::read_link(here("there/data/link")).unwrap(), Path::new("file"));
        assert_eq!(Bench::new().run(&["cp", "web:/data", &here("new")]).text(), "exit 0\n");
        assert_eq!(read("new/file"), "content");
        assert_eq!(Bench::new().run(&["cp", "web:/data/.", &here("there")]).text(), "exit 0\n");
        assert_eq!(read("there/file"), "content");
        std::fs::write(here("plain"), "").unwrap();
        let onto_file = Bench::new().run(&["cp", "web:/data", &here("plain")]);
        assert_eq!((onto_file.status, onto_file.stderr.contains("cannot copy directory")), (1, true));
        assert_eq!(Bench::new().run(&["cp", "web:/missing", &here("x")]).status, 1);
        assert!(!directory.path().join("x").exists());
    }
}
