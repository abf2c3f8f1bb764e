-- Counts for reports.
-- serves programs from schema 2

-- Which events of the recipient's there were, for the first of each kind to be told
-- from the others: two bits for each kind.
alter table delivery add column marks bigint not null default 0;

-- What became of mail, by the hour it happened in and by all that it is told apart
-- by; at is the hour's beginning, or the day's where hours are kept no longer. An
-- event counts once with the empty tag and once with each tag of its message.
-- digest is that of all that stands between it and count. message and n are one of
-- the deliveries that failed so. Those who write at once
-- write to different parts, and none waits for another; who reads adds them up.
create table rollup (
	account    blob   not null,
	at         bigint not null,
	digest     blob   not null,
	part       bigint not null,
	stream     bigint not null,
	kind       bigint not null,
	mark       bigint not null,
	latency    bigint not null,
	credential blob   not null,
	category   text   not null,
	provider   text   not null,
	sending    text   not null,
	source     text   not null,
	tag        text   not null,
	count      bigint not null,
	message    blob   not null,
	n          bigint not null,
	primary key (account, at, digest, part)
) without rowid;

-- The day whose hours are merged next; 0: none were.
insert into counter (name, value) values ('rollup', 0);
