//! The ports of a rule: networking/v1 `NetworkPolicyPort`.

use std::sync::Arc;

use k8s_openapi::{api::networking::v1::NetworkPolicyPort, apimachinery::pkg::util::intstr::IntOrString};

use super::{port_number, protocol};
use crate::{
    diagnostic::{FieldPath, Problems},
    model::PortMatch,
};

/// One element of `ports`; [`PortMatch::Nothing`] and a diagnostic if it can't be used.
pub(super) fn port_match(object: &NetworkPolicyPort, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> PortMatch {
    usable(object, path, problems).unwrap_or(PortMatch::Nothing)
}

fn usable(object: &NetworkPolicyPort, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> Option<PortMatch> {
    let port_path = path.field("port");
    let end_path = path.field("endPort");
    let protocol = protocol(object.protocol.as_deref())
        .map_err(|message| problems.error(&path.field("protocol"), message))
        .ok()?;
    let first = match (&object.port, object.end_port) {
        (None, None) => return Some(PortMatch::All(protocol)),
        (None, Some(_)) => {
            problems.error(&end_path, "endPort needs a port to begin with; add a numeric port");
            return None;
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            problems.error(&end_path, "endPort doesn't go with a named port; give the port by number");
            return None;
        }
        (Some(IntOrString::String(name)), None) => {
            port_name(name).map_err(|message| problems.error(&port_path, message)).ok()?;
            return Some(PortMatch::Named(protocol, Arc::from(&**name)));
        }
        (Some(IntOrString::Int(number)), _) => {
            port_number(*number).map_err(|message| problems.error(&port_path, message)).ok()?
        }
    };
    let last = match object.end_port {
        None => first,
        Some(number) => port_number(number).map_err(|message| problems.error(&end_path, message)).ok()?,
    };
    if last < first {
        problems.error(&end_path, format!("endPort {last} is below port {first}; swap them"));
        return None;
    }
    Some(PortMatch::Range { protocol, first, last })
}

/// The API server's `IsValidPortName` (IANA service name syntax, RFC 6335 section 5.1).
pub(super) fn port_name(name: &str) -> Result<(), String> {
    let bytes = name.as_bytes();
    let valid = (1..=15).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        && bytes.iter().any(u8::is_ascii_lowercase)
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    if valid {
        Ok(())
    } else if !name.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        Err(format!("{name:?} is a string, and so the name of a port; write the number without quotes"))
    } else {
        Err(format!(
            "{name:?} is no port name; write at most 15 lower-case letters, digits and single '-', with at least one \
             letter"
        ))
    }
}
