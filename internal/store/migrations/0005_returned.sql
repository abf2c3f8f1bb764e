-- Mail that came back, until it is dealt with.
-- serves programs from schema 2

-- detail is JSON that no statement looks into. bytes is the mail, or its
-- beginning.
create table returned (
	id       blob   not null primary key,
	account  blob   not null,
	message  blob   not null,
	n        bigint not null,
	received bigint not null,
	detail   blob   not null,
	bytes    blob   not null
);
