//! Logging in at an authorization server for one MCP server: where to log in, the server says; what it may not say is
//! for whom else the token is good. Knows no protocol but OAuth's; the pages are shown by whoever calls.

use super::http::Bounded;
use async_trait::async_trait;
use futures::future::BoxFuture;
use narthex_base::{Error, Result};
use rmcp::transport::{
    AuthClient, AuthorizationManager,
    auth::{AuthError, AuthorizationRequest, CredentialStore, OAuthState, StoredCredentials, WWWAuthenticateParams},
};
use std::sync::{Arc, Mutex, PoisonError};

/// How a person logs in, and where what they got is kept.
#[derive(Clone)]
pub struct OAuth {
    /// Where the authorization server sends the person back to, such as `http://127.0.0.1:8765/callback`.
    pub redirect_uri: String,
    /// Where our client's own metadata lies, for authorization servers that know clients by it. `https:`.
    pub client_metadata_url: Option<String>,
    /// The id and the secret of a client that was registered by hand.
    pub registered: Option<(String, Option<String>)>,
    /// Shows the page.
    pub consent: Arc<dyn Consent>,
    /// Keeps tokens from one start to the next.
    pub tokens: Arc<dyn TokenStore>,
}

/// Shows a person the page on which they log in.
pub trait Consent: Send + Sync {
    /// Opens this page and returns the whole address that the person was sent back to, or why there is none.
    fn ask(&self, server: &str, url: &str) -> BoxFuture<'static, Result<String, String>>;
}

/// Keeps what a person got by logging in: a secret, as text.
pub trait TokenStore: Send + Sync {
    /// What is kept for a server.
    fn load(&self, server: &str) -> Option<String>;

    /// Keeps this for a server; nothing forgets it.
    fn keep(&self, server: &str, secret: Option<String>);
}

/// Keeps tokens for as long as the process runs.
#[derive(Default)]
pub struct MemoryTokens(Mutex<std::collections::HashMap<String, String>>);

impl TokenStore for MemoryTokens {
    fn load(&self, server: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    fn keep(&self, server: &str, secret: Option<String>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match secret {
            Some(secret) => kept.insert(server.into(), secret),
            None => kept.remove(server),
        };
    }
}

/// One server's part of a store.
struct Drawer {
    tokens: Arc<dyn TokenStore>,
    name: String,
}

#[async_trait]
impl CredentialStore for Drawer {
    async fn load(&self) -> std::result::Result<Option<StoredCredentials>, AuthError> {
        // What cannot be read is as good as nothing: the person logs in again.
        Ok(self.tokens.load(&self.name).and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn save(&self, credentials: StoredCredentials) -> std::result::Result<(), AuthError> {
        self.tokens.keep(&self.name, serde_json::to_string(&credentials).ok());
        Ok(())
    }

    async fn clear(&self) -> std::result::Result<(), AuthError> {
        self.tokens.keep(&self.name, None);
        Ok(())
    }
}

/// A client with the token that is kept, if there is one and it is still this server's.
pub(super) async fn kept(oauth: &OAuth, server: &str, url: &str, http: &Bounded) -> Option<AuthClient<Bounded>> {
    let mut manager = manager(oauth, server, url, http).await.ok()?;
    let known = manager.initialize_from_store().await.unwrap_or(false);
    known.then(|| AuthClient::new(http.clone(), manager))
}

/// Logs in, as a server's challenge says how, and returns a client with the token.
///
/// # Errors
/// If the person does not want to, or a server says something that cannot be trusted.
pub(super) async fn log_in(
    oauth: &OAuth,
    server: &str,
    url: &str,
    http: &Bounded,
    challenge: &str,
) -> Result<AuthClient<Bounded>> {
    let failed = |error: AuthError| {
        let what = format!("cannot log in to the MCP server `{server}`");
        let help = "check the address, and that the server's authorization server is up";
        let error = Error::input(what).cause(error).help(help);
        match http.unreached.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => error.cause(why),
            None => error,
        }
    };
    let manager = manager(oauth, server, url, http).await.map_err(failed)?;
    let mut state = OAuthState::Unauthorized(manager);
    let mut request =
        AuthorizationRequest::new(&oauth.redirect_uri).with_client_name("Narthex").with_challenge(challenge);
    // A server that wants more wants it besides what was granted: what is asked for replaces what was.
    let wanted = scopes(url, challenge);
    if let Some((wanted, granted)) = wanted.zip(granted(oauth, server, url)) {
        let added = wanted.into_iter().filter(|scope| !granted.contains(scope)).collect::<Vec<_>>();
        request = request.with_scopes(granted.iter().cloned().chain(added));
    }
    if let Some(url) = &oauth.client_metadata_url {
        request = request.with_client_metadata_url(url);
    }
    if let Some((id, secret)) = &oauth.registered {
        request = request.with_preregistered_client(id);
        if let Some(secret) = secret {
            request = request.with_client_secret(secret);
        }
    }
    state.start_authorization(request).await.map_err(failed)?;
    let page = state.get_authorization_url().await.map_err(failed)?;
    let back = oauth
        .consent
        .ask(server, &page)
        .await
        .map_err(|why| Error::input(format!("nobody logged in to the MCP server `{server}`")).cause(why))?;
    state.handle_callback_url(&back).await.map_err(failed)?;
    let manager = state.into_authorization_manager();
    let manager = manager.ok_or_else(|| Error::internal("logging in ended without a token"))?;
    Ok(AuthClient::new(http.clone(), manager))
}

/// What a challenge asks for besides, if it says that the token does not allow enough.
fn scopes(url: &str, challenge: &str) -> Option<Vec<String>> {
    let params = WWWAuthenticateParams::parse(challenge, &reqwest::Url::parse(url).ok()?);
    let scope = params.scope.filter(|_| params.error.as_deref() == Some("insufficient_scope"))?;
    Some(scope.split_whitespace().map(String::from).collect())
}

/// What was granted before.
fn granted(oauth: &OAuth, server: &str, url: &str) -> Option<Vec<String>> {
    let text = oauth.tokens.load(&drawer(server, url))?;
    let stored: StoredCredentials = serde_json::from_str(&text).ok()?;
    (!stored.granted_scopes.is_empty()).then_some(stored.granted_scopes)
}

/// Under which name a store keeps a server's token. The address is part of it: a server that moves does not get the old
/// one's token.
fn drawer(server: &str, url: &str) -> String {
    format!("{server} {url}")
}

async fn manager(
    oauth: &OAuth,
    server: &str,
    url: &str,
    http: &Bounded,
) -> std::result::Result<AuthorizationManager, AuthError> {
    let mut manager = AuthorizationManager::new_with_oauth_http_client(url, Arc::new(http.clone())).await?;
    manager.set_credential_store(Drawer { tokens: oauth.tokens.clone(), name: drawer(server, url) });
    Ok(manager)
}
