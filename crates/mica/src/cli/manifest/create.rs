//! `mica manifest create`: a list of manifests on the client.

use mica_api::Class;

use super::{item, lists, named, registries};
use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;

/// Put a list of manifests together, to be pushed as one name for several platforms
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Add to a list that is there, or replace manifests of it
    #[arg(short, long)]
    amend: bool,
    /// Accept registries without TLS or with any certificate
    #[arg(long)]
    insecure: bool,
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: String,
    /// Images in their registry
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<String>,
}

impl Verb for CreateArgs {
    const USAGE: &'static str = "[OPTIONS] LIST MANIFEST [MANIFEST...]";

    fn run(self, cx: &Cx) -> Outcome {
        let (list, lists) = (named(&self.list)?, lists(cx));
        if lists.items(&list).map_err(super::failed)?.is_some() && !self.amend {
            let text = "refusing to amend an existing manifest list with no --amend flag";
            return Err(Failure::new(Class::Conflict, text));
        }
        let registries = registries(cx, self.insecure);
        let mut items = Vec::new();
        for text in &self.manifests {
            let reference = named(text)?;
            let repository = registries.repository(&reference).map_err(super::failed)?;
            items.push((item(cx, &repository, &reference)?, reference));
        }
        for (item, reference) in &items {
            lists.put(&list, reference, item).map_err(super::failed)?;
        }
        cx.out.line(&format!("Created manifest list {list}"))?;
        Ok(Status::default())
    }
}
