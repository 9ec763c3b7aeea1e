//! Options of `run` that the runtime knows in another form: rights, mounts, limits.

use std::path::Path;

use mica_api::{Class, Error, Result};
use mica_runtime::{Capability, MountSource, PlanMount, Seccomp, Ulimit, capability};

use super::volumes::Mounted;

/// What `--security-opt` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Seccomp,
}

/// Reads `--security-opt` values.
///
/// # Errors
/// docker's words for an option it does not know; options that this machine cannot follow are refused by name.
pub(super) fn security(options: &[String]) -> Result<Security> {
    let mut security = Security { no_new_privileges: false, seccomp: Seccomp::Default };
    for option in options {
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (option.as_str(), None),
        };
        let invalid = || Error::new(Class::Invalid, format!("invalid --security-opt: {option:?}"));
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => security.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => security.no_new_privileges = false,
            ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
            ("seccomp", Some("builtin")) => security.seccomp = Seccomp::Default,
            ("seccomp", Some(file)) if !file.is_empty() => security.seccomp = profile(file)?,
            // Nothing is labelled or confined by these here, which is what is asked for.
            ("label", Some("disable")) | ("apparmor", Some("unconfined")) => {}
            ("label" | "apparmor" | "systempaths" | "writable-cgroups", Some(_)) => {
                return Err(Error::new(Class::Unsupported, format!("--security-opt {option} is not supported yet"))
                    .hint("--security-opt seccomp=FILE, no-new-privileges, label=disable and apparmor=unconfined are"));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(security)
}

/// The helper that reads the profile works in another directory.
fn profile(file: &str) -> Result<Seccomp> {
    let path = std::path::absolute(file).and_then(|path| std::fs::metadata(&path).map(|_| path)).map_err(
        |error| {
            Error::new(Class::Invalid, format!("opening seccomp profile ({file}) failed"))
                .why(error.to_string())
        },
    )?;
    Ok(Seccomp::Profile(path))
}

/// docker's arithmetic of `--cap-add` and `--cap-drop`.
///
/// # Errors
/// docker's words for a capability that does not exist.
pub(super) fn capabilities(add: &[String], drop: &[String]) -> Result<Vec<Capability>> {
    let added = Names::parse(add, "CapAdd")?;
    let dropped = Names::parse(drop, "CapDrop")?;
    let start: Vec<Capability> = match (added.all, dropped.all) {
        (true, _) => Capability::all().collect(),
        (false, true) => Vec::new(),
        (false, false) => capability::DEFAULT.to_vec(),
    };
    let mut capabilities: Vec<Capability> =
        start.into_iter().filter(|capability| !dropped.names.contains(capability)).collect();
    // With `--cap-add ALL` the drops win, else the additions do.
    for capability in added.names {
        if !added.all && !capabilities.contains(&capability) {
            capabilities.push(capability);
        }
    }
    Ok(capabilities)
}

#[derive(Debug, Default)]
struct Names {
    all: bool,
    names: Vec<Capability>,
}

impl Names {
    fn parse(texts: &[String], option: &str) -> Result<Self> {
        let mut found = Self::default();
        for text in texts {
            if text.eq_ignore_ascii_case("all") || text.eq_ignore_ascii_case("cap_all") {
                found.all = true;
                continue;
            }
            found.names.push(
                text.parse()
                    .map_err(|error| Error::new(Class::Invalid, format!("invalid {option}: {error}")))?,
            );
        }
        Ok(found)
    }
}

/// `-v`: what is missing on the host becomes a directory, as docker has it.
///
/// # Errors
/// The directory cannot be made.
pub(super) fn bind(volume: &Mounted) -> Result<PlanMount> {
    if !volume.source.exists() {
        std::fs::create_dir_all(&volume.source).map_err(|error| {
            Error::new(
                Class::of_io(&error),
                format!("error while creating mount source path '{}'", volume.source.display()),
            )
            .why(error.to_string())
        })?;
    }
    Ok(PlanMount {
        target: volume.target.clone().into_bytes(),
        source: MountSource::Bind { host: volume.source.clone(), sub: None, recursive: true },
        read_only: volume.read_only,
        nosuid: false,
        noexec: false,
    })
}

/// `--tmpfs PATH:OPTIONS`; without options `rw,nosuid,nodev,noexec` and the mode of the directory it covers.
///
/// # Errors
/// docker's words for an option it does not know.
pub(super) fn tmpfs(path: &str, options: &str) -> Result<PlanMount> {
    let invalid = |option: &str| Error::new(Class::Invalid, format!("invalid tmpfs option [{option:?}]"));
    let mut mount = PlanMount {
        target: path.as_bytes().to_vec(),
        source: MountSource::Tmpfs { size_bytes: None, mode: None },
        read_only: false,
        nosuid: true,
        noexec: true,
    };
    let (mut size, mut mode_bits) = (None, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", text)) => size = Some(tmpfs_size(text).ok_or_else(|| invalid(option))?),
            Some(("mode", text)) => {
                let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
                mode_bits = Some(mode.ok_or_else(|| invalid(option))?);
            }
            Some(_) => return Err(invalid(option)),
            None => match option {
                "ro" => mount.read_only = true,
                "rw" => mount.read_only = false,
                "exec" => mount.noexec = false,
                "noexec" => mount.noexec = true,
                "suid" => mount.nosuid = false,
                "nosuid" => mount.nosuid = true,
                // Devices never work in a tmpfs of a container, and access times are nobody's business.
                "nodev" | "defaults" | "relatime" | "noatime" | "nodiratime" | "strictatime" => {}
                _ => return Err(invalid(option)),
            },
        }
    }
    mount.source = MountSource::Tmpfs { size_bytes: size, mode: mode_bits };
    Ok(mount)
}

/// `64m`, `1g`, plain bytes.
fn tmpfs_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `name=soft[:hard]`; -1 is no limit.
///
/// # Errors
/// go-units' words for a text that is none.
pub(super) fn ulimit(text: &str) -> Result<Ulimit> {
    let invalid = || Error::new(Class::Invalid, format!("invalid ulimit argument: {text}"));
    let (name, values) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| invalid()),
    };
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// The signals by number, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Real-time signals that programs may use.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// `--stop-signal` and an image's `STOPSIGNAL`: a name with or without `SIG`, or a number; nothing is SIGTERM.
///
/// # Errors
/// docker's words for a text that is none.
pub(super) fn signal(text: &str) -> Result<i32> {
    if text.is_empty() {
        return Ok(rustix::process::Signal::TERM.as_raw());
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, number)| number);
    let real_time = || {
        name.strip_prefix("RTMIN+")
            .and_then(|offset| Some(REAL_TIME.start() + offset.parse::<u8>().ok()? as i32))
    };
    let number = by_name.or_else(|| text.parse().ok()).or_else(real_time);
    number
        .filter(|number| (1..=31).contains(number) || REAL_TIME.contains(number))
        .ok_or_else(|| Error::new(Class::Invalid, format!("invalid signal: {text}")))
}

/// `--runtime`: a name stands for the program of that name.
pub(super) fn runtime(asked: Option<&Path>, default: &mica_runtime::Runtime) -> mica_runtime::Runtime {
    match asked {
        None => default.clone(),
        Some(path) if path == Path::new("own") || path == Path::new("mica") => mica_runtime::Runtime::Own,
        Some(path) => mica_runtime::Runtime::External(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn names(add: &[&str], drop: &[&str]) -> Vec<String> {
        let found = capabilities(&strings(add), &strings(drop)).unwrap();
        found.into_iter().map(Capability::name).collect()
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        assert!(!names(&[], &["chown"]).contains(&"CAP_CHOWN".to_owned()));
        assert!(names(&["SYS_ADMIN"], &[]).contains(&"CAP_SYS_ADMIN".to_owned()));
        assert_eq!(names(&["CAP_NET_RAW"], &["ALL"]), ["CAP_NET_RAW"]);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"]).len(), Capability::all().count() - 1);
        let error = capabilities(&strings(&["FOO"]), &[]).unwrap_err();
        assert_eq!(error.message, "invalid CapAdd: unknown capability \"FOO\"");
    }

    #[test]
    fn security_options_are_known_by_name_or_refused() {
        let read = |options: &[&str]| security(&strings(options));
        assert!(read(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(!read(&["no-new-privileges", "no-new-privileges:false"]).unwrap().no_new_privileges);
        assert_eq!(read(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert!(read(&["label=disable", "apparmor=unconfined"]).is_ok());
        assert_eq!(read(&["apparmor=mine"]).unwrap_err().class, Class::Unsupported);
        assert_eq!(read(&["nonsense"]).unwrap_err().message, "invalid --security-opt: \"nonsense\"");
        assert_eq!(read(&["seccomp=/does/not/exist"]).unwrap_err().class, Class::Invalid);
    }

    #[test]
    fn tmpfs_options_are_those_of_mount() {
        let mount = tmpfs("/run", "rw,exec,size=64m,mode=700").unwrap();
        assert_eq!(mount.source, MountSource::Tmpfs { size_bytes: Some(64 << 20), mode: Some(0o700) });
        assert!(!mount.noexec && mount.nosuid && !mount.read_only);
        assert!(tmpfs("/run", "").unwrap().noexec);
        assert_eq!(tmpfs("/run", "size=x").unwrap_err().message, "invalid tmpfs option [\"size=x\"]");
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("", 15), ("SIGINT", 2), ("kill", 9), ("31", 31), ("RTMIN+3", 37)] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in ["SIGFOO", "0", "65", "RTMIN+99"] {
            assert_eq!(signal(text).unwrap_err().message, format!("invalid signal: {text}"));
        }
    }

    #[test]
    fn ulimits_have_one_or_two_numbers() {
        let two = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((two.soft, two.hard), (Some(1024), Some(2048)));
        assert_eq!(ulimit("core=-1").unwrap().hard, None);
        assert!(ulimit("core").is_err());
    }
}
