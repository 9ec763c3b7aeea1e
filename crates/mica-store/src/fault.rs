//! What each error of the store means for exit codes, and what to do about it.

use std::io;

use mica_api::{Class, Fault};
use rusqlite::ErrorCode;

use crate::error::{CommitError, ContainerError, ImageError, OpenError, StoreError};
use crate::gc::GcError;
use crate::volume::VolumeError;

const NO_SPACE: &str = "free space with `mica system prune`, or choose another `--root`";

impl Fault for OpenError {
    fn class(&self) -> Class {
        match self {
            Self::Flavour { .. } => Class::Denied,
            Self::Newer { .. } => Class::Unsupported,
            Self::Create { source, .. } => Class::of_io(source),
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Flavour { mismatch, .. } => Some(mismatch.advice()),
            Self::Newer { .. } => Some("use the newer mica, or choose another store with `--root`".into()),
            Self::Create { .. } => Some("choose a writable directory with `--root`".into()),
            Self::Store(error) => error.advice(),
        }
    }
}

impl Fault for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } => Class::of_io(source),
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Class::Exhausted,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Class::Conflict,
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Class::Denied,
                _ => Class::Internal,
            },
            Self::Damaged { .. } => Class::Corrupt,
            Self::ReadOnly { .. } => Class::Denied,
            Self::LayerGone(_) | Self::BlobGone(_) => Class::NotFound,
            Self::Cancelled => Class::Cancelled,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if is_full(source) => Some(NO_SPACE.into()),
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Some(NO_SPACE.into()),
                Some(ErrorCode::DatabaseBusy) => {
                    Some("another mica has held the store for 30 seconds; is one stopped?".into())
                }
                _ => None,
            },
            Self::Damaged { .. } => Some("run `mica system check --repair`".into()),
            _ => None,
        }
    }
}

impl Fault for CommitError {
    fn class(&self) -> Class {
        match self {
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Class::Corrupt,
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.advice(),
            _ => None,
        }
    }
}

impl Fault for ImageError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NotFound,
            Self::Ambiguous { .. } => Class::Invalid,
            Self::ManyNames { .. } | Self::InUse { .. } => Class::Conflict,
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Ambiguous { candidates, .. } => Some(format!("it could be {}", candidates.join(" or "))),
            Self::Store(error) => error.advice(),
            _ => None,
        }
    }
}

impl Fault for ContainerError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound(_) => Class::NotFound,
            Self::Ambiguous(_) => Class::Invalid,
            Self::NameTaken { .. } | Self::Changed(_) => Class::Conflict,
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.advice(),
            _ => None,
        }
    }
}

impl Fault for VolumeError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound(_) => Class::NotFound,
            Self::InUse { .. } => Class::Conflict,
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.advice(),
            _ => None,
        }
    }
}

impl Fault for GcError {
    fn class(&self) -> Class {
        match self {
            Self::Busy { .. } => Class::Conflict,
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => Some("wait for it to end".into()),
            Self::Store(error) => error.advice(),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
