//! COPY and ADD (sections 3.3 and 3.4).

use mica_dockerfile::{AddCopy, Command, Heredoc};
use mica_solve::{
    CopyAction, FileAction, FileOp, Input, MakeFile, ModeChange, Op, Owner, Remote, SourceOp, VertexId,
};

use super::files;
use crate::history::Layer;
use crate::stage::{Inputs, StageConverter};
use crate::{Problem, lint, paths, plan, text};

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
    sources: Vec<Source>,
    destination: String,
    chown: String,
    chmod: String,
    mode: Option<ModeChange>,
    /// Whether it becomes a layer of its own: `--chmod` turns that off (C16).
    link: bool,
}

/// One source.
struct Source {
    /// As in the history.
    text: String,
    /// What it is, unless it is a path.
    remote: Option<Remote>,
}

impl StageConverter<'_, '_> {
    pub(crate) fn copy_instruction(&mut self, command: &Command, copy: &AddCopy) -> Result<(), Problem> {
        let expanded = self.expand_copy(Kind::Copy, copy)?;
        let from = match &copy.from {
            Some(from) => self.copy_from(from)?,
            // Only heredocs: the context is not needed at all.
            None if copy.sources.is_empty() => None,
            None => Some(self.context_for(command, &expanded)),
        };
        self.file_instruction(command, copy, &expanded, from)
    }

    pub(crate) fn add_instruction(&mut self, command: &Command, add: &AddCopy) -> Result<(), Problem> {
        let expanded = self.expand_copy(Kind::Add, add)?;
        let uses_context = expanded.sources.iter().any(|source| source.remote.is_none());
        let from = uses_context.then(|| self.context_for(command, &expanded));
        self.file_instruction(command, add, &expanded, from)
    }

    /// The main context, for sources that had better be in it.
    fn context_for(&mut self, command: &Command, expanded: &Expanded) -> VertexId {
        if let Some(ignored) = self.shared.request.ignored.filter(|_| !self.in_trigger) {
            let origin = &command.origin;
            for source in expanded.sources.iter().filter(|source| source.remote.is_none()) {
                lint::copied(self.shared.findings, origin.location, &origin.keyword, &source.text, ignored);
            }
        }
        self.shared.main_context()
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
        let texts = copy.sources.iter().map(|source| self.word(source)).collect::<Result<Vec<_>, _>>()?;
        let destination = self.word(&copy.destination)?;
        let (chown, chmod) = (optional(&copy.chown)?, optional(&copy.chmod)?);
        let checksum = optional(&copy.checksum)?;
        let mode = if chmod.is_empty() { None } else { Some(text::mode_change(&chmod)?) };
        let mut sources = Vec::with_capacity(texts.len());
        for text in texts {
            let remote = remote(kind, &text, copy)?;
            sources.push(Source { text, remote });
        }
        if !checksum.is_empty() {
            match sources.as_mut_slice() {
                [one] => check_against(&mut one.remote, checksum)?,
                _ => return Err(Problem::ChecksumOfMany),
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
            actions.push(match &source.remote {
                None => self.copy_action(copy, expanded, from, &source.text, &destination),
                Some(remote) => {
                    let name = format!("{prefix}{title}");
                    let files = self.shared.source(&operation(remote), name, Some(at));
                    let from = inputs.add(Some(files));
                    self.copy_remote(copy, expanded, from, remote, &destination)
                }
            });
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

    /// A file under its own name; of a repository what is in it, not the directory itself (A3, A5).
    fn copy_remote(
        &self,
        copy: &AddCopy,
        expanded: &Expanded,
        from: Input,
        remote: &Remote,
        destination: &str,
    ) -> FileAction {
        let source = match remote {
            Remote::Http(http) => http.file_name.as_str(),
            Remote::Git(_) => "/",
        };
        let mut action = self.copy_action(copy, expanded, from, source, destination);
        if let FileAction::Copy(action) = &mut action {
            // URLs are unpacked only if asked for (A2)
            action.unpack = copy.unpack.unwrap_or(false);
            // a file name is no pattern
            action.source = action.source.replace(['*', '?', '[', '\\'], "?");
        }
        action
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
        let data = if heredoc.expand {
            self.unset.note(text::body(&content, &self.state.variables)?, &self.state.variables)
        } else {
            content.into_owned()
        };
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
        text.push_str(&source.text);
    }
    for heredoc in &copy.heredocs {
        text.push_str(" <<");
        text.push_str(&heredoc.name);
    }
    format!("{text} {} # buildkit", expanded.destination)
}

/// What a source is that is no path.
fn remote(kind: Kind, text: &str, copy: &AddCopy) -> Result<Option<Remote>, Problem> {
    let mut remote = Remote::parse(text)?;
    match (kind, &mut remote) {
        (Kind::Copy, Some(Remote::Git(_))) => return Err(Problem::RemoteCopy("git ref")),
        (Kind::Copy, Some(Remote::Http(_))) => return Err(Problem::RemoteCopy("URL")),
        (Kind::Add, Some(Remote::Git(git))) => {
            git.keep_git_dir = copy.keep_git_dir.unwrap_or(git.keep_git_dir)
        }
        (Kind::Add, Some(Remote::Http(_))) | (_, None) => {}
    }
    Ok(remote)
}

/// A4: a digest of a file, the beginning of a commit.
fn check_against(remote: &mut Option<Remote>, checksum: String) -> Result<(), Problem> {
    match remote {
        None => return Err(Problem::ChecksumOfLocal),
        Some(Remote::Http(http)) => {
            http.checksum = Some(checksum.parse().map_err(|_| Problem::Checksum(checksum))?);
        }
        Some(Remote::Git(git)) => git.checksum = Some(checksum),
    }
    Ok(())
}

fn operation(remote: &Remote) -> SourceOp {
    match remote {
        Remote::Http(http) => SourceOp::Http(http.clone()),
        Remote::Git(git) => SourceOp::Git(git.clone()),
    }
}
