//! Requests of clients, each handed to who can meet it. Knows the SDK's forms; decides nothing about who may ask.
#![expect(deprecated, reason = "the older revision has a log's level, subscriptions to one resource and the like")]

use super::{
    access::LOCAL_TENANT,
    asking::{abilities, answers, failed, lacks, requests},
    calls,
    catalog::Catalog,
    tasks,
    watching::{Watched, listen, watch},
};
use crate::{
    convert,
    offer::{Level, PromptAsk, PromptReply, PromptView, Prompts, Question, Refusal, ResourceView},
};
use narthex_agent::Content;
use narthex_base::Caller;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::*,
    service::{NotificationContext, RequestContext, SubscriptionContext},
};
use serde_json::json;
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

/// What the server speaks. The SDK knows older ones, which nothing here is tested with.
const REVISIONS: &[ProtocolVersion] =
    &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];

/// Meets the requests of one session of the older revision, or a single request of the newest.
#[derive(Clone)]
pub(crate) struct Handler {
    catalog: Arc<Catalog>,
    /// The least notice that the session's client wants.
    level: Arc<Mutex<Level>>,
    watched: Arc<Watched>,
}

impl Handler {
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self { catalog, level: Arc::new(Mutex::new(Level::Info)), watched: Arc::default() }
    }

    /// The least notice that the client of a request wants, if it wants any.
    fn log_level(&self, context: &RequestContext<RoleServer>) -> Option<Level> {
        if calls::is_newest(context) {
            return context.meta.log_level().map(calls::least_level);
        }
        Some(*self.level.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn prompts(&self) -> Result<&Arc<dyn Prompts>, ErrorData> {
        self.catalog.offer.prompts.as_ref().ok_or_else(ErrorData::method_not_found::<GetPromptRequestMethod>)
    }
}

/// Whose request it is.
fn tenant(context: &RequestContext<RoleServer>) -> String {
    let parts = context.extensions.get::<http::request::Parts>();
    let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
    caller.map_or_else(|| LOCAL_TENANT.into(), |caller| caller.0.clone())
}

/// A page of a list that is here as a whole. A cursor is the number of entries before it.
fn page<T>(
    all: Vec<T>,
    request: Option<PaginatedRequestParams>,
    size: usize,
) -> Result<(Vec<T>, Option<String>), ErrorData> {
    let begin = match request.and_then(|request| request.cursor) {
        None => 0,
        Some(cursor) => cursor.parse().ok().filter(|begin| *begin < all.len()).ok_or_else(|| {
            ErrorData::invalid_params("the cursor is none of this list's: begin again without one", None)
        })?,
    };
    let end = begin.saturating_add(size.max(1)).min(all.len());
    let next = (end < all.len()).then(|| end.to_string());
    Ok((all.into_iter().skip(begin).take(end - begin).collect(), next))
}

fn prompt(view: PromptView) -> Prompt {
    let variables = view.variables.into_iter().map(|(name, description, required)| {
        let mut argument = PromptArgument::new(name).with_required(required);
        argument.description = description;
        argument
    });
    let variables: Vec<PromptArgument> = variables.collect();
    Prompt::new(view.name, view.description, (!variables.is_empty()).then_some(variables))
}

fn resource(view: ResourceView) -> Resource {
    let mut resource = Resource::new(view.uri, view.name);
    (resource.description, resource.mime_type, resource.size) = (view.description, view.mime_type, view.bytes);
    resource
}

fn template(view: ResourceView) -> ResourceTemplate {
    let mut template = ResourceTemplate::new(view.uri, view.name);
    (template.description, template.mime_type) = (view.description, view.mime_type);
    template
}

/// A filled-in prompt as the wire has it, or what is still to be answered.
fn prompt_response(reply: PromptReply, context: &RequestContext<RoleServer>) -> Result<GetPromptResponse, ErrorData> {
    match reply {
        PromptReply::Messages { description, messages } => {
            let messages = messages.into_iter().map(|(assistant, content)| {
                PromptMessage::new(if assistant { Role::Assistant } else { Role::User }, convert::block(content))
            });
            let mut result = GetPromptResult::new(messages.collect::<Vec<_>>());
            result.description = description;
            Ok(result.into())
        }
        PromptReply::Ask(questions) => {
            let abilities = abilities(context);
            let missing = questions.values().map(Question::needs).find(|needed| !abilities.contains(needed));
            if let Some(missing) = missing {
                return Err(lacks(missing));
            }
            Ok(InputRequiredResult::from_input_requests(requests(&questions).map_err(failed)?).into())
        }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let offer = &self.catalog.offer;
        let mut capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().enable_logging().build();
        if offer.prompts.is_some() {
            capabilities.prompts = Some(PromptsCapability::default());
            capabilities.prompts.iter_mut().for_each(|prompts| prompts.list_changed = Some(true));
        }
        if offer.resources.is_some() {
            capabilities.resources = Some(ResourcesCapability::default());
            capabilities.resources.iter_mut().for_each(|resources| {
                (resources.list_changed, resources.subscribe) = (Some(true), Some(true));
            });
        }
        if offer.prompts.is_some() || offer.resources.is_some() {
            capabilities.completions = Some(JsonObject::new());
        }
        if offer.agents.is_some() {
            let tasks = ServerCapabilities::builder().enable_tasks().build();
            capabilities.extensions = tasks.extensions;
        }
        let mut implementation = Implementation::new(offer.name.clone(), offer.version.clone());
        implementation.title = offer.title.clone();
        let mut config = ServerConfig::new(capabilities).with_server_info(implementation);
        config.instructions = offer.instructions.clone();
        config
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(REVISIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.catalog.find(name).map(|found| convert::tool(found.definition()))
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let (tools, next_cursor) = page(self.catalog.tools(), request, self.catalog.limits.page_size)?;
        Ok(ListToolsResult { tools, next_cursor, ..Default::default() })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let level = self.log_level(&context);
        calls::call(&self.catalog, tenant(&context), level, request, context).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let Some(resources) = &self.catalog.offer.resources else { return Ok(ListResourcesResult::default()) };
        let cursor = request.and_then(|request| request.cursor);
        let listed = resources.list(&tenant(&context), cursor, self.catalog.limits.page_size).await.map_err(failed)?;
        let entries = listed.entries.into_iter().map(resource).collect();
        Ok(ListResourcesResult { resources: entries, next_cursor: listed.next, ..Default::default() })
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = self.catalog.offer.resources.as_ref().map_or_else(Vec::new, |resources| resources.templates());
        let (entries, next_cursor) = page(templates, request, self.catalog.limits.page_size)?;
        let resource_templates = entries.into_iter().map(template).collect();
        Ok(ListResourceTemplatesResult { resource_templates, next_cursor, ..Default::default() })
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let unknown = |what: String| ErrorData::resource_not_found(what, Some(json!({"uri": request.uri})));
        let Some(resources) = &self.catalog.offer.resources else {
            return Err(unknown("this server has no resources".into()));
        };
        let read = resources.read(&tenant(&context), &request.uri).await;
        let contents = read.map_err(|refusal| match refusal {
            Refusal::Unknown(what) => unknown(what),
            other => failed(other),
        })?;
        let contents = contents.into_iter().filter_map(|content| match content {
            Content::Resource { uri, mime_type, text, blob } => Some(convert::contents(uri, mime_type, text, blob)),
            _ => None,
        });
        Ok(ReadResourceResult::new(contents.collect()).into())
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompts = self.catalog.offer.prompts.as_ref().map_or_else(Vec::new, |prompts| prompts.list());
        let (entries, next_cursor) = page(prompts, request, self.catalog.limits.page_size)?;
        let prompts = entries.into_iter().map(prompt).collect();
        Ok(ListPromptsResult { prompts, next_cursor, ..Default::default() })
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let prompts = self.prompts()?;
        let ask = PromptAsk {
            name: request.name,
            tenant: tenant(&context),
            variables: request.arguments.unwrap_or_default(),
            ..PromptAsk::default()
        };
        let reply = prompts.get(ask.clone()).await.map_err(failed)?;
        // A prompt keeps no state: who comes back with answers says everything again.
        if let (PromptReply::Ask(questions), Some(given)) = (&reply, &request.input_responses)
            && let Some(answers) = answers(questions, given)
        {
            let reply = prompts.get(PromptAsk { answers, ..ask }).await.map_err(failed)?;
            return prompt_response(reply, &context);
        }
        prompt_response(reply, &context)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let offer = &self.catalog.offer;
        let argument = request.argument;
        let mut values = match (&request.r#ref, &offer.prompts, &offer.resources) {
            (Reference::Prompt(prompt), Some(prompts), _) => {
                prompts.complete(&prompt.name, &argument.name, &argument.value)
            }
            (Reference::Resource(template), _, Some(resources)) => {
                resources.complete(&template.uri, &argument.name, &argument.value)
            }
            _ => vec![],
        };
        let (total, more) = (u32::try_from(values.len()).ok(), values.len() > CompletionInfo::MAX_VALUES);
        values.truncate(CompletionInfo::MAX_VALUES);
        let mut info = CompletionInfo::new(values).map_err(|why| ErrorData::internal_error(why, None))?;
        (info.total, info.has_more) = (total, Some(more));
        Ok(CompleteResult::new(info))
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if calls::is_newest(&context) {
            return Err(ErrorData::method_not_found::<SetLevelRequestMethod>());
        }
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = calls::least_level(request.level);
        Ok(())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        watch(self.catalog.clone(), self.watched.clone(), context.peer);
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.watched.add(request.uri).map_err(|why| ErrorData::invalid_params(why, None))
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        listen(&self.catalog, context).await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        tasks::get(&self.catalog, &tenant(&context), &request.task_id).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::update(&self.catalog, &tenant(&context), &request.task_id, request.input_responses).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::cancel(&self.catalog, &tenant(&context), &request.task_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let check = |cursor: Option<&str>, expected: Option<(&[usize], Option<&str>)>| {
            let request = PaginatedRequestParams::default().with_cursor(cursor.map(String::from));
            let paged = page((0..5).collect(), Some(request), 2).ok();
            let expected = expected.map(|(entries, next)| (entries.to_vec(), next.map(String::from)));
            assert_eq!(paged, expected, "{cursor:?}");
        };
        check(None, Some((&[0, 1], Some("2"))));
        check(Some("2"), Some((&[2, 3], Some("4"))));
        check(Some("4"), Some((&[4], None)));
        check(Some("5"), None);
        check(Some("-1"), None);
        check(Some("99999999999999999999999"), None);
        check(Some(""), None);
        assert_eq!(page(Vec::<u8>::new(), None, 2).unwrap(), (vec![], None));
    }
}
