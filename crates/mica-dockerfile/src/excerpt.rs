//! The lines around an error (P35, P36).

use std::fmt::Write as _;

use crate::ast::Location;

/// Returns the excerpt: a line `NAME:LINE`, a rule, the lines around `location` with its own marked, a rule.
///
/// Ends with a line feed. Empty if `location` is not in the text. Control characters other than tabs are
/// escaped: the text is foreign, and this goes to terminals.
pub fn frame(file_name: &str, source: &str, location: Location) -> String {
    let lines: Vec<&str> = source.split('\n').collect();
    let first = location.start as usize;
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let last = (location.end as usize).clamp(first, lines.len());
    let (start, end) = padded(first, last, lines.len());
    let mut out = format!("{file_name}:{first}\n{RULE}\n");
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let text = printable(lines[number - 1].trim_end_matches('\r'));
        // Writing to a string cannot fail.
        let _ = writeln!(out, " {number:>3} | {mark} {text}");
    }
    out.push_str(RULE);
    out.push('\n');
    out
}

const RULE: &str = "--------------------";

/// Widens a range of lines. Each round costs one unit, and one more for each side that has a line left.
fn padded(first: usize, last: usize, count: usize) -> (usize, usize) {
    let budget = if first == last { 4 } else { 2 };
    let (mut start, mut end, mut spent) = (first, last, 0);
    while spent < budget {
        if start > 1 {
            start -= 1;
            spent += 1;
        }
        if end < count {
            end += 1;
            spent += 1;
        }
        spent += 1;
    }
    (start, end)
}

fn printable(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut out, c| {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}
