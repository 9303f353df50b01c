-- Every fact of the database catalog that decides who can read, change or detect rows: one line each, beginning with
-- its object. Compared with allow_list.txt.
WITH relations AS (
    SELECT pg_class.*, pg_class.oid AS relid, oid::regclass::text AS name
      FROM pg_class
     WHERE relnamespace IN (SELECT oid FROM pg_namespace
                             WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
), facts (about, fact) AS (
    SELECT name,
           CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                        WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'sequence' END
           || CASE WHEN relispartition THEN ', a partition' ELSE '' END
           || ' of ' || relowner::regrole
           || CASE WHEN relkind NOT IN ('r', 'p') THEN ''
                   WHEN relrowsecurity AND relforcerowsecurity THEN ', row security forced'
                   WHEN relrowsecurity THEN ', row security not forced'
                   ELSE ', no row security' END
      FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT name, acl.grantee::regrole || ' may ' || privilege_type || CASE WHEN is_grantable THEN ', and grant it' ELSE '' END
      FROM relations, aclexplode(relacl) AS acl WHERE acl.grantee <> relowner
    UNION ALL
    SELECT name, acl.grantee::regrole || ' may ' || privilege_type
                 || ' (' || string_agg(attname, ', ' ORDER BY attnum) || ')' || CASE WHEN is_grantable THEN ', and grant it' ELSE '' END
      FROM relations JOIN pg_attribute ON attrelid = relid, aclexplode(attacl) AS acl
     GROUP BY name, acl.grantee, privilege_type, is_grantable
    UNION ALL
    SELECT name, 'policy ' || polname || CASE WHEN polpermissive THEN '' ELSE ', restrictive' END
                 || ', ' || CASE polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                                        WHEN 'w' THEN 'UPDATE' ELSE 'DELETE' END
                 || ' to ' || (SELECT string_agg(role::regrole::text, ', ' ORDER BY role) FROM unnest(polroles) AS role)
                 || coalesce(' USING ' || pg_get_expr(polqual, polrelid), '')
                 || coalesce(' CHECK ' || pg_get_expr(polwithcheck, polrelid), '')
      FROM relations JOIN pg_policy ON polrelid = relid
    UNION ALL
    SELECT name, conname || ' ' || pg_get_constraintdef(pg_constraint.oid)
      FROM relations JOIN pg_constraint ON conrelid = relid WHERE contype IN ('p', 'u', 'f', 'x')
    UNION ALL
    SELECT indrelid::regclass::text, 'unique index ' || name || ', no constraint'
      FROM relations JOIN pg_index ON indexrelid = relid
     WHERE indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    UNION ALL
    SELECT name, 'trigger ' || tgname || ', ' || CASE WHEN tgenabled = 'O' THEN 'enabled' ELSE 'not as usual' END
                 || ', calls ' || tgfoid::regproc
      FROM relations JOIN pg_trigger ON tgrelid = relid WHERE NOT tgisinternal
    UNION ALL
    SELECT name, 'rule ' || rulename FROM relations JOIN pg_rewrite ON ev_class = relid WHERE rulename <> '_RETURN'
    UNION ALL
    SELECT name, 'inherits from ' || inhparent::regclass FROM relations JOIN pg_inherits ON inhrelid = relid
    UNION ALL
    SELECT name, 'published by ' || pubname
      FROM relations JOIN pg_publication_tables ON schemaname::regnamespace = relnamespace AND tablename = relname
    UNION ALL
    SELECT 'function ' || oid::regprocedure,
           lanname || ' of ' || proowner::regrole
           || CASE WHEN prosecdef THEN ', with the rights of its owner' ELSE ', with the rights of its caller' END
      FROM (SELECT pg_proc.*, lanname FROM pg_proc JOIN pg_language ON pg_language.oid = prolang) AS function
     WHERE pronamespace IN (SELECT relnamespace FROM relations)
    UNION ALL
    SELECT 'function ' || oid::regprocedure, acl.grantee::regrole || ' may ' || privilege_type
      FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
     WHERE pronamespace IN (SELECT relnamespace FROM relations) AND acl.grantee <> proowner
    UNION ALL
    -- What PostgreSQL brings along, with other grants than it came with.
    SELECT 'built-in function ' || pg_proc.oid::regprocedure, 'other grants than at first'
      FROM pg_proc LEFT JOIN pg_init_privs ON objoid = pg_proc.oid AND classoid = 'pg_proc'::regclass
     WHERE pronamespace = 'pg_catalog'::regnamespace AND proacl IS DISTINCT FROM initprivs
    UNION ALL
    SELECT 'built-in relation ' || pg_class.oid::regclass, 'other grants than at first'
      FROM pg_class
      LEFT JOIN pg_init_privs ON objoid = pg_class.oid AND classoid = 'pg_class'::regclass AND objsubid = 0
     WHERE relnamespace = 'pg_catalog'::regnamespace AND relacl IS DISTINCT FROM initprivs
    UNION ALL
    SELECT 'schema ' || nspname, acl.grantee::regrole || ' may ' || privilege_type
      FROM pg_namespace, aclexplode(nspacl) AS acl
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND acl.grantee <> nspowner
    UNION ALL
    SELECT 'database', acl.grantee::regrole || ' may ' || privilege_type
      FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS acl
     WHERE datname = current_database() AND acl.grantee <> datdba
    UNION ALL
    SELECT 'database', 'default privileges of ' || defaclrole::regrole FROM pg_default_acl
    UNION ALL
    SELECT 'database', 'extension ' || extname FROM pg_extension
    UNION ALL
    SELECT 'database', 'foreign server ' || srvname FROM pg_foreign_server
    UNION ALL
    SELECT 'database', 'event trigger ' || evtname FROM pg_event_trigger
    UNION ALL
    SELECT 'role ' || rolname,
           CASE WHEN rolcanlogin THEN 'login' ELSE 'no login' END
           || CASE WHEN rolsuper THEN ', superuser' ELSE '' END || CASE WHEN rolbypassrls THEN ', BYPASSRLS' ELSE '' END
           || CASE WHEN rolcreaterole THEN ', CREATEROLE' ELSE '' END
           || CASE WHEN rolcreatedb THEN ', CREATEDB' ELSE '' END
           || CASE WHEN rolreplication THEN ', REPLICATION' ELSE '' END
      FROM pg_roles WHERE rolname LIKE 'atrium%'
    UNION ALL
    SELECT 'role ' || member::regrole, 'member of ' || roleid::regrole
      FROM pg_auth_members WHERE member::regrole::text LIKE 'atrium%'
)
SELECT about || ': ' || fact FROM facts
