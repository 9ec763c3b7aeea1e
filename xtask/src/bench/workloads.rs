//! What is measured.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::bench::tools::{Build, Tool};
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
    /// A Debian root file system into an image and out as an archive, from an empty store.
    Export,
    /// `true` in a container.
    RunTrue,
    /// The memory that a context of one 2 GB file needs.
    Memory,
}

pub(crate) const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "noop500",
        title: "rebuild, nothing changed: 500 files, 10 steps",
        rounds: 15,
        kind: Kind::NoOp { files: 500 },
    },
    Workload {
        name: "noop50k",
        title: "rebuild, nothing changed: 50 000 files, 10 steps",
        rounds: 5,
        kind: Kind::NoOp { files: 50_000 },
    },
    Workload { name: "run30", title: "30 x RUN echo, no cache", rounds: 3, kind: Kind::Run },
    Workload {
        name: "ociexport",
        title: "ADD a Debian root file system, write an OCI archive, empty store",
        rounds: 3,
        kind: Kind::Export,
    },
    Workload { name: "run-true", title: "run --rm IMAGE true", rounds: 15, kind: Kind::RunTrue },
    Workload {
        name: "rss2g",
        title: "peak memory: COPY of a 2 GB file, empty store",
        rounds: 1,
        kind: Kind::Memory,
    },
];

impl Workload {
    pub(crate) fn unit(&self) -> &'static str {
        if matches!(self.kind, Kind::Memory) { "MiB" } else { "s" }
    }

    /// Whether a tool can do it at all.
    pub(crate) fn suits(&self, tool: &Tool) -> bool {
        if matches!(self.kind, Kind::RunTrue) { tool.runs() } else { tool.builds() }
    }

    /// Writes the build context.
    pub(crate) fn prepare(&self, folder: &Path) -> Outcome<PathBuf> {
        let context = folder.join("contexts").join(self.name);
        let dockerfile = match self.kind {
            Kind::NoOp { files } => {
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
            Kind::Export => {
                let tar = debian_tar().ok_or("no DEBIAN_TAR (`cargo xtask peers` makes one)")?;
                write(&context.join(".dockerignore"), "")?;
                copy(&tar, &context.join("debian.tar"))?;
                "FROM scratch\nADD debian.tar /\n".to_owned()
            }
            Kind::RunTrue => {
                busybox(&context, "true")?;
                "FROM scratch\nCOPY true /bin/true\nENV PATH=/bin\n".to_owned()
            }
            Kind::Memory => {
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
            Kind::NoOp { .. } => {
                // Files as young as this are not trusted by anybody's stat cache.
                std::thread::sleep(std::time::Duration::from_secs(2));
                tool.build(&cached(context))?;
                tool.build(&cached(context)).map(drop)
            }
            Kind::Run | Kind::RunTrue => tool.build(&cached(context)).map(drop),
            Kind::Export | Kind::Memory => Ok(()),
        }
    }

    /// One round.
    pub(crate) fn measure(&self, tool: &mut Tool, context: &Path) -> Outcome<f64> {
        match self.kind {
            Kind::NoOp { .. } => tool.build(&cached(context)),
            Kind::Run => tool.build(&Build { context, cache: false, archive: false }),
            Kind::Export => {
                tool.renew()?;
                tool.build(&Build { context, cache: true, archive: true })
            }
            Kind::RunTrue => tool.run_true(),
            Kind::Memory => {
                tool.renew()?;
                tool.build_memory(&cached(context))
            }
        }
    }
}

fn cached(context: &Path) -> Build<'_> {
    Build { context, cache: true, archive: false }
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
