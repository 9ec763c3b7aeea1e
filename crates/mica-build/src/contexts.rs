//! The local directories of a build by name: the main context and the directories among the named ones.

use std::collections::HashMap;
use std::path::PathBuf;

use mica_api::{Cancel, Class, Error, NamedContext};
use mica_archive::OwnerLedger;
use mica_dockerfile::ignore::Patterns;
use mica_store::Store;
use mica_sys::root::Root;

use crate::context::LocalContext;
use crate::inputs::Inputs;

/// The name under which the frontend asks for the main context.
pub(crate) const MAIN: &str = "context";

/// Opens local contexts, once each.
pub(crate) struct LocalContexts {
    opened: HashMap<String, LocalContext>,
}

impl LocalContexts {
    /// Opens the main context and the named directories. Nothing is read yet.
    ///
    /// # Errors
    /// A directory that is not there, or an ignore file that is wrong.
    pub(crate) fn open(
        store: &Store,
        inputs: &mut Inputs,
        named: &[(String, NamedContext)],
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let mut opened = HashMap::new();
        let mut add = |name: &str, directory: PathBuf, ignore: Option<Patterns>, owners: OwnerLedger| {
            let cache = store.state().stat_cache(&directory);
            let context = LocalContext::open(&directory, ignore, Some(cache)).map_err(|error| {
                Error::new(Class::of_io(&error), format!("unable to prepare context: path {directory:?}"))
                    .why(error.to_string())
            })?;
            opened.insert(name.to_owned(), context.stopped_by(cancel).owned_by(owners));
            Ok::<(), Error>(())
        };
        add(MAIN, inputs.directory.clone(), inputs.ignore.take(), std::mem::take(&mut inputs.owners))?;
        for (name, context) in named {
            if let NamedContext::Directory(directory) = context {
                add(name, directory.clone(), own_ignore(directory)?, OwnerLedger::new())?;
            }
        }
        Ok(Self { opened })
    }

    /// The context of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&LocalContext> {
        self.opened.get(name)
    }

    /// Remembers the digests made, for the next build. A cache that cannot be written only costs time.
    pub(crate) fn save(&self) {
        for context in self.opened.values() {
            let _ = context.save();
        }
    }
}

/// D1: a named directory has the `.dockerignore` of its own root.
fn own_ignore(directory: &std::path::Path) -> Result<Option<Patterns>, Error> {
    let Ok(root) = Root::open(directory) else { return Ok(None) };
    let Ok(bytes) = root.read(b".dockerignore", 1 << 20) else { return Ok(None) };
    Patterns::parse(&bytes)
        .map(Some)
        .map_err(|error| Error::new(Class::Build, format!("error parsing .dockerignore: {error}")))
}
