//! Go durations: `1h30m`, `1.5s`, `300ms`.

use std::time::Duration;

/// Why a text is not a duration. The words are those of Go's `time.ParseDuration`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the error texts say it")]
pub enum DurationError {
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit { unit: String, text: String },
}

/// Parses a duration; `None` if it is negative.
///
/// # Errors
/// [`DurationError`] if it is none, or longer than Go can say (about 292 years).
pub(crate) fn parse(text: &str) -> Result<Option<Duration>, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanoseconds, remaining) = component(rest, text)?;
        total = total.checked_add(nanoseconds).filter(|&sum| sum <= i64::MAX as u64).ok_or_else(invalid)?;
        rest = remaining;
    }
    Ok((!negative || total == 0).then(|| Duration::from_nanos(total)))
}

/// Reads a number with its unit; returns nanoseconds and what follows.
fn component<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (whole, rest) = digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let length = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(length);
    if unit.is_empty() {
        return Err(DurationError::MissingUnit(text.to_owned()));
    }
    let scale = scale(unit)
        .ok_or_else(|| DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let nanoseconds = whole.checked_mul(scale).ok_or_else(invalid)?;
    let part = fraction_of(fraction, scale);
    Ok((nanoseconds.checked_add(part).ok_or_else(invalid)?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Returns `0.<digits>` of a unit, cut to whole nanoseconds.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let mut remaining = u128::from(scale) * 10u128.pow(18);
    let mut total = 0;
    for digit in digits.bytes().take(18) {
        remaining /= 10;
        total += remaining * u128::from(digit - b'0');
    }
    u64::try_from(total / 10u128.pow(18)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        let cases = [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("300ms", 300_000_000),
            ("1µs", 1_000),
            ("+2ns", 2),
            ("0.000000001h", 3_600),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(Some(Duration::from_nanos(nanoseconds))), "{text}");
        }
        assert_eq!(parse("-1s"), Ok(None));
    }

    #[test]
    fn other_texts_are_refused_in_gos_words() {
        assert_eq!(parse("5").unwrap_err().to_string(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err().to_string(), "time: unknown unit \"x\" in duration \"5x\"");
        for text in ["", "s", "-", ".", "9999999999h", "1s x", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
