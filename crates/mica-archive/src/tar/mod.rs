//! Tar: the writer of format 1 and the reader of everybody's.
//!
//! # Format 1 (frozen: diff IDs of stored layers depend on every byte)
//! * Entries in the order of the table: component-wise sorted, a directory directly before its content.
//! * Names without leading `./` or `/`; directories end in `/`; the root directory is `./`.
//! * ustar headers (`ustar\0` `00`), names split into prefix and name as POSIX allows. A PAX header precedes an entry
//!   only when ustar cannot say it: `path` and `linkpath` too long, `size`, `uid`, `gid`, `mtime` out of range,
//!   `SCHILY.xattr.<name>` with raw bytes. Its records are sorted, its name is `PaxHeaders.0/<last component>`.
//!   A number out of range is in the ustar field too, in base 256, so that no reader can disagree about lengths.
//! * Numbers are octal, zero-filled and NUL-terminated; mode `07777` only; no user or group names; device numbers 0
//!   unless it is a device; times are whole seconds (rounded down), no atime or ctime.
//! * The first path of a hard-linked file in sort order is the file, the others are links; links carry the file's
//!   mode, owner and time, size 0 and no extended attributes.
//! * A whiteout of `d/x` is the empty file `d/.wh.x` where `d/x` would be; an opaque directory is followed by the empty
//!   file `.wh..wh..opq`. Both have mode 0, owner 0:0, time 0.
//!   A file of the layer that is really called `.wh.x` (`ADD` of a layer as a user's tar) is written as it is, as every
//!   engine does; whoever unpacks the layer takes it for a whiteout.
//! * Two zero blocks end the stream and nothing pads it: the empty layer is 1024 zero bytes.

mod fields;
pub(crate) mod header;
pub(crate) mod pax;
pub(crate) mod read;
pub(crate) mod sparse;
mod write;

pub use read::{Literals, Member, MemberKind, TarError, TarReader};
pub(crate) use write::BUFFER_BYTES;
pub(crate) use write::{Blocks, Sink, Streaming, emit};
pub use write::{TarFormat, TarSummary, WriteError, write_tar};

/// The unit of a tar stream.
pub(crate) const BLOCK_BYTES: usize = 512;

/// A block of zeros.
pub(crate) const ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Bytes from the end of `size` bytes of content to the next block.
pub(crate) fn padding(size: u64) -> usize {
    // Below 512, so the conversion cannot fail.
    (size.wrapping_neg() % BLOCK_BYTES as u64) as usize
}

/// Prefix of a whiteout's last component.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Prefix of AUFS's own files, which mean nothing in a layer; the opaque marker shares it.
pub(crate) const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Last component of the marker that makes its directory opaque.
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
