//! Tells somebody of pushes and deletions, in docker's envelope, in order, until it was heard.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};

use super::{Shared, StartError};
use crate::settings::Webhook;
use crate::storage::events;

/// Events in one request.
const TOGETHER: usize = 50;
/// How often new events are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The longest wait after failures.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(20);

/// Sends events.
pub(super) struct Sender {
    url: Url,
    secret: Option<Vec<u8>>,
    client: reqwest::Client,
}

impl Sender {
    pub(super) fn new(webhook: &Webhook) -> Result<Self, StartError> {
        let failed = |why: String| StartError::Webhook { url: webhook.url.clone(), why };
        let url: Url = webhook.url.parse().map_err(|_| failed("it is no URL".to_owned()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(failed("it has to begin with http:// or https://".to_owned()));
        }
        // Fails if it was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("mica/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { url, secret: webhook.secret.clone(), client })
    }

    /// Sends what there is, for as long as the registry serves.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut wait = LOOK;
        loop {
            wait = match self.round(&shared).await {
                Ok(true) => continue,
                Ok(false) => LOOK,
                Err(why) => {
                    // Once per failure in a row is enough to be found in a log.
                    if wait == LOOK {
                        shared
                            .observer
                            .notice(&format!("events wait, {} does not take them: {why}", self.url));
                    }
                    (wait * 2).min(PATIENCE)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns whether there was anything to send.
    async fn round(&self, shared: &Shared) -> Result<bool, String> {
        let found = shared.storage.meta.events(TOGETHER).map_err(|error| error.to_string())?;
        let Some((last, _)) = found.last() else { return Ok(false) };
        let last = *last;
        let events: Vec<Value> = found.iter().filter_map(|(id, body)| event(*id, body)).collect();
        let body = json!({ "events": events }).to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .header("Content-Type", "application/vnd.docker.distribution.events.v1+json");
        if let Some(secret) = &self.secret {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = ring::hmac::sign(&key, body.as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request = request.header("X-Hub-Signature-256", format!("sha256={hex}"));
        }
        let answer =
            request.body(body).send().await.map_err(|error| crate::error::chain(&error.without_url()))?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status().as_u16()));
        }
        let told = shared.storage.writer.commit(move |batch| events::told(batch, last)).await;
        told.map(|()| true).map_err(|error| crate::error::chain(&error))
    }
}

/// An event as it is sent; its id tells who hears it twice.
fn event(id: i64, body: &str) -> Option<Value> {
    let mut event: Value = serde_json::from_str(body).ok()?;
    event["id"] = Value::from(id.to_string());
    Some(event)
}
