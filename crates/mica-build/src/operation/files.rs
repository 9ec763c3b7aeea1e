//! COPY, ADD, WORKDIR: written through a mount of parent and fresh upper, so that links, conflicts and existing
//! directories of the destination count; with nothing below, into a bare directory.

use std::sync::Arc;

use mica_api::{Class, Error};
use mica_archive::View;
use mica_snapshot::Mounted;
use mica_solve::{FileAction, FileOp, Input, Vertex};
use mica_sys::root::Root;

use super::{Made, Operations, Stacks};
use crate::fileop::{self, FileOpError, FileOptions, Kin, SourceTree};
use crate::lookup::{input_vertex, local_name};

/// A source that is open: a view to select from and a root to read from.
enum Source<'a> {
    Local(&'a str),
    Snapshot { view: Arc<View>, mounted: Mounted },
    Nothing,
}

/// The failure of a step, unless somebody gave up.
pub(super) fn in_step(error: &FileOpError) -> Error {
    let error = Error::from_fault(error);
    if error.class == Class::Cancelled { error } else { Error { class: Class::Build, ..error } }
}

impl Operations<'_> {
    /// Runs file actions; the result is the base's stack and one new layer.
    pub(super) fn files(&self, vertex: &Vertex, op: &FileOp, stacks: &Stacks<'_>) -> Result<Made, Error> {
        let stack = self.stack(vertex, op.base, stacks)?;
        let sources = self.sources(vertex, op, stacks)?;
        let parents = self.directories(&stack)?;
        let workspace = self.workspace()?;
        let mut active = self.workshop.driver.prepare(&workspace, &parents)?;
        let kin = active.beneath().and_then(|_| self.kin(vertex, op));
        let options = FileOptions {
            beneath: active.beneath(),
            kin: kin.as_ref(),
            ..FileOptions::new(self.workshop.is_single_id(), self.cancel)
        };
        let tree = |input: Input| self.tree(&sources, input);
        let outcome = fileop::run(op, active.root(), &tree, &options).map_err(|error| in_step(&error))?;
        for path in &outcome.changed_sources {
            let path = String::from_utf8_lossy(path);
            self.progress.notice(format!("/{path} changed while it was copied: this step is not remembered"));
        }
        active.set_shared(outcome.shared);
        let made = self.commit(active, workspace, stack, &outcome.ledger)?;
        Ok(Made { is_as_keyed: outcome.changed_sources.is_empty(), ..made })
    }

    /// What an earlier run of the step made, unless everything is to be made anew.
    ///
    /// Only saves time, so whatever is wrong with it is left to those who need it.
    fn kin(&self, vertex: &Vertex, op: &FileOp) -> Option<Kin> {
        let unpacks = |action: &FileAction| matches!(action, FileAction::Copy(copy) if copy.unpack);
        if vertex.ignore_cache || op.actions.iter().any(unpacks) {
            return None;
        }
        let store = &self.workshop.store;
        let layer = store.latest_layer_of(&vertex.name).ok()??;
        let files = Root::open(&store.state().layer_fs(layer)).ok()?;
        Kin::new(store.table(layer).ok()?, files)
    }

    /// Opens every distinct input that is copied from.
    fn sources(
        &self,
        vertex: &Vertex,
        op: &FileOp,
        stacks: &Stacks<'_>,
    ) -> Result<Vec<(Input, Source<'_>)>, Error> {
        let mut sources: Vec<(Input, Source<'_>)> = Vec::new();
        for action in &op.actions {
            let FileAction::Copy(copy) = action else { continue };
            if sources.iter().any(|(input, _)| *input == copy.from) {
                continue;
            }
            let source = match (local_name(self.graph, vertex, copy.from), input_vertex(vertex, copy.from)) {
                (Some(name), _) => Source::Local(name),
                (None, None) => Source::Nothing,
                (None, Some(_)) => {
                    let stack = self.stack(vertex, copy.from, stacks)?;
                    let mounted =
                        self.workshop.driver.view(&self.workspace()?, &self.directories(&stack)?)?;
                    Source::Snapshot { view: self.view(vertex, copy.from, stacks)?, mounted }
                }
            };
            sources.push((copy.from, source));
        }
        Ok(sources)
    }

    fn tree<'s>(&'s self, sources: &'s [(Input, Source<'_>)], input: Input) -> SourceTree<'s> {
        match sources.iter().find(|(known, _)| *known == input).map(|(_, source)| source) {
            Some(Source::Local(name)) => {
                let context =
                    self.contexts.get(name).expect("the frontend names only contexts it was told of");
                SourceTree::local(context, name)
            }
            Some(Source::Snapshot { view, mounted }) => SourceTree::snapshot(view, mounted.root()),
            Some(Source::Nothing) | None => SourceTree::scratch(),
        }
    }
}
