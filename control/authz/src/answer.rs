//! How a proxy is told: a code, a sentence, a header, and metadata for its logs.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::proto::check_response::HttpResponse;
use crate::proto::header_value_option::HeaderAppendAction;
use crate::proto::{
    CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus, OkHttpResponse,
    Status,
};
use crate::ruling::Ruling;

/// The header that carries verdict, reason, tier, policy and rule: to the server with a request
/// that passes, in place of what a client may have written there; to the client with a refusal.
pub(crate) const HEADER: &str = "x-margay-verdict";

impl From<&Ruling> for CheckResponse {
    /// The answer is always a whole one: to a failed call a proxy may be told to let pass.
    fn from(ruling: &Ruling) -> Self {
        let fields = fields(ruling);
        let text = fields.iter().map(|(key, value)| match *key {
            "verdict" => value.clone(),
            key => format!("{key}={value}"),
        });
        let header = header(&text.collect::<Vec<_>>().join("; "));
        let sentence = ruling.to_string();
        let http_response = match denial(ruling) {
            None => HttpResponse::OkResponse(OkHttpResponse { headers: vec![header] }),
            Some(code) => HttpResponse::DeniedResponse(DeniedHttpResponse {
                status: Some(HttpStatus { code }),
                headers: vec![header],
                body: format!("{sentence}\n"),
            }),
        };
        let value = |text: String| Value { kind: Some(Kind::StringValue(text)) };
        let metadata = fields.into_iter().map(|(key, text)| (key.to_owned(), value(text)));
        Self {
            status: Some(Status { code: code(ruling) as i32, message: sentence }),
            http_response: Some(http_response),
            dynamic_metadata: Some(Struct { fields: metadata.collect() }),
        }
    }
}

fn code(ruling: &Ruling) -> Code {
    match ruling {
        Ruling::Decided(decided) if decided.allowed => Code::Ok,
        Ruling::Decided(_) | Ruling::Unknown(_) => Code::PermissionDenied,
        Ruling::Unreadable(_) => Code::InvalidArgument,
        Ruling::NotReady => Code::Unavailable,
    }
}

/// The status of the refusal (RFC 9110 §15.5.4, §15.6.4).
fn denial(ruling: &Ruling) -> Option<i32> {
    match ruling {
        Ruling::NotReady => Some(503),
        ruling => (!ruling.allowed()).then_some(403),
    }
}

fn fields(ruling: &Ruling) -> Vec<(&'static str, String)> {
    let verdict = if ruling.allowed() { "allow" } else { "deny" };
    let mut fields = vec![("verdict", verdict.to_owned()), ("reason", ruling.reason().to_owned())];
    if let Some(decided) = ruling.decided() {
        let mut add = |key, value: Option<String>| fields.extend(value.map(|value| (key, value)));
        add("workload", Some(decided.workload.to_string()));
        add("tier", decided.tier.as_ref().map(ToString::to_string));
        add("policy", decided.policy.as_ref().map(ToString::to_string));
        add("rule", decided.rule.map(|rule| rule.to_string()));
    }
    fields
}

/// A header takes visible ASCII and blanks (RFC 9110 §5.5).
fn header(text: &str) -> HeaderValueOption {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let value = text.chars().map(visible).collect();
    HeaderValueOption {
        header: Some(HeaderValue { key: HEADER.to_owned(), value }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
