//! What is printed once after a build: the logs of what failed, and the warnings (build.md S4, S5).

use super::trace::{Trace, Warning};

/// The last lines of every vertex that failed.
pub(super) fn failures(trace: &Trace) -> String {
    let mut text = String::new();
    for vertex in trace.vertices.iter().filter(|vertex| vertex.error.is_some() && !vertex.is_cancelled()) {
        text.push_str(&format!("------\n > {}:\n", vertex.name));
        for line in &vertex.tail {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("------\n");
    }
    text
}

/// The warnings of a build that succeeded.
pub(crate) fn warnings(warnings: &[Warning], program: &str, debug: bool) -> String {
    let noun = match warnings.len() {
        0 => return String::new(),
        1 => "warning",
        _ => "warnings",
    };
    let expand = if debug { String::new() } else { format!(" (use {program} --debug to expand)") };
    let mut text = format!("\n {} {noun} found{expand}:\n", warnings.len());
    for warning in warnings {
        text.push_str(&format!(" - {}\n", warning.short));
        if !debug {
            continue;
        }
        if let Some(url) = &warning.full.url {
            text.push_str(&format!("More info: {url}\n"));
        }
        text.push_str(warning.full.excerpt.as_deref().unwrap_or_default());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::trace::Full;
    use super::*;

    #[test]
    fn one_warning_is_singular() {
        let full = Full { url: Some("https://x/".to_owned()), excerpt: Some("Dockerfile:1\n".to_owned()) };
        let one = Warning { short: "Rule: text (line 1)".to_owned(), full };
        assert_eq!(
            warnings(std::slice::from_ref(&one), "docker", false),
            "\n 1 warning found (use docker --debug to expand):\n - Rule: text (line 1)\n"
        );
        let block = " - Rule: text (line 1)\nMore info: https://x/\nDockerfile:1\n\n";
        let two = warnings(&[one.clone(), one], "mica", true);
        assert_eq!(two, format!("\n 2 warnings found:\n{block}{block}"));
        assert_eq!(warnings(&[], "mica", false), "");
    }
}
