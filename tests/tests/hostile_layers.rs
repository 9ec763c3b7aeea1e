//! Layers that attack (security.md section 1.1): as root, as a user with subordinate ids, and as one without.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use mica_testkit::{Mica, Output};
use mica_tests::{Canary, ImageArchive, Member, SECRET, TarMaker, Tree, empty, empty_stores, measured};

/// What has to happen.
enum Must {
    /// Taken in, with these paths below `/t`.
    Take(&'static [&'static str]),
    /// Refused with this text.
    Refuse(&'static str),
    /// Either: the host is untouched, and the store usable.
    BeSafe,
}

struct Attack {
    what: &'static str,
    tar: Vec<u8>,
    must: Must,
}

fn attack(what: &'static str, tar: TarMaker, must: Must) -> Attack {
    Attack { what, tar: tar.finish(), must }
}

/// Tries attacks as layers above an honest one, and as archives to ADD, as everybody.
#[track_caller]
fn survives(canary: &Canary, attacks: &[Attack]) {
    for (who, mica) in empty_stores() {
        for attack in attacks {
            let what = format!("{} ({who})", attack.what);
            let loaded = load(&mica, &[honest(), attack.tar.clone()]);
            canary.check(&what);
            judge(&what, &loaded, attack);
            if loaded.code() == 0 {
                let tree = built(&mica, "FROM hostile\nCOPY f /added\n");
                found(&what, &tree, attack, "");
                mica.run(["rmi", "-f", "hostile"]).success();
            }
            mica.write("c/t.tar", &attack.tar);
            let added = build(&mica, "FROM scratch\nCOPY f /below/f\nADD t.tar /t/\n");
            canary.check(&what);
            assert!([0, 1].contains(&added.code()), "{what}: {}", added.stderr_text());
            no_panic(&what, &added);
        }
        mica.run(["system", "check"]).success();
        mica.run(["images"]).success();
    }
}

/// A lower layer: a directory with a file, beside the marker that all attacks leave alone.
fn honest() -> Vec<u8> {
    TarMaker::new().directory("lower/").file("lower/file", b"low").file("marker", b"here").finish()
}

fn load(mica: &Mica, layers: &[Vec<u8>]) -> Output {
    let archive = mica.write("image.tar", ImageArchive::new(layers).oci());
    mica.run(["load", "-q", "-i", archive.to_str().unwrap()])
}

fn build(mica: &Mica, dockerfile: &str) -> Output {
    mica.write("c/Dockerfile", dockerfile);
    mica.write("c/f", "f");
    let context = mica.work().join("c");
    mica.run(["build", "-q", "-o", "type=tar,dest=out.tar", context.to_str().unwrap()])
}

#[track_caller]
fn built(mica: &Mica, dockerfile: &str) -> Tree {
    build(mica, dockerfile).success();
    Tree::extract(&mica.work().join("out.tar"))
}

#[track_caller]
fn no_panic(what: &str, output: &Output) {
    let said = output.stderr_text();
    assert!(!said.contains("panicked") && output.code() < 125, "{what}: {said}");
}

#[track_caller]
fn judge(what: &str, output: &Output, attack: &Attack) {
    no_panic(what, output);
    match attack.must {
        Must::Take(_) => assert_eq!(output.code(), 0, "{what}: {}", output.stderr_text()),
        Must::Refuse(text) => {
            assert_eq!(output.code(), 1, "{what}: {}", output.stderr_text());
            assert!(output.stderr_text().contains(text), "{what}: {}", output.stderr_text());
        }
        Must::BeSafe => assert!([0, 1].contains(&output.code()), "{what}: {}", output.stderr_text()),
    }
}

#[track_caller]
fn found(what: &str, tree: &Tree, attack: &Attack, prefix: &str) {
    assert!(tree.has("/marker"), "{what}: the lower layer is whole");
    assert!(!tree.has("/smuggled"), "{what}: content was read as headers");
    if let Must::Take(paths) = attack.must {
        for path in paths {
            assert!(tree.has(&format!("{prefix}{path}")), "{what}: no {path} in {:?}", tree.names("/"));
        }
    }
}

#[test]
fn names_that_climb_stay_inside() {
    let canary = Canary::new();
    let (path, relative) = (canary.text(), canary.relative());
    let up = "../".repeat(9);
    let file = |name: &str| TarMaker::new().file(name, b"evil");
    let long = [path, "/new"].concat();
    survives(
        &canary,
        &[
            attack("row 1: ..", file(&format!("{up}{relative}/new")), Must::Refuse("climbs out")),
            attack("row 1: inner ..", file(&format!("a/../{up}{relative}/file")), Must::BeSafe),
            attack("row 1: absolute", file(&format!("{path}/file")), Must::BeSafe),
            attack("row 1: absolute is inside", file("/inside"), Must::Take(&["/inside"])),
            attack("row 1: //", file("//inside//file"), Must::Take(&["/inside/file"])),
            attack(
                "row 1: pax path",
                TarMaker::new().pax(&[(b"path", long.as_bytes())]).file("x", b"evil"),
                Must::BeSafe,
            ),
            attack(
                "row 1: GNU long name",
                TarMaker::new()
                    .extension(b'L', format!("{up}{relative}/new\0").as_bytes())
                    .file("x", b"evil"),
                Must::BeSafe,
            ),
        ],
    );
}

#[test]
fn links_lead_nowhere_outside() {
    let canary = Canary::new();
    let (path, relative) = (canary.text(), canary.relative());
    let up = format!("{}{relative}", "../".repeat(9));
    let through = |target: &str| TarMaker::new().symlink("d", target).file("d/new", b"evil");
    let to_file = format!("{path}/file");
    let changed = Member { name: b"l", mode: 0o4777, uid: 12, ..Member::default() };
    let directory = Member { name: b"d/", kind: b'5', mode: 0o700, uid: 12, ..Member::default() };
    survives(
        &canary,
        &[
            attack("row 2: file below a link", through(path), Must::BeSafe),
            attack("row 2: file below a climbing link", through(&up), Must::BeSafe),
            attack(
                "row 2: link to link",
                TarMaker::new().symlink("a", path).symlink("b", "a").file("b/new", b"evil"),
                Must::BeSafe,
            ),
            attack(
                "row 2: file over a link",
                TarMaker::new().symlink("l", &to_file).file("l", b"evil"),
                Must::Take(&["/l"]),
            ),
            attack(
                "row 3: metadata over a link",
                TarMaker::new().symlink("l", &to_file).member(&changed),
                Must::BeSafe,
            ),
            attack(
                "row 3: a directory's metadata over a link",
                TarMaker::new().symlink("d", path).member(&directory),
                Must::BeSafe,
            ),
            attack(
                "row 3: a link's own owner and attributes",
                TarMaker::new()
                    .pax(&[(b"SCHILY.xattr.user.evil", b"1"), (b"uid", b"12")])
                    .symlink("l", &to_file),
                Must::BeSafe,
            ),
            attack(
                "row 3: times after the directory became a link",
                TarMaker::new().directory("d/").file("d/f", b"").symlink("d", path),
                Must::BeSafe,
            ),
            attack(
                "row 6: a link with a trailing slash",
                TarMaker::new().symlink("d", path).member(&Member { name: b"d/", ..changed.clone() }),
                Must::BeSafe,
            ),
        ],
    );
}

#[test]
fn hard_links_reach_nothing_outside() {
    let canary = Canary::new();
    let up = format!("{}{}/file", "../".repeat(9), canary.relative());
    let file = format!("{}/file", canary.text());
    let link = |target: &str| TarMaker::new().hard_link("h", target);
    survives(
        &canary,
        &[
            attack("row 4: absolute", link(&file), Must::Refuse("bad link")),
            attack("row 4: climbing", link(&up), Must::BeSafe),
            attack(
                "row 4: then written",
                link(&file).file("h", b"evil").hard_link("h", &file).file("h", b"evil"),
                Must::BeSafe,
            ),
            attack(
                "row 4: through a link",
                TarMaker::new().symlink("d", canary.text()).hard_link("h", "d/file").file("h", b"evil"),
                Must::BeSafe,
            ),
            attack(
                "row 4: to a link",
                TarMaker::new().symlink("l", &file).hard_link("h", "l").member(&Member {
                    name: b"h",
                    mode: 0o4777,
                    ..Member::default()
                }),
                Must::BeSafe,
            ),
        ],
    );
}

#[test]
fn the_root_stays_a_directory() {
    let canary = Canary::new();
    let mut attacks = Vec::new();
    for name in ["./", "/", ".", "a/.."] {
        let link = TarMaker::new().symlink(name, canary.text()).file("new", b"evil");
        attacks.push(attack("row 5: a link for the root", link, Must::BeSafe));
        let file = TarMaker::new().file(name, b"evil");
        attacks.push(attack("row 5: a file for the root", file, Must::BeSafe));
    }
    let whiteout = TarMaker::new().file(".wh..", b"").file(".wh..wh..opq/", b"");
    attacks.push(attack("row 5: the root removed", whiteout, Must::BeSafe));
    survives(&canary, &attacks);
}

#[test]
fn whiteouts_remove_only_what_is_in_the_image() {
    let canary = Canary::new();
    let empty = |name: &str| TarMaker::new().file(name, b"");
    let below = |marker: &str| TarMaker::new().symlink("d", canary.text()).file(&format!("d/{marker}"), b"");
    survives(
        &canary,
        &[
            attack("row 7: .wh..", empty("lower/.wh.."), Must::Refuse("whiteout")),
            attack("row 7: .wh...", empty("lower/.wh..."), Must::Refuse("whiteout")),
            attack("row 7: .wh. alone", empty("lower/.wh."), Must::Refuse("whiteout")),
            attack("row 7: below a link", below(".wh.file"), Must::BeSafe),
            attack("row 7: opaque below a link", below(".wh..wh..opq"), Must::BeSafe),
            attack(
                "row 7: AUFS",
                empty(".wh..wh.plnk/1").directory(".wh..wh.aufs/"),
                Must::Take(&["/lower/file"]),
            ),
            attack(
                "row 7: a directory as a marker",
                TarMaker::new().directory("lower/.wh.file/"),
                Must::BeSafe,
            ),
        ],
    );
}

#[test]
fn what_overlayfs_believes_comes_from_mica_alone() {
    let canary = Canary::new();
    let device = Member { name: b"lower/file", kind: b'3', ..Member::default() };
    let mut attacks = vec![attack("row 8: a bare 0:0 device", TarMaker::new().member(&device), Must::BeSafe)];
    for namespace in ["trusted", "user"] {
        for (name, value) in [("opaque", "y"), ("redirect", "/etc"), ("metacopy", ""), ("whiteout", "y")] {
            let key = format!("SCHILY.xattr.{namespace}.overlay.{name}");
            let tar = TarMaker::new().pax(&[(key.as_bytes(), value.as_bytes())]).directory("lower/");
            attacks.push(attack("row 8: an attribute of overlayfs", tar, Must::Take(&["/lower/file"])));
        }
    }
    survives(&canary, &attacks);
}

#[test]
fn nothing_on_the_disk_is_dangerous_to_the_host() {
    let canary = Canary::new();
    let setuid = Member { name: b"setuid", mode: 0o4755, size: 1, ..Member::default() };
    let disk = Member { name: b"disk", kind: b'4', device: (8, 0), mode: 0o666, ..Member::default() };
    let tar = TarMaker::new().member(&setuid).data(b"x").member(&disk);
    survives(&canary, &[attack("row 9: a device and a setuid file", tar.clone(), Must::BeSafe)]);
    for (who, mica) in empty_stores() {
        load(&mica, &[tar.clone().finish()]).success();
        let mode = std::fs::metadata(mica.root()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{who}: nobody else gets in");
        if who != "root" {
            assert_eq!(devices(&mica.root()), Vec::<String>::new(), "{who} has no devices");
        }
    }
}

/// Device nodes below a directory, but not overlayfs's 0:0 whiteouts.
fn devices(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_block_device() {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

#[test]
fn attributes_for_the_host_are_dropped() {
    let tar = TarMaker::new()
        .pax(&[
            (b"SCHILY.xattr.security.selinux", b"system_u:object_r:shadow_t:s0"),
            (b"SCHILY.xattr.security.ima", b"x"),
            (b"SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            (b"SCHILY.xattr.trusted.evil", b"1"),
            (b"SCHILY.xattr.user.good", b"1"),
        ])
        .file("file", b"x")
        .finish();
    for (who, mica) in empty_stores() {
        load(&mica, std::slice::from_ref(&tar)).success();
        let tree = built(&mica, "FROM hostile\nCOPY f /added\n");
        let listed = Command::new("getfattr").args(["-dm", "-"]).arg(tree.path("/file")).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("user.good"), "{who}: {listed}");
        for gone in ["security.ima", "trusted.evil", "posix_acl", "shadow_t"] {
            assert!(!listed.contains(gone), "{who}: {listed}");
        }
    }
}

/// Most memory that a bomb may cost, in KiB.
const BOMB_RSS_KIB: u64 = 256 << 10;

/// A gzip of so many MiB of zeros, made by the system's gzip.
fn zeros(mebibytes: u64, compressor: &str) -> Vec<u8> {
    let header = TarMaker::new().member(&Member { name: b"big", size: mebibytes << 20, ..Member::default() });
    let head = mica_testkit::temp_dir();
    let file = head.path().join("header");
    std::fs::write(&file, header.unfinished()).unwrap();
    let script = format!("(cat {}; head -c {mebibytes}M /dev/zero) | {compressor}", file.display());
    Command::new("sh").args(["-c", &script]).output().unwrap().stdout
}

#[test]
fn compression_bombs_cost_little() {
    let Some(mica) = empty() else { return };
    for (compressor, gist) in [("zstd -q -c", "compress"), ("xz -0 -c", "compress")] {
        if mica_testkit::peer::need(compressor.split(' ').next().unwrap()).is_none() {
            continue;
        }
        let archive = mica.write("bomb.tar", ImageArchive::new(&[zeros(2200, compressor)]).oci());
        let Some((output, peak)) = measured(&mica, &["load", "-i", archive.to_str().unwrap()]) else {
            return;
        };
        assert_eq!(output.code(), 1, "{compressor}: {}", output.stdout_text());
        assert!(output.stderr_text().contains(gist), "{compressor}: {}", output.stderr_text());
        assert!(peak < BOMB_RSS_KIB, "{compressor}: {peak} KiB");
        let used = Command::new("du").arg("-sk").arg(mica.root()).output().unwrap();
        let used = String::from_utf8_lossy(&used.stdout).split('\t').next().unwrap().parse::<u64>().unwrap();
        assert!(used < 300 << 10, "{compressor}: {used} KiB are left");
    }
    mica.run(["system", "check"]).success();
}

#[test]
fn a_compressed_archive_is_no_bomb_either() {
    let Some(mica) = empty() else { return };
    if mica_testkit::peer::need("zstd").is_none() {
        return;
    }
    let archive = mica.write("bomb.tar.zst", zeros(2200, "zstd -q -c"));
    let Some((output, peak)) = measured(&mica, &["load", "-i", archive.to_str().unwrap()]) else { return };
    assert_eq!(output.code(), 1, "{}", output.stdout_text());
    assert!(output.stderr_text().contains("limit"), "{}", output.stderr_text());
    assert!(peak < BOMB_RSS_KIB, "{peak} KiB");
}

#[test]
fn sparse_bombs_cost_little() {
    let Some(mica) = empty() else { return };
    let mut map = b"0\n".to_vec();
    map.resize(512, 0);
    let hole = |size: &str| {
        TarMaker::new()
            .pax(&[
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"hole"),
                (b"GNU.sparse.realsize", size.as_bytes()),
            ])
            .file("GNUSparseFile.0/hole", &map)
            .finish()
    };
    let regions: String = (0..200_000).map(|region| format!("{},1,", region * 2)).collect();
    let map = TarMaker::new()
        .pax(&[
            (b"GNU.sparse.numblocks", b"200000"),
            (b"GNU.sparse.map", regions.trim_end_matches(',').as_bytes()),
            (b"GNU.sparse.size", b"400000"),
        ])
        .file("many", &[0; 1024])
        .finish();
    let mut list = "3000000\n".to_owned();
    list.extend((0..100_000).map(|region| format!("{}\n0\n", region * 2)));
    let listed = TarMaker::new()
        .pax(&[
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"x"),
            (b"GNU.sparse.realsize", b"10"),
        ])
        .file("GNUSparseFile.0/x", list.as_bytes())
        .finish();
    for (what, layer, gist) in [
        ("4 TiB of nothing", hole("4398046511104"), "limit"),
        ("2^63 of nothing", hole("9223372036854775807"), ""),
        ("a negative size", hole("-1"), ""),
        ("200 000 regions in a header", map, "limit"),
        ("3 million regions in the data", listed, "limit"),
    ] {
        let archive = mica.write("bomb.tar", ImageArchive::new(&[layer]).oci());
        let Some((output, peak)) = measured(&mica, &["load", "-i", archive.to_str().unwrap()]) else {
            return;
        };
        assert_eq!(output.code(), 1, "{what}: {}", output.stdout_text());
        assert!(output.stderr_text().contains(gist), "{what}: {}", output.stderr_text());
        assert!(peak < BOMB_RSS_KIB, "{what}: {peak} KiB");
    }
    // A hole that is allowed costs no disk.
    load(&mica, &[hole("8589934592")]).success();
    let used = Command::new("du").arg("-sk").arg(mica.root()).output().unwrap();
    let used = String::from_utf8_lossy(&used.stdout).split('\t').next().unwrap().parse::<u64>().unwrap();
    assert!(used < 100 << 10, "{used} KiB");
}

#[test]
fn limits_are_named() {
    let mega = vec![b'a'; 2 << 20];
    let name = |length: usize| "n/".repeat(length / 2).into_bytes();
    let record = |key: &[u8], value: &[u8]| TarMaker::new().pax(&[(key, value)]).file("x", b"");
    let names: Vec<String> = (0..5).map(|index| format!("SCHILY.xattr.user.a{index}")).collect();
    let values: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &mega[..60_000])).collect();
    let component = [b"c/".as_slice(), &mega[..300]].concat();
    let attacks = [
        ("row 13: a PAX record", record(b"comment", &mega), "extended header is over the limit of 1048576"),
        (
            "row 13: a GNU name",
            TarMaker::new().extension(b'L', &mega).file("x", b""),
            "over the limit of 1048576",
        ),
        (
            "row 13: a header that only says it is large",
            TarMaker::new().member(&Member { name: b"x", kind: b'x', size: 256 << 20, ..Member::default() }),
            "over the limit of 1048576",
        ),
        (
            "row 13: an attribute",
            record(b"SCHILY.xattr.user.a", &mega[..70_000]),
            "attribute is over the limit of 65536",
        ),
        ("row 13: attributes", TarMaker::new().pax(&values).file("x", b""), "over the limit of 262144"),
        ("row 13: a path", record(b"path", &name(6000)), "path is over the limit of 4096"),
        ("row 13: a component", record(b"path", &component), "over the limit of 255"),
        (
            "row 13: a link's target",
            TarMaker::new().pax(&[(b"linkpath", &mega[..5000])]).symlink("l", "x"),
            "4096",
        ),
        ("section 5: a layer", record(b"size", b"69793218560"), "over the limit of 68719476736"),
    ];
    let Some(mica) = empty() else { return };
    for (what, tar, gist) in attacks {
        let output = load(&mica, &[tar.finish()]);
        assert_eq!(output.code(), 1, "{what}: {}", output.stdout_text());
        assert!(output.stderr_text().contains(gist), "{what}: {}", output.stderr_text());
    }
    mica.run(["system", "check"]).success();
}

#[test]
fn one_tar_is_read_one_way() {
    let canary = Canary::new();
    let inner = TarMaker::new().file("smuggled", b"evil").unfinished();
    let sized = |size: u64| Member { name: b"outer", size, ..Member::default() };
    let text = inner.len().to_string();
    let pax_wins = TarMaker::new().pax(&[(b"size", text.as_bytes())]).member(&sized(0)).data(&inner);
    let global = TarMaker::new().extension(b'g', b"13 size=1024\n").member(&sized(0)).data(&inner);
    let before_long_name = TarMaker::new()
        .pax(&[(b"size", text.as_bytes())])
        .extension(b'L', b"outer-with-a-name\0")
        .member(&sized(0))
        .data(&inner);
    // As Go's reader has it, and so every engine: what is no file has no data, whatever its size says.
    let link_with_data = TarMaker::new()
        .member(&Member { kind: b'2', link: b"x", ..sized(inner.len() as u64) })
        .file("after", b"x");
    let twice =
        TarMaker::new().pax(&[(b"size", text.as_bytes()), (b"size", b"0")]).member(&sized(0)).data(&inner);
    survives(
        &canary,
        &[
            attack("row 14: PAX size over header size", pax_wins, Must::Take(&["/outer"])),
            attack("row 14: a global size", global, Must::Refuse("global header")),
            attack("row 14: PAX before a long name", before_long_name, Must::BeSafe),
            attack("row 14: a link with a size", link_with_data, Must::Take(&["/outer", "/after"])),
            attack("row 14: two sizes", twice, Must::Refuse("PAX size given twice")),
            attack(
                "row 14: a record without an end",
                TarMaker::new().extension(b'x', b"99 path=a\n").file("x", b""),
                Must::Refuse("PAX"),
            ),
            attack(
                "row 14: a negative size",
                TarMaker::new().pax(&[(b"size", b"-1")]).file("x", b""),
                Must::Refuse("PAX"),
            ),
        ],
    );
}

#[test]
fn odd_numbers_and_names_are_errors_or_kept() {
    let canary = Canary::new();
    let with = |key: &[u8], value: &[u8]| TarMaker::new().pax(&[(key, value)]).file("x", b"1");
    let mut attacks = vec![
        attack("row 15: uid -1", with(b"uid", b"4294967295"), Must::Refuse("")),
        attack("row 15: uid beyond 32 bits", with(b"uid", b"4294967296"), Must::Refuse("")),
        attack("row 15: gid -1", with(b"gid", b"4294967295"), Must::Refuse("")),
        attack("row 15: a NUL in a name", with(b"path", b"a\0b"), Must::Refuse("")),
        attack(
            "row 15: not UTF-8",
            TarMaker::new().member(&Member { name: b"\xff\xfe", ..Member::default() }),
            Must::BeSafe,
        ),
        attack("row 15: an empty name", TarMaker::new().file("", b"x"), Must::BeSafe),
        attack("row 15: control characters", TarMaker::new().file("a\x1b[31m\n", b"x"), Must::BeSafe),
    ];
    for time in [
        &b"NaN"[..],
        b"1e400",
        b"-9223372036854775809",
        b"99999999999999999999",
        b"9223372036854775807.999999999",
        b"1.-5",
        b"",
    ] {
        attacks.push(attack("row 15: a time", with(b"mtime", time), Must::BeSafe));
    }
    survives(&canary, &attacks);
}

#[test]
fn pipes_and_sockets_do_not_block() {
    let canary = Canary::new();
    let fifo = Member { name: b"p", kind: b'6', ..Member::default() };
    survives(
        &canary,
        &[
            attack(
                "row 16: a file over a pipe",
                TarMaker::new().member(&fifo).file("p", b"x"),
                Must::Take(&["/p"]),
            ),
            attack(
                "row 16: a link to a pipe",
                TarMaker::new().member(&fifo).hard_link("h", "p"),
                Must::Take(&["/h"]),
            ),
            attack(
                "row 16: a directory over a pipe",
                TarMaker::new().member(&fifo).directory("p/"),
                Must::BeSafe,
            ),
        ],
    );
    // Files that mica reads in an image: pipes there are no users.
    let Some(mica) = empty() else { return };
    let etc = |name: &'static [u8]| Member { name, ..fifo.clone() };
    let tar =
        TarMaker::new().member(&etc(b"etc/passwd")).member(&etc(b"etc/group")).file("bin/x", b"no program");
    load(&mica, &[tar.finish()]).success();
    let ran = mica.run(["run", "--rm", "-u", "somebody", "hostile", "/bin/x"]);
    assert!((125..=127).contains(&ran.code()), "{}", ran.stderr_text());
}

#[test]
fn depth_and_count_end_in_errors() {
    let deep = "d/".repeat(2000);
    let Some(mica) = empty() else { return };
    let tar = TarMaker::new().pax(&[(b"path", deep.as_bytes())]).directory("x/").finish();
    load(&mica, &[tar]).success();
    built(&mica, "FROM hostile\nCOPY f /added\n");
    mica.run(["rmi", "-f", "hostile"]).success();
    mica.run(["system", "prune", "-a", "-f"]).success();
    mica.run(["system", "gc"]).success();
    assert_eq!(
        std::fs::read_dir(mica.root().join("layers")).unwrap().count(),
        0,
        "a deep tree can be removed"
    );

    let links = (0..40_000)
        .fold(TarMaker::new(), |tar, index| tar.symlink(&format!("l{index}"), &format!("l{}", index + 1)));
    load(&mica, &[links.file("l0/x", b"").finish()]);
    let hard = (0..40_000)
        .fold(TarMaker::new().file("f", b""), |tar, index| tar.hard_link(&format!("h{index}"), "f"));
    let output = load(&mica, &[hard.finish()]);
    no_panic("40 000 hard links", &output);

    let layer = |index: usize| TarMaker::new().file(&format!("f{index}"), b"x").finish();
    let many: Vec<Vec<u8>> = (0..400).map(layer).collect();
    load(&mica, &many).success();
    let tree = built(&mica, "FROM hostile\nCOPY f /added\n");
    assert!(tree.has("/f0") && tree.has("/f399"), "400 layers are one root");
    let more: Vec<Vec<u8>> = (0..501).map(layer).collect();
    load(&mica, &more).exits(1).complains("501 layers, the limit is 500");
    mica.run(["system", "check"]).success();
}

#[test]
fn a_secret_of_the_host_is_in_no_image() {
    let canary = Canary::new();
    let file = format!("{}/file", canary.text());
    let tar = TarMaker::new().symlink("link", &file).hard_link("hard", &file).finish();
    for (_, mica) in empty_stores() {
        load(&mica, std::slice::from_ref(&tar));
        load(&mica, &[TarMaker::new().symlink("link", &file).finish()]).success();
        build(&mica, "FROM hostile\nCOPY --from=hostile /link /copy\n");
        let kept = Command::new("grep").args(["-raFl", SECRET]).arg(mica.root()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "");
    }
}
