//! HEALTHCHECK as the config stores it and as history prints it (I13).

use std::time::Duration;

use mica_dockerfile::{self as dockerfile, ShellOrExec};
use mica_oci::Healthcheck;

/// The config of an instruction.
pub(crate) fn config(check: &dockerfile::Healthcheck) -> Healthcheck {
    match check {
        dockerfile::Healthcheck::Disabled => {
            Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }
        }
        dockerfile::Healthcheck::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let test = match command {
                ShellOrExec::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                ShellOrExec::Exec(words) => {
                    std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
                }
            };
            Healthcheck {
                test,
                interval: nanoseconds(*interval),
                timeout: nanoseconds(*timeout),
                start_period: nanoseconds(*start_period),
                start_interval: nanoseconds(*start_interval),
                retries: retries.map_or(0, i64::from),
            }
        }
    }
}

fn nanoseconds(duration: Option<Duration>) -> i64 {
    duration.map_or(0, |duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// Go's `%+v` of the config.
pub(crate) fn history(check: &Healthcheck) -> String {
    format!(
        "{{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries
    )
}

/// Go's `Duration.String`: `1h2m3.5s`, `100ms`, `0s`.
fn go_duration(nanoseconds: i64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000, "ms"), (1_000, "µs"), (1, "ns")];
    const SECOND: u64 = 1_000_000_000;
    let rest = nanoseconds.unsigned_abs();
    let text = if rest == 0 {
        "0s".to_owned()
    } else if let Some((unit, name)) = UNITS.iter().find(|(unit, _)| rest < SECOND && rest >= *unit) {
        format!("{}{name}", decimal(rest, *unit))
    } else {
        let (minutes, seconds) = (rest / (60 * SECOND), decimal(rest % (60 * SECOND), SECOND));
        match (minutes / 60, minutes % 60) {
            (0, 0) => format!("{seconds}s"),
            (0, minutes) => format!("{minutes}m{seconds}s"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
        }
    };
    if nanoseconds < 0 { format!("-{text}") } else { text }
}

/// `value / unit` with as many digits as it needs.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.to_string().len() - 1;
    format!("{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_004_000_000, "1h2m3.004s"),
        ] {
            assert_eq!(go_duration(nanoseconds), expected);
        }
    }

    #[test]
    fn history_prints_the_struct() {
        let check = Healthcheck {
            test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
            interval: 5_000_000_000,
            ..Healthcheck::default()
        };
        assert_eq!(
            history(&check),
            "{Test:[CMD-SHELL true] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"
        );
    }
}
