//! containerd's Task service. Each call becomes a job for the thread that owns the containers.
//!
//! Invariant: nothing is decided here.

use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::ttrpc::r#async::{Service as Methods, TtrpcContext};
use containerd_shim_protos::ttrpc::{Code, Result};
use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use super::tasks::Tasks;

/// What is to be done with the containers.
pub(super) type Job = Box<dyn FnOnce(Rc<Tasks>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The service's name for containerd 2, and for those before it: the messages are the same.
const VERSIONS: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// The methods of services, by their names.
pub(super) type Named = HashMap<String, Methods>;

/// The way to the thread that owns the containers.
#[derive(Clone, Debug)]
pub(super) struct Jobs(mpsc::UnboundedSender<Job>);

impl Jobs {
    /// One that gives its jobs to `queue`.
    pub(super) fn new(queue: mpsc::UnboundedSender<Job>) -> Self {
        Self(queue)
    }

    /// What `job` gives.
    pub(super) async fn call<T, F>(
        &self,
        job: impl FnOnce(Rc<Tasks>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Refusal>> + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |tasks| {
            let work = job(tasks);
            // Whoever asked may be gone.
            Box::pin(async move { drop(reply.send(work.await)) })
        });
        let ending = || Refusal::new(Code::UNAVAILABLE, "the shim ends");
        self.0.send(job).map_err(|_| ending())?;
        Ok(answer.await.map_err(|_| ending())??)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Service {
    jobs: Jobs,
}

impl Service {
    /// One that gives its jobs to `jobs`.
    pub(super) fn new(jobs: Jobs) -> Self {
        Self { jobs }
    }

    /// Its methods, under both names.
    pub(super) fn methods(&self) -> Named {
        let all = VERSIONS.map(|name| {
            let methods = create_task(Arc::new(self.clone())).into_values().next();
            methods.map(|methods| (name.to_owned(), methods))
        });
        all.into_iter().flatten().collect()
    }
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        self.jobs.call(async move |tasks| tasks.state(&request.id, &request.exec_id)).await
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> Result<CreateTaskResponse> {
        let pid = self.jobs.call(async move |tasks| tasks.create(&request).await).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.start(&request.id, &request.exec_id).await;
        Ok(StartResponse { pid: self.jobs.call(job).await?, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.delete(&request.id, &request.exec_id).await;
        let exit = self.jobs.call(job).await?;
        Ok(DeleteResponse {
            pid: std::process::id(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        let processes = self.jobs.call(async move |tasks| tasks.pids(&request.id).await).await?;
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        self.jobs.call(async move |tasks| tasks.freeze(&request.id, true).await).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        self.jobs.call(async move |tasks| tasks.freeze(&request.id, false).await).await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> Result<Empty> {
        let text = "checkpoint: a container in a virtual machine cannot be saved yet";
        Err(Refusal::new(Code::UNIMPLEMENTED, text).into())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        self.jobs.call(async move |tasks| tasks.kill(&request).await).await?;
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        self.jobs.call(async move |tasks| tasks.exec(&request)).await?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let job = async move |tasks: Rc<Tasks>| {
            let process = (request.id.as_str(), request.exec_id.as_str());
            tasks.resize(process, request.height, request.width).await
        };
        self.jobs.call(job).await?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        if request.stdin {
            let job =
                async move |tasks: Rc<Tasks>| tasks.close_input(&request.id, &request.exec_id);
            self.jobs.call(job).await?;
        }
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        let job = async move |tasks: Rc<Tasks>| {
            let wanted = request.resources.as_ref().map_or(&b"{}"[..], |any| &any.value);
            tasks.update(&request.id, wanted).await
        };
        self.jobs.call(job).await?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.wait(&request.id, &request.exec_id).await;
        let exit = self.jobs.call(job).await?;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..Default::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        let stats = self.jobs.call(async move |tasks| tasks.stats(&request.id).await).await?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        let job = async move |tasks: Rc<Tasks>| Ok(tasks.numbers(&request.id));
        let (shim_pid, task_pid) = self.jobs.call(job).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(ConnectResponse { shim_pid, task_pid, version, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Result<Empty> {
        let job = async move |tasks: Rc<Tasks>| {
            tasks.shut_down();
            Ok(())
        };
        self.jobs.call(job).await?;
        Ok(Empty::default())
    }
}
