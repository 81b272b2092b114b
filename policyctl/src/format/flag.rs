//! The value of `-o`: a format's name, or `jsonpath=` with a template. [`OutputParser`] for answers, [`SnapshotParser`] for
//! snapshots.

use std::ffi::OsStr;

use clap::{
    Arg, Command, ValueEnum as _,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Output;
use crate::jsonpath::Template;

/// Reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputParser;

impl TypedValueParser for OutputParser {
    type Value = Output;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Output, clap::Error> {
        let template = value.to_str().and_then(|text| text.strip_prefix("jsonpath=").map(Template::parse));
        match template {
            None => EnumValueParser::<Output>::new().parse_ref(command, arg, value),
            // there is one in a process, for as long as it lives
            Some(Ok(template)) => Ok(Output::Jsonpath(Box::leak(Box::new(template)))),
            Some(Err(message)) => {
                let flag = arg.map_or_else(|| "-o".to_owned(), ToString::to_string);
                let message = format!("invalid value '{}' for '{flag}': {message}\n", value.to_string_lossy());
                Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let named = Output::value_variants().iter().filter_map(Output::to_possible_value);
        let template = PossibleValue::new("jsonpath=TEMPLATE").help("A template in kubectl's dialect");
        Some(Box::new(named.chain([template])))
    }
}

/// Reads it, where a state is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotParser;

impl TypedValueParser for SnapshotParser {
    type Value = Output;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Output, clap::Error> {
        match value.to_str() {
            Some("yaml") => Ok(Output::Yaml),
            Some("json") => Ok(Output::Json),
            Some(text) if text.starts_with("jsonpath=") => OutputParser.parse_ref(command, arg, value),
            _ => {
                let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
                let flag = arg.map_or_else(|| "-o".to_owned(), ToString::to_string);
                let values = self.possible_values().into_iter().flatten().map(|value| value.get_name().to_owned());
                error.insert(ContextKind::InvalidArg, ContextValue::String(flag));
                error.insert(ContextKind::InvalidValue, ContextValue::String(value.to_string_lossy().into_owned()));
                error.insert(ContextKind::ValidValue, ContextValue::Strings(values.collect()));
                Err(error)
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = [
            PossibleValue::new("yaml").help("For people, too"),
            PossibleValue::new("json").help("An object a line: shorter, and read faster"),
            PossibleValue::new("jsonpath=TEMPLATE").help("What a template in kubectl's dialect makes of it"),
        ];
        Some(Box::new(values.into_iter()))
    }
}
