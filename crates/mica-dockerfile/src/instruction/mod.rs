//! From a statement to a checked instruction (build.md 1.5 and section 3, as far as no variable matters).

mod copy;
mod from;
mod healthcheck;
mod run;

pub(crate) use from::from;

use crate::ast::{ArgItem, Command, Instruction, KeyValue, Onbuild, Origin, ShellOrExec};
use crate::error::{ParseError, ParseErrorKind};
use crate::flags::Flags;
use crate::heredoc::rebuilt;
use crate::statement::Statement;
use crate::suggest::DidYouMean;
use crate::words::{json_or_words, json_strings, split_blanks, split_keyword, split_quoted};

/// Every keyword, for suggestions: of two that are equally near the first wins, so common ones come first.
const KEYWORDS: [&str; 18] = [
    "RUN",
    "COPY",
    "FROM",
    "ENV",
    "ARG",
    "CMD",
    "ENTRYPOINT",
    "WORKDIR",
    "LABEL",
    "USER",
    "EXPOSE",
    "ADD",
    "VOLUME",
    "HEALTHCHECK",
    "SHELL",
    "ONBUILD",
    "STOPSIGNAL",
    "MAINTAINER",
];

/// Builds an instruction other than FROM.
pub(crate) fn command(statement: Statement) -> Result<Command, ParseError> {
    let instruction = instruction(&statement).map_err(|kind| kind.at(statement.location))?;
    let mut origin = origin(statement);
    if let Instruction::Run(run) = &instruction {
        origin.original.push_str(&run.title_suffix());
    }
    Ok(Command { instruction, origin })
}

/// Keeps what does not depend on the kind of instruction.
pub(crate) fn origin(statement: Statement) -> Origin {
    Origin {
        location: statement.location,
        original: statement.line.trim().to_owned(),
        keyword: statement.keyword,
        comments: statement.comments,
    }
}

fn instruction(statement: &Statement) -> Result<Instruction, ParseErrorKind> {
    let rest = statement.rest.as_str();
    Ok(match statement.keyword.to_ascii_lowercase().as_str() {
        "add" => Instruction::Add(copy::add(statement)?),
        "arg" => Instruction::Arg(arg(statement)?),
        "cmd" => Instruction::Cmd(shell_or_exec(plain(statement)?)?),
        "copy" => Instruction::Copy(copy::copy(statement)?),
        "entrypoint" => Instruction::Entrypoint(shell_or_exec(plain(statement)?)?),
        "env" => Instruction::Env(key_values("ENV", statement)?),
        "expose" => Instruction::Expose(expose(plain(statement)?)?),
        "from" => return Err(ParseErrorKind::FromNotAllowed),
        "healthcheck" => Instruction::Healthcheck(healthcheck::healthcheck(statement)?),
        "label" => Instruction::Label(key_values("LABEL", statement)?),
        "maintainer" => Instruction::Maintainer(one("MAINTAINER", plain(statement)?)?),
        "onbuild" => Instruction::Onbuild(onbuild(statement)?),
        "run" => Instruction::Run(run::run(statement)?),
        "shell" => Instruction::Shell(shell(plain(statement)?)?),
        // The reference looks at no flags here: they vanish.
        "stopsignal" => Instruction::StopSignal(one("STOPSIGNAL", rest)?),
        "user" => Instruction::User(one("USER", plain(statement)?)?),
        "volume" => Instruction::Volume(volume(plain(statement)?)?),
        "workdir" => Instruction::Workdir(one("WORKDIR", plain(statement)?)?),
        _ => return Err(unknown(&statement.keyword)),
    })
}

fn unknown(keyword: &str) -> ParseErrorKind {
    ParseErrorKind::UnknownInstruction {
        name: keyword.to_owned(),
        suggestion: DidYouMean::among_ignoring_case(keyword, KEYWORDS),
    }
}

/// Returns the arguments of an instruction that knows no flags.
///
/// A leading `--x` is still a flag there, and refused as unknown, as the reference does.
fn plain(statement: &Statement) -> Result<&str, ParseErrorKind> {
    Flags::parse(&statement.flags, &[])?;
    Ok(&statement.rest)
}

fn shell_or_exec(rest: &str) -> Result<ShellOrExec, ParseErrorKind> {
    Ok(match json_strings(rest)? {
        Some(argv) => ShellOrExec::Exec(argv),
        None => ShellOrExec::Shell(rest.to_owned()),
    })
}

/// The whole rest as one string, which must not be empty.
fn one(command: &'static str, rest: &str) -> Result<String, ParseErrorKind> {
    if rest.is_empty() {
        return Err(ParseErrorKind::ExactlyOneArgument(command));
    }
    Ok(rest.to_owned())
}

fn at_least_one<T>(command: &'static str, items: Vec<T>) -> Result<Vec<T>, ParseErrorKind> {
    if items.is_empty() { Err(ParseErrorKind::AtLeastOneArgument(command)) } else { Ok(items) }
}

/// `name=value …`, or the legacy `name value` (P23).
fn key_values(command: &'static str, statement: &Statement) -> Result<Vec<KeyValue>, ParseErrorKind> {
    let rest = plain(statement)?;
    let words = at_least_one(command, split_quoted(rest, statement.escape))?;
    if !words[0].contains('=') {
        let (key, value) = split_keyword(rest);
        if value.is_empty() {
            return Err(ParseErrorKind::TwoArguments(command));
        }
        return Ok(vec![KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: true }]);
    }
    words.into_iter().map(|word| key_value(command, word)).collect()
}

fn key_value(command: &'static str, word: String) -> Result<KeyValue, ParseErrorKind> {
    match word.split_once('=') {
        None => Err(ParseErrorKind::MissingEquals(word)),
        Some(("", _)) => Err(ParseErrorKind::BlankName(command)),
        Some((key, value)) => Ok(KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: false }),
    }
}

/// Builds ARG. Flags are ignored, as the reference does.
pub(crate) fn arg(statement: &Statement) -> Result<Vec<ArgItem>, ParseErrorKind> {
    let words = at_least_one("ARG", split_quoted(&statement.rest, statement.escape))?;
    let item = |word: String| match word.split_once('=') {
        None => Ok(ArgItem { name: word, default: None }),
        Some(("", _)) => Err(ParseErrorKind::BlankName("ARG")),
        Some((name, value)) => Ok(ArgItem { name: name.to_owned(), default: Some(value.to_owned()) }),
    };
    words.into_iter().map(item).collect()
}

fn shell(rest: &str) -> Result<Vec<String>, ParseErrorKind> {
    match json_strings(rest)? {
        Some(argv) => at_least_one("SHELL", argv),
        None if rest.is_empty() => Err(ParseErrorKind::AtLeastOneArgument("SHELL")),
        None => Err(ParseErrorKind::JsonRequired("SHELL")),
    }
}

fn expose(rest: &str) -> Result<Vec<String>, ParseErrorKind> {
    let mut words = at_least_one("EXPOSE", split_blanks(rest))?;
    words.sort();
    Ok(words)
}

fn volume(rest: &str) -> Result<Vec<String>, ParseErrorKind> {
    let volumes = at_least_one("VOLUME", json_or_words(rest)?)?;
    let volumes: Vec<String> = volumes.iter().map(|volume| volume.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return Err(ParseErrorKind::BlankVolume);
    }
    Ok(volumes)
}

fn onbuild(statement: &Statement) -> Result<Onbuild, ParseErrorKind> {
    let rest = plain(statement)?;
    let (keyword, _) = split_keyword(rest);
    match keyword.to_ascii_uppercase().as_str() {
        "" => return Err(ParseErrorKind::AtLeastOneArgument("ONBUILD")),
        "ONBUILD" => return Err(ParseErrorKind::ChainedOnbuild),
        "MAINTAINER" => return Err(ParseErrorKind::ForbiddenTrigger("MAINTAINER")),
        "FROM" => return Err(ParseErrorKind::ForbiddenTrigger("FROM")),
        _ => {}
    }
    let trigger = Statement::split(rest.to_owned(), statement.escape, statement.location);
    if let Err(kind) = instruction(&trigger)
        && kind.concerns_grammar()
    {
        return Err(kind);
    }
    // The stored text keeps the blanks at the end of the line.
    let line = statement.line.trim_start();
    let text = line.get("onbuild".len()..).unwrap_or_default().trim_start();
    Ok(Onbuild { text: rebuilt(text, &statement.heredocs) })
}
