//! Sources beyond the machine, as Dockerfiles and command lines write them (build.md A3-A5, O1, O2).

use mica_oci::Digest;
use serde::{Deserialize, Serialize};

/// The name of a file whose URL ends in none.
const UNNAMED: &str = "__unnamed__";

/// A file from a web server; its root file system is that one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// Where it is.
    pub url: String,
    /// Its name here.
    pub file_name: String,
    /// What it has to be.
    pub checksum: Option<Digest>,
}

/// A commit of a git repository, checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository, without what follows `#` and `?`.
    pub remote: String,
    /// Branch, tag, full ref or commit; `None` is the remote's HEAD.
    pub reference: Option<String>,
    /// What the commit has to begin with.
    pub checksum: Option<String>,
    /// The directory that is taken; `None` is the whole tree.
    pub subdir: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are fetched.
    pub submodules: bool,
    /// What the files' times are.
    pub mtime: GitTime,
    /// Whether the commit is asked for by its hash although a ref is given.
    pub fetch_by_commit: bool,
}

/// The times of checked out files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GitTime {
    /// That of the commit.
    Commit,
    /// The moment of the checkout, which is 1970 like that of everything a build makes (G11a).
    #[default]
    Checkout,
}

/// Something that is not a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A file.
    Http(HttpSource),
    /// A repository.
    Git(GitSource),
}

/// What is wrong with the address of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Not one of the known ones.
    #[error("unexpected query {0:?}")]
    Query(String),
    /// A word where a truth value belongs, for example.
    #[error("invalid value {value:?} of query {name:?}")]
    QueryValue {
        /// The query.
        name: String,
        /// Its value.
        value: String,
    },
    /// `ref`, `tag`, `branch` and `#ref` exclude each other.
    #[error("git reference is given twice: {0:?} and {1:?}")]
    TwoReferences(String, String),
    /// An option in disguise, or a character that no ref has.
    #[error("invalid git reference {0:?}")]
    Reference(String),
    /// Leads out of the repository.
    #[error("invalid git subdirectory {0:?}")]
    Subdir(String),
}

impl HttpSource {
    /// A file named as its URL ends.
    pub fn new(url: &str) -> Self {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        let name = path.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
        let name = name.rsplit('/').next().unwrap_or_default();
        let file_name = match name {
            "" | "." | ".." => UNNAMED.to_owned(),
            name => {
                percent_decoded(name).filter(|name| is_file_name(name)).unwrap_or_else(|| UNNAMED.to_owned())
            }
        };
        Self { url: url.to_owned(), file_name, checksum: None }
    }
}

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']) && name.len() <= 255
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = match (first, more) {
            (b'%', [high, low, more @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                more
            }
            (byte, more) => {
                bytes.push(*byte);
                more
            }
        };
    }
    String::from_utf8(bytes).ok()
}

impl Remote {
    /// Reads the source of an ADD or a named context; `None`: it is a path. `github.com/x/y` without a scheme is a
    /// path, as in the reference.
    ///
    /// # Errors
    /// It is the address of a repository, with something wrong behind it.
    pub fn parse(text: &str) -> Result<Option<Self>, RemoteError> {
        if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
            let path = rest.split(['#', '?']).next().unwrap_or_default();
            return if path.ends_with(".git") {
                GitSource::parse(text).map(|git| Some(Self::Git(git)))
            } else {
                Ok(Some(Self::Http(HttpSource::new(text))))
            };
        }
        if text.starts_with("ssh://") || text.starts_with("git://") || is_scp_style(text) {
            return GitSource::parse(text).map(|git| Some(Self::Git(git)));
        }
        Ok(None)
    }

    /// Reads a build context, where `github.com/x/y` means the repository, and `file://` one of this machine.
    ///
    /// # Errors
    /// As [`Remote::parse`].
    pub fn parse_context(text: &str) -> Result<Option<Self>, RemoteError> {
        if text.starts_with("github.com/") {
            return GitSource::parse(&format!("https://{text}")).map(|git| Some(Self::Git(git)));
        }
        if text.starts_with("file:///") {
            return GitSource::parse(text).map(|git| Some(Self::Git(git)));
        }
        Self::parse(text)
    }
}

impl GitSource {
    /// The head of a repository.
    pub fn new(remote: &str) -> Self {
        Self {
            remote: remote.to_owned(),
            reference: None,
            checksum: None,
            subdir: None,
            keep_git_dir: false,
            submodules: true,
            mtime: GitTime::default(),
            fetch_by_commit: false,
        }
    }

    /// Reads `REMOTE[?query][#ref[:subdir]]`.
    ///
    /// # Errors
    /// Unknown queries, contradictions, refs and subdirectories that are none.
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        // in git@host:path?x the question mark may be part of the path, but nobody has such paths
        let (remote, query) = address.split_once('?').unwrap_or((address, ""));
        let mut git = Self::new(remote);
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        if !reference.is_empty() {
            git.refer(reference.to_owned())?;
        }
        git.descend(subdir)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value)
                .ok_or_else(|| RemoteError::QueryValue { name: name.to_owned(), value: value.to_owned() })?;
            git.query(name, value)?;
        }
        Ok(git)
    }

    fn query(&mut self, name: &str, value: String) -> Result<(), RemoteError> {
        let wrong = |value: &str| RemoteError::QueryValue { name: name.to_owned(), value: value.to_owned() };
        // `?submodules` alone is yes
        let switch = |value: &str| match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(wrong(other)),
        };
        match name {
            "ref" => self.refer(value)?,
            "tag" => self.refer(format!("refs/tags/{value}"))?,
            "branch" => self.refer(format!("refs/heads/{value}"))?,
            "subdir" => self.descend(&value)?,
            "checksum" | "commit" if is_commit_prefix(&value) => self.checksum = Some(value),
            "checksum" | "commit" => return Err(wrong(&value)),
            "keep-git-dir" => self.keep_git_dir = switch(&value)?,
            "submodules" => self.submodules = switch(&value)?,
            "fetch-by-commit" => self.fetch_by_commit = switch(&value)?,
            "mtime" if value == "commit" => self.mtime = GitTime::Commit,
            "mtime" if value == "checkout" => self.mtime = GitTime::Checkout,
            "mtime" => return Err(wrong(&value)),
            other => return Err(RemoteError::Query(other.to_owned())),
        }
        Ok(())
    }

    fn refer(&mut self, reference: String) -> Result<(), RemoteError> {
        let word = reference
            .strip_prefix("refs/tags/")
            .or(reference.strip_prefix("refs/heads/"))
            .unwrap_or(&reference);
        let bad = |byte: u8| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte);
        if word.is_empty() || word.starts_with('-') || word.contains("..") || reference.bytes().any(bad) {
            return Err(RemoteError::Reference(reference));
        }
        match self.reference.replace(reference.clone()) {
            Some(earlier) if earlier != reference => Err(RemoteError::TwoReferences(earlier, reference)),
            _ => Ok(()),
        }
    }

    fn descend(&mut self, subdir: &str) -> Result<(), RemoteError> {
        let parts: Vec<&str> = subdir.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.iter().any(|part| *part == ".." || part.contains('\0') || part.eq_ignore_ascii_case(".git"))
        {
            return Err(RemoteError::Subdir(subdir.to_owned()));
        }
        if !parts.is_empty() {
            self.subdir = Some(parts.join("/"));
        }
        Ok(())
    }

    /// The commit, if the reference is one.
    pub fn commit(&self) -> Option<&str> {
        self.reference.as_deref().filter(|text| is_commit(text))
    }
}

/// Whether a text is a whole object name (SHA-1 or SHA-256).
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_commit_prefix(text)
}

fn is_commit_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `git@host:path`.
fn is_scp_style(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let word = |text: &str, extra: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    word(user, b"-_") && word(host, b"-.") && !host.starts_with('-') && !user.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_paths() {
        let kind = |text: &str| match Remote::parse(text).unwrap() {
            None => "path",
            Some(Remote::Http(_)) => "http",
            Some(Remote::Git(_)) => "git",
        };
        for (source, expected) in [
            ("http://h/x.tar", "http"),
            ("https://h/x.git", "git"),
            ("https://h/x.git#v1:dir", "git"),
            ("http://h/x.git?tag=v1", "git"),
            ("git@github.com:a/b", "git"),
            ("ssh://git@h/x", "git"),
            ("github.com/a/b", "path"),
            ("./a@b:c", "path"),
            ("-o@h:c", "path"),
            ("a/b.git", "path"),
        ] {
            assert_eq!(kind(source), expected, "{source}");
        }
        assert!(matches!(Remote::parse_context("github.com/a/b"), Ok(Some(Remote::Git(_)))));
    }

    #[test]
    fn a_file_is_named_as_its_url_ends() {
        for (url, name) in [
            ("http://h/a/b.tar?x=/y", "b.tar"),
            ("http://h/a/", "a"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("http://h/a%20b", "a b"),
            ("http://h/a/..", UNNAMED),
            ("http://h/%2e%2e", UNNAMED),
            ("http://h/a%2Fb", UNNAMED),
        ] {
            assert_eq!(HttpSource::new(url).file_name, name, "{url}");
        }
    }

    #[test]
    fn fragments_and_queries_say_the_same() {
        let fragment = GitSource::parse("https://h/x.git#v1:a/b/").unwrap();
        assert_eq!(fragment.remote, "https://h/x.git");
        assert_eq!(fragment.reference.as_deref(), Some("v1"));
        assert_eq!(fragment.subdir.as_deref(), Some("a/b"));
        let query = GitSource::parse("https://h/x.git?ref=v1&subdir=a/b").unwrap();
        assert_eq!(query, fragment);
        let many = GitSource::parse("https://h/x.git?tag=v1&keep-git-dir&submodules=0&mtime=commit").unwrap();
        assert_eq!(many.reference.as_deref(), Some("refs/tags/v1"));
        assert!(many.keep_git_dir && !many.submodules && many.mtime == GitTime::Commit);
    }

    #[test]
    fn options_in_disguise_and_ways_out_are_refused() {
        for text in [
            "https://h/x.git#--upload-pack=x",
            "https://h/x.git?branch=-x",
            "https://h/x.git#a..b",
            "https://h/x.git#a%20b c",
            "https://h/x.git#v1:../etc",
            "https://h/x.git#v1:a/.GIT/hooks",
            "https://h/x.git?foo=1",
            "https://h/x.git?ref=a&branch=b",
            "https://h/x.git?checksum=xyz",
        ] {
            assert!(GitSource::parse(text).is_err(), "{text}");
        }
    }
}
