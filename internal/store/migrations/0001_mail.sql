-- Mail, what becomes of it, and who may send it.
--
-- One text for both engines. Written in SQLite's words; the PostgreSQL dialect
-- puts bytea for blob and leaves out "without rowid". Times are microseconds
-- since 1970 (0: none), ids 16 bytes, all whole numbers bigint. Statements end
-- with a semicolon at the end of a line.

-- Numbers that only grow: the last lease, the version of the credentials.
create table counter (
	name  text   not null primary key,
	value bigint not null
) without rowid;

insert into counter (name, value) values ('lease', 0), ('credentials', 0);

create table account (
	id      blob   not null primary key,
	name    text   not null unique,
	created bigint not null
) without rowid;

-- settings is JSON that no statement looks into.
create table credential (
	id       blob   not null primary key,
	account  blob   not null,
	kind     text   not null,
	name     text   not null,
	username text   not null,
	secret   blob,
	settings blob   not null,
	created  bigint not null,
	revoked  bigint not null
) without rowid;

create index credential_account on credential (account);
create unique index credential_username on credential (username) where username <> '' and revoked = 0;
create unique index credential_secret on credential (secret) where kind = 'key' and revoked = 0;

-- A node that takes part; lease is its incarnation, and what deliveries carry
-- while it works on them.
create table node (
	lease  bigint not null primary key,
	name   text   not null,
	joined bigint not null,
	beat   bigint not null
) without rowid;

-- params is JSON that no statement looks into: what of the envelope and the
-- source is never searched.
create table message (
	id          blob   not null primary key,
	account     blob   not null,
	credential  blob   not null,
	stream      bigint not null,
	received    bigint not null,
	sender      text   not null,
	subject     text   not null,
	header_from text   not null,
	header_id   text   not null,
	size        bigint not null,
	params      blob   not null
) without rowid;

-- Apart from message, so that no change of state rewrites it and dropping it
-- leaves the log whole. With rowid: SQLite then keeps more of a large row in
-- one page.
create table content (
	message blob   not null,
	part    bigint not null,
	bytes   blob   not null,
	primary key (message, part)
);

create table delivery (
	message    blob   not null,
	n          bigint not null,
	account    blob   not null,
	stream     bigint not null,
	state      bigint not null,
	lease      bigint not null,
	attempts   bigint not null default 0,
	due        bigint not null,
	expires    bigint not null,
	delayed    bigint not null default 0,
	updated    bigint not null,
	notify     bigint not null,
	code       bigint not null default 0,
	recipient  text   not null,
	domain     text   not null,
	orcpt      text   not null,
	enhanced   text   not null default '',
	reply      text   not null default '',
	category   text   not null default '',
	diagnosis  text   not null default '',
	advice     text   not null default '',
	host       text   not null default '',
	primary key (message, n)
) without rowid;

-- The queue: what waits and what is in hand. Final deliveries are in neither
-- index, so the log may grow without slowing the queue.
create index delivery_waiting on delivery (lease, stream, due) where state < 3;
create index delivery_held on delivery (message, n) where state = 3;

-- detail is JSON that no statement looks into: reply, diagnosis, attempt.
create table event (
	id      blob   not null primary key,
	at      bigint not null,
	account blob   not null,
	message blob   not null,
	n       bigint not null,
	kind    bigint not null,
	detail  blob
) without rowid;

create index event_message on event (message);

-- DSNs that are to be written: one for each message and kind, about all of its
-- deliveries that stand here.
create table notice (
	message blob   not null,
	kind    bigint not null,
	n       bigint not null,
	due     bigint not null,
	primary key (message, kind, n)
) without rowid;

create index notice_due on notice (due);
