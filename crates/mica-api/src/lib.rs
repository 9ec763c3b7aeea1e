//! What an engine can be asked, what it answers, and what it says meanwhile.
//!
//! Pure: everyone meets here, the command line, the engine in process, and servers of existing protocols. Replies that
//! users see as JSON have docker's keys.

mod build;
mod cache;
mod cancel;
mod container;
mod error;
mod event;
mod image;
mod system;
mod transfer;

use mica_oci::{Reference, Tag};

pub use build::{
    Annotation, AnnotationTarget, BuildContext, BuildReply, BuildRequest, CacheDestination, CacheFrom,
    CacheTo, Compression, Destination, DockerfileSource, Entitlements, ImageForm, ImageLayout, LogLimits,
    NamedContext, NoCache, Output, RegistryPush, Resources, Secret, SecretValue, SshAgent,
};
pub use cache::{
    CacheCondition, CacheEntry, CacheFilter, CacheFlag, CacheLimits, CacheText, PruneCache, TextTest,
};
pub use cancel::{Cancel, Cancelled};
pub use container::{
    ChangeKind, CommitContainer, ContainerDetails, ContainerFilter, ContainerState, ContainerSummary,
    CopyFromContainer, CopyIntoContainer, Exit, FileChange, ListContainers, LogLine, LogRequest, NetworkMode,
    PruneContainers, RemoveContainer, RunIo, RunRequest, VolumeMount, VolumeSource,
};
pub use error::{Class, Error, Fault, Result};
pub use event::{
    Event, EventSink, Ignore, LogStream, StatusUpdate, Timestamp, TransferState, TransferUpdate, VertexUpdate,
};
pub use image::{
    GraphDriver, HistoryEntry, ImageDetails, ImageFilter, ImageMetadata, ImageSummary, ListImages,
    PruneImages, PruneReport, RemoveImage, RemovedImage, RootFsDetails,
};
pub use system::{
    CheckFinding, CheckReport, DiskUsage, PackEntry, PackReply, PackRequest, SystemInfo, SystemPrune,
    UsageRow, VersionInfo,
};
pub use transfer::{
    ExportContainer, ImportImage, LoadImages, LoadedImage, PullImage, PulledImage, PushImage, PushedImage,
    SaveImages,
};

/// An engine: builds, stores, inspects, runs and moves images.
///
/// Synchronous: one thread drives one operation; every long one polls `cancel`. Implemented in process by
/// `mica-engine`; clients of remote engines implement it too.
pub trait Engine: Send + Sync {
    /// Builds an image.
    fn build(&self, request: BuildRequest, cancel: &Cancel, events: &dyn EventSink) -> Result<BuildReply>;
    /// Makes an image from programs of the host.
    fn pack(&self, request: PackRequest, cancel: &Cancel) -> Result<PackReply>;

    /// Lists images, newest first.
    fn images(&self, request: ListImages) -> Result<Vec<ImageSummary>>;
    /// Details of one image, by name, ID prefix or digest.
    fn image(&self, query: &str) -> Result<ImageDetails>;
    /// What made an image, newest first.
    fn history(&self, query: &str) -> Result<Vec<HistoryEntry>>;
    /// Gives an image another name.
    fn tag(&self, source: &str, target: &str) -> Result<()>;
    /// Removes names, and images that no name is left for.
    fn remove_image(&self, request: RemoveImage) -> Result<Vec<RemovedImage>>;
    /// Removes images by policy.
    fn prune_images(
        &self,
        request: PruneImages,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<PruneReport>;

    /// Writes images as an archive.
    fn save(&self, request: SaveImages, cancel: &Cancel) -> Result<()>;
    /// Reads images from an archive.
    fn load(&self, request: LoadImages, cancel: &Cancel, events: &dyn EventSink) -> Result<Vec<LoadedImage>>;
    /// Makes an image from a root file system tar; returns the image ID.
    fn import(&self, request: ImportImage, cancel: &Cancel) -> Result<String>;
    /// Fetches an image from its registry.
    fn pull(&self, request: PullImage, cancel: &Cancel, events: &dyn EventSink) -> Result<PulledImage>;
    /// The tags that a repository has in its registry.
    fn remote_tags(&self, repository: &Reference, cancel: &Cancel) -> Result<Vec<Tag>>;
    /// Sends an image to its registry.
    fn push(&self, request: PushImage, cancel: &Cancel, events: &dyn EventSink) -> Result<PushedImage>;
    /// Writes a container's files as a tar.
    fn export(&self, request: ExportContainer, cancel: &Cancel) -> Result<()>;

    /// Runs a container in the foreground until it ends.
    fn run(&self, request: RunRequest, io: RunIo, cancel: &Cancel, events: &dyn EventSink) -> Result<Exit>;
    /// Lists containers, newest first.
    fn containers(&self, request: ListContainers) -> Result<Vec<ContainerSummary>>;
    /// Details of one container, by name or ID prefix.
    fn container(&self, query: &str) -> Result<ContainerDetails>;
    /// Removes a container.
    fn remove_container(&self, request: RemoveContainer) -> Result<()>;
    /// Removes containers that do not run, by policy.
    fn prune_containers(&self, request: PruneContainers, cancel: &Cancel) -> Result<PruneReport>;
    /// Makes an image of a container's changes; returns the image ID.
    fn commit(&self, request: CommitContainer, cancel: &Cancel) -> Result<String>;
    /// What a container changed.
    fn changes(&self, query: &str) -> Result<Vec<FileChange>>;
    /// Writes a path of a container as a tar.
    fn copy_from(&self, request: CopyFromContainer, cancel: &Cancel) -> Result<()>;
    /// Reads a tar into a directory of a container.
    fn copy_into(&self, request: CopyIntoContainer, cancel: &Cancel) -> Result<()>;
    /// Calls `line` for each line a container printed.
    fn logs(
        &self,
        request: LogRequest,
        cancel: &Cancel,
        line: &mut dyn FnMut(LogLine) -> Result<()>,
    ) -> Result<()>;

    /// Facts about the engine and its store.
    fn info(&self) -> Result<SystemInfo>;
    /// Versions.
    fn version(&self) -> Result<VersionInfo>;
    /// What the store uses, and how much of it could be freed.
    fn disk_usage(&self) -> Result<DiskUsage>;
    /// Measures the build cache alone: without walking containers and volumes.
    fn build_cache(&self) -> Result<Vec<CacheEntry>>;
    /// Removes cache records by policy.
    fn prune_cache(
        &self,
        request: PruneCache,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<PruneReport>;
    /// Removes everything unused.
    fn prune_system(
        &self,
        request: SystemPrune,
        cancel: &Cancel,
        events: &dyn EventSink,
    ) -> Result<PruneReport>;
    /// Frees what nothing needs; names and cache records stay.
    fn collect(&self, cancel: &Cancel, events: &dyn EventSink) -> Result<PruneReport>;
    /// Verifies the store, and repairs it if asked.
    fn check(&self, repair: bool, cancel: &Cancel) -> Result<CheckReport>;
}
