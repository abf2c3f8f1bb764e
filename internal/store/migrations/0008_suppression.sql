-- Suppressions by stream.
-- serves programs from schema 2

update counter set value = value where name = 'lease';
