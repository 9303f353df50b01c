-- An operation can be canceled until it reaches a step that cannot be undone. The API has to know these steps, and only
-- the workers have the code: so the plan contains them.

ALTER TABLE saga_steps
    -- After the saga's pivot: once it has begun there is no way back, and it is tried until it works.
    ADD COLUMN retriable boolean NOT NULL DEFAULT false;
GRANT INSERT (retriable) ON saga_steps TO atrium_app;

-- The plans that are written already, of the one saga that has such steps.
UPDATE saga_steps SET retriable = true
  FROM sagas
 WHERE sagas.org_id = saga_steps.org_id AND sagas.id = saga_steps.saga_id
   AND sagas.kind = 'organization.delete' AND saga_steps.name IN ('forget', 'purge');
