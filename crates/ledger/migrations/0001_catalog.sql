-- The catalog: an index over the folders of a ledger, which can be rebuilt from them.
-- Plain SQL that SQLite and PostgreSQL both read.

create table artifacts (
    digest     text primary key,
    kind       text not null,
    step       text not null,
    created_ms bigint not null,
    bytes      bigint not null,
    license    text,
    seconds    double precision not null,
    figures    text not null,
    measured   text not null,
    complete   bigint not null
);

create index artifacts_step on artifacts (step);

-- One row for each time a name was set; the highest position is the current one.
create table refs (
    name     text not null,
    position bigint not null,
    digest   text not null,
    at_ms    bigint not null,
    primary key (name, position)
);

-- Steps whose result is known. `material` is the JSON that the key is the digest of.
create table steps (
    key      text primary key,
    step     text not null,
    artifact text not null,
    at_ms    bigint not null,
    material text not null
);

create index steps_step on steps (step, at_ms);

-- Digests of files outside the ledger, valid while size, time and inode stay as they were.
create table file_digests (
    path        text primary key,
    bytes       bigint not null,
    modified_ns bigint not null,
    inode       bigint not null,
    digest      text not null
);
