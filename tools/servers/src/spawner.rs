//! The thread that starts every child.
//!
//! Children ask the kernel for a signal when their parent dies (`PR_SET_PDEATHSIG`), so that nothing is left behind
//! when this process is killed. The kernel binds that to the *thread* that spawned the child, not to the process: a child
//! started from a worker thread of a runtime would be signaled when that thread ends. So one thread that lives as long
//! as the process spawns them all.

use std::io;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

struct Request {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<Sender<Request>> = LazyLock::new(|| {
    let (requests, received) = channel::<Request>();
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for mut request in received {
                let child = request.command.spawn();
                if let Err(unwanted) = request.answer.send(child)
                    && let Ok(mut child) = unwanted.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        })
        .expect("a process that cannot start one thread cannot start a stack");
    requests
});

/// Spawns the command from the thread that lives as long as the process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, answered) = channel();
    SPAWNER.send(Request { command, answer }).map_err(io::Error::other)?;
    answered.recv().map_err(io::Error::other)?
}
