//! What is to be converted, and how.

use mica_dockerfile::ignore::Patterns;
use mica_oci::Platform;
use mica_solve::{NetworkMode, SourceOp};

/// A Dockerfile and everything of the command line that changes what it means (build.md 6.4).
#[derive(Debug, Clone)]
pub struct ConvertRequest<'a> {
    /// The bytes of the Dockerfile.
    pub dockerfile: &'a [u8],
    /// `--target`; `None` is the last stage.
    pub target: Option<&'a str>,
    /// `--build-arg`; a name without a value is dropped (V16). The client's proxies are here too (V19).
    pub build_args: &'a [(String, Option<String>)],
    /// What is built for.
    pub platform: Platform,
    /// Whether the user asked for that platform: the config then says so even if the base disagrees (F7).
    pub explicit_platform: bool,
    /// What is built on.
    pub build_platform: Platform,
    /// Whether other platforms are built as well: step names then begin with the platform (S3).
    pub multi_platform: bool,
    /// `--label`, which overrides LABEL (I3).
    pub labels: &'a [(String, String)],
    /// `--no-cache` and `--no-cache-filter` (K10).
    pub no_cache: NoCache<'a>,
    /// The client's own SOURCE_DATE_EPOCH; a build argument of that name comes first (V21).
    pub epoch: Option<i64>,
    /// A main build context that is not a directory of the client: a repository.
    pub main_context: Option<SourceOp>,
    /// The time of the context if it has one (V21), in seconds; that of a repository is also the time of new things
    /// without an epoch (G11a).
    pub context_time: Option<i64>,
    /// `--network`, for every RUN without one or with `default`; the caller has checked that it is allowed.
    pub network: NetworkMode,
    /// Whether `RUN --network=host` is allowed (R11).
    pub allow_host_network: bool,
    /// Whether `RUN --security=insecure` is allowed (R11).
    pub allow_insecure: bool,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<&'a str>,
    /// `--add-host`: name, address.
    pub extra_hosts: &'a [(String, String)],
    /// `--shm-size`.
    pub shm_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: &'a [String],
    /// What the main context leaves out, for findings only: leaving it out is up to whoever reads the context.
    pub ignored: Option<&'a Patterns>,
}

impl<'a> ConvertRequest<'a> {
    /// A request with nothing but a Dockerfile, for the machine it is made on.
    pub fn new(dockerfile: &'a [u8]) -> Self {
        Self {
            dockerfile,
            target: None,
            build_args: &[],
            platform: Platform::host(),
            explicit_platform: false,
            build_platform: Platform::host(),
            multi_platform: false,
            labels: &[],
            no_cache: NoCache::Off,
            epoch: None,
            main_context: None,
            context_time: None,
            network: NetworkMode::Default,
            allow_host_network: false,
            allow_insecure: false,
            cgroup_parent: None,
            extra_hosts: &[],
            shm_bytes: None,
            ulimits: &[],
            ignored: None,
        }
    }
}

/// Which RUN, COPY and ADD are not looked up in the cache (K10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoCache<'a> {
    /// None.
    #[default]
    Off,
    /// All.
    All,
    /// Those of the stages with these names.
    Stages(&'a [String]),
}

impl NoCache<'_> {
    /// Whether the steps of a stage are run in any case.
    pub(crate) fn covers(self, stage: Option<&str>) -> bool {
        match self {
            Self::Off => false,
            Self::All => true,
            Self::Stages(names) => {
                stage.is_some_and(|stage| names.iter().any(|name| name.eq_ignore_ascii_case(stage)))
            }
        }
    }
}
