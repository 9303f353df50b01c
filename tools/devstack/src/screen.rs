//! What the person at the terminal sees: one line for each thing that takes a while, with its time.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the one place that writes to the terminal"
)]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The terminal, or wherever standard output goes.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    styled: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// Styles only where a person looks, and only if they want it.
    #[must_use]
    pub fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { styled: !plain && std::io::stdout().is_terminal() }
    }

    /// Runs one step: its name is there while it runs, and how long it took after it.
    ///
    /// # Errors
    /// The step's own.
    pub async fn step<T>(
        &self,
        name: &str,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        if self.styled {
            print!("  {} {name}", self.paint("2", "…"));
            flush();
        }
        let start = Instant::now();
        let result = step.await;
        let mark = if result.is_ok() { self.paint("32", "✓") } else { self.paint("31", "✗") };
        let back = if self.styled { "\r\x1b[K" } else { "" };
        println!("{back}  {mark} {name} {}", self.paint("2", &format!("({})", spoken(start.elapsed()))));
        flush();
        result
    }

    /// One line of news.
    pub fn note(&self, text: &str) {
        println!("  {} {text}", self.paint("2", "·"));
        flush();
    }

    /// One line that somebody should see.
    pub fn alert(&self, text: &str) {
        println!("  {} {text}", self.paint("33", "!"));
        flush();
    }

    /// Text as it is.
    pub fn text(&self, text: &str) {
        println!("{text}");
        flush();
    }

    /// A headline.
    pub fn title(&self, text: &str) {
        println!("{}", self.paint("1", text));
        flush();
    }

    /// A finished step with what came of it.
    pub fn done(&self, took: Duration, name: &str, outcome: &str) {
        println!("  {} {:>9}  {name:<44} {outcome}", self.paint("32", "✓"), spoken(took));
        flush();
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.styled { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Why nothing came of it, for the person who started it: no backtrace.
pub fn complain(error: &anyhow::Error) {
    eprintln!("atrium-devstack: {error:#}");
}

/// A duration as one says it.
#[must_use]
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 100.0 {
        format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60)
    } else if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.1} ms", seconds * 1000.0)
    }
}

/// Output goes to nobody when the reader is gone, which is no reason to stop.
fn flush() {
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::spoken;

    #[test]
    fn durations() {
        assert_eq!(spoken(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(spoken(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(spoken(Duration::from_secs(125)), "2 min 5 s");
    }
}
