//! containerd's Sandbox service, for runtimes whose `sandboxer` is the shim. As the Task service, it makes jobs.
//!
//! Invariant: nothing is decided here.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
    StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest,
    WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_async::{Sandbox, create_sandbox};
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use containerd_shim_protos::ttrpc::{Code, Result};
use containerd_shim_protos::types::platform::Platform;

use super::refusal::Refusal;
use super::service::{Jobs, Named};
use super::tasks::Tasks;

/// What a sandbox is, in CRI's words.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sandboxes {
    jobs: Jobs,
    /// The configuration file of the machines.
    config: PathBuf,
}

impl Sandboxes {
    /// One that gives its jobs to `jobs`.
    pub(super) fn new(jobs: Jobs, config: PathBuf) -> Self {
        Self { jobs, config }
    }

    /// Its methods, under its name.
    pub(super) fn methods(self) -> Named {
        create_sandbox(Arc::new(self))
    }
}

#[async_trait]
impl Sandbox for Sandboxes {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> Result<CreateSandboxResponse> {
        let config = self.config.clone();
        let job = async move |tasks: Rc<Tasks>| tasks.create_sandbox(&request, config).await;
        self.jobs.call(job).await?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> Result<StartSandboxResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.start_sandbox(&request.sandbox_id).await;
        let (pid, created) = self.jobs.call(job).await?;
        let created_at = MessageField::some(created.into());
        Ok(StartSandboxResponse { pid, created_at, ..Default::default() })
    }

    async fn platform(&self, _: &TtrpcContext, _: PlatformRequest) -> Result<PlatformResponse> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let platform = Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            ..Default::default()
        };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> Result<StopSandboxResponse> {
        let limit = Duration::from_secs(request.timeout_secs.into());
        let job =
            async move |tasks: Rc<Tasks>| tasks.stop_sandbox(&request.sandbox_id, limit).await;
        self.jobs.call(job).await?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> Result<WaitSandboxResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.wait_sandbox(&request.sandbox_id).await;
        let exit = self.jobs.call(job).await?;
        let exited_at = MessageField::some(exit.at.into());
        Ok(WaitSandboxResponse { exit_status: exit.status, exited_at, ..Default::default() })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> Result<SandboxStatusResponse> {
        let sandbox_id = request.sandbox_id.clone();
        let job = async move |tasks: Rc<Tasks>| tasks.sandbox_status(&request.sandbox_id);
        let status = self.jobs.call(job).await?;
        let state = if status.is_ready { READY } else { NOT_READY };
        Ok(SandboxStatusResponse {
            sandbox_id,
            pid: status.pid,
            state: state.into(),
            created_at: MessageField::some(status.created.into()),
            exited_at: status.exit.map(|exit| exit.at.into()).into(),
            ..Default::default()
        })
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> Result<PingResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.sandbox_status(&request.sandbox_id);
        let status = self.jobs.call(job).await?;
        if status.exit.is_some() {
            return Err(Refusal::new(Code::UNAVAILABLE, "the sandbox has ended").into());
        }
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> Result<ShutdownSandboxResponse> {
        let job = async move |tasks: Rc<Tasks>| tasks.shut_down_sandbox(&request.sandbox_id).await;
        self.jobs.call(job).await?;
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> Result<SandboxMetricsResponse> {
        let id = request.sandbox_id.clone();
        let job = async move |tasks: Rc<Tasks>| tasks.sandbox_metrics(&request.sandbox_id).await;
        let data = self.jobs.call(job).await?;
        let mut response = SandboxMetricsResponse::default();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = MessageField::some(SystemTime::now().into());
        metric.id = id;
        metric.data = MessageField::some(data);
        Ok(response)
    }
}
