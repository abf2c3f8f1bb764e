-- What people are alerted of.
-- serves programs from schema 2

-- Outcomes of the last day by provider and category, for alerts: by five minutes,
-- and when those are two hours old, by the hour (part -1). Nodes, and the
-- connections of one, write to parts of their own.
create table recent (
	slot     bigint not null,
	account  blob   not null,
	kind     bigint not null,
	provider text   not null,
	category text   not null,
	part     bigint not null,
	count    bigint not null,
	primary key (slot, account, kind, provider, category, part)
) without rowid;

-- Who makes hours of it raises this first, so that one does so at a time.
insert into counter (name, value) values ('recent', 0);

-- One row for each incident. Of the relay as a whole, account is that of all.
-- detail is JSON that no statement looks into, here and below. ended 0: it is
-- open, and there is no other of the same kind about the same.
create table alert (
	id       blob   not null primary key,
	account  blob   not null,
	kind     text   not null,
	subject  text   not null,
	severity text   not null,
	opened   bigint not null,
	ended    bigint not null,
	version  bigint not null,
	detail   blob   not null
) without rowid;

create unique index alert_open on alert (account, kind, subject) where ended = 0;
create index alert_account on alert (account, id);

-- What is to be told of an incident, to whom. due 0: it was sent, or given up.
create table alert_send (
	id      blob   not null primary key,
	alert   blob   not null,
	account blob   not null,
	channel blob   not null,
	target  text   not null,
	due     bigint not null,
	detail  blob   not null
) without rowid;

create index alert_send_due on alert_send (due) where due > 0;
create index alert_send_alert on alert_send (alert, id);

-- Where an account wants its alerts sent, and what it wants to be alerted of.
create table alert_channel (
	id       blob   not null primary key,
	account  blob   not null,
	kind     text   not null,
	settings blob   not null,
	state    blob   not null,
	created  bigint not null
) without rowid;

create index alert_channel_account on alert_channel (account, id);

create table alert_rule (
	account  blob   not null primary key,
	settings blob   not null,
	version  bigint not null
) without rowid;
