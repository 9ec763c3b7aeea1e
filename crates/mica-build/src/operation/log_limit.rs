//! How much of what a step prints is shown: a program gone wild must not fill a disk with its log.
//!
//! BuildKit's rules, per stream: so many bytes in all, and so many per second. What is left out is kept in part, and
//! shown if the step fails: the last words are what explains it.

use std::collections::VecDeque;
use std::time::Duration;

use mica_api::LogLimits;

/// The last bytes of a clipped stream that are kept.
const KEPT_BYTES: usize = 256 << 10;

/// One stream of one step.
#[derive(Debug)]
pub(super) struct Clipped {
    limits: LogLimits,
    seen_bytes: u64,
    clipping: bool,
    /// The end of the stream, from the first byte left out.
    kept: Option<VecDeque<u8>>,
}

impl Clipped {
    pub(super) fn new(limits: LogLimits) -> Self {
        Self { limits, seen_bytes: 0, clipping: false, kept: None }
    }

    /// What is shown of the next bytes, printed so long after the step began.
    pub(super) fn pass(&mut self, data: &[u8], elapsed: Duration) -> Vec<u8> {
        let (limit, name) = self.limit(elapsed);
        let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.seen_bytes));
        self.seen_bytes += data.len() as u64;
        let shown = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
        let is_clipped = shown < data.len();
        if self.kept.is_some() || is_clipped {
            self.keep(&data[shown..]);
        }
        let mut out = data[..shown].to_vec();
        if is_clipped && !self.clipping {
            out.extend_from_slice(format!("\n[output clipped, log limit {name} reached]\n").as_bytes());
        }
        self.clipping = is_clipped;
        out
    }

    /// The end of what was left out.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        self.kept.take().unwrap_or_default().into()
    }

    /// How many bytes may have been shown by now, and what that limit is called.
    fn limit(&self, elapsed: Duration) -> (Option<u64>, String) {
        let Some(size) = self.limits.bytes else { return (None, String::new()) };
        let begun = elapsed.as_secs() + u64::from(elapsed.subsec_nanos() > 0);
        match self.limits.bytes_per_second.map(|speed| (speed, speed.saturating_mul(begun))) {
            Some((speed, by_now)) if by_now <= size => (Some(by_now), format!("{}/s", rounded(speed))),
            _ => (Some(size), rounded(size)),
        }
    }

    fn keep(&mut self, data: &[u8]) {
        let kept = self.kept.get_or_insert_default();
        kept.extend(data);
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }
}

/// `2MiB`, `200KiB`.
fn rounded(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(clipped: &mut Clipped, bytes: usize, seconds: u64) -> String {
        String::from_utf8(clipped.pass(&vec![b'x'; bytes], Duration::from_secs(seconds))).unwrap()
    }

    #[test]
    fn a_stream_is_clipped_once_and_goes_on_when_time_allows() {
        let limits = LogLimits { bytes: Some(2048), bytes_per_second: Some(10) };
        let mut clipped = Clipped::new(limits);
        assert_eq!(passed(&mut clipped, 8, 1), "xxxxxxxx");
        assert_eq!(passed(&mut clipped, 5, 1), "xx\n[output clipped, log limit 10B/s reached]\n");
        assert_eq!(passed(&mut clipped, 5, 1), "");
        assert_eq!(passed(&mut clipped, 5, 9), "xxxxx");
        assert_eq!(clipped.rest(), b"xxxxxxxx");
        let mut large = Clipped::new(LogLimits { bytes_per_second: None, ..limits });
        assert!(passed(&mut large, 3000, 1).ends_with("x\n[output clipped, log limit 2KiB reached]\n"));
    }

    #[test]
    fn nothing_is_kept_of_what_was_shown_and_not_everything_of_the_rest() {
        let mut free = Clipped::new(LogLimits { bytes: None, bytes_per_second: Some(1) });
        assert_eq!(passed(&mut free, 5000, 1).len(), 5000);
        assert_eq!(free.rest(), b"");
        let mut clipped = Clipped::new(LogLimits { bytes: Some(1), bytes_per_second: None });
        passed(&mut clipped, 1 << 20, 1);
        assert_eq!(clipped.rest().len(), KEPT_BYTES);
    }
}
