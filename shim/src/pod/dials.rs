//! Streams that the agent is to dial.
//!
//! The agent has dialled all streams of a process before it says that the process is made, and any other soon after its
//! answer. What has not come a while after that does not come any more: another process of the guest may have kept it from
//! coming.
//!
//! Invariant: whoever waits for a stream gets it or hears that it will not come; nothing is kept for longer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use cofferdam_agent_protocol::{ProcessPlan, StreamToken, request};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Dials {
    waiting: HashMap<StreamToken, oneshot::Sender<UnixStream>>,
    /// When which of them are given up, in order.
    due: VecDeque<(Instant, Vec<StreamToken>)>,
    within: Duration,
}

impl Dials {
    /// None yet; each may take as long as `within` after its process was made.
    pub(super) fn new(within: Duration) -> Self {
        Self { waiting: HashMap::new(), due: VecDeque::new(), within }
    }

    /// Someone waits for the stream that names `token`.
    pub(super) fn expect(&mut self, token: StreamToken, stream: oneshot::Sender<UnixStream>) {
        // Those whose process was not made are waited for by nobody.
        self.waiting.retain(|_, stream| !stream.is_closed());
        self.waiting.insert(token, stream);
    }

    /// A stream has come; whether someone waits for it.
    pub(super) fn came(&mut self, token: StreamToken, stream: UnixStream) -> bool {
        self.waiting.remove(&token).is_some_and(|waiter| waiter.send(stream).is_ok())
    }

    /// The process with the streams `tokens` was made.
    pub(super) fn made(&mut self, tokens: Vec<StreamToken>) {
        if tokens.iter().any(|token| self.waiting.contains_key(token)) {
            self.due.push_back((Instant::now() + self.within, tokens));
        }
    }

    /// When to call [`Self::give_up`] next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Gives up what is due.
    pub(super) fn give_up(&mut self) {
        let now = Instant::now();
        while self.next().is_some_and(|at| at <= now) {
            for token in self.due.pop_front().into_iter().flat_map(|(_, tokens)| tokens) {
                if self.waiting.remove(&token).is_some() {
                    tracing::warn!("a stream did not come out of the guest");
                }
            }
        }
    }

    /// Gives up all of them.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.due.clear();
    }
}

/// The streams that the agent dials for `body`.
pub(super) fn tokens(body: &request::Body) -> Vec<StreamToken> {
    let process: Option<&ProcessPlan> = match body {
        request::Body::Create(plan) => plan.process.as_ref(),
        request::Body::Exec(exec) => exec.plan.as_deref(),
        request::Body::Forward(forward) => return vec![forward.stream],
        _ => None,
    };
    let Some(process) = process else { return Vec::new() };
    let terminal = process.terminal.as_ref().map(|terminal| terminal.stream);
    let stdio = process.stdio.iter().flat_map(|stdio| [stdio.stdin, stdio.stdout, stdio.stderr]);
    terminal.into_iter().chain(stdio.flatten()).collect()
}
