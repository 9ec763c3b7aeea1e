-- Schema 3. A change here is also a step in migrate.rs. Digests are text, layer IDs 16 bytes, times nanoseconds since 1970.
-- `unsynced` is the boot token of rows whose files are not on the disk yet (db.rs); NULL once they are.
-- AUTOINCREMENT where a sync marks "everything up to here": a number must never be used twice.

CREATE TABLE meta(
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE blobs(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  digest TEXT NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  unsynced TEXT
);
CREATE INDEX blobs_unsynced ON blobs(unsynced) WHERE unsynced IS NOT NULL;

-- recipe: BLAKE3 of the recipe file, NULL if the layer has none.
CREATE TABLE layers(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  diff_id TEXT NOT NULL UNIQUE,
  tar_bytes INTEGER NOT NULL,
  content_bytes INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL,
  recipe BLOB,
  created INTEGER NOT NULL,
  unsynced TEXT
);
CREATE INDEX layers_unsynced ON layers(unsynced) WHERE unsynced IS NOT NULL;

-- One row per manifest or index that is an image here, with or without names.
CREATE TABLE images(
  digest TEXT PRIMARY KEY,
  media_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  image_id TEXT NOT NULL,
  created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX images_id ON images(image_id);

CREATE TABLE names(
  name TEXT PRIMARY KEY,
  image TEXT NOT NULL REFERENCES images(digest)
) WITHOUT ROWID;
CREATE INDEX names_image ON names(image);

CREATE TABLE image_blobs(
  image TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE,
  digest TEXT NOT NULL REFERENCES blobs(digest),
  PRIMARY KEY(image, digest)
) WITHOUT ROWID;
CREATE INDEX image_blobs_digest ON image_blobs(digest);

CREATE TABLE image_layers(
  image TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE,
  manifest TEXT NOT NULL,
  position INTEGER NOT NULL,
  layer BLOB NOT NULL REFERENCES layers(id),
  PRIMARY KEY(image, manifest, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_layer ON image_layers(layer);

-- How a local manifest looked when it last left in some form (compressor, level, media types, times).
CREATE TABLE forms(
  manifest TEXT NOT NULL,
  form TEXT NOT NULL,
  remote TEXT NOT NULL,
  PRIMARY KEY(manifest, form)
) WITHOUT ROWID;

-- kind: docker's name of the type of a record.
CREATE TABLE cache_records(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  content BLOB NOT NULL UNIQUE,
  description TEXT NOT NULL,
  kind TEXT NOT NULL DEFAULT 'regular',
  created INTEGER NOT NULL,
  last_used INTEGER NOT NULL,
  uses INTEGER NOT NULL DEFAULT 0,
  unsynced TEXT
);
CREATE INDEX cache_records_unsynced ON cache_records(unsynced) WHERE unsynced IS NOT NULL;

CREATE TABLE cache_aliases(
  definition BLOB PRIMARY KEY,
  record INTEGER NOT NULL REFERENCES cache_records(seq) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX cache_aliases_record ON cache_aliases(record);

CREATE TABLE cache_layers(
  record INTEGER NOT NULL REFERENCES cache_records(seq) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  layer BLOB NOT NULL REFERENCES layers(id),
  PRIMARY KEY(record, position)
) WITHOUT ROWID;
CREATE INDEX cache_layers_layer ON cache_layers(layer);

-- What a URL answered last, so that the next request can be a conditional one.
CREATE TABLE fetched(
  url TEXT PRIMARY KEY,
  etag TEXT,
  last_modified TEXT,
  content BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE containers(
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  image_name TEXT,
  image TEXT,
  image_id TEXT,
  config TEXT NOT NULL,
  state TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX containers_image ON containers(image);

CREATE TABLE container_layers(
  container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  layer BLOB NOT NULL REFERENCES layers(id),
  PRIMARY KEY(container, position)
) WITHOUT ROWID;
CREATE INDEX container_layers_layer ON container_layers(layer);

CREATE TABLE volumes(
  name TEXT PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  options TEXT NOT NULL,
  anonymous INTEGER NOT NULL,
  created INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE container_volumes(
  container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
  volume TEXT NOT NULL REFERENCES volumes(name),
  PRIMARY KEY(container, volume)
) WITHOUT ROWID;
CREATE INDEX container_volumes_volume ON container_volumes(volume);

CREATE TABLE cache_mounts(
  name TEXT PRIMARY KEY,
  id TEXT NOT NULL,
  created INTEGER NOT NULL,
  last_used INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE leases(
  id BLOB PRIMARY KEY,
  pid INTEGER NOT NULL,
  created INTEGER NOT NULL
) WITHOUT ROWID;

-- No reference to layers: a lease may name what crash recovery has removed.
CREATE TABLE lease_layers(
  lease BLOB NOT NULL REFERENCES leases(id) ON DELETE CASCADE,
  layer BLOB NOT NULL,
  PRIMARY KEY(lease, layer)
) WITHOUT ROWID;

CREATE TABLE lease_blobs(
  lease BLOB NOT NULL REFERENCES leases(id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  PRIMARY KEY(lease, digest)
) WITHOUT ROWID;
