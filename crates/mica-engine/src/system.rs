//! The engine about itself: facts, usage, cleaning, checking.

use std::fs;
use std::time::{Duration, Instant};

use mica_api::{
    CacheEntry, Cancel, CheckFinding, CheckReport, ContainerState, DiskUsage, Event, EventSink,
    ListContainers, PruneCache, PruneContainers, PruneReport, RemovedImage, Result, SystemInfo, SystemPrune,
    Timestamp, UsageRow, VersionInfo,
};
use mica_oci::Platform;
use mica_store::{
    CacheItem, CacheKind, CacheUsage, CheckMode, DriverKind, GcError, GcReport, GcRequest, Outcome,
    PruneImages, PruneVolumes, PrunedImage,
};
use mica_sys::namespace::IdMode;

use crate::images::lines_of;
use crate::{LocalEngine, containers};

/// Version of the Engine API that today's docker client speaks.
const API_VERSION: &str = "1.51";
/// How long a collection after a removal may take; the rest is left to the next one.
const COLLECT_BUDGET: Duration = Duration::from_secs(10);

/// How long a collection waits for one that another process is doing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks whether that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl LocalEngine {
    /// Collects; while another process does, waits, saying so.
    ///
    /// Another collection may have begun before what this one is to remove was given up, so it is no substitute.
    ///
    /// # Errors
    /// The other process goes on for longer than [`PATIENCE`], for example because it is stopped; the caller gave up.
    pub(crate) fn collect_in_turn(
        &self,
        request: &GcRequest,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<GcReport> {
        let began = Instant::now();
        let mut said = false;
        loop {
            match self.store().collect(request) {
                Err(GcError::Busy { holder }) if began.elapsed() < PATIENCE => {
                    if !said && began.elapsed() > Duration::from_secs(1) {
                        let who = holder.map_or("another process".into(), |pid| format!("process {pid}"));
                        events.event(Event::Notice(format!("waiting for {who}, which is collecting")));
                        said = true;
                    }
                }
                outcome => return Ok(outcome?),
            }
            cancel.check()?;
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Frees what nothing needs any more. Another process that is just doing so is as good.
    pub(crate) fn collect_unreferenced(&self) -> Result<u64> {
        let request = GcRequest { deadline: Some(Instant::now() + COLLECT_BUDGET), ..GcRequest::default() };
        match self.store().collect(&request) {
            Ok(report) => Ok(report.freed_bytes),
            Err(GcError::Busy { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// `info`.
pub(crate) fn info(engine: &LocalEngine) -> Result<SystemInfo> {
    let store = engine.store();
    let all = containers::list(engine, ListContainers { all: true, sizes: false })?;
    let running = all.iter().filter(|container| container.state == ContainerState::Running).count() as u64;
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let rootless = engine.mode.ids != IdMode::Root;
    let mut security_options = vec!["name=seccomp,profile=builtin".to_owned()];
    if rootless {
        security_options.push("name=rootless".to_owned());
    }
    Ok(SystemInfo {
        id: store.id().to_owned(),
        containers: all.len() as u64,
        containers_running: running,
        containers_paused: 0,
        containers_stopped: all.len() as u64 - running,
        images: store
            .images()?
            .iter()
            .map(|image| &image.target.digest)
            .collect::<std::collections::BTreeSet<_>>()
            .len() as u64,
        driver: store.flavour().driver.to_string(),
        driver_status: driver_status(engine),
        docker_root_dir: store.state().root().display().to_string(),
        name: text(uname.nodename()),
        kernel_version: text(uname.release()),
        operating_system: operating_system(),
        os_type: "linux".to_owned(),
        architecture: text(uname.machine()),
        ncpu: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        mem_total: memory_bytes(),
        cgroup_version: cgroup_version().to_owned(),
        server_version: engine.version.to_owned(),
        security_options,
        warnings: engine.mode.limits.clone(),
        default_runtime: "own".to_owned(),
    })
}

fn driver_status(engine: &LocalEngine) -> Vec<(String, String)> {
    let flavour = engine.store().flavour();
    let description = match flavour.driver {
        DriverKind::OverlayTrusted => "overlayfs with trusted.overlay attributes",
        DriverKind::OverlayUser => "overlayfs with user.overlay attributes, in a user namespace",
        DriverKind::Copy => "plain copies: overlayfs is not available here",
    };
    vec![
        ("Snapshots".to_owned(), description.to_owned()),
        ("Ids".to_owned(), flavour.id_map.to_string()),
        ("Read-only".to_owned(), engine.store().is_read_only().to_string()),
    ]
}

fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn cgroup_version() -> &'static str {
    let exists = |path: &str| std::path::Path::new(path).exists();
    match (exists("/sys/fs/cgroup/cgroup.controllers"), exists("/sys/fs/cgroup")) {
        (true, _) => "2",
        (false, true) => "1",
        (false, false) => "none",
    }
}

/// `version`.
pub(crate) fn version(engine: &LocalEngine) -> VersionInfo {
    VersionInfo {
        version: engine.version.to_owned(),
        api_version: API_VERSION.to_owned(),
        git_commit: option_env!("MICA_GIT_COMMIT").unwrap_or_default().to_owned(),
        os: "linux".to_owned(),
        arch: Platform::host().architecture,
    }
}

/// `system df`.
pub(crate) fn disk_usage(engine: &LocalEngine) -> Result<DiskUsage> {
    let usage = engine.store().disk_usage()?;
    let running: Vec<String> = containers::list(engine, ListContainers::default())?
        .into_iter()
        .map(|container| container.id)
        .collect();
    let container_bytes = usage.containers.iter().map(|container| container.bytes).sum();
    let stopped_bytes = usage
        .containers
        .iter()
        .filter(|container| !running.iter().any(|id| id == container.id.as_str()))
        .map(|container| container.bytes)
        .sum();
    let cache_entries = cache_entries(&usage.cache, usage.reclaimable.garbage_bytes);
    let volume_bytes = usage.volumes.iter().map(|volume| volume.bytes).sum();
    Ok(DiskUsage {
        images: UsageRow {
            total: usage.images.len() as u64,
            active: usage.images.iter().filter(|image| image.containers > 0).count() as u64,
            size_bytes: usage.images_bytes,
            reclaimable_bytes: usage.reclaimable.unused_images_bytes,
        },
        containers: UsageRow {
            total: usage.containers.len() as u64,
            active: running.len() as u64,
            size_bytes: container_bytes,
            reclaimable_bytes: stopped_bytes,
        },
        volumes: UsageRow {
            total: usage.volumes.len() as u64,
            active: usage.volumes.iter().filter(|volume| volume.containers > 0).count() as u64,
            size_bytes: volume_bytes,
            reclaimable_bytes: usage.reclaimable.volumes_bytes,
        },
        build_cache: UsageRow {
            total: cache_entries.len() as u64,
            active: cache_entries.iter().filter(|entry| entry.in_use).count() as u64,
            size_bytes: cache_entries.iter().map(|entry| entry.size_bytes - entry.shared_bytes).sum(),
            reclaimable_bytes: usage.reclaimable.cache_bytes,
        },
        cache_entries,
    })
}

/// The build cache, and with it what nothing needs: both go with `builder prune`.
fn cache_entries(cache: &[CacheUsage], garbage_bytes: u64) -> Vec<CacheEntry> {
    let mut entries: Vec<CacheEntry> = cache.iter().map(cache_entry).collect();
    if garbage_bytes > 0 {
        entries.push(CacheEntry {
            id: "unreferenced".to_owned(),
            parents: Vec::new(),
            description: "left by commands that did not end well, or replaced".to_owned(),
            kind: CacheKind::Internal.as_str().to_owned(),
            size_bytes: garbage_bytes,
            shared_bytes: 0,
            reclaimable_bytes: garbage_bytes,
            shared: false,
            mutable: false,
            in_use: false,
            created: Timestamp(0),
            last_used: None,
            usage_count: 0,
        });
    }
    entries
}

fn cache_entry(part: &CacheUsage) -> CacheEntry {
    CacheEntry {
        id: part.id.clone(),
        parents: part.parent.iter().cloned().collect(),
        description: part.description.clone(),
        kind: part.kind.as_str().to_owned(),
        size_bytes: part.size_bytes,
        shared_bytes: part.shared_bytes,
        reclaimable_bytes: part.reclaimable_bytes,
        shared: part.is_shared,
        mutable: !matches!(part.item, CacheItem::Record(_)),
        in_use: part.in_use,
        created: Timestamp(part.created),
        last_used: Some(Timestamp(part.last_used)),
        usage_count: part.uses,
    }
}

/// `builder du`.
pub(crate) fn build_cache(engine: &LocalEngine) -> Result<Vec<CacheEntry>> {
    let (cache, garbage_bytes) = engine.store().cache_usage()?;
    Ok(cache_entries(&cache, garbage_bytes))
}

/// `builder prune`.
pub(crate) fn prune_cache(
    engine: &LocalEngine,
    request: &PruneCache,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<PruneReport> {
    cancel.check()?;
    let (known, _) = engine.store().cache_usage()?;
    let meant = known.iter().filter(|part| request.filter.matches(&cache_entry(part)));
    let cache = mica_store::PruneCache {
        // Looked at again in the transaction: a build may have used it meanwhile.
        unused_since: request.filter.unused_since.map(|time| time.0.saturating_add(1)),
        only: Some(meant.map(|part| part.item.clone()).collect()),
        shared: request.all,
        limits: request.limits,
    };
    let request = GcRequest { cache: Some(cache), ..GcRequest::default() };
    Ok(prune_report(engine.collect_in_turn(&request, cancel, events)?, &known))
}

/// `system prune`.
pub(crate) fn prune(
    engine: &LocalEngine,
    request: &SystemPrune,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<PruneReport> {
    let containers = containers::prune(engine, &PruneContainers::default(), cancel)?;
    engine.trim_journals(0)?;
    let images = if request.all { PruneImages::Unused } else { PruneImages::Dangling };
    let cache = mica_store::PruneCache { shared: request.all, ..mica_store::PruneCache::default() };
    let (known, _) = engine.store().cache_usage()?;
    let volumes = if request.volumes { PruneVolumes::Anonymous } else { PruneVolumes::None };
    let request = GcRequest { images, cache: Some(cache), volumes, ..GcRequest::default() };
    let mut report = prune_report(engine.collect_in_turn(&request, cancel, events)?, &known);
    report.containers = containers.containers;
    report.freed_bytes += containers.freed_bytes;
    Ok(report)
}

/// `system gc`.
pub(crate) fn collect(engine: &LocalEngine, cancel: &Cancel, events: &dyn EventSink) -> Result<PruneReport> {
    cancel.check()?;
    containers::bury_the_dead(engine)?;
    engine.trim_journals(0)?;
    Ok(prune_report(engine.collect_in_turn(&GcRequest::default(), cancel, events)?, &[]))
}

/// What a collection did; `cache` is what was known of the build cache before it.
pub(crate) fn prune_report(report: GcReport, cache: &[CacheUsage]) -> PruneReport {
    let removed = report.cache.iter().filter_map(|pruned| {
        let known = cache.iter().find(|known| known.item == pruned.item)?;
        Some(CacheEntry { size_bytes: pruned.freed_bytes, ..cache_entry(known) })
    });
    PruneReport {
        cache: removed.collect(),
        images: report.images.into_iter().flat_map(image_lines).collect(),
        containers: Vec::new(),
        volumes: report.volumes,
        freed_bytes: report.freed_bytes,
    }
}

fn image_lines(image: PrunedImage) -> Vec<RemovedImage> {
    lines_of(&image.untagged, Some((image.image_id, image.layers)))
}

/// `system check`.
pub(crate) fn check(engine: &LocalEngine, repair: bool, cancel: &Cancel) -> Result<CheckReport> {
    cancel.check()?;
    let mode = if repair { CheckMode::Repair } else { CheckMode::Report };
    let report = engine.store().check(mode, &mut |_| {})?;
    let findings = report
        .findings
        .into_iter()
        .map(|finding| CheckFinding {
            object: finding.path.display().to_string(),
            problem: finding.problem.to_string(),
            needed_by: finding.images,
            repaired: match finding.outcome {
                Outcome::Reported => None,
                Outcome::Restored => Some("restored".to_owned()),
                Outcome::Removed => Some("removed, with everything that needs it".to_owned()),
                Outcome::Kept => {
                    Some("kept: a container needs it, or all metadata would have to go".to_owned())
                }
            },
        })
        .collect();
    Ok(CheckReport { checked: report.blobs + report.layers, findings, platforms: Vec::new() })
}
