//! Who may do what (the auth cases of registry.md).

use std::time::Duration;

use mica_oci::media_type;
use mica_tests::registry::{Ask, Image, Registry, digest, location, with};
use mica_tests::until;
use serde_json::json;

/// bcrypt, cost 5, of `secret`.
const SECRET: &str = "$2y$05$OEIDyLKL1ftaK3XWdyfsI.pOgO4oeozhCLhiWjHY4flcUbcyuMyra";

struct Served {
    registry: Registry,
    users: std::path::PathBuf,
    _folder: mica_testkit::TempDir,
}

fn serve(names: &[&str], options: &[&str]) -> Served {
    let folder = mica_testkit::temp_dir();
    let users = folder.path().join("users");
    write_users(&users, names);
    let options = [&["--htpasswd", users.to_str().unwrap()], options].concat();
    Served { registry: Registry::mica(&options), users, _folder: folder }
}

fn write_users(path: &std::path::Path, names: &[&str]) {
    let lines: String = names.iter().map(|name| format!("{name}:{SECRET}\n")).collect();
    std::fs::write(path, lines).unwrap();
}

/// The same request with a name and a password.
fn by(ask: Ask, user: &str, password: &str) -> Ask {
    ask.header("Authorization", format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = (0..3).fold(0_usize, |word, at| word << 8 | usize::from(*part.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = if at <= part.len() { char::from(DIGITS[word >> (18 - 6 * at) & 63]) } else { '=' };
            text.push(digit);
        }
    }
    text
}

/// Pushes an image as a user.
#[track_caller]
fn push(registry: &Registry, user: &str, repository: &str, image: &Image) {
    for blob in &image.blobs {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", digest(blob));
        by(registry.ask("POST", &path), user, "secret").body(&blob[..]).send().is(201);
    }
    let path = format!("/v2/{repository}/manifests/x");
    by(registry.ask("PUT", &path), user, "secret")
        .header("Content-Type", media_type::OCI_MANIFEST)
        .body(&image.manifest[..])
        .send()
        .is(201);
}

#[test]
fn strangers_are_asked_for_a_password_everywhere() {
    let served = serve(&["alice"], &[]);
    let some = digest(b"x");
    for (method, path) in [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", "/v2/a/tags/list".to_owned()),
        ("GET", "/v2/a/manifests/x".to_owned()),
        ("PUT", "/v2/a/manifests/x".to_owned()),
        ("DELETE", "/v2/a/manifests/x".to_owned()),
        ("HEAD", format!("/v2/a/blobs/{some}")),
        ("DELETE", format!("/v2/a/blobs/{some}")),
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("GET", format!("/v2/a/blobs/uploads/{}", "0".repeat(32))),
        ("PATCH", format!("/v2/a/blobs/uploads/{}", "0".repeat(32))),
        ("GET", format!("/v2/a/referrers/{some}")),
        // However the name is written, the decision is the same.
        ("GET", "/v2/%61/tags/list".to_owned()),
    ] {
        let reply = served.registry.ask(method, &path).send().is(401);
        assert!(reply.get("www-authenticate").is_some_and(|text| text.starts_with("Basic realm=")), "{path}");
        assert!(method == "HEAD" || reply.code() == "UNAUTHORIZED", "{path}");
    }
    by(served.registry.ask("GET", "/v2/"), "alice", "secret").send().is(200);
    by(served.registry.ask("GET", "/v2/"), "alice", "wrong").send().is(401);
    by(served.registry.ask("GET", "/v2/"), "bob", "secret").send().is(401);
    served.registry.ask("GET", "/v2/").header("Authorization", "Bearer x").send().is(401);
    push(&served.registry, "alice", "a", &Image::new("alice's"));
}

#[test]
fn rules_say_who_may_do_what_where() {
    let rules =
        ["alice=push,delete:team/**", "bob=pull:team/**", "anonymous=pull:public/**", "alice=push:public/*"];
    let options: Vec<&str> = rules.iter().flat_map(|rule| ["--allow", rule]).collect();
    let served = serve(&["alice", "bob", "carol"], &options);
    let registry = &served.registry;
    let image = Image::new("team");
    push(registry, "alice", "team/app", &image);
    push(registry, "alice", "public/app", &image);
    let manifest = |repository: &str| format!("/v2/{repository}/manifests/x");
    let get =
        |user: &str, repository: &str| by(registry.ask("GET", &manifest(repository)), user, "secret").send();
    get("bob", "team/app").is(200);
    registry.ask("GET", &manifest("public/app")).send().is(200);
    registry.ask("GET", &manifest("team/app")).send().is(401);
    // A pull-only user does not push or delete.
    let begun = by(registry.ask("POST", "/v2/team/app/blobs/uploads/"), "bob", "secret").send().is(403);
    assert_eq!(begun.code(), "DENIED");
    by(registry.ask("DELETE", &manifest("team/app")), "bob", "secret").send().is(403);
    // Who may push may not delete, unless it is said.
    by(registry.ask("DELETE", &manifest("public/app")), "alice", "secret").send().is(403);
    // What is forbidden looks like what is not there.
    let (forbidden, absent) = (get("carol", "team/app"), get("carol", "team/none"));
    let shown = |reply: &mica_tests::registry::Reply| (reply.status, reply.text().replace("none", "app"));
    assert_eq!(shown(&forbidden.is(403)), shown(&absent.is(403)));
    // The catalog shows what may be pulled.
    let catalog = |user: &str| by(registry.ask("GET", "/v2/_catalog"), user, "secret").send().is(200).json();
    assert_eq!(catalog("bob")["repositories"], json!(["public/app", "team/app"]));
    assert_eq!(catalog("carol")["repositories"], json!(["public/app"]));
    by(registry.ask("DELETE", &manifest("team/app")), "alice", "secret").send().is(202);
}

#[test]
fn a_blob_is_not_mounted_from_where_it_may_not_be_read() {
    let served = serve(&["alice", "bob"], &["--allow", "alice=all:alice/**", "--allow", "bob=all:bob/**"]);
    let registry = &served.registry;
    let image = Image::new("private");
    push(registry, "alice", "alice/app", &image);
    let wanted = digest(&image.blobs[0]);
    for from in ["&from=alice/app", ""] {
        let path = format!("/v2/bob/app/blobs/uploads/?mount={wanted}{from}");
        let begun = by(registry.ask("POST", &path), "bob", "secret").send().is(202);
        // And what he began is his.
        let upload = location(&begun);
        by(registry.ask("GET", &upload), "alice", "secret").send().is(403);
        by(registry.ask("GET", &upload), "bob", "secret").send().is(204);
    }
    by(registry.ask("HEAD", &format!("/v2/bob/app/blobs/{wanted}")), "bob", "secret").send().is(404);
    // Who has the bytes may push them, of course.
    let path = format!("/v2/bob/app/blobs/uploads/?digest={wanted}");
    by(registry.ask("POST", &path), "bob", "secret").body(&image.blobs[0][..]).send().is(201);
    let mount = format!("/v2/bob/other/blobs/uploads/?mount={wanted}");
    by(registry.ask("POST", &mount), "bob", "secret").send().is(201);
}

#[test]
fn an_upload_belongs_to_who_began_it() {
    let served = serve(&["alice", "bob"], &[]);
    let begun = by(served.registry.ask("POST", "/v2/r/blobs/uploads/"), "alice", "secret").send().is(202);
    let path = with(&location(&begun), &format!("digest={}", digest(b"x")));
    by(served.registry.ask("PUT", &path), "bob", "secret").body("x").send().is(404);
    by(served.registry.ask("PUT", &path), "alice", "secret").body("x").send().is(201);
}

#[test]
fn the_file_of_users_is_read_again_when_it_changes() {
    let served = serve(&["alice"], &[]);
    let status = |user| by(served.registry.ask("GET", "/v2/"), user, "secret").send().status;
    assert_eq!((status("alice"), status("bob")), (200, 401));
    write_users(&served.users, &["bob"]);
    until("bob is known, and alice is not any more", || (status("alice"), status("bob")) == (401, 200));
    // A file that makes no sense changes nothing.
    std::fs::write(&served.users, "nonsense").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(status("bob"), 200);
}

#[test]
fn many_wrong_passwords_do_not_keep_others_out() {
    let served = serve(&["alice"], &[]);
    let registry = &served.registry;
    by(registry.ask("GET", "/v2/"), "alice", "secret").send().is(200);
    std::thread::scope(|scope| {
        for worker in 0..64 {
            scope.spawn(move || {
                for round in 0..3 {
                    let reply = by(registry.ask("GET", "/v2/"), "alice", &format!("{worker} {round}")).send();
                    assert!(matches!(reply.status, 401 | 429), "{}", reply.status);
                    assert!(reply.status == 401 || reply.get("retry-after").is_some());
                }
            });
        }
        for _ in 0..20 {
            by(registry.ask("GET", "/v2/"), "alice", "secret").send().is(200);
        }
    });
}

#[test]
fn an_address_that_others_reach_is_not_open_by_accident() {
    let registry = Registry::mica(&[]);
    let data = mica_testkit::temp_dir();
    let arguments = ["registry", "serve", "--addr", "0.0.0.0:0", "--data", data.path().to_str().unwrap()];
    let refused = registry.command(&arguments).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    mica_tests::holds(&text, &["can be reached from other machines", "--insecure-open"]);
}

fn token(reply: &mica_tests::registry::Reply) -> String {
    reply.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_is_worth_what_it_was_given_for_and_no_more() {
    let served = serve(&["alice", "bob"], &["--tokens", "--allow", "alice=all", "--allow", "bob=pull"]);
    let registry = &served.registry;
    push(registry, "alice", "a", &Image::new("a"));
    let asked = registry.ask("PUT", "/v2/a/manifests/x").send().is(401);
    let challenge = asked.get("www-authenticate").unwrap();
    let expected = format!(
        "Bearer realm=\"http://{0}/token\",service=\"{0}\",scope=\"repository:a:pull,push\"",
        registry.address()
    );
    assert_eq!(challenge, expected);
    let get = |user: &str, scope: &str| {
        let path = format!("/token?service={}&scope={scope}", registry.address());
        token(&by(registry.ask("GET", &path), user, "secret").send().is(200))
    };
    let show = |method: &str, path: &str, token: &str| {
        registry.ask(method, path).header("Authorization", format!("Bearer {token}")).send()
    };
    let pull = get("alice", "repository:a:pull");
    show("GET", "/v2/", &pull).is(200);
    show("GET", "/v2/a/manifests/x", &pull).is(200);
    // Of another repository, or without the right: asked for another token.
    show("GET", "/v2/b/manifests/x", &pull).is(401);
    show("DELETE", "/v2/a/manifests/x", &pull).is(401);
    show("POST", "/v2/a/blobs/uploads/", &pull).is(401);
    show("POST", "/v2/a/blobs/uploads/", &get("alice", "repository:a:pull,push")).is(202);
    // What the rules do not give, no token does.
    show("POST", "/v2/a/blobs/uploads/", &get("bob", "repository:a:pull,push")).is(403);
    let (head, rest) = pull.split_once('.').unwrap();
    for forged in [
        format!("{head}.{}", rest.replacen('a', "b", 1)),
        format!("eyJhbGciOiJub25lIn0.{}.", rest.split('.').next().unwrap()),
        String::new(),
    ] {
        show("GET", "/v2/a/manifests/x", &forged).is(401);
    }
    by(registry.ask("GET", "/token?scope=repository:a:pull"), "alice", "wrong").send().is(401);
    show("GET", "/token", &pull).is(401);
    // Who is struck off the list is nobody, whatever token is still in time.
    write_users(&served.users, &["bob"]);
    until("alice is nobody", || show("GET", "/v2/a/manifests/x", &pull).status == 401);
}

#[test]
fn the_password_works_where_tokens_are_asked_for() {
    let served = serve(&["alice"], &["--tokens"]);
    push(&served.registry, "alice", "a", &Image::new("a"));
}

#[test]
fn tls_is_spoken_with_the_certificate_of_the_moment() {
    let Some(curl) = mica_testkit::peer::need("curl") else { return };
    let Some(openssl) = mica_testkit::peer::need("openssl") else { return };
    let folder = mica_testkit::temp_dir();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let make = || {
        let name = "subjectAltName=IP:127.0.0.1";
        let made = std::process::Command::new(&openssl)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=test", "-addext", name, "-keyout", &path("key"), "-out", &path("cert")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make();
    let registry = Registry::mica(&["--tls-cert", &path("cert"), "--tls-key", &path("key")]);
    assert!(registry.log().contains("on https://"), "{}", registry.log());
    let url = format!("https://{}/v2/", registry.address());
    let asked = || {
        let certificate = path("cert");
        let output =
            std::process::Command::new(&curl).args(["-s", "--cacert", &certificate, &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(asked(), "{}");
    make();
    until("the new certificate is served", || asked() == "{}");
    // Somebody who does not speak TLS is not answered, and harms nobody.
    assert_eq!(registry.ask("GET", "/v2/").send().status, 0);
    assert_eq!(asked(), "{}");
}

#[test]
fn pages_and_numbers_show_what_the_caller_may_see() {
    let served = serve(&["alice"], &["--allow", "alice=all", "--allow", "anonymous=pull:open/*"]);
    let registry = &served.registry;
    push(registry, "alice", "open/app", &Image::new("open"));
    push(registry, "alice", "closed/app", &Image::new("closed"));
    let page = registry.ask("GET", "/").send().is(200);
    assert_eq!(page.get("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        page.get("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
    let text = page.text();
    assert!(text.contains("open/app") && !text.contains("closed/app"), "{text}");
    assert!(!text.contains("<script") && !text.contains("http"), "{text}");
    registry.ask("GET", "/?login").send().is(401);
    let mine = by(registry.ask("GET", "/"), "alice", "secret").send().is(200).text();
    assert!(mine.contains("closed/app") && mine.contains("logged in as alice"), "{mine}");
    registry.ask("GET", "/repositories/closed/app").send().is(401);
    let open = registry.ask("GET", "/repositories/open/app").send().is(200).text();
    assert!(open.contains(&Image::new("open").digest()), "{open}");
    registry.ask("GET", "/metrics").send().is(401);
    let metrics = by(registry.ask("GET", "/metrics"), "alice", "secret").send().is(200).text();
    mica_tests::holds(&metrics, &["mica_registry_blobs 4\n", "mica_registry_requests_total{class=\"2xx\"}"]);
    for path in ["/livez", "/readyz"] {
        registry.ask("GET", path).send().is(200);
    }
}
