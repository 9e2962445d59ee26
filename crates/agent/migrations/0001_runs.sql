-- A run: its names, and how it stands. All but the names could be told from its events.
create table runs (
    number integer primary key,
    run text not null unique,
    tenant text not null,
    thread text not null,
    agent text not null,
    key text,
    parent_run text,
    parent_call text,
    status text not null,
    events integer not null,
    told integer not null,
    wake_at_ms integer,
    started_ms integer not null,
    changed_ms integer not null,
    owner text,
    epoch integer not null default 0,
    lease_until_ms integer not null default 0
);
create unique index runs_key on runs (tenant, key) where key is not null;
create index runs_thread on runs (tenant, thread, number);
create index runs_wake on runs (wake_at_ms) where wake_at_ms is not null;

-- What happened, in order. Never changed, never removed.
create table steps (
    run text not null,
    number integer not null,
    at_ms integer not null,
    event text not null,
    primary key (run, number)
) without rowid;
create trigger steps_stay before update on steps begin select raise(abort, 'steps are never changed'); end;
create trigger steps_remain before delete on steps begin select raise(abort, 'steps are never removed'); end;

-- Long texts of events, once each.
create table blobs (
    digest text primary key not null,
    text text not null
);

-- What agents keep across runs.
create table memories (
    number integer primary key,
    tenant text not null,
    agent text not null,
    key text not null,
    at_ms integer not null,
    text text not null,
    unique (tenant, agent, key)
);
create virtual table memory_words using fts5 (text, content = 'memories', content_rowid = 'number');
create trigger memories_read after insert on memories begin
    insert into memory_words (rowid, text) values (new.number, new.text);
end;
