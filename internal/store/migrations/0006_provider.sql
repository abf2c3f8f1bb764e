-- What a delivery's receiver is, and where we reached it from.
-- serves programs from schema 2

alter table delivery add column provider text not null default '';
alter table delivery add column source text not null default '';
