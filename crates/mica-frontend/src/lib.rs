//! Dockerfiles as graphs: a Dockerfile, its arguments and the configs of its base images become a build graph and the
//! config of the image to be (build.md sections 2, 3 and 5).
//!
//! Pure: no I/O. What has to be looked up (base images, named contexts) is asked of a [`Resolver`], and only for stages
//! that the target needs (F9).
//!
//! # The way through
//! ```text
//! text --mica_dockerfile::parse--> tree --plan--> stages needed, bases resolved --stage--> graph, config
//! ```

mod arguments;
mod change;
mod convert;
mod error;
mod healthcheck;
mod history;
mod instruction;
mod lint;
mod paths;
mod plan;
mod request;
mod resolve;
mod stage;
mod text;
mod title;

#[cfg(test)]
mod tests;

pub use change::{ChangeError, change_config, change_configs};
pub use convert::{Converted, convert};
pub use error::{ConvertError, Problem};
pub use request::{ConvertRequest, NoCache};
pub use resolve::{NamedContext, ResolveError, ResolvedBase, Resolver};
