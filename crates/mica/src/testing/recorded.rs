//! Builds, event by event, and what renderers make of them.

use mica_api::{Event, LogStream, StatusUpdate, Timestamp, VertexUpdate};
use mica_oci::Digest;

use crate::progress::{Phase, Renderer, Trace};

const START: i64 = 1_700_000_000_000_000_000;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp(START + milliseconds * 1_000_000)
}

fn id(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn vertex(name: &str, started: i64, completed: Option<i64>) -> VertexUpdate {
    VertexUpdate {
        digest: id(name),
        inputs: Vec::new(),
        name: name.to_owned(),
        started: Some(at(started)),
        completed: completed.map(at),
        cached: false,
        error: None,
    }
}

fn started(name: &str, start: i64) -> Event {
    Event::Vertex(vertex(name, start, None))
}

fn done(name: &str, start: i64, end: i64) -> Event {
    Event::Vertex(vertex(name, start, Some(end)))
}

fn cached(name: &str, time: i64) -> Event {
    Event::Vertex(VertexUpdate { cached: true, ..vertex(name, time, Some(time)) })
}

fn failed(name: &str, start: i64, end: i64, error: &str) -> Event {
    Event::Vertex(VertexUpdate { error: Some(error.to_owned()), ..vertex(name, start, Some(end)) })
}

fn log(name: &str, time: i64, text: &str) -> Event {
    Event::Log { vertex: id(name), stream: LogStream::Stdout, data: text.as_bytes().to_vec(), at: at(time) }
}

fn status(name: &str, what: &str, amount: (u64, u64), times: (i64, i64), ended: bool) -> Event {
    Event::Status(StatusUpdate {
        vertex: id(name),
        id: what.to_owned(),
        current: amount.0,
        total: amount.1,
        at: at(times.1),
        started: Some(at(times.0)),
        completed: ended.then(|| at(times.1)),
    })
}

const DEFINITION: &str = "[internal] load build definition from Dockerfile";
const IGNORE: &str = "[internal] load .dockerignore";
const CONTEXT: &str = "[internal] load build context";
const FROM: &str = "[build 1/3] FROM docker.io/library/golang:1";
const COPY: &str = "[build 2/3] COPY . /src";
const RUN: &str = "[build 3/3] RUN --mount=type=cache,target=/root/.cache go build -o /out/a-rather-long-name-of-a-program ./cmd/...";
const TEST: &str = "[test 1/1] RUN go test ./...";
const EXPORT: &str = "exporting to image";

/// A build that succeeds: statuses, a cached step, two steps at once, a warning.
pub(crate) fn success() -> Vec<Event> {
    let mut pending = vertex(RUN, 0, None);
    pending.started = None;
    pending.inputs = vec![id(COPY)];
    vec![
        Event::Notice("rootless without subordinate ids: every file belongs to root".to_owned()),
        started(DEFINITION, 0),
        status(DEFINITION, "transferring dockerfile: 137B", (0, 0), (0, 20), true),
        done(DEFINITION, 0, 30),
        Event::Warning {
            title: "FromAsCasing".into(),
            message: "'as' and 'FROM' do not match".into(),
            line: Some(1),
            url: None,
            excerpt: None,
        },
        started(IGNORE, 30),
        started(CONTEXT, 31),
        done(IGNORE, 30, 40),
        Event::Vertex(pending),
        status(CONTEXT, "transferring context", (1_540, 12_345), (31, 50), false),
        status(CONTEXT, "transferring context", (12_345, 12_345), (31, 90), true),
        done(CONTEXT, 31, 95),
        cached(FROM, 96),
        cached(COPY, 97),
        started(RUN, 100),
        started(TEST, 101),
        log(RUN, 198, "compiling\nhalf a "),
        log(TEST, 200, "ok  \tpkg/a\t0.1s\n"),
        log(RUN, 300, "line\n10%\r20%\n"),
        log(RUN, 12_345, "漢字 are kept\n"),
        done(TEST, 101, 12_400),
        done(RUN, 100, 13_200),
        started(EXPORT, 13_200),
        status(EXPORT, "exporting layers", (0, 0), (13_200, 13_300), true),
        done(EXPORT, 13_200, 13_310),
    ]
}

/// A build in which one step fails and another is given up.
pub(crate) fn failure() -> Vec<Event> {
    let mut events = vec![started(RUN, 0), started(TEST, 1)];
    events.extend((1..=12).map(|n| log(RUN, n * 100, &format!("line {n}\n"))));
    events.push(log(RUN, 1300, "last words"));
    let error = "process \"/bin/sh -c go build\" did not complete successfully: exit code: 3";
    events.push(failed(RUN, 0, 1400, error));
    events.push(failed(TEST, 1, 1401, "context canceled"));
    events
}

/// One step after the other, so that what is printed does not depend on when.
pub(crate) fn short(fails: bool) -> Vec<Event> {
    let step = "[2/2] RUN exit 3";
    let mut events =
        vec![started(DEFINITION, 0), done(DEFINITION, 0, 100), started(step, 100), log(step, 200, "hello\n")];
    if fails {
        let error = "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3";
        events.push(failed(step, 100, 300, error));
    } else {
        events.push(done(step, 100, 300));
        events.push(Event::Warning {
            title: "Rule".to_owned(),
            message: "text".to_owned(),
            line: Some(2),
            url: None,
            excerpt: None,
        });
    }
    events
}

/// Two steps that print all the time, for twenty seconds.
pub(crate) fn two_busy_steps() -> Vec<Event> {
    let mut events = vec![started(RUN, 0), started(TEST, 0)];
    for second in 1..=20 {
        events.push(log(RUN, second * 1000, &format!("build {second}\n")));
        events.push(log(TEST, second * 1000 + 1, &format!("test {second}\n")));
    }
    events.push(done(TEST, 0, 21_000));
    events.push(done(RUN, 0, 21_001));
    events
}

/// When an event happened.
pub(crate) fn time_of(event: &Event) -> Timestamp {
    match event {
        Event::Vertex(update) => update.completed.or(update.started).unwrap_or(at(0)),
        Event::Status(update) => update.at,
        Event::Log { at, .. } => *at,
        _ => at(0),
    }
}

/// A frame after each event, and the last one.
pub(crate) fn replay(renderer: &mut dyn Renderer, events: &[Event]) -> String {
    let mut trace = Trace::default();
    let mut text = String::new();
    for event in events {
        renderer.event(event);
        trace.update(event);
        text.push_str(&renderer.frame(&mut trace, time_of(event), Phase::Running));
    }
    text + &renderer.frame(&mut trace, at(20_000), Phase::Finished)
}

/// Only the last frame.
pub(crate) fn last_frame(renderer: &mut dyn Renderer, events: &[Event]) -> String {
    let mut trace = Trace::default();
    events.iter().for_each(|event| trace.update(event));
    renderer.frame(&mut trace, at(20_000), Phase::Finished)
}

/// One frame of a build that goes on.
pub(crate) fn frame_after(renderer: &mut dyn Renderer, events: &[Event]) -> String {
    let mut trace = Trace::default();
    events.iter().for_each(|event| trace.update(event));
    let now = events.iter().map(time_of).max().unwrap_or_default();
    renderer.frame(&mut trace, now, Phase::Running)
}
