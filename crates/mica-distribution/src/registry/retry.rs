//! When to ask again, and when to give up.

use std::time::Duration;

use crate::HttpError;

/// How often one request is made without any progress.
pub(super) const ATTEMPTS: u32 = 5;
/// The first pause.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause of our own choice.
const LONGEST: Duration = Duration::from_secs(20);
/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// Whether a status may be another one soon.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a failed connection may work soon.
pub(super) fn is_broken(error: &HttpError) -> bool {
    match error {
        HttpError::Silent { .. } => true,
        // a name that is not known, or a port that nobody listens on, stays so
        HttpError::Transport { source, .. } => !source.is_connect() && !source.is_builder(),
        _ => false,
    }
}

/// The pause after attempt number `attempt` (the first is 1): doubling, anywhere between nothing and all of it.
pub(super) fn pause(attempt: u32, asked: Option<Duration>, random: u64) -> Duration {
    if let Some(asked) = asked {
        return asked.min(LONGEST_ASKED);
    }
    let whole = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    whole.mul_f64((random % 1000) as f64 / 1000.0)
}

/// `Retry-After` in seconds; a date is not worth a calendar.
pub(super) fn asked(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A number nobody can foresee; good enough to spread requests.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_the_server_has_its_say() {
        let longest = |attempt| pause(attempt, None, 999);
        assert!(longest(1) < FIRST && longest(2) > FIRST && longest(40) < LONGEST);
        assert_eq!(pause(1, Some(Duration::from_secs(3)), 0), Duration::from_secs(3));
        assert_eq!(pause(1, Some(Duration::from_secs(9999)), 0), LONGEST_ASKED);
    }
}
