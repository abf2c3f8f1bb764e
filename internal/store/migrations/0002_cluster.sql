-- Several nodes on one store.

-- What an operator wants of a node, and the program that it runs.
alter table node add column draining bigint not null default 0;
alter table node add column version text not null default '';

-- The oldest schema whose programs can go on with this one; 0: no older one can.
-- A migration says it in a line of its own: "-- serves programs from schema N".
alter table schema_version add column serves bigint not null default 0;

-- What waits for a node stands by class, so that a claim finds the deliveries of
-- one however many others wait; what is in hand stands apart. lease and state are
-- in the index too because SQLite reads them, though it knows what they are.
drop index delivery_waiting;
create index delivery_ready on delivery (stream, domain, account, due, lease, state) where lease = 0 and state < 3;
create index delivery_leased on delivery (lease) where lease > 0 and state < 3;

-- Grows when a node has released what it had in hand: others look for it then.
insert into counter (name, value) values ('released', 0);
