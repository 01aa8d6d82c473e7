//! What a pod's containers can be asked.
//!
//! A container's first process has the process id (a name, not a number) `""`.
//!
//! Invariant: a process whose end is waited for was asked for here.

use std::time::Duration;

use cofferdam_agent_protocol::{
    CgroupSetting, ContainerPlan, Described, ProcessPlan, StreamToken, request, response,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, oneshot};

use super::actor::Command;
use super::{Cause, ExitStatus, Expected, Pod, PodError, stopped, stream};

/// How long the agent may take to hear that what it makes is not wanted any more.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How long a port of the pod may take to accept a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

impl Pod {
    /// Creates a container. Streams are asked for where `plan.process` has a terminal or stdio; the
    /// tokens are chosen here.
    ///
    /// # Errors
    /// The agent's, or why the pod failed.
    pub async fn create(&self, mut plan: ContainerPlan) -> Result<Expected, PodError> {
        let mut expected = Expected::default();
        if let Some(process) = plan.process.as_mut() {
            expected = self.expect_all(process).await?;
        }
        let of = (plan.id.clone(), String::new());
        self.made(request::Body::Create(Box::new(plan)), of).await?;
        Ok(expected)
    }

    /// Starts one more process, named `process`, in a container and in its group `cgroup` (empty: the agent's choice); its
    /// streams as with [`Pod::create`].
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn exec(
        &self,
        container: &str,
        process: &str,
        cgroup: &str,
        mut plan: ProcessPlan,
    ) -> Result<Expected, PodError> {
        let expected = self.expect_all(&mut plan).await?;
        let of = (container.to_owned(), process.to_owned());
        let (container, process) = of.clone();
        let (plan, cgroup) = (Some(Box::new(plan)), cgroup.to_owned());
        let exec = request::Exec { container, process, plan, cgroup };
        self.made(request::Body::Exec(exec), of).await?;
        Ok(expected)
    }

    /// Asks for the process `of`, which is forgotten if it does not come to be.
    async fn made(&self, body: request::Body, of: (String, String)) -> Result<(), PodError> {
        let outcome = match self.request(body).await {
            Ok(response::Body::Created(_)) => return Ok(()),
            Ok(_) => Err(wrong("create or exec")),
            Err(error) => Err(error),
        };
        if let Err(PodError { cause: Cause::AgentLost(_), .. }) = &outcome {
            // What comes to be after all is nobody's: it goes at once.
            let _ = tokio::time::timeout(LAST_WORD, self.delete(&of.0, &of.1, true)).await;
        }
        // The pod may be gone.
        let _ = self.commands.send(Command::Forget(of)).await;
        outcome
    }

    /// From now on the end of the pod can be waited for by the name of a container that the guest knows nothing of.
    ///
    /// # Errors
    /// The pod has ended.
    pub async fn expect_end(&self, container: &str) -> Result<(), PodError> {
        let of = (container.to_owned(), String::new());
        self.commands.send(Command::Remember(of)).await.map_err(|_| stopped())
    }

    /// Has the guest keep a pid namespace under the name of a container without a process.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn keep(&self, container: &str) -> Result<(), PodError> {
        let of = request::Container { container: container.into() };
        self.done(request::Body::Keep(of), "keep").await
    }

    /// Lets a created container run.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn start(&self, container: &str) -> Result<(), PodError> {
        self.start_with(container, Vec::new()).await
    }

    /// The same; first, `files` that were brought along get another content.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn start_with(
        &self,
        container: &str,
        files: Vec<request::FileContent>,
    ) -> Result<(), PodError> {
        let start = request::Start { container: container.into(), files };
        self.done(request::Body::Start(start), "start").await
    }

    /// Sends `signal` to a process of a container, or with `all` to every process of it.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn signal(
        &self,
        container: &str,
        process: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), PodError> {
        let (container, process) = (container.into(), process.into());
        let signal = request::Signal { container, process, signal, all };
        self.done(request::Body::Signal(signal), "signal").await
    }

    /// Sets the window size of the terminal of a process.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn resize(
        &self,
        container: &str,
        process: &str,
        (rows, columns): (u16, u16),
    ) -> Result<(), PodError> {
        let (container, process) = (container.into(), process.into());
        let (rows, columns) = (rows.into(), columns.into());
        let resize = request::Resize { container, process, rows, columns };
        self.done(request::Body::Resize(resize), "resize").await
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// Why the pod failed before.
    pub async fn wait(&self, container: &str, process: &str) -> Result<ExitStatus, PodError> {
        let of = (container.to_owned(), process.to_owned());
        self.command(|reply| Command::Wait { of, reply }).await
    }

    /// Forgets a container and unmounts its root file system; with `force`, what still runs in it is killed. If
    /// `process` names one of its other processes: forgets that one only.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn delete(
        &self,
        container: &str,
        process: &str,
        force: bool,
    ) -> Result<(), PodError> {
        let of = (container.to_owned(), process.to_owned());
        let (container, process) = of.clone();
        let delete = request::Delete { container, process, force };
        self.done(request::Body::Delete(delete), "delete").await?;
        self.commands.send(Command::Forget(of)).await.map_err(|_| stopped())
    }

    /// Freezes a container, or lets it go on.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn freeze(&self, container: &str, frozen: bool) -> Result<(), PodError> {
        let of = request::Container { container: container.into() };
        let body = if frozen { request::Body::Pause(of) } else { request::Body::Resume(of) };
        self.done(body, "pause or resume").await
    }

    /// Writes files of a container's control group.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn update(
        &self,
        container: &str,
        settings: Vec<CgroupSetting>,
    ) -> Result<(), PodError> {
        let update = request::Update { container: container.into(), settings };
        self.done(request::Body::Update(update), "update").await
    }

    /// The processes of a container.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn processes(&self, container: &str) -> Result<Described, PodError> {
        let of = request::Container { container: container.into() };
        match self.request(request::Body::Describe(of)).await? {
            response::Body::Described(described) => Ok(described),
            _ => Err(wrong("describe")),
        }
    }

    /// The accounting of a container, or with an empty name the pod's: files of its control group and their contents.
    ///
    /// # Errors
    /// As [`Pod::create`].
    pub async fn stats(&self, container: &str) -> Result<Vec<CgroupSetting>, PodError> {
        let of = request::Container { container: container.into() };
        match self.request(request::Body::Stats(of)).await? {
            response::Body::Stats(stats) => Ok(stats.files),
            _ => Err(wrong("stats")),
        }
    }

    /// Hears of containers in which the guest's kernel killed a process for lack of memory, from now on.
    #[must_use]
    pub fn out_of_memory(&self) -> broadcast::Receiver<String> {
        self.out_of_memory.subscribe()
    }

    /// Connects to the TCP port `port` of the guest's loopback interface.
    ///
    /// # Errors
    /// Nobody listens there, or the guest does not answer.
    pub async fn forward(&self, port: u16) -> Result<UnixStream, PodError> {
        let mut wanted = request::Forward { port: port.into(), stream: 0 };
        let expected = self.expect(&mut wanted.stream).await?;
        self.done(request::Body::Forward(wanted), "forward").await?;
        let refused = || PodError { stage: None, cause: Cause::NobodyListens(port) };
        let connected = async {
            let mut stream = expected.await.ok()?;
            // The guest says one byte if it is connected.
            stream.read_exact(&mut [0]).await.ok().map(|_| stream)
        };
        let stream = tokio::time::timeout(CONNECTED_WITHIN, connected).await;
        stream.ok().flatten().ok_or_else(refused)
    }

    /// Chooses a token for each stream of `process`, and expects them.
    async fn expect_all(&self, process: &mut ProcessPlan) -> Result<Expected, PodError> {
        let mut expected = Expected::default();
        if let Some(terminal) = process.terminal.as_mut() {
            expected.stdin = Some(self.expect(&mut terminal.stream).await?);
        } else if let Some(stdio) = process.stdio.as_mut() {
            if let Some(token) = stdio.stdin.as_mut() {
                expected.stdin = Some(self.expect(token).await?);
            }
            if let Some(token) = stdio.stdout.as_mut() {
                expected.stdout = Some(self.expect(token).await?);
            }
            if let Some(token) = stdio.stderr.as_mut() {
                expected.stderr = Some(self.expect(token).await?);
            }
        }
        Ok(expected)
    }

    /// Chooses an unguessable token and has the actor expect its stream.
    async fn expect(
        &self,
        token: &mut StreamToken,
    ) -> Result<oneshot::Receiver<UnixStream>, PodError> {
        *token = stream::token().map_err(|error| PodError {
            stage: None,
            cause: Cause::AgentLost(format!("no random token for a stream: {error}")),
        })?;
        let (stream, receiver) = oneshot::channel();
        let command = Command::Expect { token: *token, stream };
        self.commands.send(command).await.map_err(|_| stopped())?;
        Ok(receiver)
    }
}

fn wrong(what: &'static str) -> PodError {
    PodError { stage: None, cause: Cause::WrongAnswer(what) }
}
