-- Who may send what: accounts, people, domains, senders, limits.
--
-- Programs of schema 2 go on: they leave out what has a default here. They know
-- none of the new rules, so use those when all nodes are of this version.
-- serves programs from schema 2

-- An account that was there before sends in anybody's name, as it did. settings
-- is JSON that no statement looks into, here and below.
alter table account add column parent blob not null default '';
alter table account add column plan text not null default '';
alter table account add column version bigint not null default 0;
alter table account add column settings blob not null default '{"senders":"any"}';
create index account_parent on account (parent, id);

-- previous is the digest of the secret before the last rotation. The counter
-- that is called credentials grows with each change of what is cached of
-- accounts, domains and the like as well.
alter table credential add column version bigint not null default 0;
alter table credential add column previous blob;
alter table credential add column used bigint not null default 0;
alter table credential add column used_from text not null default '';
create index credential_previous on credential (previous) where previous is not null;

-- Networks that a credential was used from.
create table credential_network (
	credential blob   not null,
	network    text   not null,
	account    blob   not null,
	since      bigint not null,
	primary key (credential, network)
) without rowid;

create table person (
	id       blob   not null primary key,
	email    text   not null unique,
	name     text   not null,
	operator bigint not null,
	argon2   text   not null,
	created  bigint not null,
	disabled bigint not null,
	version  bigint not null
) without rowid;

create table member (
	account blob   not null,
	person  blob   not null,
	role    text   not null,
	since   bigint not null,
	primary key (account, person)
) without rowid;

create index member_person on member (person);

create table plan (
	name     text   not null primary key,
	settings blob   not null,
	version  bigint not null
) without rowid;

-- Many accounts may ask for a name; one has it.
create table domain (
	id       blob   not null primary key,
	account  blob   not null,
	name     text   not null,
	verified bigint not null,
	due      bigint not null,
	settings blob   not null,
	version  bigint not null
) without rowid;

create unique index domain_name on domain (account, name);
create unique index domain_holder on domain (name) where verified > 0;
create index domain_due on domain (due);

create table sender (
	id       blob   not null primary key,
	account  blob   not null,
	address  text   not null,
	token    blob   not null,
	asked    bigint not null,
	verified bigint not null
) without rowid;

create unique index sender_address on sender (account, address);
create index sender_token on sender (token);

create table suppression (
	account blob   not null,
	address text   not null,
	reason  text   not null,
	note    text   not null,
	event   blob   not null,
	created bigint not null,
	primary key (account, address)
) without rowid;

create table audit (
	id         blob   not null primary key,
	at         bigint not null,
	account    blob   not null,
	person     blob   not null,
	credential blob   not null,
	actor      text   not null,
	client     text   not null,
	action     text   not null,
	object     text   not null,
	was        blob,
	became     blob
) without rowid;

create index audit_account on audit (account, id);

-- Requests that are not to be taken twice.
create table once (
	account blob   not null,
	word    text   not null,
	digest  blob   not null,
	message blob   not null,
	expires bigint not null,
	primary key (account, word)
) without rowid;

create index once_expires on once (expires);

-- What of a limit is taken in the period that begins at start.
create table taken (
	account blob   not null,
	subject text   not null,
	start   bigint not null,
	ends    bigint not null,
	used    bigint not null,
	primary key (account, subject, start)
) without rowid;

create index taken_ends on taken (ends);

-- Outcomes by day. Those who write at once write to different parts, and none
-- waits for another; who reads adds them up.
create table tally (
	account blob   not null,
	day     bigint not null,
	kind    bigint not null,
	part    bigint not null,
	count   bigint not null,
	primary key (account, day, kind, part)
) without rowid;

-- Certificates, keys of ACME, and other small things that all nodes share.
create table file (
	name     text   not null primary key,
	bytes    blob   not null,
	modified bigint not null
) without rowid;

create table mutex (
	name    text   not null primary key,
	owner   text   not null,
	expires bigint not null
) without rowid;

-- Sessions with a domain's receivers by how they went, for the daily report.
-- digest is that of detail, which may be too long for an index.
create table tls_report (
	day      bigint not null,
	domain   text   not null,
	digest   blob   not null,
	detail   text   not null,
	sessions bigint not null,
	primary key (day, domain, digest)
) without rowid;

-- What people search the log for, of who sent a message; tags stand between line
-- ends. The content of an archived message stays.
alter table message add column client text not null default '';
alter table message add column helo text not null default '';
alter table message add column script text not null default '';
alter table message add column tags text not null default '';
alter table message add column archive bigint not null default 0;
