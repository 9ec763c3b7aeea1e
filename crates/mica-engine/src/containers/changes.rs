//! `diff` and `export`: what a container changed, and all that it is.

use mica_api::{Cancel, ChangeKind, ExportContainer, FileChange, Result};
use mica_archive::{Kind, Table, View};
use mica_build::{OutputFile, rootfs_tar};

use super::files::{Changes, Files};
use super::list::Container;
use crate::LocalEngine;

/// `diff`.
pub(crate) fn changes(engine: &LocalEngine, query: &str) -> Result<Vec<FileChange>> {
    let container = Container::find(engine, query)?;
    let found = Changes::read(engine, &container)?;
    Ok(listed(&found.table, &found.parent))
}

/// docker's list: sorted by path, without the root itself.
fn listed(table: &Table, parent: &View) -> Vec<FileChange> {
    let mut changes: Vec<FileChange> = table
        .entries()
        .iter()
        .filter(|entry| !entry.path.is_empty())
        .map(|entry| FileChange {
            kind: match entry.kind {
                Kind::Whiteout => ChangeKind::Deleted,
                _ if parent.get(&entry.path).is_some() => ChangeKind::Changed,
                _ => ChangeKind::Added,
            },
            path: [b"/", entry.path.as_slice()].concat(),
        })
        .collect();
    changes.sort_by(|left, right| left.path.cmp(&right.path));
    changes
}

/// `export`.
pub(crate) fn export(engine: &LocalEngine, request: ExportContainer, cancel: &Cancel) -> Result<()> {
    let container = Container::find(engine, &request.container)?;
    let files = Files::open(engine, &container, cancel)?;
    let view = Changes::read(engine, &container)?.merged();
    let mut output = OutputFile::open(&request.destination)?;
    rootfs_tar(&view, files.root(), &mut output, cancel)?;
    output.commit()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mica_archive::Entry;

    use super::*;

    #[test]
    fn changes_are_listed_as_docker_lists_them() {
        let file = |path: &str| Entry::new(path, Kind::File { size: 1, digest: None }, 0o644);
        let image =
            Table::from_entries(vec![Entry::directory("a", 0o755), file("a/old"), file("a/gone")]).unwrap();
        let changed = Table::from_entries(vec![
            Entry::directory("", 0o700),
            Entry::directory("a", 0o755),
            Entry::whiteout("a/gone"),
            file("a/old"),
            file("a-new"),
        ])
        .unwrap();
        let shown: Vec<String> = listed(&changed, &View::stack([Arc::new(image)]))
            .into_iter()
            .map(|change| format!("{:?} {}", change.kind, String::from_utf8_lossy(&change.path)))
            .collect();
        assert_eq!(shown, ["Changed /a", "Added /a-new", "Deleted /a/gone", "Changed /a/old"]);
    }
}
