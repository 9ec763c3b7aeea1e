use super::*;

fn mount(text: &str) -> MountFlag {
    match parse_mount(text, |value| Ok(value.replace("$T", "/t"))) {
        Ok(mount) => mount,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn refused(text: &str) -> String {
    parse_mount(text, |value| Ok(value.to_owned())).expect_err(text).to_string()
}

#[test]
fn bind_is_the_default_and_read_only() {
    let expected = MountFlag::Bind {
        target: "/t/x".to_owned(),
        from: Some("st".to_owned()),
        source: "s".to_owned(),
        read_only: true,
    };
    assert_eq!(mount("target=$T/x,from=st,source=s"), expected);
    assert_eq!(mount("type=bind,DST=$T/x,from=st,src=s,ro"), expected);
    assert!(matches!(mount("destination=/x,rw"), MountFlag::Bind { read_only: false, .. }));
    assert!(matches!(mount("target=/x,readwrite=false"), MountFlag::Bind { read_only: true, .. }));
}

#[test]
fn m4_a_cache_is_named_after_its_clean_target() {
    let MountFlag::Cache { id, target, sharing, read_only, .. } = mount("type=cache,target=/a/../b/") else {
        panic!("not a cache");
    };
    assert_eq!((id.as_str(), target.as_str()), ("/b", "/a/../b/"));
    assert_eq!((sharing, read_only), (Sharing::Shared, false));
    let MountFlag::Cache { id, sharing, attributes, .. } =
        mount("type=cache,id=x,target=/b,sharing=locked,mode=0700,uid=5,gid=6")
    else {
        panic!("not a cache");
    };
    assert_eq!((id.as_str(), sharing), ("x", Sharing::Locked));
    assert_eq!(attributes, Attributes { mode: Some(0o700), uid: Some(5), gid: Some(6) });
}

#[test]
fn tmpfs_sizes_are_human() {
    let size = |text: &str| match mount(&format!("type=tmpfs,target=/t,size={text}")) {
        MountFlag::Tmpfs { size_bytes, .. } => size_bytes,
        _ => panic!("not a tmpfs"),
    };
    assert_eq!(size("64m"), Some(64 << 20));
    assert_eq!(size("1.5GiB"), Some(3 << 29));
    assert_eq!(size("1024"), Some(1024));
    assert_eq!(size("2 kb"), Some(2048));
    assert_eq!(size("0"), None);
    assert!(refused("type=tmpfs,target=/t,size=-1").contains("invalid value for size: -1"));
    assert!(refused("type=tmpfs,target=/t,size=x").contains("invalid value for size: x"));
}

#[test]
fn m5_secrets_find_their_names() {
    let secret = |text: &str| match mount(text) {
        MountFlag::Secret { id, target, env, required, .. } => (id, target, env, required),
        _ => panic!("not a secret"),
    };
    let owned = |text: &str| Some(text.to_owned());
    assert_eq!(secret("type=secret,id=a/s"), ("a/s".to_owned(), owned("/run/secrets/s"), None, false));
    assert_eq!(secret("type=secret,target=x/y"), ("y".to_owned(), owned("x/y"), None, false));
    assert_eq!(secret("type=secret,source=s,env=V"), ("s".to_owned(), None, owned("V"), false));
    assert_eq!(secret("type=secret,id=s,env=V,target=/f").1, owned("/f"));
    assert!(secret("type=secret,id=s,required").3);
    assert!(secret("type=secret,id=s,required=true").3);
}

#[test]
fn m6_ssh_agents_have_a_default_name() {
    assert!(
        matches!(mount("type=ssh"), MountFlag::Ssh { id, target: None, required: false, .. } if id == "default")
    );
    assert_eq!(refused("type=ssh,source=x"), "ssh does not support source");
}

#[test]
fn m2_errors_are_those_of_the_reference() {
    let cases = [
        ("type=foo", "unsupported mount type \"foo\""),
        ("type=cach", "unsupported mount type \"cach\" (did you mean cache?)"),
        ("foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("fro=1", "unexpected key 'fro' in 'fro=1' (did you mean from?)"),
        ("target=/x,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("type=cache,sharing=foo", "unsupported sharing value \"foo\""),
        ("target=/x,sharing=shared", "invalid cache sharing set for bind mount"),
        ("target=/x,uid=1", "uid not allowed for \"bind\" type mounts"),
        ("type=tmpfs,target=/x,mode=1", "mode not allowed for \"tmpfs\" type mounts"),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("target=/x,ro=maybe", "invalid value for ro: maybe"),
        ("from=$X", "'from' doesn't support variable expansion, define alias stage instead"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("", "failed to parse csv mounts: EOF"),
        ("a\"b", "failed to parse csv mounts: bare \" in non-quoted field"),
        ("\"a", "failed to parse csv mounts: extraneous or missing \" in quoted-field"),
    ];
    for (text, expected) in cases {
        assert!(refused(text).starts_with(expected), "{text}: {}", refused(text));
    }
}

#[test]
fn quoted_fields_may_hold_commas() {
    let MountFlag::Bind { target, source, .. } = mount("\"source=a,\"\"b\",target=/x") else {
        panic!("not a bind")
    };
    assert_eq!((source.as_str(), target.as_str()), ("a,\"b", "/x"));
}

#[test]
fn m1_targets_join_the_working_directory() {
    assert_eq!(target_in("/w", "a/../b").as_deref(), Ok("/w/b"));
    assert_eq!(target_in("/w", "/a").as_deref(), Ok("/a"));
    assert_eq!(target_in("/w", "").as_deref(), Ok("/w"));
    assert_eq!(target_in("/", "").unwrap_err().to_string(), "invalid mount target \"/\"");
    assert_eq!(target_in("/w", "/a/..").unwrap_err().to_string(), "invalid mount target \"/\"");
}
