//! The API without a port: requests of the same process, answered by the same routes, so that whoever asks a model in
//! this process asks it as everybody does. Carries no key and is in no access log. Knows no endpoint.

use crate::{Models, ServeOptions, router};
use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use futures::{StreamExt, stream::BoxStream};
use narthex_base::Result;
use narthex_http::HttpOptions;
use tower::ServiceExt;

/// The API without a port.
#[derive(Clone)]
pub struct InHouse {
    routes: Router,
}

/// An answer that begins.
pub struct HouseAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Milliseconds after which to ask again, if it says so.
    pub wait_ms: Option<u64>,
    /// The body, in pieces; an error says what broke.
    pub body: BoxStream<'static, std::result::Result<Vec<u8>, String>>,
}

impl InHouse {
    /// Over these models. Needs a tokio runtime to run in.
    ///
    /// # Errors
    /// As [`router`].
    pub fn new(models: Models, options: &ServeOptions) -> Result<Self> {
        // Nobody else reaches it.
        let http = HttpOptions { limits: options.http.limits.clone(), ..HttpOptions::default() };
        Ok(Self { routes: router(models, &ServeOptions { http, ..options.clone() })? })
    }

    /// Posts JSON to a path. Dropping what comes back ends the request.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> HouseAnswer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        let reply = match request {
            Ok(request) => match self.routes.clone().oneshot(request).await {
                Ok(reply) => reply,
                Err(never) => match never {},
            },
            Err(error) => {
                let body = futures::stream::iter([Ok(error.to_string().into_bytes())]).boxed();
                return HouseAnswer { status: 400, wait_ms: None, body };
            }
        };
        let (head, body) = reply.into_parts();
        let seconds = head.headers.get(header::RETRY_AFTER).and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
        let piece = |piece: std::result::Result<axum::body::Bytes, axum::Error>| match piece {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(error) => Err(error.to_string()),
        };
        let body = body.into_data_stream().map(piece).boxed();
        HouseAnswer { status: head.status.as_u16(), wait_ms: seconds.map(|seconds| 1000 * seconds), body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Serving, testing};
    use narthex_http::ApiKey;
    use serde_json::{Value, json};
    use std::sync::Arc;

    #[tokio::test]
    async fn answers_as_the_server_does_without_its_key() {
        let http = HttpOptions { api_keys: vec![ApiKey::new("secret")], ..HttpOptions::default() };
        let models = Models::of(Arc::new(Serving::new(testing::model(testing::answer("yes")))));
        let house = InHouse::new(models, &ServeOptions { http, ..ServeOptions::default() }).unwrap();
        for (body, status, pointer, expected) in [
            (json!({"prompt": "x"}), 200, "/choices/0/text", json!("yes")),
            (json!({"prompt": 1}), 400, "/error/param", json!("prompt")),
        ] {
            let answer = house.post("/v1/completions", body.to_string().into_bytes()).await;
            let pieces: Vec<_> = answer.body.map(|piece| piece.unwrap()).collect().await;
            let said: Value = serde_json::from_slice(&pieces.concat()).unwrap();
            assert_eq!((answer.status, said.pointer(pointer)), (status, Some(&expected)), "{said}");
        }
        assert_eq!(house.post("no path", vec![]).await.status, 400);
    }
}
