//! `logs`: what a container printed, and goes on printing.

use std::io;
use std::time::Duration;

use mica_api::{Cancel, Class, Error, LogLine, LogRequest, Result, Timestamp};

use super::list::Container;
use super::log::{self, LogReader, is_wanted};
use super::state::Life;
use crate::LocalEngine;

/// How often a running container's log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);
/// How long the last words of a container may take to be written after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// `logs`.
pub(crate) fn logs(
    engine: &LocalEngine,
    request: &LogRequest,
    cancel: &Cancel,
    line: &mut dyn FnMut(LogLine) -> Result<()>,
) -> Result<()> {
    let container = Container::find(engine, &request.container)?;
    let id = container.record.id.as_str();
    let path = log::path(&engine.store().state().container(&container.record.id), id);
    let unreadable = |error: io::Error| {
        Error::new(
            Class::of_io(&error),
            format!("cannot read the log of container {}", container.record.name),
        )
        .why(error.to_string())
    };
    let mut reader = LogReader::open(&path).map_err(unreadable)?;
    if let Some(reader) = &mut reader {
        for found in reader.so_far(request).map_err(unreadable)? {
            line(found)?;
        }
    }
    let mut patience = LAST_WORDS;
    while request.follow && !is_over(request) && !cancel.is_cancelled() {
        // Asked before reading: what is printed between the two is then still read.
        match life(engine, id) {
            Following::Running => {}
            Following::Ending => patience = patience.saturating_sub(FOLLOW_INTERVAL),
            Following::Ended => patience = Duration::ZERO,
        }
        if reader.is_none() {
            reader = LogReader::open(&path).map_err(unreadable)?;
        }
        while let Some(found) = reader.as_mut().map_or(Ok(None), LogReader::next).map_err(unreadable)? {
            if is_wanted(&found, request) {
                line(found)?;
            }
        }
        if patience.is_zero() {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
    Ok(())
}

/// Nothing newer than `--until` is wanted.
fn is_over(request: &LogRequest) -> bool {
    request.until.is_some_and(|until| Timestamp::now() > until)
}

/// Whether there may be more to read.
enum Following {
    Running,
    /// The process is gone, but its end, which comes after its output, is not recorded.
    Ending,
    Ended,
}

fn life(engine: &LocalEngine, id: &str) -> Following {
    match Container::find(engine, id) {
        Ok(container) if container.state.process().is_some() => Following::Running,
        Ok(container) if matches!(container.state.life, Life::Running(_)) => Following::Ending,
        _ => Following::Ended,
    }
}
