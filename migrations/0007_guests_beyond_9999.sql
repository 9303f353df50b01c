-- lpad() also cuts to the length it pads to: to the 10,000th guest it gave the 1,000th's key, which is taken, and
-- from then on nobody could sign in. Four digits are the least, not the most.
ALTER TABLE users ALTER COLUMN key
    SET DEFAULT 'guest-' || regexp_replace('000' || nextval('guest_number'), '^0+(?=[0-9]{4})', '');
