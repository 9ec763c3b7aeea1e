//! `key=value` texts: single pairs, CSV lists of them, files of them.

use crate::environment::Environment;

/// Splits a CSV record as Go's `encoding/csv` does: `"` quotes a field, `""` inside is one.
///
/// # Errors
/// A quote that does not end, or stands inside an unquoted field.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(format!("bare \" in non-quoted field of {text:?}"));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("extraneous or missing \" in quoted field of {text:?}")),
        }
    }
}

/// The field after its opening quote, and what follows the closing one.
fn quoted_field(mut rest: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    loop {
        let Some(end) = rest.find('"') else {
            return Err("extraneous or missing \" in quoted field".to_owned());
        };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, rest)),
        }
    }
}

/// A CSV list of `key=value`; keys in lower case, a key alone has no value.
///
/// # Errors
/// Malformed CSV.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let fields = csv(text)?;
    Ok(fields
        .iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_lowercase(), None),
        })
        .collect())
}

/// Refuses `key=value` without a key.
///
/// # Errors
/// buildx's words.
pub(crate) fn check_key(pair: &str) -> Result<(), String> {
    match pair.split('=').next() {
        None | Some("") => Err(format!("invalid key-value pair {pair:?}: empty key")),
        Some(_) => Ok(()),
    }
}

/// `key=value` as labels are written; a key alone has an empty value.
pub(crate) fn label(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// `NAME=value`, or `NAME` with its value of the environment; unset ones are dropped.
pub(crate) fn from_environment(text: &str, environment: &Environment) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => environment.get(text).map(|value| (text.to_owned(), value.to_owned())),
    }
}

/// The lines of an `--env-file` or `--label-file`: comments and blank lines are skipped, values are taken as they are.
///
/// # Errors
/// A name with white space in it; docker's words.
pub(crate) fn lines_of_file(text: &str, file: &str) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(format!("invalid env file ({file}): no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("invalid env file ({file}): variable '{name}' contains whitespaces"));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_may_be_quoted() {
        assert_eq!(csv("a,b=c").unwrap(), ["a", "b=c"]);
        assert_eq!(csv("type=image,\"name=a,b\",x").unwrap(), ["type=image", "name=a,b", "x"]);
        assert_eq!(csv("\"a\"\"b\"").unwrap(), ["a\"b"]);
        assert!(csv("a\"b").is_err() && csv("\"a").is_err() && csv("\"a\"b").is_err());
    }

    #[test]
    fn names_alone_take_the_value_of_the_environment_or_are_dropped() {
        let environment = Environment::of(&[("SET", "1")]);
        assert_eq!(from_environment("SET", &environment), Some(("SET".to_owned(), "1".to_owned())));
        assert_eq!(from_environment("UNSET", &environment), None);
        assert_eq!(from_environment("X=a=b", &environment), Some(("X".to_owned(), "a=b".to_owned())));
    }

    #[test]
    fn pairs_have_keys() {
        assert!(check_key("a").is_ok() && check_key("a=").is_ok());
        assert_eq!(check_key("=b").unwrap_err(), "invalid key-value pair \"=b\": empty key");
        assert!(check_key("").is_err());
    }

    #[test]
    fn env_files_have_comments_and_raw_values() {
        assert_eq!(lines_of_file("# c\n\n  A=1 # no\nB\n", "f").unwrap(), ["A=1 # no", "B"]);
        assert_eq!(
            lines_of_file("A B=1", "f").unwrap_err(),
            "invalid env file (f): variable 'A B' contains whitespaces"
        );
    }
}
