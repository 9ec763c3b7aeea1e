//! All the libraries one program loads, as its loader would.

use std::collections::{BTreeSet, VecDeque};

use crate::files::Files;
use crate::loader::{Loaded, Loader, Search};
use crate::object::Object;

/// Far above any real program; bounds what hostile files make us do.
const OBJECTS: usize = 4096;

/// One library that something needs.
pub(crate) struct Dependency {
    pub(crate) name: Vec<u8>,
    /// The program or library that needs it.
    pub(crate) needed_by: Vec<u8>,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// Where it is, and whether the loader looks there without `/etc/ld.so.cache`.
    Found { path: Vec<u8>, only_by_cache: bool },
    /// The directories that do not have it.
    Missing { searched: Vec<Vec<u8>> },
}

struct Node {
    path: Vec<u8>,
    object: Object,
    /// Index of what needed it; the program needs itself.
    parent: usize,
}

/// Loads a program's libraries breadth first; each name once, the first time it is needed.
///
/// `path` is the program with every link replaced, which is what `$ORIGIN` means for it. A static program
/// yields nothing; one without an interpreter that needs libraries all the same is taken for a library.
pub(crate) fn dependencies(
    files: &dyn Files,
    path: &[u8],
    object: &Object,
    library_path: &[u8],
) -> Vec<Dependency> {
    let interpreter = object.interpreter.as_deref().unwrap_or_default();
    let loader = Loader::of(interpreter);
    let search = Search::new(files, loader, object.machine, library_path);
    let mut nodes = vec![Node { path: path.to_vec(), object: object.clone(), parent: 0 }];
    // The loader itself is there from the start, under the name in its path.
    let own_name = interpreter.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut loaded: BTreeSet<Vec<u8>> = BTreeSet::from([own_name.to_vec()]);
    let mut out = Vec::new();
    let mut queue = VecDeque::from([0]);
    while let Some(index) = queue.pop_front() {
        let Some(node) = nodes.get(index) else { break };
        let needed_by = node.path.clone();
        for name in node.object.needed.clone() {
            if search.loader.contains(&name) || !loaded.insert(name.clone()) || nodes.len() == OBJECTS {
                continue;
            }
            let outcome = match search.find(&name, &chain(&nodes, index)) {
                Ok(found) => {
                    loaded.extend(found.object.soname.clone());
                    queue.push_back(nodes.len());
                    nodes.push(Node { path: found.path.clone(), object: found.object, parent: index });
                    Outcome::Found {
                        only_by_cache: search.only_by_cache(&found.path, &chain(&nodes, index)),
                        path: found.path,
                    }
                }
                Err(searched) => Outcome::Missing { searched },
            };
            out.push(Dependency { name, needed_by: needed_by.clone(), outcome });
        }
    }
    out
}

/// From the program down to the node.
fn chain(nodes: &[Node], index: usize) -> Vec<Loaded<'_>> {
    let mut chain = Vec::new();
    let mut at = index;
    while let Some(node) = nodes.get(at) {
        chain.push(Loaded { path: &node.path, object: &node.object });
        if at == 0 {
            break;
        }
        at = node.parent;
    }
    chain.reverse();
    chain
}
