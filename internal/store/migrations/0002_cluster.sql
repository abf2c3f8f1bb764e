-- Several nodes on one store.

-- What an operator wants of a node, and the program that it runs.
alter table node add column draining bigint not null default 0;
alter table node add column version text not null default '';

-- The oldest schema whose programs can go on with this one; 0: no older one can.
-- A migration says it in a line of its own: "-- serves programs from schema N".
alter table schema_version add column serves bigint not null default 0;
