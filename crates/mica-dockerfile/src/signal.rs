//! Names of signals (I7).

/// A STOPSIGNAL that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct InvalidSignal(pub String);

/// The names without `SIG`; real-time signals apart.
const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// Checks an expanded STOPSIGNAL: a number from 1, or a name with or without `SIG` in any case.
///
/// # Errors
/// [`InvalidSignal`] for anything else.
pub fn check_stop_signal(text: &str) -> Result<(), InvalidSignal> {
    let valid = match text.parse::<i64>() {
        Ok(number) => number >= 1,
        Err(_) => is_name(text),
    };
    if valid { Ok(()) } else { Err(InvalidSignal(text.to_owned())) }
}

fn is_name(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return is_offset(offset, 15);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-") {
        return is_offset(offset, 14);
    }
    name == "RTMAX" || NAMES.contains(&name)
}

fn is_offset(text: &str, largest: u32) -> bool {
    !text.starts_with(['0', '+']) && text.parse().is_ok_and(|offset: u32| offset <= largest)
}

#[cfg(test)]
mod tests {
    use super::check_stop_signal;

    #[test]
    fn names_and_numbers_of_signals_are_known() {
        for text in
            ["SIGTERM", "term", "sigQuit", "9", "15", "64", "RTMIN+3", "SIGRTMAX-14", "RTMAX", "RTMIN"]
        {
            assert!(check_stop_signal(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_signals() {
        for text in ["0", "-1", "", "SIG", "SIGBOGUS", "RTMIN+16", "RTMIN+01", "RTMAX-15", "TERM "] {
            assert!(check_stop_signal(text).is_err(), "{text}");
        }
        assert_eq!(check_stop_signal("0").unwrap_err().to_string(), "invalid signal: 0");
    }
}
