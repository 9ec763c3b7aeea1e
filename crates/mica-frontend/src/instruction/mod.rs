//! One handler per instruction (build.md section 3).

mod arg;
pub(crate) mod config;
mod copy;
mod files;
mod mount;
mod run;

use mica_dockerfile::{Command, Instruction};

use crate::Problem;
use crate::history::Layer;
use crate::lint;
use crate::stage::StageConverter;
use config::{Edited, Editor};

impl StageConverter<'_, '_> {
    /// Converts one instruction.
    pub(crate) fn instruction(&mut self, command: &Command) -> Result<(), Problem> {
        // a trigger's lines are those of another file
        if !self.in_trigger {
            let has_shell = !self.state.config.config.shell.is_empty();
            self.state.seen.look(self.shared.findings, command, has_shell);
        }
        let converted = self.convert(command);
        // a variable without a value is the first thing to look for when an instruction is wrong
        self.report_unset(command);
        converted
    }

    fn report_unset(&mut self, command: &Command) {
        for (name, suggestion) in self.unset.take() {
            if self.in_trigger || self.state.declared.iter().any(|(declared, _)| *declared == name) {
                continue;
            }
            let message = format!("Usage of undefined variable '${name}'{suggestion}");
            self.shared.findings.report("UndefinedVar", command.origin.location, message);
        }
    }

    fn convert(&mut self, command: &Command) -> Result<(), Problem> {
        match &command.instruction {
            Instruction::Add(add) => self.add_instruction(command, add),
            Instruction::Copy(copy) => self.copy_instruction(command, copy),
            Instruction::Run(run) => self.run_instruction(command, run),
            Instruction::Workdir(path) => self.workdir(command, path),
            Instruction::Arg(items) => self.arg(items),
            _ => self.config_instruction(command),
        }
    }

    fn config_instruction(&mut self, command: &Command) -> Result<(), Problem> {
        let mut editor = Editor {
            config: &mut self.state.config,
            variables: &mut self.state.variables,
            has_cmd: &mut self.has_cmd,
            escape: self.shared.dockerfile.escape,
            unset: &self.unset,
        };
        match editor.apply(&command.instruction)? {
            Edited::Said(created_by) => self.commit(created_by, Layer::None),
            Edited::Exposed { created_by, words } => {
                if !self.in_trigger {
                    lint::exposed(self.shared.findings, command.origin.location, &words);
                }
                self.commit(created_by, Layer::None);
            }
            Edited::Silent | Edited::NotMine => {}
        }
        Ok(())
    }
}
