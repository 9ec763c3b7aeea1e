//! Progress on a terminal: a block of lines that is drawn again and again, and once more when all is done.
//!
//! Every frame goes up over the last one and is wrapped in a synchronised update, so that it does not flicker. Lines
//! are cut to the width and rows to the height: what ended is dropped first. The last frame has everything.

use mica_api::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::colours::Colours;
use super::display::{Phase, Renderer};
use super::trace::{Status, Trace, Vertex};
use crate::format::units;

const BEGIN: &str = "\u{1b}[?2026h\u{1b}[?25l";
const END: &str = "\u{1b}[?25h\u{1b}[?2026l";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

/// Columns and rows.
pub(crate) type Size = (usize, usize);

/// The terminal renderer.
pub(crate) struct Tty {
    colours: Colours,
    /// Asked before every frame: terminals change.
    size: Box<dyn Fn() -> Size + Send>,
    /// Lines of log shown under a running vertex.
    log_lines: usize,
    /// Columns of the lines of the last frame.
    drawn: Vec<usize>,
    notices: Vec<String>,
}

impl std::fmt::Debug for Tty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tty").field("drawn", &self.drawn.len()).finish_non_exhaustive()
    }
}

/// One line, and whether it may be dropped when there are too many.
struct Row {
    text: String,
    columns: usize,
    ended: bool,
}

impl Row {
    fn of(colour: &str, line: String, ended: bool) -> Self {
        Self { columns: line.width(), text: Colours::paint(colour, &line), ended }
    }
}

/// How many rows of the screen lines take up now: a terminal that became narrower has wrapped them.
fn rows_on_screen(columns: &[usize], width: usize) -> usize {
    columns.iter().map(|columns| columns.div_ceil(width.max(1)).max(1)).sum()
}

impl Tty {
    /// A renderer that has drawn nothing.
    pub(crate) fn new(colours: Colours, size: Box<dyn Fn() -> Size + Send>, log_lines: usize) -> Self {
        Self { colours, size, log_lines, drawn: Vec::new(), notices: Vec::new() }
    }

    fn rows(&self, trace: &Trace, now: Timestamp, width: usize, phase: Phase) -> Vec<Row> {
        let mut order: Vec<&Vertex> = trace.vertices.iter().filter(|vertex| vertex.number > 0).collect();
        order.sort_by_key(|vertex| vertex.number);
        let mut rows = Vec::new();
        for vertex in order {
            let ended = vertex.completed.is_some();
            rows.push(self.vertex_row(vertex, now, width));
            for status in &vertex.statuses {
                rows.push(Row { ended, ..self.status_row(status, now, width) });
            }
            for warning in &vertex.fresh_warnings {
                let line = justified(&format!(" => WARN: {}", clean(warning)), "", 0.0, width);
                rows.push(Row::of("", line, ended));
            }
            if vertex.is_open() && phase == Phase::Running {
                rows.extend(self.log_rows(vertex, width));
            }
        }
        rows
    }

    fn vertex_row(&self, vertex: &Vertex, now: Timestamp, width: usize) -> Row {
        let (prefix, colour) = match &vertex.error {
            Some(_) if vertex.is_cancelled() => ("CANCELED ", self.colours.cancel.as_str()),
            Some(_) => ("ERROR ", self.colours.error.as_str()),
            None if vertex.cached => ("CACHED ", self.colours.run.as_str()),
            None if vertex.completed.is_some() => ("", self.colours.run.as_str()),
            None => ("", ""),
        };
        let line = justified(&format!(" => {prefix}{}", clean(&vertex.name)), "", vertex.seconds(now), width);
        Row::of(colour, line, vertex.completed.is_some())
    }

    fn status_row(&self, status: &Status, now: Timestamp, width: usize) -> Row {
        let update = &status.update;
        let amount = match (update.total, update.current) {
            (0, 0) => String::new(),
            (0, current) => units::size_of_progress(current),
            (total, current) => {
                format!("{} / {}", units::size_of_progress(current), units::size_of_progress(total))
            }
        };
        let seconds =
            update.started.map_or(0.0, |at| update.completed.unwrap_or(now).seconds_since(at).max(0.0));
        let line = justified(&format!(" => => {}", clean(&update.id)), &amount, seconds, width);
        Row::of(if update.completed.is_some() { &self.colours.run } else { "" }, line, false)
    }

    fn log_rows(&self, vertex: &Vertex, width: usize) -> impl Iterator<Item = Row> {
        let skipped = vertex.screen.len().saturating_sub(self.log_lines);
        let lines: Vec<Row> = vertex
            .screen
            .iter()
            .skip(skipped)
            .map(|line| cut(&format!(" => => # {}", clean(line)), width.saturating_sub(1)))
            .map(|text| Row::of(&self.colours.faint, text, false))
            .collect();
        lines.into_iter()
    }
}

impl Renderer for Tty {
    fn frame(&mut self, trace: &mut Trace, now: Timestamp, phase: Phase) -> String {
        let (width, height) = (self.size)();
        self.notices.append(&mut trace.notices);
        trace.changed.clear();
        for vertex in &mut trace.vertices {
            // Lines are shown from `screen`; those kept for plain printing would only take memory.
            vertex.fresh_lines.clear();
        }
        let mut out = BEGIN.to_owned();
        let above = rows_on_screen(&self.drawn, width);
        if above > 0 {
            out.push_str(&format!("\r\u{1b}[{above}A"));
        }
        for notice in self.notices.drain(..) {
            out.push_str(&format!("{}{CLEAR_LINE}\r\n", clean(&notice)));
        }
        let mut rows = self.rows(trace, now, width, phase);
        if phase == Phase::Running {
            limit(&mut rows, height.saturating_sub(2).max(1));
        }
        rows.insert(0, Row::of("", header(trace, now, phase, width), false));
        for row in &rows {
            out.push_str(&format!("{}{CLEAR_LINE}\r\n", row.text));
        }
        self.drawn = rows.iter().map(|row| row.columns).collect();
        out + CLEAR_BELOW + END
    }
}

/// `[+] Building 1.2s (3/5)`.
fn header(trace: &Trace, now: Timestamp, phase: Phase, width: usize) -> String {
    let total = trace.vertices.len();
    let completed = trace.vertices.iter().filter(|vertex| vertex.completed.is_some()).count();
    let end = match phase {
        Phase::Running => now,
        Phase::Finished => trace.vertices.iter().filter_map(|vertex| vertex.completed).max().unwrap_or(now),
    };
    let seconds = trace.started().map_or(0.0, |at| end.seconds_since(at).max(0.0));
    let finished = if phase == Phase::Finished && completed == total && total > 0 { " FINISHED" } else { "" };
    cut(&format!("[+] Building {seconds:.1}s ({completed}/{total}){finished}"), width.saturating_sub(1))
}

/// Drops rows until they fit: what ended first, then from the top.
fn limit(rows: &mut Vec<Row>, height: usize) {
    let mut surplus = rows.len().saturating_sub(height);
    rows.retain(|row| {
        let dropped = surplus > 0 && row.ended;
        surplus -= usize::from(dropped);
        !dropped
    });
    let surplus = rows.len().saturating_sub(height);
    rows.drain(..surplus);
}

/// A text at the left, an amount and seconds at the right edge. One column stays free: terminals wrap at the last.
fn justified(left: &str, amount: &str, seconds: f64, width: usize) -> String {
    let seconds = if seconds < 0.05 { 0.0 } else { seconds };
    let timer = format!("{seconds:>3.1}s");
    let room = width.saturating_sub(timer.width() + 2);
    let mut text = left.to_owned();
    if !amount.is_empty() && room >= amount.width() + 21 {
        text = format!("{} {amount}", cut(left, room - amount.width() - 1));
    }
    let text = cut(&text, room);
    let fill = " ".repeat(room.saturating_sub(text.width()) + 1);
    format!("{text}{fill}{timer}")
}

/// The beginning of a text that fits into so many columns.
fn cut(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += c.width().unwrap_or_default();
            used <= columns
        })
        .collect()
}

/// A line without what would move the cursor: what a carriage return overwrote, escape sequences, control characters.
fn clean(line: &str) -> String {
    let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips a CSI sequence up to its final letter, an OSC string up to its end, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\\') {},
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use crate::testing::screen::Screen;
    use crate::testing::{golden, recorded};

    fn tty(size: Size) -> Tty {
        Tty::new(Colours::of(&crate::environment::Environment::default()), Box::new(move || size), 6)
    }

    /// Escapes made visible, so that goldens are plain files.
    fn visible(text: &str) -> String {
        text.replace('\u{1b}', "^[").replace('\r', "^M")
    }

    #[test]
    fn the_last_frame_has_everything() {
        let text = recorded::last_frame(&mut tty((80, 24)), &recorded::success());
        golden("progress-tty", &visible(&text));
        let text = recorded::last_frame(&mut tty((60, 24)), &recorded::failure());
        golden("progress-tty-failure", &visible(&text));
    }

    #[test]
    fn a_running_build_shows_logs_and_fits_the_screen() {
        let events = recorded::success();
        let cut_at = events.iter().rposition(|event| matches!(event, mica_api::Event::Log { .. })).unwrap();
        let text = recorded::frame_after(&mut tty((50, 8)), &events[..=cut_at]);
        golden("progress-tty-running", &visible(&text));
        // One line for the remark, which stays above, and a block that leaves the last row free.
        assert!(text.matches('\n').count() <= 8, "{text}");
    }

    const SIZES: [Size; 8] =
        [(20, 5), (20, 24), (80, 5), (80, 24), (80, 200), (200, 5), (200, 24), (200, 200)];

    /// What is on a screen after every event, and in the end.
    fn watched(size: Size, events: &[mica_api::Event], look: &mut dyn FnMut(&Screen)) -> Screen {
        let (mut tty, mut screen, mut trace) = (tty(size), Screen::new(size), Trace::default());
        for event in events {
            trace.update(event);
            screen.write(&tty.frame(&mut trace, recorded::time_of(event), Phase::Running));
            look(&screen);
        }
        screen.write(&tty.frame(&mut trace, Timestamp(i64::MAX / 2), Phase::Finished));
        screen
    }

    fn headers(screen: &Screen) -> usize {
        screen.text().iter().filter(|line| line.starts_with("[+] Building")).count()
    }

    #[test]
    fn a_block_stays_one_block_on_every_screen() {
        for size in SIZES {
            for events in [recorded::success(), recorded::failure(), recorded::two_busy_steps()] {
                // the one remark of the engine is a line of its own, and as long as it is
                let remark = events.iter().any(|event| matches!(event, mica_api::Event::Notice(_)));
                let mut check = |screen: &Screen| {
                    let text = screen.text();
                    assert_eq!(headers(screen), 1, "{size:?}: {text:#?}");
                    assert!(screen.wrapped() == 0 || remark, "{size:?}: {text:#?}");
                    let block = text.iter().rposition(|line| line.starts_with("[+]")).unwrap();
                    assert!(text.len() - block < size.1, "{size:?}: {text:#?}");
                };
                let end = watched(size, &events, &mut check);
                assert_eq!(headers(&end), 1, "{size:?}: {:#?}", end.text());
                let vertices = end.text().iter().filter(|line| line.starts_with(" => ")).count();
                assert!(vertices >= 2, "{size:?}: {:#?}", end.text());
            }
        }
    }

    #[test]
    fn a_terminal_that_changes_its_size_shows_no_leftovers() {
        for sizes in
            [[(80, 24), (20, 24)], [(80, 24), (200, 24)], [(200, 24), (60, 24)], [(20, 24), (80, 24)]]
        {
            let now = Arc::new(Mutex::new(sizes[0]));
            let asked = Arc::clone(&now);
            let colours = Colours::of(&crate::environment::Environment::default());
            let mut tty = Tty::new(colours, Box::new(move || *asked.lock().unwrap()), 6);
            let (mut screen, mut trace) = (Screen::new(sizes[0]), Trace::default());
            for (count, event) in recorded::failure().iter().enumerate() {
                trace.update(event);
                if count == 7 {
                    *now.lock().unwrap() = sizes[1];
                    screen.resize(sizes[1]);
                }
                screen.write(&tty.frame(&mut trace, recorded::time_of(event), Phase::Running));
                assert_eq!(headers(&screen), 1, "{sizes:?}: {:#?}", screen.text());
            }
            assert_eq!(screen.wrapped(), 0, "{sizes:?}: {:#?}", screen.text());
        }
    }

    #[test]
    fn lines_of_programs_cannot_move_the_cursor() {
        assert_eq!(clean("10%\r20%\u{1b}[2K\u{1b}[31mred\u{1b}[0m\u{8}\tx\r"), "20%red    x");
        assert_eq!(clean("\u{1b}]0;title\u{7}text"), "text");
    }

    #[test]
    fn wide_characters_are_cut_by_columns() {
        assert_eq!(cut("漢字漢字", 5), "漢字");
        assert_eq!(justified("ab", "1B / 2B", 0.31, 40).width(), 39);
    }
}
