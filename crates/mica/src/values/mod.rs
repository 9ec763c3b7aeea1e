//! Values of flags: parsed once, at the edge. Pure.

pub(crate) mod cache_filter;
pub(crate) mod filter;
pub(crate) mod hosts;
pub(crate) mod keyed;
pub(crate) mod moment;
