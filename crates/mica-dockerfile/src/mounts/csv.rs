//! One line of comma-separated values; a field in double quotes may contain commas and `""`.

use super::MountError;

const BARE_QUOTE: MountError = MountError::Csv("bare \" in non-quoted field");
const BAD_QUOTE: MountError = MountError::Csv("extraneous or missing \" in quoted-field");

/// Splits a line.
pub(super) fn fields(text: &str) -> Result<Vec<String>, MountError> {
    if text.is_empty() {
        return Err(MountError::Csv("EOF"));
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted(inner)?,
            None => plain(rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn plain(text: &str) -> Result<(String, Option<&str>), MountError> {
    let (field, rest) = match text.split_once(',') {
        Some((field, rest)) => (field, Some(rest)),
        None => (text, None),
    };
    if field.contains('"') { Err(BARE_QUOTE) } else { Ok((field.to_owned(), rest)) }
}

/// Reads on after an opening quote.
fn quoted(text: &str) -> Result<(String, Option<&str>), MountError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(BAD_QUOTE)?;
        field.push_str(part);
        match after.as_bytes().first() {
            None => return Ok((field, None)),
            Some(b',') => return Ok((field, Some(&after[1..]))),
            Some(b'"') => {
                field.push('"');
                rest = &after[1..];
            }
            Some(_) => return Err(BAD_QUOTE),
        }
    }
}
