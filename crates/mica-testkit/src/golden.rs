//! Recorded output, compared with what comes out now.

use std::path::Path;

/// Compares text with `tests/golden/<name>` of the crate; `MICA_BLESS=1` records it instead.
#[macro_export]
macro_rules! golden {
    ($name:expr, $actual:expr $(,)?) => {
        $crate::golden::compare(
            &::std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join($name),
            $actual.as_ref(),
        )
    };
}

/// Compares text with a recorded file; `MICA_BLESS=1` in the environment records it instead.
///
/// # Panics
/// If they differ, showing the first line that does; and if the file cannot be read or written.
#[track_caller]
pub fn compare(path: &Path, actual: &str) {
    if std::env::var_os("MICA_BLESS").is_some_and(|value| value == "1") {
        let folder = path.parent().expect("a golden is in a folder");
        std::fs::create_dir_all(folder).expect("the folder of goldens");
        std::fs::write(path, actual).expect("the golden");
        return;
    }
    let recorded = std::fs::read_to_string(path).unwrap_or_else(|error| {
        panic!("{}: {error}; MICA_BLESS=1 records it\n--- actual\n{actual}", path.display())
    });
    if recorded != actual {
        panic!(
            "{} differs; MICA_BLESS=1 records the new text\n{}",
            path.display(),
            difference(&recorded, actual)
        );
    }
}

/// The first line that differs, and the whole new text.
fn difference(recorded: &str, actual: &str) -> String {
    let (mut old, mut new) = (recorded.lines(), actual.lines());
    for number in 1.. {
        let (was, is) = (old.next(), new.next());
        if was != is {
            let shown =
                |line: Option<&str>| line.map_or("(the text ends)".into(), |line| format!("{line:?}"));
            return format!(
                "line {number} was {}\n{} is {}\n--- actual\n{actual}",
                shown(was),
                " ".repeat(5 + number.to_string().len()),
                shown(is)
            );
        }
        if was.is_none() {
            break;
        }
    }
    format!("only the ends of lines differ\n--- actual\n{actual}")
}

/// Replaces what differs from run to run, so that the rest can be compared: 64-digit and 12-digit hex
/// becomes `<hex>`, each given text its placeholder.
pub fn normalise(text: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in replacements {
        text = text.replace(from, to);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let word = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let (head, tail) = rest.split_at(word.max(rest.chars().next().map_or(1, char::len_utf8)));
        let hex = head.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        out.push_str(if hex && matches!(head.len(), 12 | 64) { "<hex>" } else { head });
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        assert!(difference("a\nb\n", "a\nc\n").starts_with("line 2 was \"b\"\n       is \"c\"\n"));
        assert!(difference("a\n", "a\nb\n").starts_with("line 2 was (the text ends)"));
        assert!(difference("a\n", "a").starts_with("only the ends of lines differ"));
    }

    #[test]
    fn ids_are_replaced_and_nothing_else() {
        let text = format!("id {} in /tmp/x, feed 0123456789ab é", "a".repeat(64));
        assert_eq!(normalise(&text, &[("/tmp/x", "<root>")]), "id <hex> in <root>, feed <hex> é");
    }
}
