//! Layers on their way, in docker's words: a line for every change, or on a terminal one line per layer, kept up to date.

use std::sync::{Mutex, PoisonError};

use mica_api::{Event, EventSink, TransferState, TransferUpdate};

use crate::format::units::size3;
use crate::output::Out;

/// Columns of a bar.
const BAR: usize = 50;

/// Shows transfers on standard output and remarks on standard error.
pub(crate) struct TransferDisplay<'a> {
    out: &'a Out,
    err: &'a Out,
    /// What is on the terminal, topmost first.
    lines: Mutex<Vec<(String, TransferState)>>,
}

impl<'a> TransferDisplay<'a> {
    /// Shows on these streams.
    pub(crate) fn new(out: &'a Out, err: &'a Out) -> Self {
        Self { out, err, lines: Mutex::default() }
    }

    fn update(&self, update: TransferUpdate) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let position = lines.iter().position(|(id, _)| *id == update.id);
        if position.is_some_and(|at| lines[at].1 == update.state) {
            return;
        }
        let text = line(&update, self.out.is_terminal());
        let shown = match (self.out.is_terminal(), position) {
            (false, _) => text.map(|text| format!("{text}\n")),
            (true, None) => text.map(|text| format!("{text}\n")),
            (true, Some(at)) => {
                let up = lines.len() - at;
                text.map(|text| format!("\x1b[{up}A\x1b[2K\r{text}\n{}", down(up - 1)))
            }
        };
        match position {
            Some(at) => lines[at].1 = update.state,
            None => lines.push((update.id, update.state)),
        }
        if let Some(shown) = shown {
            // Nobody reads it: the transfer is still wanted.
            let _unheard = self.out.bytes(shown.as_bytes());
        }
    }
}

impl EventSink for TransferDisplay<'_> {
    fn event(&self, event: Event) {
        match event {
            Event::Transfer(update) => self.update(update),
            Event::Notice(text) => {
                // A remark nobody can read stops nothing.
                let _unheard = self.err.line(&text);
            }
            _ => {}
        }
    }
}

fn down(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}B") }
}

/// One line, `None` for what is only worth a bar.
fn line(update: &TransferUpdate, with_bars: bool) -> Option<String> {
    let TransferUpdate { id, state } = update;
    let words = match state {
        TransferState::PullingFrom(repository) => format!("Pulling from {repository}"),
        TransferState::Queued => "Pulling fs layer".to_owned(),
        TransferState::AlreadyHere => "Already exists".to_owned(),
        TransferState::Downloaded => "Download complete".to_owned(),
        TransferState::Pulled => "Pull complete".to_owned(),
        TransferState::Preparing => "Preparing".to_owned(),
        TransferState::Pushed => "Pushed".to_owned(),
        TransferState::AlreadyThere => "Layer already exists".to_owned(),
        TransferState::Mounted(from) => format!("Mounted from {from}"),
        TransferState::Downloading { current_bytes, total_bytes } if with_bars => {
            format!("Downloading {}", bar(*current_bytes, *total_bytes))
        }
        TransferState::Uploading { current_bytes, total_bytes } if with_bars => {
            format!("Pushing {}", bar(*current_bytes, *total_bytes))
        }
        TransferState::Downloading { .. } | TransferState::Uploading { .. } => return None,
    };
    Some(crate::output::printable(&format!("{id}: {words}")).into_owned())
}

/// `[=====>     ]  1.2MB/3.4MB`.
fn bar(current: u64, total: u64) -> String {
    let part = usize::try_from(current.saturating_mul(BAR as u64) / total.max(1)).unwrap_or(BAR).min(BAR);
    let head = if part < BAR { ">" } else { "" };
    let done = "=".repeat(part);
    format!("[{:<BAR$}]  {}/{}", format!("{done}{head}"), size3(current), size3(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn shown(terminal: bool, states: &[(&str, TransferState)]) -> String {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let out = Out::of(Arc::clone(&bytes), terminal);
        let display = TransferDisplay::new(&out, &out);
        for (id, state) in states {
            display.event(Event::Transfer(TransferUpdate { id: (*id).to_owned(), state: state.clone() }));
        }
        let bytes = bytes.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn states() -> Vec<(&'static str, TransferState)> {
        vec![
            ("latest", TransferState::PullingFrom("library/a\x1b[1m".into())),
            ("aa", TransferState::Queued),
            ("bb", TransferState::AlreadyHere),
            ("aa", TransferState::Downloading { current_bytes: 500_000, total_bytes: 1_000_000 }),
            ("aa", TransferState::Pulled),
            ("aa", TransferState::Pulled),
        ]
    }

    #[test]
    fn a_file_gets_a_line_for_every_change_and_no_bars() {
        assert_eq!(
            shown(false, &states()),
            "latest: Pulling from library/a\\x1b[1m\naa: Pulling fs layer\nbb: Already exists\naa: Pull complete\n"
        );
    }

    #[test]
    fn a_terminal_has_one_line_per_layer() {
        let text = shown(true, &states());
        let bar = format!("[{:<50}]", format!("{}>", "=".repeat(25)));
        assert!(
            text.contains(&format!("\x1b[2A\x1b[2K\raa: Downloading {bar}  500kB/1MB\n\x1b[1B")),
            "{text:?}"
        );
        assert!(text.ends_with("\x1b[2A\x1b[2K\raa: Pull complete\n\x1b[1B"), "{text:?}");
    }
}
