-- What the log is searched by.
-- serves programs from schema 2

-- An index of the words of deliveries, in segments: each has the deliveries whose
-- events have ids above first_event up to last_event, as they were then. sure: no
-- further event can have come in between. gone is how many of them were dropped
-- since, at most; skew how far ids and times of its messages are apart. A segment that was replaced by another stays for those who read.
create table log_segment (
	id          bigint not null primary key,
	docs        bigint not null,
	newest      blob   not null,
	oldest      blob   not null,
	first_event blob   not null,
	last_event  blob   not null,
	events      bigint not null,
	sure        bigint not null,
	gone        bigint not null,
	replaced    bigint not null,
	skew        bigint not null,
	size        bigint not null,
	directory   blob   not null
);

create table log_part (
	segment bigint not null,
	part    bigint not null,
	bytes   blob   not null,
	primary key (segment, part)
);

insert into counter (name, value) values ('log', 0);

-- What is live, the newest first.
create index delivery_live on delivery (message desc, n, account, state) where state < 10;

-- What has content to be dropped some day.
create index message_archive on message (id) where archive <> 0;
