//! Columns: Go's `tabwriter` with docker's settings (minimal width 10, padding 3, spaces; build.md Y16).

use unicode_width::UnicodeWidthStr;

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns lines whose cells are separated by tabs. The last cell of a line is never padded.
pub(crate) fn align(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let widths = widths(&rows);
    let mut out = String::with_capacity(text.len() * 2);
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(cell.width())));
            }
        }
        out.push('\n');
    }
    out
}

/// The width of each column that something follows.
fn widths(rows: &[Vec<&str>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
            if widths.len() <= column {
                widths.push(MIN_WIDTH);
            }
            widths[column] = widths[column].max(cell.width() + PADDING);
        }
    }
    widths
}

/// Cuts a text to `width` characters, the last of which is then `…` (docker's `Ellipsis`).
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_at_least_ten_wide_and_three_apart() {
        assert_eq!(align("ID\tNAME\nabcdefghijkl\tx\n"), "ID             NAME\nabcdefghijkl   x\n");
        assert_eq!(align("A\tB\n1\t2\n"), "A         B\n1         2\n");
    }

    #[test]
    fn wide_characters_count_as_two() {
        assert_eq!(align("漢字漢字\tx\nab\ty\n"), "漢字漢字   x\nab         y\n");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
