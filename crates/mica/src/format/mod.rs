//! Text for humans and scripts: sizes, durations, tables, Go templates. Pure.

pub(crate) mod defaults;
pub(crate) mod go_names;
pub(crate) mod human;
pub(crate) mod listing;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod units;
