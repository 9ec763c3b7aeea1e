//! Conversion as a whole: what graph and what config a Dockerfile becomes.

mod arguments;
mod changes;
mod config;
mod corpus;
mod files;
mod from;
mod lint;
mod run;
mod support;
