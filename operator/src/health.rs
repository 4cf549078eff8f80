//! Named checks: why this process is ready, or is not.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// The checks of one process. It is ready when all of them pass and it is not stopping.
#[derive(Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    checks: BTreeMap<&'static str, Result<(), String>>,
    stopping: bool,
}

/// One check; its holder alone sets it.
pub struct Check {
    health: Arc<Health>,
    name: &'static str,
}

impl Health {
    /// Adds a check, which fails until its holder says otherwise.
    #[must_use]
    pub fn check(self: &Arc<Self>, name: &'static str) -> Check {
        self.state
            .lock()
            .checks
            .insert(name, Err("not started yet".to_owned()));
        Check {
            health: self.clone(),
            name,
        }
    }

    /// From now on never ready: the Service takes this pod out while it still serves.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
    }

    /// Whether ready, and one line a check for people.
    #[must_use]
    pub fn ready(&self) -> (bool, String) {
        let state = self.state.lock();
        let mut ready = !state.stopping;
        let mut body = String::new();
        if state.stopping {
            body.push_str("[-] stopping\n");
        }
        for (name, result) in &state.checks {
            match result {
                Ok(()) => body.push_str(&format!("[+] {name}\n")),
                Err(why) => {
                    ready = false;
                    body.push_str(&format!("[-] {name}: {why}\n"));
                }
            }
        }
        body.push_str(if ready { "ready\n" } else { "not ready\n" });
        (ready, body)
    }
}

impl Check {
    /// All is well.
    pub fn pass(&self) {
        self.health.state.lock().checks.insert(self.name, Ok(()));
    }

    /// Something is missing; `why` is read by people.
    pub fn fail(&self, why: impl Into<String>) {
        self.health
            .state
            .lock()
            .checks
            .insert(self.name, Err(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_check_passes_and_nobody_has_said_stop() {
        let health = Arc::new(Health::default());
        let (caches, certificate) = (health.check("caches"), health.check("certificate"));
        assert!(!health.ready().0);
        caches.pass();
        certificate.fail("Secret x is not there yet");
        let (ready, body) = health.ready();
        assert!(!ready);
        assert!(
            body.contains("[+] caches\n[-] certificate: Secret x is not there yet"),
            "{body}"
        );
        certificate.pass();
        assert!(health.ready().0);
        health.stop();
        assert!(!health.ready().0);
    }
}
