//! RUN: a process in the parent's root file system; what it changed becomes a layer.

use std::time::Instant;

use mica_api::{Class, Error, LogLimits, LogStream, Resources};
use mica_archive::OwnerLedger;
use mica_runtime::{
    ExitStatus, Limits, Network, OutputSink, Plan, RuntimeError, Stdio, Ulimit, resolve_user,
};
use mica_solve::{ExecOp, NetworkMode, SecurityMode, Vertex};

use super::hosts::{hosts_file, resolv_conf};
use super::log_limit::Clipped;
use super::{Made, Operations, Stacks};
use crate::progress::Step;

impl Operations<'_> {
    /// Runs a step; the result is the root's stack and one new layer.
    pub(super) fn exec(
        &self,
        vertex: &Vertex,
        op: &ExecOp,
        stacks: &Stacks<'_>,
        step: &Step<'_>,
    ) -> Result<Made, Error> {
        let stack = self.stack(vertex, op.root, stacks)?;
        let parents = self.directories(&stack)?;
        let workspace = self.workspace()?;
        let active = self.workshop.driver.prepare(&workspace, &parents)?;
        let opened = self.open_mounts(vertex, op, stacks)?;
        let plan = self.plan(op, &active, &opened.mounts, &opened.env)?;
        let status = self.process(&plan, active.root(), step)?;
        drop(opened);
        if status.code != 0 {
            return Err(failed(op, status));
        }
        self.commit(active, workspace, stack, &OwnerLedger::new())
    }

    fn plan(
        &self,
        op: &ExecOp,
        active: &mica_snapshot::Active,
        mounts: &[mica_runtime::PlanMount],
        extra_env: &[String],
    ) -> Result<Plan, Error> {
        let id = format!("build-{}", mica_store::LayerId::random());
        let mut plan = Plan::new(id, active.path(), op.args.clone());
        plan.user = resolve_user(active.root(), &op.user, &[])
            .map_err(|error| Error::new(Class::Build, error.to_string()))?;
        plan.env = environment(op, extra_env);
        plan.cwd.clone_from(&op.cwd);
        plan.hostname.clone_from(&op.hostname);
        plan.mounts = mounts.to_vec();
        plan.network = match op.network {
            NetworkMode::None => Network::None,
            NetworkMode::Default | NetworkMode::Host => Network::Host,
        };
        plan.hosts_file = Some(hosts_file(&op.hostname, &op.extra_hosts));
        plan.resolv_conf = Some(resolv_conf());
        if let Some(bytes) = op.shm_bytes {
            plan.shm_size_bytes = bytes;
        }
        plan.ulimits = op.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?;
        plan.insecure = op.security == SecurityMode::Insecure;
        plan.limits = limits(op, self.resources);
        plan.ids = self.workshop.ids;
        plan.keeps_standard_directories = true;
        Ok(plan)
    }

    fn process(
        &self,
        plan: &Plan,
        root: &mica_sys::root::Root,
        step: &Step<'_>,
    ) -> Result<ExitStatus, Error> {
        let running =
            mica_runtime::spawn(plan, Stdio::captured(), self.runtime).map_err(|error| match &error {
                RuntimeError::Exec(failure) => crate::explain(failure, plan, root),
                _ => Error::from_fault(&error),
            })?;
        for notice in running.notices() {
            self.progress.notice(notice.clone());
        }
        let mut log = StepLog::new(step, self.log_limits);
        let status = running.wait_with_output(&mut log, &|| self.cancel.is_cancelled())?;
        self.cancel.check()?;
        if !status.success() {
            log.last_words();
        }
        Ok(status)
    }
}

/// Sends what the process prints to the step's log.
struct StepLog<'a, 'p> {
    step: &'a Step<'p>,
    begun: Instant,
    stdout: Clipped,
    stderr: Clipped,
}

impl<'a, 'p> StepLog<'a, 'p> {
    fn new(step: &'a Step<'p>, limits: LogLimits) -> Self {
        Self { step, begun: Instant::now(), stdout: Clipped::new(limits), stderr: Clipped::new(limits) }
    }

    /// The end of what was left out.
    fn last_words(&mut self) {
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        self.tell(LogStream::Stdout, &stdout);
        self.tell(LogStream::Stderr, &stderr);
    }

    fn tell(&self, stream: LogStream, data: &[u8]) {
        if !data.is_empty() {
            self.step.log(stream, data);
        }
    }
}

impl OutputSink for StepLog<'_, '_> {
    fn stdout(&mut self, data: &[u8]) {
        let shown = self.stdout.pass(data, self.begun.elapsed());
        self.tell(LogStream::Stdout, &shown);
    }

    fn stderr(&mut self, data: &[u8]) {
        let shown = self.stderr.pass(data, self.begun.elapsed());
        self.tell(LogStream::Stderr, &shown);
    }
}

/// R3: config Env and ARGs, proxies in both cases, secrets; later entries win.
fn environment(op: &ExecOp, extra: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: &String| {
        let name = entry.split('=').next().unwrap_or_default();
        let same = |known: &String| known.split('=').next() == Some(name);
        match env.iter_mut().find(|known| same(known)) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    };
    op.proxy_env.iter().chain(&op.env).chain(extra).filter(|entry| entry.contains('=')).for_each(&mut set);
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(mica_oci::DEFAULT_PATH.to_owned());
    }
    env
}

/// The cgroup of a step: only what was asked for, but of its own if it may write to it.
fn limits(op: &ExecOp, resources: &Resources) -> Limits {
    Limits {
        pids: None,
        memory_bytes: resources.memory_bytes,
        memory_and_swap_bytes: resources.memory_and_swap_bytes,
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        parent: op.cgroup_parent.clone(),
        delegated: op.security == SecurityMode::Insecure,
        ..Limits::default()
    }
}

/// `name=soft[:hard]`.
fn ulimit(text: &str) -> Result<Ulimit, Error> {
    let bad = || Error::new(Class::Invalid, format!("invalid ulimit argument: {text}"));
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| bad()),
    };
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// R2: argv joined by spaces, and the code.
fn failed(op: &ExecOp, status: ExitStatus) -> Error {
    let message =
        format!("process {:?} did not complete successfully: exit code: {}", op.args.join(" "), status.code);
    Error::new(Class::Build, message)
}
