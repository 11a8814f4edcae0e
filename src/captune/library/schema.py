"""The tables of a library, and how an older library is brought to their form."""

import sqlite3
from collections.abc import Iterator

from captune.core.errors import CaptuneError

# Raised with each step in `_STEPS`: a library of an older version takes those that it lacks.
VERSION = 5

_TABLES = """
CREATE TABLE images(
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL,                  -- within the folder, with /
  digest TEXT NOT NULL,                -- of the file's bytes; empty where it could not be read
  bytes INTEGER NOT NULL,
  modified INTEGER NOT NULL,           -- nanoseconds since 1970
  width INTEGER, height INTEGER,       -- upright
  hash INTEGER, thumb BLOB,            -- dHash of 64 bits, 8 x 8 RGB
  taken TEXT, place TEXT, names TEXT,  -- from the file's own fields
  problem TEXT,                        -- why it cannot be read
  mark TEXT,
  added TEXT NOT NULL,
  gone TEXT                            -- when it was not there any more
);
CREATE UNIQUE INDEX images_by_path ON images(path) WHERE gone IS NULL;
CREATE INDEX images_by_digest ON images(digest);

CREATE TABLE captions(
  id INTEGER PRIMARY KEY,
  image INTEGER NOT NULL REFERENCES images(id),
  text TEXT NOT NULL,
  language TEXT,
  written_by TEXT NOT NULL CHECK(written_by IN ('model', 'person')),
  model TEXT NOT NULL DEFAULT '',
  provenance TEXT NOT NULL DEFAULT '{}',
  confidence REAL,
  flags TEXT NOT NULL DEFAULT '',      -- words with spaces between
  status TEXT NOT NULL DEFAULT 'draft' CHECK(status IN ('draft', 'approved', 'rejected')),
  written TEXT NOT NULL,               -- UTC
  source TEXT,                         -- the file that it was read from
  of INTEGER REFERENCES captions(id),  -- the caption that this one corrects
  current INTEGER NOT NULL DEFAULT 1   -- 0: corrected or taken away since
);
CREATE INDEX captions_by_image ON captions(image, current);

CREATE VIEW current_captions AS SELECT id, text FROM captions WHERE current;
CREATE VIRTUAL TABLE words USING fts5(
  text, content='current_captions', content_rowid='id', tokenize="unicode61 remove_diacritics 2"
);
CREATE VIRTUAL TABLE words_known USING fts5vocab('words', 'row');
CREATE TRIGGER captions_in AFTER INSERT ON captions WHEN new.current BEGIN
  INSERT INTO words(rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER captions_out AFTER UPDATE OF current ON captions WHEN old.current AND NOT new.current BEGIN
  INSERT INTO words(words, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER captions_back AFTER UPDATE OF current ON captions WHEN new.current AND NOT old.current BEGIN
  INSERT INTO words(rowid, text) VALUES (new.id, new.text);
END;

CREATE TABLE keywords(
  image INTEGER NOT NULL REFERENCES images(id),
  keyword TEXT NOT NULL COLLATE NOCASE,
  PRIMARY KEY(image, keyword)
) WITHOUT ROWID;
CREATE INDEX keywords_by_name ON keywords(keyword);

CREATE TABLE steps(                    -- what a person did at once, as it can be undone
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,                    -- UTC
  who TEXT NOT NULL,
  name TEXT NOT NULL,                  -- in words
  state TEXT NOT NULL DEFAULT 'done' CHECK(state IN ('done', 'undone', 'dropped'))
);
CREATE INDEX steps_by_who ON steps(who, state, id);
CREATE TABLE changes(
  id INTEGER PRIMARY KEY,
  step INTEGER NOT NULL REFERENCES steps(id),
  image INTEGER NOT NULL REFERENCES images(id),
  kind TEXT NOT NULL CHECK(kind IN ('caption', 'status', 'keyword', 'mark')),
  caption INTEGER REFERENCES captions(id),
  before, after                        -- ids of captions, statuses, keywords, marks
);
CREATE INDEX changes_by_step ON changes(step);
CREATE INDEX changes_by_image ON changes(image);

CREATE TABLE sources(                  -- files with captions, as they were when they were last read
  path TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL,
  modified INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE scanned(                  -- images that were opened and are not in `images` yet
  path TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL,
  modified INTEGER NOT NULL,
  digest TEXT NOT NULL,
  width INTEGER, height INTEGER, hash INTEGER, thumb BLOB,
  problem TEXT,
  fields TEXT NOT NULL                 -- JSON of what the file says of itself
) WITHOUT ROWID;

CREATE TABLE parts(                    -- which part of what people wrote an image belongs to, for good
  image INTEGER PRIMARY KEY REFERENCES images(id),
  part TEXT NOT NULL CHECK(part IN ('train', 'val', 'test'))
);
CREATE TABLE rounds(                   -- of learning from what people wrote
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  model TEXT NOT NULL,                 -- that learned
  state TEXT NOT NULL DEFAULT 'begun' CHECK(state IN ('begun', 'done')),
  result TEXT NOT NULL DEFAULT '{}'    -- JSON
);

CREATE TABLE embedders(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,                  -- a folder or a Hub id
  digest TEXT NOT NULL,                -- of its files
  size INTEGER NOT NULL,
  rows INTEGER NOT NULL DEFAULT 0      -- in its file of vectors; what stands behind them was never finished
);
CREATE UNIQUE INDEX embedders_by_digest ON embedders(digest, name);
CREATE TABLE vectors(
  embedder INTEGER NOT NULL REFERENCES embedders(id),
  row INTEGER NOT NULL,
  image INTEGER NOT NULL REFERENCES images(id),
  digest TEXT NOT NULL,                -- of the image that was embedded
  PRIMARY KEY(embedder, row)
) WITHOUT ROWID;
CREATE UNIQUE INDEX vectors_by_image ON vectors(embedder, image);
"""

# What changes, by whatever process, so that a page that shows it can show it anew.
_TOUCHED = """
CREATE TABLE touched(                  -- images of which anything changed, in that order; the last ones alone
  id INTEGER PRIMARY KEY,
  image INTEGER NOT NULL
);
CREATE TRIGGER touched_end AFTER INSERT ON touched WHEN new.id % 1000 = 0 BEGIN
  DELETE FROM touched WHERE id <= new.id - 20000;
END;
CREATE TRIGGER captions_touched_in AFTER INSERT ON captions WHEN new.current BEGIN
  INSERT INTO touched(image) VALUES (new.image);
END;
CREATE TRIGGER captions_touched AFTER UPDATE ON captions BEGIN
  INSERT INTO touched(image) VALUES (new.image);
END;
CREATE TRIGGER keywords_touched_in AFTER INSERT ON keywords BEGIN
  INSERT INTO touched(image) VALUES (new.image);
END;
CREATE TRIGGER keywords_touched_out AFTER DELETE ON keywords BEGIN
  INSERT INTO touched(image) VALUES (old.image);
END;
CREATE TRIGGER images_touched AFTER UPDATE OF path, digest, taken, place, names, problem, mark, gone ON images BEGIN
  INSERT INTO touched(image) VALUES (new.id);
END;
"""

# Data sets and jobs: in which split an image is, and what went back into their files.
_SETS = """
ALTER TABLE images ADD COLUMN split TEXT;  -- of a data set; empty: in none
CREATE TABLE changes_with_splits(
  id INTEGER PRIMARY KEY,
  step INTEGER NOT NULL REFERENCES steps(id),
  image INTEGER NOT NULL REFERENCES images(id),
  kind TEXT NOT NULL CHECK(kind IN ('caption', 'status', 'keyword', 'mark', 'split')),
  caption INTEGER REFERENCES captions(id),
  before, after                        -- ids of captions, statuses, keywords, marks, splits
);
INSERT INTO changes_with_splits SELECT * FROM changes;
DROP TABLE changes;
ALTER TABLE changes_with_splits RENAME TO changes;
CREATE INDEX changes_by_step ON changes(step);
CREATE INDEX changes_by_image ON changes(image);
CREATE TABLE writings(                 -- of what people changed, into the files of a data set or a job
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  who TEXT NOT NULL,
  stamp TEXT NOT NULL,                 -- of the changes that were in it
  result TEXT NOT NULL                 -- JSON
);
DROP TRIGGER images_touched;
CREATE TRIGGER images_touched
AFTER UPDATE OF path, digest, taken, place, names, problem, mark, gone, split ON images BEGIN
  INSERT INTO touched(image) VALUES (new.id);
END;
"""

# Beginnings of words, and conditions that few images fulfil, are looked up where there are a million.
_LOOKED_UP = """
DROP TABLE words_known;
DROP TABLE words;
CREATE VIRTUAL TABLE words USING fts5(
  text, content='current_captions', content_rowid='id', tokenize="unicode61 remove_diacritics 2", prefix='1 2'
);
CREATE VIRTUAL TABLE words_known USING fts5vocab('words', 'row');
INSERT INTO words(words) VALUES ('rebuild');
CREATE INDEX images_by_mark ON images(mark) WHERE mark IS NOT NULL;
CREATE INDEX images_by_taken ON images(taken) WHERE taken IS NOT NULL;
CREATE INDEX captions_of_persons ON captions(image) WHERE current AND (written_by = 'person' OR status != 'draft');
CREATE INDEX captions_with_flags ON captions(image) WHERE current AND flags != '';
"""

# What is seldom, and would be looked for in every image.
_SELDOM = """
CREATE TABLE without_caption(          -- images that have no current caption
  image INTEGER PRIMARY KEY
);
INSERT INTO without_caption SELECT id FROM images WHERE id NOT IN (SELECT image FROM captions WHERE current);
CREATE TRIGGER images_without_caption AFTER INSERT ON images BEGIN
  INSERT INTO without_caption VALUES (new.id);
END;
CREATE TRIGGER captions_first AFTER INSERT ON captions WHEN new.current BEGIN
  DELETE FROM without_caption WHERE image = new.image;
END;
CREATE TRIGGER captions_first_again AFTER UPDATE OF current ON captions WHEN new.current AND NOT old.current BEGIN
  DELETE FROM without_caption WHERE image = new.image;
END;
CREATE TRIGGER captions_last AFTER UPDATE OF current ON captions
WHEN old.current AND NOT new.current AND NOT EXISTS (SELECT 1 FROM captions WHERE image = new.image AND current) BEGIN
  INSERT OR IGNORE INTO without_caption VALUES (new.image);
END;
CREATE INDEX images_gone ON images(id) WHERE gone IS NOT NULL;
CREATE INDEX images_by_split ON images(split) WHERE split IS NOT NULL AND gone IS NULL;
"""

_STEPS: tuple[str, ...] = (_TABLES, _TOUCHED, _SETS, _LOOKED_UP, _SELDOM)


def prepare_schema(connection: sqlite3.Connection, name: str) -> None:
    """Make the tables of a new library, or bring an older one to this version, in one transaction.

    Raises `CaptuneError` for a library of a later captune.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise CaptuneError(
            f"{name} is a library of a later captune (version {version}; this one knows {VERSION}).", "Update captune."
        )
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may have been first
        for statement in statements("".join(_STEPS[version:])):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one; a trigger with its own statements is one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
