//! The public HTTP API, as the commands use it.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Ask, failure::Failure, format::Format};
use crate::api::{
    problem::Problem,
    views::{FlowLine, FlowPage},
};

/// A node that does not accept a connection within this is not there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How many flows are asked for at a time.
const PAGE: usize = 2000;

/// One server, and how its answers are shown.
pub(super) struct Client {
    server: Url,
    http: reqwest::Client,
    pub(super) format: Format,
}

impl Client {
    pub(super) fn new(ask: &Ask) -> Result<Client, Failure> {
        let given = if ask.server.contains("://") { ask.server.clone() } else { format!("http://{}", ask.server) };
        let usage = |why: String| Failure::Usage(format!("--server {}: {why}", ask.server));
        let server = Url::parse(&given).map_err(|error| usage(error.to_string()))?;
        if server.scheme() != "http" || server.host().is_none() {
            return Err(usage("give a URL such as http://127.0.0.1:7070".to_owned()));
        }
        let http = reqwest::Client::builder().connect_timeout(CONNECT_PATIENCE).no_proxy().build();
        let http = http.map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Client { server, http, format: ask.output })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, Failure> {
        self.read(self.request(Method::GET, path, query)).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: Option<&Value>) -> Result<T, Failure> {
        let request = self.request(Method::POST, path, &[]);
        self.read(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    pub(super) async fn delete<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.read(self.request(Method::DELETE, path, query)).await
    }

    /// All flows that fit, page by page. Each page is as of one revision; the last one's is told.
    pub(super) async fn flows(&self, filter: &[(&str, String)]) -> Result<(u64, Vec<FlowLine>), Failure> {
        let mut flows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("limit", PAGE.to_string())];
            query.extend(filter.iter().cloned());
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page: FlowPage = self.get(&["v1", "flows"], &query).await?;
            flows.extend(page.flows);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok((page.revision, flows)),
            }
        }
    }

    /// A request; every part of the path is one segment of it, whatever it holds.
    pub(super) fn request(&self, method: Method, path: &[&str], query: &[(&str, String)]) -> RequestBuilder {
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url)
    }

    /// Sends it, and reads the answer or the problem.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let answer = self.send(request).await?;
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::failed(format!("{} answered in words of another version: {error}", self.server)))
    }

    /// Sends it; an answer that is no success is a failure.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.into(),
            Err(_) => self.foreign(status),
        })
    }

    fn foreign(&self, status: StatusCode) -> Failure {
        Failure::failed(format!("{} answered {status} without saying why; is it a tenure node?", self.server))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut why: &dyn std::error::Error = error;
        while let Some(deeper) = why.source() {
            why = deeper;
        }
        Failure::Unavailable(format!(
            "{} cannot be reached: {why}\n  start a node with `tenure up`, or name one with --server or TENURE_SERVER",
            self.server.as_str().trim_end_matches('/')
        ))
    }
}
