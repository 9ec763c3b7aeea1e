//! RUN (3.2).

use super::shell_or_exec;
use crate::ast::{NetworkMode, Run, SecurityMode};
use crate::error::ParseErrorKind;
use crate::flags::{Flags, Known, Takes};
use crate::mounts;
use crate::statement::Statement;

const FLAGS: [Known; 4] =
    [("mount", Takes::List), ("network", Takes::Text), ("security", Takes::Text), ("device", Takes::List)];

pub(super) fn run(statement: &Statement) -> Result<Run, ParseErrorKind> {
    let flags = Flags::parse(&statement.flags, &FLAGS)?;
    let mounts = flags.list("mount");
    for mount in &mounts {
        mounts::check_unexpanded(mount)?;
    }
    if !flags.list("device").is_empty() {
        return Err(ParseErrorKind::DeviceFlag);
    }
    Ok(Run {
        command: shell_or_exec(&statement.rest)?,
        heredocs: statement.heredocs.clone(),
        mounts,
        network: flags.text("network").map(network).transpose()?,
        security: flags.text("security").map(security).transpose()?,
    })
}

fn network(value: String) -> Result<NetworkMode, ParseErrorKind> {
    match value.as_str() {
        "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err(ParseErrorKind::InvalidNetwork(value)),
    }
}

fn security(value: String) -> Result<SecurityMode, ParseErrorKind> {
    match value.as_str() {
        "sandbox" => Ok(SecurityMode::Sandbox),
        "insecure" => Ok(SecurityMode::Insecure),
        _ => Err(ParseErrorKind::InvalidSecurity(value)),
    }
}
