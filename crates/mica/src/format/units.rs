//! Sizes as docker prints and reads them: a port of go-units.

const DECIMAL: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// Decimal size with three significant digits, as image listings print it: `1.54kB`, `123MB`.
pub(crate) fn size3(bytes: u64) -> String {
    size(bytes, 3)
}

/// Decimal size with four significant digits, as prunes and `system df` print it: `1.234GB`.
pub(crate) fn size4(bytes: u64) -> String {
    size(bytes, 4)
}

/// Decimal size with two decimals, as build progress prints it: `37B`, `3.37MB`.
pub(crate) fn size_of_progress(bytes: u64) -> String {
    let (value, unit) = scaled(bytes);
    if unit == "B" { format!("{bytes}B") } else { format!("{value:.2}{unit}") }
}

fn scaled(bytes: u64) -> (f64, &'static str) {
    let mut value = bytes as f64;
    let mut index = 0;
    while value >= 1000.0 && index < DECIMAL.len() - 1 {
        value /= 1000.0;
        index += 1;
    }
    (value, DECIMAL[index])
}

/// Go's `%.<digits>g` and a unit. Where Go would fall into exponents (`1e+03kB`), the next unit is used.
fn size(bytes: u64, digits: i32) -> String {
    let (value, unit) = scaled(bytes);
    let text = significant(value, digits);
    if text == "1000" {
        let index = DECIMAL.iter().position(|name| *name == unit).unwrap_or_default();
        return format!("1{}", DECIMAL[(index + 1).min(DECIMAL.len() - 1)]);
    }
    format!("{text}{unit}")
}

fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or_default();
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Why a text is not a size. The words are go-units'.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid size: '{0}'")]
pub(crate) struct SizeError(String);

/// Reads a binary size: `512m` is 536870912 (go-units' `RAMInBytes`).
///
/// # Errors
/// [`SizeError`] for anything but `NUMBER[kmgtp][i][b]`.
pub(crate) fn parse_binary(text: &str) -> Result<u64, SizeError> {
    let failure = || SizeError(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number: f64 = number.parse().map_err(|_| failure())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let power = match unit.strip_suffix('b').unwrap_or(unit).trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(failure()),
    };
    Ok((number * 1024f64.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_digits_docker_prints() {
        let three: Vec<String> =
            [0, 1, 999, 1000, 1540, 12_345, 123_456_789, 1_000_000_000, 999_999].map(size3).into();
        assert_eq!(three, ["0B", "1B", "999B", "1kB", "1.54kB", "12.3kB", "123MB", "1GB", "1MB"]);
        assert_eq!(size4(1_234_567_890), "1.235GB");
        assert_eq!(size4(57_600), "57.6kB");
        assert_eq!(size_of_progress(37), "37B");
        assert_eq!(size_of_progress(3_370_706), "3.37MB");
    }

    #[test]
    fn sizes_that_are_read_are_binary() {
        assert_eq!(parse_binary("512m"), Ok(536_870_912));
        assert_eq!(parse_binary("128MiB"), Ok(134_217_728));
        assert_eq!(parse_binary("1.5g"), Ok(1_610_612_736));
        assert_eq!(parse_binary("64"), Ok(64));
        assert_eq!(parse_binary("x").unwrap_err().to_string(), "invalid size: 'x'");
        assert_eq!(parse_binary(""), Err(SizeError(String::new())));
        assert_eq!(parse_binary("1q"), Err(SizeError("1q".to_owned())));
    }
}
