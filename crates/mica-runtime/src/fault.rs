//! What the errors of running processes mean to a caller.

use mica_api::{Class, Fault};

use crate::error::RuntimeError;

impl Fault for RuntimeError {
    fn class(&self) -> Class {
        match self {
            Self::Exec(failure) if failure.exit_code() == 126 => Class::CommandNotInvocable,
            Self::Exec(_) => Class::CommandNotFound,
            Self::Setup { errno: Some(errno), .. } => {
                Class::of_io(&std::io::Error::from_raw_os_error(*errno))
            }
            Self::Helper { source, .. } | Self::External { source, .. } | Self::Bundle { source, .. } => {
                Class::of_io(source)
            }
            Self::Unsupported(_) => Class::Unsupported,
            Self::Setup { .. } | Self::HelperDied => Class::Internal,
        }
    }
}
