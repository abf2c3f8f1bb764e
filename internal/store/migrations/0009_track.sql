-- Addresses of which an account tracks nothing.
-- serves programs from schema 2

-- address as in suppression: of a person, a domain with an @ before it, or @. and a
-- name that domains are below.
create table untracked (
	account blob   not null,
	address text   not null,
	note    text   not null,
	created bigint not null,
	primary key (account, address)
) without rowid;
