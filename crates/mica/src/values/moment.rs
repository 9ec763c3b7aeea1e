//! Points in time on the command line: durations into the past, Unix times, dates.

use jiff::tz::TimeZone;
use mica_api::Timestamp;

/// Reads what docker takes for `--since`, `--until` and `until=`: a Go duration before `now` (`1h30m`), Unix seconds
/// with an optional fraction, or a date with as much of the time as wanted (RFC 3339 without zone is local).
pub(crate) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(nanos) = go_duration(text) {
        return Some(Timestamp(now.0.checked_sub(nanos)?));
    }
    if let Some(at) = unix(text) {
        return Some(at);
    }
    if let Some(at) = crate::format::human::parse_rfc3339(text) {
        return Some(at);
    }
    let civil: jiff::civil::DateTime = match text.len() {
        10 => format!("{text}T00:00:00").parse().ok()?,
        13 => format!("{text}:00:00").parse().ok()?,
        16 => format!("{text}:00").parse().ok()?,
        _ => text.parse().ok()?,
    };
    let at = civil.to_zoned(zone.clone()).ok()?.timestamp();
    i64::try_from(at.as_nanosecond()).ok().map(Timestamp)
}

fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(Timestamp(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

/// Go's `time.ParseDuration`, in nanoseconds: `1h30m`, `1.5s`, `100ms`.
pub(crate) fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let nanos = match &rest[..unit_end] {
            "ns" => 1f64,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * nanos;
        rest = &rest[unit_end..];
    }
    (total < i64::MAX as f64).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

    #[test]
    fn durations_count_back_from_now() {
        assert_eq!(parse("1h30m", NOW, &TimeZone::UTC), Some(Timestamp(NOW.0 - 5_400_000_000_000)));
        assert_eq!(parse("10ms", NOW, &TimeZone::UTC), Some(Timestamp(NOW.0 - 10_000_000)));
    }

    #[test]
    fn dates_and_unix_times_are_absolute() {
        let expected = Some(Timestamp(1_704_164_640_000_000_000));
        for text in [
            "2024-01-02T03:04:00Z",
            "2024-01-02T03:04",
            "1704164640",
            "1704164640.0",
            "2024-01-02T04:04:00+01:00",
        ] {
            assert_eq!(parse(text, NOW, &TimeZone::UTC), expected, "{text}");
        }
        assert_eq!(parse("2024-01-02", NOW, &TimeZone::UTC), Some(Timestamp(1_704_153_600_000_000_000)));
        assert_eq!(parse("soon", NOW, &TimeZone::UTC), None);
    }
}
