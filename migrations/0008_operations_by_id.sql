-- An operation is looked up by its id alone: its address names no organization. The primary key begins with one, so
-- every look, and an open event stream looks once a second, read the whole table.
CREATE INDEX sagas_id ON sagas (id);
