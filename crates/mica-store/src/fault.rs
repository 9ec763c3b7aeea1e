//! What the store's errors mean to a caller: their class, and the next step.

use mica_api::{Class, Fault};

use crate::error::{CommitError, ContainerError, ImageError, OpenError, StoreError};
use crate::gc::GcError;

impl Fault for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } => Class::of_io(source),
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => Class::Exhausted,
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                    Class::Corrupt
                }
                _ => Class::Internal,
            },
            Self::Damaged { .. } => Class::Corrupt,
            Self::ReadOnly { .. } => Class::Denied,
            Self::LayerGone(_) | Self::BlobGone(_) => Class::NotFound,
            Self::Cancelled => Class::Cancelled,
        }
    }

    fn advice(&self) -> Option<String> {
        self.advice()
    }
}

impl Fault for OpenError {
    fn class(&self) -> Class {
        match self {
            Self::Flavour { .. } | Self::Newer { .. } => Class::Conflict,
            Self::Create { source, .. } => Class::of_io(source),
            Self::Store(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        self.advice()
    }
}

impl Fault for CommitError {
    fn class(&self) -> Class {
        match self {
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Class::Corrupt,
            Self::Store(error) => error.class(),
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
}

impl Fault for GcError {
    fn class(&self) -> Class {
        match self {
            Self::Busy { .. } => Class::Conflict,
            Self::Store(error) => error.class(),
        }
    }
}
