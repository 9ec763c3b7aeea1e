//! COPY and ADD (sections 3.3 and 3.4).

use mica_dockerfile::{AddCopy, Command, Heredoc};
use mica_solve::{CopyAction, FileAction, FileOp, Input, MakeFile, ModeChange, Op, Owner, VertexId};

use super::files;
use crate::history::Layer;
use crate::stage::{Inputs, StageConverter};
use crate::{Problem, paths, plan, text};

/// Mode of heredoc files (P32).
const HEREDOC_MODE: u32 = 0o644;

/// Which of the two instructions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Copy,
    Add,
}

/// The flags and words of one instruction, expanded.
struct Expanded {
    kind: Kind,
    sources: Vec<String>,
    destination: String,
    chown: String,
    chmod: String,
    mode: Option<ModeChange>,
    /// Whether it becomes a layer of its own: `--chmod` turns that off (C16).
    link: bool,
}

/// What a source is that is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remote {
    Http,
    Git,
}

impl StageConverter<'_, '_> {
    pub(crate) fn copy_instruction(&mut self, command: &Command, copy: &AddCopy) -> Result<(), Problem> {
        let expanded = self.expand_copy(Kind::Copy, copy)?;
        let from = match &copy.from {
            Some(from) => self.copy_from(from)?,
            // Only heredocs: the context is not needed at all.
            None if copy.sources.is_empty() => None,
            None => Some(self.shared.main_context()),
        };
        self.file_instruction(command, copy, &expanded, from)
    }

    pub(crate) fn add_instruction(&mut self, command: &Command, add: &AddCopy) -> Result<(), Problem> {
        let expanded = self.expand_copy(Kind::Add, add)?;
        let from = (!add.sources.is_empty()).then(|| self.shared.main_context());
        self.file_instruction(command, add, &expanded, from)
    }

    /// C15.
    fn copy_from(&mut self, from: &str) -> Result<Option<VertexId>, Problem> {
        let Some(stage) = plan::copy_source(self.shared.dockerfile, from, self.index)? else {
            return self.shared.external(from);
        };
        self.shared.finished(stage).ok_or_else(|| Problem::CopyFromLater {
            from: from.to_owned(),
            current: plan::display_name(&self.shared.dockerfile.stages[self.index], self.index),
        })
    }

    fn expand_copy(&self, kind: Kind, copy: &AddCopy) -> Result<Expanded, Problem> {
        let optional =
            |text: &Option<String>| text.as_deref().map_or(Ok(String::new()), |text| self.word(text));
        let sources = copy.sources.iter().map(|source| self.word(source)).collect::<Result<Vec<_>, _>>()?;
        let destination = self.word(&copy.destination)?;
        let (chown, chmod) = (optional(&copy.chown)?, optional(&copy.chmod)?);
        let checksum = optional(&copy.checksum)?;
        let mode = if chmod.is_empty() { None } else { Some(text::mode_change(&chmod)?) };
        if !checksum.is_empty() {
            match sources.as_slice() {
                [one] if remote(one).is_none() => return Err(Problem::ChecksumOfLocal),
                [_] => {}
                _ => return Err(Problem::ChecksumOfMany),
            }
        }
        for source in &sources {
            match (kind, remote(source)) {
                (_, None) => {}
                (Kind::Copy, Some(Remote::Git)) => return Err(Problem::RemoteCopy("git ref")),
                (Kind::Copy, Some(Remote::Http)) => return Err(Problem::RemoteCopy("URL")),
                (Kind::Add, Some(_)) => return Err(Problem::RemoteAdd(source.clone())),
            }
        }
        let link = copy.link && mode.is_none();
        Ok(Expanded { kind, sources, destination, chown, chmod, mode, link })
    }

    /// One vertex for all sources, ordinary ones first (P33); `--link` stacks it on the base instead of changing that.
    fn file_instruction(
        &mut self,
        command: &Command,
        copy: &AddCopy,
        expanded: &Expanded,
        from: Option<VertexId>,
    ) -> Result<(), Problem> {
        let at = command.origin.location;
        let (prefix, title) = self.next_title(&self.expanded_title(command));
        let mut inputs = Inputs::default();
        let base = if expanded.link { Input::Scratch } else { inputs.add(self.state.root) };
        let from = inputs.add(from);
        let destination = paths::destination(self.state.workdir(), &expanded.destination);
        let owner = files::owner(&expanded.chown);
        let mut actions = Vec::with_capacity(copy.sources.len() + copy.heredocs.len());
        for source in &expanded.sources {
            actions.push(self.copy_action(copy, expanded, from, source, &destination));
        }
        for heredoc in &copy.heredocs {
            actions.push(self.heredoc_action(heredoc, expanded, &destination, owner.clone())?);
        }
        let op = Op::File(FileOp { base, actions });
        let ignore_cache = self.ignore_cache;
        let files = self.add(op, inputs, format!("{prefix}{title}"), at, ignore_cache);
        self.state.root = Some(if expanded.link {
            let mut inputs = Inputs::default();
            inputs.add(self.state.root);
            // Not `Inputs::add`: a layer may equal the base, and still counts twice.
            inputs.0.push(files);
            self.add(Op::Merge, inputs, format!("{prefix}LINK {title}"), at, ignore_cache)
        } else {
            files
        });
        self.commit(created_by(copy, expanded), Layer::New);
        Ok(())
    }

    fn copy_action(
        &self,
        copy: &AddCopy,
        expanded: &Expanded,
        from: Input,
        source: &str,
        destination: &str,
    ) -> FileAction {
        let source = if copy.parents { paths::source_with_pivot(source) } else { paths::source(source) };
        FileAction::Copy(CopyAction {
            from,
            source,
            destination: destination.to_owned(),
            owner: files::owner(&expanded.chown),
            mode: expanded.mode.clone(),
            unpack: copy.unpack.unwrap_or(expanded.kind == Kind::Add),
            parents: copy.parents,
            exclude: copy.exclude.clone(),
            link: expanded.link,
            created_seconds: self.shared.seconds,
        })
    }

    /// P32.
    fn heredoc_action(
        &self,
        heredoc: &Heredoc,
        expanded: &Expanded,
        destination: &str,
        owner: Option<Owner>,
    ) -> Result<FileAction, Problem> {
        let content = heredoc.content();
        let data =
            if heredoc.expand { text::body(&content, &self.state.variables)? } else { content.into_owned() };
        let (path, name_in_directory) = match destination.strip_suffix('/') {
            Some(directory) => (format!("{directory}/{}", heredoc.name), None),
            None => (destination.to_owned(), Some(heredoc.name.clone())),
        };
        Ok(FileAction::MakeFile(MakeFile {
            path,
            name_in_directory,
            data: data.into_bytes(),
            mode: HEREDOC_MODE,
            mode_change: expanded.mode.clone(),
            owner,
            created_seconds: self.shared.seconds,
        }))
    }
}

/// The history of COPY and ADD: three flags, then the words after expansion (5.2).
fn created_by(copy: &AddCopy, expanded: &Expanded) -> String {
    let mut text = String::from(match expanded.kind {
        Kind::Copy => "COPY",
        Kind::Add => "ADD",
    });
    if copy.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("--chown", &expanded.chown), ("--chmod", &expanded.chmod)] {
        if !value.is_empty() {
            text.push_str(&format!(" {flag}={value}"));
        }
    }
    for source in &expanded.sources {
        text.push(' ');
        text.push_str(source);
    }
    for heredoc in &copy.heredocs {
        text.push_str(" <<");
        text.push_str(&heredoc.name);
    }
    format!("{text} {} # buildkit", expanded.destination)
}

/// Whether a source is a URL or a git repository. `github.com/x/y` without a scheme is a path, as in the reference.
fn remote(source: &str) -> Option<Remote> {
    if let Some(rest) = source.strip_prefix("http://").or_else(|| source.strip_prefix("https://")) {
        let path = rest.split(['#', '?']).next().unwrap_or_default();
        return Some(if path.ends_with(".git") { Remote::Git } else { Remote::Http });
    }
    if source.starts_with("ssh://") || source.starts_with("git://") || is_scp_style(source) {
        return Some(Remote::Git);
    }
    None
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
    word(user, b"-_") && word(host, b"-.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_paths() {
        for (source, expected) in [
            ("http://h/x.tar", Some(Remote::Http)),
            ("https://h/x.git", Some(Remote::Git)),
            ("https://h/x.git#v1:dir", Some(Remote::Git)),
            ("http://h/x.git?tag=v1", Some(Remote::Git)),
            ("git@github.com:a/b", Some(Remote::Git)),
            ("ssh://git@h/x", Some(Remote::Git)),
            ("github.com/a/b", None),
            ("./a@b:c", None),
            ("a/b.git", None),
        ] {
            assert_eq!(remote(source), expected, "{source}");
        }
    }
}
