//! RUN (section 3.2).

use mica_dockerfile::{Command, NetworkMode as Network, Run, RunScript, SecurityMode as Security};
use mica_solve::{
    ExecMount, ExecOp, FileAction, FileOp, Input, MakeFile, MountKind, NetworkMode, Op, SecurityMode, Vertex,
    VertexId,
};

use super::config::shell_of;
use super::mount::Mounts;
use crate::history::Layer;
use crate::stage::{Inputs, StageConverter};
use crate::{Problem, paths};

/// Where a heredoc script lies while its step runs (P29).
const SCRIPTS: &str = "/dev/pipes";
/// The name of the host in RUN (R4).
const HOSTNAME: &str = "buildkitsandbox";

impl StageConverter<'_, '_> {
    pub(crate) fn run_instruction(&mut self, command: &Command, run: &Run) -> Result<(), Problem> {
        let mut inputs = Inputs::default();
        let root = inputs.add(self.state.root);
        let mut mounts = Mounts::default();
        let args = self.run_args(run, &mut inputs, &mut mounts);
        if args.is_empty() {
            return Err(Problem::EmptyRun);
        }
        self.run_mounts(run, &mut inputs, &mut mounts)?;
        let rights = (self.run_network(run)?, self.run_security(run)?);
        let created_by = self.run_history(&args);
        let (prefix, title) = self.next_title(&self.shown(&command.origin.original));
        let op = self.exec(root, args, rights, mounts);
        let ignore_cache = self.ignore_cache;
        let vertex =
            self.add(Op::Exec(op), inputs, format!("{prefix}{title}"), command.origin.location, ignore_cache);
        self.state.root = Some(vertex);
        self.commit(created_by, Layer::New);
        Ok(())
    }

    fn exec(
        &self,
        root: Input,
        args: Vec<String>,
        (network, security): (NetworkMode, SecurityMode),
        mounts: Mounts,
    ) -> ExecOp {
        let request = self.shared.request;
        let mut variables = self.state.variables.clone();
        if let Some(socket) = mounts.ssh_socket.filter(|_| variables.value("SSH_AUTH_SOCK").is_none()) {
            variables.set("SSH_AUTH_SOCK", &socket);
        }
        let proxy_env = self.shared.arguments.proxies().into_iter().filter(|entry| {
            let name = entry.split('=').next().unwrap_or_default();
            // A declared proxy argument, or an ENV, is part of the environment proper, and of the key (V19).
            variables.value(name).is_none()
        });
        ExecOp {
            root,
            args,
            cwd: paths::clean(self.state.workdir()),
            user: self.state.config.config.user.clone(),
            hostname: self.shared.arguments.build("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or(HOSTNAME).to_owned(),
            network,
            security,
            cgroup_parent: request.cgroup_parent.map(str::to_owned),
            mounts: mounts.list,
            extra_hosts: request.extra_hosts.to_vec(),
            secret_env: mounts.secret_env,
            proxy_env: proxy_env.collect(),
            shm_bytes: request.shm_bytes,
            ulimits: request.ulimits.to_vec(),
            platform: self.state.platform.normalised(),
            env: variables.entries(),
        }
    }

    /// argv (R1); a heredoc that is a program becomes a file below [`SCRIPTS`].
    fn run_args(&mut self, run: &Run, inputs: &mut Inputs, mounts: &mut Mounts) -> Vec<String> {
        let mut args = shell_of(&self.state.config);
        match run.script() {
            RunScript::Exec(words) => return words.to_vec(),
            RunScript::Shell(text) => args.push(text.into_owned()),
            RunScript::File { name, body } => {
                let from = inputs.add(Some(self.script(name, &body)));
                mounts.list.push(ExecMount {
                    target: SCRIPTS.to_owned(),
                    kind: MountKind::Bind { from, source: "/".to_owned() },
                    read_only: true,
                });
                args.push(format!("{SCRIPTS}/{name}"));
            }
        }
        args
    }

    fn script(&mut self, name: &str, body: &str) -> VertexId {
        let action = FileAction::MakeFile(MakeFile {
            path: format!("/{name}"),
            name_in_directory: None,
            data: body.as_bytes().to_vec(),
            mode: 0o755,
            mode_change: None,
            owner: None,
            created_seconds: self.shared.seconds,
        });
        self.shared.graph.add(Vertex {
            op: Op::File(FileOp { base: Input::Scratch, actions: vec![action] }),
            inputs: Vec::new(),
            name: "[internal] preparing inline document".to_owned(),
            ignore_cache: false,
            lines: None,
        })
    }

    /// R11.
    fn run_security(&self, run: &Run) -> Result<SecurityMode, Problem> {
        match run.security {
            None | Some(Security::Sandbox) => Ok(SecurityMode::Sandbox),
            Some(Security::Insecure) if self.shared.request.allow_insecure => Ok(SecurityMode::Insecure),
            Some(Security::Insecure) => Err(Problem::NotAllowed("security.insecure")),
        }
    }

    /// R11.
    fn run_network(&self, run: &Run) -> Result<NetworkMode, Problem> {
        match run.network {
            None | Some(Network::Default) => Ok(self.shared.request.network),
            Some(Network::None) => Ok(NetworkMode::None),
            Some(Network::Host) if self.shared.request.allow_host_network => Ok(NetworkMode::Host),
            Some(Network::Host) => Err(Problem::NotAllowed("network.host")),
        }
    }

    /// `RUN |2 A=1 B= /bin/sh -c … # buildkit` (V23).
    fn run_history(&self, args: &[String]) -> String {
        let mut words = vec!["RUN".to_owned()];
        if !self.state.declared.is_empty() {
            words.push(format!("|{}", self.state.declared.len()));
        }
        for (name, value) in &self.state.declared {
            // An ENV after the ARG is what the process sees, so it is what history tells.
            let value = self.state.variables.value(name).unwrap_or(value);
            words.push(format!("{name}={value}"));
        }
        words.extend(args.iter().cloned());
        words.push("# buildkit".to_owned());
        words.join(" ")
    }
}
