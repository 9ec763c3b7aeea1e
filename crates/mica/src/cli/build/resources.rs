//! Limits for the processes of a step (`--resource`, build.md O5) and for what they print.

use mica_api::{Class, Error, LogLimits, Resources};

use crate::environment::Environment;
use crate::format::units;
use crate::values::keyed;

/// The values of all `--resource` flags; a later one wins.
///
/// # Errors
/// A name that is none, a value out of bounds, or limits that contradict each other.
pub(super) fn parse(texts: &[String]) -> Result<Resources, Error> {
    let mut resources = Resources::default();
    for text in texts {
        let invalid = |why: String| Error::new(Class::Invalid, format!("invalid resource {text:?}")).why(why);
        for (key, value) in keyed::pairs(text).map_err(invalid)? {
            let value = value.ok_or_else(|| invalid(format!("{key} needs a value: {key}=VALUE")))?;
            set(&mut resources, &key, &value).map_err(invalid)?;
        }
    }
    check_swap(&resources)?;
    Ok(resources)
}

/// BuildKit's limits, or those of the variables that its daemon knows; -1 is no limit.
pub(super) fn log_limits(environment: &Environment) -> LogLimits {
    let variable = |name: &str, default: Option<u64>| match environment.nonempty(name) {
        Some("-1") => None,
        Some(text) => text.parse().ok().or(default),
        None => default,
    };
    let default = LogLimits::default();
    LogLimits {
        bytes: variable("BUILDKIT_STEP_LOG_MAX_SIZE", default.bytes),
        bytes_per_second: variable("BUILDKIT_STEP_LOG_MAX_SPEED", default.bytes_per_second),
    }
}

fn set(resources: &mut Resources, key: &str, value: &str) -> Result<(), String> {
    let unreadable = || format!("{value:?} is no value of {key}");
    let number = || value.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(unreadable);
    let bytes = || units::parse_binary(value).map_err(|error| error.to_string());
    match key {
        "memory" => resources.memory_bytes = Some(bytes()?),
        "memory-swap" if value == "-1" => resources.memory_and_swap_bytes = Some(-1),
        "memory-swap" => {
            resources.memory_and_swap_bytes = Some(i64::try_from(bytes()?).map_err(|_| unreadable())?);
        }
        "cpu-shares" => resources.cpu_shares = Some(number()?),
        "cpu-period" => resources.cpu_period = Some(number()?),
        "cpu-quota" => resources.cpu_quota = Some(value.parse().map_err(|_| unreadable())?),
        "cpuset-cpus" => resources.cpuset_cpus = Some(set_of_numbers(value).ok_or_else(unreadable)?),
        "cpuset-mems" => resources.cpuset_mems = Some(set_of_numbers(value).ok_or_else(unreadable)?),
        _ => {
            return Err(format!(
                "there is no {key}; there are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, \
                 cpuset-cpus and cpuset-mems"
            ));
        }
    }
    Ok(())
}

/// `0-2,7`. A list of several is quoted on the command line: `"cpuset-cpus=0,2"`.
fn set_of_numbers(text: &str) -> Option<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    text.split(',').all(is_part).then(|| text.to_owned())
}

/// docker's words: the kernel would only say that the argument is invalid.
fn check_swap(resources: &Resources) -> Result<(), Error> {
    let invalid = |message: &str| Err(Error::new(Class::Invalid, message));
    match (resources.memory_and_swap_bytes, resources.memory_bytes) {
        (None | Some(-1), _) => Ok(()),
        (Some(_), None) => invalid("You should always set the Memory limit when using Memoryswap limit"),
        (Some(total), Some(memory)) if u64::try_from(total).is_ok_and(|total| total < memory) => {
            invalid("Minimum memoryswap limit should be larger than memory limit")
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Resources, Error> {
        parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn limits_have_units_and_the_last_one_wins() {
        let resources = parsed(&[
            "memory=1m,memory-swap=3m,cpu-shares=512",
            "memory=2m,cpu-period=50000,cpu-quota=25000,\"cpuset-cpus=0,2-3\"",
        ]);
        let expected = Resources {
            memory_bytes: Some(2 << 20),
            memory_and_swap_bytes: Some(3 << 20),
            cpu_shares: Some(512),
            cpu_period: Some(50_000),
            cpu_quota: Some(25_000),
            cpuset_cpus: Some("0,2-3".to_owned()),
            cpuset_mems: None,
        };
        assert_eq!(resources.unwrap(), expected);
        assert_eq!(parsed(&["memory-swap=-1"]).unwrap().memory_and_swap_bytes, Some(-1));
    }

    #[test]
    fn limits_of_logs_are_buildkits_unless_told() {
        let environment = Environment::of(&[
            ("BUILDKIT_STEP_LOG_MAX_SIZE", "-1"),
            ("BUILDKIT_STEP_LOG_MAX_SPEED", "nonsense"),
        ]);
        let expected = LogLimits { bytes: None, bytes_per_second: Some(200 << 10) };
        assert_eq!(log_limits(&environment), expected);
        assert_eq!(log_limits(&Environment::default()).bytes, Some(2 << 20));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let why = |text: &str| parsed(&[text]).unwrap_err().why.unwrap_or_default();
        assert!(why("disk=1g").starts_with("there is no disk; "));
        assert_eq!(why("memory"), "memory needs a value: memory=VALUE");
        assert_eq!(why("cpu-shares=0"), "\"0\" is no value of cpu-shares");
        assert_eq!(why("cpuset-cpus=a"), "\"a\" is no value of cpuset-cpus");
        assert!(parsed(&["memory-swap=1g"]).unwrap_err().message.contains("always set the Memory limit"));
        assert!(parsed(&["memory=2g,memory-swap=1g"]).unwrap_err().message.contains("larger than memory"));
    }
}
