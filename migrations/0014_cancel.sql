-- An operation can be canceled until a step after the pivot has started. The API needs to know these steps, but only
-- the workers have the code of sagas, so the plan marks them.

ALTER TABLE saga_steps
    -- Whether the step is after the pivot: it cannot be compensated and is retried until it succeeds.
    ADD COLUMN retriable boolean NOT NULL DEFAULT false;
GRANT INSERT (retriable) ON saga_steps TO atrium_app;

-- Marks the existing plans of the only saga that has such steps.
UPDATE saga_steps SET retriable = true
  FROM sagas
 WHERE sagas.org_id = saga_steps.org_id AND sagas.id = saga_steps.saga_id
   AND sagas.kind = 'organization.delete' AND saga_steps.name IN ('forget', 'purge');
