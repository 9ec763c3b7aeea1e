cat > "$W/lay.py" <<'P'
import hashlib, io, json, os, sys, tarfile
def layout(root, tags, marker, env=()):
    os.makedirs(root + "/blobs/sha256", exist_ok=True)
    def blob(b):
        d = hashlib.sha256(b).hexdigest()
        open(root + "/blobs/sha256/" + d, "wb").write(b)
        return {"digest": "sha256:" + d, "size": len(b)}
    f = io.BytesIO()
    t = tarfile.open(fileobj=f, mode="w", format=tarfile.PAX_FORMAT)
    for name, data in (("lay/marker", marker), ("lay/two", "two\n")):
        i = tarfile.TarInfo(name); i.size, i.mtime, i.uid, i.gid = len(data), 1600000000, 3, 4
        t.addfile(i, io.BytesIO(data.encode()))
    t.close()
    raw = f.getvalue()
    oci = "application/vnd.oci.image."
    cfg = {"architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z", "config": {"Env": list(env), "Labels": {"lay": "out"}},
           "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw).hexdigest()]},
           "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "laid out"}]}
    man = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": dict(blob(json.dumps(cfg).encode()), mediaType=oci + "config.v1+json"),
           "layers": [dict(blob(raw), mediaType=oci + "layer.v1.tar")]}
    d = dict(blob(json.dumps(man).encode()), mediaType=oci + "manifest.v1+json")
    ix = root + "/index.json"
    old = json.load(open(ix))["manifests"] if os.path.exists(ix) else []
    old += [dict(d, annotations={"org.opencontainers.image.ref.name": x}) for x in tags]
    json.dump({"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": old}, open(ix, "w"))
    json.dump({"imageLayoutVersion": "1.0.0"}, open(root + "/oci-layout", "w"))
    return d["digest"]
P

cd "$W"; $PY -c 'from lay import layout; layout("lay", ["latest"], "latest\n", ["LAY=1"]); layout("lay", ["v2"], "v2\n")'; rm -rf lay.py __pycache__
