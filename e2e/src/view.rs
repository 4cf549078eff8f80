//! The story as it happens: a line for each event, and a live line below.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::ledger::Ledger;
use crate::observer::Observer;

/// Writes to standard output.
pub struct View {
    ledger: Arc<Ledger>,
    terminal: bool,
    last: String,
}

impl View {
    /// A view on the ledger's clock.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            terminal: std::io::stdout().is_terminal(),
            last: String::new(),
        }
    }

    /// One event.
    pub fn say(&mut self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        println!("{clear}{:>7.1} s  {text}", self.ledger.now().as_secs_f64());
    }

    /// Shows the rollout while something is waited for.
    ///
    /// # Errors
    /// Those of the future.
    pub async fn follow<T>(
        &mut self,
        observer: &Observer,
        waiting: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::pin!(waiting);
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                done = &mut waiting => return done,
                _ = tick.tick() => self.draw(observer),
            }
        }
    }

    fn draw(&mut self, observer: &Observer) {
        let look = observer.now();
        let step = format!(
            "{:<11} {:>4} {:>3} % {}",
            look.phase,
            look.step,
            look.weight,
            bar(look.weight)
        );
        if !self.terminal {
            if step != self.last {
                self.say(&step);
                self.last = step;
            }
            return;
        }
        let now = self.ledger.now();
        let seen = self
            .ledger
            .totals(now.saturating_sub(Duration::from_secs(1)), now);
        print!(
            "\r\x1b[K{:>7.1} s  {step}  {} ok/s  {} failed/s  {} lost/s",
            now.as_secs_f64(),
            seen.ok,
            seen.failed,
            seen.lost
        );
        // A broken terminal is no reason to end the story.
        let _ = std::io::stdout().flush();
    }
}

fn bar(weight: i32) -> String {
    let full = usize::try_from(weight / 5).unwrap_or(0).min(20);
    format!("[{}{}]", "#".repeat(full), ".".repeat(20 - full))
}
