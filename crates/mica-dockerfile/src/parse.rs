//! From text to syntax tree.

use crate::ast::{Command, Dockerfile, GlobalArg};
use crate::directive;
use crate::error::{ParseError, ParseErrorKind};
use crate::instruction;
use crate::source::without_bom;
use crate::statement::{Reader, Statement};

/// Parses a Dockerfile.
///
/// # Errors
/// [`ParseError`] for the first thing that is wrong, reading from the top.
pub fn parse(bytes: &[u8]) -> Result<Dockerfile, ParseError> {
    if bytes.is_empty() {
        return Err(ParseError { kind: ParseErrorKind::Empty, location: None });
    }
    let mut reader = Reader::of_file(bytes)?;
    let source = String::from_utf8_lossy(without_bom(bytes)).into_owned();
    let directives = directive::directives(&source)?;
    let mut global_args = Vec::new();
    let mut stages = Vec::new();
    while let Some(statement) = reader.next()? {
        let keyword = statement.keyword.as_str();
        if keyword.eq_ignore_ascii_case("from") {
            stages.push(instruction::from(statement)?);
        } else if stages.is_empty() && keyword.eq_ignore_ascii_case("arg") {
            global_args.push(global_arg(statement)?);
        } else {
            let command = instruction::command(statement)?;
            let location = command.origin.location;
            let stage = stages.last_mut().ok_or(ParseErrorKind::NoCurrentStage.at(location))?;
            stage.commands.push(command);
        }
    }
    if stages.is_empty() {
        let kind =
            if global_args.is_empty() { ParseErrorKind::NoInstructions } else { ParseErrorKind::NoStages };
        return Err(ParseError { kind, location: None });
    }
    let (escape, warnings) = (reader.escape, reader.warnings);
    Ok(Dockerfile { escape, directives, global_args, stages, source, warnings })
}

/// Parses one instruction other than FROM, heredoc bodies included: an ONBUILD trigger that fires, or a
/// change of `commit`. Locations count lines of `text`.
///
/// # Errors
/// [`ParseError`] as in a file, and if `text` is not exactly one instruction.
pub fn parse_instruction(text: &str, escape: char) -> Result<Command, ParseError> {
    let mut reader = Reader::of_text(text, escape)?;
    let not_one = || ParseError { kind: ParseErrorKind::NotOneInstruction, location: None };
    let statement = reader.next()?.ok_or_else(not_one)?;
    if reader.next()?.is_some() {
        return Err(not_one());
    }
    instruction::command(statement)
}

fn global_arg(statement: Statement) -> Result<GlobalArg, ParseError> {
    let items = instruction::arg(&statement).map_err(|kind| kind.at(statement.location))?;
    Ok(GlobalArg { items, origin: instruction::origin(statement) })
}
