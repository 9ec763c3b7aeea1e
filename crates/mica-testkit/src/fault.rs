//! Faults at moments nobody chose: commands killed on the way, again and again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Mica, Output};

/// How many rounds a fault test takes: `MICA_FAULT_ROUNDS`, or 5.
pub fn rounds() -> usize {
    std::env::var("MICA_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

/// Delays without a pattern, the same again for the same seed.
pub struct Chance {
    state: u64,
}

impl Chance {
    /// Starts from `MICA_FAULT_SEED`, or from the clock; prints the seed, so that a failure can be repeated.
    pub fn new() -> Self {
        let given = std::env::var("MICA_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(clock.subsec_nanos()) ^ clock.as_secs()
        });
        eprintln!("MICA_FAULT_SEED={seed}");
        Self::of(seed)
    }

    /// Starts from a seed, for the threads of a test that has printed its own.
    pub fn of(seed: u64) -> Self {
        Self { state: seed.wrapping_add(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// A number below `limit`: xorshift64*.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit.max(1)
    }

    /// A delay below `limit`.
    pub fn delay(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a command, and kills its process group at a random moment within `within`.
///
/// Measure `within` by [`duration_of`] on the same command: later kills hit nothing.
#[track_caller]
pub fn kill_on_the_way(mica: &Mica, arguments: &[&str], within: Duration, chance: &mut Chance) -> Output {
    let mut running = mica.spawn(arguments);
    let moment = Instant::now() + chance.delay(within);
    while Instant::now() < moment && running.is_running() {
        std::thread::sleep(Duration::from_micros(200));
    }
    running.kill()
}

/// Runs a command, which has to succeed, and says how long it took.
#[track_caller]
pub fn duration_of(mica: &Mica, arguments: &[&str]) -> Duration {
    let started = Instant::now();
    mica.run(arguments).success();
    started.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_their_limit_and_differ() {
        let mut chance = Chance { state: 7 };
        let delays: Vec<Duration> = (0..100).map(|_| chance.delay(Duration::from_millis(10))).collect();
        assert!(delays.iter().all(|delay| *delay < Duration::from_millis(10)));
        assert!(delays.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
