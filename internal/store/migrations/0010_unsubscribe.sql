-- Groups that recipients leave.
-- serves programs from schema 2

-- A kind of mail of an account. settings is JSON that no statement looks into.
create table mail_group (
	account  blob   not null,
	id       text   not null,
	standard bigint not null,
	position bigint not null,
	settings blob   not null,
	version  bigint not null,
	primary key (account, id)
) without rowid;

-- Who gets no mail of a group any more; event is the proof.
create table leaver (
	account    blob   not null,
	mail_group text   not null,
	address    text   not null,
	note       text   not null,
	event      blob   not null,
	created    bigint not null,
	primary key (account, mail_group, address)
) without rowid;

create index leaver_address on leaver (account, address);
