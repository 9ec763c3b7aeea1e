//! `commit --change` and `import --change`: Dockerfile instructions applied to a config (Y11).

use mica_dockerfile::Instruction;
use mica_oci::ImageConfig;

use crate::arguments::Variables;
use crate::instruction::config::Editor;
use crate::text::{self, Unset};
use crate::{Problem, paths};

/// Why a change cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// An instruction, but not one that changes a config.
    #[error("{0} is not a valid change command")]
    NotAChange(String),
    /// Not an instruction, or one with a wrong value.
    #[error(transparent)]
    Invalid(#[from] Problem),
}

/// Applies one instruction to a config.
///
/// # Errors
/// [`ChangeError`]; the config is then as it was.
pub fn change_config(config: &mut ImageConfig, change: &str) -> Result<(), ChangeError> {
    change_configs(config, [change])
}

/// Applies instructions one after the other: an ENTRYPOINT clears a CMD only if no earlier change set that (I11).
///
/// # Errors
/// [`ChangeError`]; the config is then as it was.
pub fn change_configs<'c>(
    config: &mut ImageConfig,
    changes: impl IntoIterator<Item = &'c str>,
) -> Result<(), ChangeError> {
    let mut changed = config.clone();
    let mut variables = Variables::of(&changed.config.env);
    let mut has_cmd = false;
    for change in changes {
        let command = text::instruction(change)?;
        let mut editor = Editor {
            config: &mut changed,
            variables: &mut variables,
            has_cmd: &mut has_cmd,
            escape: text::DEFAULT_ESCAPE,
            unset: &Unset::default(),
        };
        match &command.instruction {
            Instruction::Workdir(path) => {
                let path = text::word(path, &variables, text::DEFAULT_ESCAPE)?;
                let workdir = &mut changed.config.working_dir;
                *workdir = paths::join(workdir, &path);
            }
            Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Env(_)
            | Instruction::Expose(_)
            | Instruction::Healthcheck(_)
            | Instruction::Label(_)
            | Instruction::Onbuild(_)
            | Instruction::StopSignal(_)
            | Instruction::User(_)
            | Instruction::Volume(_) => {
                editor.apply(&command.instruction)?;
            }
            other => return Err(ChangeError::NotAChange(other.name().to_owned())),
        }
    }
    // BuildKit's mark on the images that it builds, not commit's
    changed.config.args_escaped = config.config.args_escaped;
    *config = changed;
    Ok(())
}
