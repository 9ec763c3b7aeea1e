-- What the registry knows. Blobs and documents are content; everything else says which repository has what.

CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Files of `blobs/`.
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Their number and size, so that quotas cost nothing.
CREATE TABLE totals (
    blobs INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER blob_added AFTER INSERT ON blobs BEGIN
    UPDATE totals SET blobs = blobs + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER blob_removed AFTER DELETE ON blobs BEGIN
    UPDATE totals SET blobs = blobs - 1, bytes = bytes - OLD.size;
END;

-- A repository from which a blob can be pulled. `expires` is NULL while a manifest of it needs the blob.
CREATE TABLE links (
    repository INTEGER NOT NULL REFERENCES repositories,
    digest TEXT NOT NULL,
    expires INTEGER,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest);
CREATE INDEX links_by_expiry ON links (expires) WHERE expires IS NOT NULL;

-- The bytes of manifests.
CREATE TABLE documents (
    digest TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE manifests (
    repository INTEGER NOT NULL REFERENCES repositories,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    annotations TEXT,
    -- When it was pushed, or lost a tag.
    touched INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifests_by_digest ON manifests (digest);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE tags (
    repository INTEGER NOT NULL REFERENCES repositories,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    moved INTEGER NOT NULL,
    PRIMARY KEY (repository, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);

-- What a manifest names: config, layers, manifests of an index.
CREATE TABLE needs (
    repository INTEGER NOT NULL REFERENCES repositories,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX needs_by_digest ON needs (repository, digest);

-- Files that have lost their row and are still to be removed.
CREATE TABLE removals (
    digest TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What is still to be told to the webhook, oldest first; only filled where there is one.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body TEXT NOT NULL
) STRICT;
