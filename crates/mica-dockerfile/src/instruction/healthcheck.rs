//! HEALTHCHECK (I13).

use std::time::Duration;

use super::shell_or_exec;
use crate::ast::{Healthcheck, ShellOrExec};
use crate::duration;
use crate::error::ParseErrorKind;
use crate::flags::{Flags, Known, Takes};
use crate::statement::Statement;
use crate::words::split_keyword;

const FLAGS: [Known; 5] = [
    ("interval", Takes::Text),
    ("timeout", Takes::Text),
    ("start-period", Takes::Text),
    ("start-interval", Takes::Text),
    ("retries", Takes::Text),
];

/// Shorter intervals are refused; zero means "not set".
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn healthcheck(statement: &Statement) -> Result<Healthcheck, ParseErrorKind> {
    let (kind, rest) = split_keyword(&statement.rest);
    let kind = kind.to_uppercase();
    match kind.as_str() {
        "" => return Err(ParseErrorKind::AtLeastOneArgument("HEALTHCHECK")),
        // The reference looks at no flags here: they vanish.
        "NONE" if rest.is_empty() => return Ok(Healthcheck::Disabled),
        "NONE" => return Err(ParseErrorKind::HealthcheckNoneArguments),
        _ => {}
    }
    let flags = Flags::parse(&statement.flags, &FLAGS)?;
    if kind != "CMD" {
        return Err(ParseErrorKind::HealthcheckType(kind));
    }
    let command = shell_or_exec(rest)?;
    if rest.is_empty() || matches!(&command, ShellOrExec::Exec(argv) if argv.is_empty()) {
        return Err(ParseErrorKind::HealthcheckNoCommand);
    }
    Ok(Healthcheck::Command {
        command,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, flag: &'static str) -> Result<Option<Duration>, ParseErrorKind> {
    let Some(text) = flags.non_empty(flag) else { return Ok(None) };
    match duration::parse(&text).map_err(|source| ParseErrorKind::Duration { flag, source })? {
        Some(Duration::ZERO) => Ok(None),
        Some(interval) if interval >= SHORTEST => Ok(Some(interval)),
        _ => Err(ParseErrorKind::IntervalTooShort(flag)),
    }
}

fn retries(flags: &Flags) -> Result<Option<u32>, ParseErrorKind> {
    let Some(text) = flags.non_empty("retries") else { return Ok(None) };
    let number: i32 = text.parse().map_err(|_| ParseErrorKind::InvalidRetries(text))?;
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(retries) => Ok(Some(retries)),
        Err(_) => Err(ParseErrorKind::NegativeRetries(i64::from(number))),
    }
}
