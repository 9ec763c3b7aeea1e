//! What is measured.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::bench::measure::Cost;
use crate::bench::tools::{Build, Output, Tool};
use crate::run::{Outcome, debian_tar, find, write};

/// One thing people wait for.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) rounds: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A build of so many files in ten steps of which none has changed.
    NoOp { files: usize },
    /// Thirty small RUN steps, all run.
    Run,
    /// A Debian root file system out of a store as an archive, for the first time.
    Export {
        /// What mica is asked for besides.
        options: &'static str,
    },
    /// One file of so many is another one than before.
    Change {
        /// How many.
        files: usize,
        output: Output,
    },
    /// Eight stages that only compute.
    Parallel,
    /// `true` in a container.
    RunTrue,
    /// The memory that a context of one 2 GB file needs.
    Memory,
    /// The memory that an archive of one 2 GB layer needs.
    ExportMemory {
        /// What mica is asked for besides.
        options: &'static str,
    },
}

pub(crate) const WORKLOADS: [Workload; 12] = [
    Workload {
        name: "noop500",
        title: "rebuild, nothing changed: 500 files, 10 steps",
        rounds: 15,
        kind: Kind::NoOp { files: 500 },
    },
    Workload {
        name: "noop50k",
        title: "rebuild, nothing changed: 50 000 files, 10 steps",
        rounds: 3,
        kind: Kind::NoOp { files: 50_000 },
    },
    Workload { name: "run30", title: "30 x RUN echo, no cache", rounds: 3, kind: Kind::Run },
    Workload {
        name: "ociexport",
        title: "a Debian root file system from the store to an OCI archive",
        rounds: 3,
        kind: Kind::Export { options: "" },
    },
    Workload {
        name: "zstdexport",
        title: "a Debian root file system from the store to an OCI archive, mica with zstd",
        rounds: 3,
        kind: Kind::Export { options: ",compression=zstd" },
    },
    Workload {
        name: "change20k",
        title: "rebuild, one of 20 000 files changed; an image",
        rounds: 5,
        kind: Kind::Change { files: 20_000, output: Output::Image },
    },
    Workload {
        name: "change20k-cached",
        title: "rebuild, one of 20 000 files changed; BuildKit exports nothing",
        rounds: 5,
        kind: Kind::Change { files: 20_000, output: Output::Cached },
    },
    Workload { name: "parallel8", title: "8 stages that compute, no cache", rounds: 3, kind: Kind::Parallel },
    Workload { name: "run-true", title: "run --rm IMAGE true", rounds: 15, kind: Kind::RunTrue },
    Workload {
        name: "rss2g",
        title: "peak memory: COPY of a 2 GB file, empty store",
        rounds: 1,
        kind: Kind::Memory,
    },
    Workload {
        name: "rssexport",
        title: "peak memory: a 2 GB layer to an OCI archive, gzip",
        rounds: 1,
        kind: Kind::ExportMemory { options: "" },
    },
    Workload {
        name: "rssexport-zstd",
        title: "peak memory: a 2 GB layer to an OCI archive, mica with zstd",
        rounds: 1,
        kind: Kind::ExportMemory { options: ",compression=zstd" },
    },
];

impl Workload {
    pub(crate) fn unit(&self) -> &'static str {
        if matches!(self.kind, Kind::Memory | Kind::ExportMemory { .. }) { "MiB" } else { "s" }
    }

    /// Whether it shows how well processors are used.
    pub(crate) fn is_parallel(&self) -> bool {
        matches!(self.kind, Kind::Parallel)
    }

    /// Whether a tool can do it at all.
    pub(crate) fn suits(&self, tool: &Tool) -> bool {
        match self.kind {
            Kind::RunTrue => tool.runs(),
            // Buildah builds one stage after the other, and the rest would only repeat what other rows say of it.
            Kind::Parallel
            | Kind::Memory
            | Kind::ExportMemory { .. }
            | Kind::Export { options: ",compression=zstd" }
            | Kind::Change { .. } => tool.solves_graphs(),
            _ => tool.builds(),
        }
    }

    /// Writes the build context.
    pub(crate) fn prepare(&self, folder: &Path) -> Outcome<PathBuf> {
        let context = folder.join("contexts").join(self.name);
        let dockerfile = match self.kind {
            Kind::NoOp { files } | Kind::Change { files, .. } => {
                for number in 0..files {
                    let path = format!("src/{}/{}/{number}.txt", number % 20, number % 100);
                    write(&context.join(path), format!("file {number}\n").repeat(20))?;
                }
                busybox(&context, "sh")?;
                write(&context.join("config"), "setting\n")?;
                "FROM scratch\nCOPY sh /bin/sh\nENV PATH=/bin\nRUN echo 1 > /one\nWORKDIR /app\nCOPY src src\n\
                 RUN echo built > built\nCOPY config /etc/config\nRUN echo 2 > two\nLABEL a=b\n\
                 CMD [\"sh\", \"-c\", \"echo hello\"]\n"
                    .to_owned()
            }
            Kind::Run => {
                busybox(&context, "sh")?;
                let steps: String = (0..30).map(|step| format!("RUN echo {step}\n")).collect();
                format!("FROM scratch\nCOPY sh /bin/sh\n{steps}")
            }
            Kind::Parallel => {
                busybox(&context, "sh")?;
                let stage = |number: usize| {
                    format!(
                        "FROM base AS s{number}\nRUN i={number}; while [ $i -lt 1000000 ]; do i=$((i+1)); done; echo $i > /{number}\n"
                    )
                };
                let stages: String = (0..8).map(stage).collect();
                let copies: String =
                    (0..8).map(|number| format!("COPY --from=s{number} /{number} /\n")).collect();
                format!(
                    "FROM scratch AS base\nCOPY sh /bin/sh\nENV PATH=/bin\n{stages}FROM scratch\n{copies}"
                )
            }
            Kind::Export { .. } => {
                let tar = debian_tar().ok_or("no DEBIAN_TAR (`cargo xtask peers` makes one)")?;
                write(&context.join(".dockerignore"), "")?;
                copy(&tar, &context.join("debian.tar"))?;
                "FROM scratch\nADD debian.tar /\n".to_owned()
            }
            Kind::RunTrue => {
                busybox(&context, "true")?;
                "FROM scratch\nCOPY true /bin/true\nENV PATH=/bin\n".to_owned()
            }
            Kind::Memory | Kind::ExportMemory { .. } => {
                write(&context.join("large"), "")?;
                large_file(&context.join("large")).map_err(|error| format!("the 2 GB file: {error}"))?;
                "FROM scratch\nCOPY large /large\n".to_owned()
            }
        };
        write(&context.join("Dockerfile"), dockerfile)?;
        Ok(context)
    }

    /// Does once what the measured rounds build upon.
    pub(crate) fn warm(&self, tool: &mut Tool, context: &Path) -> Outcome {
        match self.kind {
            Kind::NoOp { .. } | Kind::Change { .. } => {
                // Files as young as this are not trusted by anybody's stat cache.
                std::thread::sleep(std::time::Duration::from_secs(2));
                tool.build(&cached(context))?;
                tool.build(&cached(context)).map(drop)
            }
            Kind::Run | Kind::RunTrue => tool.build(&cached(context)).map(drop),
            Kind::Export { .. } | Kind::Parallel | Kind::Memory | Kind::ExportMemory { .. } => Ok(()),
        }
    }

    /// One round.
    pub(crate) fn measure(&self, tool: &mut Tool, context: &Path) -> Outcome<Cost> {
        match self.kind {
            Kind::NoOp { .. } => tool.build(&cached(context)),
            Kind::Run | Kind::Parallel => {
                tool.build(&Build { context, cache: false, output: Output::Cached })
            }
            Kind::Export { options } => {
                tool.renew()?;
                tool.build(&cached(context))?;
                tool.build(&Build { context, cache: true, output: Output::Archive(options) })
            }
            Kind::Change { output, .. } => {
                let now = std::time::SystemTime::now();
                write(&context.join("src/0/0/0.txt"), format!("{now:?}\n"))?;
                tool.build(&Build { context, cache: true, output })
            }
            Kind::RunTrue => tool.run_true(),
            Kind::Memory => {
                tool.renew()?;
                tool.build_memory(&cached(context))
            }
            Kind::ExportMemory { options } => {
                tool.renew()?;
                tool.build(&cached(context))?;
                tool.build_memory(&Build { context, cache: true, output: Output::Archive(options) })
            }
        }
    }
}

fn cached(context: &Path) -> Build<'_> {
    Build { context, cache: true, output: Output::Cached }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).map(drop).map_err(|error| format!("{}: {error}", from.display()))
}

/// A static busybox, under a name that decides what it does.
fn busybox(context: &Path, name: &str) -> Outcome {
    write(&context.join(name), "")?;
    copy(&find("busybox").ok_or("no busybox (`cargo xtask peers` gets it)")?, &context.join(name))
}

/// 2 GB, mostly holes, with something different in each MiB.
fn large_file(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    for mebibyte in 0..2048_u64 {
        file.seek(SeekFrom::Start(mebibyte << 20))?;
        file.write_all(&mebibyte.to_le_bytes().repeat(512))?;
    }
    file.set_len(2048 << 20)
}
