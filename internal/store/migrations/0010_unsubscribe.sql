-- Groups that recipients leave.
-- serves programs from schema 2

update counter set value = value where name = 'lease';
