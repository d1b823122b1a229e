//! The enforcer's background task: notes the time, renews and returns slices, follows changed limits.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use crate::quota::core::Core;
use crate::time::timer::{Instant, after, is_over};

/// How often slices are looked after and changes asked for.
const ROUND: Duration = Duration::from_secs(1);

/// It holds the core weakly: an enforcer that is dropped takes its task with it.
#[derive(Debug)]
pub(crate) struct Keeper {
    core: Weak<Core>,
    tick: Option<Duration>,
    stop: watch::Receiver<bool>,
}

impl Keeper {
    pub(crate) fn new(core: &Arc<Core>, tick: Option<Duration>, stop: watch::Receiver<bool>) -> Self {
        Self { core: Arc::downgrade(core), tick, stop }
    }

    pub(crate) async fn run(mut self) {
        let mut next_round: Instant = after(ROUND);
        loop {
            let pause = self.tick.unwrap_or(ROUND);
            match tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await {
                Ok(_) => return,
                Err(_elapsed) => {}
            }
            let Some(core) = self.core.upgrade() else {
                return;
            };
            core.tick.note(&*core.clock);
            if is_over(next_round) {
                next_round = after(ROUND);
                // The time has to go on while the round waits for the store.
                let round = core.round();
                tokio::pin!(round);
                loop {
                    // Whoever shuts down does not wait for the store: what the round left undone is done at the end.
                    tokio::select! {
                        () = &mut round => break,
                        _ = self.stop.wait_for(|stop| *stop) => return,
                        () = tokio::time::sleep(pause) => core.tick.note(&*core.clock),
                    }
                }
            }
        }
    }
}
