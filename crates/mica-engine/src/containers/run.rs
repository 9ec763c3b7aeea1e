//! `run`: a container in the foreground, from its record to its end.

use std::os::fd::AsFd;

use mica_api::{Cancel, Class, Error, Event, EventSink, Exit, Result, RunIo, RunRequest, Timestamp};
use mica_runtime::{Input, Output, Plan, Running, Runtime, RuntimeError, Stdio, tty};
use mica_snapshot::Active;
use mica_store::ContainerError;
use mica_sys::signals::SignalQueue;
use rustix::process::Signal;

use super::control::Control;
use super::log::{self, LogWriter};
use super::relay::{self, Relay};
use super::start::{self, Created};
use super::state::{self, Life, Process, State};
use super::{options, plan, volumes};
use crate::LocalEngine;

/// `run`.
pub(crate) fn run(
    engine: &LocalEngine,
    request: RunRequest,
    io: RunIo,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<Exit> {
    cancel.check()?;
    start::check_cid_file(request.cid_file.as_deref())?;
    // Before anything is started, so that helper and container do not get what a terminal sends to all of us; and until
    // everything is recorded, so that an impatient user does not leave half of it.
    let signals = SignalQueue::collect(&relay::collected()).map_err(|error| unusable(&error))?;
    let lease = engine.store().lease()?;
    let created = start::create(engine, request, &lease)?;
    // The container's own row protects its layers from here on.
    drop(lease);
    let outcome = Session { engine, created: &created, signals: &signals, cancel, events }.run(io);
    let removed = if created.spec.remove { remove_own(engine, &created) } else { Ok(()) };
    // What came too late for the container is not for us either.
    while signals.next().is_ok_and(|signal| signal.is_some()) {}
    let exit = outcome?;
    removed.map(|()| exit)
}

fn unusable(error: &std::io::Error) -> Error {
    Error::new(Class::Internal, "cannot run the container").why(error.to_string())
}

/// `--rm`: whoever removed it before was asked to.
fn remove_own(engine: &LocalEngine, created: &Created) -> Result<()> {
    let id = created.id.as_str();
    loop {
        let removed =
            engine.store().find_container(id).and_then(|seen| engine.store().remove_container(&seen));
        match removed {
            Err(ContainerError::Changed(_)) => {}
            Ok(()) | Err(ContainerError::NotFound(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    volumes::remove_anonymous(engine.store(), &created.spec.volumes)
}

/// One start of a container.
struct Session<'a> {
    engine: &'a LocalEngine,
    created: &'a Created,
    signals: &'a SignalQueue,
    cancel: &'a Cancel,
    events: &'a dyn EventSink,
}

impl Session<'_> {
    fn run(&self, io: RunIo) -> Result<Exit> {
        let mut state = State::default();
        let outcome = self.start_and_wait(io, &mut state);
        if let Err(error) = &outcome {
            state.error = error.to_string();
            state.exit_code = Some(exit_code_of(error));
            if state.started.is_some() {
                state.life = Life::Exited;
            }
        }
        match (state::record(self.engine.store(), self.created.id.as_str(), &state), outcome) {
            (_, Err(error)) => Err(error),
            // Removed by force, which is why it ended.
            (Err(error), Ok(exit)) if error.class == Class::NotFound => Ok(exit),
            (recorded, Ok(exit)) => recorded.map(|()| exit),
        }
    }

    fn start_and_wait(&self, io: RunIo, state: &mut State) -> Result<Exit> {
        let parents = self.engine.workshop.layer_dirs(&self.created.layers)?;
        let active = self.engine.workshop.driver.prepare(&self.created.directory, &parents)?;
        volumes::fill(self.engine, &self.created.spec.volumes, &active, self.cancel)?;
        let mut plan = plan::plan(self.engine, self.created.id.as_str(), &self.created.spec, &active)?;
        plan.terminal_size = tty::size(io.stdout.as_fd()).ok().filter(|_| plan.terminal);
        let log_path = log::path(&self.created.directory, self.created.id.as_str());
        let mut log = LogWriter::create(&log_path).map_err(|error| unusable(&error))?;
        let mut running = self.spawn(&plan, &active)?;
        self.record_start(&running, state)?;
        let relayed = self.relay(&mut running, &active, io, &mut log);
        if relayed.is_err() {
            running.kill(Signal::KILL.as_raw()).map_err(|error| unusable(&error))?;
        }
        let status = running.wait();
        if let Err(error) = log.finish() {
            self.notice(format!("the end of the container's log is lost: {error}"));
        }
        relayed?;
        let code = u8::try_from(status?.code & 0xff).unwrap_or(u8::MAX);
        state.life = Life::Exited;
        state.finished = Some(Timestamp::now());
        state.exit_code = Some(code);
        state.mountpoints.clear();
        Ok(Exit { code })
    }

    /// Stands between the container and its caller until it has ended.
    fn relay(&self, running: &mut Running, active: &Active, io: RunIo, log: &mut LogWriter) -> Result<()> {
        let spec = &self.created.spec;
        let io = RunIo { stdin: io.stdin.filter(|_| spec.interactive), ..io };
        let raw = match spec.terminal {
            true => relay::raw_mode(io.stdin.as_ref().map(AsFd::as_fd)).map_err(|error| unusable(&error))?,
            false => None,
        };
        let relay = Relay {
            running,
            signals: self.signals,
            control: self.control(),
            root: active.root(),
            stop_signal: options::signal(&spec.process.stop_signal)?,
            cancel: self.cancel,
            events: self.events,
        };
        let relayed = relay.run(io, log).map_err(|error| match Class::of_io(&error) {
            Class::Exhausted => {
                Error::new(Class::Exhausted, "cannot write what the container prints").why(error.to_string())
            }
            _ => unusable(&error),
        });
        // The caller's terminal is as it was before anything more is said on it.
        drop(raw);
        relayed
    }

    fn notice(&self, text: String) {
        self.events.event(Event::Notice(text));
    }

    fn spawn(&self, plan: &Plan, active: &Active) -> Result<Running> {
        let runtime = options::runtime(self.created.spec.runtime.as_deref(), &self.engine.workshop.runtime);
        let stdin = if self.created.spec.interactive { Input::Pipe } else { Input::Empty };
        let stdio = Stdio { stdin, stdout: Output::Pipe, stderr: Output::Pipe };
        let running = mica_runtime::spawn(plan, stdio, &runtime).map_err(|error| match error {
            RuntimeError::Exec(failure) => mica_build::explain(&failure, plan, active.root()),
            other => failed_to_start(&other, &runtime),
        })?;
        for notice in running.notices() {
            self.notice(notice.clone());
        }
        Ok(running)
    }

    fn record_start(&self, running: &Running, state: &mut State) -> Result<()> {
        state.started = Some(Timestamp::now());
        state.mountpoints = running.mountpoints_created().to_vec();
        // A process that has ended already cannot be asked, and need not be known.
        if let Ok(start_time) = running.start_time() {
            state.life = Life::Running(Process::now(running.pid(), start_time));
            state::record(self.engine.store(), self.created.id.as_str(), state)?;
        }
        Ok(())
    }

    /// Without the socket other processes cannot reach into the container, but it runs.
    fn control(&self) -> Option<Control> {
        match Control::listen(&self.created.directory) {
            Ok(control) => Some(control),
            Err(error) => {
                self.notice(format!("`cp` and `rm -f` will not reach this container while it runs: {error}"));
                None
            }
        }
    }
}

fn failed_to_start(error: &RuntimeError, runtime: &Runtime) -> Error {
    let shown = Error::from_fault(error);
    match runtime {
        Runtime::Own => shown,
        Runtime::External(path) => shown.context(format!("cannot run the container with {}", path.display())),
    }
}

/// The exit code that `run` ends with for an error, for the record.
fn exit_code_of(error: &Error) -> u8 {
    match error.class {
        Class::CommandNotFound => 127,
        Class::CommandNotInvocable => 126,
        _ => 125,
    }
}
