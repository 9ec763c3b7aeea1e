//! Pages for people: what is here, how large it is, how to get it. No script, nothing from elsewhere, nothing to change.

use std::borrow::Cow;
use std::fmt::Write;

use hyper::{StatusCode, header};
use mica_oci::Repository;

use super::body::Payload;
use super::exchange::{Answer, Exchange};
use super::reply::Reply;
use crate::access::Right;
use crate::error::Refusal;
use crate::storage::meta::{Holding, Tagged};

/// Rows of a table.
const PAGE: usize = 200;
const STYLE: &str = include_str!("page.css");
/// Only the style above is applied; nothing is loaded, run, framed or sent.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// `GET /`
pub(super) fn overview(exchange: &Exchange) -> Answer {
    let access = &exchange.shared.settings.access;
    if exchange.query.get("login").is_some() {
        access.demand_user(&exchange.who)?;
    }
    let after = exchange.query.get("after").unwrap_or_default();
    let meta = &exchange.shared.storage.meta;
    let mut found = meta.holdings(after, PAGE + 1).map_err(Refusal::internal)?;
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let next = found.last().filter(|_| more).map(|holding| holding.repository.clone());
    let may_pull = |holding: &Holding| {
        let repository = holding.repository.parse::<Repository>();
        repository.is_ok_and(|repository| access.allows(&exchange.who, &repository, Right::Pull))
    };
    found.retain(may_pull);
    let mut text = heading("Repositories");
    if access.has_users() {
        text.push_str(&match &exchange.who.user {
            Some(user) => format!("<p class=dim>logged in as {}</p>", escaped(user)),
            None => "<p class=dim>what everybody may see; <a href=\"/?login\">log in</a></p>".to_owned(),
        });
    }
    if found.is_empty() {
        let host = escaped(exchange.front.host());
        let _ =
            write!(text, "<p>Nothing here yet. <code>docker push {host}/NAME:TAG</code> changes that.</p>");
    } else {
        text.push_str("<table><tr><th>Repository<th class=n>Tags<th class=n>Manifests<th class=n>Size\n");
        for holding in &found {
            let name = escaped(&holding.repository);
            let _ = writeln!(
                text,
                "<tr><td><a href=\"/repositories/{name}\">{name}</a><td class=n>{}<td class=n>{}<td class=n>{}",
                holding.tags,
                holding.manifests,
                size(holding.bytes)
            );
        }
        text.push_str("</table>");
    }
    if let Some(next) = next {
        let _ = write!(text, "<p><a href=\"/?after={}\">more</a></p>", escaped(&next));
    }
    let (blobs, bytes) = meta.totals().map_err(Refusal::internal)?;
    if access.is_open() || exchange.who.user.is_some() {
        let _ = write!(
            text,
            "<p class=dim>{blobs} blobs, {} on disk; what repositories share is there once</p>",
            size(bytes)
        );
    }
    Ok(html(&text))
}

/// `GET /repositories/<name>`
pub(super) fn contents(exchange: &Exchange, repository: &Repository) -> Answer {
    let meta = &exchange.shared.storage.meta;
    if !meta.has_repository(repository).map_err(Refusal::internal)? {
        return Err(super::listings::unknown_repository(repository));
    }
    let after = exchange.query.get("after").unwrap_or_default();
    let mut tags = meta.tagged(repository, after, PAGE + 1).map_err(Refusal::internal)?;
    let more = tags.len() > PAGE;
    tags.truncate(PAGE);
    let name = escaped(repository.as_str());
    let host = escaped(exchange.front.host());
    let mut text = heading(&name);
    text.push_str("<p><a href=\"/\">all repositories</a></p>");
    if let Some(first) = tags.first() {
        let _ = write!(text, "<p><code>docker pull {host}/{name}:{}</code></p>", escaped(&first.tag));
    }
    text.push_str("<table><tr><th>Tag<th>Manifest<th>Kind<th class=n>Size<th class=n>Moved\n");
    for tag in &tags {
        text.push_str(&row(tag));
    }
    text.push_str("</table>");
    if let Some(last) = tags.last().filter(|_| more) {
        let _ = write!(text, "<p><a href=\"/repositories/{name}?after={}\">more</a></p>", escaped(&last.tag));
    }
    Ok(html(&text))
}

fn row(tag: &Tagged) -> String {
    let moved =
        jiff::Timestamp::from_second(tag.moved).map(|time| time.strftime("%Y-%m-%d %H:%M").to_string());
    let kind = match mica_oci::media_type::is_index(&tag.media_type) {
        true => "index",
        false => tag
            .artifact_type
            .as_deref()
            .filter(|kind| !kind.contains("image.config") && !kind.contains("container.image"))
            .unwrap_or("image"),
    };
    format!(
        "<tr><td>{}<td><code>{}</code><td>{}<td class=n>{}<td class=n>{}\n",
        escaped(&tag.tag),
        escaped(&tag.digest),
        escaped(kind),
        size(tag.bytes),
        moved.unwrap_or_default()
    )
}

fn heading(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>\n{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
    )
}

fn html(text: &str) -> Reply {
    Reply::new(StatusCode::OK)
        .with(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .with(header::CONTENT_SECURITY_POLICY, POLICY)
        .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .with(header::REFERRER_POLICY, "no-referrer")
        .payload(Payload::Bytes(format!("{text}</body></html>\n").into()))
}

/// Text between tags and in quoted attributes.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['<', '>', '&', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Decimal units, as docker shows sizes.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.5 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_becomes_markup() {
        assert_eq!(escaped("<b a=\"x\">&'"), "&lt;b a=&quot;x&quot;&gt;&amp;&#39;");
        assert!(matches!(escaped("plain/name"), Cow::Borrowed(_)));
    }

    #[test]
    fn sizes_are_short() {
        let shown: Vec<String> = [0, 999, 1000, 1_540_000, 123_456_789, 5_000_000_000_000].map(size).to_vec();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.5 MB", "123 MB", "5.0 TB"]);
    }
}
