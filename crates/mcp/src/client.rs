//! An MCP server of somebody's: connected to, its tools as tools of ours, its resources and prompts to read. All that
//! it says is a stranger's word, bounded before it is looked at.

mod child;
mod dial;
mod ears;
mod http;
mod link;
mod oauth;
mod questions;
mod remote;
mod shelf;
mod spec;

use self::{
    dial::Dial,
    ears::Ears,
    link::{Link, Trouble},
    shelf::Shelf,
};
use crate::{
    convert,
    limits::ClientLimits,
    offer::{Listed, PromptView, ResourceView},
};
use narthex_agent::{Content, Tool};
use narthex_base::{Error, Result};
use rmcp::model::{GetPromptRequestParams, PaginatedRequestParams, ReadResourceRequestParams, Role};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

pub use http::client_builder;
pub use oauth::{Consent, MemoryTokens, OAuth, TokenStore};
pub use questions::{NoQuestions, Questions};
pub use spec::{Credentials, Reach, Revision, ServerSpec};

/// How servers are connected to.
#[derive(Clone)]
pub struct ClientOptions {
    /// Makes requests; one of [`client_builder`]'s where there is none. Pass one that reaches no private address for
    /// servers whose addresses a stranger chose. One that follows redirects takes the server's word for where to.
    pub http: Option<reqwest::Client>,
    /// Answers what servers ask.
    pub questions: Arc<dyn Questions>,
    /// What a server may make us do.
    pub limits: ClientLimits,
    /// The version that we call ourselves.
    pub version: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION").into();
        Self { http: None, questions: Arc::new(NoQuestions), limits: ClientLimits::default(), version }
    }
}

/// A server that we are connected to. Once it is dropped, with all its tools, the connection ends and the program of
/// one on standard input and output is killed.
pub struct McpServer {
    shelf: Arc<Shelf>,
}

/// A prompt with its variables filled in: whether the assistant speaks, and what.
pub type PromptMessages = Vec<(bool, Content)>;

/// Connects to a server and asks for its tools.
///
/// # Errors
/// If the server cannot be reached, does not speak the protocol, or names its tools without end.
pub async fn connect(spec: ServerSpec, options: ClientOptions) -> Result<McpServer> {
    spec.check()?;
    let ears = Ears::new(spec.name.clone(), options.version, options.questions);
    let link = Arc::new(Link::open(Dial::new(spec, options.limits, ears, options.http)?).await?);
    let server = McpServer { shelf: Shelf::new(link) };
    server.refresh().await?;
    Ok(server)
}

impl McpServer {
    /// The name that it is configured by.
    pub fn name(&self) -> &str {
        &self.link().dial.spec.name
    }

    /// The revision that is spoken.
    pub async fn revision(&self) -> Option<String> {
        self.link().revision().await
    }

    /// How to use it, in the server's own words: a stranger's text, which nobody approved.
    pub async fn instructions(&self) -> Option<String> {
        self.link().instructions().await
    }

    /// Its tools as they were when they were last asked for, in the server's order.
    pub fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.shelf.tools()
    }

    /// Tools that it names and that cannot be used, with why. Over HTTP, those with a wrong `x-mcp-header` are missing
    /// here too.
    pub fn left_out(&self) -> Vec<(String, String)> {
        self.shelf.left_out()
    }

    /// Told whenever the server says that its tools changed; [`Self::refresh`] then asks for them.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.link().dial.ears.changes()
    }

    /// Asks for its tools again. One that is described as before stays as it is; one that is not, or is no more, can be
    /// called no more by those who hold it, and stands in the list anew, to be approved anew. Where the server says
    /// that its tools changed, the next call of any of them does this first.
    ///
    /// # Errors
    /// If the server does not answer, or names its tools without end.
    pub async fn refresh(&self) -> Result<()> {
        self.shelf.refresh().await
    }

    fn link(&self) -> &Link {
        &self.shelf.link
    }

    fn failed(&self, what: &str, trouble: &Trouble) -> Error {
        self.shelf.failed(what, trouble)
    }

    /// A page of its resources, behind the page that gave the cursor.
    ///
    /// # Errors
    /// If the server has none, or does not answer.
    pub async fn resources(&self, cursor: Option<String>) -> Result<Listed<ResourceView>> {
        let asked = self.link().ask(self.link().dial.limits.page_s, |peer| {
            let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
            async move { peer.list_resources(Some(params)).await }
        });
        let page = asked.await.map_err(|trouble| self.failed("list of resources", &trouble))?;
        let entries = page.resources.into_iter().map(|resource| ResourceView {
            uri: resource.uri,
            name: resource.name,
            description: resource.description,
            mime_type: resource.mime_type,
            bytes: resource.size,
        });
        Ok(Listed { entries: entries.collect(), next: page.next_cursor })
    }

    /// A page of its patterns of resources.
    ///
    /// # Errors
    /// If the server has none, or does not answer.
    pub async fn templates(&self, cursor: Option<String>) -> Result<Listed<ResourceView>> {
        let asked = self.link().ask(self.link().dial.limits.page_s, |peer| {
            let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
            async move { peer.list_resource_templates(Some(params)).await }
        });
        let page = asked.await.map_err(|trouble| self.failed("list of templates", &trouble))?;
        let entries = page.resource_templates.into_iter().map(|template| ResourceView {
            uri: template.uri_template,
            name: template.name,
            description: template.description,
            mime_type: template.mime_type,
            bytes: None,
        });
        Ok(Listed { entries: entries.collect(), next: page.next_cursor })
    }

    /// What is at an address, cut to the limit of a result.
    ///
    /// # Errors
    /// If nothing is there, or the server does not answer.
    pub async fn read(&self, uri: &str) -> Result<Vec<Content>> {
        let asked = self.link().ask(self.link().dial.limits.call_s, |peer| {
            let params = ReadResourceRequestParams::new(uri);
            async move { peer.read_resource(params).await }
        });
        let read = asked.await.map_err(|trouble| self.failed(&format!("resource `{uri}`"), &trouble))?;
        let content = read.contents.into_iter().map(convert::held).collect();
        let result = narthex_agent::ToolResult { content, structured: None, is_error: false };
        Ok(crate::cut::cut(result, self.link().dial.limits.result_bytes_max).content)
    }

    /// Its prompts.
    ///
    /// # Errors
    /// If the server has none, or does not answer.
    pub async fn prompts(&self, cursor: Option<String>) -> Result<Listed<PromptView>> {
        let asked = self.link().ask(self.link().dial.limits.page_s, |peer| {
            let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
            async move { peer.list_prompts(Some(params)).await }
        });
        let page = asked.await.map_err(|trouble| self.failed("list of prompts", &trouble))?;
        let entries = page.prompts.into_iter().map(|prompt| PromptView {
            name: prompt.name,
            description: prompt.description,
            variables: prompt
                .arguments
                .into_iter()
                .flatten()
                .map(|variable| (variable.name, variable.description, variable.required == Some(true)))
                .collect(),
        });
        Ok(Listed { entries: entries.collect(), next: page.next_cursor })
    }

    /// A prompt, filled in.
    ///
    /// # Errors
    /// If there is none of that name, or the server does not answer.
    pub async fn prompt(&self, name: &str, variables: &BTreeMap<String, String>) -> Result<PromptMessages> {
        let arguments: Map<String, Value> =
            variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        let asked = self.link().ask(self.link().dial.limits.call_s, |peer| {
            let params = GetPromptRequestParams::new(name).with_arguments(arguments.clone());
            async move { peer.get_prompt(params).await }
        });
        let prompt = asked.await.map_err(|trouble| self.failed(&format!("prompt `{name}`"), &trouble))?;
        let messages = prompt.messages.into_iter();
        Ok(messages.map(|message| (message.role == Role::Assistant, convert::content(message.content))).collect())
    }
}
