//! `mica build`: what is asked and answered (build.md 6.4, 6.5).

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use mica_oci::{Descriptor, Digest, Platform, Reference};

/// A build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The files COPY may read.
    pub context: BuildContext,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// Names for the result.
    pub tags: Vec<Reference>,
    /// What the image is for; `None` is this machine. One for now.
    pub platform: Option<Platform>,
    /// The stage to build; `None` is the last.
    pub target: Option<String>,
    /// `--build-arg`, in order; values are resolved by the client.
    pub build_args: Vec<(String, String)>,
    /// `--build-context`.
    pub named_contexts: Vec<(String, NamedContext)>,
    /// `--secret`.
    pub secrets: Vec<Secret>,
    /// `--ssh`.
    pub ssh: Vec<SshAgent>,
    /// `--no-cache`.
    pub no_cache: NoCache,
    /// `--pull`: base images are asked for again although they are here.
    pub pull: bool,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--network`.
    pub network: Option<String>,
    /// `--add-host`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size`.
    pub shm_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<String>,
    /// `--allow`.
    pub entitlements: Entitlements,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--resource`.
    pub resources: Resources,
    /// How much of a step's output is shown.
    pub log_limits: LogLimits,
    /// `--cache-from`.
    pub cache_from: Vec<CacheFrom>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheTo>,
    /// Where results go; empty: nowhere but the cache and, with tags or not, the store.
    pub outputs: Vec<Output>,
    /// `--runtime`: an external OCI runtime for RUN steps.
    pub runtime: Option<PathBuf>,
}

/// What steps may do beyond the ordinary (O6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --network=host`.
    pub host_network: bool,
    /// `RUN --security=insecure`.
    pub insecure: bool,
}

/// Limits for the processes of one step together (O5). They are not part of any cache key (K2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together; -1 is no limit.
    pub memory_and_swap_bytes: Option<i64>,
    /// Relative weight, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// Length of a period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPU time in microseconds per period.
    pub cpu_quota: Option<i64>,
    /// CPUs, like `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
}

/// How much of each stream of a step is shown; the rest is left out with a remark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// In all; `None` is no limit of either kind.
    pub bytes: Option<u64>,
    /// Per second since the step began.
    pub bytes_per_second: Option<u64>,
}

impl Default for LogLimits {
    /// BuildKit's.
    fn default() -> Self {
        Self { bytes: Some(2 << 20), bytes_per_second: Some(200 << 10) }
    }
}

/// The files COPY may read.
#[derive(Debug)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// A stream: a tar (then the context), or else the text of a Dockerfile with an empty context (O1).
    Stream(OwnedFd),
    /// A repository, or a URL whose content is treated like a stream (O1).
    Remote(String),
}

/// Where the Dockerfile is.
#[derive(Debug)]
pub enum DockerfileSource {
    /// `Dockerfile`, then `dockerfile`, `Containerfile` in the context root (P1).
    Default,
    /// A file; relative paths are resolved by the client, or inside a stream context by the engine.
    Path(PathBuf),
    /// A stream: `-f -`.
    Stream(OwnedFd),
    /// A URL that gives the text.
    Remote(String),
}

/// A `--build-context` value (O2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// A repository, or a URL.
    Remote(String),
    /// `docker-image://`: an image of the store.
    Image(Reference),
    /// `oci-layout://path[:tag|@digest]`.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// Which entry by tag.
        tag: Option<String>,
        /// Which entry by digest.
        digest: Option<Digest>,
    },
}

/// A value that never enters the store.
#[derive(Clone)]
pub struct Secret {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub value: SecretValue,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where a secret comes from.
#[derive(Clone)]
pub enum SecretValue {
    /// A file, read when the step runs.
    File(PathBuf),
    /// Bytes, from the client's environment.
    Bytes(Vec<u8>),
}

/// A `--ssh` value (O4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAgent {
    /// Its id.
    pub id: String,
    /// The agent's socket on the client.
    pub socket: PathBuf,
}

/// `--no-cache` and `--no-cache-filter` (K10).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// Everything may be answered from the cache.
    #[default]
    Off,
    /// No step is.
    All,
    /// No step of these stages is.
    Stages(Vec<String>),
}

/// Where a result goes (build.md 6.5).
#[derive(Debug)]
pub enum Output {
    /// The local store; what a build without `-o` does.
    Store {
        /// The image's form.
        form: ImageForm,
    },
    /// A registry: what `--push` does.
    Registry {
        /// How.
        push: RegistryPush,
        /// The image's form.
        form: ImageForm,
    },
    /// An OCI layout or a docker archive.
    Archive {
        /// Which.
        layout: ImageLayout,
        /// Where.
        destination: Destination,
        /// Names given by `name=`, besides the tags.
        names: Vec<Reference>,
        /// Layers.
        compression: Compression,
        /// The image's form.
        form: ImageForm,
    },
    /// The root file system as files.
    Local {
        /// The directory, made if missing.
        directory: PathBuf,
        /// Whether what the result does not have is removed (`mode=delete`).
        mirror: bool,
        /// Whether the files go into a directory named as the platform.
        platform_split: bool,
    },
    /// The root file system as a tar.
    Tar {
        /// Where.
        destination: Destination,
    },
    /// Nothing but the cache.
    CacheOnly,
}

/// How a result goes to a registry (X2 to X4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryPush {
    /// Layers that were never compressed.
    pub compression: Compression,
    /// Whether the others are compressed again.
    pub force_compression: bool,
    /// Repositories that get the manifest without a tag; if there are none, the tags of the build are pushed.
    pub by_digest: Vec<Reference>,
}

/// What can be chosen about an image wherever it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageForm {
    /// Docker's media types instead of those of OCI (G15).
    pub docker_media_types: bool,
    /// Whether no file of the new layers is younger than SOURCE_DATE_EPOCH (G12).
    pub rewrite_timestamp: bool,
    /// Notes on the image (N1).
    pub annotations: Vec<Annotation>,
}

/// `--annotation`, or `annotation.…` of an output (N1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What is annotated.
    pub target: AnnotationTarget,
    /// Only for this platform.
    pub platform: Option<Platform>,
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
}

/// What an annotation is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationTarget {
    /// The manifest of each image.
    Manifest,
    /// The manifest's descriptor, in the index or in `index.json`.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The index's descriptor.
    IndexDescriptor,
}

/// `--cache-from` (E1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFrom {
    /// An OCI layout.
    Local {
        /// Its directory.
        directory: PathBuf,
        /// Which entry by tag.
        tag: String,
        /// Which entry by digest, whatever the tag.
        digest: Option<Digest>,
    },
    /// A registry: a cache, or an image with one inside.
    Registry(Reference),
}

/// `--cache-to` (E1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Where to.
    pub destination: CacheDestination,
    /// Every vertex, not only what the result is made of (E3).
    pub max: bool,
    /// How layers are compressed.
    pub compression: Compression,
    /// OCI media types instead of docker's.
    pub oci_media_types: bool,
    /// A manifest instead of BuildKit's older index (E4).
    pub image_manifest: bool,
    /// Whether a failure is only told.
    pub ignore_error: bool,
}

/// Where a cache is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheDestination {
    /// An OCI layout.
    Local {
        /// Its directory.
        directory: PathBuf,
        /// The entry that is made or replaced.
        tag: String,
        /// Whether other entries go.
        reset: bool,
    },
    /// A registry, under this name.
    Registry(Reference),
    /// The config of the image itself (E5).
    Inline,
}

/// How an image is laid out in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageLayout {
    /// `type=oci` (X5).
    Oci,
    /// `type=docker` (X6).
    Docker,
}

/// Where bytes go.
#[derive(Debug)]
pub enum Destination {
    /// A file, complete or absent: never half-written under its name.
    File(PathBuf),
    /// A directory (`tar=false`).
    Directory(PathBuf),
    /// A descriptor: standard output.
    Stream(OwnedFd),
}

/// How layers are compressed when they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip at mica's default level.
    #[default]
    Default,
    /// As they are.
    Uncompressed,
    /// gzip, 0-9.
    Gzip(Option<u32>),
    /// zstd, 0-22.
    Zstd(Option<u32>),
}

/// What a build made.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildReply {
    /// Digest of the image config: what `--iidfile` and `-q` report (X9); `None` for local, tar and cacheonly outputs.
    pub image_id: Option<Digest>,
    /// The manifest.
    pub manifest: Option<Descriptor>,
    /// Names this build among those of the store.
    pub build_id: String,
    /// Names that now point at it.
    pub names: Vec<Reference>,
}
