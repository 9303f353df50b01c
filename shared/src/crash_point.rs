//! Named places in the write path where the crash matrix can halt a task (`make chaos`, `docs/reliability.md`).
//!
//! A process whose environment names the runner's socket connects to it at start. The runner *arms* one point: the task
//! that reaches this point for the n-th time halts there and reports it. Until it releases the task, the runner can
//! disturb the process, PostgreSQL, Redis and the connections between them at exactly this point. Without a runner, a
//! point costs one read of an empty cell. Release binaries contain neither the points nor their names.

use strum::{EnumString, IntoStaticStr, VariantArray};

/// The variable that names the runner's socket. It is not a setting because it exists in debug builds only.
pub const SOCKET: &str = "ATRIUM_CRASH_POINTS";

/// A place in the write path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantArray)]
pub enum CrashPoint {
    /// A new organization is written but not committed.
    #[strum(serialize = "api.before_commit")]
    ApiBeforeCommit,
    /// A new organization is committed, and the response is not sent.
    #[strum(serialize = "api.after_commit")]
    ApiAfterCommit,
    /// A relay has taken a shard's lease.
    #[strum(serialize = "relay.lease_taken")]
    RelayLeaseTaken,
    /// A batch is read but not published.
    #[strum(serialize = "relay.batch_read")]
    RelayBatchRead,
    /// A batch is in the streams but not marked as published.
    #[strum(serialize = "relay.published")]
    RelayPublished,
    /// A batch is marked as published, and the mark is not committed.
    #[strum(serialize = "relay.marked")]
    RelayMarked,
    /// A batch is published, and the mark is committed.
    #[strum(serialize = "relay.committed")]
    RelayCommitted,
    /// Entries are delivered to this consumer, and none of them is handled yet.
    #[strum(serialize = "consumer.read")]
    ConsumerRead,
    /// A message is about to be handled.
    #[strum(serialize = "consumer.before_transaction")]
    ConsumerBeforeTransaction,
    /// A message is in the inbox, without its effect.
    #[strum(serialize = "consumer.in_inbox")]
    ConsumerInInbox,
    /// The effect and its inbox row are written but not committed.
    #[strum(serialize = "consumer.before_commit")]
    ConsumerBeforeCommit,
    /// A message has taken effect but is not acknowledged.
    #[strum(serialize = "consumer.committed")]
    ConsumerCommitted,
    /// A message is acknowledged.
    #[strum(serialize = "consumer.acknowledged")]
    ConsumerAcknowledged,
    /// A message is marked as dead in the database and still pending in Redis.
    #[strum(serialize = "consumer.before_dead_letter")]
    ConsumerBeforeDeadLetter,
    /// A message is a dead letter.
    #[strum(serialize = "consumer.dead_lettered")]
    ConsumerDeadLettered,
    /// A step's action is about to run.
    #[strum(serialize = "saga.before_step")]
    SagaBeforeStep,
    /// A step's action is done but not recorded.
    #[strum(serialize = "saga.after_step")]
    SagaAfterStep,
    /// A step's compensation is about to run.
    #[strum(serialize = "saga.before_compensation")]
    SagaBeforeCompensation,
    /// A step's compensation is done but not recorded.
    #[strum(serialize = "saga.after_compensation")]
    SagaAfterCompensation,
    /// A saga is about to reach its final status.
    #[strum(serialize = "saga.finish")]
    SagaFinish,
    /// A chat shard's lease is taken.
    #[strum(serialize = "chat.lease_taken")]
    ChatLeaseTaken,
    /// A chat shard's lease is about to be renewed.
    #[strum(serialize = "chat.before_renewal")]
    ChatBeforeRenewal,
    /// A chat shard's lease is renewed, and nothing is read yet.
    #[strum(serialize = "chat.before_read")]
    ChatBeforeRead,
    /// Actions are counted but not published.
    #[strum(serialize = "chat.counted")]
    ChatCounted,
    /// A batch is published, but its notices are not marked as consumed.
    #[strum(serialize = "chat.published")]
    ChatPublished,
}

impl CrashPoint {
    /// Every point.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name that the runner and the process exchange, also used in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Connects to the runner if the environment names its socket.
pub fn connect() {
    #[cfg(debug_assertions)]
    runner::connect();
}

/// Halts the calling task if the runner has armed this point.
#[cfg_attr(not(debug_assertions), inline(always))]
pub async fn reached(point: CrashPoint) {
    #[cfg(debug_assertions)]
    runner::reached(point).await;
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod runner {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixStream,
        sync::OnceLock,
    };

    use parking_lot::{Mutex, MutexGuard};
    use tokio::sync::watch;

    use super::{CrashPoint, SOCKET};

    static RUNNER: OnceLock<Runner> = OnceLock::new();

    struct Runner {
        socket: UnixStream,
        /// The point to halt at, and after how many passages.
        armed: Mutex<Option<(CrashPoint, u32)>>,
        /// How many times the runner has released the process.
        released: watch::Sender<u64>,
    }

    pub(super) fn connect() {
        let Some(path) = std::env::var_os(SOCKET) else { return };
        let connected = UnixStream::connect(&path).and_then(|socket| Ok((socket.try_clone()?, socket)));
        let (commands, socket) = match connected {
            Ok(connected) => connected,
            Err(error) => return tracing::error!(%error, "the runner of the crash matrix is not there"),
        };
        let runner = Runner { socket, armed: Mutex::new(None), released: watch::Sender::new(0) };
        if RUNNER.set(runner).is_ok()
            && let Some(runner) = RUNNER.get()
        {
            // A thread, so that commands are handled even while every task of the process is busy or halted.
            std::thread::spawn(move || runner.follow(commands));
        }
    }

    pub(super) async fn reached(point: CrashPoint) {
        if let Some(runner) = RUNNER.get() {
            runner.halt_if_armed(point).await;
        }
    }

    impl Runner {
        /// Handles the commands `arm <point> <passage>` and `release`, one per line. Releases halted tasks when the
        /// runner disconnects.
        fn follow(&self, commands: UnixStream) {
            self.send(&format!("process {}", std::process::id()));
            for command in BufReader::new(commands).lines().map_while(Result::ok) {
                let words: Vec<&str> = command.split(' ').collect();
                match words.as_slice() {
                    ["arm", name, passage] => {
                        *self.armed() = name.parse().ok().zip(passage.parse().ok());
                        self.send("armed");
                    }
                    _ => self.release(),
                }
            }
            self.release();
        }

        fn release(&self) {
            *self.armed() = None;
            self.released.send_modify(|times| *times += 1);
        }

        async fn halt_if_armed(&self, point: CrashPoint) {
            let mut released = self.released.subscribe();
            {
                let mut armed = self.armed();
                match armed.as_mut() {
                    Some((wanted, passages)) if *wanted == point => {
                        *passages = passages.saturating_sub(1);
                        if *passages > 0 {
                            return;
                        }
                    }
                    _ => return,
                }
                // Only one task halts: the others continue meanwhile.
                *armed = None;
                self.send(&format!("reached {}", point.name()));
            }
            // An error means that the sender was dropped, so there is nothing to wait for.
            let _ = released.changed().await;
        }

        fn send(&self, line: &str) {
            // A failed write is ignored because the reading thread notices that the runner disconnected.
            let _ = writeln!(&self.socket, "{line}");
        }

        fn armed(&self) -> MutexGuard<'_, Option<(CrashPoint, u32)>> {
            self.armed.lock()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixListener,
        process::{Command, Stdio},
    };

    use super::{CrashPoint, SOCKET, connect, reached};

    #[test]
    fn names_are_unique_and_begin_with_a_component() {
        let names: HashSet<_> = CrashPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
        for name in names {
            let (component, _) = name.split_once('.').expect("a part and a place");
            assert!(["api", "relay", "consumer", "saga", "chat"].contains(&component), "{name}");
        }
    }

    /// The process that the test below starts.
    #[tokio::test]
    #[ignore = "run by the test below"]
    async fn reach() {
        connect();
        std::io::stdin().read_line(&mut String::new()).expect("it is armed");
        for _ in 0..3 {
            reached(CrashPoint::RelayMarked).await;
            reached(CrashPoint::RelayCommitted).await;
        }
    }

    #[test]
    fn a_task_halts_at_the_armed_passage_until_released() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "crash_point::tests::reach", "--ignored", "--quiet"])
            .env(SOCKET, &path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("this test runs");
        let (mut socket, _) = listener.accept().expect("it connects");
        let mut lines = BufReader::new(socket.try_clone().expect("a second handle")).lines();
        let mut line = move || lines.next().expect("a line").expect("text");
        assert_eq!(line(), format!("process {}", child.id()));
        writeln!(socket, "arm relay.marked 2").expect("a command");
        assert_eq!(line(), "armed");
        writeln!(child.stdin.as_mut().expect("a pipe")).expect("it may begin");
        assert_eq!(line(), "reached relay.marked");
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(child.try_wait().expect("a child"), None, "the process halts at the point");
        writeln!(socket, "release").expect("a command");
        assert!(child.wait().expect("a child").success(), "the process exits after the release");
    }
}
