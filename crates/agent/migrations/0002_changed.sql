-- Lists of runs stand by the time of the last change.
create index runs_changed on runs (tenant, changed_ms, number);
