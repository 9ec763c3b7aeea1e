//! `GET /token`: docker's token service.

use serde_json::json;

use super::exchange::{Answer, Exchange};
use super::reply::Reply;
use crate::access::tokens::{LIFETIME, grants};
use crate::error::{Code, Refusal};

/// A token for the scopes asked for, as far as the caller may have them: what is left out is refused when it is used.
pub(super) fn issue(exchange: &Exchange) -> Answer {
    let access = &exchange.shared.settings.access;
    if exchange.who.has_token() {
        return Err(Refusal::new(
            hyper::StatusCode::UNAUTHORIZED,
            Code::Unauthorized,
            "a token is given for a password, not for another token",
        ));
    }
    let wanted = grants(exchange.query.all("scope"));
    let token = access.issue(&exchange.who, exchange.front.host(), wanted)?;
    Ok(Reply::json(&json!({
        "token": token,
        "access_token": token,
        "expires_in": LIFETIME,
        "issued_at": jiff::Timestamp::now().to_string(),
    })))
}
