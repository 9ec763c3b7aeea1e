//! How much a layer may ask for (security.md section 5), and the error when it asks for more.

/// Limits for reading a layer. The defaults are those of the security specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes of one layer, holes of sparse files included.
    pub layer_bytes: u64,
    /// How many times larger than its compressed form a layer may be, once it is larger than `ratio_from_bytes`.
    pub ratio: u64,
    /// Size from which on `ratio` counts.
    pub ratio_from_bytes: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// One PAX or GNU long-name record.
    pub header_bytes: u64,
    /// Regions of one sparse file.
    pub sparse_regions: u64,
    /// One extended attribute.
    pub xattr_value_bytes: u64,
    /// All extended attributes of one file.
    pub xattrs_bytes: u64,
    /// A path, and the target of a link.
    pub path_bytes: u64,
    /// A component of a path.
    pub component_bytes: u64,
    /// Memory an LZMA or zstd stream may ask for its window.
    pub window_bytes: u64,
    /// The encoded [`crate::Recipe`] of one layer.
    pub recipe_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 64 << 30,
            ratio: 1000,
            ratio_from_bytes: 1 << 30,
            entries: 5_000_000,
            header_bytes: 1 << 20,
            sparse_regions: 65_536,
            xattr_value_bytes: 64 << 10,
            xattrs_bytes: 256 << 10,
            path_bytes: crate::path::MAX_PATH_BYTES as u64,
            component_bytes: crate::path::MAX_COMPONENT_BYTES as u64,
            window_bytes: 128 << 20,
            recipe_bytes: 64 << 20,
        }
    }
}

/// A layer asked for more than [`Limits`] allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is over the limit of {limit}")]
pub struct LimitExceeded {
    /// What was counted.
    pub what: &'static str,
    /// The limit.
    pub limit: u64,
}

impl LimitExceeded {
    /// Fails if `value` is over `limit`.
    pub(crate) fn check(what: &'static str, value: u64, limit: u64) -> Result<(), Self> {
        if value > limit { Err(Self { what, limit }) } else { Ok(()) }
    }
}

/// Says whether the user gave up. Long functions ask per entry and per MiB.
pub type Cancelled<'a> = &'a (dyn Fn() -> bool + Sync);

/// For callers that cannot be cancelled.
pub const NEVER: Cancelled<'static> = &|| false;
