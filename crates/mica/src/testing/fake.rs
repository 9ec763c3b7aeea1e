//! An engine with two images and two containers that writes down what it is asked.

use std::sync::{Arc, Mutex};

use mica_api::*;
use mica_oci::{ContainerConfig, Descriptor, Digest, Platform, Reference, Tag};
use serde_json::json;

use super::{recorded, tars};

/// 2023-11-14T22:13:20Z: the clock of the tests.
const NOW: i64 = 1_700_000_000;

pub(crate) struct FakeEngine {
    calls: Arc<Mutex<String>>,
}

fn before(seconds: i64) -> Timestamp {
    Timestamp((NOW - seconds) * 1_000_000_000)
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn missing<T>(what: &str, name: &str) -> Result<T> {
    Err(Error::new(Class::NotFound, format!("No such {what}: {name}")))
}

impl FakeEngine {
    pub(crate) fn new(calls: Arc<Mutex<String>>) -> Self {
        Self { calls }
    }

    fn note(&self, call: impl std::fmt::Display) {
        self.calls.lock().unwrap().push_str(&format!("{call}\n"));
    }
}

fn summary(
    repository: Option<&str>,
    tag: Option<&str>,
    age: i64,
    size_bytes: u64,
    containers: u64,
) -> ImageSummary {
    let name = repository.unwrap_or("none");
    ImageSummary {
        repository: repository.map(str::to_owned),
        tag: tag.map(str::to_owned),
        digest: digest(&format!("{name} manifest")),
        id: digest(name),
        created_here: before(age),
        size_bytes,
        shared_bytes: Some(size_bytes / 2),
        unique_bytes: Some(size_bytes - size_bytes / 2),
        containers,
        platforms: vec![Platform::new("linux", "amd64", None)],
    }
}

fn container(name: &str, state: ContainerState) -> ContainerSummary {
    let running = state == ContainerState::Running;
    ContainerSummary {
        id: digest(name).hex().to_owned(),
        name: name.to_owned(),
        image: "app:latest".to_owned(),
        image_id: digest("app"),
        command: "sh -c 'while true; do sleep 1; done'".to_owned(),
        created: before(if running { 7200 } else { 7300 }),
        state,
        started: Some(before(7190)),
        finished: (!running).then(|| before(120)),
        exit_code: (!running).then_some(3),
        labels: vec![("tier".to_owned(), if running { "front" } else { "back" }.to_owned())],
        mounts: vec!["/home/me/some/where".to_owned(), "data".to_owned()],
        volumes: 1,
        networks: vec!["host".to_owned()],
        size_bytes: Some(1_540),
    }
}

fn target(name: &str) -> Descriptor {
    Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest(name), 428)
}

fn details() -> ImageDetails {
    let config = ContainerConfig {
        env: vec!["PATH=/bin".to_owned(), "A=<b>".to_owned()],
        cmd: vec!["sh".to_owned()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..ContainerConfig::default()
    };
    ImageDetails {
        id: digest("app"),
        repo_tags: vec!["app:latest".to_owned()],
        repo_digests: Vec::new(),
        parent: String::new(),
        comment: "buildkit.dockerfile.v0".to_owned(),
        created: "2023-11-14T20:13:20Z".to_owned(),
        docker_version: String::new(),
        author: String::new(),
        config,
        architecture: "amd64".to_owned(),
        variant: String::new(),
        os: "linux".to_owned(),
        size: 5_530_000,
        graph_driver: GraphDriver { data: [].into(), name: "overlay".to_owned() },
        root_fs: RootFsDetails { kind: "layers".to_owned(), layers: vec![digest("layer").to_string()] },
        metadata: ImageMetadata { last_tag_time: "2023-11-14T20:13:20Z".to_owned() },
        descriptor: json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7}),
    }
}

fn cache_entry(id: &str, shared: bool) -> CacheEntry {
    CacheEntry {
        id: id.to_owned(),
        parents: if shared { vec!["012345".to_owned()] } else { Vec::new() },
        description: "[2/3] RUN apt-get update && apt-get install -y a-very-long-list-of-packages".to_owned(),
        kind: "regular".to_owned(),
        size_bytes: 123_456,
        shared_bytes: if shared { 123_456 } else { 0 },
        reclaimable_bytes: if shared { 0 } else { 123_456 },
        shared,
        mutable: false,
        in_use: false,
        created: before(7200),
        last_used: Some(before(60)),
        usage_count: 3,
    }
}

fn cache_mount() -> CacheEntry {
    CacheEntry {
        description: "cached mount with id \"/root/.cache\"".to_owned(),
        kind: "exec.cachemount".to_owned(),
        size_bytes: 9_000_000,
        mutable: true,
        in_use: true,
        reclaimable_bytes: 0,
        ..cache_entry("789abc", false)
    }
}

fn pruned() -> PruneReport {
    PruneReport {
        images: vec![RemovedImage::Untagged("old:1".to_owned()), RemovedImage::Deleted(digest("old"))],
        containers: vec![digest("job").hex().to_owned()],
        volumes: Vec::new(),
        cache: vec![cache_entry("abcdef", true), cache_entry("fedcba", false)],
        freed_bytes: 1_234_567,
    }
}

impl Engine for FakeEngine {
    fn build(&self, request: BuildRequest, _: &Cancel, events: &dyn EventSink) -> Result<BuildReply> {
        let has = |name: &str| request.build_args.iter().any(|(arg, _)| arg == name);
        if has("CANCEL") {
            return Err(Error::new(Class::Cancelled, "Canceled: context canceled"));
        }
        let fails = has("FAIL");
        recorded::short(fails).into_iter().for_each(|event| events.event(event));
        if fails {
            let message = "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3";
            let mut error = Error::new(Class::Build, message).hint("run it again with --no-cache");
            error.excerpt = Some("Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN exit 3\n--------------------".to_owned());
            return Err(error);
        }
        let stored = request
            .outputs
            .iter()
            .any(|output| matches!(output, Output::Store { .. } | Output::Archive { .. }));
        Ok(BuildReply {
            image_id: stored.then(|| digest("app")),
            manifest: None,
            build_id: "id".into(),
            names: request.tags,
        })
    }

    fn pack(&self, request: PackRequest, _: &Cancel) -> Result<PackReply> {
        let entry = |path: &str, size_bytes, reason: &str, link: Option<&str>| PackEntry {
            path: path.into(),
            size_bytes,
            reason: reason.to_owned(),
            link: link.map(Into::into),
        };
        let entries = vec![
            entry("/bin", 0, "link on the way to /bin/ls", Some("usr/bin")),
            entry("/lib64/ld-linux-x86-64.so.2", 210_968, "ELF interpreter of /bin/ls", None),
            entry("/usr/bin/ls", 151_344, "asked for", None),
        ];
        Ok(PackReply { entries, image_id: (!request.list).then(|| digest("packed")) })
    }

    fn images(&self, request: ListImages) -> Result<Vec<ImageSummary>> {
        self.note(format_args!("{request:?}"));
        let mut images = vec![
            summary(Some("app"), Some("latest"), 7200, 5_530_000, 2),
            summary(Some("localhost:5000/team/other"), Some("1.2"), 86_400 * 20, 1_234_567_890, 0),
            summary(None, None, 86_400 * 800, 999, 0),
        ];
        images.iter_mut().filter(|_| !request.sizes).for_each(|image| {
            image.shared_bytes = None;
            image.unique_bytes = None;
        });
        Ok(images)
    }

    fn image(&self, query: &str) -> Result<ImageDetails> {
        if query == "app" || query == digest("app").to_string() {
            Ok(details())
        } else {
            missing("image", query)
        }
    }

    fn history(&self, query: &str) -> Result<Vec<HistoryEntry>> {
        if query != "app" {
            return missing("image", query);
        }
        let entry = |id, created: &str, created_by: &str, size_bytes, comment: &str| HistoryEntry {
            id,
            created: Some(created.to_owned()),
            created_by: created_by.to_owned(),
            size_bytes,
            comment: comment.to_owned(),
        };
        Ok(vec![
            entry(Some(digest("app")), "2023-11-14T20:13:20Z", "CMD [\"sh\"]", 0, "buildkit.dockerfile.v0"),
            entry(
                None,
                "2023-11-14T20:13:20Z",
                "RUN /bin/sh -c apt-get update && apt-get install -y gcc # buildkit",
                123_456_789,
                "buildkit.dockerfile.v0",
            ),
            entry(None, "1980-01-01T00:00:00Z", "COPY rootfs / # buildkit", 5_530_000, ""),
        ])
    }

    fn tag(&self, source: &str, target: &str) -> Result<()> {
        self.note(format_args!("tag {source} {target}"));
        Ok(())
    }

    fn remove_image(&self, request: RemoveImage) -> Result<Vec<RemovedImage>> {
        match request.query.as_str() {
            "app" => Ok(vec![
                RemovedImage::Untagged("app:latest".to_owned()),
                RemovedImage::Deleted(digest("app")),
            ]),
            other => missing("image", other),
        }
    }

    fn prune_images(&self, _: PruneImages, _: &Cancel, _: &dyn EventSink) -> Result<PruneReport> {
        Ok(PruneReport { containers: Vec::new(), cache: Vec::new(), ..pruned() })
    }

    fn save(&self, request: SaveImages, _: &Cancel) -> Result<()> {
        self.note(format_args!("{request:?}"));
        Ok(())
    }

    fn load(&self, _: LoadImages, _: &Cancel, _: &dyn EventSink) -> Result<Vec<LoadedImage>> {
        Ok(vec![
            LoadedImage::Named { name: "app:1".to_owned(), replaced: None },
            LoadedImage::Named { name: "app:2".to_owned(), replaced: Some(digest("old").to_string()) },
            LoadedImage::Unnamed(digest("app").to_string()),
        ])
    }

    fn import(&self, request: ImportImage, _: &Cancel) -> Result<String> {
        let name = request.name.map(|name| name.to_string());
        self.note(format_args!("import {name:?} {:?} {:?}", request.message, request.changes));
        Ok(digest("imported").to_string())
    }

    fn export(&self, _: ExportContainer, _: &Cancel) -> Result<()> {
        Ok(())
    }

    fn run(&self, request: RunRequest, _: RunIo, _: &Cancel, _: &dyn EventSink) -> Result<Exit> {
        self.note(format_args!("{request:#?}").to_string().replace("[\n        \"", "[\"").as_str().trim());
        self.note(format_args!("command: {:?}", request.command));
        match (request.image.as_str(), request.command.first().map(String::as_str)) {
            ("app", Some("not-found")) => {
                Err(Error::new(Class::CommandNotFound, "exec: not-found: not found"))
            }
            ("app", Some("not-invocable")) => {
                Err(Error::new(Class::CommandNotInvocable, "permission denied"))
            }
            ("app", Some("sh")) => Ok(Exit { code: 7 }),
            ("app", _) => Ok(Exit { code: 0 }),
            (other, _) => missing("image", other),
        }
    }

    fn containers(&self, request: ListContainers) -> Result<Vec<ContainerSummary>> {
        let mut containers = vec![container("web", ContainerState::Running)];
        if request.all {
            containers.push(container("job", ContainerState::Exited));
        }
        containers.iter_mut().filter(|_| !request.sizes).for_each(|container| container.size_bytes = None);
        Ok(containers)
    }

    fn container(&self, query: &str) -> Result<ContainerDetails> {
        if query != "web" {
            return missing("container", query);
        }
        let id = digest("web").hex().to_owned();
        let json = json!({
            "Id": id, "Created": "2023-11-14T20:13:20Z", "Name": "/web", "Image": digest("app"),
            "State": {"Status": "running", "ExitCode": 0}, "Config": {"Cmd": ["sh"]},
        });
        Ok(ContainerDetails { id, name: "web".to_owned(), json })
    }

    fn remove_container(&self, request: RemoveContainer) -> Result<()> {
        if request.container == "web" { Ok(()) } else { missing("container", &request.container) }
    }

    fn prune_containers(&self, request: PruneContainers, _: &Cancel) -> Result<PruneReport> {
        self.note(format_args!("{request:?}"));
        Ok(PruneReport { images: Vec::new(), cache: Vec::new(), ..pruned() })
    }

    fn commit(&self, request: CommitContainer, _: &Cancel) -> Result<String> {
        let name = request.name.as_ref().map(ToString::to_string);
        self.note(format_args!(
            "commit {} {name:?} {:?} {:?} {:?} pause={}",
            request.container, request.author, request.message, request.changes, request.pause
        ));
        Ok(digest("committed").to_string())
    }

    fn changes(&self, _: &str) -> Result<Vec<FileChange>> {
        let change = |kind, path: &[u8]| FileChange { kind, path: path.to_vec() };
        Ok(vec![
            change(ChangeKind::Changed, b"/etc"),
            change(ChangeKind::Added, b"/etc/new"),
            change(ChangeKind::Deleted, b"/tmp/old"),
        ])
    }

    fn copy_from(&self, request: CopyFromContainer, _: &Cancel) -> Result<()> {
        self.note(format_args!(
            "copy_from {} {} follow={}",
            request.container, request.path, request.follow_link
        ));
        if request.path == "/missing" {
            return missing("file", &request.path);
        }
        tars::write(request.output);
        Ok(())
    }

    fn copy_into(&self, request: CopyIntoContainer, _: &Cancel) -> Result<()> {
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(request.input), &mut tar).unwrap();
        self.note(format_args!(
            "copy_into {} {} name={} directory={} contents={} archive={} members={:?}",
            request.container,
            request.path,
            request.source_name,
            request.source_is_directory,
            request.contents_only,
            request.archive,
            tars::members(&tar)
        ));
        Ok(())
    }

    fn logs(
        &self,
        request: LogRequest,
        _: &Cancel,
        line: &mut dyn FnMut(LogLine) -> Result<()>,
    ) -> Result<()> {
        self.note(format_args!("{request:?}"));
        line(LogLine { stderr: false, at: before(10), data: b"out\n".to_vec() })?;
        line(LogLine { stderr: true, at: before(9), data: b"err\n".to_vec() })
    }

    fn pull(&self, request: PullImage, _: &Cancel, events: &dyn EventSink) -> Result<PulledImage> {
        self.note(format_args!("{request:?}"));
        let tell =
            |id: &str, state| events.event(Event::Transfer(TransferUpdate { id: id.to_owned(), state }));
        let tag = request.reference.tag().map(ToString::to_string).unwrap_or_default();
        tell(&tag, TransferState::PullingFrom(request.reference.repository().to_owned()));
        tell("0123456789ab", TransferState::AlreadyHere);
        let states = [TransferState::Queued, TransferState::Downloaded, TransferState::Pulled];
        states.into_iter().for_each(|state| tell("ba9876543210", state));
        Ok(PulledImage { target: target("pulled"), is_newer: tag == "latest" })
    }

    fn remote_tags(&self, _: &Reference, _: &Cancel) -> Result<Vec<Tag>> {
        Ok(vec![Tag::latest(), "3".parse().unwrap()])
    }

    fn push(&self, request: PushImage, _: &Cancel, events: &dyn EventSink) -> Result<PushedImage> {
        self.note(format_args!("{request:?}"));
        let tell =
            |id: &str, state| events.event(Event::Transfer(TransferUpdate { id: id.to_owned(), state }));
        tell("0123456789ab", TransferState::Preparing);
        tell("0123456789ab", TransferState::Pushed);
        tell("ba9876543210", TransferState::Mounted("library/base".to_owned()));
        Ok(PushedImage { target: target("pushed"), instead_of: Some(digest("index")) })
    }

    fn info(&self) -> Result<SystemInfo> {
        Ok(SystemInfo {
            id: "0001".to_owned(),
            containers: 2,
            containers_running: 1,
            containers_paused: 0,
            containers_stopped: 1,
            images: 3,
            driver: "overlay".to_owned(),
            driver_status: vec![("Backing Filesystem".to_owned(), "ext4".to_owned())],
            docker_root_dir: "/var/lib/mica".to_owned(),
            name: "host".to_owned(),
            kernel_version: "6.18.0".to_owned(),
            operating_system: "Debian GNU/Linux 13".to_owned(),
            os_type: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            ncpu: 2,
            mem_total: 16_772_939_776,
            cgroup_version: "2".to_owned(),
            server_version: "0.1.0".to_owned(),
            security_options: vec!["name=seccomp,profile=builtin".to_owned()],
            warnings: vec!["no subordinate ids: files of images have one owner".to_owned()],
            default_runtime: "own".to_owned(),
        })
    }

    fn version(&self) -> Result<VersionInfo> {
        Ok(VersionInfo {
            version: "0.1.0".to_owned(),
            api_version: "1.51".to_owned(),
            git_commit: "abc1234".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        })
    }

    fn build_cache(&self) -> Result<Vec<CacheEntry>> {
        Ok(vec![cache_entry("abc123", false), cache_entry("def456", true), cache_mount()])
    }

    fn disk_usage(&self) -> Result<DiskUsage> {
        let row = |total, active, size_bytes, reclaimable_bytes| UsageRow {
            total,
            active,
            size_bytes,
            reclaimable_bytes,
        };
        Ok(DiskUsage {
            images: row(3, 1, 1_240_000_000, 620_000_000),
            containers: row(2, 1, 1_540, 1_540),
            volumes: row(0, 0, 0, 0),
            build_cache: row(3, 1, 9_123_456, 123_456),
            cache_entries: self.build_cache()?,
        })
    }

    fn prune_cache(&self, request: PruneCache, _: &Cancel, _: &dyn EventSink) -> Result<PruneReport> {
        self.note(format_args!("{request:?}"));
        Ok(pruned())
    }

    fn prune_system(&self, request: SystemPrune, _: &Cancel, _: &dyn EventSink) -> Result<PruneReport> {
        let volumes = if request.volumes { vec!["data".to_owned()] } else { Vec::new() };
        Ok(PruneReport { volumes, ..pruned() })
    }

    fn collect(&self, _: &Cancel, _: &dyn EventSink) -> Result<PruneReport> {
        Ok(pruned())
    }

    fn check(&self, repair: bool, _: &Cancel) -> Result<CheckReport> {
        let finding = CheckFinding {
            object: "layers/0001/fs/etc/passwd".to_owned(),
            problem: "content differs from the layer table".to_owned(),
            needed_by: vec!["app:latest".to_owned()],
            repaired: repair.then(|| "unpacked again".to_owned()),
        };
        Ok(CheckReport { checked: 42, findings: vec![finding], platforms: Vec::new() })
    }
}
