-- Where events are sent to.
-- serves programs from schema 2

-- settings is JSON that no statement looks into, and so are progress and detail.
create table webhook (
	id       blob   not null primary key,
	account  blob   not null,
	settings blob   not null,
	created  bigint not null,
	version  bigint not null
) without rowid;

create index webhook_account on webhook (account, id);

-- Apart from webhook: it changes all the time, and nobody is told. lease is that
-- of the node that sends; epoch grows when somebody sets it back.
create table webhook_progress (
	webhook  blob   not null primary key,
	account  blob   not null,
	active   bigint not null,
	lease    bigint not null,
	epoch    bigint not null,
	progress blob   not null
) without rowid;

-- Requests that were not taken, the newest of each.
create table webhook_failure (
	webhook blob   not null,
	id      blob   not null,
	detail  blob   not null,
	primary key (webhook, id)
) without rowid;
