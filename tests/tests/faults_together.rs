//! Many processes on one store: rows 20 and 21 of docs/security.md section 2.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mica_testkit::Mica;
use mica_testkit::fault::{Chance, rounds};
use mica_tests::{Build, Disk, Watched, with_base_on};

/// How many processes work at the same time.
const WORKERS: usize = 8;

/// What a worker may do next; `n` is the worker, so that the names of what it made are its own.
fn operation(mica: &Mica, worker: usize, archive: &str, choice: u64, step: u64) {
    let (tag, directory) = (format!("own{worker}"), format!("many{worker}"));
    let build = |dockerfile: String| {
        let file = mica.write(format!("{directory}/Dockerfile"), dockerfile);
        let context = file.parent().and_then(|path| path.to_str()).expect("our own path").to_owned();
        mica.run(["build", "-q", "-t", &tag, &context]).success();
        // It is ours: nobody else may have taken it away meanwhile.
        let run = mica.run(["run", "--rm", &tag, "cat", "/n"]).success();
        assert_eq!(run.line(), worker.to_string());
    };
    match choice {
        0 | 1 => build(format!("FROM base\nRUN echo shared > /s\nRUN echo {worker} > /n\n")),
        2 => build(format!("FROM base\nRUN echo {} > /s\nRUN echo {worker} > /n\n", step % 3)),
        3 => drop(mica.run(["load", "-q", "-i", archive]).success()),
        4 => drop(mica.run(["run", "--rm", "base", "true"]).success()),
        5 => {
            // It may not be there yet, or not any more.
            let removed = mica.run(["rmi", "-f", &tag]);
            assert!(removed.code() == 0 || removed.stderr_text().contains("No such image"), "{removed:?}");
        }
        6 => drop(mica.run(["system", "gc"]).success()),
        7 => drop(mica.run(["image", "prune", "-f"]).success()),
        8 => drop(mica.run(["builder", "prune", "-af"]).success()),
        9 => drop(mica.run(["images"]).success()),
        10 => drop(mica.run(["ps", "-a"]).success()),
        11 => drop(mica.run(["save", "base"]).success()),
        12 => drop(mica.run(["system", "df"]).success()),
        13 => drop(mica.run(["system", "check"]).success()),
        _ => {
            let name = format!("box{worker}");
            mica.run(["run", "--name", &name, "base", "sh", "-c", "echo 1 > /f"]).success();
            mica.run(["commit", &name, &tag]).success();
            mica.run(["rm", &name]).success();
            assert_eq!(mica.run(["run", "--rm", &tag, "cat", "/f"]).success().line(), "1");
        }
    }
}

/// Everything at once, for a while: seconds, or minutes in the long tier.
#[test]
fn everything_at_once_works_for_everybody() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let archive = mica.work().join("base.tar").to_str().expect("our own path").to_owned();
    mica.run(["save", "-o", &archive, "base"]).success();
    let watched = Watched::new(&mica, &["base"]);
    let until = Instant::now() + Duration::from_secs(rounds() as u64);
    let done = AtomicUsize::new(0);
    let seed = Chance::new().below(u64::MAX);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (mica, archive, done) = (&mica, &archive, &done);
            scope.spawn(move || {
                let mut chance = Chance::of(seed.wrapping_add(worker as u64));
                while Instant::now() < until {
                    operation(mica, worker, archive, chance.below(16), chance.below(1000));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} operations", done.load(Ordering::Relaxed));
    assert!(done.load(Ordering::Relaxed) >= WORKERS);
    for worker in 0..WORKERS {
        mica.run(["rmi", "-f", &format!("own{worker}")]);
    }
    mica.run(["image", "prune", "-f"]).success();
    mica.run(["builder", "prune", "-af"]).success();
    watched.is_clean();
}

/// The same file builds in several processes at once: every step runs once, or all succeed on their own.
#[test]
fn the_same_build_at_once_gives_one_image() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    for round in 0..rounds().div_ceil(5) {
        let dockerfile = format!(
            "FROM base\nRUN echo {round}; head -c 8 /dev/urandom | od > /once\nRUN cat /once > /copy\n"
        );
        let build = Build::new(&mica, dockerfile);
        let context = build.context().to_str().unwrap().to_owned();
        let running: Vec<_> =
            (0..4).map(|number| mica.spawn(["build", "-q", "-t", &format!("x{number}"), &context])).collect();
        running.into_iter().for_each(|one| drop(one.wait().success()));
        let random =
            |name: String| mica.run(["run", "--rm", &name, "cat", "/once", "/copy"]).success().stdout_text();
        let first = random("x0".to_owned());
        (1..4).for_each(|number| assert_eq!(random(format!("x{number}")), first, "round {round}"));
    }
}

/// Row 21: what several builds at once do to a counter in a cache mount.
fn count(mica: &Mica, sharing: &str) -> Vec<u64> {
    let builds = 4;
    let directories: Vec<String> = (0..builds)
        .map(|number| {
            let script = "n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.2; echo $((n + 1)) > /c/n; cp /c/n /n";
            let dockerfile = format!(
                "FROM base\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} : {number}; {script}\n"
            );
            let file = mica.write(format!("count{number}/Dockerfile"), dockerfile);
            file.parent().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    let spawn = |(number, directory): (usize, &String)| {
        mica.spawn(["build", "-q", "-t", &format!("{sharing}{number}"), directory])
    };
    let running: Vec<_> = directories.iter().enumerate().map(spawn).collect();
    running.into_iter().for_each(|one| drop(one.wait().success()));
    let read = |number| {
        let output = mica.run(["run", "--rm", &format!("{sharing}{number}"), "cat", "/n"]).success();
        output.line().parse().expect("a number")
    };
    let mut counts: Vec<u64> = (0..builds).map(read).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn locked_cache_mounts_take_turns_and_private_ones_are_apart() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    assert_eq!(count(&mica, "locked"), [1, 2, 3, 4]);
    // A private mount that nobody uses any more is taken over; one that is in use never is.
    let private = count(&mica, "private");
    assert_eq!(private[0], 1);
    let shared = count(&mica, "shared");
    assert!(shared.iter().all(|count| (1..=4).contains(count)), "{shared:?}");
}
