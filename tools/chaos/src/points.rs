//! Controls the crash points of the processes under test, over a Unix socket that each of them connects to: arms a
//! point, learns which process has reached it and is held there, and releases them all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atrium_shared::crash_point::CrashPoint;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a running process may take to acknowledge a command.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The crash points of all processes of a deployment.
pub(crate) struct Points {
    socket: PathBuf,
    processes: Processes,
    said: tokio::sync::Mutex<UnboundedReceiver<(u32, String)>>,
}

type Processes = Arc<Mutex<HashMap<u32, UnboundedSender<String>>>>;

impl Points {
    pub(crate) fn listen(folder: &Path) -> std::io::Result<Self> {
        let socket = folder.join("crash-points");
        let listener = UnixListener::bind(&socket)?;
        let processes = Processes::default();
        let (say, said) = unbounded_channel();
        tokio::spawn({
            let processes = Arc::clone(&processes);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&processes), say.clone()));
                }
            }
        });
        Ok(Self { socket, processes, said: tokio::sync::Mutex::new(said) })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Arms the point in these processes, for its n-th passage in each, and waits until they know.
    pub(crate) async fn arm(&self, processes: &[u32], point: CrashPoint, passage: u32) {
        let mut said = self.said.lock().await;
        while said.try_recv().is_ok() {}
        let command = format!("arm {} {passage}\n", point.name());
        let mut waiting = {
            let connected = locked(&self.processes);
            let armed = processes.iter().filter_map(|pid| connected.get(pid));
            armed.filter(|process| process.send(command.clone()).is_ok()).count()
        };
        let _ = tokio::time::timeout(TIMEOUT, async {
            while waiting > 0 {
                match said.recv().await {
                    Some((_, said)) if said == "armed" => waiting -= 1,
                    Some(_) => {}
                    None => return,
                }
            }
        })
        .await;
    }

    /// Waits until a process has reached the armed point, and returns its id.
    pub(crate) async fn reached(&self) -> u32 {
        let mut said = self.said.lock().await;
        loop {
            match said.recv().await {
                Some((pid, text)) if text.starts_with("reached") => return pid,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Releases every process that is held, and disarms the point.
    pub(crate) fn release(&self) {
        for process in locked(&self.processes).values() {
            let _ = process.send("release\n".to_owned());
        }
    }
}

/// Passes what one process says on, and sends it commands, until it disconnects.
async fn serve(stream: UnixStream, processes: Processes, say: UnboundedSender<(u32, String)>) {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    let Ok(Some(first)) = lines.next_line().await else { return };
    let Some(pid) = first.strip_prefix("process ").and_then(|pid| pid.parse().ok()) else { return };
    let (commands, mut commanded) = unbounded_channel::<String>();
    locked(&processes).insert(pid, commands);
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => drop(say.send((pid, line))),
                _ => break,
            },
            Some(command) = commanded.recv() => {
                // A process that is paused reads it later.
                if to.write_all(command.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    }
    locked(&processes).remove(&pid);
}

fn locked(
    processes: &Mutex<HashMap<u32, UnboundedSender<String>>>,
) -> MutexGuard<'_, HashMap<u32, UnboundedSender<String>>> {
    processes.lock()
}
