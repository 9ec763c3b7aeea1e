use crate::Location;
use crate::excerpt::frame;

const FILE: &str = "FROM base\nRUN exit 3\nCMD x";

fn lines(start: u32, end: u32) -> Location {
    Location { start, end }
}

/// Returns the numbers of the lines shown.
fn shown(count: usize, location: Location) -> Vec<usize> {
    let source = vec!["x"; count].join("\n");
    let frame = frame("f", &source, location);
    let numbers = frame.lines().filter_map(|line| line.split_once('|')?.0.trim().parse().ok());
    numbers.collect()
}

#[test]
fn p35_the_frame_shows_the_lines_around() {
    let expected = "Dockerfile:2\n--------------------\n   1 |     FROM base\n   2 | >>> RUN exit 3\n   3 |     CMD x\n\
                    --------------------\n";
    assert_eq!(frame("Dockerfile", FILE, lines(2, 2)), expected);
}

#[test]
fn p36_the_line_after_the_final_line_feed_counts() {
    let frame = frame("f", "FROM base\nRUN x\n", lines(2, 2));
    assert!(frame.contains("\n   3 |     \n"), "{frame}");
}

#[test]
fn p36_single_lines_get_two_around_and_ranges_one() {
    assert_eq!(shown(9, lines(5, 5)), [3, 4, 5, 6, 7]);
    assert_eq!(shown(9, lines(4, 6)), [3, 4, 5, 6, 7]);
    assert_eq!(shown(9, lines(1, 1)), [1, 2, 3]);
    assert_eq!(shown(9, lines(9, 9)), [7, 8, 9]);
    assert_eq!(shown(1, lines(1, 1)), [1]);
    assert_eq!(shown(9, lines(1, 2)), [1, 2, 3]);
    assert_eq!(shown(1500, lines(1200, 1200)), [1198, 1199, 1200, 1201, 1202]);
}

#[test]
fn locations_outside_of_the_file_show_nothing() {
    assert_eq!(frame("f", FILE, lines(0, 0)), "");
    assert_eq!(frame("f", FILE, lines(4, 4)), "");
    assert_eq!(shown(3, lines(2, 9)), [1, 2, 3]);
    assert_eq!(shown(3, lines(2, 0)), [1, 2, 3]);
}

#[test]
fn control_characters_are_escaped_and_tabs_are_not() {
    let frame = frame("f", "RUN \x1b[2J\tx\r\n", lines(1, 1));
    assert!(frame.contains(">>> RUN \\u{1b}[2J\tx\n"), "{frame}");
}
