//! The question that prunes ask.

use std::io::BufRead;

use mica_api::{PruneReport, RemovedImage};

use crate::context::Cx;
use crate::failure::Failure;
use crate::format::units;

/// Asks on standard output, as docker does; anything but `y` or `yes` is no.
///
/// # Errors
/// The question cannot be written.
pub(super) fn confirm(cx: &Cx, warning: &str) -> Result<bool, Failure> {
    ask(cx, &format!("{warning}\n"))
}

/// The same with a warning that the question follows as it stands.
///
/// # Errors
/// The question cannot be written.
pub(super) fn ask(cx: &Cx, warning: &str) -> Result<bool, Failure> {
    cx.out.text(&format!("{warning}Are you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    // An answer that cannot be read is no answer.
    let _unread = std::io::stdin().lock().read_line(&mut answer);
    if !cx.stdin_is_terminal {
        cx.out.line("")?;
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// What a prune removed, in docker's words.
pub(super) fn report(report: &PruneReport) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}\n{}\n\n", lines.join("\n")));
        }
    };
    section("Deleted Containers:", report.containers.clone());
    section("Deleted Volumes:", report.volumes.clone());
    let images = report.images.iter().map(|image| match image {
        RemovedImage::Untagged(name) => format!("untagged: {name}"),
        RemovedImage::Deleted(digest) => format!("deleted: {digest}"),
    });
    section("Deleted Images:", images.collect());
    let cache = report.cache.iter().map(|entry| entry.id.clone());
    section("Deleted build cache objects:", cache.collect());
    text.push_str(&format!("Total reclaimed space: {}\n", units::size4(report.freed_bytes)));
    text
}
