//! Plain progress: the line grammar that scripts parse (build.md S1 to S3).
//!
//! One vertex is shown at a time. Which one, when several run, is BuildKit's rule: what ended comes first; the one
//! shown stays until it has had its share of time or another has waited too long.

use std::collections::HashMap;

use mica_api::{StatusUpdate, Timestamp};

use super::display::{Phase, Renderer};
use super::trace::{Status, Trace, Vertex};
use crate::format::units;

/// Seconds for which the vertex shown is not switched away, if it prints as much as the others.
const ANTI_FLICKER_SECONDS: f64 = 5.0;
/// Seconds after which a waiting vertex is shown in any case.
const MAX_DELAY_SECONDS: f64 = 10.0;
/// A status is shown again after this many seconds…
const STATUS_SECONDS: f64 = 5.0;
/// …or after this much of it was done.
const STATUS_FRACTION: f64 = 0.05;
/// Printed before anything else.
const DESCRIPTION: &str = "building with \"default\" instance using mica driver";
/// Columns of names with `PROGRESS_NO_TRUNC=0`.
const SHORT_NAME: usize = 72;

/// The plain renderer.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// Cut names to 72 columns.
    short_names: bool,
    current: Option<usize>,
    begun: bool,
    shown: HashMap<String, (u64, Timestamp)>,
    out: String,
}

impl Renderer for Plain {
    fn frame(&mut self, trace: &mut Trace, now: Timestamp, phase: Phase) -> String {
        for notice in std::mem::take(&mut trace.notices) {
            self.notice(&notice, trace);
        }
        self.print(trace, now);
        if phase == Phase::Finished {
            for index in trace.changed.clone() {
                self.vertex(trace, index);
            }
        }
        std::mem::take(&mut self.out)
    }
}

impl Plain {
    /// A renderer that has printed nothing.
    pub(crate) fn new(short_names: bool) -> Self {
        Self { short_names, ..Self::default() }
    }

    fn print(&mut self, trace: &mut Trace, now: Timestamp) {
        let (mut completed, rest): (Vec<usize>, Vec<usize>) =
            trace.changed.iter().copied().partition(|index| trace.vertices[*index].completed.is_some());
        let shown = self.current;
        completed.sort_by_key(|index| {
            let vertex = &trace.vertices[*index];
            (Some(*index) != shown, vertex.completed, vertex.number)
        });
        for index in &completed {
            self.vertex(trace, *index);
        }
        let current_ended = shown.is_some_and(|index| completed.contains(&index));
        if rest.is_empty() {
            if self.current.is_none_or(|index| !trace.vertices[index].is_open()) {
                self.show_an_open_one(trace);
            }
            return;
        }
        if let Some(index) = shown.filter(|index| rest.contains(index)) {
            self.vertex(trace, index);
        }
        let next = if current_ended { None } else { shown };
        if let Some(index) = choose(trace, &rest, next, now) {
            self.vertex(trace, index);
        }
    }

    fn show_an_open_one(&mut self, trace: &mut Trace) {
        let open = (0..trace.vertices.len()).filter(|index| trace.vertices[*index].is_open());
        if let Some(index) = open.min_by_key(|index| trace.vertices[*index].number) {
            self.vertex(trace, index);
        }
    }

    /// Prints all news of a vertex.
    fn vertex(&mut self, trace: &mut Trace, index: usize) {
        if trace.vertices[index].number == 0 {
            trace.changed.remove(&index);
            return;
        }
        if self.current != Some(index) {
            self.switch_from_current(trace);
            let name = &trace.vertices[index].name;
            let name: String =
                if self.short_names { name.chars().take(SHORT_NAME).collect() } else { name.clone() };
            self.say(trace.vertices[index].number, &name);
        }
        let vertex = &mut trace.vertices[index];
        let open_status = self.statuses(vertex);
        for warning in std::mem::take(&mut vertex.fresh_warnings) {
            self.say(vertex.number, &format!("WARN: {warning}"));
        }
        for line in std::mem::take(&mut vertex.fresh_lines) {
            self.say(vertex.number, &line);
        }
        self.current = Some(index);
        if vertex.completed.is_some() && !open_status {
            self.current = None;
            vertex.news = 0;
            self.say(vertex.number, &ending(vertex));
        }
        trace.changed.remove(&index);
    }

    fn say(&mut self, number: usize, text: &str) {
        self.out.push_str(&format!("#{number} {text}\n"));
    }

    fn switch_from_current(&mut self, trace: &mut Trace) {
        if let Some(old) = self.current.take() {
            trace.vertices[old].news = 0;
            self.say(trace.vertices[old].number, "...");
        }
        if self.begun {
            self.out.push('\n');
        } else {
            self.out.push_str(&format!("#0 {DESCRIPTION}\n\n"));
            self.begun = true;
        }
    }

    fn notice(&mut self, text: &str, trace: &mut Trace) {
        self.switch_from_current(trace);
        self.say(0, text);
    }

    /// Prints statuses with enough news; returns whether one of them has not ended.
    fn statuses(&mut self, vertex: &mut Vertex) -> bool {
        let mut open = false;
        for Status { update, fresh } in &mut vertex.statuses {
            if !std::mem::take(fresh) || !self.is_worth_a_line(update) {
                continue;
            }
            self.shown.insert(update.id.clone(), (update.current, update.at));
            open |= update.completed.is_none();
            self.out.push_str(&format!("#{} {}\n", vertex.number, status_line(update)));
        }
        open
    }

    fn is_worth_a_line(&self, update: &StatusUpdate) -> bool {
        let Some((current, at)) = self.shown.get(&update.id).filter(|_| update.completed.is_none()) else {
            return true;
        };
        let done = update.current.saturating_sub(*current) as f64;
        let fraction = if update.total > 0 { done / update.total as f64 } else { 0.0 };
        fraction >= STATUS_FRACTION || update.at.seconds_since(*at) >= STATUS_SECONDS
    }
}

/// Which waiting vertex is shown next, if the one shown now has had its share.
fn choose(trace: &Trace, waiting: &[usize], current: Option<usize>, now: Timestamp) -> Option<usize> {
    let waited = |index: usize| {
        let since = trace.vertices[index].news_since.unwrap_or(now);
        now.seconds_since(since).max(1e-9)
    };
    let speed = |index: usize| trace.vertices[index].news as f64 / waited(index);
    let others: Vec<usize> = waiting.iter().copied().filter(|index| Some(*index) != current).collect();
    let fastest = others.iter().copied().max_by(|a, b| speed(*a).total_cmp(&speed(*b)))?;
    let Some(current) = current else { return Some(fastest) };
    if let Some(late) = others.iter().copied().find(|index| waited(*index) > MAX_DELAY_SECONDS) {
        return Some(late);
    }
    let sum: f64 = others.iter().copied().map(speed).sum::<f64>() + speed(current);
    let share = if sum > 0.0 { speed(current) / sum } else { 0.0 };
    (ANTI_FLICKER_SECONDS / (1.0 - share).max(1e-9) < waited(current)).then_some(fastest)
}

fn ending(vertex: &Vertex) -> String {
    match &vertex.error {
        Some(_) if vertex.is_cancelled() => "CANCELED".to_owned(),
        Some(error) => format!("ERROR: {error}"),
        None if vertex.cached => "CACHED".to_owned(),
        None if vertex.started.is_none() => "DONE".to_owned(),
        None => format!("DONE {:.1}s", vertex.seconds(Timestamp::default())),
    }
}

/// `transferring context: 2B 0.1s done`.
fn status_line(update: &StatusUpdate) -> String {
    let mut line = update.id.clone();
    if update.total != 0 {
        let (current, total) =
            (units::size_of_progress(update.current), units::size_of_progress(update.total));
        line.push_str(&format!(" {current} / {total}"));
    } else if update.current != 0 {
        line.push_str(&format!(" {}", units::size_of_progress(update.current)));
    }
    if let Some(started) = update.started {
        let seconds = update.completed.unwrap_or(update.at).seconds_since(started);
        if seconds > 0.01 {
            line.push_str(&format!(" {seconds:.1}s"));
        }
    }
    if update.completed.is_some() {
        line.push_str(" done");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{golden, recorded};

    #[test]
    fn a_recorded_build_has_buildkits_grammar() {
        golden("progress-plain", &recorded::replay(&mut Plain::default(), &recorded::success()));
    }

    #[test]
    fn a_failed_build_shows_the_error_and_what_was_cancelled() {
        golden("progress-plain-failure", &recorded::replay(&mut Plain::default(), &recorded::failure()));
    }

    #[test]
    fn long_names_are_cut_only_on_request() {
        let mut short = Plain::new(true);
        let text = recorded::replay(&mut short, &recorded::success());
        assert!(text.lines().all(|line| line.chars().count() <= SHORT_NAME + 4), "{text}");
    }

    #[test]
    fn the_vertex_shown_keeps_its_share_of_time() {
        let mut trace = Trace::default();
        let mut printer = Plain::default();
        let mut out = String::new();
        for event in recorded::two_busy_steps() {
            let now = recorded::time_of(&event);
            trace.update(&event);
            out.push_str(&printer.frame(&mut trace, now, Phase::Running));
        }
        golden("progress-plain-share", &out);
    }
}
