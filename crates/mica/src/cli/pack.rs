//! `mica pack`: an image from programs of this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mica_api::{Class, Error, PackEntry, PackReply, PackRequest};

use crate::context::Cx;
use crate::environment::Environment;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;
use crate::format::{table, units};
use crate::values::keyed;

/// Make an image from programs of this machine, with the libraries they need
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Make an image from programs of this machine, with everything they need to start and nothing else.

Each program is followed to its ELF interpreter and to the libraries it names, through symbolic links, at the paths \
they have here. Other files and directories are taken as they are. A program named without a slash is looked for in \
PATH. Nothing is executed to find out. What is opened only at run time (plug-ins, locales, certificates) is not \
found: name it as well.

A single program is the entrypoint of its image; with several there is none, so that the image serves as a base \
(--entrypoint says otherwise). Use --list to see what would go in, and why.",
    after_long_help = "\
Examples:
  An image that lists directories:
    $ mica pack ls -t ls
    $ mica run --rm ls /

  A server with its certificates and a default argument:
    $ mica pack ./server /etc/ssl/certs/ca-certificates.crt --cmd --port=8080 -t server:1

  What does curl need?
    $ mica pack --list curl"
)]
pub(crate) struct PackArgs {
    /// Default argument; repeat it for several
    #[arg(long, value_name = "ARG")]
    cmd: Vec<String>,
    /// Program that containers start, as a path in the image; repeat it for arguments
    #[arg(long, value_name = "PATH")]
    entrypoint: Vec<String>,
    /// Environment variable; a name alone takes its value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Only show what would go in, and why
    #[arg(short, long)]
    list: bool,
    /// Name for the image; repeat it for several
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Programs, files and directories
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,
}

impl PackArgs {
    fn request(self, environment: &Environment) -> Result<PackRequest, Failure> {
        let paths: Result<Vec<PathBuf>, Failure> =
            self.paths.iter().map(|path| resolve(path, environment)).collect();
        let tags: Result<Vec<_>, Failure> =
            self.tag.iter().map(|tag| super::import::reference(tag)).collect();
        let env = self.env.iter().filter_map(|text| keyed::from_environment(text, environment));
        Ok(PackRequest {
            paths: paths?,
            tags: tags?,
            list: self.list,
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            env: env.map(|(name, value)| format!("{name}={value}")).collect(),
        })
    }
}

/// A path with a slash is taken from here, a name from PATH.
fn resolve(path: &Path, environment: &Environment) -> Result<PathBuf, Failure> {
    if path.components().count() > 1 || path.is_absolute() || path.exists() {
        return std::path::absolute(path)
            .map_err(|error| crate::failure::io_failure(format!("cannot find {}", path.display()), &error));
    }
    let directories = environment.nonempty("PATH").unwrap_or("/usr/bin:/bin");
    std::env::split_paths(directories)
        .map(|directory| directory.join(path))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| {
            Error::new(Class::NotFound, format!("cannot pack {}: no such program or file", path.display()))
                .why(format!("it is not in this directory, nor in PATH ({directories})"))
                .into()
        })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn list(entries: &[PackEntry]) -> String {
    let mut text = "PATH\tSIZE\tWHY\n".to_owned();
    for entry in entries {
        let path = match &entry.link {
            Some(target) => format!("{} -> {}", entry.path.display(), target.display()),
            None => entry.path.display().to_string(),
        };
        text.push_str(&format!("{path}\t{}\t{}\n", units::size3(entry.size_bytes), entry.reason));
    }
    let total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    table::align(&text) + &format!("\n{} files, {}\n", entries.len(), units::size3(total))
}

impl Verb for PackArgs {
    const USAGE: &'static str = "[OPTIONS] FILE [FILE...]";

    fn run(self, cx: &Cx) -> Outcome {
        let request = self.request(&cx.environment)?;
        let PackReply { entries, image_id } = cx.engine()?.pack(request, &cx.cancel)?;
        match image_id {
            Some(id) => cx.out.line(&id.to_string())?,
            None => cx.out.text(&list(&entries))?,
        }
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, golden};

    #[test]
    fn packing_prints_the_id_and_listing_says_why() {
        golden("pack", &Bench::new().run(&["pack", "/bin/ls", "-t", "ls"]).text());
        golden("pack-list", &Bench::new().run(&["pack", "--list", "/bin/ls"]).text());
        golden("pack-missing", &Bench::new().run(&["pack", "no-such-program"]).text());
        golden("pack-help", &Bench::new().run(&["pack", "--help"]).text());
    }

    #[test]
    fn names_are_looked_for_in_path() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("prog");
        std::fs::write(&program, "x").unwrap();
        let environment = Environment::of(&[("PATH", directory.path().to_str().unwrap())]);
        assert!(resolve(Path::new("prog"), &environment).is_err(), "not executable");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(resolve(Path::new("prog"), &environment).unwrap(), program);
    }
}
