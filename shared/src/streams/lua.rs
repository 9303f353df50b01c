//! All Lua scripts that run in Redis: one file each in `lua/`, loaded once. A file begins with its keys and arguments.
//!
//! A script runs alone: nothing else happens in Redis meanwhile. It is not rolled back when a command in it fails, as
//! `XADD` does when Redis is out of memory, so what may fail comes before what must not happen without it. All keys of
//! a script are of one slot of a cluster.

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
    /// Publishes a batch of a chat shard behind its lease.
    CHAT_PUBLISH = "chat_publish",
    /// Gives a chat shard's lease back.
    CHAT_RELEASE = "chat_release",
    /// Extends a chat shard's lease.
    CHAT_RENEW = "chat_renew",
    /// Moves an entry to the dead letters.
    DEAD_LETTER = "dead_letter",
    /// Adds messages behind a fence.
    FENCED_ADD = "fenced_add",
    /// Removes the names of silent consumers from a group.
    FORGET_SILENT = "forget_silent",
    /// Sets a group back to an entry that it has skipped.
    GO_BACK = "go_back",
    /// Gives an entry back unfinished.
    HAND_OVER = "hand_over",
    /// Resets the idle time of entries in hand.
    KEEP = "keep",
    /// Takes a consumer out of its group.
    LEAVE = "leave",
    /// Reports an API process as alive, and counts those that are.
    LIMITS_BEAT = "limits_beat",
    /// Claims some of an organization's event streams.
    LIMITS_CLAIM = "limits_claim",
    /// Takes from a bucket of a rate limit.
    LIMITS_TAKE = "limits_take",
    /// Reports a worker as alive, and lists those that are.
    MEMBERS_HEARTBEAT = "members_beat",
    /// Finds entries that no consumer will receive.
    NOT_LIVE = "not_live",
    /// Reads new entries behind a lease.
    READ_LEASED = "read_leased",
    /// Puts a dead letter back into its stream.
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
    fn every_file_is_loaded_and_tested_against_redis() {
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
    fn no_script_is_created_outside_this_module() {
        let root = shared().parent().expect("the workspace");
        let made = ["Script", "::new("].concat();
        for package in ["api/src", "shared/src", "workers/src", "tools"] {
            for file in files(&root.join(package), "rs") {
                let source = fs::read_to_string(&file).expect("a source file");
                let is_loader = file.ends_with("streams/lua.rs");
                assert!(is_loader || !source.contains(&made), "{} makes a script", file.display());
            }
        }
    }
}
