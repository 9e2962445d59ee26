-- A run: its names, and how it stands. All but the names could be told from its events.
create table runs (
    number bigint generated always as identity primary key,
    run text not null unique,
    tenant text not null,
    thread text not null,
    agent text not null,
    key text,
    parent_run text,
    parent_call text,
    status text not null,
    events bigint not null,
    told bigint not null,
    wake_at_ms bigint,
    started_ms bigint not null,
    changed_ms bigint not null,
    owner text,
    epoch bigint not null default 0,
    lease_until_ms bigint not null default 0
);
create unique index runs_key on runs (tenant, key) where key is not null;
create index runs_thread on runs (tenant, thread, number);
create index runs_wake on runs (wake_at_ms) where wake_at_ms is not null;
create index runs_changed on runs (tenant, changed_ms, number);

-- What happened, in order. Never changed, never removed.
create table steps (
    run text not null,
    number bigint not null,
    at_ms bigint not null,
    event text not null,
    primary key (run, number)
);
create function steps_stay() returns trigger language plpgsql as $$
begin
    raise exception 'steps are never changed or removed';
end;
$$;
create trigger steps_stay before update or delete or truncate on steps
    for each statement execute function steps_stay();

-- Long texts of events, once each.
create table blobs (
    digest text primary key,
    text text not null
);

-- What agents keep across runs.
create table memories (
    number bigint generated always as identity primary key,
    tenant text not null,
    agent text not null,
    key text not null,
    at_ms bigint not null,
    text text not null,
    words tsvector generated always as (to_tsvector('simple', text)) stored,
    unique (tenant, agent, key)
);
create index memories_words on memories using gin (words);
