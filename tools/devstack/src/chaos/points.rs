//! The runner's side of the crash points: it knows the processes that run, arms a point in them, learns which one has
//! reached it, and lets them go on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atrium_shared::crash_point::CrashPoint;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a process that runs may take to take an order.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Points {
    socket: PathBuf,
    processes: Processes,
    said: tokio::sync::Mutex<UnboundedReceiver<(u32, String)>>,
}

type Processes = Arc<Mutex<HashMap<u32, UnboundedSender<String>>>>;

impl Points {
    pub(super) fn listen(folder: &Path) -> std::io::Result<Self> {
        let socket = folder.join("crash-points");
        let listener = UnixListener::bind(&socket)?;
        let processes = Processes::default();
        let (say, said) = unbounded_channel();
        tokio::spawn({
            let processes = Arc::clone(&processes);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(attend(stream, Arc::clone(&processes), say.clone()));
                }
            }
        });
        Ok(Self { socket, processes, said: tokio::sync::Mutex::new(said) })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Arms the point in these processes, for its n-th passage in each, and waits until they know.
    pub(super) async fn arm(&self, processes: &[u32], point: CrashPoint, passage: u32) {
        let mut said = self.said.lock().await;
        while said.try_recv().is_ok() {}
        let order = format!("arm {} {passage}\n", point.name());
        let mut waiting = {
            let known = locked(&self.processes);
            let told = processes.iter().filter_map(|pid| known.get(pid));
            told.filter(|process| process.send(order.clone()).is_ok()).count()
        };
        let _ = tokio::time::timeout(PATIENCE, async {
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

    /// Waits until a process has reached the armed point, and names it.
    pub(super) async fn reached(&self) -> u32 {
        let mut lines = self.said.lock().await;
        loop {
            match lines.recv().await {
                Some((pid, said)) if said.starts_with("reached") => return pid,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Lets everybody go on, and disarms.
    pub(super) fn release(&self) {
        for process in locked(&self.processes).values() {
            let _ = process.send("release\n".to_owned());
        }
    }
}

async fn attend(stream: UnixStream, processes: Processes, say: UnboundedSender<(u32, String)>) {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    let Ok(Some(first)) = lines.next_line().await else { return };
    let Some(pid) = first.strip_prefix("process ").and_then(|pid| pid.parse().ok()) else { return };
    let (order, mut orders) = unbounded_channel::<String>();
    locked(&processes).insert(pid, order);
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => drop(say.send((pid, line))),
                _ => break,
            },
            Some(order) = orders.recv() => {
                // A process that is paused reads it later.
                if to.write_all(order.as_bytes()).await.is_err() {
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
    processes.lock().unwrap_or_else(PoisonError::into_inner)
}
