-- Suppressions by stream, failures that add up to one, and news of them.
--
-- Programs of before go on: what they add holds for all streams and is marked as
-- theirs (strange), for newer ones to spread. They take each suppression as one of
-- all streams.
-- serves programs from schema 2

-- stream 0: of all. expires 0: never.
create table suppression_by_stream (
	account blob   not null,
	address text   not null,
	stream  bigint not null default 0,
	reason  text   not null,
	note    text   not null,
	event   blob   not null,
	created bigint not null,
	expires bigint not null default 0,
	strange bigint not null default 1,
	primary key (account, address, stream)
) without rowid;

insert into suppression_by_stream (account, address, reason, note, event, created, strange)
	select account, address, reason, note, event, created, 0 from suppression;
drop table suppression;
alter table suppression_by_stream rename to suppression;
create index suppression_strange on suppression (account, address, stream) where strange <> 0;
create index suppression_expires on suppression (expires) where expires > 0;

-- What was added lately, for nodes that keep addresses in memory: who adds takes
-- the next turn of a part, so that of one part the order of turns is that of
-- commits. addresses stand one a line.
create table suppression_turn (
	part  bigint not null primary key,
	value bigint not null
) without rowid;

create table suppression_news (
	part      bigint not null,
	turn      bigint not null,
	account   blob   not null,
	stream    bigint not null,
	at        bigint not null,
	addresses text   not null,
	primary key (part, turn, account, stream)
) without rowid;

create index suppression_news_at on suppression_news (at);

-- Failures of an address that pass, by day; delivered is the message that got there
-- since.
create table soft_failure (
	account   blob   not null,
	address   text   not null,
	day       bigint not null,
	ends      bigint not null,
	delivered blob   not null default '',
	primary key (account, address, day)
) without rowid;

create index soft_failure_ends on soft_failure (ends);

-- Mail that came back is dealt with by turns of accounts.
create index returned_account on returned (account, id);
