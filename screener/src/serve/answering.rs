//! The control socket while the daemon lives: answered, not answered for the moment, or gone to another daemon.
//!
//! Holds the socket and its lock beside the task that answers. Never answers anything itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::control::Server;

use super::daemon::Daemon;

/// How long whoever asked may take to read the answer when the daemon ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The control socket.
#[derive(Debug)]
pub(super) struct Answering(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None`: it is another daemon's.
    server: Option<Server>,
    end: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Answering {
    pub(super) fn new(server: Server) -> Self {
        Self(Mutex::new(State { server: Some(server), end: CancellationToken::new(), task: None }))
    }

    /// Answers.
    pub(super) fn start(&self, daemon: &Arc<Daemon>) -> io::Result<()> {
        let mut state = self.state();
        state.end = CancellationToken::new();
        if let Some(server) = &state.server {
            state.task = Some(server.serve(Arc::clone(daemon), state.end.clone())?);
        }
        Ok(())
    }

    /// Answers nothing new; whoever asks waits.
    pub(super) fn stop(&self) {
        self.state().end.cancel();
    }

    /// Answers what was asked to the end, and nothing more.
    pub(super) async fn finish(&self) {
        let task = {
            let mut state = self.state();
            state.end.cancel();
            state.task.take()
        };
        match task {
            None => {}
            Some(task) => match tokio::time::timeout(LAST_ANSWERS, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("the control socket's task broke: {error}"),
                Err(_) => tracing::warn!("somebody asked at the control socket and does not read the answer: cut off"),
            },
        }
    }

    /// Copies of the socket and of its lock.
    pub(super) fn descriptors(&self) -> io::Result<[OwnedFd; 2]> {
        self.state().server.as_ref().ok_or_else(|| io::Error::other("the control socket is gone"))?.descriptors()
    }

    /// Leaves it to another daemon.
    pub(super) fn close(&self) {
        self.state().server = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
