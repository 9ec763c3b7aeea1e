//! What caller and helper say to each other: length-prefixed JSON on a stream socket, with descriptors.
//!
//! One request, then replies until [`Reply::Ended`], [`Reply::ExecFailed`] or [`Reply::SetupFailed`].
//! End of file from the caller means that it is gone.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ExecFailure;

/// Upper limit of a message: two sides of one program, so only to notice nonsense.
const MAX_MESSAGE_BYTES: u32 = 64 * 1024 * 1024;
/// Descriptors one message can carry.
const MAX_DESCRIPTORS: usize = 3;

/// Helper to caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The program is running. Carries its pidfd, and the pty master if the plan wants a terminal.
    Started(Started),
    /// The program could not be executed; everything is cleaned up.
    ExecFailed(ExecFailure),
    /// The container could not be made; everything is cleaned up.
    SetupFailed { step: String, reason: String, errno: Option<i32> },
    /// The program has ended and everything is cleaned up.
    Ended { code: i32 },
}

/// What there is to know about a running program.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) notices: Vec<String>,
    pub(crate) stubs: Vec<Vec<u8>>,
    pub(crate) cgroups: Vec<PathBuf>,
}

/// Sends one message; the descriptors travel with its first byte.
pub(crate) fn send(
    mut socket: &UnixStream,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
    socket.write_all(&bytes[sent..])
}

/// Receives one message; `None` if the other side has closed.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    socket.read_exact(&mut length[received.bytes..])?;
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}
