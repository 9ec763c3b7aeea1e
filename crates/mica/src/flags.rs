//! Flags the way docker's command line reads them (Go's pflag), on top of clap.
//!
//! Differences to plain clap: switches take `=true` and `=false`; the last of a repeated flag wins; a value may begin
//! with a hyphen; flags of docker that mean nothing here are known by name, and either refused with a reason or
//! accepted with a warning, never ignored in silence (build.md O8).

use std::ffi::OsString;

use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use mica_api::{Class, Error};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, UsageError};

/// A command of the command line: its arguments are the fields, parsed by clap.
pub(crate) trait Verb: clap::Args {
    /// What follows the command's name: `[OPTIONS] IMAGE [IMAGE...]`.
    const USAGE: &'static str;
    /// Flags of docker's command of this name that it does not have.
    const FOREIGN: &'static [Foreign] = &[];

    /// Does it.
    ///
    /// # Errors
    /// Whatever stands in the way.
    fn run(self, cx: &Cx) -> Outcome;
}

/// A flag of docker that mica knows by name only.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// `--long`.
    pub long: &'static str,
    /// `-s`.
    pub short: Option<char>,
    /// Whether a value follows.
    pub takes: Takes,
    /// What is said when it is used.
    pub answer: Answer,
}

/// Whether a value follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `--flag` or `--flag=false`.
    Switch,
    /// `--flag VALUE`.
    Value,
    /// `--flag` or `--flag=VALUE`.
    OptionalValue,
}

/// What is said when a foreign flag is used.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// The command fails, and this is why.
    Refuse(&'static str),
    /// The command goes on, and says that the flag has no effect because of this.
    Warn(&'static str),
}

impl Foreign {
    /// A switch that is refused.
    pub(crate) const fn refused_switch(long: &'static str, why: &'static str) -> Self {
        Self { long, short: None, takes: Takes::Switch, answer: Answer::Refuse(why) }
    }

    /// A flag with a value that is refused.
    pub(crate) const fn refused(long: &'static str, why: &'static str) -> Self {
        Self { long, short: None, takes: Takes::Value, answer: Answer::Refuse(why) }
    }

    /// A switch without effect.
    pub(crate) const fn idle_switch(long: &'static str, why: &'static str) -> Self {
        Self { long, short: None, takes: Takes::Switch, answer: Answer::Warn(why) }
    }

    /// A flag with a value without effect.
    pub(crate) const fn idle(long: &'static str, why: &'static str) -> Self {
        Self { long, short: None, takes: Takes::Value, answer: Answer::Warn(why) }
    }

    /// The same with a short name.
    pub(crate) const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// The same with an optional value.
    pub(crate) const fn optional(mut self) -> Self {
        self.takes = Takes::OptionalValue;
        self
    }

    fn id(&self) -> String {
        format!("foreign {}", self.long)
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.id()).long(self.long).hide(true);
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match self.takes {
            Takes::Switch => arg.action(ArgAction::SetTrue),
            Takes::Value => arg.action(ArgAction::Append),
            Takes::OptionalValue => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        }
    }

    fn is_used(&self, matches: &ArgMatches) -> bool {
        let given = matches.value_source(&self.id()) == Some(clap::parser::ValueSource::CommandLine);
        given
            && match self.takes {
                Takes::Switch => matches.get_flag(&self.id()),
                Takes::Value => true,
                Takes::OptionalValue => {
                    matches.get_one::<String>(&self.id()).is_none_or(|value| value != "false")
                }
            }
    }
}

/// A verb without its type: what the dispatcher works with. Nothing is built before it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Builds the clap command.
    pub command: fn() -> Command,
    /// See [`Verb::USAGE`].
    pub usage: &'static str,
    foreign: &'static [Foreign],
    run: fn(&ArgMatches, &Cx) -> Outcome,
}

impl Entry {
    /// The entry of a verb.
    pub(crate) const fn of<V: Verb>() -> Self {
        Self { command: described::<V>, usage: V::USAGE, foreign: V::FOREIGN, run: parse_and_run::<V> }
    }

    /// Parses `args` (what follows the verb) and does what they say. `path` is the command as typed: `docker image ls`.
    ///
    /// # Errors
    /// The arguments make no sense, or the verb fails.
    pub(crate) fn call(&self, path: &str, args: &[OsString], cx: &Cx) -> Outcome {
        let mut command = like_pflag((self.command)(), self.foreign);
        let matches = match command.try_get_matches_from_mut(args) {
            Ok(matches) => matches,
            Err(error) => return Err(self.usage_failure(&error, path, &command)),
        };
        if matches.get_flag(HELP) {
            cx.out.text(&crate::help::of_verb(self, path))?;
            return Ok(Status::default());
        }
        self.answer_foreign(&matches, cx)?;
        self.check_arity(&matches, path, &command)?;
        (self.run)(&matches, cx)
    }

    /// Checks the definition, as clap does in debug builds.
    #[cfg(test)]
    pub(crate) fn debug_assert(&self) {
        like_pflag((self.command)(), self.foreign).debug_assert();
    }

    fn answer_foreign(&self, matches: &ArgMatches, cx: &Cx) -> Result<(), Failure> {
        for flag in self.foreign.iter().filter(|flag| flag.is_used(matches)) {
            match flag.answer {
                Answer::Refuse(why) => {
                    let refused =
                        Error::new(Class::Unsupported, format!("--{} is not supported yet", flag.long));
                    return Err(Failure::Refused(Box::new(refused.why(why))));
                }
                Answer::Warn(why) => cx.warn(&format!("WARNING: --{} has no effect: {why}", flag.long)),
            }
        }
        Ok(())
    }

    /// Positionals are optional for clap, so that `--help` and refused flags are answered first; counted here.
    fn check_arity(&self, matches: &ArgMatches, path: &str, command: &Command) -> Result<(), Failure> {
        let given: usize = command.get_positionals().map(|arg| raw_count(matches, arg)).sum();
        if given < Arity::of(self.usage).min { Err(self.arity_failure(path)) } else { Ok(()) }
    }

    fn arity_failure(&self, path: &str) -> Failure {
        Failure::Arguments(self.usage_error(path, format!("'{path}' {}", Arity::of(self.usage)), None))
    }

    fn usage_error(&self, path: &str, message: String, hint: Option<String>) -> UsageError {
        let usage = format!("{path} {}", self.usage).trim_end().to_owned();
        UsageError { message, hint, usage: Some(usage), path: path.to_owned() }
    }

    /// docker's words for what clap found.
    fn usage_failure(&self, error: &clap::Error, path: &str, command: &Command) -> Failure {
        let invalid = text_of(error, ContextKind::InvalidArg);
        let value = text_of(error, ContextKind::InvalidValue);
        let message = match error.kind() {
            ErrorKind::UnknownArgument if !invalid.starts_with('-') => return self.arity_failure(path),
            ErrorKind::TooManyValues | ErrorKind::MissingRequiredArgument => return self.arity_failure(path),
            ErrorKind::UnknownArgument => match invalid.strip_prefix("--") {
                Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or(long)),
                None => format!(
                    "unknown shorthand flag: '{}' in {invalid}",
                    invalid.chars().nth(1).unwrap_or('-')
                ),
            },
            ErrorKind::InvalidValue if value.is_empty() => {
                format!("flag needs an argument: {}", invalid.split([' ', '=']).next().unwrap_or(&invalid))
            }
            _ => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| choices(error));
                format!("invalid argument {value:?} for {:?} flag: {cause}", both_names(command, &invalid))
            }
        };
        let hint = Some(text_of(error, ContextKind::SuggestedArg)).filter(|name| !name.is_empty());
        Failure::Flag(self.usage_error(path, message, hint.map(|name| format!("did you mean `{name}`?"))))
    }
}

/// The clap command of a verb, fit for help texts.
fn described<V: Verb>() -> Command {
    V::augment_args(Command::new("mica")).no_binary_name(true)
}

fn parse_and_run<V: Verb>(matches: &ArgMatches, cx: &Cx) -> Outcome {
    let verb = V::from_arg_matches(matches).map_err(|error| {
        Failure::new(Class::Invalid, error.render().to_string().trim_start_matches("error: ").trim_end())
    })?;
    verb.run(cx)
}

/// The id of the help switch.
const HELP: &str = "help switch";

/// Gives a command pflag's manners.
fn like_pflag(command: Command, foreign: &[Foreign]) -> Command {
    let mut command = command.disable_help_flag(true).disable_version_flag(true).args_override_self(true);
    for flag in foreign {
        command = command.arg(flag.arg());
    }
    let help = Arg::new(HELP).long("help").action(ArgAction::SetTrue);
    let short_is_free = command.get_arguments().all(|arg| arg.get_short() != Some('h'));
    command = command.arg(if short_is_free { help.short('h') } else { help });
    command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(GoBool),
        _ if arg.is_positional() => arg.required(false),
        ArgAction::Set | ArgAction::Append if !arg.is_require_equals_set() => arg.allow_hyphen_values(true),
        _ => arg,
    })
}

/// Go's `strconv.ParseBool`.
#[derive(Debug, Clone)]
struct GoBool;

impl TypedValueParser for GoBool {
    type Value = bool;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<bool, clap::Error> {
        let parse = |text: &str| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
        };
        TypedValueParser::parse_ref(&parse, command, arg, value)
    }
}

fn raw_count(matches: &ArgMatches, arg: &Arg) -> usize {
    matches.get_raw(arg.get_id().as_str()).map_or(0, Iterator::count)
}

fn text_of(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn choices(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("expected one of {}", values.join(", ")),
        _ => "invalid syntax".to_owned(),
    }
}

/// `--filter <FILTER>` as docker names it: `-f, --filter`.
fn both_names(command: &Command, shown: &str) -> String {
    let name = shown.split([' ', '=', '[']).next().unwrap_or(shown);
    let long = name.trim_start_matches('-');
    let short = command.get_arguments().find(|arg| arg.get_long() == Some(long)).and_then(Arg::get_short);
    match short {
        Some(short) => format!("-{short}, {name}"),
        None => name.to_owned(),
    }
}

/// How many arguments a usage line asks for, in docker's words.
#[derive(Debug, PartialEq, Eq)]
struct Arity {
    min: usize,
    max: Option<usize>,
}

impl Arity {
    /// Counts the words of a usage line: `[X]` is optional, `[X...]` any number; `|` separates alternatives of one.
    fn of(usage: &str) -> Self {
        let mut arity = Self { min: 0, max: Some(0) };
        let line = usage.lines().next().unwrap_or_default().replace(" | ", "|");
        for word in line.split_whitespace().filter(|word| *word != "[OPTIONS]") {
            if word.contains("...") {
                arity.max = None;
                continue;
            }
            arity.max = arity.max.map(|max| max + 1);
            if !word.starts_with('[') {
                arity.min += 1;
            }
        }
        arity
    }
}

impl std::fmt::Display for Arity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let noun = |n: usize| if n == 1 { "argument" } else { "arguments" };
        let min = self.min;
        match self.max {
            Some(0) => f.write_str("accepts no arguments"),
            Some(max) if max == min => write!(f, "requires {min} {}", noun(min)),
            Some(max) if min == 0 => write!(f, "requires at most {max} {}", noun(max)),
            Some(max) => write!(f, "requires at least {min} and at most {max} arguments"),
            None => write!(f, "requires at least {min} {}", noun(min)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_lines_say_how_many_arguments_are_needed() {
        let words = [
            "[OPTIONS]",
            "[OPTIONS] IMAGE [IMAGE...]",
            "[OPTIONS] [REPOSITORY[:TAG]]",
            "A B",
            "[OPTIONS] C [R]",
        ]
        .map(|usage| Arity::of(usage).to_string());
        assert_eq!(
            words,
            [
                "accepts no arguments",
                "requires at least 1 argument",
                "requires at most 1 argument",
                "requires 2 arguments",
                "requires at least 1 and at most 2 arguments"
            ]
        );
        assert_eq!(Arity::of("[OPTIONS] PATH | URL | -"), Arity { min: 1, max: Some(1) });
    }
}
