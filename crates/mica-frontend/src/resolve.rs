//! What conversion has to ask about the world outside the Dockerfile.

use std::error::Error;

use mica_oci::{Digest, ImageConfig, Platform};
use mica_solve::SourceOp;

/// Finds base images and named contexts. Asked only for stages that are needed (F9).
pub trait Resolver {
    /// The `--build-context` of this name, if there is one: `name::platform` is tried before `name` (F3).
    ///
    /// An image name comes in its short form without `:latest`: `alpine`, `user/app:1`.
    ///
    /// # Errors
    /// The context was given but cannot be had.
    fn named_context(&self, name: &str, platform: &Platform) -> Result<Option<NamedContext>, ResolveError>;

    /// The image that a full reference means on a platform.
    ///
    /// # Errors
    /// There is no such image, or none for this platform.
    fn image(&self, reference: &str, platform: &Platform) -> Result<ResolvedBase, ResolveError>;

    /// The time of a source beyond the machine, in seconds: when its commit was made, when its file was changed last.
    ///
    /// # Errors
    /// The source cannot be had.
    fn time(&self, source: &SourceOp) -> Result<Option<i64>, ResolveError>;
}

/// What a `--build-context` stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedContext {
    /// A directory.
    Local {
        /// The name its [`mica_solve::LocalSource`] gets.
        name: String,
    },
    /// An image.
    Image(Box<ResolvedBase>),
    /// A file of a web server, or a repository.
    Remote {
        /// As it is shown.
        url: String,
        /// What it is.
        source: SourceOp,
    },
}

/// An image with its config.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedBase {
    /// As progress shows it: `docker.io/library/alpine:3@sha256:…`.
    pub reference: String,
    /// The manifest for the platform.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
    /// How many layers the manifest has.
    pub layers_count: usize,
}

/// Why a [`Resolver`] has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ResolveError {
    /// An error that only has a text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// An error that was caused by another one, whose text goes after a colon.
    pub fn caused_by(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self { message: format!("{}: {source}", what.into()), source: Some(source) }
    }
}
