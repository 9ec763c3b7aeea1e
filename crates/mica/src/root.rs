//! What comes before the verb, and which verb it is.

use std::ffi::OsString;
use std::path::PathBuf;

use mica_api::Class;

use crate::cli::complete;
use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, UsageError};
use crate::help;
use crate::verbs::{self, Found};

/// Flags before the verb.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Globals {
    /// `--root`: the store.
    pub root: Option<PathBuf>,
    /// `--config`: directory of `config.json`.
    pub config: Option<PathBuf>,
    /// `-D`.
    pub debug: bool,
    /// `-H`.
    pub host: Option<String>,
    /// `-c`.
    pub context: Option<String>,
    /// `-l`; accepted, mica has no log of its own.
    pub log_level: Option<String>,
}

/// What the flags before the verb ask for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Verb,
    Help,
    Version,
}

/// Does what the command line says; returns the exit code.
pub(crate) fn run(cx: &mut Cx, args: &[OsString]) -> u8 {
    let outcome = dispatch(cx, args);
    match outcome {
        Ok(status) => status.0,
        Err(failure) => {
            // Standard error may be gone as well; the exit code still tells.
            let _unheard = cx.err.text(&failure.text());
            match (failure.is_cancelled(), cx.signal()) {
                (true, Some(signal)) => 128 + signal,
                _ => failure.status().0,
            }
        }
    }
}

fn dispatch(cx: &mut Cx, args: &[OsString]) -> Outcome {
    if let Some((_, words)) = args.split_first().filter(|(first, _)| *first == complete::HIDDEN_COMMAND) {
        let candidates = complete::candidates(cx, words);
        return cx.out.text(&candidates).map(|()| Status::default());
    }
    let (globals, wish, rest) = parse(&cx.program, args)?;
    cx.globals = globals;
    match wish {
        Wish::Version => {
            cx.out.line(&format!("{} version {}, build mica", cx.program, env!("CARGO_PKG_VERSION")))?;
            return Ok(Status::default());
        }
        Wish::Help => {
            cx.out.text(&help::everything(&cx.program))?;
            return Ok(Status::default());
        }
        Wish::Verb => {}
    }
    let words: Vec<&str> = rest.iter().map_while(|arg| arg.to_str()).collect();
    match verbs::find(&words) {
        Found::Nothing => cx.out.text(&help::first_steps(&cx.program)).map(|()| Status::default()),
        Found::Help(words) => show_help(cx, &words),
        Found::Group { path, group } => {
            cx.out.text(&help::of_group(&cx.program, &path, group)).map(|()| Status::default())
        }
        Found::Verb { path, entry } => {
            let depth = path.split(' ').count();
            entry.call(&format!("{} {path}", cx.program), &rest[depth..], cx)
        }
        Found::Later(path) => Err(mica_api::Error::new(
            Class::Unsupported,
            format!("`{} {path}` is not supported yet", cx.program),
        )
        .hint(format!("`{} help --all` lists what is", cx.program))
        .into()),
        Found::Unknown { group, word, suggestion } => Err(unknown(&cx.program, &group, word, suggestion)),
    }
}

fn unknown(program: &str, group: &str, word: &str, suggestion: Option<String>) -> Failure {
    let path = format!("{program} {group}").trim_end().to_owned();
    Failure::Arguments(UsageError {
        message: format!("unknown command: {path} {word}"),
        hint: suggestion.map(|name| format!("did you mean `{path} {name}`?")),
        usage: None,
        path,
    })
}

fn show_help(cx: &Cx, words: &[&str]) -> Outcome {
    let text = match words {
        [] | ["--all" | "-a", ..] => help::everything(&cx.program),
        words => match verbs::find(words) {
            Found::Verb { path, entry } => help::of_verb(entry, &format!("{} {path}", cx.program)),
            Found::Group { path, group } => help::of_group(&cx.program, &path, group),
            _ => return Err(unknown(&cx.program, "", words[0], verbs::suggest(verbs::ROOT, words[0]))),
        },
    };
    cx.out.text(&text).map(|()| Status::default())
}

/// The flags before the verb, and what follows.
///
/// # Errors
/// A flag that makes no sense.
pub(crate) fn globals<'a>(program: &str, args: &'a [OsString]) -> Result<(Globals, &'a [OsString]), Failure> {
    parse(program, args).map(|(globals, _, rest)| (globals, rest))
}

/// Reads the flags before the verb; returns them and what follows.
fn parse<'a>(program: &str, args: &'a [OsString]) -> Result<(Globals, Wish, &'a [OsString]), Failure> {
    let mut globals = Globals::default();
    let mut rest = args;
    while let Some((first, after)) = rest.split_first() {
        let Some(text) = first.to_str().filter(|text| text.starts_with('-') && text.len() > 1) else { break };
        let (name, attached) = split(text);
        match name {
            "--help" | "-h" => return Ok((globals, Wish::Help, after)),
            "--version" | "-v" => return Ok((globals, Wish::Version, after)),
            "-D" | "--debug" => {
                globals.debug = attached != Some("false");
                rest = after;
            }
            "--tls" | "--tlsverify" => rest = after,
            _ => {
                let (value, remaining) = match attached {
                    Some(value) => (OsString::from(value), after),
                    None => match after.split_first() {
                        Some((value, remaining)) => (value.clone(), remaining),
                        None => (OsString::new(), after),
                    },
                };
                store(&mut globals, program, name, value)?;
                rest = remaining;
            }
        }
    }
    Ok((globals, Wish::Verb, rest))
}

/// `--name=value` and `-Nvalue` in two.
fn split(text: &str) -> (&str, Option<&str>) {
    if text.starts_with("--") {
        return text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    }
    match text.char_indices().nth(2) {
        Some((at, _)) => (&text[..at], Some(text[at..].trim_start_matches('='))),
        None => (text, None),
    }
}

fn store(globals: &mut Globals, program: &str, name: &str, value: OsString) -> Result<(), Failure> {
    let usage = |message: String| {
        let usage = Some(format!("{program} [OPTIONS] COMMAND [ARG...]"));
        Failure::Flag(UsageError { message, hint: None, usage, path: program.to_owned() })
    };
    let known = matches!(
        name,
        "--root"
            | "--config"
            | "-c"
            | "--context"
            | "-H"
            | "--host"
            | "-l"
            | "--log-level"
            | "--tlscacert"
            | "--tlscert"
            | "--tlskey"
    );
    if !known {
        return Err(usage(match name.strip_prefix("--") {
            Some(_) => format!("unknown flag: {name}"),
            None => format!("unknown shorthand flag: '{}' in {name}", name.chars().nth(1).unwrap_or('-')),
        }));
    }
    if value.is_empty() {
        return Err(usage(format!("flag needs an argument: {name}")));
    }
    let text = || value.to_string_lossy().into_owned();
    match name {
        "--root" => globals.root = Some(value.into()),
        "--config" => globals.config = Some(value.into()),
        "-c" | "--context" => globals.context = Some(text()),
        "-H" | "--host" => globals.host = Some(text()),
        "-l" | "--log-level" => globals.log_level = Some(text()),
        // TLS only matters to remote engines, which are refused where the engine is opened.
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_before_the_verb_are_taken_off() {
        let args = os(&["--root", "/r", "-D", "-Hunix:///x", "--config=/c", "images", "-a"]);
        let (globals, wish, rest) = parse("mica", &args).unwrap();
        assert_eq!(globals.root, Some(PathBuf::from("/r")));
        assert_eq!(globals.config, Some(PathBuf::from("/c")));
        assert_eq!((globals.debug, globals.host.as_deref()), (true, Some("unix:///x")));
        assert_eq!((wish, rest), (Wish::Verb, &os(&["images", "-a"])[..]));
    }

    #[test]
    fn an_unknown_flag_before_the_verb_exits_125() {
        let failure = parse("docker", &os(&["--foo", "images"])).unwrap_err();
        assert_eq!(failure.status(), Status(125));
        assert!(failure.text().starts_with("error: unknown flag: --foo\n"), "{}", failure.text());
    }
}
