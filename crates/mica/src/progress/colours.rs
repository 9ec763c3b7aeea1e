//! Colours of the terminal renderer (`BUILDKIT_COLORS`, `NO_COLOR`).

use crate::environment::Environment;

/// ANSI codes by meaning; empty is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Colours {
    /// What ended well.
    pub run: String,
    /// What failed.
    pub error: String,
    /// What was given up.
    pub cancel: String,
    /// Logs.
    pub faint: String,
}

impl Colours {
    /// No colours.
    pub(crate) fn none() -> Self {
        Self { run: String::new(), error: String::new(), cancel: String::new(), faint: String::new() }
    }

    /// BuildKit's, changed by `BUILDKIT_COLORS=run=green:error=1,2,3`.
    pub(crate) fn of(environment: &Environment) -> Self {
        if !environment.colours() {
            return Self::none();
        }
        let code = |sequence: &str| format!("\u{1b}[{sequence}m");
        let mut colours = Self { run: code("34"), error: code("31"), cancel: code("33"), faint: code("2") };
        for pair in environment.nonempty("BUILDKIT_COLORS").unwrap_or_default().split(':') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let Some(sequence) = sequence(value) else { continue };
            match name {
                "run" => colours.run = code(&sequence),
                "error" => colours.error = code(&sequence),
                "cancel" => colours.cancel = code(&sequence),
                _ => {}
            }
        }
        colours
    }

    /// Puts a colour around a text.
    pub(crate) fn paint(colour: &str, text: &str) -> String {
        if colour.is_empty() { text.to_owned() } else { format!("{colour}{text}\u{1b}[0m") }
    }
}

/// A colour's name, or red, green and blue of 0 to 255.
fn sequence(text: &str) -> Option<String> {
    const NAMES: [&str; 8] = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    if let Some(position) = NAMES.iter().position(|name| *name == text.trim_start_matches("light-")) {
        let base = if text.starts_with("light-") { 90 } else { 30 };
        return Some((base + position).to_string());
    }
    let parts: Result<Vec<u8>, _> = text.split(',').map(str::parse).collect();
    match parts.ok()?.as_slice() {
        [red, green, blue] => Some(format!("38;2;{red};{green};{blue}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_can_be_chosen_and_switched_off() {
        let chosen =
            Colours::of(&Environment::of(&[("BUILDKIT_COLORS", "run=green:error=1,2,3:x=y:cancel=nope")]));
        assert_eq!((chosen.run.as_str(), chosen.error.as_str()), ("\u{1b}[32m", "\u{1b}[38;2;1;2;3m"));
        assert_eq!(Colours::of(&Environment::of(&[("NO_COLOR", "1")])), Colours::none());
    }
}
