//! Output on the terminal: one line for each step, with the time it took.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "only this module writes to the terminal")]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Standard output, which may be a terminal.
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
    /// Uses colors only on a terminal, and not if `NO_COLOR` is set.
    #[must_use]
    pub fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { styled: !plain && std::io::stdout().is_terminal() }
    }

    /// Runs one step: shows its name while it runs, and then how long it took.
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
        println!("{back}  {mark} {name} {}", self.paint("2", &format!("({})", readable(start.elapsed()))));
        flush();
        result
    }

    /// One line of information.
    pub fn note(&self, text: &str) {
        println!("  {} {text}", self.paint("2", "·"));
        flush();
    }

    /// One line that needs attention.
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

    /// A finished step with its outcome.
    pub fn done(&self, took: Duration, name: &str, outcome: &str) {
        println!("  {} {:>9}  {name:<44} {outcome}", self.paint("32", "✓"), readable(took));
        flush();
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.styled { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints an error, without a backtrace.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("atrium-devstack: {error:#}");
}

/// A duration in a readable form.
#[must_use]
pub fn readable(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 100.0 {
        format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60)
    } else if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.1} ms", seconds * 1000.0)
    }
}

/// A closed output is no reason to stop.
fn flush() {
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::readable;

    #[test]
    fn durations() {
        assert_eq!(readable(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(readable(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(readable(Duration::from_secs(125)), "2 min 5 s");
    }
}
