//! [`LocalEngine`]: one process, one store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_api::{
    BuildReply, BuildRequest, CacheEntry, Cancel, CheckReport, CommitContainer, ContainerDetails,
    ContainerSummary, CopyFromContainer, CopyIntoContainer, DiskUsage, Engine, EventSink, Exit,
    ExportContainer, FileChange, HistoryEntry, ImageDetails, ImageSummary, ImportImage, ListContainers,
    ListImages, LoadImages, LoadedImage, LogLine, LogRequest, PackReply, PackRequest, PruneCache,
    PruneContainers, PruneImages, PruneReport, PullImage, PulledImage, PushImage, PushedImage,
    RemoveContainer, RemoveImage, RemovedImage, Result, RunIo, RunRequest, SaveImages, SystemInfo,
    SystemPrune, VersionInfo,
};
use mica_build::Workshop;
use mica_distribution::{HttpClient, Proxies, Registries, RegistrySettings};
use mica_oci::{Reference, Tag};
use mica_runtime::{Ids, Runtime};
use mica_snapshot::{Copy, Driver, Overlay};
use mica_store::{DriverKind, Store};
use mica_sys::namespace::IdMode;

use crate::entry::{Mode, open_store, repair_store};
use crate::{containers, images, pack, registry, system, transfer};

/// The engine that works in this process.
pub struct LocalEngine {
    pub(crate) workshop: Workshop,
    pub(crate) mode: Mode,
    /// mica's version, for `info` and `version`.
    pub(crate) version: &'static str,
}

impl LocalEngine {
    /// Makes a store that cannot be opened usable again; answers what was replaced, usually nothing.
    ///
    /// # Errors
    /// Its damage is of a kind that cannot be repaired, or it belongs to another kind of process.
    pub fn repair(root: &Path, mode: &Mode) -> Result<Vec<PathBuf>> {
        repair_store(root, mode, |user| mica_snapshot::overlay_works(root, user))
    }

    /// Opens the store at `root` and the tools that go with it.
    ///
    /// # Errors
    /// When the store cannot be opened by this process.
    pub fn open(
        root: &Path,
        mode: Mode,
        version: &'static str,
        (proxies, settings): (Proxies, RegistrySettings),
    ) -> Result<Self> {
        let store = open_store(root, &mode, |user| mica_snapshot::overlay_works(root, user))?;
        let driver: Arc<dyn Driver> = match store.flavour().driver {
            DriverKind::OverlayTrusted => Arc::new(Overlay::new(false)),
            DriverKind::OverlayUser => Arc::new(Overlay::new(true)),
            DriverKind::Copy => Arc::new(Copy),
        };
        let ids = match mode.ids {
            IdMode::Root => Ids::Root,
            IdMode::SubordinateIds { .. } => Ids::Subordinate,
            IdMode::SingleId => Ids::Single,
        };
        let devices = ids == Ids::Root;
        let http = Arc::new(HttpClient::new(proxies));
        let registries = Arc::new(Registries::new(http.clone(), settings));
        let workshop = Workshop { store, driver, ids, devices, runtime: Runtime::Own, http, registries };
        Ok(Self { workshop, mode, version })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.workshop.store
    }
}

impl Engine for LocalEngine {
    fn build(&self, request: BuildRequest, cancel: &Cancel, events: &dyn EventSink) -> Result<BuildReply> {
        let reply = mica_build::build(&self.workshop, request, cancel, events);
        if !cancel.is_cancelled() {
            self.tidy_up_after_build();
        }
        reply
    }

    fn pack(&self, request: PackRequest, cancel: &Cancel) -> Result<PackReply> {
        pack::pack(self, request, cancel)
    }

    fn images(&self, request: ListImages) -> Result<Vec<ImageSummary>> {
        images::list(self, &request)
    }

    fn image(&self, query: &str) -> Result<ImageDetails> {
        images::inspect(self, query)
    }

    fn history(&self, query: &str) -> Result<Vec<HistoryEntry>> {
        images::history(self, query)
    }

    fn tag(&self, source: &str, target: &str) -> Result<()> {
        images::tag(self, source, target)
    }

    fn remove_image(&self, request: RemoveImage) -> Result<Vec<RemovedImage>> {
        images::remove(self, &request)
    }

    fn prune_images(
        &self,
        request: PruneImages,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<PruneReport> {
        images::prune(self, &request, cancel, events)
    }

    fn save(&self, request: SaveImages, cancel: &Cancel) -> Result<()> {
        transfer::save(self, request, cancel)
    }

    fn load(&self, request: LoadImages, cancel: &Cancel, events: &dyn EventSink) -> Result<Vec<LoadedImage>> {
        transfer::load(self, request, cancel, events)
    }

    fn import(&self, request: ImportImage, cancel: &Cancel) -> Result<String> {
        transfer::import(self, request, cancel)
    }

    fn pull(&self, request: PullImage, cancel: &Cancel, events: &dyn EventSink) -> Result<PulledImage> {
        registry::pull(self, &request, cancel, events)
    }

    fn remote_tags(&self, repository: &Reference, cancel: &Cancel) -> Result<Vec<Tag>> {
        registry::tags(self, repository, cancel)
    }

    fn push(&self, request: PushImage, cancel: &Cancel, events: &dyn EventSink) -> Result<PushedImage> {
        registry::push(self, &request, cancel, events)
    }

    fn export(&self, request: ExportContainer, cancel: &Cancel) -> Result<()> {
        containers::export(self, request, cancel)
    }

    fn run(&self, request: RunRequest, io: RunIo, cancel: &Cancel, events: &dyn EventSink) -> Result<Exit> {
        containers::run(self, request, io, cancel, events)
    }

    fn containers(&self, request: ListContainers) -> Result<Vec<ContainerSummary>> {
        containers::list(self, request)
    }

    fn container(&self, query: &str) -> Result<ContainerDetails> {
        containers::inspect(self, query)
    }

    fn remove_container(&self, request: RemoveContainer) -> Result<()> {
        containers::remove(self, &request)
    }

    fn prune_containers(&self, request: PruneContainers, cancel: &Cancel) -> Result<PruneReport> {
        containers::prune(self, &request, cancel)
    }

    fn commit(&self, request: CommitContainer, cancel: &Cancel) -> Result<String> {
        containers::commit(self, request, cancel)
    }

    fn changes(&self, query: &str) -> Result<Vec<FileChange>> {
        containers::changes(self, query)
    }

    fn copy_from(&self, request: CopyFromContainer, cancel: &Cancel) -> Result<()> {
        containers::copy_from(self, request, cancel)
    }

    fn copy_into(&self, request: CopyIntoContainer, cancel: &Cancel) -> Result<()> {
        containers::copy_into(self, request, cancel)
    }

    fn logs(
        &self,
        request: LogRequest,
        cancel: &Cancel,
        line: &mut dyn FnMut(LogLine) -> Result<()>,
    ) -> Result<()> {
        containers::logs(self, &request, cancel, line)
    }

    fn info(&self) -> Result<SystemInfo> {
        system::info(self)
    }

    fn version(&self) -> Result<VersionInfo> {
        Ok(system::version(self))
    }

    fn build_cache(&self) -> Result<Vec<CacheEntry>> {
        system::build_cache(self)
    }

    fn disk_usage(&self) -> Result<DiskUsage> {
        system::disk_usage(self)
    }

    fn prune_cache(
        &self,
        request: PruneCache,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<PruneReport> {
        system::prune_cache(self, &request, cancel, events)
    }

    fn prune_system(
        &self,
        request: SystemPrune,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<PruneReport> {
        system::prune(self, &request, cancel, events)
    }

    fn collect(&self, cancel: &Cancel, events: &dyn EventSink) -> Result<PruneReport> {
        system::collect(self, cancel, events)
    }

    fn check(&self, repair: bool, cancel: &Cancel) -> Result<CheckReport> {
        system::check(self, repair, cancel)
    }
}
