//! The history of an image: one entry per instruction, its text as the reference writes it (build.md 5.2).

use mica_oci::{History, ImageConfig};

/// What the reference writes into `comment`.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// The comment of entries that stand for layers whose history their image never told.
const COMPLETED_COMMENT: &str = "buildkit.exporter.v0";

/// Whether an instruction made a layer: the number of `New` must be the number of layers (G7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// It did.
    New,
    /// It only changed the config.
    None,
}

/// RFC 3339 in UTC, whole seconds. Times that no calendar has become the beginning of 1970.
pub(crate) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Adds the entry of one instruction.
pub(crate) fn commit(config: &mut ImageConfig, created_by: String, layer: Layer, seconds: i64) {
    config.history.get_or_insert_default().push(History {
        created: Some(timestamp(seconds)),
        created_by,
        comment: COMMENT.to_owned(),
        empty_layer: layer == Layer::None,
        ..History::default()
    });
}

/// Makes the history of a base tell of as many layers as the base has: some builders write none.
pub(crate) fn complete(config: &mut ImageConfig, layers: usize, created_by: &str) {
    let mut missing = layers;
    for entry in config.history.iter_mut().flatten() {
        // More entries than layers: those at the end are the wrong ones, as the reference decides.
        entry.empty_layer |= missing == 0;
        missing -= usize::from(!entry.empty_layer);
    }
    if missing == 0 {
        return;
    }
    let entry = History {
        created: config.created.clone(),
        created_by: created_by.to_owned(),
        comment: COMPLETED_COMMENT.to_owned(),
        ..History::default()
    };
    config.history.get_or_insert_default().extend(std::iter::repeat_n(entry, missing));
}

/// Go's `%q` of a list of strings: `["/bin/sh" "-c" "echo $FOO"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Go's `%v` of a list of strings: `[/v1 /v2]`.
pub(crate) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_704_164_645), "2024-01-02T03:04:05Z");
        assert_eq!(timestamp(i64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn lists_are_quoted_as_go_quotes_them() {
        let words = ["/bin/sh", "-c", "echo \"$A\"\t\\ \u{1b}é\u{a0}"].map(String::from);
        assert_eq!(quoted_list(&words), r#"["/bin/sh" "-c" "echo \"$A\"\t\\ \x1bé\u00a0"]"#);
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn a_history_that_tells_of_too_few_layers_is_completed() {
        let mut config = ImageConfig::default();
        commit(&mut config, "LABEL a=b".to_owned(), Layer::None, 0);
        commit(&mut config, "RUN x".to_owned(), Layer::New, 0);
        complete(&mut config, 2, "FROM x");
        let layers = config.history().iter().filter(|entry| !entry.empty_layer).count();
        assert_eq!((layers, config.history().len()), (2, 3));
    }

    #[test]
    fn a_history_that_tells_of_too_many_layers_is_corrected() {
        let mut config = ImageConfig::default();
        commit(&mut config, "RUN x".to_owned(), Layer::New, 0);
        commit(&mut config, "RUN y".to_owned(), Layer::New, 0);
        complete(&mut config, 1, "FROM x");
        assert_eq!(config.history().iter().map(|entry| entry.empty_layer).collect::<Vec<_>>(), [false, true]);
    }
}
