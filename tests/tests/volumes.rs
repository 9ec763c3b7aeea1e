//! Volumes of containers: named ones, those that an image wants, and when they go.

use mica_testkit::Mica;
use mica_tests::{Build, until, with_base};
use serde_json::json;

/// An image that wants a volume where it has files.
fn with_volume() -> Option<Mica> {
    let mica = with_base()?;
    let dockerfile = "FROM base\nRUN mkdir -p /data/sub && echo image > /data/sub/f && ln -s sub/f /data/l && \
                      chmod 1750 /data && chown 7:8 /data\nVOLUME /data /fresh\n";
    Build::new(&mica, dockerfile).option("--tag", "voluminous").succeeds();
    Some(mica)
}

fn volumes(mica: &Mica) -> usize {
    std::fs::read_dir(mica.root().join("volumes")).unwrap().count()
}

#[test]
fn a_volume_that_an_image_wants_begins_with_what_the_image_has() {
    let Some(mica) = with_volume() else { return };
    let script = "cat /data/l; stat -c '%a %u:%g' /data; ls /fresh; grep -c ' /data \\| /fresh ' /proc/mounts; \
                  echo new > /data/g";
    let shown = mica.run(["run", "--name", "one", "voluminous", "sh", "-c", script]).success();
    assert_eq!(shown.stdout_text(), "image\n1750 7:8\n2\n");
    assert_eq!(volumes(&mica), 2);
    assert_eq!(mica.run(["diff", "one"]).success().stdout_text(), "");
    let mounts = mica.run(["inspect", "-f", "{{json .Mounts}}", "one"]).success().json();
    assert_eq!((&mounts[0]["Type"], &mounts[0]["Driver"]), (&json!("volume"), &json!("local")));
    assert_eq!((&mounts[0]["Destination"], &mounts[0]["RW"]), (&json!("/data"), &json!(true)));
    let source = mounts[0]["Source"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(format!("{source}/g")).unwrap(), "new\n");
    assert_eq!(mica.run(["cp", "one:/data/g", "-"]).success().stdout.len() % 512, 0);
    mica.run(["rm", "one"]).success();
    assert_eq!(volumes(&mica), 2, "as docker: `rm` without -v leaves them");
    mica.run(["system", "prune", "-f", "--volumes"]).success();
    assert_eq!(volumes(&mica), 0);
}

#[test]
fn anonymous_volumes_go_with_their_container_when_asked_for() {
    let Some(mica) = with_volume() else { return };
    mica.run(["run", "--rm", "voluminous", "true"]).success();
    assert_eq!(volumes(&mica), 0);
    mica.run(["run", "--name", "two", "-v", "/own", "voluminous", "touch", "/own/f"]).success();
    assert_eq!(volumes(&mica), 3);
    mica.run(["rm", "-v", "two"]).success();
    assert_eq!(volumes(&mica), 0);
    mica.run(["run", "--name", "taken", "base", "true"]).success();
    mica.run(["run", "--name", "taken", "voluminous", "true"]).exits(125);
    assert_eq!(volumes(&mica), 0, "nothing is left of a container that was never made");
    let bound = mica.write("bound/f", "here\n");
    let bind = format!("{}:/data", bound.parent().unwrap().display());
    let shown =
        mica.run(["run", "--rm", "-v", &bind, "--tmpfs", "/fresh", "voluminous", "ls", "/data"]).success();
    assert_eq!(shown.line(), "f", "what is asked for is in the place of what the image wants");
}

#[test]
fn named_volumes_outlive_containers() {
    let Some(mica) = with_volume() else { return };
    mica.run(["run", "--rm", "-v", "keep:/data", "base", "sh", "-c", "echo mine > /data/f"]).success();
    let shown = mica.run(["run", "--rm", "-v", "keep:/data:ro", "voluminous", "ls", "/data"]).success();
    assert_eq!(shown.line(), "f", "only an empty volume gets what the image has");
    mica.run(["run", "--rm", "-v", "keep:/data:ro", "base", "touch", "/data/x"]).exits(1);
    let long = "type=volume,source=other,target=/data,volume-nocopy";
    assert_eq!(mica.run(["run", "--rm", "--mount", long, "voluminous", "ls", "/data"]).success().line(), "");
    mica.run(["run", "--rm", "-v", "no/slash:/x", "base", "true"]).exits(125).complains("invalid characters");
    mica.run(["system", "prune", "-af", "--volumes"]).success();
    assert_eq!(volumes(&mica), 2, "only anonymous ones are pruned");
    mica.run(["system", "check"]).success();
}

#[test]
fn ended_containers_are_pruned_and_running_ones_are_not() {
    let Some(mica) = with_base() else { return };
    for name in ["first", "second"] {
        mica.run(["run", "--name", name, "--label", &format!("name={name}"), "base", "true"]).success();
    }
    let running = mica.spawn(["run", "--rm", "--name", "third", "base", "sleep", "100"]);
    until("it runs", || mica.run(["ps", "-q"]).stdout_text().lines().count() == 1);
    let names = || mica.run(["ps", "-a", "--format", "{{.Names}}"]).success().stdout_text();
    let pruned =
        mica.run(["container", "prune", "-f", "--filter", "label=name=first"]).success().stdout_text();
    assert!(
        pruned.starts_with("Deleted Containers:\n") && pruned.contains("\nTotal reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(names(), "third\nsecond\n");
    mica.run(["container", "prune", "-f", "--filter", "until=1h"]).success();
    assert_eq!(names(), "third\nsecond\n");
    mica.run(["container", "prune", "-f"]).success();
    assert_eq!(names(), "third\n");
    mica.run(["rm", "-f", "third"]).success();
    running.wait();
}
