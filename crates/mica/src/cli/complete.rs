//! The hidden `mica __complete WORD...`: what the last word may become. Shell scripts call it at each press of Tab.
//!
//! One candidate per line, with a description after a tab; `:files` and `:directories` ask the shell for its own. No
//! container and no build is touched: the store is only read, and only when a name of it is wanted.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};
use mica_api::{ListContainers, ListImages};

use crate::context::Cx;
use crate::flags::Entry;
use crate::help;
use crate::root;
use crate::verbs::{Item, Node, ROOT};

/// The name of the subcommand.
pub(crate) const HIDDEN_COMMAND: &str = "__complete";

/// The shell is to complete names of files.
const FILES: &str = ":files";
/// The shell is to complete names of directories.
const DIRECTORIES: &str = ":directories";

/// The candidates for the last of some words, as text.
pub(crate) fn candidates(cx: &mut Cx, args: &[OsString]) -> String {
    let Some((current, before)) = args.split_last() else { return String::new() };
    let current = current.to_string_lossy().into_owned();
    // A flag in front that makes no sense has no candidates after it.
    let Ok((globals, before)) = root::globals(&cx.program, before) else { return String::new() };
    cx.globals = globals;
    let before: Vec<String> = before.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut lines = Vec::new();
    match place(&before) {
        Some(Place::Items(_)) if current.starts_with('-') && before.is_empty() => {
            lines.extend(help::global_flags().map(|flag| (flag, String::new())));
        }
        Some(Place::Items(items)) => {
            lines.extend(items.iter().map(|item| (item.name.to_owned(), help::about(item))));
        }
        Some(Place::Verb(entry, words)) => lines = of_verb(entry, words, &current, cx),
        None => {}
    }
    lines.retain(|(value, _)| value.starts_with(&current) || value.starts_with(':'));
    lines.into_iter().map(|(value, about)| format!("{value}\t{}\n", first_sentence(&about))).collect()
}

fn first_sentence(about: &str) -> &str {
    about.lines().next().unwrap_or_default().trim_end_matches('.')
}

/// Where some words lead.
enum Place<'a> {
    Items(&'static [Item]),
    Verb(&'static Entry, &'a [String]),
}

fn place(words: &[String]) -> Option<Place<'_>> {
    let mut items = ROOT;
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let item = items.iter().find(|item| item.name == word || item.aliases.contains(&word.as_str()))?;
        match &item.node {
            Node::Verb(entry) => return Some(Place::Verb(entry, after)),
            Node::Group { items: inner, .. } => items = inner,
        }
        rest = after;
    }
    Some(Place::Items(items))
}

fn of_verb(entry: &Entry, words: &[String], current: &str, cx: &Cx) -> Vec<(String, String)> {
    let command = (entry.command)();
    let mut positionals = 0;
    let mut value_of = None;
    let mut only_positionals = false;
    for word in words {
        if value_of.take().is_some() {
            continue;
        }
        if only_positionals || !is_flag(word) {
            positionals += 1;
            only_positionals |= command.get_positionals().any(Arg::is_trailing_var_arg_set);
        } else if word == "--" {
            only_positionals = true;
        } else {
            value_of = flag(&command, word).filter(|arg| takes_next(arg) && !has_value(word));
        }
    }
    if let Some(arg) = value_of {
        return values(arg, cx);
    }
    if is_flag(current) && !only_positionals {
        return match (current.split_once('='), flag(&command, current)) {
            (Some((name, _)), Some(arg)) => {
                let values = values(arg, cx).into_iter();
                values
                    .filter(|(value, _)| !value.starts_with(':'))
                    .map(|(value, about)| (format!("{name}={value}"), about))
                    .collect()
            }
            _ => flags(&command),
        };
    }
    let last = command.get_positionals().count().saturating_sub(1);
    match command.get_positionals().nth(positionals.min(last)) {
        // What follows the image is the program's.
        Some(arg) if arg.is_trailing_var_arg_set() && positionals > 0 => vec![shell(FILES)],
        Some(arg) => values(arg, cx),
        None => Vec::new(),
    }
}

fn is_flag(word: &str) -> bool {
    word.starts_with('-') && word.len() > 1
}

/// `--name=value`, or `-nvalue`.
fn has_value(word: &str) -> bool {
    if word.starts_with("--") { word.contains('=') } else { word.chars().count() > 2 }
}

fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    match name.strip_prefix("--") {
        Some(long) => command.get_arguments().find(|arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|names| names.contains(&long))
        }),
        None => {
            // Of `-itv` the last one may take what follows.
            let short = name.chars().last()?;
            command.get_arguments().find(|arg| arg.get_short() == Some(short))
        }
    }
}

/// Whether the value of a flag may be the next word.
fn takes_next(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let about = |arg: &Arg| arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut flags: Vec<(String, String)> =
        shown.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg)))).collect();
    flags.push(("--help".to_owned(), "Show the manual of the command".to_owned()));
    flags.sort();
    flags
}

/// What may stand for an argument, by the name of its value.
fn values(arg: &Arg, cx: &Cx) -> Vec<(String, String)> {
    let possible = arg.get_possible_values();
    if !possible.is_empty() && arg.get_action().takes_values() {
        let about = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string);
        return possible
            .iter()
            .map(|value| (value.get_name().to_owned(), about(value).unwrap_or_default()))
            .collect();
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match name {
        "IMAGE" | "SOURCE_IMAGE[:TAG]" | "REPOSITORY[:TAG]" | "NAME[:TAG]" | "NAME[:TAG|@DIGEST]" => {
            images(cx)
        }
        "CONTAINER" => containers(cx, ""),
        "NAME|ID" => [containers(cx, ""), images(cx)].concat(),
        "SOURCE" | "DESTINATION" => [containers(cx, ":"), vec![shell(FILES)]].concat(),
        "DIR" => vec![shell(DIRECTORIES)],
        "FILE" | "FILE|-" | "PATH" | "PROGRAM" | "PATH|URL|-" => vec![shell(FILES)],
        "MODE" if arg.get_id() == "network" => plain(&["host", "none"]),
        "OS/ARCH" => plain(&["linux/amd64", "linux/arm64"]),
        "TEMPLATE" => plain(&["json", "table"]),
        "TYPE" => plain(&["container", "image"]),
        _ => Vec::new(),
    }
}

fn shell(what: &str) -> (String, String) {
    (what.to_owned(), String::new())
}

fn plain(words: &[&str]) -> Vec<(String, String)> {
    words.iter().map(|word| shell(word)).collect()
}

/// Names of images. Without a store there are none, and none is made.
fn images(cx: &Cx) -> Vec<(String, String)> {
    let found = cx.existing_engine().and_then(|engine| engine.images(ListImages::default()).ok());
    let name = |image: mica_api::ImageSummary| Some(shell(&format!("{}:{}", image.repository?, image.tag?)));
    found.into_iter().flatten().filter_map(name).collect()
}

fn containers(cx: &Cx, suffix: &str) -> Vec<(String, String)> {
    let request = ListContainers { all: true, sizes: false };
    let found = cx.existing_engine().and_then(|engine| engine.containers(request).ok());
    found
        .into_iter()
        .flatten()
        .map(|container| (format!("{}{suffix}", container.name), container.image))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    fn complete(words: &[&str]) -> Vec<String> {
        let shown = Bench::new().run(&[&["__complete"], words].concat()).stdout;
        shown.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn commands_are_completed_at_every_level() {
        assert_eq!(complete(&["im"]), ["images", "import", "image"]);
        assert_eq!(complete(&["image", "p"]), ["prune", "pull", "push"]);
        assert_eq!(complete(&["--root", "/x", "container", "ru"]), ["run"]);
        assert_eq!(complete(&["--deb"]), ["--debug"]);
        assert!(complete(&["nope", ""]).is_empty());
    }

    #[test]
    fn names_of_the_store_are_completed_where_they_are_wanted() {
        let images = ["app:latest", "localhost:5000/team/other:1.2"];
        assert_eq!(complete(&["rmi", ""]), images);
        assert_eq!(complete(&["history", "localhost:5000/"]), images[1..]);
        assert_eq!(complete(&["run", "--rm", "-it", "-e", "A=b", "a"]), ["app:latest"]);
        assert_eq!(complete(&["container", "rm", "-f", ""]), ["web", "job"]);
        assert_eq!(complete(&["inspect", "w"]), ["web"]);
        assert_eq!(complete(&["cp", "j"]), ["job:", ":files"]);
    }

    #[test]
    fn flags_and_their_values_are_completed() {
        assert_eq!(complete(&["run", "--vol"]), ["--volume"]);
        assert_eq!(complete(&["run", "--network", ""]), ["host", "none"]);
        assert_eq!(complete(&["run", "--network=n"]), ["--network=none"]);
        assert_eq!(complete(&["run", "-w", ""]), [":directories"]);
        assert_eq!(complete(&["run", "app", "--v"]), [":files"]);
        assert_eq!(complete(&["completion", "z"]), ["zsh"]);
        assert_eq!(complete(&["images", "--he"]), ["--help"]);
    }
}
