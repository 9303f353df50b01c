//! The Lua scripts that run in Redis. Each is a file in `lua/`, loaded once, that begins with a description of its keys
//! and arguments.
//!
//! Redis runs no other command while a script runs. A script is not rolled back when one of its commands fails, as
//! `XADD` does when Redis is out of memory. So commands that may fail come before those that depend on their success.
//! All keys of a script are in one slot of a cluster.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($(#[doc = $doc:literal])* $script:ident = $file:literal,)*) => {
        $($(#[doc = $doc])*
        #[expect(clippy::disallowed_methods, reason = "this is the one loader")]
        pub static $script: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file, ".lua"))));)*

        #[cfg(test)]
        const SCRIPTS: &[(&str, &str)] = &[$((stringify!($script), $file)),*];
    };
}

scripts! {
    /// Takes a chat shard's lease.
    CHAT_ACQUIRE = "chat_acquire",
    /// Publishes a batch of a chat shard if the caller owns its lease.
    CHAT_PUBLISH = "chat_publish",
    /// Releases a chat shard's lease.
    CHAT_RELEASE = "chat_release",
    /// Extends a chat shard's lease.
    CHAT_RENEW = "chat_renew",
    /// Moves an entry to the dead letters.
    DEAD_LETTER = "dead_letter",
    /// Adds messages unless a higher fencing token was used before.
    FENCED_ADD = "fenced_add",
    /// Removes inactive consumers from a group.
    FORGET_SILENT = "forget_silent",
    /// Moves a group back to an entry that it has skipped.
    GO_BACK = "go_back",
    /// Returns an unfinished entry.
    HAND_OVER = "hand_over",
    /// Resets the idle time of pending entries.
    KEEP = "keep",
    /// Removes a consumer from its group.
    LEAVE = "leave",
    /// Reports an API process as live, and counts the live ones.
    LIMITS_BEAT = "limits_beat",
    /// Claims event streams from an organization's quota.
    LIMITS_CLAIM = "limits_claim",
    /// Takes from a bucket of a rate limit.
    LIMITS_TAKE = "limits_take",
    /// Reports a worker as live, and lists the live ones.
    MEMBERS_HEARTBEAT = "members_beat",
    /// Finds entries that will not be delivered.
    NOT_LIVE = "not_live",
    /// Reads new entries if the caller owns the lease.
    READ_LEASED = "read_leased",
    /// Moves a dead letter back to its stream.
    REPLAY = "replay",
    /// Measures a stream and its group.
    SIGNALS = "signals",
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::SCRIPTS;

    fn shared() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(files(&path, extension));
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
        found
    }

    #[test]
    fn every_script_file_is_loaded_and_has_a_test() {
        let mut found: Vec<String> = files(&shared().join("src/streams/lua"), "lua")
            .iter()
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        found.sort();
        assert_eq!(found, SCRIPTS.iter().map(|(_, file)| *file).collect::<Vec<_>>());
        let tests = fs::read_to_string(shared().join("tests/live/scripts.rs")).expect("the tests");
        for (script, _) in SCRIPTS {
            assert!(
                tests.contains(&format!("&lua::{script},")),
                "{script} has no test in tests/live/scripts.rs"
            );
        }
    }

    #[test]
    fn scripts_are_created_only_in_this_file() {
        let root = shared().parent().expect("the workspace");
        let constructor = ["Script", "::new("].concat();
        for package in ["api/src", "shared/src", "workers/src", "tools"] {
            for file in files(&root.join(package), "rs") {
                let source = fs::read_to_string(&file).expect("a source file");
                let is_loader = file.ends_with("streams/lua.rs");
                assert!(is_loader || !source.contains(&constructor), "{} creates a script", file.display());
            }
        }
    }
}
