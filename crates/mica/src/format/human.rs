//! Points in time and spans of time, as docker prints them.

use jiff::tz::TimeZone;
use mica_api::Timestamp;

/// A span in docker's words: `2 weeks`, `About a minute` (go-units' `HumanDuration`).
pub(crate) fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long `then` is past: `2 weeks ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.seconds() - then.seconds()))
}

/// Go's `time.Time.String()` without the fraction: `2024-01-02 03:04:05 +0000 UTC`.
pub(crate) fn go_string(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Go's `time.Time.String()`: `2024-01-02 03:04:05.67 +0000 UTC`.
pub(crate) fn go_string_nanos(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

/// RFC 3339 with seconds: `2024-01-02T03:04:05Z`.
pub(crate) fn rfc3339(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z")
}

/// RFC 3339 with nine decimals, UTC: what `logs -t` prints.
pub(crate) fn rfc3339_nanos(at: Timestamp) -> String {
    zoned(at, &TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// RFC 3339 with as many decimals as needed, UTC: Go's `RFC3339Nano`.
pub(crate) fn rfc3339_short_nanos(at: Timestamp) -> String {
    zoned(at, &TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.fZ").to_string()
}

fn zoned(at: Timestamp, zone: &TimeZone) -> jiff::Zoned {
    // Every i64 of nanoseconds (years 1678 to 2262) is within jiff's range.
    jiff::Timestamp::from_nanosecond(i128::from(at.0))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(zone.clone())
}

/// Reads RFC 3339.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_like_dockers() {
        let words =
            [0, 1, 59, 60, 119, 120, 3599, 3600, 5400, 86_400 * 3, 86_400 * 20, 86_400 * 90, 86_400 * 800]
                .map(duration);
        assert_eq!(
            words,
            [
                "Less than a second",
                "1 second",
                "59 seconds",
                "About a minute",
                "About a minute",
                "2 minutes",
                "59 minutes",
                "About an hour",
                "2 hours",
                "3 days",
                "2 weeks",
                "3 months",
                "2 years"
            ]
        );
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        let at = Timestamp(1_704_164_645_120_000_000);
        assert_eq!(go_string(at, &TimeZone::UTC), "2024-01-02 03:04:05 +0000 UTC");
        assert_eq!(rfc3339(at, &TimeZone::UTC), "2024-01-02T03:04:05Z");
        assert_eq!(rfc3339_nanos(at), "2024-01-02T03:04:05.120000000Z");
        assert_eq!(rfc3339_short_nanos(at), "2024-01-02T03:04:05.12Z");
        assert_eq!(parse_rfc3339("2024-01-02T03:04:05.12Z"), Some(at));
    }
}
