//! Instructions that only change the config (I2-I14), in a stage or as `commit --change`.

use mica_dockerfile::expand;
use mica_dockerfile::ports::Ports;
use mica_dockerfile::{Healthcheck, Instruction, KeyValue, ShellOrExec, check_stop_signal};
use mica_oci::ImageConfig;
use serde_json::Map;

use crate::arguments::Variables;
use crate::history::{plain_list, quoted_list};
use crate::text::Unset;
use crate::{Problem, healthcheck};

/// A config and the variables that its instructions see.
pub(crate) struct Editor<'e> {
    /// What is changed.
    pub(crate) config: &'e mut ImageConfig,
    /// What words are expanded with; ENV adds to it.
    pub(crate) variables: &'e mut Variables,
    /// Whether CMD was seen: ENTRYPOINT then leaves it alone (I11).
    pub(crate) has_cmd: &'e mut bool,
    /// The escape character of the file.
    pub(crate) escape: char,
    /// Collects variables that nobody set.
    pub(crate) unset: &'e Unset,
}

/// What became of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edited {
    /// The config changed; history says this.
    Said(String),
    /// EXPOSE did what [`Edited::Said`] does.
    Exposed {
        /// What history says.
        created_by: String,
        /// Its words and what they mean.
        words: Vec<(String, Ports)>,
    },
    /// The config changed, and history is silent: ONBUILD (I14).
    Silent,
    /// The instruction does more than to change the config.
    NotMine,
}

/// The shell of shell forms (R1).
pub(crate) fn shell_of(config: &ImageConfig) -> Vec<String> {
    if !config.config.shell.is_empty() {
        return config.config.shell.clone();
    }
    let default: &[&str] = if config.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
    default.iter().map(|word| (*word).to_owned()).collect()
}

/// The argv of CMD or ENTRYPOINT.
pub(crate) fn argv(config: &ImageConfig, words: &ShellOrExec) -> Vec<String> {
    match words {
        ShellOrExec::Exec(words) => words.clone(),
        ShellOrExec::Shell(text) => {
            let mut argv = shell_of(config);
            argv.push(text.clone());
            argv
        }
    }
}

/// Sets `NAME=value` in place; the order of first definition stays (I2).
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|entry| entry.split('=').next() == Some(name)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

impl Editor<'_> {
    /// Applies one instruction.
    pub(crate) fn apply(&mut self, instruction: &Instruction) -> Result<Edited, Problem> {
        let said = match instruction {
            Instruction::Env(pairs) => self.env(pairs)?,
            Instruction::Label(pairs) => self.label(pairs)?,
            Instruction::Cmd(words) => self.cmd(words),
            Instruction::Entrypoint(words) => self.entrypoint(words),
            Instruction::Shell(words) => self.shell(words),
            Instruction::User(user) => self.user(user)?,
            Instruction::Expose(words) => return self.expose(words),
            Instruction::Volume(paths) => self.volume(paths)?,
            Instruction::StopSignal(signal) => self.stop_signal(signal)?,
            Instruction::Healthcheck(check) => self.healthcheck(check),
            Instruction::Maintainer(name) => self.maintainer(name),
            Instruction::Onbuild(trigger) => {
                self.config.config.on_build.push(trigger.text.clone());
                return Ok(Edited::Silent);
            }
            Instruction::Add(_)
            | Instruction::Copy(_)
            | Instruction::Run(_)
            | Instruction::Workdir(_)
            | Instruction::Arg(_) => return Ok(Edited::NotMine),
        };
        Ok(Edited::Said(said))
    }

    fn word(&self, text: &str) -> Result<String, Problem> {
        let expanded = expand::word(text, self.variables, self.escape)?;
        Ok(self.unset.note(expanded, self.variables))
    }

    /// The pairs of ENV or LABEL, all expanded with the variables from before the instruction (V11).
    fn expand_pairs(&self, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, Problem> {
        pairs.iter().map(|pair| Ok((self.word(&pair.key)?, self.word(&pair.value)?))).collect()
    }

    fn env(&mut self, pairs: &[KeyValue]) -> Result<String, Problem> {
        let mut said = String::from("ENV");
        for (name, value) in self.expand_pairs(pairs)? {
            said.push_str(&format!(" {name}={value}"));
            self.variables.set(&name, &value);
            set_env(&mut self.config.config.env, &name, &value);
        }
        Ok(said)
    }

    fn label(&mut self, pairs: &[KeyValue]) -> Result<String, Problem> {
        let mut said = String::from("LABEL");
        for (name, value) in self.expand_pairs(pairs)? {
            said.push_str(&format!(" {name}={value}"));
            self.config.config.labels.insert(name, value);
        }
        Ok(said)
    }

    fn cmd(&mut self, words: &ShellOrExec) -> String {
        let argv = argv(self.config, words);
        *self.has_cmd = true;
        self.config.config.args_escaped = true;
        let said = format!("CMD {}", quoted_list(&argv));
        self.config.config.cmd = argv;
        said
    }

    fn entrypoint(&mut self, words: &ShellOrExec) -> String {
        let argv = argv(self.config, words);
        if !*self.has_cmd {
            self.config.config.cmd.clear();
        }
        let said = format!("ENTRYPOINT {}", quoted_list(&argv));
        self.config.config.entrypoint = argv;
        said
    }

    fn shell(&mut self, words: &[String]) -> String {
        self.config.config.shell = words.to_vec();
        format!("SHELL {}", plain_list(words))
    }

    fn user(&mut self, user: &str) -> Result<String, Problem> {
        self.config.config.user = self.word(user)?;
        Ok(format!("USER {}", self.config.config.user))
    }

    /// I4: the words are sorted before ranges are spelled out.
    fn expose(&mut self, written: &[String]) -> Result<Edited, Problem> {
        let mut expanded = Vec::new();
        for word in written {
            expanded.extend(expand::words(word, self.variables, self.escape)?);
        }
        expanded.sort();
        let mut words = Vec::with_capacity(expanded.len());
        for word in expanded {
            let ports = Ports::parse(&word)?;
            words.push((word, ports));
        }
        let ports: Vec<String> = words.iter().flat_map(|(_, ports)| ports.keys()).collect();
        if !ports.is_empty() {
            let exposed = self.config.config.exposed_ports.get_or_insert_default();
            exposed.extend(ports.iter().map(|port| (port.clone(), Map::new())));
        }
        Ok(Edited::Exposed { created_by: format!("EXPOSE {}", plain_list(&ports)), words })
    }

    fn volume(&mut self, paths: &[String]) -> Result<String, Problem> {
        let paths = paths.iter().map(|path| self.word(path)).collect::<Result<Vec<_>, _>>()?;
        if paths.iter().any(String::is_empty) {
            return Err(Problem::BlankVolume);
        }
        let volumes = self.config.config.volumes.get_or_insert_default();
        volumes.extend(paths.iter().map(|path| (path.clone(), Map::new())));
        Ok(format!("VOLUME {}", plain_list(&paths)))
    }

    fn stop_signal(&mut self, signal: &str) -> Result<String, Problem> {
        let signal = self.word(signal)?;
        check_stop_signal(&signal)?;
        let said = format!("STOPSIGNAL {signal}");
        self.config.config.stop_signal = signal;
        Ok(said)
    }

    fn healthcheck(&mut self, check: &Healthcheck) -> String {
        let check = healthcheck::config(check);
        let said = format!("HEALTHCHECK {}", healthcheck::history(&check));
        self.config.config.healthcheck = Some(check);
        said
    }

    fn maintainer(&mut self, name: &str) -> String {
        self.config.author = Some(name.to_owned());
        format!("MAINTAINER {name}")
    }
}
