//! `GET /metrics`: numbers in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{StatusCode, header};

use super::body::Payload;
use super::exchange::{Answer, Exchange};
use super::reply::Reply;
use crate::error::Refusal;
use crate::storage::collect::Collected;

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By the first digit of the status, from 1.
    answers: [AtomicU64; 5],
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    collected_blobs: AtomicU64,
    collected_bytes: AtomicU64,
}

impl Counts {
    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answers[class - 1].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn collected(&self, freed: Collected) {
        self.collected_blobs.fetch_add(freed.blobs, Ordering::Relaxed);
        self.collected_bytes.fetch_add(freed.bytes, Ordering::Relaxed);
    }
}

/// The numbers; for users only, where there are users.
pub(super) fn show(exchange: &Exchange) -> Answer {
    let shared = &exchange.shared;
    shared.settings.access.demand_user(&exchange.who)?;
    let (blobs, bytes) = shared.storage.meta.totals().map_err(Refusal::internal)?;
    let counts = &shared.counts;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = String::new();
    text.push_str("# HELP mica_registry_requests_total Answered requests, by class of their status.\n");
    text.push_str("# TYPE mica_registry_requests_total counter\n");
    for (index, counter) in counts.answers.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "mica_registry_requests_total{{class=\"{}xx\"}} {}", index + 1, load(counter));
    }
    let connections = shared.connections.load(Ordering::Relaxed) as u64;
    for (name, kind, help, value) in [
        ("sent_bytes_total", "counter", "Bytes of bodies sent.", load(&counts.sent_bytes)),
        ("received_bytes_total", "counter", "Bytes of blobs received.", load(&counts.received_bytes)),
        ("collected_blobs_total", "counter", "Blobs freed by the collector.", load(&counts.collected_blobs)),
        ("collected_bytes_total", "counter", "Bytes freed by the collector.", load(&counts.collected_bytes)),
        ("connections", "gauge", "Open connections.", connections),
        ("blobs", "gauge", "Blobs stored.", blobs),
        ("blob_bytes", "gauge", "Bytes of the blobs stored.", bytes),
    ] {
        let _ = writeln!(
            text,
            "# HELP mica_registry_{name} {help}\n# TYPE mica_registry_{name} {kind}\nmica_registry_{name} {value}"
        );
    }
    Ok(Reply::new(StatusCode::OK)
        .with(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
        .payload(Payload::Bytes(text.into())))
}
