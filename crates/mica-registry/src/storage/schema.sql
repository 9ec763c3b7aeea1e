-- Metadata of a registry. Digests are text (`sha256:…`), times seconds since 1970.
-- `expires`: when the collector may take a row that nothing refers to; NULL while something does.

CREATE TABLE repositories (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE
);

-- Files in blobs/. A row is written when its file is durable.
CREATE TABLE blobs (
    digest   TEXT PRIMARY KEY,
    size     INTEGER NOT NULL
) WITHOUT ROWID;

-- Files that have lost their row and are to be removed; done after the row is durable.
CREATE TABLE removals (
    digest  TEXT PRIMARY KEY
) WITHOUT ROWID;

-- Which blobs can be pulled from which repository.
CREATE TABLE links (
    repository  INTEGER NOT NULL,
    digest      TEXT NOT NULL,
    expires     INTEGER,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX links_digest ON links (digest);
CREATE INDEX links_expires ON links (expires) WHERE expires IS NOT NULL;

CREATE TABLE documents (
    digest  TEXT PRIMARY KEY,
    bytes   BLOB NOT NULL
);

CREATE TABLE manifests (
    repository     INTEGER NOT NULL,
    digest         TEXT NOT NULL,
    media_type     TEXT NOT NULL,
    size           INTEGER NOT NULL,
    artifact_type  TEXT,
    subject        TEXT,
    annotations    TEXT,
    pushed         INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX manifests_digest ON manifests (digest);
CREATE INDEX manifests_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

-- What a manifest names: config, layers, manifests of an index. Not its subject.
CREATE TABLE needs (
    repository  INTEGER NOT NULL,
    manifest    TEXT NOT NULL,
    digest      TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, digest)
) WITHOUT ROWID;
CREATE INDEX needs_digest ON needs (repository, digest);

CREATE TABLE tags (
    repository  INTEGER NOT NULL,
    name        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    moved       INTEGER NOT NULL,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX tags_digest ON tags (repository, digest);
