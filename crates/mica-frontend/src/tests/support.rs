//! A resolver that answers from a list, and short ways to look at a result.

use std::cell::RefCell;
use std::collections::BTreeMap;

use mica_oci::{Digest, History, ImageConfig, Platform};
use mica_solve::{CopyAction, ExecOp, FileAction, Op, SourceOp, Vertex};

use crate::{
    ConvertError, ConvertRequest, Converted, NamedContext, ResolveError, ResolvedBase, Resolver, convert,
};

/// Knows the images and contexts it was told of, and remembers what it was asked.
#[derive(Default)]
pub(super) struct Fake {
    images: BTreeMap<String, ImageConfig>,
    contexts: BTreeMap<String, NamedContext>,
    pub(super) asked: RefCell<Vec<String>>,
}

impl Fake {
    /// Knows `docker.io/library/base:latest`, an image with two layers.
    pub(super) fn new() -> Self {
        Self::default().image("base", base())
    }

    pub(super) fn image(mut self, name: &str, config: ImageConfig) -> Self {
        self.images.insert(format!("docker.io/library/{name}:latest"), config);
        self
    }

    pub(super) fn local_context(mut self, name: &str) -> Self {
        self.contexts.insert(name.to_owned(), NamedContext::Local { name: name.to_owned() });
        self
    }

    pub(super) fn image_context(mut self, name: &str, config: ImageConfig) -> Self {
        self.contexts.insert(
            name.to_owned(),
            NamedContext::Image(Box::new(resolved("example.org/context:1", config))),
        );
        self
    }
}

impl Resolver for Fake {
    fn named_context(&self, name: &str, platform: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        let with_platform = self.contexts.get(&format!("{name}::{platform}"));
        Ok(with_platform.or_else(|| self.contexts.get(name)).cloned())
    }

    fn image(&self, reference: &str, platform: &Platform) -> Result<ResolvedBase, ResolveError> {
        self.asked.borrow_mut().push(format!("{reference} {platform}"));
        let config = self.images.get(reference).ok_or_else(|| ResolveError::new("not found"))?.clone();
        Ok(resolved(reference, config))
    }

    fn time(&self, _: &SourceOp) -> Result<Option<i64>, ResolveError> {
        Ok(Some(1_700_000_000))
    }
}

fn resolved(reference: &str, config: ImageConfig) -> ResolvedBase {
    let layers_count = config.history().iter().filter(|entry| !entry.empty_layer).count();
    ResolvedBase {
        reference: reference.to_owned(),
        manifest: Digest::of(reference.as_bytes()),
        config,
        layers_count,
    }
}

/// An image with two layers, a PATH and a CMD.
pub(super) fn base() -> ImageConfig {
    let mut config = ImageConfig { created: Some(TIME.to_owned()), ..ImageConfig::default() };
    config.set_platform(&amd64());
    config.config.env = vec!["PATH=/bin".to_owned()];
    config.config.cmd = vec!["sh".to_owned()];
    let entry = |text: &str, empty_layer| History {
        created: Some(TIME.to_owned()),
        created_by: text.to_owned(),
        empty_layer,
        ..History::default()
    };
    config.history =
        Some(vec![entry("ADD rootfs", false), entry("CMD [\"sh\"]", true), entry("RUN more", false)]);
    config
}

/// When the base was made.
pub(super) const TIME: &str = "2023-11-14T22:13:20Z";

pub(super) fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

pub(super) fn request(dockerfile: &str) -> ConvertRequest<'_> {
    ConvertRequest {
        platform: amd64(),
        build_platform: amd64(),
        ..ConvertRequest::new(dockerfile.as_bytes())
    }
}

/// Converts with the fake resolver.
pub(super) fn build(dockerfile: &str) -> Converted {
    build_with(dockerfile, &Fake::new())
}

pub(super) fn build_with(dockerfile: &str, resolver: &Fake) -> Converted {
    convert(&request(dockerfile), resolver).unwrap_or_else(|error| panic!("{error}\n{dockerfile}"))
}

pub(super) fn build_args(dockerfile: &str, args: &[(&str, &str)]) -> Converted {
    let args: Vec<(String, Option<String>)> =
        args.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
    let request = ConvertRequest { build_args: &args, ..request(dockerfile) };
    convert(&request, &Fake::new()).unwrap_or_else(|error| panic!("{error}\n{dockerfile}"))
}

/// The error of a Dockerfile that cannot be converted.
pub(super) fn error(dockerfile: &str) -> ConvertError {
    match convert(&request(dockerfile), &Fake::new()) {
        Ok(_) => panic!("converted:\n{dockerfile}"),
        Err(error) => error,
    }
}

/// Checks text and first line of an error.
#[track_caller]
pub(super) fn refused(dockerfile: &str, line: u32, text: &str) {
    let error = error(dockerfile);
    assert!(error.to_string().contains(text), "{error} lacks {text}");
    assert_eq!(error.location.map(|location| location.start), (line > 0).then_some(line), "{error}");
}

impl Converted {
    pub(super) fn vertices(&self) -> Vec<&Vertex> {
        self.graph.iter().map(|(_, vertex)| vertex).collect()
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.vertices().into_iter().map(|vertex| vertex.name.as_str()).collect()
    }

    pub(super) fn execs(&self) -> Vec<&ExecOp> {
        let exec = |vertex: &'_ Vertex| matches!(vertex.op, Op::Exec(_));
        self.vertices()
            .into_iter()
            .filter(|vertex| exec(vertex))
            .map(|vertex| match &vertex.op {
                Op::Exec(exec) => exec,
                _ => unreachable!("filtered"),
            })
            .collect()
    }

    /// The last RUN.
    pub(super) fn exec(&self) -> &ExecOp {
        self.execs().pop().expect("a RUN")
    }

    /// The actions of all file operations.
    pub(super) fn actions(&self) -> Vec<&FileAction> {
        self.vertices()
            .into_iter()
            .filter_map(|vertex| match &vertex.op {
                Op::File(file) => Some(&file.actions),
                _ => None,
            })
            .flatten()
            .collect()
    }

    pub(super) fn copies(&self) -> Vec<&CopyAction> {
        self.actions()
            .into_iter()
            .filter_map(|action| match action {
                FileAction::Copy(copy) => Some(copy),
                _ => None,
            })
            .collect()
    }

    /// New history entries; those without a layer in parentheses.
    pub(super) fn new_history(&self) -> Vec<String> {
        let inherited = self.config.history().iter().take_while(|entry| entry.comment.is_empty()).count();
        self.config.history()[inherited..]
            .iter()
            .map(
                |entry| {
                    if entry.empty_layer {
                        format!("({})", entry.created_by)
                    } else {
                        entry.created_by.clone()
                    }
                },
            )
            .collect()
    }

    /// The config's `config`, as JSON.
    pub(super) fn config_json(&self) -> String {
        serde_json::to_string(&self.config.config).unwrap()
    }
}
