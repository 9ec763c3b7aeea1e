//! What a build says while it runs, and when it fails.

use mica_testkit::golden::normalise;
use mica_tests::{Build, holds, with_base};

/// The kind of a line of the plain grammar, or the line itself if it has none.
fn kind(line: &str) -> Result<&'static str, String> {
    let unknown = || Err(line.to_owned());
    if line.is_empty() {
        return Ok("blank");
    }
    let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else {
        return unknown();
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return unknown();
    }
    if number == "0" {
        return if rest.starts_with("building with \"") { Ok("header") } else { unknown() };
    }
    let first = rest.split(' ').next().unwrap_or_default();
    let seconds = |text: &str, digits: usize| {
        text.split_once('.').is_some_and(|(whole, part)| {
            part.len() == digits
                && !whole.is_empty()
                && (whole.to_owned() + part).bytes().all(|b| b.is_ascii_digit())
        })
    };
    match first {
        "CACHED" | "CANCELED" | "..." if rest == first => Ok("state"),
        "DONE" => match rest.strip_prefix("DONE ").and_then(|time| time.strip_suffix('s')) {
            Some(time) if seconds(time, 1) => Ok("state"),
            _ => unknown(),
        },
        "ERROR:" => Ok("state"),
        "WARN:" => Ok("warning"),
        _ if seconds(first, 3) => Ok("log"),
        "transferring" | "exporting" | "writing" | "naming" | "resolve" | "sha256:" => Ok("status"),
        _ => Ok("name"),
    }
}

#[test]
fn every_line_follows_the_grammar() {
    let Some(mica) = with_base() else { return };
    let dockerfile =
        "FROM base AS a\nRUN echo ünï; echo err >&2\nFROM base\nCOPY --from=a /etc /e\nRUN sleep 0.1\n";
    let first = Build::new(&mica, dockerfile).run().success();
    let second = Build::new(&mica, dockerfile).run().success();
    for text in [first.stderr_text(), second.stderr_text()] {
        for line in text.lines() {
            kind(line).unwrap_or_else(|line| panic!("{line:?} is no plain progress, in:\n{text}"));
        }
        assert!(text.starts_with("#0 building with \"default\" instance using "), "{text}");
    }
    let text = first.stderr_text();
    holds(&text, &["[internal] load build definition from Dockerfile\n", "[internal] load .dockerignore\n"]);
    holds(
        &text,
        &[
            "[a 2/2] RUN echo ünï; echo err >&2\n",
            "[stage-1 2/3] COPY --from=a /etc /e\n",
            "exporting to image\n",
        ],
    );
    let logs: Vec<&str> = text.lines().filter(|line| kind(line) == Ok("log")).collect();
    assert!(logs.iter().any(|line| line.ends_with(" ünï")) && logs.iter().any(|line| line.ends_with(" err")));
    let cached = second.stderr_text().lines().filter(|line| line.ends_with(" CACHED")).count();
    assert!(cached >= 3, "{}", second.stderr_text());
    assert!(first.stdout.is_empty() && !text.contains('\u{1b}'));
}

#[test]
fn a_failure_ends_with_the_log_and_the_place() {
    let Some(mica) = with_base() else { return };
    let dockerfile =
        "FROM base\nRUN for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 3\nCMD x\n";
    let text = Build::new(&mica, dockerfile).run().exits(1).stderr_text();
    let tail = &text[text.find("------\n > ").expect("a failure tail")..];
    let timeless: String = tail
        .lines()
        .map(|line| match line.split_once(' ') {
            Some((time, rest)) if time.contains('.') && time.parse::<f64>().is_ok() => {
                format!("0.000 {rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    mica_testkit::golden!("build_failure.txt", timeless);
}

#[test]
fn a_parse_error_shows_its_lines() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nENV A=1\nRUN <<END\nx\nEND\nCOPY --form=a b \\\n  c\nCMD x\nCMD y\n";
    let text = Build::new(&mica, dockerfile).run().exits(1).stderr_text();
    let frame = &text[text.find("Dockerfile:6\n").unwrap_or_else(|| panic!("{text}"))..];
    mica_testkit::golden!("parse_error.txt", normalise(frame, &[]));
}

#[test]
fn quiet_says_the_image_and_nothing_else() {
    let Some(mica) = with_base() else { return };
    mica.write("q/Dockerfile", "FROM base\nRUN echo hidden\n");
    let context = mica.work().join("q");
    let output = mica.run(["build", "-q", context.to_str().unwrap()]).success();
    let line = output.line();
    assert!(line.starts_with("sha256:") && line.len() == 71, "{line}");
    assert_eq!(output.stderr_text(), "");
    mica.write("q/Dockerfile", "FROM base\nRUN echo shown; false\n");
    let failed = mica.run(["build", "-q", context.to_str().unwrap()]).exits(1);
    holds(&failed.stderr_text(), &["did not complete successfully: exit code: 1"]);
}

#[test]
fn raw_progress_is_one_object_per_line() {
    let Some(mica) = with_base() else { return };
    mica.write("r/Dockerfile", "FROM base\nRUN echo hello\n");
    let context = mica.work().join("r");
    let output = mica.run(["build", "--progress=rawjson", context.to_str().unwrap()]).success();
    let text = output.stderr_text();
    let mut keys = std::collections::BTreeSet::new();
    for line in text.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        keys.extend(value.as_object().unwrap().keys().cloned());
    }
    for key in ["vertexes", "logs"] {
        assert!(keys.contains(key), "{keys:?}");
    }
    assert!(
        keys.iter().all(|key| ["vertexes", "statuses", "logs", "warnings"].contains(&key.as_str())),
        "{keys:?}"
    );
}

#[test]
fn a_terminal_gets_the_picture_that_people_know() {
    let Some(mica) = with_base() else { return };
    let Some(script) = mica_testkit::peer::need("script") else { return };
    mica.write("t/Dockerfile", "FROM base\nRUN echo hello\n");
    let command = mica.command([""]);
    let program = command.get_program().to_str().unwrap();
    let line = format!("{program} build {}", mica.work().join("t").display());
    let output = std::process::Command::new(script)
        .args(["-qefc", &line, "/dev/null"])
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    holds(&text, &["[+] Building ", "[2/2] RUN echo hello", "=> exporting to image", "FINISHED"]);
}

#[test]
fn a_step_that_prints_without_end_is_clipped() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN yes 0123456789 | head -c 9000000; echo the last words; exit 3\n";
    let text = Build::new(&mica, dockerfile).fails("exit code: 3").stderr_text();
    assert_eq!(text.matches("[output clipped, log limit ").count(), 1, "{} bytes", text.len());
    holds(&text, &["log limit 2", "the last words\n------\n"]);
    assert!(text.len() < 6_000_000, "{} bytes", text.len());
    let mica = mica.env("BUILDKIT_STEP_LOG_MAX_SIZE", "-1");
    let text = Build::new(&mica, dockerfile).fails("exit code: 3").stderr_text();
    assert!(text.len() > 9_000_000 && !text.contains("output clipped"), "{} bytes", text.len());
}

#[test]
fn how_progress_is_shown_can_be_chosen() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN echo hello\n";
    for mode in ["quiet", "none"] {
        let mica = with_base().unwrap().env("BUILDKIT_PROGRESS", mode);
        mica.write("context/Dockerfile", dockerfile);
        let context = mica.work().join("context");
        let output = mica.run(["build", context.to_str().unwrap()]).success();
        assert_eq!(output.stderr_text(), "");
    }
    mica.write("context/Dockerfile", dockerfile);
    let context = mica.work().join("context");
    let context = context.to_str().unwrap();
    mica.run(["build", "--progress=fancy", context]).exits(1).complains("invalid progress mode fancy");
    // no terminal: lines, whatever was asked for, and no colours
    let colours = mica.env("BUILDKIT_COLORS", "run=green");
    for mode in ["auto", "tty", "plain"] {
        let output = colours.run(["build", "--no-cache", "--progress", mode, context]).success();
        let text = output.stderr_text();
        assert!(text.starts_with("#0 building with ") && !text.contains('\u{1b}'), "{text}");
    }
    let json = colours.run(["build", "--no-cache", "--progress=rawjson", context]).success();
    for line in json.stderr_text().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    let short = colours.env("PROGRESS_NO_TRUNC", "0");
    let long = format!("FROM base\nRUN echo {}\n", "x".repeat(200));
    let text = Build::new(&short, long).run().success().stderr_text();
    assert!(text.lines().any(|line| line.starts_with("#5 [2/2] RUN echo xxx") && line.len() == 75), "{text}");
}

#[test]
fn warnings_are_counted_at_the_end_and_explained_on_request() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN true \\\n\n  && true\n";
    let short = Build::new(&mica, dockerfile).run().success().stderr_text();
    holds(&short, &["\n 1 warning found (use mica --debug to expand):\n - NoEmptyContinuation: "]);
    assert!(!short.contains("More info: ") && !short.contains(">>>"), "{short}");
    let full = Build::new(&mica, dockerfile).flag("-D").run().success().stderr_text();
    let url = "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/";
    holds(
        &full,
        &[
            "\n 1 warning found:\n - NoEmptyContinuation: ",
            &format!("More info: {url}\nDockerfile:"),
            " >>> ",
        ],
    );
}

#[test]
fn a_cache_that_cannot_be_imported_is_told_at_the_end_and_no_error() {
    let Some(mica) = with_base() else { return };
    let build =
        Build::new(&mica, "FROM base\nRUN true\n").option("--cache-from", "type=local,src=/nonexistent");
    let text = build.run().success().stderr_text();
    assert!(
        text.ends_with("------\n > importing cache manifest from local:/nonexistent:\n------\n"),
        "{text}"
    );
    assert!(!text.contains("\nERROR: "), "{text}");
}
