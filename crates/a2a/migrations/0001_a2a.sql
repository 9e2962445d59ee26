-- Messages that were sent to a task: the first one, and the answers to what it waited for.
create table exchanges (
    seq integer primary key autoincrement,
    tenant text not null,
    task text not null,
    -- How many messages the run had when this one came.
    position integer not null,
    message_id text not null,
    -- Digest of what the message says: the same id with other words is another message.
    content text not null,
    -- Whether the run has it.
    done integer not null,
    -- What it answers.
    interrupt text,
    -- What the task asked, as an A2A message.
    question text,
    message text not null,
    unique (tenant, task, message_id, content)
);

-- Conversations that a caller named itself, with the threads that they are.
create table contexts (
    seq integer primary key autoincrement,
    tenant text not null,
    context text not null,
    thread text not null,
    unique (tenant, context),
    unique (tenant, thread)
);

-- Where updates of a task are sent.
create table push_configs (
    tenant text not null,
    task text not null,
    id text not null,
    agent text not null,
    -- What the caller calls the conversation.
    context text not null,
    url text not null,
    token text,
    scheme text,
    credentials text,
    -- The last event that was delivered, or given up.
    cursor integer not null,
    -- Whether nothing more will be sent.
    closed integer not null default 0,
    created_ms integer not null,
    primary key (tenant, task, id)
);

create index push_configs_open on push_configs (closed, created_ms);
