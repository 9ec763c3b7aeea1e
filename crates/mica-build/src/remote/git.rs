//! ADD of a commit, and repositories as build contexts: the `git` program does the transport.
//!
//! The program gets its arguments as arguments, nothing of the user's git configuration, and only the protocols that
//! may be spoken (security.md row 44).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mica_api::{Class, Error, SecretValue};
use mica_solve::{CacheKey, GitSource, GitTime, KeyHasher, SourceOp, is_commit};
use mica_store::{Fetched, LayerId};
use rustix::process::{Pid, Signal, kill_process_group};

use super::checkout::settle;
use super::{Found, Remotes, Resolved, not_remote};

/// Protocols that a Dockerfile or a submodule may name.
const PROTOCOLS: &str = "http:https:ssh:git";
/// Protocols for what the user named on the command line.
const PROTOCOLS_OF_USER: &str = "http:https:ssh:git:file";
/// Secrets that hold credentials for https.
const TOKEN: &str = "GIT_AUTH_TOKEN";
const HEADER: &str = "GIT_AUTH_HEADER";
/// The most bytes of output that are read.
const OUTPUT_LIMIT_BYTES: u64 = 1 << 20;
/// How often a running program is looked after.
const POLL: Duration = Duration::from_millis(10);
/// What would lead git elsewhere.
const FORGOTTEN: [&str; 12] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG_PARAMETERS",
    "GIT_TEMPLATE_DIR",
    "GIT_ASKPASS",
    "SSH_ASKPASS",
];

impl Remotes<'_> {
    pub(super) fn resolve_git(&self, source: &GitSource) -> Result<Resolved, Error> {
        let commit = match source.commit() {
            Some(commit) => commit.to_owned(),
            None => self.commit_of(source)?,
        };
        if let Some(checksum) = source.checksum.as_deref().filter(|checksum| !commit.starts_with(*checksum)) {
            let text = format!("expected checksum to match {checksum}, got {commit}");
            return Err(Error::new(Class::Build, text));
        }
        Ok(Resolved { key: key(source, &commit), seconds: None, found: Found::Git(commit) })
    }

    /// What a ref means now; branches come before tags, as in `git checkout`.
    fn commit_of(&self, source: &GitSource) -> Result<String, Error> {
        let reference = source.reference.as_deref().unwrap_or("HEAD");
        let git = self.git(source, PathBuf::from("/"));
        let peeled = format!("{reference}^{{}}");
        let listed = git.read(&["ls-remote", "--", &source.remote, reference, &peeled])?;
        let find = |name: &str| {
            let line = |line: &&str| line.split_once('\t').is_some_and(|(_, found)| found == name);
            listed
                .lines()
                .find(line)
                .and_then(|line| line.split_once('\t'))
                .map(|(commit, _)| commit.to_owned())
        };
        let names = [
            format!("refs/heads/{reference}"),
            format!("refs/tags/{reference}^{{}}"),
            format!("refs/tags/{reference}"),
            peeled.clone(),
            reference.to_owned(),
        ];
        names.iter().find_map(|name| find(name)).filter(|commit| is_commit(commit)).ok_or_else(|| {
            Error::new(Class::Build, format!("repository does not contain ref {reference}"))
                .why(format!("{} has no branch, tag or ref of that name", source.remote))
        })
    }

    pub(super) fn fetch_git(&self, source: &GitSource, commit: &str) -> Result<LayerId, Error> {
        let directory = self.lease.scratch()?;
        let git = self.git(source, directory.clone());
        git.run(&["init", "--quiet", "--template=", "."])?;
        git.run(&["remote", "add", "--", "origin", &source.remote])?;
        fetch_commit(&git, source, commit)?;
        git.run(&["checkout", "--quiet", "--detach", commit])?;
        if source.submodules && directory.join(".gitmodules").exists() {
            let git = Git { protocols: PROTOCOLS, ..git.clone() };
            let update = ["submodule", "update", "--quiet", "--init", "--recursive"];
            // servers of plain files cannot give a part of a history
            if git.run(&[&update[..], &["--depth=1"]].concat()).is_err() {
                self.cancel.check()?;
                git.run(&update)?;
            }
        }
        let seconds = commit_time(&git)?;
        if source.keep_git_dir {
            forget_traces(&git, &directory)?;
        }
        let time = if source.mtime == GitTime::Commit { seconds } else { 0 };
        let kept = settle(&directory, source.subdir.as_deref(), time)?;
        let exclude: &[&str] = if source.keep_git_dir { &[] } else { &["**/.git"] };
        self.note_time(commit, key(source, commit), seconds)?;
        self.import(&kept, exclude, time)
    }

    /// When the commit of a source was made. Asks the server only if that commit was never here.
    pub(crate) fn git_time(&self, source: &SourceOp) -> Result<i64, Error> {
        let resolved = self.resolve(source)?;
        let (SourceOp::Git(source), Found::Git(commit)) = (source, &resolved.found) else {
            return Err(not_remote());
        };
        let noted = self.workshop.store.fetched(&time_note(commit))?;
        if let Some(seconds) = noted.and_then(|noted| noted.last_modified?.parse().ok()) {
            return Ok(seconds);
        }
        let git = self.git(source, self.lease.scratch()?);
        git.run(&["init", "--quiet", "--template=", "."])?;
        git.run(&["remote", "add", "--", "origin", &source.remote])?;
        fetch_commit(&git, source, commit)?;
        git.run(&["update-ref", "--no-deref", "HEAD", commit])?;
        commit_time(&git)
    }

    fn note_time(&self, commit: &str, key: CacheKey, seconds: i64) -> Result<(), Error> {
        let last_modified = Some(seconds.to_string());
        let note = Fetched { etag: None, last_modified, content: *key.as_bytes() };
        Ok(self.workshop.store.note_fetched(&time_note(commit), &note)?)
    }

    fn git(&self, source: &GitSource, directory: PathBuf) -> Git<'_> {
        let is_of_user = source.remote.starts_with("file://");
        Git {
            remotes: self,
            directory,
            protocols: if is_of_user { PROTOCOLS_OF_USER } else { PROTOCOLS },
            authorization: self.authorization(&source.remote),
        }
    }

    /// `http.<origin>.extraHeader` for a remote whose credentials came as a secret.
    fn authorization(&self, remote: &str) -> Option<(String, String)> {
        let (scheme, rest) =
            remote.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let secret = |name: &str| {
            let named = |id: &str| self.secrets.iter().find(|secret| secret.id == id);
            let found = named(&format!("{name}.{host}")).or_else(|| named(name))?;
            match &found.value {
                SecretValue::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
                SecretValue::File(path) => std::fs::read_to_string(path).ok(),
            }
        };
        let value = match secret(HEADER) {
            Some(header) => header.trim().to_owned(),
            None => {
                format!("basic {}", BASE64.encode(format!("x-access-token:{}", secret(TOKEN)?.trim())))
            }
        };
        Some((format!("http.{scheme}://{host}/.extraHeader"), format!("Authorization: {value}")))
    }
}

/// The commit alone if the server gives it, else its branch or tag, else everything.
fn fetch_commit(git: &Git<'_>, source: &GitSource, commit: &str) -> Result<(), Error> {
    const HERE: &str = "refs/mica/fetched";
    let by_name = source.reference.as_deref().filter(|name| !is_commit(name) && !source.fetch_by_commit);
    let wanted = by_name.unwrap_or(if source.reference.is_none() && !source.fetch_by_commit {
        "HEAD"
    } else {
        commit
    });
    let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", "origin"];
    let refspec = format!("+{wanted}:{HERE}");
    let first = git.run(&[&shallow[..], &[&refspec]].concat());
    let is_there = || git.run(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok();
    if first.is_ok() && is_there() {
        return Ok(());
    }
    git.remotes.cancel.check()?;
    let by_commit = format!("+{commit}:{HERE}");
    if wanted != commit && git.run(&[&shallow[..], &[&by_commit]].concat()).is_ok() {
        return Ok(());
    }
    git.remotes.cancel.check()?;
    let all = ["fetch", "--quiet", "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*"];
    git.run(&all).map_err(|error| first.err().unwrap_or(error))?;
    if is_there() {
        return Ok(());
    }
    Err(Error::new(Class::Build, format!("repository {} has no commit {commit}", source.remote)))
}

fn commit_time(git: &Git<'_>) -> Result<i64, Error> {
    let text = git.read(&["show", "--no-patch", "--format=%ct", "HEAD"])?;
    text.trim()
        .parse()
        .map_err(|_| Error::new(Class::Internal, format!("git names no commit time: {text:?}")))
}

/// What fetching left in a `.git` that stays.
fn forget_traces(git: &Git<'_>, directory: &Path) -> Result<(), Error> {
    git.run(&["update-ref", "-d", "refs/mica/fetched"])?;
    git.run(&["reflog", "expire", "--all", "--expire=now"])?;
    for name in ["FETCH_HEAD", "ORIG_HEAD"] {
        // most often there is none
        let _ = std::fs::remove_file(directory.join(".git").join(name));
    }
    Ok(())
}

/// Under what the time of a commit is kept.
fn time_note(commit: &str) -> String {
    format!("git commit {commit}")
}

/// What a checkout is made of: the commit, and how much of it is taken.
fn key(source: &GitSource, commit: &str) -> CacheKey {
    let mut hasher = KeyHasher::new("git");
    // the remote's name is a file of a `.git` that stays
    let remote = source.keep_git_dir.then_some(&source.remote);
    hasher.json(&(commit, &source.subdir, remote, source.submodules, source.mtime));
    hasher.finish()
}

/// The program in one directory.
#[derive(Clone)]
struct Git<'a> {
    remotes: &'a Remotes<'a>,
    directory: PathBuf,
    protocols: &'static str,
    authorization: Option<(String, String)>,
}

impl Git<'_> {
    fn run(&self, arguments: &[&str]) -> Result<(), Error> {
        self.read(arguments).map(drop)
    }

    /// Runs it and returns what it prints.
    fn read(&self, arguments: &[&str]) -> Result<String, Error> {
        let logs = self.remotes.lease.scratch()?;
        let failed = |error: std::io::Error| {
            Error::new(Class::of_io(&error), "cannot keep git's output").why(error.to_string())
        };
        let (output, errors) = (logs.join("out"), logs.join("err"));
        let child = self
            .command(arguments)
            .process_group(0)
            .stdout(File::create(&output).map_err(failed)?)
            .stderr(File::create(&errors).map_err(failed)?)
            .spawn()
            .map_err(|error| no_git(&error))?;
        let status = self.wait(child)?;
        let text = |path: &Path| -> Result<String, Error> {
            let mut bytes = Vec::new();
            File::open(path)
                .and_then(|file| file.take(OUTPUT_LIMIT_BYTES).read_to_end(&mut bytes))
                .map_err(failed)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        if status.success() {
            return text(&output);
        }
        let said = text(&errors)?.replace('\r', "");
        let verb = arguments.first().copied().unwrap_or_default();
        Err(Error::new(Class::Build, format!("git {verb} failed ({status})")).why(said.trim().to_owned()))
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus, Error> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => {
                    return Err(Error::new(Class::Internal, "cannot wait for git").why(error.to_string()));
                }
            }
            if let Err(cancelled) = self.remotes.cancel.check() {
                // the programs that git starts for a transport would stay; all may have ended meanwhile
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Err(cancelled.into());
            }
            std::thread::sleep(POLL);
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        for name in FORGOTTEN {
            command.env_remove(name);
        }
        command
            .current_dir(&self.directory)
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.fsmonitor=false",
                "-c",
                "advice.detachedHead=false",
            ])
            .args(["-c", "core.autocrlf=false", "-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"])
            .args(["-c", "safe.directory=*"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.protocols)
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        if let Some(agent) = self.remotes.agents.iter().find(|agent| agent.id == "default") {
            command.env("SSH_AUTH_SOCK", &agent.socket);
        }
        // not as an argument, which everybody on the machine can read
        if let Some((key, value)) = &self.authorization {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", key)
                .env("GIT_CONFIG_VALUE_0", value);
        } else {
            command.env_remove("GIT_CONFIG_COUNT");
        }
        command
    }
}

fn no_git(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::new(Class::NotFound, "git is not installed")
            .hint("git sources are fetched by the `git` program: install it, or give a directory");
    }
    Error::new(Class::of_io(error), "cannot start git").why(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_its_commit_and_what_is_taken_of_it() {
        let git = |text: &str| GitSource::parse(text).unwrap();
        let commit = "a".repeat(40);
        let plain = key(&git("https://h/x.git"), &commit);
        assert_eq!(plain, key(&git("https://other/y.git#main"), &commit));
        assert_ne!(plain, key(&git("https://h/x.git#:sub"), &commit));
        assert_ne!(plain, key(&git("https://h/x.git?keep-git-dir"), &commit));
    }
}
