//! FROM (F1, F2).

use super::origin;
use crate::ast::Stage;
use crate::error::{ParseError, ParseErrorKind};
use crate::flags::{Flags, Takes};
use crate::statement::Statement;
use crate::words::split_blanks;

/// Builds a stage without commands.
pub(crate) fn from(statement: Statement) -> Result<Stage, ParseError> {
    let location = statement.location;
    let (base, named) = arguments(&statement.rest).map_err(|kind| kind.at(location))?;
    let flags =
        Flags::parse(&statement.flags, &[("platform", Takes::Text)]).map_err(|kind| kind.at(location))?;
    let (as_keyword, written_name) = named.unzip();
    Ok(Stage {
        name: written_name.as_deref().map(str::to_lowercase),
        written_name,
        as_keyword,
        base,
        platform: flags.text("platform"),
        commands: Vec::new(),
        origin: origin(statement),
    })
}

/// Returns the base, and `AS` with the name.
fn arguments(rest: &str) -> Result<(String, Option<(String, String)>), ParseErrorKind> {
    let mut words = split_blanks(rest).into_iter();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(base), None, ..) => Ok((base, None)),
        (Some(base), Some(keyword), Some(name), None) if keyword.eq_ignore_ascii_case("as") => {
            if !is_stage_name(&name.to_lowercase()) {
                return Err(ParseErrorKind::InvalidStageName(name));
            }
            Ok((base, Some((keyword, name))))
        }
        _ => Err(ParseErrorKind::FromArguments),
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}
